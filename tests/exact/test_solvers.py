"""Solvers against closed forms: orders of convergence, levels, counts and the laws of those that draw noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep import UsageError, search
from anystep import keys as lineage
from anystep.diffusion import (
    VE,
    VP,
    DiffusionProcess,
    DiscreteVP,
    Flow,
    FlowTime,
    Karras,
    LogSNR,
    Schedule,
    Spacing,
    Uniform,
    few_step,
    on_clean,
    sample,
)
from anystep.diffusion.guidance import ClassifierFree
from anystep.diffusion.models import MixtureDenoiser, ring, skewed
from anystep.diffusion.solvers import (
    DDIM,
    DDPM,
    PNDM,
    AdamsBashforth2,
    DPMpp2M,
    Euler,
    Heun,
    Midpoint,
    PredictorCorrector,
    Solver,
)
from anystep.diffusion.solvers.predictor_corrector import weights
from anystep.run import Run

Make = Callable[[int, Spacing], Solver]


def gaussian(schedule: Schedule) -> MixtureDenoiser:
    """One tilted, off-centre component: its probability-flow map is linear and known."""
    return MixtureDenoiser([1.0], [[0.7, -0.4]], [[[0.5, 0.3], [0.3, 0.8]]], schedule)


def carried(model: MixtureDenoiser, x: Tensor, t: float, to: float) -> Tensor:
    """Where the probability-flow ODE of a single Gaussian takes x from time t: the same quantiles of the law then."""
    covariance, mean = model.covariances[0], model.means[0]
    spread, axes = np.linalg.eigh(covariance)
    a, s = (float(f(t)) for f in (model.schedule.alpha, model.schedule.sigma))
    b, r = (float(f(to)) for f in (model.schedule.alpha, model.schedule.sigma))
    z = (x.numpy() - a * mean) @ axes / np.sqrt(a**2 * spread + s**2)
    return torch.from_numpy(b * mean + (z * np.sqrt(b**2 * spread + r**2)) @ axes.T)


def begun(model: MixtureDenoiser, solver: Solver, n: int) -> Tensor:
    process = DiffusionProcess(model, solver)
    return process.noise(lineage.roots(0, (), np.arange(n)), np.full(n, -1)).x


def error(model: MixtureDenoiser, solver: Solver, n: int = 24) -> float:
    exact = carried(model, begun(model, solver, n), float(solver.grid(model.schedule)[0]), 0.0)
    return float((sample(model, solver, n).x - exact).pow(2).mean().sqrt())


def order(errors: list[float]) -> float:
    return float(np.log2(errors[0] / errors[-1]) / (len(errors) - 1))


SECOND: list[tuple[Make, Schedule, Spacing]] = [
    (Heun, Flow(), Uniform()),
    (Heun, VP(), Uniform()),
    (Heun, VE(10.0), LogSNR(0.02)),
    (Midpoint, Flow(), Uniform()),
    (Midpoint, VP(), Uniform()),
    (Midpoint, VE(10.0), LogSNR(1e-3)),
    (AdamsBashforth2, Flow(), Uniform()),
    (AdamsBashforth2, VP(), Uniform()),
    (AdamsBashforth2, VE(10.0), LogSNR(1e-3)),
    (DPMpp2M, Flow(), LogSNR(1e-3)),
    (DPMpp2M, VP(), LogSNR(1e-3)),
    (DPMpp2M, VE(10.0), LogSNR(1e-3)),
    (PredictorCorrector, Flow(), FlowTime(0.7)),
    (PredictorCorrector, VP(), FlowTime(0.7)),
    (PredictorCorrector, VE(10.0), FlowTime(0.7)),
]


@pytest.mark.parametrize(("make", "schedule", "spacing"), SECOND)
def test_second_order(make: Make, schedule: Schedule, spacing: Spacing) -> None:
    model = gaussian(schedule)
    assert order([error(model, make(n, spacing)) for n in (32, 64, 128)]) >= 1.9


@pytest.mark.parametrize("make", [Euler, DDIM])
@pytest.mark.parametrize(
    ("schedule", "spacing"), [(Flow(), Uniform()), (VP(), Uniform()), (VE(10.0), LogSNR(1e-4)), (Flow(), LogSNR(1e-4))]
)
def test_first_order(make: Make, schedule: Schedule, spacing: Spacing) -> None:
    model = gaussian(schedule)
    assert 0.9 <= order([error(model, make(n, spacing)) for n in (32, 64, 128)]) <= 1.1


@pytest.mark.parametrize("make", [Heun, Midpoint, AdamsBashforth2])
def test_second_order_on_a_skewed_mixture(make: Make) -> None:
    """What holds on one Gaussian holds where the map is not linear: halving the steps quarters what changes."""
    made = [sample(skewed(), make(n, Uniform()), 16).x for n in (48, 96, 192)]
    changes = [float((one - other).pow(2).mean().sqrt()) for one, other in zip(made, made[1:], strict=False)]
    assert order(changes) >= 1.9


@pytest.mark.parametrize("make", [DPMpp2M, PredictorCorrector])
def test_what_reads_noise_levels_alone_is_the_same_on_every_schedule(make: Make) -> None:
    """From the same noise, by the same levels sigma / alpha, VP, VE and flow samples are equal to rounding."""
    spacing, schedules = LogSNR(0.01, largest=50.0), (Flow(), VE(60.0), VP())
    levels = [s.ratio(spacing.grid(s, 12)) for s in schedules]
    assert all(np.allclose(levels[0], other, rtol=1e-9) for other in levels[1:])
    made = [sample(skewed(s), make(12, spacing), 16).x for s in schedules]
    assert all(torch.allclose(made[0], other, atol=1e-9) for other in made[1:])


def test_weights_integrate_polynomials_exactly() -> None:
    now, then, at = np.array([0.9]), np.array([0.15]), np.array([[0.9, 0.95, 0.98, 1.0]])
    for nodes in (1, 2, 3, 4):
        w = weights(now, then, at, np.array([nodes]))[0]
        assert (w[nodes:] == 0).all()
        for power in range(nodes):  # u^power d(1 / u)
            exact = [1 / 0.15 - 1 / 0.9, np.log(0.9 / 0.15), 0.9 - 0.15, (0.9**2 - 0.15**2) / 2][power]
            assert (w * at[0] ** power).sum() == pytest.approx(exact, rel=1e-7)


def test_weights_of_a_row_do_not_depend_on_its_company() -> None:
    rng = np.random.default_rng(0)
    now, nodes = rng.uniform(0.5, 0.9, 6), np.array([1, 2, 3, 4, 2, 3])
    at = now[:, None] + rng.uniform(0.01, 0.02, (6, 4)).cumsum(1)
    together = weights(now, now / 2, at, nodes)
    for i in range(6):
        assert (together[i] == weights(now[[i]], now[[i]] / 2, at[[i]], nodes[[i]])[0]).all()


def test_first_order_without_mending_is_ddim() -> None:
    one, other = (sample(skewed(VP()), s, 32).x for s in (PredictorCorrector(9, order=1, corrects=False), DDIM(9)))
    assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize(("steps", "bound"), [(8, 0.10), (16, 0.04)])
def test_the_default_for_few_steps_meets_its_gate(steps: int, bound: float) -> None:
    """Root mean square distance to the reference ODE from the same noise, on the eight modes."""
    model = ring()
    gap = sample(model, few_step(steps), 128).x - sample(model, Midpoint(128, FlowTime()), 128).x
    assert float(gap.pow(2).sum(-1).mean().sqrt()) <= bound


def test_pndm_is_of_second_order_before_its_last_step() -> None:
    """Half-way, before DDIM's last step to no noise, it is of second order, as its paper says."""
    model, errors = gaussian(VP()), []
    for n in (64, 128, 256):
        process = DiffusionProcess(model, PNDM(n))
        keys = lineage.roots(0, (), np.arange(24))
        states = process.predicted(process.noise(keys, np.full(24, -1)))
        exact = carried(model, states.x, 1.0, 0.5)
        for _ in range(n // 2):
            states = process.advance(states, keys).states
        errors.append(float((states.x - exact).pow(2).mean().sqrt()))
    assert order(errors) >= 1.9


def test_euler_is_ddim_where_the_signal_is_not_scaled() -> None:
    one, other = (sample(skewed(VE(20.0)), make(20, Karras()), 64).x for make in (Euler, DDIM))
    assert float((one - other).abs().max()) <= 1e-10


@pytest.mark.parametrize("schedule", [Flow(), VE(10.0), VP(), DiscreteVP.linear(), DiscreteVP.cosine()], ids=repr)
def test_levels_are_the_integral_of_the_rates(schedule: Schedule) -> None:
    # Slices of an eighth of a thousandth, away from 0 where VP's sigma starts like a square root.
    times = np.linspace(0.05 * schedule.last, schedule.last, 950 * 8 + 1)
    slice_, middle = times[1] - times[0], (times[1:] + times[:-1]) / 2
    for values, rate in zip((schedule.alpha, schedule.sigma), schedule.rates(middle), strict=True):
        walked = values(times[0]) + np.concatenate([[0.0], np.cumsum(rate * slice_)])
        assert np.abs(walked - values(times)).max() <= 1e-4


@pytest.mark.parametrize(
    "schedule",
    [Flow(), VE(10.0), VP(), DiscreteVP.linear(), DiscreteVP.scaled_linear(), DiscreteVP.cosine()],
    ids=repr,
)
def test_a_level_tells_its_time_and_the_end_is_clean(schedule: Schedule) -> None:
    times = np.linspace(0.0, schedule.last, 200)[1:-1]
    assert np.allclose(schedule.time(schedule.ratio(times)), times, rtol=1e-9, atol=1e-12)
    assert schedule.sigma(0.0) == 0.0 and schedule.alpha(0.0) == 1.0


@pytest.mark.parametrize("spacing", [Uniform(), Uniform(3.0), Karras(), LogSNR(), FlowTime(0.7)], ids=repr)
@pytest.mark.parametrize("schedule", [Flow(), VE(10.0), VP(), DiscreteVP.linear()], ids=repr)
def test_a_grid_descends_and_its_last_level_is_exactly_clean(schedule: Schedule, spacing: Spacing) -> None:
    for steps in (1, 2, 7, 50):
        grid = spacing.grid(schedule, steps)
        assert len(grid) == steps + 1 and (np.diff(grid) < 0).all()
        assert grid[-1] == 0.0 and schedule.sigma(grid[-1]) == 0.0


def test_log_snr_steps_are_equal() -> None:
    for schedule in (Flow(), VE(10.0), VP()):
        levels = np.log(schedule.ratio(LogSNR(0.01).grid(schedule, 9)[:-1]))
        assert np.allclose(np.diff(levels), np.diff(levels)[0], rtol=1e-6)


def test_flow_time_is_a_shifted_flow_on_every_schedule() -> None:
    assert np.allclose(FlowTime(0.7).grid(Flow(), 9), Uniform(0.7).grid(Flow(), 9), atol=1e-15)
    levels = FlowTime(0.7).grid(VE(80.0), 9)
    assert np.allclose(np.diff(levels / (0.7 + levels), 2), 0.0, atol=1e-12)


def test_a_shift_is_applied_once() -> None:
    grid = Uniform(shift=3.0).grid(Flow(), 1000)
    t = np.linspace(1, 0, 1001)
    assert np.abs(grid - 3 * t / (1 + 2 * t)).max() <= 1e-15
    assert abs(grid[-2] - 0.0030) < 1e-4  # twice would leave .0089


def test_the_model_is_asked_at_the_levels_of_the_grid() -> None:
    asked: list[float] = []

    class Noting(MixtureDenoiser):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            asked.extend(set(t.tolist()))
            return super().forward(x, t, condition)

    plain = skewed(VP())
    model = Noting(plain.weights, plain.means, plain.covariances, VP())
    solver = DPMpp2M(7, Karras())
    sample(model, solver, 3)
    grid = Karras().grid(VP(), 7)
    assert np.abs(VP().sigma(np.array(asked)) - VP().sigma(grid[:-1])).max() <= 1e-4


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine"])
def test_discrete_betas_at_their_steps(kind: str) -> None:
    schedule = getattr(DiscreteVP, kind)()
    left = np.cumprod(1 - np.array(schedule.betas))
    times = (np.arange(1000) + 1) / 1000
    assert np.allclose(schedule.alpha(times) ** 2, left, rtol=1e-12)
    assert np.allclose(schedule.index(times), np.arange(1000))
    assert schedule.index(0.0) == 0.0 and schedule.index(0.5005) == pytest.approx(499.5)


def test_the_linear_betas_tend_to_the_continuous_path() -> None:
    times = np.linspace(0, 1, 11)
    assert np.abs(DiscreteVP.linear().alpha(times) - VP().alpha(times)).max() < 2e-3


COUNTS: list[tuple[Solver, int]] = [
    (Euler(8), 8),
    (DDIM(8), 8),
    (DDPM(8), 8),
    (DPMpp2M(8), 8),
    (AdamsBashforth2(8), 8),
    (few_step(8), 8),
    (Heun(8), 15),
    (Midpoint(8), 16),
    (PNDM(8), 17),
]


@pytest.mark.parametrize(("solver", "each"), COUNTS, ids=lambda v: repr(v))
def test_counted_evaluations_are_model_calls(solver: Solver, each: int) -> None:
    """Solver by guidance by search: what the ledger says is what the model was asked."""
    rows: list[int] = []

    class Counting(MixtureDenoiser):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            rows.append(len(x))
            return super().forward(x, t, condition)

    plain = skewed(VP())
    model = Counting(plain.weights, plain.means, plain.covariances, VP(), plain.labels)
    assert sample(model, solver, 5).cost.evaluations == sum(rows) == 5 * each
    right = on_clean(lambda clean: clean[:, 0].sigmoid(), "right")
    for guided, factor in ((model, 1), (ClassifierFree(model, 3.0), 2)):
        methods = [search.best_of_n(n=4, reward=right)]
        if solver.random:
            methods.append(search.particle_filter(n=4, potential=right.log_odds()))
        for method in methods:
            rows.clear()
            run = Run(DiffusionProcess(guided, solver, condition=1), method, seed=1)
            while run.calls:
                run.tell([call.perform() for call in run.calls])
            assert run.spent.evaluations == sum(rows) == 4 * each * factor


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_law_of_noisy_steps_is_the_one_that_linear_algebra_gives(eta: float) -> None:
    """On a Gaussian each step is linear: mean and variance of the sample are known at any number of steps. Over 5,000
    samples, 5 standard errors, six figures."""
    mean, variance, steps, n = 0.6, 0.3, 6, 5_000
    model = MixtureDenoiser([1.0], [[mean]], [[[variance]]], VP())
    solver = DDIM(steps, eta=eta)
    grid = solver.grid(VP())
    alpha, sigma = VP().alpha(grid), VP().sigma(grid)
    m, v = 0.0, sigma[0] ** 2
    for i in range(steps):
        pull = alpha[i] * variance / (alpha[i] ** 2 * variance + sigma[i] ** 2)  # clean = mean + pull (x - alpha mean)
        kept = (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2
        added = eta * sigma[i + 1] * np.sqrt(1 - kept)
        left = np.sqrt(sigma[i + 1] ** 2 - added**2)
        slope = alpha[i + 1] * pull + left * (1 - alpha[i] * pull) / sigma[i]
        constant = (1 - alpha[i] * pull) * mean
        m = slope * m + alpha[i + 1] * constant - left * alpha[i] * constant / sigma[i]
        v = slope**2 * v + added**2
    x = sample(model, solver, n).x[:, 0].numpy()
    assert abs(x.mean() - m) < 5 * np.sqrt(v / n)
    assert abs(x.var() - v) < 5 * v * np.sqrt(2 / n)


def test_ddpm_is_ddim_with_all_its_noise() -> None:
    assert sample(skewed(), DDPM(6), 8).x.equal(sample(skewed(), DDIM(6, eta=1.0), 8).x)


def test_pndm_says_what_it_needs() -> None:
    with pytest.raises(UsageError, match=r"PNDM\(steps=10\)"):
        PNDM(3)
    with pytest.raises(UsageError, match="AdamsBashforth2"):
        DiffusionProcess(skewed(), PNDM(8))
