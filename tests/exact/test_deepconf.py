"""Votes by confidence: the filter and the weights are exact, giving chains up changes no vote, and the confidence that
is read is the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anystep import Ledger, Limit, Run, UsageError, drive, search, verify
from anystep.language import LanguageProcess
from anystep.naming import named_method
from anystep.procedure import Count, Exploring, procedure, score, start, step
from anystep.search import decide
from anystep.testing import check_reward
from anystep.testing.checks_decision import population
from anystep.testing.counting import counted_torch
from anystep.testing.oracles import EnumerableLM, JudgeReward
from anystep.verify.token_confidence import READINGS, groups
from models import tiny_engine

LM = EnumerableLM(seed=8, vocab=4, length=6, answer=lambda tokens: tokens[0])


def least(states: Any) -> np.ndarray:
    """The least of some number of each token, by what stands before it: it can only fall as an output grows."""
    return np.array(
        [min((((7 * t + 3 * i + 5 * x[0]) % 11) / 10 for i, t in enumerate(x)), default=1.0) for x in states.tuples()]
    )


SURE = JudgeReward(least, "least")


def test_the_most_confident_vote_as_much_as_their_confidence() -> None:
    p = population("aabbc", [0.2, 0.3, 0.4, 0.05, 0.9])
    assert decide.confidence_weighted()(p).row == 4
    assert decide.confidence_weighted()(p).support == pytest.approx(0.9 / 1.85)
    assert decide.confidence_weighted(keep=0.4)(p).support == pytest.approx(0.9 / 1.3)
    assert decide.confidence_weighted(keep=0.01)(p).support == 1
    even = population("aab", [0.5, 0.5, 0.5])
    assert decide.confidence_weighted()(even) == search.majority(even)
    nothing = population("aab", [0.0, 0.0, 0.0])
    assert decide.confidence_weighted()(nothing) == search.majority(nothing)


def test_offline_is_samples_scores_and_the_decision() -> None:
    one, other = drive(
        Run(LM, search.deepconf(n=12, confidence=SURE, keep=0.5)),
        Run(LM, search.best_of_n(n=12, reward=SURE).deciding(decide.confidence_weighted(0.5))),
    )
    assert one.value == other.value and one.support == other.support and one.cost.tokens == other.cost.tokens


@procedure(decide=search.majority)
def to_their_end(n: Count, warmup: Count) -> Exploring:
    """The samples of `deepconf_online`, none given up: the first in one step, the others step by step."""
    population = yield from step((yield from start(warmup)), until="done")
    for _ in range(n // warmup - 1):
        fresh = yield from start(warmup)
        while fresh.live.any():
            fresh = yield from step(fresh)
        population = population.join(fresh)
    return population.scored((yield from score(population, SURE)))


def test_what_is_given_up_would_have_had_no_vote() -> None:
    """Online with sure=1 against the vote of all samples at or above the same bar."""
    saved = 0
    for seed in range(12):
        online = search.deepconf_online(n=16, confidence=SURE, keep=0.5, warmup=4, sure=1)
        (given_up,) = drive(Run(LM, online, seed=seed))
        (whole,) = drive(Run(LM, to_their_end(n=16, warmup=4), seed=seed))
        assert whole.population is not None and given_up.population is not None
        scores = whole.population.scores
        bar = np.sort(scores[:4])[::-1][1]
        above = whole.population.scored(np.where(scores < bar, np.nan, scores))
        verdict = decide.confidence_weighted()(above)
        assert verdict.row is not None and whole.population.answers is not None
        assert given_up.value == whole.population.answers[verdict.row]
        assert given_up.support == pytest.approx(verdict.support)
        assert np.isnan(given_up.population.scores[given_up.population.live]).all()
        saved += whole.costs[LM.name].generated - given_up.costs[LM.name].generated
    assert saved > 0


def test_an_agreed_vote_begins_no_more() -> None:
    (answer,) = drive(Run(LM, search.deepconf_online(n=32, confidence=SURE, keep=1.0, warmup=4, sure=0.0)))
    assert answer.started == 4
    (all_of_them,) = drive(Run(LM, search.deepconf_online(n=32, confidence=SURE, keep=1.0, warmup=4, sure=1)))
    assert all_of_them.started == 32 and all_of_them.finished == 32


def test_readings_are_what_they_say() -> None:
    x = np.array([4.0, 1.0, 3.0, 2.0, 6.0])
    assert groups(x, 2).tolist() == [2.5, 2.0, 2.5, 4.0] and groups(x, 9).tolist() == [3.2]
    assert READINGS["lowest"](x, 2) == 2.0 and READINGS["tail"](x, 2) == 4.0 and READINGS["mean"](x, 2) == 3.2
    many = np.arange(41.0)
    assert READINGS["bottom"](many, 2) == pytest.approx(np.mean([0.5, 1.5, 2.5, 3.5]))


def test_token_confidence_is_the_model_s_own_and_costs_no_token() -> None:
    engine = tiny_engine()
    process = LanguageProcess(engine, "ab?", unit="token", max_tokens=9)
    confidence = verify.token_confidence(engine, "mean", top=5)
    (answer,) = drive(Run(process, search.deepconf(n=4, confidence=confidence)))
    assert answer.population is not None
    states = answer.population.states
    for row, (tokens, begun) in enumerate(zip(states.tokens, states.starts, strict=True)):
        hidden = engine.model(torch.tensor([tokens]))[0, begun - 1 : len(tokens) - 1]
        logs = engine.model.logits(hidden).log_softmax(-1)
        own = -logs.topk(5, -1).values.mean(-1)
        assert answer.population.scores[row] == pytest.approx(float(own.mean()), rel=1e-4)
    paid = answer.costs[confidence.name]
    assert paid.prompt == 0 and paid.generated == 0 and paid.flops > 0, "the writer's cache has it"
    unbegun = process.start(np.arange(2, dtype=np.uint64), Limit(Ledger(), "test")).states
    assert np.isnan(confidence(unbegun, Limit(Ledger(), "test")).values).all()


def test_token_confidence_keeps_the_laws_of_rewards() -> None:
    engine = tiny_engine()
    process = LanguageProcess(engine, "ab?", unit="token", max_tokens=6)
    (answer,) = drive(Run(process, search.sample(n=3)))
    assert answer.population is not None
    confidence = verify.token_confidence(engine, window=2)
    check_reward(confidence, answer.population.states, lambda: counted_torch(engine.model))


def test_a_methods_text_names_it() -> None:
    engine = tiny_engine()
    choice = named_method('deepconf(n=4, confidence=token_confidence(read_as="tail"))', "x", asks=lambda name: engine)
    assert choice.method == search.deepconf(n=4, confidence=verify.token_confidence(engine, "tail"))


@pytest.mark.parametrize(
    "call,shown",
    [
        (lambda: decide.confidence_weighted(keep=0), r"in \(0, 1\], such as 0.9"),
        (lambda: search.deepconf(n=4, confidence=SURE, keep=2), r"a share in \(0, 1\]"),
        (lambda: verify.token_confidence("chainlm-2m"), "the engine that writes"),  # type: ignore[arg-type]
        (lambda: verify.token_confidence(tiny_engine(), "least"), "one of lowest, bottom, tail, mean"),  # type: ignore[arg-type]
        (lambda: verify.token_confidence(tiny_engine(), window=0), "a whole number"),
    ],
)
def test_a_wrong_call_shows_the_one_that_was_meant(call: Any, shown: str) -> None:
    with pytest.raises(UsageError, match=shown):
        call()


def test_states_of_another_model_are_refused() -> None:
    (answer,) = drive(Run(LM, search.sample(n=2)))
    assert answer.population is not None
    with pytest.raises(UsageError, match="reads what its own model wrote"):
        verify.token_confidence(tiny_engine())(answer.population.states, Limit(Ledger(), "test"))
