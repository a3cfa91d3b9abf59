"""Search over noises: what each algorithm tries, what the disturbances leave as it is, and what is paid.

Means are tested with |z| < 5; seeds are fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anystep import Run, UsageError, drive, search
from anystep.answer import AllFailed
from anystep.diffusion import DiffusionProcess, NearbyNoise, Noised, Renoise, on_clean, sample
from anystep.diffusion.models import MixtureDenoiser, ring, skewed
from anystep.diffusion.solvers import DDIM, Euler, Heun
from anystep.keys import roots
from anystep.procedure import Exploring, procedure, start, step
from anystep.search import decide
from anystep.testing import assert_mean, check_procedure, own_hook, process_checks, total_variation
from anystep.testing.limits import unlimited

RIGHT = on_clean(lambda x: x[:, 0], "to the right", (-9.0, 9.0))
PROCESS = DiffusionProcess(skewed(), Euler(6))
WIDE = MixtureDenoiser([1.0], np.zeros((1, 12)), np.eye(12)[None], name="twelve numbers")


def moved(editor: Any, states: Noised, seed: int = 0) -> Any:
    return editor.step(states, roots(seed, (7,), np.arange(len(states))), unlimited(), "step")


def starts(process: DiffusionProcess, n: int) -> Noised:
    states: Noised = process.start(roots(1, (), np.arange(n)), unlimited()).states
    return states


@pytest.mark.parametrize("editor", [NearbyNoise(PROCESS, 0.9), Renoise(PROCESS, 3)], ids=repr)
def test_an_editor_keeps_the_laws_of_processes(editor: Any) -> None:
    for check in process_checks:
        if check.__name__ != "it_is_a_process":  # whose hook wants work, and an editor does none
            check(editor, own_hook(editor))


@pytest.mark.parametrize("cosine", [0.95, 0.0, -1.0])
def test_neighbours_keep_the_noise_s_length_and_angle_and_its_law(cosine: float) -> None:
    process = DiffusionProcess(WIDE, Euler(4))
    old = starts(process, 4000)
    reply = moved(NearbyNoise(process, cosine), old)
    x, y = old.x, reply.states.x
    assert torch.allclose(x.norm(dim=1), y.norm(dim=1))
    assert torch.allclose(torch.nn.functional.cosine_similarity(x, y), torch.tensor(cosine, dtype=torch.float64))
    assert not reply.states.known.any() and (reply.logp == 0).all() and reply.cost.evaluations == 0
    for column in range(3):
        assert_mean(y[:, column], 0.0)
        assert_mean(y[:, column] ** 2, 1.0)
        assert_mean(x[:, column] * y[:, column], cosine)


def test_a_state_that_has_taken_steps_has_no_neighbours() -> None:
    @procedure(decide=decide.first_finished)
    def wrong() -> Exploring:
        population = yield from start(2)
        population = yield from step(population)
        return (yield from step(population, by=NearbyNoise(PROCESS)))

    with pytest.raises(AllFailed, match="give it starts"):
        drive(Run(PROCESS, wrong()))


def test_renoising_is_the_forward_process() -> None:
    """Samples of the model, made noisier, follow the noised law: here a Gaussian whose variance is known."""
    process = DiffusionProcess(WIDE, Euler(10))
    n = 3000
    ends = process.step(starts(process, n), roots(2, (), np.arange(n)), unlimited(), "done").states
    clean = WIDE.draw(n, seed=3)
    ends = Noised(clean, clean, ends.memory, ends.index, ends.time, ends.known, ends.condition)
    noisier = moved(Renoise(process, 4), ends).states
    t = float(process.grid[6])
    assert (noisier.index == 6).all() and np.allclose(noisier.time, t)
    twice = moved(Renoise(process, 2), moved(Renoise(process, 2), ends, seed=1).states, seed=2).states
    for states in (noisier, twice):
        assert_mean(states.x[:, 0] ** 2, (1 - t) ** 2 + t**2)
        assert_mean(states.x[:, 0] * clean[:, 0], 1 - t)
    pure = moved(Renoise(process, 10), ends).states
    assert (pure.index == 0).all()
    assert_mean(pure.x[:, 0] * clean[:, 0], 0.0)


def test_noising_and_denoising_leave_the_law_as_it_is() -> None:
    process = DiffusionProcess(ring(), DDIM(40, eta=1.0))
    n = 2000
    ends = sample(process.model, process.solver, n).x
    blank = process.noise(roots(0, (), np.arange(n)), np.full(n, -1))
    done = Noised(ends, ends, blank.memory, np.full(n, 40), np.zeros(n), np.ones(n, dtype=bool), blank.condition)
    back = moved(Renoise(process, 30), done).states
    again = process.step(back, roots(5, (), np.arange(n)), unlimited(), "done").states.x

    def modes(x: torch.Tensor) -> dict[int, float]:
        nearest = ((x.numpy()[:, None] - ring().means) ** 2).sum(-1).argmin(1)
        return dict(enumerate((np.bincount(nearest, minlength=8) / n).tolist()))

    assert (again - ends).norm(dim=1).mean() > 0.3, "they have moved"
    assert total_variation(modes(again), dict.fromkeys(range(8), 1 / 8)) < 0.06


def test_random_search_is_best_of_all_its_starts() -> None:
    random, plain = drive(
        Run(PROCESS, search.noise_search(RIGHT, n=3, rounds=4), seed=5),
        Run(PROCESS, search.best_of_n(n=12, reward=RIGHT), seed=5),
    )
    assert random.population is not None and plain.population is not None
    assert random.population.answers == plain.population.answers and random.value == plain.value
    assert random.cost.evaluations == plain.cost.evaluations == 12 * 6


def test_zero_order_search_goes_on_from_the_best_so_far_and_climbs() -> None:
    process = DiffusionProcess(WIDE, Euler(4))  # linear in its noise: neighbours of a good start are good
    first = on_clean(lambda x: x[:, 0], "first", (-9.0, 9.0))
    near = search.noise_search(first, n=4, rounds=16, near=NearbyNoise(process, 0.9))
    won = []
    for seed in range(12):
        climbing, random = drive(
            Run(process, near, seed=seed), Run(process, search.noise_search(first, n=64), seed=seed)
        )
        assert climbing.population is not None and random.population is not None
        assert climbing.cost.evaluations == random.cost.evaluations == 64 * 4
        rounds = climbing.population.scores.reshape(16, 4).max(1)
        assert climbing.population.scores[climbing.row or 0] == rounds.max()
        won.append(rounds.max() - random.population.scores.max())
    assert np.mean(won) > 0.15, won


def test_the_winner_is_made_again_by_the_full_process() -> None:
    fine = DiffusionProcess(skewed(), Heun(20), name="fine")
    method = search.noise_search(RIGHT, n=3, rounds=2, near=NearbyNoise(PROCESS), full=fine)
    (answer,) = drive(Run(PROCESS, method, seed=2))
    (rough,) = drive(Run(PROCESS, search.noise_search(RIGHT, n=3, rounds=2, near=NearbyNoise(PROCESS)), seed=2))
    assert answer.value is not None and rough.value is not None and answer.value != rough.value
    assert np.linalg.norm(np.subtract(answer.value, rough.value)) < 0.5  # type: ignore[arg-type]
    assert answer.cost.evaluations - rough.cost.evaluations == 2 * 20 - 1, "a neighbour wins: all is paid"


def test_paths_keep_the_best_and_end() -> None:
    process = DiffusionProcess(ring(), Euler(10))
    method = search.path_search(RIGHT, Renoise(process, 4), ahead=5, n=2, branch=3, rounds=3, first=7)
    gains = []
    for seed in range(15):
        found, plain = drive(Run(process, method, seed=seed), Run(process, search.sample(n=1), seed=seed))
        assert found.population is not None and found.population.done.all()
        gains.append(found.value[0] - plain.value[0])  # type: ignore[index]
    assert np.mean(gains) > 1.0
    # Seven steps cost eight rows; a round, six copies of as many steps as are left of five, and their prediction anew.
    assert found.cost.evaluations == 2 * 8 + 6 * (6 + 6 + 5)


@pytest.mark.parametrize(
    "method",
    [
        search.noise_search(RIGHT, n=2, rounds=2, near=NearbyNoise(PROCESS)),
        search.path_search(RIGHT, Renoise(PROCESS, 2), ahead=3, first=4, rounds=2),
    ],
    ids=lambda method: method.name,
)
def test_searches_keep_the_laws(method: Any) -> None:
    check_procedure(method, PROCESS, most=6)


def test_bad_options_show_the_call() -> None:
    for wrong in (
        lambda: NearbyNoise(PROCESS, 1.0),
        lambda: Renoise(PROCESS, 0),
        lambda: Renoise(PROCESS, 7),
        lambda: NearbyNoise(DiffusionProcess(MixtureDenoiser([1.0], np.zeros((1, 1)), np.eye(1)[None]), Euler(3))),
        lambda: search.noise_search(RIGHT, n=0),
    ):
        with pytest.raises(UsageError) as caught:
            wrong()
        assert "\n" not in str(caught.value)
