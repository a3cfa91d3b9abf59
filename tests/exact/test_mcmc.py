"""Kernels leave their targets invariant: skewed and slanted ones, whose moments are known.

Each mean and variance is within 5 of its standard errors: a false alarm in some 1e-6 of them, at fixed seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import stats

from anystep import Budget, search
from anystep import keys as lineage
from anystep.bayes import mcmc, simulation_based_calibration
from anystep.bayes.mcmc import HMC, Annealed, Enumerated, Gibbs, ParallelTempering, RandomWalk, Slice, Target
from anystep.errors import ModelError, UsageError
from anystep.run import Run
from anystep.testing import check_process
from anystep.testing.checks_process import own_hook
from anystep.testing.limits import RefusesAt, unlimited
from anystep.testing.runs import merged

SLANT = np.array([[1.0, 0.0], [1.5, 0.5]])  # columns of skewed, independent coordinates: neither symmetric nor diagonal
BACK = torch.tensor(np.linalg.inv(SLANT))


def product(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """matrix @ x, row by row, alike in any batch."""
    return (matrix * x[:, None, :]).sum(-1)


def skewed(x: torch.Tensor) -> torch.Tensor:
    """Two log-exponential coordinates (mean -.5772, variance 1.6449), slanted."""
    u = product(BACK, x)
    return (u - u.exp()).sum(-1)


SKEWED = Target(skewed, 2, name="skewed")
MEAN = SLANT @ np.full(2, -np.euler_gamma)
COVARIANCE = SLANT @ SLANT.T * np.pi**2 / 6
LOWER = np.linalg.cholesky(COVARIANCE)

CENTRE = np.array([1.0, -2.0])
PRIOR_SCALE = np.array([[1.5, 0.0], [0.4, 0.8]])
SEEN, NOISE = np.array([0.3, 0.9]), np.array([[0.7, 0.0], [-0.5, 0.4]])


def normal(centre: np.ndarray, lower: np.ndarray) -> Any:
    """The log density, constant and all, written out for torch."""
    inverse, mean = torch.tensor(np.linalg.inv(lower)), torch.tensor(centre)
    constant = float(np.log(np.diag(lower)).sum() + np.log(2 * np.pi))
    return lambda x: -0.5 * (product(inverse, x - mean) ** 2).sum(-1) - constant


CONJUGATE = Target(normal(CENTRE, PRIOR_SCALE), 2, log_likelihood=normal(SEEN, NOISE), name="conjugate")
EVIDENCE = stats.multivariate_normal(CENTRE, PRIOR_SCALE @ PRIOR_SCALE.T + NOISE @ NOISE.T).logpdf(SEEN)


def prior(keys: Any) -> np.ndarray:
    return CENTRE + (PRIOR_SCALE * lineage.normals(keys, 0, 2)[:, None, :]).sum(-1)  # alike in any batch


KERNELS = {
    "random walk": (RandomWalk(SKEWED, 1.7, LOWER), 60),
    "hmc": (HMC(SKEWED, 0.5, 4, LOWER, jitter=0.3), 10),
    "hmc, unscaled": (HMC(SKEWED, 0.4, 6, jitter=0.3), 20),
    "mala": (mcmc.mala(SKEWED, 1.1, LOWER), 30),
    "slice": (Slice(SKEWED, 2.0, LOWER), 8),
    "slice, narrow and short": (Slice(SKEWED, 0.7, LOWER, most=3), 12),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_skewed_and_slanted_target_stays_invariant(name: str) -> None:
    kernel, thin = KERNELS[name]
    start = (
        np.log(-np.log(lineage.uniforms(lineage.roots(5, (), np.arange(2_000))[:, None], 0, np.arange(2)))) @ SLANT.T
    )
    drawn = mcmc.sample(kernel, 1, mcmc.Walkers.at(start), seed=1, burn=thin - 1)  # from it, some moves on
    x = drawn.flat()
    within(x, MEAN, COVARIANCE)
    far = np.corrcoef(x[:, 1], start[:, 1])[0, 1]
    assert abs(far) < 0.6, f"{name} hardly moved: {far}"


def within(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Independent rows x have this mean and covariance, to 5 standard errors of each entry."""
    n = len(x)
    assert (np.abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(n)).all(), x.mean(0)
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    assert (np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(n)).all(), products.mean(0)


