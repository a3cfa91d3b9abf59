"""What every decision must do; `check_decision(decision)` runs all of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from anystep.keys import roots
from anystep.ledger import Ledger, Limit
from anystep.population import Decision, Population
from anystep.process import Status
from anystep.testing.oracles.language import EnumerableLM

DecisionCheck = Callable[[Decision], None]
decision_checks: list[DecisionCheck] = []


def check_decision(decision: Decision) -> None:
    """Run every check of `decision_checks`; AssertionError says what is broken."""
    for check in decision_checks:
        check(decision)


def _check(function: DecisionCheck) -> DecisionCheck:
    decision_checks.append(function)
    return function


def population(
    answers: Sequence[Hashable],
    scores: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    status: Sequence[int] | None = None,
) -> Population:
    """A population with these answers, finished unless `status` says otherwise, to try decisions on; each row has a
    text, and a path, of its own."""
    n = len(answers)
    keys = roots(0, (), np.arange(n))
    states = EnumerableLM().start(keys, Limit(Ledger(), "test")).states
    return Population(
        states=states,
        key=keys,
        id=np.arange(n),
        status=np.full(n, Status.DONE, dtype=np.int8) if status is None else np.array(status, dtype=np.int8),
        cut=np.zeros(n, dtype=bool),
        logp=np.linspace(-1, -2, n),
        logw=np.zeros(n),
        weights=np.ones(n),
        scores=np.full(n, np.nan) if scores is None else np.array(scores, dtype=np.float64),
        answers=tuple(answers),
        texts=tuple(f"path {i} to {answer}" for i, answer in enumerate(answers)),
    ).weighed(np.ones(n) if weights is None else np.array(weights, dtype=np.float64))


def examples() -> list[Population]:
    """Populations of every shape: some unscored, unanswered, unfinished, weightless."""
    return [
        population("abab", [0.1, 0.9, 0.5, 0.2]),
        population("aab", [0.1, 0.2, 0.9], [0.1, 0.1, 0.8]),
        population("abc"),
        population("abc", [np.nan, 0.5, np.nan]),
        population("aabb", [0.9, 0.9, 0.1, 0.2], status=[2, 0, 1, 1]),
        population([None, None, "b"], [0.9, 0.8, 0.1]),
        population("ab", [0.5, 0.4], [0, 0]),
        population("a", [-3.0]),
    ]


@_check
def it_chooses_a_finished_state(decision: Decision) -> None:
    """A row of the population that is done, where there is one; or none, where it says that it abstains."""
    for p in examples():
        row = decision(p).row
        if decision(p).abstained:
            assert row is None and not decision(p).submitted, f"{decision} abstains and chooses row {row}"
            continue
        assert row is not None and 0 <= row < len(p), f"{decision} chooses row {row} of {len(p)}"
        assert p.done[row], f"{decision} chooses a state that is not done"


@_check
def it_chooses_nothing_from_nothing(decision: Decision) -> None:
    """Where no state is done there is no answer, and no error."""
    for p in (population("ab", [0.5, 0.9], status=[0, 2]), population("ab", status=[2, 2]), population("a").take([])):
        assert decision(p).row is None, f"{decision} answers from {len(p)} states none of which is done"
        assert not decision(p).abstained, f"{decision} abstains where there is nothing to choose from"


@_check
def support_is_a_share(decision: Decision) -> None:
    """None, or in [0, 1]."""
    for p in examples():
        support = decision(p).support
        assert support is None or -1e-12 <= support <= 1 + 1e-12, f"{decision}: support {support}"


@_check
def it_is_pure(decision: Decision) -> None:
    """Asked twice it says the same, and it leaves the population as it was."""
    for p in examples():
        before = (p.scores.tobytes(), p.weights.tobytes(), p.status.tobytes(), p.answers)
        assert decision(p) == decision(p), f"{decision} changes its mind"
        assert (p.scores.tobytes(), p.weights.tobytes(), p.status.tobytes(), p.answers) == before, f"{decision} writes"


@_check
def it_reads_scores_only_if_it_says_so(decision: Decision) -> None:
    """A decision without scores=True does not depend on them, because a stopped run would not have them paid."""
    if not decision.scores:
        for p in examples():
            unscored = p.scored(np.full(len(p), np.nan))
            assert decision(p) == decision(unscored), f"{decision} reads scores; declare Decision(..., scores=True)"


@_check
def it_reads_texts_and_path_probabilities_only_if_it_says_so(decision: Decision) -> None:
    """Without texts=True a run does not write them out; without mass=True a process may have no path probabilities."""
    for p in examples():
        if not decision.texts:
            assert decision(p) == decision(replace(p, texts=None)), f"{decision}: declare Decision(..., texts=True)"
        if not decision.mass:
            unknown = replace(p, logp=np.zeros(len(p)))
            assert decision(p) == decision(unknown), f"{decision} reads logp; declare Decision(..., mass=True)"


@_check
def what_it_submits_is_distinct_and_finished(decision: Decision) -> None:
    """Submitted rows are done, begin with the chosen one, and no two of them give the same answer."""
    for p in examples():
        verdict = decision(p)
        if verdict.submitted:
            rows = list(verdict.submitted)
            assert rows[0] == verdict.row and p.done[rows].all(), f"{decision} submits rows {rows}"
            said = [a for a in (p.take(rows).answers or ()) if a is not None]
            assert len(set(rows)) == len(rows) and len(set(said)) == len(said), f"{decision} submits an answer twice"


@_check
def unfinished_states_have_no_say(decision: Decision) -> None:
    """States that are live or failed neither win nor vote: dropping them chooses the same state."""
    for p in examples():
        kept = p.take(p.done)
        whole, only = decision(p).row, decision(kept).row
        assert decision(p).abstained == decision(kept).abstained, f"{decision} abstains by states that are not done"
        if decision(p).abstained:
            continue
        assert whole is not None and only is not None, f"{decision} finds no answer"
        assert p.id[whole] == kept.id[only], f"{decision} listens to states that are not done"


@_check
def a_lone_answer_wins(decision: Decision) -> None:
    """Where all say the same, that is the answer, at full support if it has one."""
    p = population("aaa", [0.2, 0.3, 0.1])
    verdict = decision(p)
    if verdict.abstained:
        return
    assert verdict.row is not None and (p.answers or ())[verdict.row] == "a"
    assert verdict.support is None or np.isclose(verdict.support, 1), f"{decision}: support {verdict.support}"
    assert decision(replace(p, answers=tuple("aaa"))) == verdict, f"{decision} compares answers by identity"
