"""Every procedure on every oracle, unchanged, through every check; or refused with advice where it has no meaning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Process, Run, UsageError, drive, reward, search
from anystep.answer import AllFailed
from anystep.procedure import Method
from anystep.search import decide
from anystep.testing import (
    case,
    check_decision,
    check_prefix,
    check_process,
    check_refusal,
    check_reward,
    decision_checks,
    own_hook,
    procedure_checks,
    process_checks,
    reward_checks,
    some_keys,
)
from anystep.testing.checks_process import trail
from anystep.testing.oracles import (
    Again,
    Countdown,
    Critic,
    EnumerableLM,
    FaultyLM,
    HiddenMarkov,
    JudgePotential,
    JudgeReward,
    LinearGaussian,
    Metropolis,
    MixtureDiffusion,
    Prompt,
    Relay,
    Reviser,
)

ORACLES: dict[str, Process] = {
    "tokens": EnumerableLM(length=4),
    "steps of two tokens": EnumerableLM(length=5, width=2),
    "expanding": EnumerableLM(length=4, expands=True),
    "hidden markov": HiddenMarkov(steps=3),
    "linear gaussian": LinearGaussian(steps=3),
    "diffusion": MixtureDiffusion(steps=3),
    "deterministic": Countdown(top=3),
    "faulty": FaultyLM(share=0.2, length=4),
    "all failing": FaultyLM(share=1, length=4),
    "truncated endless": search.truncate(Metropolis(), 3),
}


def progress(states: Any) -> np.ndarray:
    """A value in [0, 1] of any oracle's states: how far they are, and a little of where."""
    inner = getattr(states, "states", states)
    return np.asarray((inner.size if hasattr(inner, "size") else inner.t) / 10)


REWARD = JudgeReward(progress, "judge")
LENGTH = reward(lambda states: states.size, "length", (0, 9))
POTENTIAL = JudgePotential(progress, "hope")
TO_GO = JudgePotential(lambda states: progress(states) - 1, "to_go")


def other(process: Process) -> Process:
    """A second writer of its states, known by its own name."""
    large = copy.copy(process)
    large.name = f"large-{process.name}"
    return large


