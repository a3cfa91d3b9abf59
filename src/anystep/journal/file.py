"""A run's journal as a file: it is written as the run goes, and a fresh run goes on where it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anystep.answer import AllFailed
from anystep.errors import JournalError, UsageError
from anystep.journal import head as records
from anystep.journal.beside import Beside
from anystep.journal.codec import decode, encode
from anystep.journal.lines import Appender, Line, lines
from anystep.journal.story import checked
from anystep.ledger import Budget
from anystep.procedure import Method
from anystep.process import Process
from anystep.run import Run
from anystep.told import Told


class FileJournal:
    """The journal at `path`, new or existing; hand it to one `Run(..., journal=...)`, which writes as it goes.

    A round is on the disk before the run goes on. Of what is on the disk nothing is held in memory. Until the run ends,
    or `close()`, no other process can write the file. head: the first record, None where the file is new. rounds: how
    many there are. ended: the last record where that is a run's end. refused: why the last round that counts was
    refused, if it was. budget: the one the run had last.
    """

    def __init__(self, path: str | Path, recipe: Mapping[str, Any] | None = None) -> None:
        self.path, self.recipe = Path(path), recipe
        self.head: dict[str, Any] | None = None
        self.rounds = 0
        self.refused: str | None = None
        self.ended: dict[str, Any] | None = None
        self.budget = self._under = Budget()  # now, and when it was refused
        self._beside = Beside(self.path)
        self._run: Run | None = None
        self._news: dict[str, Any] | None = None  # what is to be written before the next round
        self._appender = Appender(self.path, self._seen)

    def _seen(self, line: Line) -> None:
        record, kind, told = line.record, line.record.get("kind"), checked(line, self.path)
        if kind == "head":
            self.head = record
        if kind in ("head", "resumed"):
            self.budget = records.budget_of(record, self.path, line.number)
        elif told is not None:
            self.rounds += 1
            if told.again or not self.refused:
                self.refused, self._under = told.refused, self.budget
        self.ended = record if kind == "end" else None

    def begin(self, run: Run) -> None:
        """Note whose journal this is, or check that it is this run's."""
        if self._run is not None:
            raise UsageError(f"{self.path} is the journal of a run already; open one a run.")
        self._run = run
        if self.head is None:
            self._news = records.head(run, self.recipe)
            self._write_news()
            return
        records.check_head(self.head, self.path)
        records.check_run(self.head, run, self.path)
        self._news = records.resumed(run)

    def append(self, told: Told) -> None:
        run = self._bound()
        if run.rounds < self.rounds:
            raise UsageError(
                f"{self.path} holds {self.rounds} rounds that this run has not been through; call "
                "journal.resume(run) first."
            )
        record = encode(told, run.process, self._beside.keep)
        self._write_news()
        self._appender.append({"kind": "round", **record})
        self.rounds, self.ended = self.rounds + 1, None

    def end(self, run: Run) -> None:
        """Note how the run ended, unless that is known, and close."""
        if self.ended is None and records.ends(run) and run.rounds == self.rounds:
            self._write_news()
            self.ended = records.end(run)
            self._appender.append(self.ended)
        self.close()

    def __iter__(self) -> Iterator[Told]:
        """The rounds, in order, each read when it is asked for."""
        process = self._bound().process
        with self.path.open("rb") as file:
            for line in lines(file, self.path):
                if line.record.get("kind") == "round":
                    try:
                        yield decode(line.record, process, self._beside.fetch)
                    except JournalError as error:
                        raise JournalError(f"{self.path}, line {line.number}: {error}.") from None

    def resume(self, run: Run, warm: bool = True) -> Run:
        """Bring a fresh run to where this journal ends; nothing is performed and nothing is paid.

        A run that a budget or a cancel had closed goes on if it may: after a cancel always, after a refusal where the
        run has more of the figure that ran out. warm: fill caches again, so that costs are what they would have been.
        """
        if self.rounds:
            reopen = self.reopens(run.ledger.budget)
            with contextlib.suppress(AllFailed):  # it is in run.error
                run.replay(self, warm=warm and (reopen or self.ended is None), reopen=reopen)
        return run

    def reopens(self, budget: Budget) -> bool:
        """Whether a run that was refused would go on under this budget."""
        if self.refused in (None, "cancelled"):
            return self.refused is not None
        was, now = self._under.caps().get(self.refused), budget.caps().get(self.refused)
        return was is not None and (now is None or now > was)

    def close(self) -> None:
        """Let others write the file."""
        self._appender.close()

    def _bound(self) -> Run:
        if self._run is None:
            raise UsageError(f"{self.path} is no run's yet; call Run(process, method, journal=journal).")
        return self._run

    def _write_news(self) -> None:
        if self._news is not None:
            self._appender.append(self._news)
            self.head = self.head or self._news
            self._news = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(path: str | Path, recipe: Mapping[str, Any] | None = None) -> FileJournal:
    """The journal at `path`, to hand to one run; it is made where there is none.

    recipe: what it takes to make the run again by names, as JSON can hold it; `anystep.solve` writes it. Raises
    JournalError for a file that is damaged, is something else, or is being written by another process.
    """
    return FileJournal(path, recipe)


def existing(path: str | Path) -> FileJournal:
    """The journal at `path`, which must be there, with a head."""
    if not Path(path).exists():
        raise JournalError(f"{path}: there is no such journal; solve(task, journal={str(path)!r}) makes one.")
    journal = FileJournal(path)
    if journal.head is None:
        journal.close()
        raise JournalError(f"{path}: no journal yet: no run has begun there.")
    return journal


def resume(path: str | Path, process: Process, method: Method, budget: Budget | None = None, **options: Any) -> Run:
    """The run whose journal is at `path`, where it ended: nothing is performed until it is driven.

    process, method: equal to those it had; what is known of them is checked. budget: another one; by default its own,
    and where that had closed the run, a larger one lets it go on (see `FileJournal.resume`). options: show and watch of
    `Run`. Raises JournalError for a file that is no journal, is damaged, or belongs to another run.
    """
    journal = existing(path)
    try:
        head = journal.head or {}
        seed, reserve = int(head["seed"]), float(head["reserve"])
        return journal.resume(Run(process, method, budget or journal.budget, seed, reserve, journal=journal, **options))
    except BaseException:
        journal.close()
        raise


@contextlib.contextmanager
def kept(run: Run) -> Iterator[None]:
    """While inside, the run may write its journal; afterwards others may, whatever happened."""
    try:
        yield
    finally:
        if isinstance(run.journal, FileJournal):
            run.journal.close()
