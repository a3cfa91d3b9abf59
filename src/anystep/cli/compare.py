"""`anystep compare`: which method gives more for the same compute?"""

from __future__ import annotations

import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.cli.asked import NS, Asked, comparison, texts_of
from anystep.cli.interrupt import stopping
from anystep.errors import UsageError
from anystep.recipe import trusted

if TYPE_CHECKING:
    from anystep.bench import Comparison, Progress, Report, Store
    from anystep.view import Meter

STORE = "comparison.anystep.db"


def compare(
    context: typer.Context,
    task: Annotated[
        str | None,
        typer.Option(
            help="The task: chains, word-problems, procbench, programs, humaneval, premises, lines or "
            "reasoning-gym:<dataset>."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Problems of your own: a .jsonl, .json, .csv or .tsv file, one object a line.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(help="With --data: exact (the default), numeric, choice, math, python:module.function."),
    ] = None,
    question_field: Annotated[str | None, typer.Option(help="With --data: the field that is the question.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="With --data: the field that is the answer.")] = None,
    id_field: Annotated[str | None, typer.Option(help="With --data: the field that is the problem's name.")] = None,
    choices_field: Annotated[str | None, typer.Option(help="With --data: the field that holds the choices.")] = None,
    template: Annotated[
        str | None, typer.Option(help='With --data: what the question is put into, "{question}\\nAnswer:".')
    ] = None,
    extract: Annotated[
        str | None,
        typer.Option(
            help="With --data: how an answer is found in a text: answer, text, last-line, boxed, number, choice, math, "
            "re:PATTERN, python:module.function."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help='A method without its size, "best_of_n(reward=chain_steps)", or of a file, "my.py:name"; repeatable.'
        ),
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Several methods in one text, separated by semicolons.")] = None,
    methods_file: Annotated[str | None, typer.Option(help="A Python file of methods of your own; it is run.")] = None,
    ns: Annotated[str, typer.Option(help="The sizes each method is tried at.")] = NS,
    items: Annotated[int | None, typer.Option(help="How many problems: 50 of a task, all of --data.")] = None,
    model: o.Model = "smollm2-135m",
    temperature: o.Temperature = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this share.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest completion.")] = None,
    prices: Annotated[
        str | None, typer.Option(help="A server's prices for a million tokens: PROMPT,GENERATED[,CACHED].")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="A server's requests at once.")] = None,
    tokens: o.Tokens = None,
    seconds: o.Seconds = None,
    calls: o.Calls = None,
    money: o.Money = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; every item is run once a seed; repeatable.")] = None,
    rows: Annotated[int, typer.Option(help="The most states in flight at once.")] = 1024,
    out: Annotated[Path | None, typer.Option(help="Write comparison.html and .json into this folder.")] = None,
    store: Annotated[
        Path | None,
        typer.Option(help=f"Keep every run in this file, and go on from it; with --out, {STORE} in that folder."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what had failed, of what the store holds.")] = False,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Run several methods at growing n on the same problems and compare them at equal cost.

    Greedy and self-consistency are always among them. A budget here is a hard limit for each run. Ctrl-C prints what
    has finished. With a store nothing is lost or paid twice, however it ends: the same command goes on, and so does
    `anystep compare --store FILE`, which needs nothing else; other options beside it ask for more.
    """
    given = {k: v for k, v in context.params.items() if _typed(context, k)}
    own = {f.name for f in fields(Asked)} - {"methods", "seeds", "folder"}
    changes: dict[str, Any] = {k: v for k, v in given.items() if k in own}
    if method or methods:
        changes["methods"] = texts_of(method, methods)
    if seed:
        changes["seeds"] = tuple(seed)
    raise typer.Exit(_compare(changes, out, store, retry, as_json, quiet))


def resume_store(path: Path, model: str | None = None, as_json: bool = False, quiet: bool = False) -> int:
    """Go on with the comparison that a store holds, as it was asked for; returns the exit code.

    model: where it is now, if a server has moved.
    """
    return _compare({} if model is None else {"model": model}, None, path, False, as_json, quiet)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _compare(
    changes: dict[str, Any], out: Path | None, store: Path | None, retry: bool, as_json: bool, quiet: bool
) -> int:
    from anystep.bench import Store
    from anystep.view import Meter, Section, check_folder, printable, write

    if out is not None:
        check_folder(out)
    place = store or (out / STORE if out is not None else None)
    asked = Asked(**changes, folder=os.getcwd())
    known = "data" in changes or "task" in changes
    if place is None and retry:
        raise UsageError("--retry needs a store: call anystep compare --store FILE --retry.")
    if store is not None and not known and not store.exists():
        raise UsageError(f"there is no {store}; call anystep compare --data problems.jsonl --store {store}.")
    kept = None if place is None or known else Store(place)
    try:
        if kept is not None:
            asked, out = _settled(kept, asked, changes, out)
        with Meter(quiet=quiet) as meter:
            work = comparison(asked, lambda p: say(meter, p), lambda line: meter.note(printable(line)))
            if place is not None:  # only now: what is wrong with the options makes no file
                place.parent.mkdir(parents=True, exist_ok=True)
                work.store = kept = kept or Store(place)
                _begin(kept, work, asked, out, retry, meter)
            with stopping(lambda: cancel(work)) as stop:
                report = work.run()
    finally:
        if kept is not None:
            kept.close()
    print(report.to_json() if as_json else tables(report) + "\n", end="")
    if out is not None:
        html, beside = write(out, "comparison", report.title, [Section("", report=report)], report.to_json())
        if not quiet:
            print(f"wrote {html} and {beside}", file=sys.stderr)
    if not report.complete and kept is not None and not quiet:
        print(f"go on with: anystep compare --store {place}", file=sys.stderr)
    return 130 if stop.asked else 0


def _settled(kept: Store, asked: Asked, changes: dict[str, Any], out: Path | None) -> tuple[Asked, Path | None]:
    """What a store was asked for, with these changes. UsageError where it would run code, or ask a server elsewhere,
    that nobody named now: a store may come from anywhere."""
    before = kept.fact("asked")
    if before is None:
        raise UsageError(f"{kept.path} does not say what it was asked for; give --data or --task again.")
    settled = replace(Asked.of(before), **changes)
    if "model" not in changes:
        trusted(settled.model, kept.path)
    for name, value in settled.code().items():
        if name not in changes:
            flag = "--method" if name == "methods" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{kept.path} runs Python code: if {value!r:.200} is yours, say so: {flag} {value!r:.200}."
            )
    return settled, out or (kept.path.parent if kept.fact("beside") else None)


def _begin(kept: Store, work: Comparison, asked: Asked, out: Path | None, retry: bool, meter: Meter) -> None:
    """Make the store this comparison's, with what it was asked for, and say what is there."""
    work.claim()
    kept.keep("asked", asked.record())
    kept.keep("beside", out is not None and out.absolute() == kept.path.absolute().parent)  # where its report is
    if retry:
        n = kept.retry(("failed",))
        meter.note(f"{n:,} failed runs of {kept.path} are run again")
    if there := len(kept.trials()):
        meter.note(f"going on from {kept.path}: {there:,} runs are there")


def cancel(comparison: Comparison) -> bool:
    comparison.cancel()
    return True


def say(meter: Meter, p: Progress) -> None:
    """Show how far a comparison is."""
    failed = f", {p.failed:,} failed" if p.failed else ""
    told = f"run {p.done:,} of {p.total:,}{failed}, {p.tokens:,} tokens; {p.label} n={p.n}"
    meter.say(told, p.done / max(p.total, 1))


def tables(report: Report) -> str:
    """What was compared, every point, and the table at equal cost."""
    from anystep.view import ORACLE, cost_rows, facts, point_rows, printable, text_table

    parts = [printable(facts(report)), text_table(*point_rows(report)), "At equal cost", text_table(*cost_rows(report))]
    parts += [ORACLE] if report.oracles else []
    parts += [] if report.complete else ["Cancelled before its end: what had finished is shown."]
    return "\n\n".join(parts)
