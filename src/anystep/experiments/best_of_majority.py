"""Row 212: best of majority on a simulated policy with an erroneous reward, and on recorded pools against best of n and
the most frequent answers.

Stated time: four minutes on one quiet core where the pools are recorded; recording takes half an hour more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._deciding import Decided, decided, solved
from anystep.experiments._deciding_pools import DEV, chain_pools
from anystep.experiments._figures import held, table
from anystep.experiments._regret import Instance, instance, regret
from anystep.experiments.check import Check, Result
from anystep.population import Decision, Population, Verdict
from anystep.search import best_reward, decide
from anystep.search.decide.frequent import candidates
from anystep.search.pools import Pool

ROW = 212
KS = (1, 4, 8)
SIZES = (16, 64, 256, 1_024, 2_048, 4_096)
NS = (16, 64, 256)
GRID = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 2.0)  # 2: the most frequent
MAJORITY = 2.0


@dataclass(frozen=True)
class Pools:
    """Recorded pools to choose the thresholds on, and to be measured on."""

    dev: Sequence[Pool]
    test: Sequence[Pool]


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    pools: Mapping[str, Pools] | None = None,
    runs: int = 60,
    times: int = 2,
) -> Result:
    """Check every clause of the row.

    pools: by name, with the learned reward under the label "step"; by default ChainLM's on chains. runs: of the
    simulated policy in each cell. times: sub-pools of each problem and size.
    """
    began = time.perf_counter()
    checks, curve = simulated(seed, runs)
    progress("simulated policy measured")
    told = [curve]
    every = (
        {"ChainLM": Pools(chain_pools("dev", DEV, say=progress), chain_pools("test", say=progress))}
        if pools is None
        else pools
    )
    for name, some in every.items():
        checks.append(nothing_held_back(name, some.test, times, seed))
        found, cells = compared(name, some, times, seed)
        checks, told = [*checks, *found], [*told, cells]
        progress(f"{name} decided")
    return Result("best_of_majority", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def simulated(seed: int, runs: int) -> tuple[list[Check], str]:
    """Regret by n for each k, of best of majority at the theory's threshold, best of n, and the most frequent."""
    where, checks, rows = instance(), list[Check](), list[list[object]]()
    for k in KS:
        those = {"best of majority": where.threshold(), "best of n": 0.0, "majority": MAJORITY}
        found = {
            name: {n: regret(where, decide.best_of_majority(a, k), n, runs, seed) for n in SIZES}
            for name, a in those.items()
        }
        checks += shapes(where, k, found)
        rows += [[k, name, *(float(x.mean()) for x in each.values())] for name, each in found.items()]
    unlike = sum(_unlike(where, n, seed) for n in (8, 16))
    checks.append(
        Check("simulated: choices of best of majority unlike best of n's while 1/n >= threshold", unlike, "==", 0)
    )
    head = ["k", "decision", *(f"n = {n:,}" for n in SIZES)]
    limits = ", ".join(f"{where.enough(k):,.0f} for k = {k}" for k in KS)
    about = (
        f"C = {where.coverage:.0f}, threshold {where.threshold():.4f}, {runs} runs a cell; enough by theory: {limits}"
    )
    return checks, f"Regret of the simulated policy ({about}):\n\n{table(head, rows)}"


def shapes(where: Instance, k: int, found: Mapping[str, Mapping[int, np.ndarray]]) -> Iterator[Check]:
    """How each regret goes with n."""
    gated, best, most = (
        {n: float(x.mean()) for n, x in found[name].items()} for name in ("best of majority", "best of n", "majority")
    )
    later = [n for n in SIZES if n >= where.enough(k)]
    rise = max(gated[b] - gated[a] for a, b in zip(later[:-1], later[1:], strict=True))
    clause = f"simulated, k = {k}: best of majority's regret, its rise over n >= 16 C log(k C / error)"
    yield Check(f"{clause}, n = {', '.join(map(str, later))}", rise, "<=", 0.0)
    yield Check(
        f"simulated, k = {k}: best of n's regret, its rise from n = 64 to 4,096", best[4_096] - best[64], ">", 0.0
    )
    flat = max(abs(most[n] - most[SIZES[-1]]) for n in SIZES if n >= 256)
    yield Check(f"simulated, k = {k}: majority's regret from n = 256 on, away from its last by", flat, "<=", 0.1)
    above = bootstrap_mean(found["majority"][SIZES[-1]] - found["best of majority"][SIZES[-1]])
    yield held(f"simulated, k = {k}: majority's regret minus best of majority's at n = 4,096", above, ">", 0.0)


