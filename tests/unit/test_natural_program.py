"""Natural Program's reward: what the rules refuse, what a model is asked, what it costs, and the vote it decides."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anystep
from anystep import Ledger, Limit, search, tasks, verify
from anystep.calibrate.verdicts import states_of
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.train.chainlm import untrained
from anystep.language.train.deduce import LETTERS, NO, YES, VerifierRecipe, checks, letter, pairs
from anystep.tasks.chains import Alphabet as Characters
from anystep.tasks.premises import statements
from anystep.tasks.premises.asking import CONTEXTS, asked, compact
from anystep.testing import check_decision, check_reward
from anystep.testing.checks_decision import population
from anystep.testing.counting import counted_torch
from anystep.verify.natural_program import finished, refused

PROMPT = "#1a=12;#2b=a+4;#3c=7;#4b?"
RIGHT = "#5(#1#2)b=12+4=16\n#6(#5#4)16."


@cache
def engine() -> Engine:
    model = untrained(Config(len(Characters()), 32, 1, 1, 1, 64, 32, context=400), 0).eval()
    return Engine(model, Alphabet(Characters().symbols), name="tiny")


def value(reward: Any, *chains: str, prompt: str = PROMPT) -> list[float]:
    states = states_of([(prompt, chain) for chain in chains])
    return list(reward(states, Limit(Ledger(), "test")).values.tolist())


@pytest.mark.parametrize(
    "options", [{}, {"aggregate": "min"}, {"context": "whole"}, {"context": "previous"}, {"votes": 3}]
)
def test_it_is_a_reward_and_a_potential(options: dict[str, Any]) -> None:
    rows = []
    for task in tasks.load("premises", 2, split="dev"):
        chain = task.meta["chain"]
        begun = chain[: chain.index("\n") + 1]
        # one step a state where steps share a context: how merged runs share passes depends on who else is there
        rows += [(str(task.prompt), begun), (str(task.prompt), begun + "#9(" if "context" in options else chain)]
    states = states_of(rows, engine().tokenizer)
    reward = verify.natural_program(engine(), **options)
    check_reward(reward, states, lambda: counted_torch(engine().model))
    check_reward(reward.log_odds(), states, lambda: counted_torch(engine().model))


def test_the_rules_refuse_what_is_not_grounded_and_false_equations() -> None:
    rules = verify.natural_program()
    wrong = {
        "#5(#1#9)b=12+4=16\n": "cites what is not there",
        "#5(#1#5)b=12+4=16\n": "cites itself",
        "#5()b=12+4=16\n": "cites nothing",
        "#5(#3#2)b=12+4=16\n": "12 is not cited",
        "#5(#1#2)b=12+5=17\n": "5 is not cited",
        "#5(#1#2)b=12+4=17\n": "false",
        "#3(#1#2)b=12+4=16\n": "the number is taken",
        "b=12+4=16\n": "no number, so no citation can name it",
        "no step at all\n": "what cannot be read is not verified",
    }
    assert value(rules, *wrong) == [0.0] * len(wrong)
    assert value(rules, RIGHT, RIGHT[:18], "#5(#1#2)b=12*4=48\n") == [1.0, 1.0, 1.0], "a wrong rule passes the rules"
    assert value(rules, "", "#5(#1", "#5.") == [0.5] * 3, "not begun"
    english = "#1. Ann has twice as many hats as Bob.\n#2. Bob has 3 hats.\n#3. How many hats does Ann have?"
    assert value(rules, "#4. (by #1-2) Ann has 2 * 3 = 6 hats.\n", prompt=english) == [1.0]


def test_a_refused_step_is_zero_and_no_model_is_asked() -> None:
    reward = verify.natural_program(engine())
    states = states_of([(PROMPT, "#5(#1#9)b=12+4=16\n#6(#5#4)16.")], engine().tokenizer)
    limit = Limit(Ledger(), "test")
    assert reward(states, limit).values.tolist() == [0.0] and limit.used.tokens == 0
    assert reward.probabilities(PROMPT, "#5(#1#9)b=12+4=16\n#6(#5#4)16.")[0] == 0.0


def test_a_step_is_worth_the_probability_of_yes_among_the_verdicts() -> None:
    reward = verify.natural_program(engine(), "min")
    tokens = engine().tokenizer.encode("a=12;b=a+4>b=12+4=16:")
    with engine().open(engine().plan([tokens])) as session:
        logits = session.logits()[0].double()
    mass = {c: float(logits[engine().tokenizer.encode(c)[0]].exp()) for c in YES + NO}
    p = mass["y"] / sum(mass.values())
    first = RIGHT[: RIGHT.index("\n") + 1]
    assert value(reward, first) == [pytest.approx(p, abs=1e-6)]
    assert value(verify.natural_program(engine(), votes=3), first) == [
        pytest.approx(p**3 + 3 * p * p * (1 - p), abs=1e-6)
    ]
    steps = reward.probabilities(PROMPT, RIGHT)
    assert value(reward, RIGHT) == [pytest.approx(min(steps))]
    assert value(verify.natural_program(engine()), RIGHT) == [pytest.approx(np.prod(steps))]


def test_what_was_asked_before_is_not_paid_again() -> None:
    reward = verify.natural_program(engine())
    reward.forget()
    states = states_of([(PROMPT, RIGHT[:18]), (PROMPT, RIGHT), (PROMPT, RIGHT)], engine().tokenizer)
    shown = [len(compact(a.lines, a.step)) for a in asked(PROMPT, RIGHT)]
    paid = Limit(Ledger(), "test")
    reward(states, paid)
    assert paid.used.prompt == sum(shown), "each check once, though three chains make it"
    again = Limit(Ledger(), "test")
    reward(states, again)
    assert again.used.prompt == 0 and again.used.evaluations == 0


def test_finished_steps() -> None:
    assert finished(RIGHT) == RIGHT and finished(RIGHT[:-1]) == RIGHT[:18]
    assert finished("#5. (by #1) Bob has 3 hats.") == "#5. (by #1) Bob has 3 hats." and finished("#5. (by #1)") == ""


@pytest.mark.parametrize("options", [{"aggregate": "last"}, {"context": "none"}, {"votes": 2}, {"form": "latin"}])
def test_options_that_cannot_be_meant(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="natural_program"):
        verify.natural_program(engine(), **options)


def test_a_compact_verifier_says_what_it_reads() -> None:
    with pytest.raises(UsageError, match="compact statements") as error:
        value(
            verify.natural_program(engine()), "#3. (by #1 #2) Bob has 5 HATS.\n", prompt="#1. Ann has 5.\n#2. Bob too."
        )
    assert "\n" not in str(error.value)


def test_every_procedure_takes_it() -> None:
    task = tasks.load("premises", 1, level=1)[0]
    reward = verify.natural_program(engine(), "min")
    for method in (
        search.best_of_n(n=2, reward=reward),
        search.beam(width=2, reward=reward, branch=2),
        search.particle_filter(n=2, potential=reward.log_odds()),
        verify.verified_majority(2, reward),
    ):
        process = LanguageProcess(engine(), task.prompt, unit="step", stop="\n", max_tokens=40, chat=False)
        answer = anystep.solve(task, model=process, method=method, budget=anystep.Budget(tokens=3_000))
        assert answer.text is not None and "tiny.natural_program" in repr(method)


def test_a_threshold_is_a_decision_and_a_value() -> None:
    check_decision(search.majority_above(0.5))
    assert search.majority_above(0.5) == search.majority_above(0.5) != search.majority_above(0.6)
    assert repr(search.majority_above(0.5)) == "majority_above(0.5)"
    with pytest.raises(UsageError, match=r"majority_above\(0.5\)"):
        search.majority_above("half")  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_the_vote_counts_who_passed_and_everyone_where_nobody_did(chains: list[tuple[str, float]], bar: float) -> None:
    people = population([a for a, _ in chains], [s for _, s in chains])
    passed = [a for a, s in chains if s >= bar] or [a for a, _ in chains]
    row = search.majority_above(bar)(people).row
    assert row is not None
    winner = chains[row][0]
    assert all(passed.count(winner) >= passed.count(other) for other in "abc")


def test_unscored_chains_have_no_vote_and_unanswered_ones_do_not_stop_the_others() -> None:
    assert search.majority_above(0.5)(population("aab", [np.nan, np.nan, 0.6])).row == 2
    assert search.majority_above(0.5)(population([None, "a", "b"], [0.9, 0.1, 0.1])).row == 1


def test_verifiers_of_all_contexts_learn_from_the_same_steps() -> None:
    drawn = {c: list(checks("train", 40, 5, c)) for c in CONTEXTS}
    for (one, row, a), (other, at, b) in zip(drawn["cited"], drawn["whole"], strict=True):
        assert one == other and row == at and letter(a) == letter(b)
        assert (letter(a) == YES) == (one.kinds[row] is None)
    assert {letter(a) for _, _, a in drawn["cited"]} <= set(LETTERS.values())
    lengths = {c: sum(len(p) for p, _ in pairs(VerifierRecipe(context=c, updates=1, batch=40))) for c in CONTEXTS}
    assert lengths["cited"] < lengths["previous"] < lengths["whole"]


def test_a_step_cites_by_number_whatever_order_it_is_written_in() -> None:
    (step,) = statements("#5(#2#1)b=12+4=16")
    check = next(iter(asked(PROMPT, "#5(#2#1)b=12+4=16\n")))
    assert check.statement == step and check.lines == ("b=a+4", "a=12") and not refused(check)
