"""How sure of the answer that a search chose? A method that says so, calibrated on its own recorded runs.

A reward that is calibrated on single samples is not calibrated on the best of n. The samples of a problem share its
difficulty: where all are wrong the search picks what the reward over-scores, the more the larger n (the winner's
curse), and where most are right a low score says little against the best. So the winner's own figure is calibrated, for
one method with its options, on runs whose answers were checked.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from anystep.answer import Answer
from anystep.calibrate.calibrated import crossed
from anystep.calibrate.maps import How, Map, fitted
from anystep.calibrate.reliability import Reliability, reliability
from anystep.errors import UsageError
from anystep.population import Decision, Population, Verdict
from anystep.procedure import Method


@dataclass(frozen=True)
class Sure:
    """A decision's function with `map` of what it says of its choice: the choice's score, or else its support."""

    decision: Decision
    map: Map

    def __call__(self, population: Population) -> Verdict:
        verdict = self.decision(population)
        said = _said(population, verdict.row, verdict.support)
        return verdict if math.isnan(said) else replace(verdict, confidence=float(self.map([said])[0]))


@dataclass(frozen=True)
class Winner:
    """A method whose answers carry a confidence, with the evidence for it.

    held_out: of each run's confidence by maps that were fitted on the other runs. raw: of the figures as they were,
    None where they are no probabilities.
    """

    method: Method
    map: Map
    held_out: Reliability
    raw: Reliability | None

    def __str__(self) -> str:
        before = "" if self.raw is None else f", before {self.raw.ece}"
        said = f"by chance {self.held_out.floor.mean:.3f}{before}"
        return f"{self.map!r} on {self.held_out.n} runs: held-out ECE {self.held_out.ece} ({said})"


def winner(
    method: Method,
    answers: Sequence[Answer],
    labels: ArrayLike,
    how: How = "platt",
    problems: Sequence[Hashable] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Winner:
    """Calibrate what `method` says of the answers it chooses, from recorded runs of it.

    answers: of runs of this very method (n and reward too) on the model and the kind of problems it will be used on.
    labels: (n,) 1 where the answer was right, else 0. problems: what each run was about, where some were about the
    same: they stay in one fold. Runs that were cut short, or whose choice has no figure, are left out, and a later run
    that is cut short has no confidence. Raises UsageError for too few labels.

    The result's `.method` is the method with `answer.confidence` filled in; nothing else about it changes.
    """
    y = np.asarray(labels, dtype=np.float64)
    if len(answers) != len(y):
        raise UsageError(f"winner: {len(answers)} answers and {len(y)} labels; give one label, 0 or 1, an answer.")
    said = np.array([figure(answer) for answer in answers])
    own = list(range(len(y))) if problems is None else list(problems)
    known = said[~np.isnan(said)]
    bounded = len(known) > 0 and known.min() >= 0 and known.max() <= 1
    found = fitted(how, said, y)
    held = reliability(crossed(how, said, y, own, folds, seed), y, groups=own)
    return Winner(sure(method, found), found, held, reliability(said, y, groups=own) if bounded else None)


def sure(method: Method, map: Map) -> Method:
    """The method with its answers' confidence read off their figure by `map`, such as a saved one.

    A map belongs to the method, model and kind of problem that it was fitted on.
    """
    plain = method.decision.plain or method.decision
    name = f"{plain.name} with confidence by {map!r}"
    return method.deciding(replace(plain, name=name, function=Sure(plain, map), plain=plain))


def figure(answer: Answer) -> float:
    """What a run says of its choice: the score it was chosen by, else its share of votes; NaN for neither, and for a
    run that was cut short."""
    if answer.population is None or answer.stopped_because != "finished":
        return math.nan
    return _said(answer.population, answer.row, answer.support)


def _said(population: Population, row: int | None, support: float | None) -> float:
    if row is None:
        return math.nan
    return float(population.scores[row]) if support is None else support
