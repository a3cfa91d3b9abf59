"""`anystep demo`: the whole claim in a few minutes, on real models."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.cli.compare import cancel, say, tables
from anystep.cli.interrupt import stopping
from anystep.cli.solve import cancel as cancel_live

if TYPE_CHECKING:
    from anystep.bench import Comparison, Report
    from anystep.view import Meter, Section

QUESTION_MODEL, QUESTION_TASK, QUESTION_ITEM = "smollm2-135m", "word-problems", 0
QUESTION_METHOD = "best_of_n(n=8, reward=equations)"
QUESTION_TOKENS = 1_500

CHAIN_MODEL, CHAIN_TASK, CHAIN_ITEMS = "chainlm-2m", "chains", 100
CHAIN_METHODS = ("best_of_n(reward=chain_steps)", "particle_filter(potential=chain_steps)", "best_of_n(reward=oracle)")
CHAIN_NS = (1, 4, 16, 64)

WORD_MODEL, WORD_TASK, WORD_ITEMS = "smollm2-135m", "word-problems", 20
WORD_METHODS = ("best_of_n(reward=equations)",)
WORD_NS = (1, 4, 8)

TITLE = "anystep demo: what more compute buys"
CHAIN_NOTE = (
    "ChainLM writes chains of steps; a learned step reward, which has not seen these problems, chooses among them. "
    "The exact checker's curve is an upper bound, for it reads the answer key."
)
WORD_NOTE = (
    "Two-step word problems under a verifier that checks every equation a chain writes and needs no answer key. With "
    "so few problems this table claims nothing; its intervals say so."
)


def demo(
    out: Annotated[Path, typer.Option(help="Write demo.html and demo.json into this folder.")] = Path("demo-results"),
    seed: o.Seed = 0,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer one question live, then compare methods at growing budgets on two tasks.

    Ctrl-C ends the part that is running, prints what it has and writes the report.
    """
    from anystep.view import Meter, Section, check_folder, duration, write

    check_folder(out)
    began = time.perf_counter()
    section, interrupted = _question(seed, quiet)
    sections = [section]
    parts: list[tuple[str, str, Any]] = [
        ("ChainLM with a learned step reward", CHAIN_NOTE, _chains),
        ("Word problems with SmolLM2", WORD_NOTE, _words),
    ]
    with Meter(quiet=quiet) as meter:
        for i, (heading, note, make) in enumerate(parts):
            if interrupted:
                break
            meter.note(f"\n{i + 2}. {heading}")
            report, interrupted = _compared(make, meter, seed)
            sections.append(Section(heading, (note,), report=report))
            meter.note("")
            meter.pause()
            print(f"{tables(report)}\n{note}", flush=True)
    html, beside = write(out, "demo", TITLE, sections, _record(sections))
    print(f"\nThe report: {html} (its data: {beside})")
    if not quiet:
        print(f"{duration(time.perf_counter() - began)} in all", file=sys.stderr)
    raise typer.Exit(130 if interrupted else 0)


def _question(seed: int, quiet: bool) -> tuple[Section, bool]:
    """One question answered live, and whether Ctrl-C ended it."""
    from anystep import tasks
    from anystep.cli.engine import engine_for
    from anystep.drive import drive
    from anystep.ledger import Budget
    from anystep.solve import run_for
    from anystep.view import Live, Section, cost_line, printable

    task = tasks.load(QUESTION_TASK, QUESTION_ITEM + 1)[QUESTION_ITEM]
    question = str(task.meta.get("question", task.prompt))
    if not quiet:
        print(f"1. One question, live: {printable(question)}", file=sys.stderr)
    live = Live(f"{QUESTION_METHOD} on {QUESTION_MODEL}", quiet=quiet, every=2.0)
    with stopping(lambda: cancel_live(live)) as stop:
        engine = engine_for(QUESTION_MODEL)
        with live:
            budget = Budget(tokens=QUESTION_TOKENS)
            run = run_for(task, engine, QUESTION_METHOD, budget, seed, show=live.show, watch=live.watch)
            drive(run)
    answer = run.answer
    text = "(no answer)" if answer is None or answer.text is None else answer.text.strip()
    right = "right" if task.score(text) == 1.0 else f"wrong: it is {task.reference}"
    why = "" if answer is None else f"stopped because {answer.stopped_because}; "
    told = (
        ("Question", question),
        (f"Answer, by {QUESTION_METHOD}", text),
        ("Checked", right),
        ("Spent", f"{why}{cost_line(run.spent)}"),
    )
    print(printable("\n".join(f"{who}: {said}" for who, said in told)), flush=True)
    return Section(f"One question, answered by {QUESTION_MODEL}", transcript=told), stop.asked


def _compared(make: Any, meter: Meter, seed: int) -> tuple[Report, bool]:
    """Run one comparison under the meter; whether Ctrl-C ended it."""
    comparison: Comparison = make(meter, seed)
    with stopping(lambda: cancel(comparison)) as stop:
        return comparison.run(), stop.asked


def _chains(meter: Meter, seed: int) -> Comparison:
    return _comparison(CHAIN_MODEL, CHAIN_TASK, CHAIN_ITEMS, CHAIN_METHODS, CHAIN_NS, meter, seed)


def _words(meter: Meter, seed: int) -> Comparison:
    return _comparison(WORD_MODEL, WORD_TASK, WORD_ITEMS, WORD_METHODS, WORD_NS, meter, seed)


def _comparison(
    model: str, task: str, items: int, methods: tuple[str, ...], ns: tuple[int, ...], meter: Meter, seed: int
) -> Comparison:
    from anystep import tasks
    from anystep.bench import Comparison, entry
    from anystep.cli.engine import engine_for
    from anystep.solve import process_for

    engine = engine_for(model)
    return Comparison(
        [entry(text, ns) for text in methods],
        tasks.load(task, items),
        lambda t, greedy: process_for(t, engine, **({"temperature": 0.0} if greedy else {})),
        seeds=(seed,),
        progress=lambda p: say(meter, p),
        title=f"{model} on {task}",
        model=model,
        task=task,
    )


def _record(sections: list[Section]) -> str:
    """The page's data: each part's texts, and its comparison as `anystep compare --json` has it."""
    parts = [
        {
            "heading": s.heading,
            "paragraphs": list(s.paragraphs),
            "transcript": [list(turn) for turn in s.transcript],
            "report": None if s.report is None else s.report.record(),
        }
        for s in sections
    ]
    return json.dumps({"schema": 1, "title": TITLE, "sections": parts}, indent=1, allow_nan=False) + "\n"
