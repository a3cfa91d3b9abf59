"""Soft value decoding against laws that are enumerated or known in closed form.

What it does with `branch` candidates is a Markov chain whose kernel can be enumerated too, so its distance from the
tilted law is computed and not estimated, and the draws are tested against that chain itself. Chi-square tests have a
false-alarm rate of 1e-6; means |z| < 5; seeds are fixed.
"""

from __future__ import annotations

import itertools
from math import lgamma
from typing import Any

import numpy as np
import pytest
import torch

from anystep import Reward, Run, Unsupported, UsageError, drive, reward, search
from anystep.diffusion import DiffusionProcess, on_clean
from anystep.diffusion.models import skewed
from anystep.diffusion.solvers import DDIM, Euler
from anystep.search.soft_value_decoding import chosen
from anystep.testing import assert_law, assert_mean, check_procedure, total_variation
from anystep.testing.oracles import EnumerableLM, MixtureDiffusion
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=3, length=4)
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def psi(x: Tokens) -> float:
    return 0.6 * sum(x) - 0.5 * len(x)


def soft(temperature: float) -> dict[Tokens, float]:
    """temperature * log E[exp(psi / temperature)] behind every prefix, exactly."""
    values: dict[Tokens, float] = {x: psi(x) for x in LM.outputs}
    for prefix in sorted(LM.prefixes(), key=len, reverse=True):
        after = np.array([values[(*prefix, t)] for t in range(LM.vocab)])
        values[prefix] = float(temperature * np.log(law(prefix) @ np.exp(after / temperature)))
    return values


def law(prefix: Tokens) -> np.ndarray:
    row = LM.numerators[LM.number(prefix)]
    return np.asarray(row / row.sum())


def as_reward(values: dict[Tokens, float]) -> Reward:
    return reward(lambda states: np.array([values[x] for x in states.tuples()]), "soft value", (-9, 9))


def kernel(p: np.ndarray, worth: np.ndarray, branch: int) -> np.ndarray:
    """The law of the one that goes on among `branch` draws from p: the mean of the chosen over all their counts."""
    found = np.zeros(len(p))
    for counts in itertools.product(range(branch + 1), repeat=len(p) - 1):
        k = np.array([*counts, branch - sum(counts)])
        if k[-1] >= 0:
            log = lgamma(branch + 1) - sum(lgamma(c + 1) for c in k.tolist()) + (k * np.log(p)).sum()
            share = k * worth
            found += np.exp(log) * share / share.sum()
    return found


def highest(p: np.ndarray, worth: np.ndarray, branch: int) -> np.ndarray:
    """The law of the best among `branch` draws from p."""
    return np.array([p[worth <= w].sum() ** branch - p[worth < w].sum() ** branch for w in worth])


def decoded(values: dict[Tokens, float], temperature: float, branch: int) -> dict[Tokens, float]:
    """The law over outputs of soft value decoding with this many candidates."""
    found: dict[Tokens, float] = {}
    open_: list[tuple[Tokens, float]] = [((), 1.0)]
    while open_:
        prefix, mass = open_.pop()
        after = np.array([values[(*prefix, t)] for t in range(LM.vocab)])
        p = law(prefix)
        goes = kernel(p, np.exp(after / temperature), branch) if temperature else highest(p, after, branch)
        for token, mass_of in enumerate((mass * goes).tolist()):
            longer = (*prefix, token)
            if longer in LM.outputs:
                found[longer] = mass_of
            else:
                open_.append((longer, mass_of))
    return found


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_gap_to_the_tilted_law_falls_with_the_candidates(temperature: float) -> None:
    target, _ = LM.tilted(lambda x: np.exp(psi(x) / temperature))
    gaps = [total_variation(decoded(soft(temperature), temperature, m), target) for m in COUNTS]
    assert all(later < earlier for earlier, later in itertools.pairwise(gaps)), gaps
    assert gaps[0] > 0.3 and gaps[-1] <= 0.05
    assert gaps[-1] / gaps[-2] == pytest.approx(0.5, abs=0.1), "the bias of a step falls as 1 / branch"


def test_the_best_of_the_candidates_drifts_from_every_tilted_law() -> None:
    target, _ = LM.tilted(lambda x: np.exp(psi(x)))
    gaps = [total_variation(decoded(soft(1.0), 0.0, m), target) for m in COUNTS[1:]]
    assert all(later > earlier for earlier, later in itertools.pairwise(gaps)) and gaps[-1] > 0.7


@pytest.mark.parametrize("branch,temperature", [(1, 1.0), (2, 0.7), (3, 1.0), (3, 0.0)])
def test_the_draws_follow_their_own_law(branch: int, temperature: float) -> None:
    values = soft(temperature or 1.0)
    method = search.soft_value_decoding(as_reward(values), branch=branch, n=800, temperature=temperature)
    (answer,) = drive(Run(LM, method, seed=branch))
    assert answer.population is not None and answer.population.answers is not None
    assert_law(answer.population.answers, decoded(values, temperature, branch))