def test_chains_find_the_target_from_afar_with_honest_errors() -> None:
    kernel, walkers, cost = mcmc.warm_up(HMC(SKEWED, 1.0, 5, jitter=0.3), 150, chains=8, scale="dense")
    chains = mcmc.sample(kernel, 250, walkers, seed=3)
    assert (chains.ess() > 400).all() and (chains.rhat() < 1.02).all()
    assert (np.abs(chains.mean() - MEAN) < 5 * chains.mcse()).all()
    assert 0.65 < chains.acceptance.mean() < 0.95 and not chains.divergent.any()
    ratio = scipy.linalg.eigvalsh(kernel.scale.matrix @ kernel.scale.matrix.T, COVARIANCE)
    assert ratio.min() > 0.2 and ratio.max() < 4
    assert cost.evaluations == 8 * (1 + 150 * 5) and chains.cost.evaluations == 8 * 250 * 5


def test_a_langevin_move_is_accepted_by_the_ratio_of_its_normal_proposals() -> None:
    step, covariance = 0.8, LOWER @ LOWER.T
    kernel = mcmc.mala(SKEWED, step, LOWER)
    here = mcmc.Walkers.at(np.array([[-0.4, 0.7], [1.0, 0.2], [-2.0, -3.0]]))
    keys = lineage.roots(4, (), np.arange(3))
    known = kernel.known(here)
    _, info = kernel.move(known, keys)
    velocity = lineage.normals(keys, known.clock, 2)
    there, _ = kernel.leapfrog(known, velocity, np.full((3, 1), step))
    for row in range(3):
        ends = [(w.position[row], w.gradient[row], w.log_density[row]) for w in (known, there)]
        (x, g, p), (y, h, q) = ends
        forth = stats.multivariate_normal(x + step**2 / 2 * covariance @ g, step**2 * covariance).logpdf(y)
        back = stats.multivariate_normal(y + step**2 / 2 * covariance @ h, step**2 * covariance).logpdf(x)
        assert info.acceptance[row] == pytest.approx(min(1, np.exp(q - p + back - forth)), rel=1e-9)


def test_gibbs_draws_its_conditionals() -> None:
    """A normal and a coordinate of three values, whose joint law is written out."""
    values, mass, centre = (0.0, 1.0, 3.0), np.array([0.5, 0.2, 0.3]), np.array([-1.0, 2.0, 0.5])
    log_mass, means = torch.tensor(np.log(mass)), torch.tensor(centre)

    def log_density(x: torch.Tensor) -> torch.Tensor:
        which = (x[:, :1] > torch.tensor([0.5, 2.0])).sum(-1)
        return log_mass[which] - 0.5 * (x[:, 1] - means[which]) ** 2

    target = Target(log_density, 2)

    def update(position: np.ndarray, randomness: mcmc.Randomness) -> np.ndarray:
        which = np.searchsorted([0.5, 2.0], position[:, 0])
        return np.stack([position[:, 0], centre[which] + randomness.normals()[:, 0]], -1)

    kernel = Gibbs(target, [Enumerated(target, 0, values), update], start=np.array([[0.0, 0.0]]))
    drawn = mcmc.sample(kernel, 1, chains=4_000, burn=40).flat()
    counts = [(drawn[:, 0] == value).sum() for value in values]
    assert stats.chisquare(counts, 4_000 * mass).pvalue > 1e-4
    law = [stats.norm(c) for c in centre]
    mixture = stats.kstest(drawn[:, 1], lambda x: sum(m * n.cdf(x) for m, n in zip(mass, law, strict=True)))
    assert mixture.pvalue > 1e-4


def test_tempering_crosses_between_modes_that_its_kernel_does_not() -> None:
    """Two narrow modes in one likelihood, masses .3 and .7: all chains begin in the smaller."""
    prior_log, heats = normal(np.zeros(1), np.array([[3.0]])), (1.0, 0.3, 0.1, 0.02, 0.0)

    def log_likelihood(x: torch.Tensor) -> torch.Tensor:
        both = torch.stack([-12.5 * (x[:, 0] - at) ** 2 + np.log(mass) for at, mass in ((-2.0, 0.3), (2.0, 0.7))])
        return torch.logsumexp(both, 0)

    target = Target(prior_log, 1, log_likelihood=log_likelihood)
    steps = (0.4, 0.8, 1.4, 3.0, 6.0)
    kernels = [RandomWalk(target, step, start=np.array([[-2.0]])) for step in steps]
    chains = mcmc.sample(ParallelTempering(kernels, heats), 1, chains=600, burn=120)
    share = (chains.flat() > 0).mean()  # the prior is even, so the masses stay
    assert abs(share - 0.7) < 5 * np.sqrt(0.21 / 600)
    alone = mcmc.sample(kernels[0], 1, chains=100, burn=120)
    assert (alone.flat() > 0).mean() < 0.05
    assert chains.cost.evaluations == 600 * 5 * (121 + 1)


