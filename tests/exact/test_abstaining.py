"""A run that says nothing where too little speaks for an answer: it is no failure, and it says so."""

from __future__ import annotations

import pytest

from anystep import Run, UsageError, drive, reward, search
from anystep.calibrate import map_of, sure
from anystep.population import Decision, Verdict
from anystep.search import abstain, decide
from anystep.testing.checks_decision import population
from anystep.testing.oracles import EnumerableLM

LM = EnumerableLM(seed=5, length=4, answer=len)


def test_it_abstains_exactly_below_its_support() -> None:
    p = population("aab")
    assert abstain(search.majority, below=2 / 3)(p) == search.majority(p)
    verdict = abstain(search.majority, below=0.67)(p)
    assert verdict == Verdict(None, support=2 / 3, abstained=True)


def test_a_confidence_goes_before_support_and_support_before_a_score() -> None:
    sure_of = Decision("sure", lambda p: Verdict(0, support=0.1, confidence=0.9))
    assert not abstain(sure_of, below=0.5)(population("ab")).abstained
    assert abstain(search.best_reward, below=0.5)(population("ab", [0.2, 0.4])).abstained
    assert abstain(search.best_reward, below=0.4)(population("ab", [0.2, 0.4])).row == 1
    assert abstain(search.first_finished, below=0.0)(population("ab")).abstained, "nothing is known"


def test_a_run_that_abstains_has_no_text_a_note_and_no_error() -> None:
    (plain,) = drive(Run(LM, search.self_consistency(n=7)))
    (answer,) = drive(Run(LM, search.self_consistency(n=7).deciding(abstain(search.majority, below=1.0))))
    assert plain.support is not None and plain.support < 1 and not plain.abstained
    assert answer.abstained and answer.text is None and answer.value is None and answer.row is None
    assert answer.support == plain.support and answer.stopped_because == "finished" and answer.failed == 0
    assert answer.note.startswith("Abstained by abstain(majority, below=1.0)") and answer.errors == ()
    assert answer.cost.tokens == plain.cost.tokens


def test_where_all_fail_to_finish_nobody_abstained() -> None:
    assert not abstain(search.majority, below=1.0)(population("ab", status=[0, 2])).abstained


def test_a_calibrated_method_abstains_by_its_confidence() -> None:
    method = sure(search.self_consistency(n=7), map_of({"map": "platt", "slope": 1.0, "intercept": -9.0}))
    (answer,) = drive(Run(LM, method.deciding(abstain(method.decision, below=0.5))))
    assert answer.abstained and answer.confidence is not None and answer.confidence < 0.5


def test_a_confidence_keeps_what_its_decision_reads() -> None:
    method = sure(search.perplexity_consistency(n=4), map_of({"map": "platt", "slope": 1.0, "intercept": 0.0}))
    assert method.decision.texts and method.decision.mass and not method.decision.scores
    (answer,) = drive(Run(LM, method))
    assert answer.confidence is not None


def test_what_it_wraps_keeps_its_needs() -> None:
    wrapped = abstain(decide.best_of_majority(0.5, k=2), below=0.5)
    assert wrapped.scores and not wrapped.texts and wrapped.plain is None
    p = population("aab", [0.1, 0.2, 0.9])
    assert wrapped(p).submitted == (1, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: abstain("majority", below=0.5),  # type: ignore[arg-type]
        lambda: abstain(search.majority, below="half"),  # type: ignore[arg-type]
        lambda: abstain(search.majority, below=float("nan")),
    ],
)
def test_a_wrong_call_shows_the_one_that_was_meant(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"abstain\(search.majority, below=0.5\)"):
        call()


def test_a_score_below_is_withheld_in_a_run() -> None:
    worth = reward(lambda states: states.size / 10, "size")
    (answer,) = drive(Run(LM, search.best_of_n(n=3, reward=worth).deciding(abstain(search.best_reward, below=0.9))))
    assert answer.abstained
