"""Row 121: collaborative verification by chain and program, on three small reasoners that err in different ways.

Each reasoner in turn is the one that no verifier has seen: verifiers learn from the other two, or from one of them on
as many problems. All that is chosen between is drawn once and shared; arms without the translator or without the ranker
get more samples, until they have read and written at least as many tokens.

Stated time: five minutes on one quiet core, and fifteen more the first time, when four reasoners and twelve verifiers
are trained (then they are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

import numpy as np

from anystep.bench.interval import level
from anystep.experiments._collaboration import (
    Pool,
    checked,
    chosen,
    drawn,
    gated,
    grown,
    over,
    ranked,
    tokens,
    unaided,
    voted,
)
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Check, Result
from anystep.language.train.reasoners import BASE, GENERATORS, Reasoner, reasoner_of
from anystep.language.train.verifiers import LOSSES, Training, verifier, verifier_card
from anystep.process import Floats
from anystep.tasks.quantities import Quantities, problems, solution
from anystep.verify.collaborative_cot_pot import Runner, in_sandbox

ROW = 121
N = 16
MOST = 40  # samples in a pool: room for arms that spend on samples what others spend on checking
HEAD = "several, outcome"  # the verifier of the headlines, chosen on dev


@dataclass(frozen=True)
class Setting:
    """Recipes, by default those of the recorded run."""

    reasoners: Mapping[str, Reasoner]
    base: Reasoner
    training: Training


DEFAULT = Setting(GENERATORS, BASE, Training("outcome", ("A",)))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    setting: Setting = DEFAULT,
    items: int = 420,
    part: str = "test",
    runner: Runner = in_sandbox,
) -> Result:
    """Check every clause of the row. items: problems a reasoner, each reasoner's its own."""
    began = time.perf_counter()
    pools: dict[str, list[Pool]] = {}
    for unseen in setting.reasoners:
        pools[unseen] = pooled(unseen, setting, items, part, seed, runner, progress)
    every = [pool for some in pools.values() for pool in some]
    checks = [*clauses(every)]
    return Result("collaborative_cot_pot", ROW, tuple(checks), time.perf_counter() - began, seed, notes(pools))


def pooled(
    unseen: str,
    setting: Setting,
    items: int,
    part: str,
    seed: int,
    runner: Runner,
    progress: Callable[[str], None],
) -> list[Pool]:
    """Pools of one reasoner, checked, and ranked by verifiers that have never seen it."""
    place = list(setting.reasoners).index(unseen)
    pools = drawn(reasoner_of(setting.reasoners[unseen], progress), asked(part, items, seed, place), MOST, MOST, seed)
    checked(pools, reasoner_of(setting.base, progress), runner)
    for name, training in trainings(unseen, setting).items():
        card = verifier_card(training, dict(setting.reasoners), setting.base, progress)
        ranked(pools, name, verifier(card))
    progress(f"{unseen}: single {np.mean([p.right.mean() for p in pools]):.3f}")
    return pools


def asked(part: str, items: int, seed: int, place: int) -> list[Quantities]:
    """Distinct problems of a split; each reasoner has its own."""
    found: dict[str, Quantities] = {}
    for problem in problems(part, Random(10_000 + 100 * seed + place)):
        found.setdefault(str(problem), problem)
        if len(found) == items:
            break
    return list(found.values())


def trainings(unseen: str, setting: Setting) -> dict[str, Training]:
    """The verifiers compared on a reasoner that none of them has seen: of two reasoners, or of one, by either loss."""
    names = list(setting.reasoners)
    at = names.index(unseen)
    seen = tuple(names[(at + i) % len(names)] for i in range(1, len(names)))
    return {
        f"{who}, {loss}": replace(setting.training, loss=loss, generators=generators)
        for loss in LOSSES
        for who, generators in (("several", seen), ("single", seen[:1]))
    }