def methods(process: Process) -> dict[str, Method]:
    branch = 2 if process.branches else 1
    found = {
        "sample": search.sample(n=3),
        "best_of_n": search.best_of_n(n=3, reward=REWARD),
        "self_consistency": search.self_consistency(n=3),
        "first_finish": search.first_finish(n=3, k=2),
        "particle_filter": search.particle_filter(n=4, potential=POTENTIAL, ess=0.9),
        "particle_filter on a reward": search.particle_filter(n=3, potential=REWARD.log_odds()),
        "beam": search.beam(width=2, reward=REWARD, branch=branch),
        "mcts": search.mcts(reward=REWARD, rounds=3, branch=branch),
        "glimp_router": search.glimp_router(large=other(process), glimpse=REWARD, threshold=0.15, n=2),
        "draft_router": search.draft_router(large=other(process), router=REWARD, threshold=0.15, n=2),
        "together": search.together(search.sample(n=2), search.particle_filter(n=2, potential=POTENTIAL)),
    }
    if process is ORACLES["tokens"]:
        found |= {
            "astar_decode": search.astar_decode(REWARD, branch=2, expansions=6, goals=2, reopen=0.05),
            "rebase": search.rebase(n=3, reward=REWARD, temperature=0.05),
            "soft_value_decoding": search.soft_value_decoding(REWARD, branch=2, n=3, temperature=0.2),
            "noise_search": search.noise_search(REWARD, n=2, rounds=2),
            "parallel_tempering": search.parallel_tempering(2, 2, REWARD.log_odds(), temperatures=(3.0, 1.0)),
        }
    if process is ORACLES["expanding"]:
        found["dvts"] = search.dvts(trees=2, reward=REWARD, branch=branch)
        found["soft_value_decoding"] = search.soft_value_decoding(REWARD, branch=3, n=2)
    if process is ORACLES["faulty"]:
        found |= {
            "particle_gibbs": search.particle_gibbs(n=3, sweeps=2, potential=POTENTIAL),
            "particle_islands": search.particle_islands(islands=2, n=2, potential=POTENTIAL, ess=0.9),
            "soft_value_decoding": search.soft_value_decoding(REWARD, branch=2, n=2, temperature=0.0),
        }
    if process.logp == "mass":
        found["astar"] = search.astar(heuristic=TO_GO, branch=branch, expansions=5)
    if isinstance(process, (EnumerableLM, Countdown)):  # one row alone: others' logarithms differ in the last place
        found["consistency_check_loop"] = search.consistency_check_loop(REWARD, REWARD, retries=1, rounds=2)
    if process in (ORACLES["tokens"], ORACLES["faulty"]):
        by = {"by": Critic(process)} if process is ORACLES["tokens"] else {}  # type: ignore[arg-type]
        found["beam, retiring"] = search.step_beam(width=2, value=REWARD, branch=2)
        found["mcts by value"] = search.mcts(REWARD, rounds=3, branch=2, select="puct", value=REWARD, rollout=0.5)
        found["tree_values"] = search.AlphaMath(REWARD, rounds=3, branch=2).supervise(REWARD)
        found["tree_of_thoughts"] = search.tree_of_thoughts(REWARD, "dfs", branch=2, prune=0.0, expansions=4)
        found["ab_mcts"] = search.ab_mcts(REWARD, rounds=3, batch=2, **by)  # type: ignore[arg-type]
    if isinstance(process, EnumerableLM):
        found["complexity_vote"] = search.complexity_vote(n=4, k=2, complexity=REWARD)
        found["repeated_sampling"] = search.repeated_sampling(n=3)
        prompts = (Prompt(process, 0), Prompt(process, 1))
        found["adaptive_prompt"] = search.adaptive_prompt(prompts, REWARD, tries=2, threshold=0.25)
    if process is ORACLES["steps of two tokens"]:
        found["perplexity_consistency"] = search.perplexity_consistency(n=6)
        found["best_of_majority"] = search.best_of_majority(n=4, reward=REWARD, threshold=0.3, k=2)
        found["adaptive_self_consistency"] = search.adaptive_self_consistency(n=4, sure=0.8, batch=2)
        found["deepconf_online"] = search.deepconf_online(n=4, confidence=REWARD, keep=0.5, warmup=2, sure=0.9)
    if isinstance(process, EnumerableLM):
        found["refine"] = search.refine(n=2, critic=Critic(process), reviser=Reviser(process), reward=REWARD)
        found["infty_think"] = search.infty_think(restart=Relay(process), rounds=3, n=2)
    if process in (ORACLES["tokens"], ORACLES["faulty"]):
        found["hypothesis_refinement"] = search.hypothesis_refinement(n=2, reward=REWARD, reviser=Again(process))
    if process is ORACLES["faulty"]:  # each once, where its options matter
        found["capability_aware_best_of_n"] = search.capability_aware_best_of_n(
            n=5, reward=REWARD, threshold=0.45, batch=2, prune_after=1
        )
        found["iterative_deepening_sampling"] = search.iterative_deepening_sampling(
            n=3, trigger=Reviser(ORACLES["tokens"], "cue"), length=LENGTH, first=1, growth=2, reward=REWARD
        )
    if process is ORACLES["tokens"]:
        found["capability_aware_best_of_n"] = search.capability_aware_best_of_n(
            n=3, reward=REWARD, threshold=None, warming=(process,)
        )
        found["triggered_sampling"] = search.triggered_sampling(
            n=2, trigger=Reviser(process, "cue"), length=LENGTH, schedule=search.Anywhere(draws=1, within=3)
        )
    if process is ORACLES["steps of two tokens"]:
        found["consistency_check_loop"] = search.consistency_check_loop(REWARD, REWARD, retries=1, rounds=2)
        found["infty_think"] = search.infty_think(restart=Relay(EnumerableLM(length=5, width=2)), rounds=3, n=2)
    return found


PAIRS = [(name, method) for name, process in ORACLES.items() for method in methods(process)]


@pytest.mark.parametrize("name,method", PAIRS, ids=[f"{m} on {n}" for n, m in PAIRS])
def test_a_procedure_keeps_the_laws_on_an_oracle(name: str, method: str) -> None:
    for check in procedure_checks:
        check(case(methods(ORACLES[name])[method], ORACLES[name], most=40))


@pytest.mark.parametrize("check", process_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*ORACLES, "endless"])
def test_an_oracle_is_a_process(name: str, check: Callable[..., None]) -> None:
    process = Metropolis() if name == "endless" else ORACLES[name]
    check(process, own_hook(process))


def test_a_truncated_oracle_is_a_process() -> None:
    check_process(search.truncate(EnumerableLM(width=2, length=7), 2))
    check_process(search.truncate(FaultyLM(share=0.3), 3))


