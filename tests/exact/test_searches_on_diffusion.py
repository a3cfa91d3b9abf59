"""Every procedure on denoising: it runs and keeps the laws, or is refused with advice; merged runs share calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anystep import Run, Unsupported, drive, search
from anystep.diffusion import DiffusionProcess, on_clean, potential_on_clean
from anystep.diffusion.models import skewed
from anystep.diffusion.solvers import DDIM, Euler
from anystep.procedure import Method
from anystep.search import decide
from anystep.testing import case, check_refusal, counted, procedure_checks

DRAWING = DiffusionProcess(skewed(), DDIM(3, eta=1.0))
FLOWING = DiffusionProcess(skewed(), Euler(3))
REWARD = on_clean(lambda x: 1 / (1 + (-x[:, 0]).exp()), "right")
POTENTIAL = potential_on_clean(lambda x: x[:, 0], "right")

METHODS: dict[str, Method] = {
    "sample": search.sample(n=2),
    "best_of_n": search.best_of_n(n=3, reward=REWARD),
    "self_consistency": search.self_consistency(n=3),
    "first_finish": search.first_finish(n=3),
    "particle_filter": search.particle_filter(n=3, potential=POTENTIAL, ess=0.9),
    "particle_gibbs": search.particle_gibbs(n=2, sweeps=2, potential=POTENTIAL),
    "particle_islands": search.particle_islands(islands=2, n=2, potential=POTENTIAL),
    "parallel_tempering": search.parallel_tempering(2, 1, POTENTIAL, temperatures=(2.0, 1.0)),
    "beam": search.beam(width=2, reward=REWARD, branch=2),
    "dvts": search.dvts(trees=2, reward=REWARD, branch=2),
    "rebase": search.rebase(n=3, reward=REWARD),
    "mcts": search.mcts(reward=REWARD, rounds=2, branch=2),
    "mcts by value": search.mcts(REWARD, rounds=3, branch=2, value=REWARD),
    "ab_mcts": search.ab_mcts(REWARD, rounds=2),
    "tree_of_thoughts": search.tree_of_thoughts(REWARD, "dfs", branch=2, expansions=3),
    "astar_decode": search.astar_decode(REWARD, branch=2, expansions=3),
    "soft_value_decoding": search.soft_value_decoding(REWARD, branch=2, n=2),
    "noise_search": search.noise_search(REWARD, n=2),
}
CHEAP = ("same_seed_same_answer", "drivers_agree", "the_ledger_is_the_work", "books_are_consistent")
CHECKS = [check for check in procedure_checks if check.__name__ in CHEAP]


@pytest.mark.parametrize("name", METHODS)
def test_a_procedure_runs_on_denoising(name: str) -> None:
    assert len(CHECKS) == len(CHEAP)
    for check in CHECKS:
        check(case(METHODS[name], DRAWING))
    (answer,) = drive(Run(DRAWING, METHODS[name]))
    assert answer.value is not None and len(answer.value) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sample", "best_of_n", "particle_filter", "noise_search"])
def test_a_deterministic_solver_takes_what_does_not_branch(name: str) -> None:
    (answer,) = drive(Run(FLOWING, METHODS[name]))
    assert answer.value is not None


@pytest.mark.parametrize("name", ["beam", "mcts", "dvts", "tree_of_thoughts", "astar_decode", "soft_value_decoding"])
def test_a_deterministic_solver_is_refused_what_branches(name: str) -> None:
    with pytest.raises(Unsupported, match="use branch=1, more starts"):
        drive(Run(FLOWING, METHODS[name]))


@pytest.mark.parametrize(
    "make,advice",
    [
        (lambda: search.astar(POTENTIAL), "use beam or particle_filter"),
        (lambda: search.perplexity_consistency(n=2), "use search.majority"),
        (lambda: search.sample(n=2).deciding(decide.perplexity_consistency()), "use search.majority"),
    ],
)
def test_densities_are_no_masses(make: Callable[[], Method], advice: str) -> None:
    check_refusal(make(), DRAWING, advises=advice)


def test_runs_at_different_noise_levels_share_calls() -> None:
    """Filters that began later, and of another class, are stepped in one batch with those under way."""
    model = skewed()
    processes: list[Any] = [DiffusionProcess(model, DDIM(6, eta=1.0), condition=k) for k in (None, 0, 1)]
    runs = [Run(p, search.particle_filter(n=4, potential=POTENTIAL), seed=i) for i, p in enumerate(processes)]
    late = Run(processes[0], search.particle_filter(n=4, potential=POTENTIAL), seed=3)
    for run in runs:  # two rounds ahead of the late one
        for _ in range(4):
            run.tell([call.perform() for call in run.calls])
    with counted(model) as work:
        drive(*runs, late)
    assert work.calls == 7, "the late run's six calls carry the others', but for the round of its start"
    alone = [Run(p, search.particle_filter(n=4, potential=POTENTIAL), seed=i) for i, p in enumerate(processes)]
    for run, again in zip(runs, alone, strict=True):
        drive(again)
        assert run.answer is not None and again.answer is not None
        assert run.answer.population is not None and again.answer.population is not None
        assert np.array_equal(run.answer.population.states.x, again.answer.population.states.x)
