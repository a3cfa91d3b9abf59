"""What a run's journal must be worth: replayed without work, read from the disk, and gone on with after a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from anystep import journal as journals
from anystep.answer import AllFailed
from anystep.errors import JournalError, Unsupported, UsageError
from anystep.run import Run
from anystep.testing.cases import Case, ProcedureCheck
from anystep.testing.checks_process import some_keys
from anystep.testing.limits import unlimited
from anystep.testing.runs import finish, near_outcome, one_round, same_outcome
from anystep.told import Told

journal_checks: list[ProcedureCheck] = []
FEW = 4  # stops at which the slower checks take a run up again


def _check(function: ProcedureCheck) -> ProcedureCheck:
    journal_checks.append(function)
    return function


@_check
def a_journal_replays_without_work(case: Case) -> None:
    """Every prefix of the journal brings a fresh run to its point with no work; driven on, it ends the same."""
    whole = case.run()
    finish(whole)
    for at in {*case.stops(len(list(whole.journal))), 0}:
        run = case.run()
        _replayed(case, run, list(whole.journal)[:at], whole)
        finish(run)
        same_outcome(whole, run, f"replaying {at} of {len(list(whole.journal))} rounds and going on")


def _replayed(case: Case, run: Run, journal: Iterable[Told], whole: Run, reopen: bool = False) -> None:
    """Replay, and see that nothing is computed."""
    with case.hook() as work:
        try:
            run.replay(journal, reopen=reopen)
        except AllFailed:
            assert whole.error is not None, f"{case.method}: all failed, but only when replayed"
        except UsageError as error:
            raise AssertionError(f"{case.method} does not replay its own journal: {error}") from error
    assert work.calls == 0, f"{case.method}: replaying {run.rounds} rounds did {work.calls} calls"


def writes(case: Case) -> bool:
    """Whether a case's process can write its states down: without that it has no journal on disk."""
    try:
        case.process.dump(case.process.start(some_keys(), unlimited()).states)
    except Unsupported:
        return False
    return True


@_check
def its_rounds_survive_as_text(case: Case) -> None:
    """Every round, written as JSON and read again, replays to the same states, books, answer and ledger."""
    if not writes(case):
        return
    whole = case.run()
    finish(whole)
    written = [json.dumps(journals.encode(told, case.process), allow_nan=False) for told in whole.journal]
    read = [journals.decode(json.loads(text), case.process) for text in written]
    again = [json.dumps(journals.encode(told, case.process), allow_nan=False) for told in read]
    assert written == again, f"{case.method}: a round that was read is written differently"
    for at in {*replace(case, most=FEW).stops(len(read)), 0}:
        run = case.run()
        _replayed(case, run, read[:at], whole)
        finish(run)
        same_outcome(whole, run, f"reading {at} of {len(read)} rounds and going on")


@_check
def its_journal_survives_the_disk(case: Case) -> None:
    """Left off after any round and taken up from its file: nothing is done twice, and it ends the same."""
    if not writes(case):
        return
    whole = case.run()
    finish(whole)
    rounds = len(list(whole.journal))
    for at in replace(case, most=FEW // 2).stops(rounds):
        with TemporaryDirectory() as folder:
            _left_off(case, Path(folder) / "run.journal", at)
            run = _taken_up(case, Path(folder) / "run.journal")
            finish(run)
            same_outcome(whole, run, f"leaving it off after {at} of {rounds} rounds and resuming from its file")


def _left_off(case: Case, path: Path, rounds: int) -> None:
    """Run a case for so many rounds, its journal at `path`."""
    with journals.open(path) as journal:
        run = case.run(journal=journal)
        while run.calls and run.rounds < rounds:
            try:
                one_round(run)
            except AllFailed:
                return


def _taken_up(case: Case, path: Path) -> Run:
    """The run of the journal at `path`, where it was left."""
    with case.hook() as work:
        journal = journals.open(path)
        try:
            run = journal.resume(case.run(journal=journal), warm=False)
        except (UsageError, JournalError) as error:
            journal.close()
            raise AssertionError(f"{case.method} does not resume from its own journal: {error}") from error
    assert work.calls == 0, f"{case.method}: resuming from the disk did {work.calls} calls"
    return run


@_check
def a_refused_run_goes_on(case: Case) -> None:
    """Closed by any budget and taken up again without one, it comes to what it would have been, and pays twice only for
    what closing had cost."""
    whole = case.run()
    finish(whole)
    full = whole.spent.evaluations
    for cap in replace(case, most=FEW).stops(full - 1):
        closed = case.run(replace(case.budget, evaluations=cap))
        finish(closed)
        if closed.error is None and closed.answer is not None and closed.answer.stopped_because != "evaluations":
            continue
        run = case.run()
        _replayed(case, run, list(closed.journal), whole, reopen=True)
        paid = run.spent
        assert paid.evaluations == closed.spent.evaluations, f"{case.method}: reopening changes what was paid"
        finish(run)
        near_outcome(whole, run, f"going on after {cap} evaluations")
        closing = sum(reply.cost.evaluations for told in _closing(closed) for reply in told.replies)
        assert run.spent.evaluations == full + closing, f"{case.method}: {run.spent}, {full} and {closing} to close"
        again = case.run()
        _replayed(case, again, list(run.journal), whole)
        same_outcome(run, again, "replaying a run that was taken up again")


def _closing(run: Run) -> list[Told]:
    """The rounds after the one that was refused."""
    rounds = list(run.journal)
    first = next((i for i, told in enumerate(rounds) if told.refused), len(rounds))
    return rounds[first + 1 :]
