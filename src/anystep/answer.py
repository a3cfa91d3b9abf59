"""What a run concludes, or why it could not."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from anystep.calls import Family
from anystep.errors import AnystepError
from anystep.ledger import FREE, Cost
from anystep.population import Population
from anystep.process import Status


class AllFailed(AnystepError):
    """Every state of a run failed; the message carries the first error."""


@dataclass(frozen=True)
class Answer:
    """What a run concludes. `confidence` is None until something calibrated it, and for a run that was cut short;
    `support` is the decision's share; `submitted` the population's rows that it gives, best first, where it gives
    several; `abstained` says that it declined to choose: there is no text then, and nothing has failed."""

    value: Hashable
    text: str | None
    cost: Cost
    costs: dict[str, Cost]
    stopped_because: str
    population: Population | None = field(repr=False)
    row: int | None
    support: float | None
    evidence: float | None
    started: int
    finished: int
    failed: int
    errors: tuple[str, ...]
    note: str
    family: Family = field(repr=False)
    confidence: float | None = None
    submitted: tuple[int, ...] = ()
    abstained: bool = False


def failure(
    error: str, cost: Cost = FREE, costs: dict[str, Cost] | None = None, family: Family | None = None
) -> Answer:
    """The answer of a run that has none: no text, its error and what it cost."""
    family = family or Family()
    return Answer(
        value=None,
        text=None,
        cost=cost,
        costs=costs or {},
        stopped_because="failed",
        population=None,
        row=None,
        support=None,
        evidence=None,
        started=sum(not parents for parents in family.parents),
        finished=0,
        failed=sum(status == Status.FAILED for status in family.status),
        errors=tuple(family.errors.values()) or (error,),
        note=error,
        family=family,
    )
