"""A calibrated reward is a reward like any other, paid once with its source; a calibrated method says how sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import anystep
from anystep import Budget, Ledger, Limit, Run, calibrate, drive, search, verify
from anystep.calibrate import Calibrated, map_of
from anystep.calibrate.maps import Platt
from anystep.calibrate.winner import figure
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.engine.tokenizer import Alphabet
from anystep.tasks.chains import chains
from anystep.tasks.chains.alphabet import SYMBOLS
from anystep.tasks.planted import planted
from anystep.testing import check_decision, check_reward
from anystep.testing.oracles import EnumerableLM
from models import chain_engine

MAP = Platt(0.4, 0.2)
CASES = planted(chains(30, "train", 11))
PAIRS = [(str(case.task.prompt), case.text) for case in CASES]


def _one(run: Run) -> Any:
    return drive(run)[0]


def _states(n: int = 6) -> Any:
    partial = [(PAIRS[0][0], PAIRS[0][1].split("\n")[0] + "\n")]
    return calibrate.states_of([*partial, *PAIRS[:n]], Alphabet(SYMBOLS))


def test_it_passes_the_conformance_suite_with_every_map() -> None:
    """The hook counts the source's real work: what is declared and paid is the source's and nothing else."""
    from anystep.testing.counting import counted_torch

    source = verify.chain_steps()
    labels, scores = np.tile([0, 1], 30), np.random.default_rng(0).random(60)
    check_reward(source, _states(2), lambda: counted_torch(source.judge.trunk))
    for how in ("platt", "isotonic", "temperature", "beta"):
        reward = calibrate.calibrated(source, scores, labels, how)  # type: ignore[arg-type]
        assert reward.range == (0.0, 1.0) and reward.name == "chainlm-2m-step-reward.calibrated"

        check_reward(reward, _states(2), lambda: counted_torch(source.judge.trunk))


def test_it_reads_what_its_source_was_paid_for() -> None:
    source, states = verify.chain_steps(), _states()
    reward = Calibrated(source, MAP)
    values = source(states, Limit(Ledger(), "test")).values
    assert reward(states, Limit(Ledger(), "test")).values.tolist() == pytest.approx(MAP(values).tolist())
    assert reward.source() is source and reward == Calibrated(verify.chain_steps(), MAP)
    task = chains(1, "train", 2)[0]
    process = LanguageProcess(chain_engine(), task.prompt, extract=task.extract, **task.generation)
    plain, mapped = (_one(Run(process, search.best_of_n(n=4, reward=r), seed=1)) for r in (source, reward))
    assert plain.text == mapped.text and plain.cost.tokens > 0
    both = search.together(search.best_of_n(n=4, reward=source), search.best_of_n(n=4, reward=reward))
    process.forget()
    source.forget()
    one = _one(Run(process, search.best_of_n(n=4, reward=source), seed=1))
    process.forget()
    source.forget()
    two = _one(Run(process, both, seed=1))
    assert set(two.costs) == set(one.costs)  # the calibrated one has no account of its own


def test_fit_scores_states_itself_and_is_judged_on_problems_it_has_not_seen() -> None:
    states = calibrate.states_of(PAIRS)
    labels = [case.right for case in CASES]
    found = calibrate.fit(verify.chain_steps(aggregate="last"), states, labels)
    assert found.raw is not None and found.cost.prompt > 500 and found.held_out.n == len(PAIRS)
    assert found.held_out.ece.value < found.raw.ece.value and found.held_out.brier.value < found.raw.brier.value
    assert "held-out ECE" in str(found)
    again = Calibrated(verify.chain_steps(aggregate="last"), map_of(found.reward.map.json()))
    assert again == found.reward
    with pytest.raises(UsageError, match="too few to calibrate on"):
        calibrate.fit(verify.chain_steps(), states, labels, budget=Budget(tokens=1))
    with pytest.raises(UsageError, match="and 1 problems: cross-fitting needs 2 folds"):
        calibrate.fit(verify.chain_steps(), states, labels, problems=["one"] * len(PAIRS))


def test_crossed_probabilities_never_see_their_own_problem() -> None:
    """One problem's labels are turned round: its own probabilities stay as they were, if folds are kept apart."""
    from anystep.calibrate.calibrated import crossed, dealt

    rng = np.random.default_rng(0)
    scores, own = rng.random(300), np.repeat(np.arange(30), 10)
    labels = (rng.random(300) < scores).astype(float)
    turned = np.where(own == 7, 1 - labels, labels)
    fold = dealt(own.tolist(), 5, 0)
    same = fold == fold[70]
    one, other = (crossed("platt", scores, y, own.tolist(), 5, 0) for y in (labels, turned))
    assert (one[same] == other[same]).all() and (one[~same] != other[~same]).all()


