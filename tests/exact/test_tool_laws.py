"""Trajectories with tools against enumeration: their law, the evidence of a filter, and what search finds."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from anystep import Run, drive, potential, reward, search
from anystep.testing import assert_law, assert_mean, merged
from tool_worlds import GOAL, START, distances, maze, paths, store, walk, walker

RUNS, FILTERS = 1_200, 150


def law(kind: Any) -> dict[Any, float]:
    found: Counter[Any] = Counter()
    for p, answer, world in paths():
        found[kind(answer, world)] += p
    return dict(found)


def test_the_paths_are_all_there_are() -> None:
    assert sum(p for p, _, _ in paths()) == pytest.approx(1)
    assert len(law(lambda answer, world: answer)) == 7  # 0, 1, 2, 3, two refusals, and none


@pytest.fixture(scope="module")
def sampled() -> Any:
    (answer,) = drive(Run(store(), search.sample(n=RUNS), seed=1))
    return answer.population


def test_answers_follow_their_law(sampled: Any) -> None:
    assert_law(sampled.answers, law(lambda answer, world: answer))


def test_worlds_and_answers_follow_their_joint_law(sampled: Any) -> None:
    said = [(a, json.dumps(w)) for a, w in zip(sampled.answers, sampled.states.worlds(), strict=True) if a is not None]
    exact = law(lambda answer, world: (answer, json.dumps(world)))
    whole = sum(p for (answer, _), p in exact.items() if answer is not None)
    assert_law(said, {k: p / whole for k, p in exact.items() if k[0] is not None})


def test_a_trajectory_s_log_probability_is_its_path_s(sampled: Any) -> None:
    masses = {round(float(np.log(p)), 9) for p, answer, _ in paths() if answer is not None}
    assert {round(float(x), 9) for x in sampled.logp[sampled.done]} == masses


def value(states: Any) -> Any:
    """Log-odds for a store that holds 2 or 3, from the moment it does."""
    return np.array([float(np.log(3)) if world.get("a", 0) > 1 else 0.0 for world in states.worlds()])


def test_a_filter_s_evidence_is_unbiased_and_its_answers_are_the_tilted_ones() -> None:
    tilt = {(a, json.dumps(w)): 3.0 if w.get("a", 0) > 1 else 1.0 for _, a, w in paths()}
    exact = law(lambda answer, world: (answer, json.dumps(world)))
    done = {k: p * tilt[k] for k, p in exact.items() if k[0] is not None}  # what failed is left out, and is flagged
    total = sum(done.values())
    method = search.particle_filter(n=8, potential=potential(value), ess=0.9)
    runs = merged(lambda seed: Run(store(), method, seed=seed), range(FILTERS))
    answers = [run.answer for run in runs if run.answer is not None]
    assert any(a.population.flagged for a in answers)
    assert_mean([float(np.exp(a.evidence)) for a in answers] + [0.0] * (FILTERS - len(answers)), total)
    # weights times evidence estimate every tilted mass without bias
    want = sum(p for k, p in done.items() if k[0] == "2")
    got = [_mass(a, "2") for a in answers] + [0.0] * (FILTERS - len(answers))
    assert_mean(got, want)


def _mass(answer: Any, said: str) -> float:
    rows = np.array([a == said for a in answer.population.answers])
    return float(np.exp(answer.evidence) * answer.population.weights[rows].sum())


def test_best_of_n_by_a_reward_on_the_world_has_its_law() -> None:
    held = reward(lambda states: [world.get("a", 0) / 3 for world in states.worlds()], "held")
    method = search.best_of_n(n=3, reward=held)
    runs = merged(lambda seed: Run(store(), method, seed=seed), range(200))
    got = [run.answer.population.scores[run.answer.row] for run in runs if run.answer is not None]
    exact = law(lambda answer, world: None if answer is None else world.get("a", 0) / 3)
    values = sorted(v for v in exact if v is not None)
    failed = exact[None]
    under = np.cumsum([exact[v] for v in values]) + failed  # of one sample, failed ones being the worst
    best = np.diff(np.concatenate([[failed**3], under**3])) / (1 - failed**3)
    assert_law([round(float(g), 6) for g in got], {round(v, 6): p for v, p in zip(values, best, strict=True)})


NEAR = distances()
near = reward(lambda states: [1 - NEAR[tuple(at)] / max(NEAR.values()) for at in states.worlds()], "near")


def test_greedy_runs_into_the_wall() -> None:
    (answer,) = drive(Run(maze(greedy=True), search.best_of_n(n=1, reward=near)))
    assert tuple(answer.population.states.worlds()[0]) != GOAL


@pytest.mark.parametrize(
    "method",
    [search.beam(width=3, branch=4, reward=near), search.mcts(reward=near, rounds=40, branch=4)],
    ids=["beam", "mcts"],
)
def test_search_finds_the_way_that_greedy_misses(method: Any) -> None:
    (answer,) = drive(Run(maze(), method, seed=0))
    assert tuple(answer.population.states.worlds()[answer.row]) == GOAL
    assert answer.population.scores[answer.row] == 1.0


def test_branches_have_worlds_of_their_own() -> None:
    (answer,) = drive(Run(maze(max_turns=3), search.sample(n=200), seed=0))
    ends = Counter(tuple(at) for at in answer.population.states.worlds())
    exact = {START: 1.0}
    for _ in range(3):
        exact = _walked(exact)
    assert_law(list(ends.elements()), exact)


def _walked(law: dict[Any, float]) -> dict[Any, float]:
    found: Counter[Any] = Counter()
    for at, p in law.items():
        for turn, q in walker([{"content": ""}]).items():
            found[walk(at, **json.loads(turn.calls[0].arguments))[1]] += p * q
    return dict(found)