@pytest.mark.parametrize("method", [search.particle_filter(n=64, ess=0), search.particle_filter(n=64)])
def test_annealing_estimates_the_evidence_without_bias(method: Any) -> None:
    kernel = HMC(CONJUGATE, 0.3, 3)
    process = Annealed(kernel, prior, np.linspace(0, 1, 7) ** 2)
    runs = merged(lambda seed: Run(process, method, seed=seed), range(60))
    ratio = np.exp([one.answer.evidence - EVIDENCE for one in runs if one.answer and one.answer.evidence is not None])
    assert len(ratio) == 60
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio)), ratio.mean()
    assert ratio.std() < 1


CHAIN_PROCESSES = [
    HMC(SKEWED, 0.4, 3, LOWER, jitter=0.2),
    RandomWalk(SKEWED, 1.0),
    Slice(SKEWED, 1.0, most=4),
    ParallelTempering(HMC(CONJUGATE, 0.2, 2), (1.0, 0.4, 0.1)),
    Annealed(HMC(CONJUGATE, 0.2, 2), prior, (0.0, 0.2, 1.0), moves=2),
]


@pytest.mark.parametrize("process", CHAIN_PROCESSES, ids=lambda p: p.name)
def test_kernels_are_processes(process: Any) -> None:
    inner = getattr(process, "kernels", None) or [getattr(process, "kernel", process)]
    check_process(process, own_hook(*{id(k): k for k in inner}.values()))


def test_many_data_sets_at_once_are_calibrated() -> None:
    """Coordinates with scale 0 are held fixed, so each chain has data of its own. Ranks are uniform for the right
    likelihood, at a false alarm of 1e-4, and not for one that takes its noise to be smaller."""

    def posterior(believed: float) -> Any:
        def log_density(x: torch.Tensor) -> torch.Tensor:
            theta, seen = x[:, 0], x[:, 1]
            return theta - theta.exp() - 0.5 * ((seen - theta) / believed) ** 2

        def draw(data: np.ndarray, draws: int, seed: int) -> np.ndarray:
            start = np.stack([data, data], -1)
            kernel = HMC(Target(log_density, 2), 0.4, 4, scale=np.array([1.0, 0.0]), jitter=0.3)
            chains = mcmc.sample(kernel, draws, mcmc.Walkers.at(start), seed=seed, burn=30, thin=4)
            assert np.array_equal(chains.position[:, -1, 1], data)
            return chains.position[:, :, :1]

        return draw

    def drawn(n: int, seed: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(seed))
        return np.log(rng.exponential(size=(n, 1)))

    def simulate(theta: np.ndarray, seed: int) -> np.ndarray:
        return theta[:, 0] + 0.7 * np.random.Generator(np.random.Philox(seed)).normal(size=len(theta))

    right = simulation_based_calibration(drawn, simulate, posterior(0.7), 500, draws=19)
    wrong = simulation_based_calibration(drawn, simulate, posterior(0.35), 500, draws=19)
    assert right.pvalues(bins=10)[0] > 1e-4
    assert wrong.pvalues(bins=10)[0] < 1e-8


def test_a_start_and_the_first_move_draw_from_numbers_of_their_own() -> None:
    """A prior that draws at clock 0, as anyone writes it, with a random walk: 5 standard errors over 20,000 weights."""
    line = Target(
        lambda x: -0.5 * (x[:, 0] ** 2), 1, log_likelihood=lambda x: -0.5 * ((x[:, 0] - 1.5) / 0.4) ** 2, name="line"
    )
    process = Annealed(RandomWalk(line, 1.0), lambda k: lineage.normals(k, 0, 1), (0.0, 0.3, 1.0))
    keys = lineage.roots(0, (), np.arange(20_000))
    reply = process.step(process.start(keys, unlimited()).states, keys, unlimited(), "done")
    weights, exact = np.exp(reply.logw), 0.4 / np.sqrt(1.16) * np.exp(-0.5 * 1.5**2 / 1.16)
    assert abs(weights.mean() - exact) < 5 * weights.std() / np.sqrt(len(keys))
    kernel = RandomWalk(line, 1.0, start=lambda k: lineage.normals(k, 0, 1))
    first = kernel.begin(keys).position[:, 0]
    assert abs(np.corrcoef(first, lineage.normals(keys, 0, 1)[:, 0])[0, 1]) < 5 / np.sqrt(len(keys))


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_a_short_warm_up_finds_a_step_that_moves(size: float) -> None:
    target = Target(lambda x: -0.5 * ((x / size) ** 2).sum(-1), 3)
    kernel, walkers, _ = mcmc.warm_up(HMC(target, 0.5, 5, jitter=0.2), 60, seed=1)
    assert 0.4 < mcmc.sample(kernel, 20, walkers, seed=2).acceptance.mean() < 0.99


