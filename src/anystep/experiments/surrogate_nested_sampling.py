"""Row 89: nested sampling that learns its likelihood finds the same evidence with fewer calls of the true one.

Stated time: twenty minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from anystep.bayes.nested import Gate, NestedResult, NestedSampler, SurrogateNestedSampler, SurrogateResult
from anystep.experiments._evidences import Target, gaussian, skewed, supernovae, unlearnable
from anystep.experiments._figures import table
from anystep.experiments.check import Check, Result

ROW = 89
LIVE = 400


@dataclass(frozen=True)
class Pair:
    """One seed on one target: the plain run and the one that learns."""

    target: Target
    seed: int
    plain: NestedResult
    ours: SurrogateResult

    @property
    def from_truth(self) -> float:
        return abs(self.ours.logz - self.target.logz) / self.ours.logzerr

    @property
    def from_plain(self) -> float:
        return abs(self.ours.logz - self.plain.logz) / math.hypot(self.ours.logzerr, self.plain.logzerr)

    @property
    def means(self) -> float:
        """The largest error of a posterior mean, in posterior standard deviations."""
        return float(np.abs((self.ours.mean - self.target.mean) / self.target.sd).max())

    @property
    def means_from_plain(self) -> float:
        return float(np.abs((self.ours.mean - self.plain.mean) / self.target.sd).max())

    @property
    def saved(self) -> float:
        return 1 - self.ours.calls / self.plain.calls

    def row(self) -> list[object]:
        by = {k: v.evaluations for k, v in self.ours.by.items()}
        checks = by.get("monitor", 0) + by.get("correction", 0) + by.get("extra", 0)
        own = (self.ours.logz - self.target.logz, self.ours.logzerr, self.means)
        return [self.target.name, self.seed, self.plain.calls, self.plain.logz - self.target.logz, self.plain.logzerr,
                self.ours.calls, checks, len(self.ours.attempts), *own]  # fmt: skip


HEAD = ("target", "seed", "plain calls", "error", "reported", "our calls", "checks, extras, correction", "networks",
        "error", "reported", "mean, sd")  # fmt: skip


def run(
    seed: int = 0, progress: Callable[[str], None] = print, seeds: int = 3, live: int = LIVE, ablations: bool = True
) -> Result:
    """Check every clause of the row on `seeds` seeds from `seed` on."""
    began = time.perf_counter()
    every = range(seed, seed + seeds)
    pairs = [compared(make(), s, live, progress) for make in (gaussian, skewed, supernovae) for s in every]
    checks = [check for name in dict.fromkeys(p.target.name for p in pairs) for check in clauses(name, pairs)]
    before = min(p.ours.attempts[0].after for p in pairs)
    checks.append(Check("deaths before the first network, at the least: none is trained beforehand", before, ">=", 1))
    shut = [compared(unlearnable(), s, live, progress) for s in every[:2]]
    checks += silent(shut)
    notes = table(HEAD, [p.row() for p in pairs])
    if ablations:
        more, said = ablated([p for p in pairs if p.target.name == "skewed"], live, progress)
        checks, notes = checks + more, f"{notes}\n\n{said}"
    notes = f"{live} live points; every call of the true likelihood is counted, whatever for.\n\n{notes}"
    return Result("surrogate_nested_sampling", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def methods(target: Target, live: int) -> tuple[NestedSampler, SurrogateNestedSampler]:
    given = (target.log_likelihood, target.prior, target.dim, live)
    return NestedSampler(*given), SurrogateNestedSampler(*given)


def compared(target: Target, seed: int, live: int, progress: Callable[[str], None]) -> Pair:
    plain, ours = methods(target, live)
    pair = Pair(target, seed, plain.run(seed), ours.run(seed))
    progress(f"{target.name}, seed {seed}: {pair.plain.calls} calls, {pair.ours.calls} of them learning")
    return pair


def clauses(name: str, pairs: Sequence[Pair]) -> list[Check]:
    own = [p for p in pairs if p.target.name == name]
    among = f"{name}, the worst of {len(own)} seeds"
    errors = [p.ours.logzerr / p.plain.logzerr for p in own]
    return [
        Check(f"{among}: log Z from the truth, in reported sigma", max(p.from_truth for p in own), "<=", 3),
        Check(f"{among}: log Z from the plain run, in both's sigma", max(p.from_plain for p in own), "<=", 3),
        Check(f"{among}: a posterior mean from the truth, in sd", max(p.means for p in own), "<=", 0.2),
        Check(f"{among}: a posterior mean from the plain run, in sd", max(p.means_from_plain for p in own), "<=", 0.2),
        Check(f"{among}: share of true calls saved", min(p.saved for p in own), ">=", 0.5),
        Check(f"{among}: reported error over the plain run's", max(errors), "<=", 1.1),
    ]


def silent(pairs: Sequence[Pair]) -> list[Check]:
    tried = [a for p in pairs for a in p.ours.attempts]
    apart = sum(
        (p.ours.logz, p.ours.logzerr) != (p.plain.logz, p.plain.logzerr)
        or not np.array_equal(p.ours.samples, p.plain.samples)
        or not np.array_equal(p.ours.weights, p.plain.weights)
        for p in pairs
    )
    extra = [p.ours.calls - p.plain.calls - p.ours.by["extra"].evaluations for p in pairs]
    return [
        Check("unlearnable: networks trained", len(tried), ">", 0),
        Check("unlearnable: networks that the gate let in", sum(a.closed != "held out" for a in tried), "==", 0),
        Check("unlearnable: runs that differ from the plain one in any digit", apart, "==", 0),
        Check("unlearnable: calls besides the plain run's and the extras", max(map(abs, extra)), "==", 0),
    ]


def ablated(pairs: Sequence[Pair], live: int, progress: Callable[[str], None]) -> tuple[list[Check], str]:
    """These seeds without the gates after the swap, where a peak hides inside the peak; and with a single network."""
    watched, unwatched, once = [], [], []
    for p in pairs:
        inner = compared(gaussian(inner=5.0), p.seed, live, progress)
        learner = methods(inner.target, live)[1]
        watched.append(inner)
        unwatched.append(replace(inner, ours=replace(learner, gate=Gate(monitor=False)).run(p.seed)))
        once.append(replace(p, ours=replace(methods(p.target, live)[1], networks=1).run(p.seed)))
        progress(
            f"ablations, seed {p.seed}: {unwatched[-1].from_truth:.1f} sigma unwatched; {once[-1].ours.calls} calls"
        )
    calls = sum(p.ours.calls for p in once) / sum(p.ours.calls for p in pairs)
    hidden = f"{watched[0].target.name}: log Z from the truth, in reported sigma,"
    checks = [
        Check(f"{hidden} the worst", max(p.from_truth for p in watched), "<=", 3),
        Check(f"{hidden} the best without the gates after the swap", min(p.from_truth for p in unwatched), ">", 3),
        Check(f"{pairs[0].target.name}: calls of runs with one network over ours", calls, ">", 1),
    ]
    tables = {"With all gates": watched, "Without the gates after the swap": unwatched, "Trained once": once}
    return checks, "\n\n".join(f"{said}:\n\n{table(HEAD, [p.row() for p in rows])}" for said, rows in tables.items())