# --- the winner ---------------------------------------------------------------------------------------------------


def _score(states: Any) -> Any:
    """A third of outputs look good, a third fair, a third bad."""
    return [(0.45, 0.3, 0.1)[sum(tokens) % 3] for tokens in states.tuples()]


def _right(seed: int, answer: Any) -> float:
    """On half of the problems nothing is right, however good it looks; on the others what looks good mostly is."""
    share = {0: 0.9, 1: 0.6, 2: 0.2}[sum(answer) % 3]
    return float(seed % 2 == 0 and np.random.default_rng([seed, *answer]).random() < share)


REWARD = anystep.reward(_score, "looks")
BEST = search.best_of_n(n=8, reward=REWARD)


def _runs(method: Any, seeds: range) -> tuple[list[Any], list[float]]:
    answers = [_one(Run(EnumerableLM(seed=s), method, seed=s)) for s in seeds]
    return answers, [_right(s, a.value) for s, a in zip(seeds, answers, strict=True)]


def test_samples_are_calibrated_and_the_best_of_eight_is_not_until_it_is_fitted_itself() -> None:
    """By construction the score is the share right of single samples; on a hard problem it misleads eight times."""
    single, right = _runs(search.best_of_n(n=1, reward=REWARD), range(400))
    one = calibrate.reliability([figure(a) for a in single], right)
    answers, labels = _runs(BEST, range(400))
    best = calibrate.reliability([figure(a) for a in answers], labels)
    assert one.ece.low == 0.0
    hard = [figure(a) for a, s in zip(answers, range(400), strict=True) if s % 2]
    assert np.mean(hard) > 0.44 and best.auroc.value < 0.6  # it looks as good where nothing is right
    found = calibrate.winner(BEST, answers, labels)
    assert found.held_out.ece.low == 0.0 and found.raw is not None


def test_a_calibrated_method_is_the_same_method_with_a_confidence() -> None:
    answers, labels = _runs(BEST, range(200))
    found = calibrate.winner(BEST, answers, labels)
    again = _one(Run(EnumerableLM(seed=3), found.method, seed=3))
    plain = answers[3]
    assert again.confidence == pytest.approx(float(found.map([figure(plain)])[0]))
    assert (again.text, again.cost.generated) == (plain.text, plain.cost.generated) and plain.confidence is None
    assert calibrate.sure(BEST, map_of(found.map.json())) == found.method
    assert calibrate.sure(found.method, MAP).decision.plain is BEST.decision  # one map, not two
    joined = _one(Run(EnumerableLM(seed=3), search.together(found.method, BEST), seed=3))
    assert joined.text is not None and joined.confidence is None  # sixteen samples are another method
    assert repr(found.map) in repr(found.method.decision) and found.method.rewards() == BEST.rewards()
    check_decision(found.method.decision)


def test_votes_are_calibrated_by_their_share() -> None:
    vote = search.self_consistency(n=9)
    answers, _ = _runs(vote, range(120))
    labels = [float((a.support or 0) > 0.3) for a in answers]
    found = calibrate.winner(vote, answers, labels)
    again = _one(Run(EnumerableLM(seed=5), found.method, seed=5))
    assert again.confidence == pytest.approx(float(found.map([answers[5].support])[0]))


def test_a_run_that_was_cut_short_has_no_confidence_and_teaches_none() -> None:
    sure = calibrate.sure(BEST, MAP)
    short = _one(Run(EnumerableLM(seed=1), sure, Budget(evaluations=24), seed=1))
    assert short.text is not None and short.stopped_because == "evaluations" and short.confidence is None
    assert np.isnan(figure(short))
    with pytest.raises(UsageError, match="too few to calibrate on"):
        calibrate.winner(BEST, [short] * 40, [0, 1] * 20)
    with pytest.raises(UsageError, match="2 answers and 1 labels"):
        calibrate.winner(BEST, [short] * 2, [0])


def test_the_confidence_is_in_the_journal_s_end_and_survives_a_replay() -> None:
    from anystep.journal import summary
    from anystep.view import end_lines

    sure = calibrate.sure(BEST, MAP)
    run = Run(EnumerableLM(seed=2), sure, seed=2)
    answer = _one(run)
    assert summary(run)["confidence"] == answer.confidence
    assert f"right with probability {answer.confidence:.2f}; 8 of 8 finished" in end_lines(summary(run))[0]
    again = Run(EnumerableLM(seed=2), sure, seed=2)
    again.replay(run.journal)
    assert again.result().confidence == answer.confidence
