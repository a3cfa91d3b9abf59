"""Row 42: coverage against the number of samples, on recorded pools of SmolLM2 and ChainLM.

Stated time: under a minute on recorded pools. Recording them takes about five minutes of one quiet core the first time
(256 samples of 90 reasoning-gym items by SmolLM2, 8 by Gemma 3 270M, 256 of 120 problems by ChainLM), and goes on where
it was when interrupted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from anystep import search
from anystep.answer import AllFailed
from anystep.bench.coverage import beta_binomial, curve, power_law, spread
from anystep.bench.pass_at_k import Counts, pass_at
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments._pools import DATASETS, PoolRecipe, checked, recorded
from anystep.experiments.check import Check, Result
from anystep.ledger import Cost
from anystep.population import Decision, Population
from anystep.process import Floats
from anystep.run import Run
from anystep.search.pools import Pool

ROW = 42
FIT, TRUTH, FEW, LARGE = 64, 256, 5, 8
RESAMPLES, SUBSETS = 400, 40


@dataclass(frozen=True)
class Solved:
    """A pool, and which of its samples are right, (n,)."""

    pool: Pool
    right: Floats

    @classmethod
    def of(cls, pool: Pool) -> Solved:
        return cls(pool, (np.nan_to_num(pool.scores("oracle")) >= 1).astype(np.float64))

    def counts(self, n: int) -> Counts:
        """Of the first n samples, how many are right."""
        return n, int(self.right[:n].sum())

    def decided(self, decision: Decision, population: Population) -> float:
        """Whether what a decision picks from some of the pool's rows is right; the rows are its ids."""
        row = decision(population).row
        return 0.0 if row is None else float(self.right[population.id[row]])

    def mean(self, decision: Decision, n: int, scores: str | None = None, seed: int = 0) -> float:
        """A decision's accuracy on n of the first `TRUTH` samples, over sub-pools drawn without replacement."""
        first = self.pool.first(min(len(self.pool), TRUTH))
        whole = first.population(scores=scores)
        if n >= len(first):
            return self.decided(decision, whole)
        return float(np.mean([self.decided(decision, whole.take(rows)) for rows in first.subsets(n, SUBSETS, seed)]))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    problems: int = 30,
    chain_problems: int = 120,
    small: str = "smollm2-135m",
    large: str = "gemma-3-270m",
) -> Result:
    """Check every clause of the row.

    problems: of each of the three reasoning-gym datasets. chain_problems: of ChainLM's test split. seed: of sub-pools
    and bootstraps; the pools are always the same.
    """
    began = time.perf_counter()
    sets = {name: _asked(small, name, problems, TRUTH, progress) for name in DATASETS}
    sets["chains"] = [Solved.of(pool) for _, pool in recorded(PoolRecipe(), chain_problems, TRUTH, say=progress)]
    big = [s for name in DATASETS for s in _asked(large, name, problems, LARGE, progress)]
    greedy = {name: _asked(small, name, problems, 2, progress, temperature=0.0) for name in DATASETS}
    asked = [s for name in DATASETS for s in sets[name]]
    checks = [*enumerated(), *laws(sets, seed), *plateau(asked, seed), *cheap(asked, big)]
    told = "\n\n".join((_curves(sets, seed), _selection(sets["chains"], seed), _costs(asked, big, greedy)))
    return Result("repeated_sampling", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def _asked(
    model: str, dataset: str, problems: int, n: int, say: Callable[[str], None], temperature: float = 1.0
) -> list[Solved]:
    recipe = PoolRecipe(model, dataset, temperature=temperature)
    return [Solved.of(pool) for _, pool in recorded(recipe, problems, n, checked, ("oracle",), say)]


def enumerated() -> Iterator[Check]:
    """The estimator against all ways to draw k of a finite pool."""
    apart = 0.0
    for n in range(1, 9):
        for right in range(n + 1):
            pool = [i < right for i in range(n)]
            for k in range(1, n + 1):
                truth = float(np.mean([any(chosen) for chosen in combinations(pool, k)]))
                apart = max(apart, abs(pass_at(n, right, k) - truth))
    yield Check("pass@k estimator: largest distance from enumeration, pools of up to 8", apart, "<", 1e-12)


def forecast(counts: Sequence[Counts]) -> float:
    """Coverage at `TRUTH` by the power law, from the first `FIT` samples of each problem alone."""
    ks = spread(FIT)
    return float(power_law(ks, curve(counts, ks)).at(TRUTH))


def laws(sets: Mapping[str, Sequence[Solved]], seed: int) -> Iterator[Check]:
    """The clause on the power law, of each set."""
    for name, found in sets.items():
        first, whole = [s.counts(FIT) for s in found], [s.counts(TRUTH) for s in found]
        missed = abs(forecast(first) - curve(whole, [TRUTH])[0])
        rng, errors = np.random.default_rng(seed), []
        for _ in range(RESAMPLES):
            at = rng.integers(0, len(found), len(found))
            if any(first[i][1] for i in at):
                truth = curve([whole[i] for i in at], [TRUTH])[0]
                errors.append(abs(forecast([first[i] for i in at]) - truth))
        low, high = np.quantile(errors, [0.025, 0.975])
        clause = f"{name}: power law from k<={FIT} of the first {FIT} samples, its distance from coverage at {TRUTH}"
        yield held(clause, Interval(float(missed), float(low), float(high)), "<=", 0.03)


def plateau(found: Sequence[Solved], seed: int) -> Iterator[Check]:
    """The clause on voting beyond `FIT` samples, over all reasoning-gym items, beside coverage."""
    few = np.array([s.mean(search.majority, FIT, seed=seed) for s in found])
    many = np.array([s.mean(search.majority, TRUTH) for s in found])
    yield held(f"reasoning-gym: vote@{TRUTH} minus vote@{FIT}", paired(many, few), "<", 0.02)
    covered = [np.array([pass_at(*s.counts(TRUTH), k) for s in found]) for k in (FIT, TRUTH)]
    yield held(f"reasoning-gym: coverage at {TRUTH} minus at {FIT}", paired(covered[1], covered[0]), ">", 0.0)


def cheap(small: Sequence[Solved], large: Sequence[Solved]) -> Iterator[Check]:
    """The clause on five samples of the small model against one of the larger one."""
    five = np.array([pass_at(*s.counts(TRUTH), FEW) for s in small])
    one = np.array([s.right.mean() for s in large])
    yield held(f"coverage of {FEW} small-model samples minus one larger-model sample's", paired(five, one), ">", 0.0)
    paid = np.array([ledger(s.pool, FEW).flops for s in small])
    theirs = np.array([s.pool.cost(1).flops for s in large])
    yield held(
        f"FLOPs on the ledger: {FEW} small-model samples over one larger-model sample", ratio(paid, theirs), "<", 1.0
    )


def ledger(pool: Pool, n: int) -> Cost:
    """What a run of n samples pays."""
    run = Run(pool.process(), search.repeated_sampling(n), seed=pool.seed)
    with contextlib.suppress(AllFailed):  # each of them ran into the cap, and was paid
        drive(run)
    return run.spent


def _curves(sets: Mapping[str, Sequence[Solved]], seed: int) -> str:
    ks = (1, 4, 16, FIT, TRUTH)
    rows = []
    for name, found in sets.items():
        first, whole = [s.counts(FIT) for s in found], [s.counts(TRUTH) for s in found]
        votes = [float(np.mean([s.mean(search.majority, k, seed=seed) for s in found])) for k in (FIT, TRUTH)]
        betas = float(beta_binomial(first).at(TRUTH))
        rows.append([name, len(found), *map(float, curve(whole, ks)), forecast(first), betas, *votes])
    heads = [f"coverage at {k}" for k in ks] + ["power law", "Beta-binomial", f"vote@{FIT}", f"vote@{TRUTH}"]
    told = f"Coverage, what the two laws make of the first {FIT} samples for {TRUTH}, and voting:\n"
    return told + table(["set", "problems", *heads], rows)


def _selection(found: Sequence[Solved], seed: int) -> str:
    """ChainLM: what selects without an answer key stops gaining where coverage goes on."""
    rows = []
    for k in (4, 16, FIT, TRUTH):
        best = [s.mean(search.best_reward, k, "step", seed) for s in found]
        weighed = [s.mean(search.reward_majority, k, "step", seed) for s in found]
        voted = [s.mean(search.majority, k, seed=seed) for s in found]
        covered = [pass_at(*s.counts(TRUTH), k) for s in found]
        rows.append([k, *(str(bootstrap_mean(x)) for x in (covered, best, weighed, voted))])
    heads = ["samples", "coverage (oracle)", "best by step reward", "weighted vote", "vote"]
    return "ChainLM's selection without an answer key:\n" + table(heads, rows)


def _costs(small: Sequence[Solved], large: Sequence[Solved], greedy: Mapping[str, Sequence[Solved]]) -> str:
    plain = [float(s.right[0]) for found in greedy.values() for s in found]
    rows = []
    for n in (1, FEW, 16):
        solved = bootstrap_mean([pass_at(*s.counts(TRUTH), n) for s in small])
        costs = [ledger(s.pool, n) for s in small]
        voted = bootstrap_mean([s.mean(search.majority, n) for s in small])
        rows.append([f"small, {n}", solved, voted, *_paid(costs)])
    rows.insert(
        0,
        [
            "small, greedy",
            bootstrap_mean(plain),
            bootstrap_mean(plain),
            *_paid([ledger(s.pool, 1) for f in greedy.values() for s in f]),
        ],
    )
    rows.append(
        [
            "larger, 1",
            *[bootstrap_mean([float(s.right.mean()) for s in large])] * 2,
            *_paid([s.pool.cost(1) for s in large]),
        ]
    )
    return "Means over the reasoning-gym items:\n" + table(["samples", "coverage", "vote", "tokens", "GFLOPs"], rows)


def _paid(costs: Sequence[Cost]) -> tuple[str, str]:
    return f"{np.mean([c.tokens for c in costs]):.0f}", f"{np.mean([c.flops for c in costs]) / 1e9:.1f}"