@pytest.mark.parametrize("check", reward_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("reward", [REWARD, POTENTIAL, REWARD.log_odds()], ids=repr)
def test_a_judge_is_a_reward(reward: Any, check: Callable[..., None]) -> None:
    states = [reply.states for reply, _ in trail(ORACLES["tokens"], some_keys())]
    check(reward, states[0].join(*states[1:]), own_hook(reward.source()))


def test_the_diffusion_s_and_the_language_model_s_own_potentials_are_rewards() -> None:
    diffusion, lm = MixtureDiffusion(steps=3), EnumerableLM()
    for process, potential in ((diffusion, diffusion.linear(np.array([1.0, -0.5]))), (lm, lm.to_go())):
        states = [reply.states for reply, _ in trail(process, some_keys())]
        check_reward(potential, states[0].join(*states[1:]))


DECISIONS = [
    search.best_reward,
    search.majority,
    search.weighted_majority,
    search.reward_majority,
    search.first_finished,
    search.majority_above(0.3),
    decide.complex_majority(k=1),
    decide.complex_majority(k=3),
    decide.every_answer,
    decide.perplexity_consistency(),
    decide.perplexity_consistency(prune=False),
    decide.best_of_majority(threshold=0),
    decide.best_of_majority(threshold=0.4, k=2, of="mean"),
    decide.best_of_majority(threshold=1.1, k=3),
    decide.confidence_weighted(),
    decide.confidence_weighted(keep=0.5),
    search.abstain(search.majority, below=0.5),
    search.abstain(search.best_reward, below=0.5),
    search.abstain(decide.perplexity_consistency(), below=2),
]


@pytest.mark.parametrize("check", decision_checks, ids=lambda check: check.__name__)
@pytest.mark.parametrize("decision", DECISIONS, ids=repr)
def test_a_decision_keeps_the_laws(decision: Any, check: Callable[..., None]) -> None:
    check(decision)


def test_every_decision_at_once() -> None:
    for decision in DECISIONS:
        check_decision(decision)


@pytest.mark.parametrize("name", [n for n in ORACLES if n != "all failing"])
def test_pools_nest(name: str) -> None:
    process = ORACLES[name]
    check_prefix(lambda n: search.sample(n=n), process)
    check_prefix(lambda n: search.best_of_n(n=n, reward=REWARD), process)
    check_prefix(lambda n: search.self_consistency(n=n), process, small=2, large=5)


def test_a_star_refuses_densities() -> None:
    for process in (LinearGaussian(), MixtureDiffusion()):
        check_refusal(search.astar(heuristic=TO_GO), process, advises="use beam or particle_filter")
        check_refusal(search.together(search.sample(n=1), search.astar(heuristic=TO_GO)), process, advises="beam")


def test_path_probabilities_are_not_weighed_where_there_are_none() -> None:
    for process in (LinearGaussian(), MixtureDiffusion()):
        check_refusal(search.perplexity_consistency(n=2), process, advises="use search.majority")
        weighed = search.sample(n=2).deciding(search.abstain(decide.perplexity_consistency(), below=0.5))
        check_refusal(weighed, process, advises="use search.majority")


def test_branching_a_deterministic_process_is_refused() -> None:
    for method in (search.beam(2, REWARD), search.mcts(REWARD), search.astar(TO_GO), search.astar_decode(REWARD)):
        check_refusal(method, Countdown(), advises="use branch=1, more starts")
    for method in (search.ab_mcts(REWARD), search.together(search.sample(n=2), search.ab_mcts(REWARD))):
        check_refusal(method, Countdown(), advises="use more starts")
    lm, always = EnumerableLM(length=4), Countdown()
    check_refusal(search.ab_mcts(REWARD, by=always), lm, advises="countdown is deterministic")


def test_running_an_endless_process_to_its_end_is_refused() -> None:
    for method in (
        search.sample(n=2),
        search.best_of_n(n=2, reward=REWARD),
        search.self_consistency(n=2),
        search.first_finish(n=2),
        search.beam(width=2, reward=REWARD),
        search.particle_filter(n=2),
        search.together(search.sample(n=1), search.particle_filter(n=2)),
    ):
        check_refusal(method, Metropolis(), advises="search.truncate(metropolis, n)")


def test_an_endless_process_under_a_budget_answers_with_what_it_has() -> None:
    for method in (search.particle_filter(n=4, potential=POTENTIAL), search.beam(width=2, reward=REWARD, branch=2)):
        (answer,) = drive(Run(Metropolis(), method, Budget(evaluations=50)))
        assert answer.value in range(6) and answer.stopped_because == "evaluations" and answer.cost.evaluations <= 50


def test_all_failed_raises_the_first_error() -> None:
    for method in methods(ORACLES["all failing"]).values():
        with pytest.raises(AllFailed, match="token 0 was lost"):
            drive(Run(ORACLES["all failing"], method))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EnumerableLM(length=8),
        lambda: EnumerableLM(width=2, expands=True),
        lambda: HiddenMarkov(k=0),
        lambda: LinearGaussian(steps=0),
        lambda: MixtureDiffusion(steps=1),
        lambda: Metropolis(k=2),
        lambda: Countdown(top=0),
        lambda: FaultyLM(share=1.5),
    ],
)
def test_an_oracle_of_impossible_size_shows_the_call_that_was_meant(wrong: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        wrong()
    assert "\n" not in str(caught.value)
