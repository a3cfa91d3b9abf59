"""The rounds of a run as its journal has them, and what a journal is to a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from anystep.calls import Asked, Reply
from anystep.ledger import Cost


@dataclass(frozen=True)
class Told:
    """One round of a run's journal: the replies, why the ledger had refused by then, if it had, the seconds the run had
    taken, and what each reply answered (empty where that is not known).

    costs: the accounts by then, which may hold more than the replies say, such as what probing a server had cost; None
    where the replies say all.

    again: the run was taken up again after a refusal. These replies, at what was still to pay of them, take the place
    of the last refused round and of those that closed the run after it.
    """

    replies: tuple[Reply, ...]
    refused: str | None = None
    seconds: float = 0.0
    asked: tuple[Asked, ...] = ()
    again: bool = False
    costs: Mapping[str, Cost] | None = None


class Journal(Protocol):
    """Where a run's rounds are kept, in order: a list, or a file that survives the process."""

    def append(self, told: Told, /) -> None: ...
    def __iter__(self) -> Iterator[Told]: ...


@runtime_checkable
class Attached(Protocol):
    """A journal that is told whose it is before the first round, and how it ended."""

    def begin(self, run: Any, /) -> None: ...
    def end(self, run: Any, /) -> None: ...


def described(what: Told | Sequence[Asked]) -> str:
    """What a round answers, or a run asks, in a few words."""
    if isinstance(what, Told) and not what.asked:
        return f"{len(what.replies)} replies"
    asked = what.asked if isinstance(what, Told) else what
    return " and ".join(f"{a.verb} by {a.by}" for a in asked[:3]) or "nothing"
