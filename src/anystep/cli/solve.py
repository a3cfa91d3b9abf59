"""`anystep solve`: one question, one answer."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.cli.interrupt import stopping
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.run import Run
    from anystep.tasks.task import Task
    from anystep.view import Live

EXAMPLE = 'anystep solve "What is 17 * 23?"'


def solve(
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from standard input.")] = None,
    model: o.Model = "smollm2-135m",
    task: Annotated[str | None, typer.Option(help="Take an item of this task instead of a question.")] = None,
    item: Annotated[int | None, typer.Option(help="Which item of the task, from 0.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help='Such as "self_consistency(n=8)" (a vote: the default of a task), "greedy" (the default of a '
            'question) or "best_of_n(n=16, reward=equations)".'
        ),
    ] = None,
    tokens: o.Tokens = None,
    seconds: o.Seconds = None,
    calls: o.Calls = None,
    money: o.Money = None,
    prices: o.Prices = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = None,
    speculate: Annotated[
        str | None,
        typer.Option(
            help='"lookahead": the same answer in fewer passes of a local model, where it quotes its question or '
            "repeats itself."
        ),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Write the run into this file as it goes; `anystep resume` goes on with it.")
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer one question, or one item of a task, within a budget.

    Ctrl-C stops the run and prints the best answer so far; a second Ctrl-C aborts.
    """
    from anystep import journal as journals
    from anystep.cli.engine import engine_for
    from anystep.naming import named_method
    from anystep.recipe import recipe
    from anystep.solve import default_method, run_for

    limit, model = o.budget(tokens, seconds, calls, money), o.priced(model, prices)
    asked = asked_for(question, task, item)
    method = default_method(asked) if method is None else method
    named_method(method, asked)  # a wrong method is said before a model is loaded
    given = {"temperature": temperature, "speculate": speculate}
    more: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    named = None if task is None else (task, item or 0)
    kept = None if journal is None else journals.open(journal, recipe(asked, model, method, more, named))

    def make(live: Live) -> Run:
        return run_for(
            asked, engine_for(model), method, limit, seed, show=live.show, watch=live.watch, journal=kept, **more
        )

    with contextlib.nullcontext() if kept is None else kept:
        raise typer.Exit(conduct(make, lambda: engine_for(model), f"{method} on {model}", model, asked, as_json, quiet))


def conduct(
    make: Callable[[Live], Run],
    before: Callable[[], Any],
    title: str,
    model: str,
    asked: str | Task | Any,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make a run and drive it, shown live; say its answer and what it cost. The exit code.

    before: loads what takes long, and may say so itself.
    """
    from anystep.answer import AllFailed
    from anystep.drive import drive
    from anystep.journal import FileJournal, summary
    from anystep.tasks.task import Task
    from anystep.view import Live

    live = Live(title, quiet=quiet)
    with stopping(lambda: cancel(live)) as stop:
        before()
        with live, contextlib.suppress(AllFailed):  # its summary says so
            run = make(live)
            drive(run)
    end = summary(run)
    task = asked if isinstance(asked, Task) else None
    if as_json:
        print(json.dumps(record(end, repr(run.method), model, run.seed, task), indent=2, allow_nan=False))
    elif end["text"] is not None:
        tell_answer(end["text"])
    if not quiet:
        tell_end(end, task, live.tail)
        if isinstance(run.journal, FileJournal):
            tell_journal(end, run.journal.path)
    elif run.error is not None:
        from anystep.view import printable

        print(printable(f"anystep: {' '.join(str(run.error).split())}"), file=sys.stderr)
    return 130 if stop.asked else 0 if end["text"] is not None else 1


def cancel(live: Live) -> bool:
    """Stop the run that is shown; False where none has begun."""
    if live.run is None:
        return False
    live.run.cancel()
    return True


def asked_for(question: str | None, task: str | None, item: int | None) -> str | Task:
    """The question or the task's item that the options mean; UsageError where they mean none, or two."""
    if task is None:
        if item is not None:
            raise UsageError(f"--item {item} needs a task; call anystep solve --task word-problems --item {item}.")
        text = sys.stdin.read() if question == "-" else question
        if text is None or not text.strip():
            what = "there is no question" if text is None else "the question is empty"
            raise UsageError(f"{what}; call {EXAMPLE}.")
        return text
    if question is not None:
        raise UsageError(f"a question and --task {task} are two things to answer; give one of them.")
    at = 0 if item is None else item
    if not 0 <= at < o.MOST_ITEMS:
        last = o.MOST_ITEMS - 1
        raise UsageError(f"--item {at}: items count from 0 to {last:,}; call anystep solve --task {task} --item 0.")
    from anystep import tasks

    return tasks.load(task, at + 1)[at]


def tell_answer(text: str) -> None:
    """The answer on standard output, made printable."""
    from anystep.view import printable

    print(printable(text).strip())
    sys.stdout.flush()


def tell_end(end: Mapping[str, Any], task: Task | None, tail: str = "") -> None:
    """On standard error: how a run ended, how sure the vote was, what it cost and by whom."""
    from anystep.view import clipped, end_lines, printable

    scored = ""
    if task is not None and end["text"] is not None:
        scored = f"scored {task.score(end['text']):g}; the reference is {clipped(task.reference, 60)}"
    print(printable("\n".join(end_lines(end, tail, scored))), file=sys.stderr)


def tell_journal(end: Mapping[str, Any], path: Path) -> None:
    """On standard error: how a run that was stopped can go on."""
    from anystep.view import printable

    reason = end["stopped_because"]
    if reason == "cancelled":
        print(printable(f"to go on: anystep resume {path}"), file=sys.stderr)
    elif reason in o.EXAMPLES:
        print(printable(f"to go on with more: anystep resume {path} --{reason} MORE"), file=sys.stderr)


def record(end: Mapping[str, Any], method: str, model: str | None, seed: int, task: Task | None) -> dict[str, Any]:
    """A run as JSON: the answer, why it stopped, and the ledger. What is not known is null."""
    import anystep
    from anystep.journal import costs_of

    total, costs = costs_of(end)
    score = None if task is None or end["text"] is None else task.score(end["text"])
    evidence = end["evidence"]
    return {
        **{k: end[k] for k in ("answer", "text", "support")},
        "confidence": end.get("confidence"),  # a journal of an earlier version has none
        "evidence": None if isinstance(evidence, str) else evidence,
        **{k: end[k] for k in ("stopped_because", "started", "finished", "failed", "errors", "note")},
        "cost": {**asdict(total), "tokens": total.tokens},
        "costs": {by: {**asdict(cost), "tokens": cost.tokens} for by, cost in costs.items()},
        "method": method,
        "model": model,
        "seed": seed,
        "task": None if task is None else task.id,
        "score": None if score is None or math.isnan(score) else score,
        "version": anystep.__version__,
    }