def test_a_process_that_can_expand_is_drawn_from_all_the_same() -> None:
    expanding = EnumerableLM(seed=3, length=4, expands=True)
    method = search.soft_value_decoding(as_reward(soft(1.0)), branch=3, n=800)
    (answer,) = drive(Run(expanding, method))
    assert answer.population is not None and answer.population.answers is not None
    assert_law(answer.population.answers, decoded(soft(1.0), 1.0, 3))


VALUE = on_clean(lambda x: x[:, 0], "to the right", (-9.0, 9.0))


@pytest.mark.parametrize("process", [LM, DiffusionProcess(skewed(), DDIM(5, eta=1.0))], ids=repr)
def test_one_candidate_is_the_process_itself(process: Any) -> None:
    value = VALUE if isinstance(process, DiffusionProcess) else as_reward(soft(1.0))
    one, plain = drive(
        Run(process, search.soft_value_decoding(value, branch=1, n=50)), Run(process, search.sample(n=50))
    )
    assert one.population is not None and plain.population is not None
    assert process.dump(one.population.states) == process.dump(plain.population.states)
    assert one.population.key.tolist() == plain.population.key.tolist() and one.cost.same(plain.cost)


def test_no_gradient_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> None:
        raise AssertionError("a gradient was asked for")

    def black_box(clean: torch.Tensor) -> np.ndarray:
        assert not clean.requires_grad
        return np.floor(clean.numpy()[:, 0])  # flat nearly everywhere: gradients would say nothing

    for owner, name in ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")):
        monkeypatch.setattr(owner, name, refused)
    process, n = DiffusionProcess(skewed(), DDIM(6, eta=1.0)), 200
    floor = on_clean(black_box, "floor", (-9.0, 9.0))
    led, plain = drive(Run(process, search.soft_value_decoding(floor, branch=6, n=n)), Run(process, search.sample(n=n)))
    means = [np.mean([a[0] for a in answer.population.answers]) for answer in (led, plain)]  # type: ignore[union-attr]
    assert means[0] > means[1] + 0.5


def test_every_candidate_s_prediction_is_paid_and_nothing_else() -> None:
    steps, branch, n = 6, 3, 4
    process = DiffusionProcess(skewed(), DDIM(steps, eta=1.0))
    (answer,) = drive(Run(process, search.soft_value_decoding(VALUE, branch=branch, n=n)))
    assert answer.cost.evaluations == n * (1 + branch * (steps - 1)), "the last step predicts nothing"
    check_procedure(search.soft_value_decoding(VALUE, branch=2, n=2), DiffusionProcess(skewed(), DDIM(3, eta=1.0)))


def test_a_deterministic_solver_is_refused() -> None:
    with pytest.raises(Unsupported, match="deterministic"):
        drive(Run(DiffusionProcess(skewed(), Euler(4)), search.soft_value_decoding(VALUE)))
    with pytest.raises(UsageError, match="0 .the best. or a positive number"):
        search.soft_value_decoding(VALUE, temperature=-1.0)


def soft_linear(process: MixtureDiffusion, c: np.ndarray) -> Reward:
    """log E[exp(c . x_0) | x] in closed form: x_0 behind x is a Gaussian mixture."""

    def values(states: Any) -> np.ndarray:
        sigma = process.sigmas[states.t]
        joint = process._log_joint(states.x, sigma)
        covariances = process.law.covariances
        gain = covariances @ np.linalg.inv(covariances + sigma[:, None, None, None] ** 2 * np.eye(2))
        means = process.law.means + np.einsum("nkij,nkj->nki", gain, states.x[:, None] - process.law.means)
        left = covariances - gain @ covariances
        behind = means @ c + 0.5 * np.einsum("i,nkij,j->nk", c, left, c)
        weights = joint - np.logaddexp.reduce(joint, axis=-1, keepdims=True)
        return np.asarray(np.logaddexp.reduce(weights + behind, axis=-1))

    return reward(values, "soft value", (-99, 99))


def test_the_tilted_mixture_is_reached_with_the_exact_value() -> None:
    process, c = MixtureDiffusion(steps=4), np.array([1.0, -0.5])
    tilted, _ = process.law.tilted(c)
    (answer,) = drive(Run(process, search.soft_value_decoding(soft_linear(process, c), branch=24, n=250), seed=2))
    assert answer.population is not None
    x = answer.population.states.x
    for value, exact in zip(x.T, tilted.mean(), strict=True):
        assert_mean(value, float(exact), bound=4)
    with pytest.raises(AssertionError):
        assert_mean(x[:, 0], float(process.law.mean()[0]))


def test_choosing_where_little_is_known() -> None:
    nothing = np.full(3, -np.inf)
    parent = np.array([0, 0, 0, 1, 2, 2])
    worth = np.array([*nothing, -np.inf, -np.inf, 1.0])
    for temperature in (0.0, 1.0):
        assert chosen(worth, parent, temperature, np.full(3, 0.99)).tolist() == [0, 3, 5]
    assert chosen(np.array([0.0, np.inf, 0.0, 0, 0, 0]), parent, 1.0, np.zeros(3)).tolist()[0] == 1
