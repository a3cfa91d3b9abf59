"""Every solver and every guidance makes a process that keeps the laws of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from torch import Tensor

from anystep import UsageError
from anystep.diffusion import VE, VP, DiffusionProcess, Flow, Karras, Schedule, sample
from anystep.diffusion.guidance import ClassifierFree, ClassifierGuided, DiffIER, OneMoreStep, RatioAware
from anystep.diffusion.models import MixtureClassifier, skewed
from anystep.diffusion.solvers import (
    DDIM,
    DDPM,
    PNDM,
    AdamsBashforth2,
    DPMpp2M,
    Euler,
    Heun,
    Midpoint,
    Solver,
    TimeShiftSampler,
    few_step,
)
from anystep.testing import Work, check_process, counted

SOLVERS: list[Solver] = [
    Euler(4),
    Heun(4),
    Midpoint(4),
    DDIM(4),
    DDPM(4),
    DDIM(3, eta=0.5),
    DPMpp2M(4),
    AdamsBashforth2(4),
    few_step(5),
    PNDM(5, Karras()),
    TimeShiftSampler(DDPM(4), window=0.1, cutoff=0.2),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_solver_makes_a_lawful_process(solver: Solver) -> None:
    check_process(DiffusionProcess(skewed(), solver))


@pytest.mark.parametrize("schedule", [Flow(), VE(), VP()], ids=repr)
def test_a_guided_model_makes_a_lawful_process(schedule: Schedule) -> None:
    guided = ClassifierFree(skewed(schedule), 3.0, interval=(0.1, 5.0))
    check_process(DiffusionProcess(guided, Heun(4, Karras()), condition=1))


def test_a_ratio_aware_model_makes_a_lawful_process() -> None:
    check_process(DiffusionProcess(RatioAware(skewed(), 4.0, 2.0), DDIM(4), condition=1))


@contextmanager
def paid(*owners: Any) -> Iterator[Work]:
    """Counts rows where they are computed; those whose gradient is taken three times, and their calls as well."""
    calls = Work()

    def rows(x: Tensor, *rest: Any) -> int:
        calls.calls += 2 * x.requires_grad
        return len(x) * (3 if x.requires_grad else 1)

    with counted(*owners, rows=rows) as seen:
        total = Work()
        yield total
        total.evaluations, total.calls = seen.evaluations, seen.calls + calls.calls


@pytest.mark.parametrize("through", ["state", "clean"])
def test_a_model_guided_by_a_classifier_makes_a_lawful_process(through: Literal["state", "clean"]) -> None:
    model = skewed(VP())
    classifier = MixtureClassifier(model)
    guided = ClassifierGuided(model, classifier, 2.0, through, interval=(0.1, 5.0))
    check_process(DiffusionProcess(guided, DDIM(4), condition=1), hook=lambda: paid(model, classifier))


def test_iterative_error_reduction_makes_a_lawful_process() -> None:
    model = skewed()
    process = DiffusionProcess(ClassifierFree(model, 3.0), DiffIER(3), condition=1)
    check_process(process, hook=lambda: paid(model))


def test_one_more_step_makes_a_lawful_process() -> None:
    model, first = skewed(VP(beta_max=4.0)), skewed()
    more = OneMoreStep(ClassifierFree(model, 2.0), first)
    check_process(DiffusionProcess(more, more.solver(DDIM(3)), condition=1), hook=lambda: counted(model, first))


def test_scale_one_is_the_conditional_model() -> None:
    plain, guided = skewed(), ClassifierFree(skewed(), 1.0)
    one, other = (sample(m, DDIM(5), 8, condition=1) for m in (plain, guided))
    assert one.x.equal(other.x) and one.cost == other.cost


@pytest.mark.parametrize("condition", [2, -1])
def test_an_unknown_class_is_refused(condition: int) -> None:
    with pytest.raises(UsageError, match="0 to 1"):
        DiffusionProcess(skewed(), DDIM(5), condition=condition)
