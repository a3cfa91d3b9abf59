"""What the pages of votes and tournaments measure: on recorded ChainLM pools of the test split (adaptive votes,
abstaining, tournaments under judges of planted quality) and, with --live, on fresh chains (token confidence).

    python benchmarks/deciding.py [--live]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep import search, verify
from anystep.calibrate import level, paired_difference
from anystep.drive import drive
from anystep.experiments._deciding import solved
from anystep.experiments._deciding_pools import chain_pools
from anystep.experiments._equal import no_cheaper, outcomes
from anystep.experiments._figures import table
from anystep.ledger import Cost, Limit
from anystep.procedure import Method
from anystep.process import Reward, Scored
from anystep.run import Run
from anystep.search.pools import Pool
from anystep.search.tournament import comparisons
from anystep.solve import engine_for
from anystep.tasks.chains import chains

N = 16
PROBLEMS, BRACKETS = 60, 40  # test problems, and those of them on which tournaments are held


@dataclass(frozen=True)
class Planted(Reward):
    """Preferred to a reference where it is right and the other wrong, with probability `quality`; else a coin. By the
    exact checker: an oracle's judge, with errors."""

    judge: Judge
    rows: tuple[int, ...]
    name: str = "planted-judge"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        rows = np.asarray(states.row)
        limit.pay(np.arange(len(rows)), each=Cost(calls=len(self.rows)))
        return Scored(
            np.array([np.mean([self.judge.says(a, b) for b in self.rows]) for a in rows.tolist()]), limit.used
        )


@dataclass(frozen=True)
class Judge:
    pool: Pool
    quality: float

    def against(self, references: Any) -> Planted:
        return Planted(self, tuple(np.asarray(references.row).tolist()))

    def says(self, one: int, other: int) -> float:
        right, low, high = solved(self.pool), min(one, other), max(one, other)
        u = lineage.uniforms(lineage.roots(self.pool.seed, (low, high), np.arange(1)), np.zeros(1, np.int64))[0]
        better = (one if right[one] > right[other] else other) if right[one] != right[other] else low
        chance = self.quality if right[one] != right[other] else 0.5
        return float((better == one) == (u < chance))

    def __hash__(self) -> int:
        return hash((self.pool.item, self.quality))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Judge) and (self.pool.item, self.quality) == (other.pool.item, other.quality)


def replayed(pools: list[Pool], method: Callable[[Pool], Method]) -> tuple[np.ndarray, list[Run]]:
    """A method on each pool's first samples: whether it was right, and its run."""
    runs = [Run(pool.process(), method(pool), seed=pool.seed) for pool in pools]
    for run in runs:
        drive(run)
    right = [
        0.0
        if r.answer is None or r.answer.row is None
        else solved(p)[np.asarray(r.answer.population.states.row)[r.answer.row]]
        for p, r in zip(pools, runs, strict=True)
    ]
    return np.array(right), runs


def tokens(runs: list[Run]) -> float:
    return float(np.mean([run.spent.tokens for run in runs]))


def adaptive(pools: list[Pool]) -> str:
    whole, all_runs = replayed(pools, lambda pool: search.self_consistency(n=2 * N))
    rows: list[list[object]] = [[f"vote@{2 * N}", str(level(list(whole))), "", 2.0 * N, tokens(all_runs), 1.0]]
    for sure in (1.0, 0.95, 0.8):
        right, runs = replayed(pools, lambda pool, sure=sure: search.adaptive_self_consistency(n=2 * N, sure=sure))
        same = np.mean([a.answer.value == b.answer.value for a, b in zip(all_runs, runs, strict=True)])
        used = float(np.mean([run.answer.started for run in runs]))
        gap = str(paired_difference(list(right), list(whole)))
        rows.append([f"adaptive@{2 * N}, sure={sure:g}", str(level(list(right))), gap, used, tokens(runs), float(same)])
    for n in (4, 8, 12, 16):
        right, runs = replayed(pools, lambda pool, n=n: search.self_consistency(n=n))
        rows.append(
            [
                f"vote@{n}",
                str(level(list(right))),
                str(paired_difference(list(right), list(whole))),
                float(n),
                tokens(runs),
                float(np.mean([a.answer.value == b.answer.value for a, b in zip(all_runs, runs, strict=True)])),
            ]
        )
    return table(["method", "accuracy", f"minus vote@{2 * N}", "samples", "tokens", "same answer"], rows)


def abstaining(pools: list[Pool]) -> str:
    rows: list[list[object]] = []
    for below in (0.0, 0.3, 0.5, 0.7, 0.9):
        decision = search.abstain(search.majority, below)
        right, runs = replayed(pools, lambda pool, d=decision: search.self_consistency(n=N).deciding(d))
        answered = np.array([not run.answer.abstained for run in runs])
        rows.append([below, float(answered.mean()), str(level(list(right[answered])))])
    return table(["below", "answered", "accuracy of those"], rows)


def tournaments(every: list[Pool]) -> str:
    pools = every[:BRACKETS]
    vote, _ = replayed(pools, lambda pool: search.self_consistency(n=N))
    best, _ = replayed(pools, lambda pool: search.best_of_n(n=N, reward=pool.reward("oracle")))
    rows: list[list[object]] = [[f"vote@{N}", "", 0, str(level(list(vote)))]]
    for quality in (0.6, 0.75, 0.9):
        for group in (2, N):
            right, _ = replayed(
                pools, lambda pool, q=quality, g=group: search.tournament(n=N, judge=Judge(pool, q), group=g)
            )
            rows.append([f"groups of {group}", f"{quality:g}", comparisons(N, group), str(level(list(right)))])
    rows.append([f"best of {N} (oracle)", "", "", str(level(list(best)))])
    return table(["method", "judge right on", "comparisons", "accuracy"], rows)


def confident(problems: int = 120, n: int = N, window: int = 8) -> str:
    engine = engine_for("chainlm-2m")
    tasks = chains(problems, "test", 0)
    vote = outcomes(engine, tasks, search.self_consistency(n=n))
    rows: list[list[object]] = [["vote", "", str(vote.accuracy), "", vote.cost]]
    for read_as, keep in (("lowest", 0.5), ("mean", 0.5)):
        reads = verify.token_confidence(engine, read_as, window)
        found = outcomes(engine, tasks, search.deepconf(n=n, confidence=reads, keep=keep))
        rows.append([f"deepconf, {read_as}", keep, str(found.accuracy), str(found.over(vote)), found.cost])
    reads = verify.token_confidence(engine, "lowest", window)
    found = outcomes(engine, tasks, search.deepconf_online(n=n, confidence=reads, keep=0.5))
    rows.append(["deepconf_online, lowest", 0.5, str(found.accuracy), str(found.over(vote)), found.cost])
    fair, equal = no_cheaper(
        lambda m: outcomes(engine, tasks, search.self_consistency(n=m)), found.cost, (6, 8, 10, 12)
    )
    rows.append([f"vote@{fair}, no cheaper", "", str(equal.accuracy), str(equal.over(vote)), equal.cost])
    rows.append(["deepconf_online minus it", "", "", str(found.over(equal)), ""])
    return table(["method", "keep", "accuracy", "minus the vote", "tokens"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="also sample fresh chains, for token confidence")
    live = parser.parse_args().live
    pools = chain_pools(problems=PROBLEMS)
    print(f"{len(pools)} test problems\n")
    for name, measured in {"adaptive": adaptive, "abstaining": abstaining, "tournaments": tournaments}.items():
        print(f"{name}\n\n{measured(pools)}\n", flush=True)
    if live:
        print(f"token confidence\n\n{confident()}", flush=True)
