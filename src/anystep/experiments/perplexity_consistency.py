"""Row 222: perplexity consistency against its closed forms on a law over paths, and on recorded pools against votes of
up to twice its samples and the likeliest path alone.

Stated time: four minutes on one quiet core where the pools are recorded; recording takes an hour more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from anystep import search
from anystep.experiments import _path_errors as errors
from anystep.experiments._deciding import Decided, decided, ece_difference, perplexity
from anystep.experiments._deciding_pools import all_pools
from anystep.experiments._figures import held, table, unbiased
from anystep.experiments.check import Check, Result
from anystep.search import decide
from anystep.search.pools import Pool

ROW = 222
FEW, MANY = 16, 32
NS = (2, 4, 8, 16, 32, 64)
PC, RPC = decide.perplexity_consistency(prune=False), decide.perplexity_consistency()


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    pools: Mapping[str, Sequence[Pool]] | None = None,
    runs: int = 20_000,
    times: int = 6,
) -> Result:
    """Check every clause of the row.

    pools: recorded ones by name, by default ChainLM's on chains and SmolLM2's on three reasoning-gym tasks. runs: of
    the law over paths. times: sub-pools of each problem and size.
    """
    began = time.perf_counter()
    checks = list(closed_forms(seed, runs))
    progress("closed forms measured")
    every = all_pools(progress) if pools is None else pools
    told = []
    for name, some in every.items():
        found = {n: compared(some, n, times, seed) for n in NS}
        checks += clauses(name, found)
        checks.append(unpruned(name, some, times, seed))
        told.append(f"{name}, {len(some)} problems, {times} sub-pools of each size:\n\n{curve(found)}")
        progress(f"{name} decided")
    return Result("perplexity_consistency", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def closed_forms(seed: int, runs: int) -> Iterator[Check]:
    """Mean and variance of the estimate, the vote's error beside it, and how fast each falls."""
    rng, law, a = np.random.default_rng(seed), errors.TOY, "a"
    p = law.share(a)
    apart = errors.agrees(law, a, 24, 100, rng)
    yield Check(
        "law over paths: the decision's estimate minus the sum over distinct paths, at most", apart, "<=", 1e-12
    )
    found: dict[int, dict[str, float]] = {}
    for n in (4, 16, 32, 64):
        estimates = errors.estimated(law, a, n, runs, rng)
        mean, variance = errors.exact(law, a, n)
        ours = estimates["perplexity consistency"]
        yield unbiased(f"law over paths, n = {n}: mean against sum p (1 - (1 - p)^n)", ours, mean)
        yield unbiased(f"law over paths, n = {n}: variance against its closed form", (ours - mean) ** 2, variance)
        found[n] = {name: float(((x - p) ** 2).mean()) for name, x in estimates.items()}
    for n in (32, 64):
        share = found[n]["perplexity consistency"] / (p * (1 - p) / n)
        yield Check(f"law over paths, n = {n}: squared error over the vote's p (1 - p) / n", share, "<", 1.0)
    ns = np.array([16.0, 32.0, 64.0])
    fall = errors.slope(np.log(ns), np.array([found[int(n)]["perplexity consistency"] for n in ns]))
    yield Check("law over paths: slope of the log squared error over log n, n = 16 to 64 (1/n has -1)", fall, "<", -1.0)


def compared(pools: Sequence[Pool], n: int, times: int, seed: int) -> dict[str, Decided]:
    """Our method, its form without pruning, the vote and the likeliest path, on the same sub-pools."""
    those = {"pruned": RPC, "plain": PC, "vote": search.majority, "likeliest path": perplexity}
    return {name: decided(pools, decision, n, times, seed) for name, decision in those.items()}


def clauses(name: str, found: Mapping[int, Mapping[str, Decided]]) -> Iterator[Check]:
    ours, vote = found[FEW]["pruned"], found[MANY]["vote"]
    yield held(f"{name}: accuracy of {FEW} samples minus majority@{MANY}'s", ours.over(vote), ">=", -0.01)
    same = found[FEW]
    yield held(
        f"{name}: calibration error at {FEW} samples minus the vote's at {FEW}",
        ece_difference(ours, same["vote"]),
        "<",
        0.0,
    )
    yield held(
        f"{name}: accuracy at {FEW} samples minus the likeliest path's", ours.over(same["likeliest path"]), ">", 0.0
    )


def unpruned(name: str, pools: Sequence[Pool], times: int, seed: int) -> Check:
    """Decisions without pruning that are not plain perplexity consistency, as it is written down here again."""
    unlike = 0
    for pool in pools:
        whole = pool.population()
        for rows in pool.subsets(min(FEW, len(pool)), times, seed):
            some = whole.take(rows)
            verdict = PC(some)
            law: dict[str, tuple[object, float]] = {}
            for text, answer, logp, done in zip(
                some.texts or (), some.answers or (), some.logp, some.done, strict=True
            ):
                if done and answer is not None:
                    law[text] = (answer, max(float(logp), law.get(text, (None, -np.inf))[1]))
            sums: dict[object, float] = {}
            for answer, logp in law.values():
                sums[answer] = sums.get(answer, 0.0) + float(np.exp(logp))
            said = None if verdict.row is None or not sums else (some.answers or ())[verdict.row]
            best = max(sums.values(), default=0.0)
            unlike += bool(sums) and sums[said] < best * (1 - 1e-9)
    return Check(
        f"{name}: decisions with pruning off that plain perplexity consistency would not make", unlike, "==", 0
    )


def curve(found: Mapping[int, Mapping[str, Decided]]) -> str:
    rows: list[list[object]] = []
    for n, each in found.items():
        rows.append([n, *(d.accuracy for d in each.values()), *(d.ece().value for d in each.values())])
    names = list(next(iter(found.values())))
    return table(["n", *names, *(f"ECE {name}" for name in names)], rows)
