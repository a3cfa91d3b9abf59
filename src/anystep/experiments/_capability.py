"""What row 87's experiment reads off pools: the samples of each problem, what the model thinks of each, and which of
them adaptive sampling would have drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep import search
from anystep.calibrate.interval import UNKNOWN, Interval
from anystep.experiments._equal import Outcomes, outcomes
from anystep.language.engine.engine import Engine
from anystep.process import Floats, Reward
from anystep.tasks.task import Task

THRESHOLDS = np.round(np.arange(0.3, 1.0, 0.02), 2)


@dataclass(frozen=True)
class Pool:
    """n samples of each problem in the order in which they are drawn, all (items, n): whether right, the chance not to
    be beaten by the model's own account (below 0 for a sample without an end), and the log-probability, a token and in
    all."""

    right: Floats
    outlook: Floats
    likely: Floats
    each: Floats
    asked: int

    @property
    def one(self) -> Floats:
        """(items,): how often a sample is right."""
        return np.asarray(self.right.mean(1))

    def best(self, by: Floats, n: int | None = None) -> Floats:
        """(items,): whether the sample with the highest score of the first n is right."""
        return np.asarray(self.right[np.arange(len(by)), by[:, :n].argmax(1)])

    def drawn(self, threshold: float) -> NDArray[np.int64]:
        """(items,): how many samples are drawn until one passes."""
        passed = self.outlook >= threshold
        return np.asarray(np.where(passed.any(1), passed.argmax(1) + 1, passed.shape[1]), dtype=np.int64)

    def after(self, counts: NDArray[np.int64]) -> Floats:
        """(items,): whether the best of each problem's first `counts` by outlook is right."""
        open_ = np.arange(self.right.shape[1]) < counts[:, None]
        return self.best(np.where(open_, self.outlook, -2.0))

    def tuned(self, most: float) -> float:
        """The threshold with which the answers are best, of those that draw `most` samples on average or fewer."""
        able = [t for t in THRESHOLDS.tolist() if self.drawn(t).mean() <= most]
        return max(able, key=lambda t: (self.after(self.drawn(t)).mean(), t), default=float(THRESHOLDS[0]))


def pool_of(found: Outcomes, tasks: Sequence[Task]) -> Pool:
    """From runs that drew and scored a fixed number of samples."""
    right, outlook, likely, each, asked = [], [], [], [], 0
    for task, run in zip(tasks, found.runs, strict=True):
        population = None if run.answer is None else run.answer.population
        if population is None:  # of a problem whose samples all failed, none is right
            right.append(np.zeros(width(found)))
            outlook.append(right[-1] - 1)
            likely.append(right[-1])
            each.append(right[-1])
            continue
        texts = run.process.texts(population.states)
        right.append(np.array([task.score(text) for text in texts]) * population.done)
        outlook.append(np.where(np.isnan(population.scores), -1.0, population.scores))
        likely.append(np.where(population.done, population.logp, -np.inf))
        each.append(likely[-1] / np.maximum([len(text) for text in texts], 1))
        asked += len({text for text, done in zip(texts, population.done, strict=True) if done})
    return Pool(np.array(right), np.array(outlook), np.array(likely), np.array(each), asked)


def width(found: Outcomes) -> int:
    return next(len(r.answer.population) for r in found.runs if r.answer and r.answer.population is not None)


def sampled(engine: Engine, tasks: Sequence[Task], reward: Reward, n: int, seed: int) -> tuple[Pool, Outcomes]:
    """n samples of every problem, each asked about at its end."""
    found = outcomes(engine, tasks, search.best_of_n(n=n, reward=reward), seed)
    return pool_of(found, tasks), found


def gain_kept(ours: Floats, best: Floats, one: Floats, seed: int = 0) -> Interval:
    """(ours - one) / (best - one), each (items,), bootstrapped over items."""
    if len(ours) < 2 or best.mean() == one.mean():
        return UNKNOWN
    at = np.random.default_rng(seed).integers(0, len(ours), (4_000, len(ours)))
    up, all_ = (ours[at] - one[at]).mean(1), (best[at] - one[at]).mean(1)
    low, high = np.quantile(up / np.where(all_ == 0, np.nan, all_), [0.025, 0.975])
    return Interval(float((ours - one).mean() / (best - one).mean()), float(low), float(high))


def shuffled(pool: Pool, counts: NDArray[np.int64], seed: int, times: int = 50) -> Floats:
    """(items,): how often the best of as many samples is right as another problem, drawn at random, was given."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.mean([pool.after(rng.permutation(counts)) for _ in range(times)], axis=0))
