"""Verdicts count what passes, against hand counts, on free rewards and on the shipped step reward."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

import anystep
from anystep import Budget, Cost, calibrate, tasks, verify
from anystep.calibrate.verdicts import Written, scored, share
from anystep.errors import UsageError
from anystep.language.engine.tokenizer import Alphabet
from anystep.tasks.chains import chains
from anystep.tasks.chains.alphabet import SYMBOLS
from anystep.tasks.planted import planted


def test_rates_are_counts_by_hand_and_nothing_unscored_is_counted() -> None:
    scores = [0.9, 0.5, 0.2, math.nan, 0.8, 0.1]
    labels = [0, 0, 0, 0, 1, 1]
    kinds = ["slip", "slip", "leap", "leap", "right", "right"]
    found = calibrate.judged("hand", scores, labels, 0.5, kinds)
    assert (found.right, found.wrong, found.unscored) == (2, 3, 1)
    assert found.false_positives.value == pytest.approx(2 / 3) and found.false_negatives.value == 0.5
    ci = binomtest(2, 2).proportion_ci(method="wilson")
    assert {k: n for k, (n, _) in found.by_kind.items()} == {"slip": 2, "leap": 1}
    assert (found.by_kind["slip"][1].low, found.by_kind["leap"][1].value) == (pytest.approx(ci.low), 0.0)
    assert found.auroc.value == pytest.approx(2 / 6)
    record = json.loads(found.json())
    assert record["by_kind"]["slip"]["n"] == 2 and record["within"]["value"] is None and "scores" not in record
    assert "slip" in str(found) and "1 had no score" in str(found)


def test_a_share_over_problems_with_several_items_resamples_problems() -> None:
    ten = [True] * 10 + [False] * 10
    alone, doubled = share(ten, range(20)), share(ten * 2, [*range(20)] * 2)
    assert doubled.value == 0.5 and doubled.high - doubled.low == pytest.approx(alone.high - alone.low, rel=0.12)
    none = share([False] * 40, [*range(20)] * 2)
    assert (none.value, none.high) == (0.0, calibrate.wilson(0, 20).high)


def test_a_perfect_verifier_passes_nothing_wrong_and_the_bound_is_labelled() -> None:
    cases = planted(chains(12, "train", 3))
    found = calibrate.on_planted(verify.oracle([case.task for case in cases]), cases)
    early = found.by_kind["early ending"][1]
    assert found.false_negatives.value == 0.0 and early.value == 0.0 and found.auroc.value == 1.0
    assert found.name == "oracle" and found.cost["tokens"] == 0.0


def test_equations_see_false_results_and_no_wrong_plan() -> None:
    cases = planted(tasks.word_problems(20, split="train", level=3))
    rewards = [verify.equations(case.task.meta["question"]) for case in cases]
    found = calibrate.on_planted(rewards, cases, threshold=1.0)
    rate = {kind: interval.value for kind, (_, interval) in found.by_kind.items()}
    assert rate["wrong operation"] > 0.5 and rate["wrong result"] == rate["answer only"] == rate["injection"] == 0.0
    by_answer = calibrate.on_planted(rewards, cases, threshold=1.0, answers=True)
    assert by_answer.right == found.right + 60 and set(by_answer.by_kind) == set(found.by_kind) - {
        "right answer",
        "answer only",
        "garbage",
    }


def test_the_shipped_step_reward_is_priced_and_the_tokens_are_the_model_s() -> None:
    cases = planted(chains(6, "dev", 0), ["early ending", "swapped steps"])
    reward = verify.chain_steps()
    found = calibrate.on_planted(reward, cases, Alphabet(SYMBOLS))
    text = calibrate.on_planted(reward, cases)
    assert found.scores == text.scores and found.cost == text.cost  # it reads text; caches were emptied in between
    assert 5 < found.cost["tokens"] < 40 and found.cost["evaluations"] == found.cost["tokens"]
    assert found.false_positives.value < 0.5 < found.auroc.value


def test_a_budget_leaves_the_rest_unscored() -> None:
    cases = planted(chains(6, "dev", 0))
    found = calibrate.on_planted(verify.chain_steps(), cases, budget=Budget(tokens=1))
    assert found.unscored == len(cases) and math.isnan(found.false_positives.value) and math.isnan(found.ece.value)
    assert json.loads(found.json())["ece"] == {"value": None, "low": None, "high": None}


def test_each_reward_scores_its_own_states_once() -> None:
    calls: list[int] = []

    def length(states: Any) -> Any:
        calls.append(len(states))
        return [len(text) / 10 for text in states.texts()]

    one, other = anystep.reward(length, "one"), anystep.reward(length, "other")
    states = calibrate.states_of([("a?", "x" * i) for i in range(5)])
    values, cost, seconds = scored([one, other, one, other, one], states)
    assert values.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4] and calls == [3, 2]
    assert cost == Cost() and seconds >= 0


def test_written_states_fork_and_join() -> None:
    states = Written((("a?", "1"), ("b?", "2")))
    both = states.take(np.array([1, 0])).join(states)
    assert both.texts() == ("2", "1", "1", "2") and both.prompts() == ("b?", "a?", "a?", "b?") and len(both) == 4


def test_states_with_a_tokenizer_are_those_of_a_language_process() -> None:
    states = calibrate.states_of([("A2+3?", "2+3=5.")], Alphabet(SYMBOLS))
    assert states.prompts() == ("A2+3?",) and states.texts() == ("2+3=5.",) and states.starts == (5,)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="2 rewards for 1 states"):
        calibrate.verdicts([verify.equations("a"), verify.equations("b")], Written((("a", "b"),)), [1])
    with pytest.raises(UsageError, match="one label, kind and problem a state"):
        calibrate.judged("x", [0.5], [1, 0])
    with pytest.raises(UsageError, match="0 rewards for 0 states"):
        calibrate.verdicts(verify.equations("a"), Written(()), [])
    with pytest.raises(UsageError, match="labels are 0 or 1, wrong or right; got 0.5"):
        calibrate.judged("x", [0.5, 0.5], [1, 0.5])
