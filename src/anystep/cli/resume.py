"""`anystep resume` and `anystep view`: go on with a run that is written in a journal, and look at one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anystep.cli import options as o
from anystep.cli.compare import resume_store
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.journal import FileJournal
    from anystep.ledger import Budget
    from anystep.run import Run
    from anystep.view import Live

RUN = Annotated[Path, typer.Argument(help="The journal that --journal wrote.")]
KEPT = Annotated[Path, typer.Argument(help="The journal that --journal wrote, or a comparison's store.")]


def resume(
    journal: KEPT,
    tokens: o.Tokens = None,
    seconds: o.Seconds = None,
    calls: o.Calls = None,
    money: o.Money = None,
    model: Annotated[
        str | None, typer.Option(help="The model, where the journal does not name it or names a server elsewhere.")
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Go on with a run where its journal ends; what was done is not done again.

    A budget given here takes the place of the one the run had, in what it names. A run that Ctrl-C stopped goes on; so
    does one whose budget had run out, where it now has more. A run that has ended otherwise prints its answer. A store
    of `anystep compare` goes on as it was asked for.
    """
    from anystep import journal as journals
    from anystep.bench.store import is_store

    given = o.budget(tokens, seconds, calls, money)
    if is_store(journal):
        if given is not None:
            raise UsageError(
                f"{journal} is a comparison's store, whose budget is fixed; call anystep resume {journal}."
            )
        raise typer.Exit(resume_store(journal, model, as_json, quiet))
    with journals.existing(journal) as kept:
        limit = merged(kept.budget, given)
        if kept.ended is not None and not kept.reopens(limit):
            raise typer.Exit(told(kept, as_json, quiet))
        raise typer.Exit(go_on(kept, limit, model, as_json, quiet))


def go_on(kept: FileJournal, limit: Budget, model: str | None, as_json: bool, quiet: bool) -> int:
    """Make the run again and drive it on. The exit code."""
    from anystep.cli.engine import engine_for
    from anystep.cli.solve import conduct
    from anystep.recipe import read, trusted
    from anystep.resuming import resumed_run, task_of
    from anystep.view import counted

    known = read((kept.head or {}).get("recipe"), kept.path)
    lacking = [what for what in known.lacking if what != "model" or model is None]
    if lacking:
        raise UsageError(
            f"{kept.path} was written from Python with its own {' and '.join(lacking)}; go on there: "
            f"anystep.resume({str(kept.path)!r}, ...) with the same."
        )
    name = model or trusted(str(known.model), kept.path)
    asked = task_of(known)

    def make(live: Live) -> Run:
        run = resumed_run(kept, asked, engine_for(name), None, limit, show=live.show, watch=live.watch)
        if not quiet:
            print(f"going on after {counted(run.rounds, 'round')}", file=sys.stderr)
        return run

    return conduct(make, lambda: engine_for(name), f"{known.method} on {name}", name, asked, as_json, quiet)


def told(kept: FileJournal, as_json: bool, quiet: bool) -> int:
    """Print the answer of a run that has ended. The exit code."""
    from anystep.cli.solve import record, tell_answer, tell_end, tell_journal
    from anystep.recipe import read
    from anystep.resuming import task_of
    from anystep.tasks.task import Task

    head, end = kept.head or {}, kept.ended or {}
    known = read(head.get("recipe"), kept.path)
    asked = task_of(known) if isinstance(known.task, tuple) else None
    task = asked if isinstance(asked, Task) else None
    if as_json:
        print(json.dumps(record(end, head["method"], known.model, head["seed"], task), indent=2, allow_nan=False))
    elif end["text"] is not None:
        tell_answer(end["text"])
    if not quiet:
        tell_end(end, task)
        tell_journal(end, kept.path)
    return 0 if end["text"] is not None else 1


def merged(had: Budget, given: Budget | None) -> Budget:
    """The budget a run had, with what is given in its place."""
    from anystep.ledger import Budget

    return Budget(**{**had.caps(), **(given.caps() if given else {})})  # type: ignore[arg-type]


def view(
    journal: RUN,
    depth: Annotated[int, typer.Option(help="The most generations of the family that are shown.")] = 6,
    rows: Annotated[int, typer.Option(help="The most lines of the rounds, and of the family.")] = 24,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Show a run by its journal: what was asked and spent, the rounds, the family, the answer so far.

    No model is needed, and the run may still be going on.
    """
    from anystep import journal as journals
    from anystep.view import story_record, story_text

    if depth < 1 or rows < 3:
        raise UsageError(f"--depth {depth} --rows {rows} show nothing; call anystep view {journal} --depth 6.")
    writing = journals.locked(journal)
    story = journals.read(journal)
    if as_json:
        print(json.dumps(story_record(story, writing), indent=2, allow_nan=False))
    else:
        print(story_text(story, writing, depth, rows))
