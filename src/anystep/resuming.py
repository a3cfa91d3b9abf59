"""Go on with a run that is written in a journal, in a process that knows nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anystep import journal as journals
from anystep import tasks
from anystep.answer import Answer
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.journal import FileJournal
from anystep.ledger import Budget
from anystep.naming import Question
from anystep.procedure import Method
from anystep.process import Process
from anystep.recipe import Recipe, read, trusted
from anystep.run import Run
from anystep.solve import run_for


def resume(
    path: str | Path,
    task: Question | None = None,
    model: str | Process | Any = None,
    method: str | Method | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> Answer:
    """Go on with the run whose journal is at `path`, in a fresh process; what was done is not done again.

    task, model, method: only for what the journal cannot name, such as a process of your own. budget: another one; by
    default the run's. Where that had closed the run a larger one lets it go on, and so does resuming after a cancel; a
    run that has ended otherwise just answers. Raises JournalError for a journal that cannot be used.
    """
    run = resumed_run(path, task, model, method, budget, **options)
    with journals.kept(run):
        return drive(run)[0]


def task_of(known: Recipe) -> Question:
    """The question or the item of a task that a recipe names."""
    if isinstance(known.task, tuple):
        name, item = known.task
        return tasks.load(name, item + 1)[item]
    return known.task or ""


def resumed_run(
    path: str | Path | FileJournal,
    task: Question | None = None,
    model: str | Process | Any = None,
    method: str | Method | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> Run:
    """The run that `resume` drives, where its journal ends."""
    journal = path if isinstance(path, FileJournal) else journals.existing(path)
    try:
        head = journal.head or {}
        known = read(head.get("recipe"), journal.path)
        given = {"task": task, "model": model, "method": method} | options
        lacking = [what for what in known.lacking if given.get(what) is None]
        if lacking:
            raise UsageError(
                f"{journal.path} cannot name everything its run was made of; hand in the same again: "
                f"resume({str(journal.path)!r}, {', '.join(f'{what}=...' for what in lacking)})."
            )
        if task is None:
            task = task_of(known)
        if model is None:
            model = trusted(str(known.model), journal.path)
        options = {**known.options, "reserve": head["reserve"], **options}
        budget = budget or journal.budget
        return run_for(task, model, method or known.method, budget, head["seed"], journal=journal, **options)
    except BaseException:
        journal.close()
        raise
