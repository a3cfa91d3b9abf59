"""The one call: what stands where nothing is said, and what cannot be meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from anystep import UsageError, search, tasks, verify
from anystep.language import LanguageProcess
from anystep.naming import named_method
from anystep.search import decide
from anystep.solve import PLAIN, VOTE, default_method, process_for, run_for, solve
from anystep.testing.oracles import EnumerableLM
from models import tiny_engine


@pytest.mark.parametrize(
    ("task", "options", "method"),
    [
        ("two: 1+1=", {}, PLAIN),
        ([{"role": "user", "content": "two: 1+1="}], {}, PLAIN),
        ("two: 1+1=", {"extract": str.strip}, VOTE),
        (tasks.load("procbench", 1)[0], {}, VOTE),
    ],
)
def test_a_vote_is_the_default_where_answers_can_be_told_from_texts(task: Any, options: Any, method: str) -> None:
    assert default_method(task, "any", options) == method


def test_a_plain_question_is_answered_once_and_greedily() -> None:
    engine = tiny_engine()
    run = run_for("two: 1+1=", engine, max_tokens=4)
    assert run.method == search.sample(n=1) and run.process.temperature == 0.0  # type: ignore[attr-defined]
    assert solve("two: 1+1=", engine, max_tokens=4).text == solve("two: 1+1=", engine, max_tokens=4, seed=5).text
    run = run_for("two: 1+1=", engine, extract=str.strip, max_tokens=4)
    assert run.method == search.self_consistency(n=8) and run.process.temperature == 1.0  # type: ignore[attr-defined]


def test_a_process_has_answers_of_its_own_to_vote_on() -> None:
    answer = solve("", EnumerableLM())
    assert answer.started == 8 and answer.support is not None


def test_a_chain_model_ends_its_steps_where_its_lines_end_without_a_task() -> None:
    process = process_for("C4 7 9 3 4>97?", "chainlm-2m")
    assert isinstance(process, LanguageProcess)
    assert (process.stop, process.unit, process.at_cap) == ("\n", "step", "failed")
    told = process_for("C4 7 9 3 4>97?", "chainlm-2m", stop=";")
    assert isinstance(told, LanguageProcess) and told.stop == ";"


def test_a_model_that_is_none_is_refused_with_the_call_meant() -> None:
    with pytest.raises(UsageError, match="give a name such as"):
        process_for("What?", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [("sample(decide=[1])", "no decision"), ("best_of_n(n=2, reward=chain_steps, decide={})", "no decision"),
     ("sample(n=2, decide={1})", "no decision"), ("sample(n=2, n=3)", r"sample\(n=...\) is given twice")],
)  # fmt: skip
def test_a_methods_text_that_cannot_be_meant_is_a_usage_error(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        named_method(text, "What is 2 + 2?")


def test_a_reward_takes_its_own_options_in_brackets() -> None:
    task = tasks.load("chains", 1)[0]
    method = named_method('best_of_n(n=4, reward=chain_steps(aggregate="min"))', task).method
    assert method == search.best_of_n(n=4, reward=verify.chain_steps(aggregate="min"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("best_of_n(n=4, reward=chain_steps(aggregat='min'))", "no option 'aggregat'; it takes aggregate"),
        ("best_of_n(n=4, reward=equations(x=1))", "no option 'x'; write reward=equations"),
        ("best_of_n(n=4, reward=judge(samples=999999))", "at most 64"),
        ("best_of_n(n=4, reward=chain_steps('min'))", "takes its options by name"),
        ("best_of_n(n=4, reward=chain_steps(aggregate=min))", r'a number or a text in quotes, such as aggregate="..."'),
        ("best_of_n(n=4, reward=chain_steps(aggregate=['min']))", "a number or a text in quotes"),
        ("best_of_n(n=4, reward=self_evaluation(about={}))", "a number or a text in quotes"),
        ("best_of_n(n=4, reward=chain_steps(aggregate=f(g(h=1))))", "is not a call"),
        ("best_of_n(n=4, reward=__import__('os').system('x'))", "is not a call"),
    ],
)
def test_a_rewards_options_are_read_and_never_evaluated(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        named_method(text, tasks.load("chains", 1)[0], asks=lambda name: tiny_engine())


def test_a_judge_is_the_runs_own_model_unless_another_is_named() -> None:
    engine, other = tiny_engine(), tiny_engine()
    run = run_for("two: 1+1=", engine, "best_of_n(n=2, reward=judge)", max_tokens=2)
    assert run.method == search.best_of_n(n=2, reward=verify.judge_for("two: 1+1=", engine))
    asks = {"other": other, None: engine}.__getitem__
    named = named_method('best_of_n(n=2, reward=judge(model="other", samples=2))', "two: 1+1=", asks=asks).method
    assert named == search.best_of_n(n=2, reward=verify.judge_for("two: 1+1=", other, samples=2))


def test_a_process_that_is_no_language_model_needs_its_judge_named() -> None:
    with pytest.raises(UsageError, match=r'reward=judge\(model="smollm2-135m"\)'):
        run_for("x", EnumerableLM(), "best_of_n(n=2, reward=judge)")


def test_a_decision_takes_its_own_options_in_brackets() -> None:
    def decided(text: str) -> object:
        return named_method(f"self_consistency(n=4, decide={text})", "x").method.decision

    assert decided("majority") == search.majority
    assert decided("perplexity_consistency") == decide.perplexity_consistency()
    assert decided("perplexity_consistency(prune=False)") == decide.perplexity_consistency(prune=False)
    assert decided("best_of_majority(threshold=0.1, k=2)") == decide.best_of_majority(0.1, k=2)
    assert decided("abstain(decision=majority, below=0.5)") == search.abstain(search.majority, below=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("majority(n=1)", "majority has no options; write decide=majority"),
        ("abstain(below=0.5)", "write decide=abstain(decision=..., below=...)"),
        ("perplexity_consistency(cut=1)", "perplexity_consistency takes prune"),
        ("abstain(decision=mojority, below=0.5)", "no decision 'mojority'"),
        ("abstain(decision=2, below=0.5)", "a decision, such as abstain(search.majority, below=0.5)"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_a_usage_error(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        named_method(f"self_consistency(n=4, decide={text})", "x")
