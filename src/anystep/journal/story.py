"""A journal as its reader finds it, without the model that wrote it: perhaps while it is being written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anystep.errors import JournalError
from anystep.journal.codec import parsed, said
from anystep.journal.head import budget_of, check_end, check_head
from anystep.journal.lines import Line, lines
from anystep.ledger import Budget, Cost
from anystep.told import Told

Says = dict[int, tuple[str | None, str]]


@dataclass(frozen=True)
class Round:
    """A round without its states, and for each reply what its finished states say: row to answer and text."""

    told: Told
    says: tuple[Says, ...]


@dataclass
class Story:
    """What a journal holds, its states left out.

    head: the first record. rounds: all of them. lives: where it was taken up again, each with the number of rounds
    there were. end: how the run ended, None where it has not. budget: the one it had last. torn: whether a last line is
    unfinished, as it is for a moment while it is being written.
    """

    path: Path
    head: dict[str, Any] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    lives: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    budget: Budget = field(default_factory=Budget)
    torn: bool = False

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return self.rounds[-1].told.seconds if self.rounds else 0.0

    def costs(self) -> dict[str, Cost]:
        """What was paid so far, by whom it was for."""
        return dict(self.rounds[-1].told.costs or {}) if self.rounds else {}

    def counted(self) -> list[Round]:
        """The rounds that make the run: without those that a later one took the place of."""
        return list(counted(self.rounds))


def counted(rounds: Iterable[Round]) -> Iterable[Round]:
    """See `Story.counted`."""
    held: list[Round] = []  # a round that was refused, and those that closed the run after it
    for one in rounds:
        held = [] if one.told.again else held
        if held or one.told.refused:
            held.append(one)
        else:
            yield one
    yield from held


def read(path: str | Path) -> Story:
    """The journal at `path`. Raises JournalError where it is damaged, is none, or cannot be read."""
    story, at = Story(Path(path)), 0
    try:
        with open(path, "rb") as file:
            for line in lines(file, story.path):
                _note(story, line)
                at = line.end
            story.torn = file.seek(0, 2) > at
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}.") from None
    if not story.head:
        raise JournalError(f"{path}: holds no whole line: no journal, or one cut off at once.")
    return story


def _note(story: Story, line: Line) -> None:
    kind, told = line.record.get("kind"), checked(line, story.path)
    if kind == "head":
        story.head = line.record
    elif kind == "resumed":
        story.lives.append((len(story.rounds), line.record))
    elif told is not None:
        story.rounds.append(Round(told, tuple(said(reply) for reply in line.record["replies"])))
    if kind in ("head", "resumed"):
        story.budget = budget_of(line.record, story.path, line.number)
    story.end = line.record if kind == "end" else None


def checked(line: Line, path: Path) -> Told | None:
    """A line's round without its states, None where it is none. Raises JournalError, with the line's number, for a
    record that no journal holds there."""
    record, kind, told = line.record, line.record.get("kind"), None
    if line.number == 1:
        check_head(record, path)
        return None
    try:
        if kind == "round":
            told = parsed(record)
            if len(told.asked) != len(told.replies) or told.costs is None:
                raise JournalError("a round does not say what it answers, or what was paid by then")
            for reply in record["replies"]:
                said(reply)
        elif kind == "end":
            check_end(record)
        elif kind == "resumed":
            budget_of(record, path, line.number)
            if not isinstance(record.get("at"), str):
                raise JournalError("a resumption without its time")
        else:
            raise JournalError(f"a record of unknown kind {kind!r:.40}")
    except JournalError as error:
        said_where = str(error).startswith(str(path))
        raise error if said_where else JournalError(f"{path}, line {line.number}: {error}.") from None
    return told
