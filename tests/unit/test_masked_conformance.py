"""Every order of unmasking makes a process that keeps the laws of processes, and refuses what has no meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anystep import Budget, Run, UsageError, drive, search
from anystep.diffusion import MaskedProcess, on_clean
from anystep.diffusion.masked import (
    ClassifierFree,
    Confidence,
    Cosine,
    Lattice,
    LeftToRight,
    Linear,
    Order,
    Pace,
    Random,
    Spread,
    sample,
)
from anystep.diffusion.models import MarkovChain, chain
from anystep.testing import check_process

ORDERS: list[Order] = [Random(), Spread(), LeftToRight(), Confidence(), Confidence(noise=0.0)]


def two_classes() -> MarkovChain:
    moves = np.array([[[0.8, 0.2], [0.3, 0.7]], [[0.1, 0.9], [0.6, 0.4]]])
    return MarkovChain([[0.5, 0.5], [0.9, 0.1]], moves, 4, name="two", alphabet="ab")


@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_an_order_makes_a_lawful_process(order: Order) -> None:
    check_process(MaskedProcess(chain(5, 3), 3, order))


def test_guidance_infilling_and_greedy_choices_are_lawful_too() -> None:
    model = ClassifierFree(two_classes(), 2.5)
    check_process(MaskedProcess(model, 3, Random(), Cosine(), condition=1, completes="sample"))
    check_process(MaskedProcess(chain(5, 3), 2, Spread(), temperature=0.0, known=[None, 0, None, None, 2]))


@pytest.mark.parametrize("pace", [Linear(), Cosine()], ids=repr)
@pytest.mark.parametrize(("sites", "steps"), [(16, 16), (16, 5), (130, 16), (7, 3), (1, 1)])
def test_every_pass_reveals_something_and_the_last_the_rest(pace: Pace, sites: int, steps: int) -> None:
    hidden = pace.hidden(sites, steps)
    assert hidden[0] == sites and hidden[-1] == 0 and len(hidden) == steps + 1
    assert (np.diff(hidden) < 0).all()


def test_paces_are_their_formulas() -> None:
    assert Linear().hidden(16, 4).tolist() == [16, 12, 8, 4, 0]
    assert Cosine().hidden(100, 4).tolist() == [100, 92, 70, 38, 0]


def test_spread_goes_by_reversed_bits_on_lines_and_grids() -> None:
    def passes(order: Order, length: int, steps: int) -> list[list[int]]:
        process = MaskedProcess(chain(length, 2), steps, order)
        hidden, found = np.ones(length, dtype=bool), []
        for now, then in zip(process.hidden[:-1], process.hidden[1:], strict=True):
            (chosen, _) = next(order.choices(hidden, int(now - then)))
            hidden[list(chosen)] = False
            found.append(list(chosen))
        return found

    assert passes(Spread(), 16, 4) == [[0, 4, 8, 12], [2, 6, 10, 14], [1, 5, 9, 13], [3, 7, 11, 15]]
    assert passes(Spread((4, 4)), 16, 4) == [[0, 2, 8, 10], [5, 7, 13, 15], [4, 6, 12, 14], [1, 3, 9, 11]]


def test_a_path_costs_its_passes_and_guidance_twice_that() -> None:
    model = two_classes()
    assert sample(MaskedProcess(model, 3), 8).cost.evaluations == 24
    assert sample(MaskedProcess(ClassifierFree(model, 2.0), 3, condition=0), 8).cost.evaluations == 48
    assert sample(MaskedProcess(ClassifierFree(model, 1.0), 3, condition=0), 8).cost.evaluations == 24
    few = MaskedProcess(model, 16, known=[0, None, None, 1])
    assert few.horizon == 2 and sample(few, 8).cost.evaluations == 16


def test_a_reward_on_the_completion_costs_nothing() -> None:
    ones = on_clean(lambda tokens: (tokens == 1).double().mean(-1), "ones")
    run = Run(MaskedProcess(chain(6, 3), 3), search.best_of_n(n=8, reward=ones), Budget(evaluations=100), seed=1)
    (answer,) = drive(run)
    assert answer.cost.evaluations == 24
    population = answer.population
    assert population is not None and answer.row is not None
    best = max(row.count(1) for row in population.states.tokens.tolist())
    assert population.states.tokens[answer.row].tolist().count(1) == best


def test_the_completion_is_the_likeliest_symbol_where_hidden() -> None:
    model = chain(6, 3)
    process = MaskedProcess(model, 3, Spread())
    states = process.masked(np.arange(5, dtype=np.uint64), np.full(5, -1))
    states = process.predicted(states, np.arange(5, dtype=np.uint64))
    said = model(states.tokens, torch.full((5,), -1))
    assert states.clean.equal(said.argmax(-1))
    assert process.texts(states)[0] == " ".join(map(str, said[0].argmax(-1).tolist()))


def test_more_samples_begin_with_the_fewer() -> None:
    process = MaskedProcess(chain(), 4, Confidence())
    assert sample(process, 8).tokens[:4].equal(sample(process, 4).tokens)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps is 1 or more"),
    ({"temperature": -1.0}, "0 or more"),
    ({"condition": 2}, "0 to 1"),
    ({"known": [0, 1, 0, 1]}, "every site is known"),
    ({"known": [0, 1]}, "4 symbols"),
    ({"known": [0, 1, 5, None]}, "4 symbols"),
    ({"completes": "mean"}, "'argmax' or 'sample'"),
    ({"order": Spread((3, 3))}, "a grid of 9 sites"),
]


@pytest.mark.parametrize(("options", "told"), BAD)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        MaskedProcess(two_classes(), **options)


def test_models_and_orders_refuse_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="takes no condition"):
        ClassifierFree(chain(4, 2), 2.0)
    with pytest.raises(UsageError, match="0 or more"):
        Confidence(noise=-1.0)
    with pytest.raises(UsageError, match="does not read"):
        Lattice(MaskedProcess(chain(4, 2), 2, Confidence()))
    with pytest.raises(UsageError, match="at most 20,000"):
        Lattice(MaskedProcess(chain()))
    with pytest.raises(UsageError, match="sum to one"):
        MarkovChain([0.5, 0.5], [[0.5, 0.6], [0.5, 0.5]], 4)
    with pytest.raises(UsageError, match="2 classes"):
        sample(MaskedProcess(two_classes(), 2), 3, condition=[0, 1, 2])
