"""Comparisons in both orders cancel a planted bias exactly, and Bradley-Terry strengths are the maximum they claim."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from anystep import Budget, Ledger, Limit, Run, drive, keys, search
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.ledger import Cost
from anystep.procedure import Count, Exploring, procedure, score, start, step
from anystep.testing import check_reward, counted_torch
from anystep.testing.counting import Work
from anystep.testing.limits import unlimited
from anystep.verify.judges import MissingVerdict, Pairwise, bradley_terry, pairwise, win_rate
from anystep.verify.judges.asking import Replies, Weighed
from anystep.verify.judges.given import Given
from anystep.verify.judges.scale import Scale
from judged import written
from tally import tally_engine

FAIR = {"a": 0.0, "b": 0.7, "c": -1.3, "d": 2.0}


class Planted:
    """Prefers by strength, plus `bias` in log-odds for whoever is shown first; a tie takes `tie` of the mass."""

    name, own, remote, chat = "planted", None, False, None

    def __init__(self, bias: float = 0.0, tie: float = 0.0) -> None:
        self.bias, self.tie, self.read, self.batches = bias, tie, 0, 0

    def first(self, ask: Any) -> float:
        _, one, other = (piece.text for piece in ask if isinstance(piece, Given))
        return 1 / (1 + math.exp(FAIR[other] - FAIR[one] - self.bias))

    def weigh(self, asks: Sequence[Any], begun: str, scale: Scale, limit: Limit, rows: Any) -> Weighed:
        paid = limit.pay(rows, Cost(prompt=10), once=Cost(calls=1))
        self.read += int(paid.sum())
        self.batches += bool(paid.any())
        p = np.array([self.first(ask) for ask in asks])
        mass = 0.5 * np.stack([p, 1 - p], -1) * (1 - self.tie)
        if len(scale.labels) == 3:
            mass = np.concatenate([mass, np.full((len(p), 1), 0.5 * self.tie)], -1)
        return Weighed(np.where(paid[:, None], mass, np.nan))

    def say(
        self, asks: Sequence[Any], begun: str, k: Any, temperature: float, most: int, limit: Limit, rows: Any
    ) -> Replies:
        u = keys.uniforms(k)
        told = [[self.first(ask)] * k.shape[1] for ask in asks]
        texts = [tuple("A" if x < p else "B" for x, p in zip(*both, strict=True)) for both in zip(u, told, strict=True)]
        return Replies(tuple(texts))

    def forget(self) -> None:
        pass


def planted(bias: float = 0.0, tie: float = 0.0, samples: int = 0) -> Pairwise:
    made = pairwise(tally_engine(), ties=tie > 0, samples=samples)
    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    return Pairwise(**{**fields, "asked": Planted(bias, tie), "kept": OrderedDict()})


def fair(one: str, other: str) -> float:
    return 1 / (1 + math.exp(FAIR[other] - FAIR[one]))


PAIRS = [("a", "b"), ("b", "a"), ("c", "d"), ("a", "d"), ("b", "c")]


@pytest.mark.parametrize("bias", [0.0, 0.9, -3.0])
def test_a_bias_for_a_place_cancels_exactly(bias: float) -> None:
    found = planted(bias).of("Which?", PAIRS)
    assert np.allclose(found.values, [fair(*pair) for pair in PAIRS], atol=1e-12)
    turned = [abs(FAIR[a] - FAIR[b]) < abs(bias) for a, b in PAIRS]
    assert found.flipped.tolist() == turned and np.isclose(found.flips, np.mean(turned))
    wanted = [1 / (1 + math.exp(-sign * (FAIR[a] - FAIR[b]) - bias)) for a, b in PAIRS for sign in (1, -1)]
    assert np.isclose(found.first, np.mean(wanted), atol=1e-12)
    one_way = [1 / (1 + math.exp(FAIR[b] - FAIR[a] - bias)) for a, b in PAIRS]
    assert np.allclose(found.ahead[:, 0], one_way, atol=1e-12), "and by one order alone it is there"


def test_a_tie_is_half_a_win_for_each() -> None:
    found = planted(tie=0.4).of("Which?", [("a", "b")])
    assert np.isclose(found.values[0], 0.6 * fair("a", "b") + 0.4 * 0.5, atol=1e-12)
    free = planted()
    alike = free.of("Which?", [("a", "a")])
    assert alike.values.tolist() == [0.5] and alike.cost == Cost() and free.asked.read == 0  # type: ignore[attr-defined]


def test_sampled_verdicts_are_averaged_over_both_orders() -> None:
    k = 4000
    found = planted(0.5, samples=k).of("Which?", [("a", "b")])
    p = np.mean([1 / (1 + math.exp(0.7 - 0.5)), 1 - 1 / (1 + math.exp(-0.7 - 0.5))])
    assert abs(found.values[0] - p) < 5 * math.sqrt(0.25 / (2 * k))


def test_a_tournament_finds_the_strengths_whatever_the_bias() -> None:
    ranking = planted(1.5).tournament("Which?", list(FAIR), prior=0.0)
    true = np.array(list(FAIR.values()))
    assert np.allclose(ranking.strengths, true - true.mean(), atol=1e-8)
    assert ranking.order.tolist() == [3, 1, 0, 2]
    assert ranking.comparisons.cost.prompt == 10 * 4 * 3


def test_two_players_have_a_closed_form() -> None:
    for won, lost in ((3.0, 1.0), (0.2, 0.7), (50.0, 1.0)):
        strengths = bradley_terry([[0, won], [lost, 0]])
        assert np.isclose(strengths[0] - strengths[1], math.log(won / lost), atol=1e-9)
        assert np.isclose(strengths.sum(), 0.0, atol=1e-12)


@pytest.mark.parametrize("prior", [0.0, 0.1, 2.0])
def test_strengths_are_the_maximum_of_the_likelihood(prior: float) -> None:
    rng = np.random.default_rng(4)
    for n in (2, 3, 6):
        wins = rng.integers(1, 9, (n, n)) * rng.random((n, n))
        np.fill_diagonal(wins, 7.0)  # not read

        def loss(s: Any, wins: Any = wins, n: int = n) -> float:
            total = sum(wins[i, j] * math.log(1 + math.exp(s[j] - s[i])) for i in range(n) for j in range(n) if i != j)
            drawn = sum(math.log(1 + math.exp(x)) + math.log(1 + math.exp(-x)) for x in s)
            return total + prior / 2 * drawn + (1e-12 if prior else 1e-3) * float(np.sum(s)) ** 2

        best = minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-9}).x
        assert np.allclose(bradley_terry(wins, prior), best - best.mean(), atol=1e-5)


def test_strengths_that_have_no_maximum_are_refused() -> None:
    beaten = [[0, 5, 5], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(UsageError, match="have no maximum; give a prior"):
        bradley_terry(beaten)
    with pytest.raises(UsageError, match="have no maximum"):
        bradley_terry(np.zeros((2, 2)))
    strengths = bradley_terry(beaten, prior=1.0)
    assert np.argmax(strengths) == 0 and np.isclose(strengths[1], strengths[2])
    assert np.allclose(bradley_terry(np.zeros((2, 2)), prior=1.0), 0.0) and bradley_terry(np.zeros((0, 0))).size == 0
    for table, line in (([[0, 1]], "square"), ([[0, -1], [1, 0]], "square"), ([[0, np.nan], [1, 0]], "square")):
        with pytest.raises(UsageError, match=line):
            bradley_terry(table)
    with pytest.raises(UsageError, match="prior=-1"):
        bradley_terry([[0, 1], [1, 0]], prior=-1)


def test_strengths_far_apart_are_found() -> None:
    s = np.array([-12.0, 0.0, 12.0])
    wins = 1 / (1 + np.exp(s[None, :] - s[:, None]))
    assert np.allclose(bradley_terry(wins), s, atol=1e-4)


def test_a_win_rate_is_a_reward() -> None:
    reward = planted(0.8).against(["a", "d"])
    states = written("b", "c", "a")
    oracle = reward.judge.asked

    @contextlib.contextmanager
    def counted() -> Iterator[Work]:
        work, before = Work(), oracle.batches  # type: ignore[attr-defined]
        yield work
        work.calls = oracle.batches - before  # type: ignore[attr-defined]

    check_reward(reward, states, counted)
    wanted = [np.mean([fair("b", "a"), fair("b", "d")]), np.mean([fair("c", "a"), fair("c", "d")])]
    assert np.allclose(reward(states, unlimited()).values[:2], wanted, atol=1e-12)
    assert np.isclose(reward(states, unlimited()).values[2], (0.5 + fair("a", "d")) / 2)


def test_a_win_rate_is_read_by_a_real_engine() -> None:
    engine = tally_engine()
    words = Scale(("Y", "N"), (1.0, 0.0))
    made = pairwise(engine)
    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    made = Pairwise(**{**fields, "scale": words})  # the tally's two letters
    check_reward(win_rate(made, ["+", "x"]), written("++", "-", "y"), lambda: counted_torch(engine.model))
    found = made.of("Which?", [("++", "x")])
    assert np.isclose(found.ahead[0, 0], 1 / (1 + math.exp(-2)), atol=1e-5), "it reads both, and prefers the first"
    assert np.isclose(found.values[0], 0.5, atol=1e-6) and found.flips == 1.0


@procedure(decide=search.best_reward)
def duel(n: Count, judge: Any) -> Exploring:
    """A round robin among n samples, paid for by the run."""
    population = yield from start(n)
    population = yield from step(population, until="done")
    return population.scored((yield from score(population, judge.against(population.states))))


def test_a_procedure_can_pay_for_a_round_robin() -> None:
    process = LanguageProcess(tally_engine(), "+", unit="completion", max_tokens=1)
    made = pairwise(tally_engine(), name="critic")
    (answer,) = drive(Run(process, duel(n=4, judge=made), Budget(), seed=1))
    assert answer.costs.keys() >= {"tally"} and not np.isnan(answer.population.scores).any()


def test_refused_and_too_long_are_nan() -> None:
    made = planted()
    limit = Limit(Ledger(Budget(tokens=25)), "planted")
    found = made.of("Which?", PAIRS, limit)
    assert np.isnan(found.values).all() and math.isnan(found.flips) and limit.used.tokens <= 25
    short = Pairwise(**{**{name: getattr(made, name) for name in made.__dataclass_fields__}, "longest": 8})
    with pytest.warns(MissingVerdict, match="1 of 2 candidates have no verdict"):
        values = short.against(["a"])(written("b", "b" * 9), unlimited()).values
    assert np.isnan(values).tolist() == [False, True]
    for call, line in (
        (lambda: made.against([]), "one or more answers"),
        (lambda: made.against("a"), "one or more answers"),
        (lambda: pairwise(tally_engine(), samples=-1), r"pairwise\(model, samples=-1\)"),
    ):
        with pytest.raises(UsageError, match=line):
            call()