def clauses(pools: Sequence[Pool]) -> Iterator[Check]:
    """A check for each clause of the row."""
    ours = over(pools, lambda p: chosen(p, N, gated(p, HEAD)))
    alone = over(pools, lambda p: chosen(p, N, p.scores[HEAD]))
    clause = f"trained verifier alone minus majority@{N}, same samples"
    yield held(clause, paired(alone, over(pools, lambda p: voted(p, N, np.ones(len(p.chains))))), ">", 0.0)
    clause = f"trained verifier alone at N={N} minus majority of at least as many tokens"
    yield held(clause, paired(alone, over(pools, by_tokens(False, False, paid_by=(True, False)))), ">", 0.0)
    clause = f"chain and program at N={N} minus the trained verifier alone of at least as many tokens"
    yield held(clause, paired(ours, over(pools, by_tokens(True, False))), ">=", 0.02)
    clause = f"chain and program at N={N} minus the program verifier alone of at least as many tokens"
    yield held(clause, paired(ours, over(pools, by_tokens(False, True))), ">=", 0.02)
    single = over(pools, lambda p: chosen(p, N, p.scores[HEAD.replace("several", "single")]))
    clause = f"trained on several generators minus on one, same number of problems, unseen generator, N={N}"
    yield held(clause, paired(alone, single), ">", 0.0)


def by_tokens(rank: bool, translate: bool, paid_by: tuple[bool, bool] = (True, True)) -> Callable[[Pool], float]:
    """An arm with as many samples as it takes to have at least the tokens of N samples with `paid_by` parts."""

    def arm(pool: Pool) -> float:
        n = grown(pool, tokens(pool, N, *paid_by), rank, translate)
        if rank:
            return chosen(pool, n, pool.scores[HEAD])
        return voted(pool, n, pool.agree if translate else np.ones(len(pool.chains)))

    return arm


def arms(pools: Sequence[Pool]) -> dict[str, Floats]:
    """Everything that is reported."""
    ones = np.ones(MOST)
    found: dict[str, Floats] = {
        "greedy": np.array([p.greedy for p in pools]),
        "one sample": np.array([p.right[:N].mean() for p in pools]),
        f"majority@{N}": over(pools, lambda p: voted(p, N, ones)),
        "majority, equal tokens": over(pools, by_tokens(False, False)),
        "filter alone (program vote)": over(pools, lambda p: voted(p, N, p.agree)),
        "program vote, equal tokens": over(pools, by_tokens(False, True)),
        "ranker alone, equal tokens": over(pools, by_tokens(True, False)),
        "independent programs, then ranker": over(pools, lambda p: unaided(p, N, within(p), HEAD)),
        f"vote of {N} independent programs": over(pools, program_vote),
    }
    for name in pools[0].scores:
        found |= by_verifier(pools, name)
    found["oracle"] = np.array([p.right[:N].max() for p in pools])
    return found


def by_verifier(pools: Sequence[Pool], name: str) -> dict[str, Floats]:
    """A verifier with and without the filter, choosing one sample or weighing votes."""
    return {
        f"ranker alone: {name}": over(pools, lambda p: chosen(p, N, p.scores[name])),
        f"ranker's weighted vote: {name}": over(pools, lambda p: voted(p, N, p.scores[name])),
        f"filter and ranker: {name}": over(pools, lambda p: chosen(p, N, gated(p, name))),
        f"filter and weighted vote: {name}": over(pools, lambda p: voted(p, N, p.agree * p.scores[name])),
    }


def within(pool: Pool) -> int:
    """How many independent programs cost at least as many tokens as the translations of the first N chains."""
    due = tokens(pool, N, False, True) - tokens(pool, N, False, False)
    sizes = list(accumulate(map(len, pool.written), initial=len(pool.prompt)))[1:]
    return next((m for m, size in enumerate(sizes, 1) if size >= due), len(sizes))


def program_vote(pool: Pool) -> float:
    """The commonest value of the first N independent programs."""
    said = [a for a in pool.independent[:N] if a is not None]
    return float(bool(said) and max(said, key=said.count) == str(solution(pool.problem)))


def notes(pools: Mapping[str, list[Pool]]) -> str:
    every = [pool for some in pools.values() for pool in some]
    by = {name: arms(some) for name, some in {**pools, "all": every}.items()}
    rows: list[list[object]] = [
        [name, *(float(by[who][name].mean()) for who in pools), str(level(list(values)))]
        for name, values in by["all"].items()
    ]
    return table(["arm", *pools, "all"], rows)
