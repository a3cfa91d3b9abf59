"""Samples that are made to look back at lengths that grow geometrically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np

from anystep.errors import UsageError
from anystep.procedure import (
    ByProcess,
    ByReward,
    Count,
    Exploring,
    Positive,
    Rule,
    draw,
    procedure,
    score,
    start,
    step,
)
from anystep.process import Floats, Process, Reward
from anystep.search import decide

Growth = Annotated[float, Rule("a number above 1", lambda x: isinstance(x, (int, float)) and x > 1)]


class Schedule(Protocol):
    """At which lengths a state is to look back. draws: uniform numbers that a state's schedule takes."""

    @property
    def draws(self) -> int: ...

    def after(self, length: float, u: Floats) -> float:
        """The first budget above `length`, infinite where there is none; u: (draws,), the same for all of a state."""
        ...


BySchedule = Annotated[Schedule, Rule("a schedule, such as search.geometric(16, 2)", lambda x: hasattr(x, "after"))]


@dataclass(frozen=True)
class Geometric:
    """first, first * growth, first * growth ** 2, ..."""

    first: float
    growth: float
    draws: int = 0

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.growth > 1):
            raise UsageError(f"Geometric(first={self.first!r}, growth={self.growth!r}): as in Geometric(16, 2).")

    def after(self, length: float, u: Floats) -> float:
        if np.isinf(length):
            return np.inf
        budget = self.first
        while budget <= length:
            budget *= self.growth
        return budget


@dataclass(frozen=True)
class Every:
    """interval, 2 * interval, 3 * interval, ..."""

    interval: float
    draws: int = 0

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise UsageError(f"Every({self.interval!r}): a positive length, as in Every(16).")

    def after(self, length: float, u: Floats) -> float:
        return self.interval * (length // self.interval + 1)


@dataclass(frozen=True)
class Anywhere:
    """`draws` places, uniform on 0 to `within`, others for each state."""

    draws: int
    within: float

    def after(self, length: float, u: Floats) -> float:
        return min((self.within * x for x in u.tolist() if self.within * x > length), default=np.inf)


@procedure(decide=decide.majority, needs_end=True)
def iterative_deepening_sampling(
    n: Count,
    trigger: ByProcess,
    length: ByReward,
    first: Positive = 16,
    growth: Growth = 2.0,
    reward: ByReward | None = None,
) -> Exploring:
    """n samples, each told to look back when its length reaches first, first * growth, first * growth ** 2, ...

    trigger: a process on the same states whose one step writes the cue into them (`language.recheck.trigger`). length:
    a free reward that measures a state, such as `language.recheck.written`, the tokens written so far, cues included.
    The cue stands at the end of the first step that reaches a budget, but not of the step that a cue begins, such as
    the recheck itself; a step that passes several budgets gets one cue, and then the next budget above the length
    counts. A sample that ends before its first budget is left alone. reward: scores the finished samples, for
    `.deciding(search.best_reward)`.

    Preserves the law of what is written up to the first cue exactly: until then each sample is that of `sample(n)` with
    the same seed, choice by choice, and so is all of it where the first budget is beyond the longest output. Behind a
    cue the process goes on as it does after that text. The number of cues is logarithmic in the length.

    Source: "Iterative Deepening Sampling for Large Language Models" (2025), arXiv 2502.05449, which does not say
    whether budgets count from the last cue or from the beginning: here, from the beginning.
    """
    return (yield from _sampled(n, trigger, length, Geometric(first, growth), reward))


@procedure(decide=decide.majority, needs_end=True)
def triggered_sampling(
    n: Count, trigger: ByProcess, length: ByReward, schedule: BySchedule, reward: ByReward | None = None
) -> Exploring:
    """As `iterative_deepening_sampling`, at any schedule's lengths: `Every(16)`, `Anywhere(draws=2, within=60)`.

    Preserves the law of what is written up to the first cue exactly, as that does.
    """
    return (yield from _sampled(n, trigger, length, schedule, reward))


def _sampled(n: int, trigger: Process, length: Reward, schedule: Schedule, reward: Reward | None) -> Exploring:
    population = yield from start(n)
    u = (yield from draw(n * schedule.draws)) if schedule.draws else np.zeros(0)
    u = u.reshape(n, schedule.draws)
    due = np.array([schedule.after(0.0, row) for row in u])
    population, told = (yield from step(population)), np.zeros(n, dtype=bool)
    while population.live.any():
        size = yield from score(population, length)
        late = population.live & (size >= due) & ~told
        if late.any():
            population = population.put(late, (yield from step(population.take(late), by=trigger)))
            due[late] = [schedule.after(float(size[row]), u[row]) for row in np.flatnonzero(late)]
        population, told = (yield from step(population.going_on(~late))), late
    return population if reward is None else population.scored((yield from score(population, reward)))