def test_a_gibbs_sweep_is_a_lawful_process_and_pays_for_its_batches() -> None:
    target = Target(lambda x: -0.5 * (x**2).sum(-1), 2)
    kernel = Gibbs(target, [lambda x, r: np.concatenate([r.normals(), x[:, 1:]], 1), Enumerated(target, 1, (0.0, 1.0))])
    limit = unlimited()
    keys = lineage.roots(0, (), np.arange(3))
    kernel.step(kernel.start(keys, limit).states, keys, limit, "step")
    assert (limit.used.evaluations, limit.used.calls) == (9, 2)


FLAT = Target(lambda x: 0.0 * x.sum(-1), 1)
TWO_PARTS = Target(lambda x: -0.5 * (x**2).sum(-1), 1, log_likelihood=lambda x: -((x - 1) ** 2).sum(-1))
STILL = Gibbs(TWO_PARTS, [lambda x, r: x])


@pytest.mark.parametrize(
    "call",
    [
        lambda: Target(lambda x: x.sum(-1), 0),
        lambda: RandomWalk(FLAT, 0.0),
        lambda: RandomWalk(FLAT, 1.0, scale=np.eye(2)),
        lambda: HMC(FLAT, 0.1, 0),
        lambda: HMC(FLAT, 0.1, jitter=1.0),
        lambda: Slice(FLAT, 1.0, most=0),
        lambda: Gibbs(FLAT, []),
        lambda: Enumerated(FLAT, 1, (0.0, 1.0)),
        lambda: Enumerated(FLAT, 0, ()),
        lambda: ParallelTempering(RandomWalk(FLAT, 1.0), (1.0, 0.5)),
        lambda: ParallelTempering(STILL, (1.0, 0.5)),
        lambda: ParallelTempering(Slice(TWO_PARTS, 1.0), (1.0, 0.5)),
        lambda: ParallelTempering(RandomWalk(TWO_PARTS, 1.0), (0.5, 1.0)),
        lambda: Annealed(STILL, prior, (0.0, 1.0)),
        lambda: Annealed(ParallelTempering(RandomWalk(TWO_PARTS, 1.0), (1.0, 0.5)), prior, (0.0, 1.0)),
        lambda: Annealed(RandomWalk(TWO_PARTS, 1.0), prior, (0.1, 1.0)),
        lambda: mcmc.sample(RandomWalk(FLAT, 1.0), 10, chains=0),
        lambda: mcmc.sample(RandomWalk(FLAT, 1.0), 10, budget=Budget(evaluations=3)),
        lambda: mcmc.warm_up(RandomWalk(FLAT, 1.0), chains=0),
        lambda: mcmc.warm_up(Slice(FLAT, 1.0)),
        lambda: mcmc.warm_up(RandomWalk(FLAT, 1.0), 20),
    ],
)
def test_what_makes_no_chain_is_refused(call: Any) -> None:
    with pytest.raises(UsageError):
        call()


def test_a_density_that_is_nowhere_is_said_and_not_wandered_in() -> None:
    nowhere = Target(lambda x: torch.full((len(x),), torch.nan, dtype=torch.float64), 1, name="nowhere")
    with pytest.raises(ModelError, match="density is zero"):
        mcmc.sample(RandomWalk(nowhere, 1.0), 5)
    with pytest.raises(ModelError, match="no value of coordinate 0"):
        mcmc.sample(Gibbs(nowhere, [Enumerated(nowhere, 0, (0.0, 1.0))]), 5)
    with pytest.raises(ModelError, match="shape"):
        mcmc.sample(RandomWalk(Target(lambda x: x, 1), 1.0), 5)


def test_a_cut_transition_goes_on_where_it_stood() -> None:
    kernel, keys = Slice(SKEWED, 0.5, most=5), lineage.roots(0, (), np.arange(3))
    start = kernel.start(keys, unlimited()).states
    whole = kernel.step(start, keys, unlimited(), "step")
    part = kernel.step(start, keys, RefusesAt(2), "step")
    assert part.cut is not None and part.cut.all()
    rest = kernel.step(part.states, keys, unlimited(), "step")
    assert np.array_equal(rest.states.position, whole.states.position)
    assert part.cost.evaluations + rest.cost.evaluations == whole.cost.evaluations