def _unlike(where: Instance, n: int, seed: int, runs: int = 100) -> int:
    rng = np.random.default_rng(seed)
    gate, plain = decide.best_of_majority(1 / n), best_reward
    samples = [where.sampled(n, rng) for _ in range(runs)]
    return sum(gate(sample).row != plain(sample).row for sample in samples)


def nothing_held_back(name: str, pools: Sequence[Pool], times: int, seed: int) -> Check:
    """Choices at threshold 0 that are not best of n's, on every sub-pool."""
    unlike = 0
    for pool in pools:
        whole = pool.population(scores="step")
        for rows in pool.subsets(NS[1], times, seed):
            some = whole.take(rows)
            unlike += decide.best_of_majority(0)(some).row != best_reward(some).row
    return Check(f"{name}: choices at threshold 0 unlike best of n's", unlike, "==", 0)


def compared(name: str, pools: Pools, times: int, seed: int) -> tuple[list[Check], str]:
    """Pass@k in every cell of n and k, the threshold chosen on the dev pools, against both baselines."""
    checks, rows = list[Check](), list[list[object]]()
    for k in KS:
        for n in NS:
            a = chosen(pools.dev, k, n, times, seed)
            ours, best, most = (passed(pools.test, t, k, n, times, seed) for t in (a, 0.0, MAJORITY))
            for other, baseline in (("best of n", best), ("majority", most)):
                checks.append(held(f"{name}: pass@{k} of {n} minus {other}'s", ours.over(baseline), ">=", -0.01))
            others = [decided(pools.test, d, n, _times(n, times), seed, "step").accuracy for d in ablations(k)]
            rows.append([k, n, a, ours.accuracy, best.accuracy, most.accuracy, *others])
    oracle = np.mean([solved(pool).max() for pool in pools.test])
    head = ["k", "n", "threshold", "best of majority", "best of n", "majority", "weighted vote", "mean reward"]
    about = f"{name}, {len(pools.test)} test problems, thresholds from {len(pools.dev)} dev problems"
    return checks, f"{about}; some sample is right on {oracle:.3f}:\n\n{table(head, rows)}"


def chosen(pools: Sequence[Pool], k: int, n: int, times: int, seed: int) -> float:
    """The threshold of the grid with the best pass@k on these pools; the smallest of equals."""
    return max(GRID, key=lambda a: (round(passed(pools, a, k, n, times, seed).accuracy, 9), -a))


def passed(pools: Sequence[Pool], threshold: float, k: int, n: int, times: int, seed: int) -> Decided:
    return decided(pools, decide.best_of_majority(threshold, k), n, _times(n, times), seed, "step")


def _times(n: int, times: int) -> int:
    return 1 if n >= NS[-1] else times  # a pool of 256 has one sub-pool of 256


def ablations(k: int) -> list[Decision]:
    """Weighted vote: the k answers with the largest sum of rewards. Mean reward: best of n by answers' mean reward."""

    def weighted(population: Population) -> Verdict:
        found = candidates(population, "mean")
        best = sorted(found, key=lambda c: (-c.share * max(c.reward, 0.0), c.row))[:k]
        return Verdict(best[0].row, submitted=tuple(c.row for c in best)) if best else Verdict(None)

    return [Decision("weighted vote", weighted, scores=True), decide.best_of_majority(0.0, k, "mean")]
