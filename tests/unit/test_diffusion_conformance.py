"""Every solver and every guidance makes a process that keeps the laws of processes."""

from __future__ import annotations

import pytest

from anystep import UsageError
from anystep.diffusion import VE, VP, DiffusionProcess, Flow, Karras, Schedule, sample
from anystep.diffusion.guidance import ClassifierFree
from anystep.diffusion.models import skewed
from anystep.diffusion.solvers import DDIM, DDPM, PNDM, AdamsBashforth2, DPMpp2M, Euler, Heun, Midpoint, Solver
from anystep.testing import check_process

SOLVERS: list[Solver] = [
    Euler(4),
    Heun(4),
    Midpoint(4),
    DDIM(4),
    DDPM(4),
    DDIM(3, eta=0.5),
    DPMpp2M(4),
    AdamsBashforth2(4),
    PNDM(5, Karras()),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_solver_makes_a_lawful_process(solver: Solver) -> None:
    check_process(DiffusionProcess(skewed(), solver))


@pytest.mark.parametrize("schedule", [Flow(), VE(), VP()], ids=repr)
def test_a_guided_model_makes_a_lawful_process(schedule: Schedule) -> None:
    guided = ClassifierFree(skewed(schedule), 3.0, interval=(0.1, 5.0))
    check_process(DiffusionProcess(guided, Heun(4, Karras()), condition=1))


def test_scale_one_is_the_conditional_model() -> None:
    plain, guided = skewed(), ClassifierFree(skewed(), 1.0)
    one, other = (sample(m, DDIM(5), 8, condition=1) for m in (plain, guided))
    assert one.x.equal(other.x) and one.cost == other.cost


@pytest.mark.parametrize("condition", [2, -1])
def test_an_unknown_class_is_refused(condition: int) -> None:
    with pytest.raises(UsageError, match="0 to 1"):
        DiffusionProcess(skewed(), DDIM(5), condition=condition)
