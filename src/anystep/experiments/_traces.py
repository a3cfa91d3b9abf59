"""Traces whose length says something about whether they are right, or nothing, with every law known exactly."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep import search
from anystep.answer import Answer
from anystep.calibrate.interval import bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, paired, unbiased
from anystep.experiments.check import Check
from anystep.keys import Keys
from anystep.ledger import Cost
from anystep.process import Floats, Status
from anystep.run import Run
from anystep.stepwise import Arrays, Moved, Stepwise

LONGEST = 40
TOKEN = Cost(generated=1, evaluations=1)
WRONG_ANSWERS = 3


@dataclass(frozen=True, eq=False)
class Told(Arrays):
    """kind: (n,) 0 right, else which wrong answer, -1 before the first token. length: (n,) to be. t: (n,) so far."""

    kind: NDArray[np.int64]
    length: NDArray[np.int64]
    t: NDArray[np.int64]


class Traces(Stepwise):
    """Right with probability `share`; lengths are normal, cut to 1..40: `right` and `wrong` are (mean, deviation)."""

    logp = "unknown"
    states = Told
    horizon = LONGEST

    def __init__(self, right: tuple[float, float], wrong: tuple[float, float], share: float = 0.55) -> None:
        self.share, self.name = share, f"traces, right {right[0]:g} tokens and wrong {wrong[0]:g}"
        self.lengths = np.stack([_normal(*right), _normal(*wrong)])  # (2, LONGEST)

    def begin(self, keys: Keys) -> Told:
        n = len(keys)
        return Told(np.full(n, -1), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))

    def forward(self, states: Told, keys: Keys) -> Told:
        """One token; the first decides what the trace says and how long it takes over it."""
        fresh = states.t == 0
        u = [lineage.uniforms(keys, 0, lane) for lane in range(3)]
        wrong = u[0] >= self.share
        kind = np.where(wrong, 1 + np.floor(u[1] * WRONG_ANSWERS).astype(np.int64), 0)
        length = 1 + lineage.choose(self.lengths[wrong.astype(np.int64)], u[2])
        return Told(np.where(fresh, kind, states.kind), np.where(fresh, length, states.length), states.t + 1)

    def advance(self, states: Told, keys: Keys) -> Moved:
        longer = self.forward(states, keys)
        status = np.where(longer.t >= longer.length, np.int8(Status.DONE), np.int8(Status.LIVE))
        return Moved(longer, status, np.zeros(len(keys)), np.zeros(len(keys)))

    def price(self, states: Told) -> Cost:
        return TOKEN

    def answers(self, states: Told) -> tuple[Hashable, ...]:
        return tuple(states.kind.tolist())

    def first_right(self, n: int) -> float:
        """The exact probability that the first of n to finish is right; who wins a tie says nothing of its answer."""
        joint = self.lengths * np.array([[self.share], [1 - self.share]])
        beyond = 1 - np.concatenate([[0.0], np.cumsum(joint.sum(0))])  # P(length > l), l = 0..LONGEST
        shortest = np.clip(beyond[:-1], 0, 1) ** n - np.clip(beyond[1:], 0, 1) ** n
        right = np.divide(joint[0], joint.sum(0), out=np.zeros(LONGEST), where=joint.sum(0) > 0)
        return float(shortest @ right)


def _normal(mean: float, deviation: float) -> Floats:
    """A normal law at the whole numbers 1..LONGEST."""
    x = np.arange(1, LONGEST + 1)
    weight = np.exp(-(((x - mean) / deviation) ** 2) / 2)
    return np.asarray(weight / weight.sum())


POOLS = {
    "wrong traces longer": Traces((12, 3), (20, 5)),
    "length uninformative": Traces((16, 4), (16, 4)),
    "right traces longer": Traces((20, 5), (12, 3)),
}


@dataclass(frozen=True)
class Raced:
    """n traces of each of many runs: which are right and how long, what the majority and the first finisher said."""

    right: Floats  # (runs, n)
    lengths: Floats  # (runs, n)
    majority: Floats  # (runs,)
    first: Floats  # (runs,)
    paid: Floats  # (runs,) tokens that first-finish paid for


def raced(process: Traces, n: int, runs: int, seed: int) -> Raced:
    """The same draws for every method, so that they differ in what they do with them alone."""
    seeds = range(seed, seed + runs)
    voted = drive(*(Run(process, search.self_consistency(n=n), seed=s) for s in seeds))
    first = drive(*(Run(process, search.first_finish(n=n), seed=s) for s in seeds))
    states = [a.population.states for a in voted if a.population is not None]
    return Raced(
        right=np.array([s.kind == 0 for s in states], dtype=np.float64),
        lengths=np.array([s.length for s in states], dtype=np.float64),
        majority=_right(voted),
        first=_right(first),
        paid=np.array([a.cost.generated for a in first], dtype=np.float64),
    )


def _right(answers: tuple[Answer, ...]) -> Floats:
    return np.array([a.value == 0 for a in answers], dtype=np.float64)


def pools(seed: int, runs: int, n: int, progress: Callable[[str], None]) -> Iterator[Check]:
    """First-finish gains where wrong traces are longer, gains nothing where length says nothing, else loses."""
    for name, process in POOLS.items():
        r = raced(process, n, runs, seed)
        progress(f"{name}: one {r.right.mean():.3f}, first {r.first.mean():.3f}, majority {r.majority.mean():.3f}")
        yield unbiased(f"{name}: accuracy of the first of {n} is its exact law's", r.first, process.first_right(n))
        yield Check(f"{name}: tokens apart from n x shortest", float(abs(r.paid - n * r.lengths.min(1)).sum()), "==", 0)
        gain = paired(r.first, r.right)
        if name == "length uninformative":
            exactly = abs(process.first_right(n) - process.share)
            yield Check(f"{name}: exact gain over a single trace, by enumeration", exactly, "<", 1e-9)
            yield unbiased(f"{name}: measured gain over a single trace is none", r.first - r.right.mean(1), 0.0)
        elif name == "right traces longer":
            yield held(f"{name}: gain over a single trace", gain, "<", 0.0)
        else:
            yield from _gains(name, r, n)


def _gains(name: str, r: Raced, n: int) -> Iterator[Check]:
    rows = np.arange(len(r.first))
    last = r.right[rows, r.lengths.argmax(1)]
    yield held(f"{name}: gain over a single trace", paired(r.first, r.right), ">", 0.0)
    yield held(f"{name}: gain over majority@{n}", paired(r.first, r.majority), ">=", -0.01)
    yield held(f"{name}: ablation, gain over the last to finish", paired(r.first, last), ">", 0.0)
    saved = bootstrap_mean(r.paid / r.lengths.sum(1))
    yield held(f"{name}: tokens over majority@{n}'s", saved, "<", 1.0)
