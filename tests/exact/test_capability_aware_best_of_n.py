"""What adaptive best-of-n draws, prunes, answers and pays, against the plain samples that it is a part of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, reward, search
from anystep.ledger import Cost, Limit
from anystep.process import Reward, Scored
from anystep.testing import assert_mean
from anystep.testing.oracles import EnumerableLM

LM = EnumerableLM(seed=3, length=4)


class Outlook(Reward):
    """Any fixed function of an output in [0, 1], one token an asking."""

    name = "outlook"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        limit.pay(np.arange(len(states)), each=Cost(prompt=1))
        return Scored(np.array([value(x) for x in states.tuples()]), limit.used)


def value(tokens: tuple[int, ...]) -> float:
    return float(np.sin(1 + 7 * sum(3**i * (t + 1) for i, t in enumerate(tokens)))) / 2 + 0.5


OUTLOOK = Outlook()


def outputs(run: Run) -> list[tuple[int, ...]]:
    assert run.answer is not None and run.answer.population is not None
    return list(run.answer.population.states.tuples())


@pytest.mark.parametrize("batch", [1, 3])
def test_it_draws_the_first_samples_up_to_one_that_passes_and_pays_one_token_for_each(batch: int) -> None:
    for seed in range(12):
        plain = Run(LM, search.sample(n=8), seed=seed)
        ours = Run(LM, search.capability_aware_best_of_n(8, OUTLOOK, threshold=0.8, batch=batch), seed=seed)
        drive(plain, ours)
        drawn = outputs(plain)
        first = next((i for i, x in enumerate(drawn) if value(x) >= 0.8), 7)
        needed = min(8, (first // batch + 1) * batch)
        assert outputs(ours) == drawn[:needed]
        assert ours.answer is not None and ours.answer.value == max(drawn[:needed], key=value)
        assert ours.ledger.by["outlook"].tokens == needed


def test_the_mean_count_is_that_of_a_geometric_law_cut_off_at_n() -> None:
    passes = float(sum(p for x, p in LM.outputs.items() if value(x) >= 0.8))
    runs = [Run(LM, search.capability_aware_best_of_n(5, OUTLOOK, threshold=0.8), seed=s) for s in range(400)]
    drive(*runs)
    assert_mean([len(outputs(run)) for run in runs], (1 - (1 - passes) ** 5) / passes)


def test_pruning_keeps_those_with_the_best_outlook_after_so_many_steps() -> None:
    for seed in range(8):
        plain = Run(LM, search.sample(n=6), seed=seed)
        ours = Run(LM, search.capability_aware_best_of_n(6, OUTLOOK, None, batch=6, prune_after=1, keep=0.5), seed=seed)
        drive(plain, ours)
        begun = [value(x[:1]) for x in outputs(plain)]
        kept = sorted(sorted(range(6), key=lambda i: (-begun[i], i))[:3])
        assert [x[:1] for x in outputs(ours)] == [outputs(plain)[i][:1] for i in kept]
        assert ours.finished >= 3 and len(outputs(ours)) == 3


def test_with_nothing_to_stop_it_it_is_best_of_n() -> None:
    plain = Run(LM, search.best_of_n(n=7, reward=OUTLOOK), seed=2)
    ours = Run(LM, search.capability_aware_best_of_n(n=7, reward=OUTLOOK, threshold=None), seed=2)
    drive(plain, ours)
    assert plain.answer is not None and ours.answer is not None and plain.answer.value == ours.answer.value
    assert (plain.spent.tokens, plain.spent.evaluations) == (ours.spent.tokens, ours.spent.evaluations)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_first_samples_are_drawn_by_the_processes_that_warm_up(batch: int) -> None:
    cool, cooler = EnumerableLM(seed=8, length=4), EnumerableLM(seed=9, length=4)
    method = search.capability_aware_best_of_n(5, OUTLOOK, None, batch=batch, warming=(cooler, cool))
    ours = Run(LM, method, seed=1)
    alone = [Run(p, search.sample(n=5), seed=1) for p in (cooler, cool, LM)]
    drive(ours, *alone)
    assert outputs(ours) == [outputs(alone[min(i, 2)])[i] for i in range(5)]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="batch=8, prune_after=1"):
        Run(LM, search.capability_aware_best_of_n(n=4, reward=OUTLOOK, prune_after=1))
    with pytest.raises(UsageError, match="threshold must be a number in"):
        search.capability_aware_best_of_n(n=4, reward=OUTLOOK, threshold=1.5)
    with pytest.raises(UsageError, match="warming must be processes"):
        search.capability_aware_best_of_n(n=4, reward=reward(len, "r"), warming=LM)
