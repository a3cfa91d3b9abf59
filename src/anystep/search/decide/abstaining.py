"""Saying nothing where too little speaks for an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict


@dataclass(frozen=True)
class _Abstain:
    decision: Decision
    below: float

    def __call__(self, population: Population) -> Verdict:
        verdict = self.decision(population)
        if verdict.row is None or standing(population, verdict) >= self.below:
            return verdict
        return replace(verdict, row=None, submitted=(), abstained=True)


def standing(population: Population, verdict: Verdict) -> float:
    """What speaks for a choice: its calibrated confidence, else its support, else its score; NaN where nothing does."""
    for known in (verdict.confidence, verdict.support):
        if known is not None:
            return known
    return math.nan if verdict.row is None else float(population.scores[verdict.row])


def abstain(decision: Decision, below: float) -> Decision:
    """`decision`, which says nothing where its confidence is under `below`.

    What is compared is the calibrated confidence where there is one (`calibrate.winner(...).method.decision`), else the
    choice's support, else its score; where there is none of them, it abstains. A run that abstains has an answer
    without text, with `abstained` true and a note that says so; it is no failure. Its support and confidence stay.
    Source: Chow, "On Optimum Recognition Error and Reject Tradeoff" (1970).
    """
    if not isinstance(decision, Decision):
        raise UsageError(f"abstain({decision!r}, below): a decision, such as abstain(search.majority, below=0.5).")
    if isinstance(below, bool) or not isinstance(below, (int, float)) or math.isnan(below):
        raise UsageError(f"abstain(decision, below={below!r}): a number, such as abstain(search.majority, below=0.5).")
    name = f"abstain({decision!r}, below={below})"
    return replace(decision, name=name, function=_Abstain(decision, float(below)), plain=None)
