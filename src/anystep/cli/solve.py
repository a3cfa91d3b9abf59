"""`anystep solve`: one question, one answer."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.cli.interrupt import stopping
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.answer import Answer
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
    seed: o.Seed = 0,
    temperature: o.Temperature = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer one question, or one item of a task, within a budget.

    Ctrl-C stops the run and prints the best answer so far; a second Ctrl-C aborts.
    """
    from anystep.answer import AllFailed
    from anystep.drive import drive
    from anystep.solve import default_method, engine_for, named_method, run_for
    from anystep.view import Live

    limit = o.budget(tokens, seconds, calls, money)
    asked = asked_for(question, task, item)
    method = default_method(asked) if method is None else method
    named_method(method, asked)  # a wrong method is said before a model is loaded
    more: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    live = Live(f"{method} on {model}", quiet=quiet)
    failure = ""
    with stopping(lambda: cancel(live)) as stop:
        engine = engine_for(model)
        with live:
            run = run_for(asked, engine, method, limit, seed, show=live.show, watch=live.watch, **more)
            try:
                drive(run)
            except AllFailed as error:
                failure = str(error)
    found = None if run.answer is None or run.answer.text is None else run.answer
    task_asked = None if isinstance(asked, str) else asked
    if as_json:
        print(json.dumps(record(run, model, task_asked, failure), indent=2, allow_nan=False))
    elif found is not None:
        tell_answer(found)
    if not quiet:
        tell_run(run, live, task_asked, failure)
    elif failure:
        print(f"anystep: {failure}", file=sys.stderr)
    raise typer.Exit(130 if stop.asked else 0 if found is not None else 1)


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


def tell_answer(answer: Answer) -> None:
    """The answer on standard output, made printable."""
    from anystep.view import printable

    print(printable(answer.text or "").strip())
    sys.stdout.flush()


def tell_run(run: Run, live: Live, task: Task | None, failure: str) -> None:
    """On standard error: how it ended, how sure the vote was, what it cost and by whom."""
    from anystep.view import clipped, cost_line, printable

    answer = run.answer
    lines = []
    if failure:
        lines.append(f"failed: {failure}")
    elif answer is None or answer.text is None:
        written = f"; one was writing: {clipped(live.tail, 200)}" if live.tail.strip() else ""
        lines.append(f"no answer: nothing has finished{written}")
    if answer is not None:
        share = "" if answer.support is None else f", {100 * answer.support:.0f}% of the votes"
        value = "" if answer.value is None else f"answer {clipped(str(answer.value), 60)}{share}; "
        of = f" of {answer.started}" if answer.finished <= answer.started else ""  # branches finish too
        lines.append(f"{value}{answer.finished}{of} finished; stopped because {answer.stopped_because}")
        lines += [answer.note] if answer.note else []
        if task is not None and answer.text is not None:
            lines.append(f"scored {task.score(answer.text):g}; the reference is {clipped(task.reference, 60)}")
    lines.append(f"spent {cost_line(run.spent)}")
    costs = run.ledger.by
    lines += [f"  {by}: {cost_line(cost)}" for by, cost in costs.items()] if len(costs) > 1 else []
    print(printable("\n".join(lines)), file=sys.stderr)


def record(run: Run, model: str, task: Task | None, failure: str) -> dict[str, Any]:
    """The run as JSON: the answer, why it stopped, and the ledger. What is not known is null."""
    import anystep

    answer = run.answer
    text = None if answer is None else answer.text
    score = None if task is None or text is None else task.score(text)
    evidence = None if answer is None else answer.evidence
    return {
        "answer": None if answer is None or answer.value is None else str(answer.value),
        "text": text,
        "support": None if answer is None else answer.support,
        "confidence": None if answer is None else answer.confidence,
        "evidence": evidence if evidence is not None and math.isfinite(evidence) else None,
        "stopped_because": "failed" if answer is None else answer.stopped_because,
        "started": run.books.started,
        "finished": run.finished,
        "failed": 0 if answer is None else answer.failed,
        "errors": [failure] if failure else list(() if answer is None else answer.errors),
        "note": "" if answer is None else answer.note,
        "cost": {**asdict(run.spent), "tokens": run.spent.tokens},
        "costs": {by: {**asdict(cost), "tokens": cost.tokens} for by, cost in run.ledger.by.items()},
        "method": repr(run.method),
        "model": model,
        "seed": run.seed,
        "task": None if task is None else task.id,
        "score": None if score is None or math.isnan(score) else score,
        "version": anystep.__version__,
    }
