"""The truncation-tuned sampler: predicted step errors are those of real steps, and tuning brings samples nearer."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import UsageError
from anystep.diffusion import (
    VE,
    VP,
    DiffusionProcess,
    EarlyStop,
    Flow,
    Karras,
    Schedule,
    sample,
    truncation_tuned_sampler,
)
from anystep.diffusion.models import skewed
from anystep.diffusion.solvers import DPMpp2M, Heun, Solver
from anystep.diffusion.truncation_tuned import local_errors, measured_error, pilot, predicted_error
from anystep.experiments.truncation_tuned_sampler import step_errors
from anystep.testing import check_process


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("schedule", [Flow(), VP(), VE(20.0)], ids=repr)
def test_predicted_errors_are_those_of_real_steps(schedule: Schedule, order: int) -> None:
    """On fresh noise the solver itself, started at the exact point with the exact past, errs as the pilot foretold."""
    predicted, measured = step_errors(skewed(schedule), EarlyStop(0.1, 1.2), 10, order, rows=64)
    assert np.corrcoef(predicted, measured)[0, 1] >= 0.9


def test_a_grid_without_steps_to_take_has_only_the_stop_s_error() -> None:
    found = pilot(skewed(), rows=8, steps=32)
    grid = EarlyStop(0.3).grid(Flow(), 1)
    assert len(local_errors(found, grid, 1)) == 1


@pytest.mark.parametrize("schedule", [Flow(), VP(), VE(20.0)], ids=repr)
def test_the_grid_stops_early_and_then_takes_the_prediction(schedule: Schedule) -> None:
    grid = EarlyStop(0.2, 1.5).grid(schedule, 6)
    assert len(grid) == 7 and grid[0] == schedule.last and grid[-1] == 0.0 and (np.diff(grid) < 0).all()
    assert schedule.ratio(grid[-2]) == pytest.approx(0.2)


def test_tuning_brings_samples_nearer() -> None:
    model = skewed()
    truth = sample(model, Heun(96), 64, seed=5).x

    def error(solver: Solver) -> float:
        return float((sample(model, solver, 64, seed=5).x - truth).pow(2).mean().sqrt())

    tuned = truncation_tuned_sampler(model, 8, rows=32)
    assert tuned.steps == 8 and error(tuned) < 0.3 * error(DPMpp2M(8, Karras()))
    check_process(DiffusionProcess(model, tuned))


def test_the_grid_that_is_predicted_worst_is_worst() -> None:
    model = skewed()
    found = pilot(model, rows=32)
    solvers = [DPMpp2M(8, EarlyStop(stop, power)) for stop in (0.02, 0.1) for power in (1.0, 2.0, 7.0)]
    predicted = [predicted_error(found, s.grid(Flow()), 2) for s in solvers]
    measured = [measured_error(model, found, s) for s in solvers]
    assert np.argmax(predicted) == np.argmax(measured) == 2


def test_one_step_has_no_grid() -> None:
    with pytest.raises(UsageError, match="2 or more"):
        truncation_tuned_sampler(skewed(), 1)
