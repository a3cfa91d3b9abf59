"""What users get wrong, and what would have been answered silently wrong: refused in one line, or made right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anystep import UsageError
from anystep.diffusion import DiffusionProcess, NearbyNoise, Noised, Renoise, TimeShiftSampler, on_clean, sample
from anystep.diffusion.denoiser import Network
from anystep.diffusion.guidance import ClassifierFree, OneMoreStep, collect
from anystep.diffusion.masked import MaskedProcess, NetworkPredictor
from anystep.diffusion.masked import sample as unmask
from anystep.diffusion.models import MixtureDenoiser, ring, skewed
from anystep.diffusion.schedules import VE, VP, DiscreteVP, Flow
from anystep.diffusion.solvers import DDIM, PNDM, AdamsBashforth2, DPMpp2M, Heun, PredictorCorrector, Solver
from anystep.diffusion.spacing import Karras, LogSNR, Times
from anystep.keys import roots
from anystep.process import Status
from anystep.testing.limits import unlimited

LINE = MixtureDenoiser([1.0], np.zeros((1, 1)), np.eye(1)[None], name="one number")
FIRST = MixtureDenoiser([1.0], np.zeros((1, 2)), np.eye(2)[None], name="first", schedule=Flow())


class Narrow(nn.Module):
    """Answers one number where two are asked, which would have been spread over both."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.enter(x)
        return out


class Still(nn.Module):
    """A module without weights."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


class Lost(nn.Module):
    """Whose weights have been trained to pieces: no number comes out for rows with a large first entry."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > 0, torch.nan, 0.0) * x


class Logits(nn.Module):
    """The same of any tokens."""

    def __init__(self, symbols: int, value: float = 0.0) -> None:
        super().__init__()
        self.said = nn.Parameter(torch.full((symbols,), value))

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.said.expand(*tokens.shape, -1)


MASKED = MaskedProcess(NetworkPredictor(Logits(3), 4, 3), 2, known=[0, None, 1, None])

WRONG: dict[str, Callable[[], Any]] = {
    "arguments in the wrong order": lambda: DiffusionProcess(DDIM(3), ring()),  # type: ignore[arg-type]
    "half a class": lambda: DiffusionProcess(ring(), DDIM(3), 1.5),  # type: ignore[arg-type]
    "half classes": lambda: sample(ring(), DDIM(3), 2, [0.7, 1.2]),  # type: ignore[list-item]
    "too many classes": lambda: sample(ring(), DDIM(3), 2, [0, 1, 1]),
    "fewer than no samples": lambda: sample(ring(), DDIM(3), -1),
    "times beyond the last": lambda: sample(ring(), DDIM(2, Times((2.0, 0.5, 0.0))), 2),
    "levels beyond the last": lambda: sample(ring(schedule=DiscreteVP.linear()), DPMpp2M(9, Karras(largest=1e4)), 2),
    "levels beyond it, even": lambda: sample(ring(schedule=VP()), DDIM(9, LogSNR(largest=1e6)), 2),
    "no root": lambda: sample(ring(), DDIM(9, Karras(rho=0)), 2),
    "a variance of one number": lambda: sample(LINE, TimeShiftSampler(DDIM(9), 0.1, 0.0), 2),
    "a network of another shape": lambda: sample(Network(Narrow(), Flow(), (2,)), DDIM(3), 4),
    "one more step around shifts": lambda: OneMoreStep(ring(schedule=VP()), FIRST).solver(TimeShiftSampler(DDIM(3))),
    "fewer than no sequences": lambda: unmask(MASKED, -1),
    "too many classes of sequences": lambda: unmask(MASKED, 2, [-1, -1, -1]),
    "tokens that are no symbols": lambda: unmask(MASKED, 1, tokens=torch.tensor([[7, 3, 1, 3]])),
    "tokens that are no integers": lambda: unmask(MASKED, 1, tokens=torch.tensor([[0.0, 3.0, 1.0, 3.0]])),
    "a predictor of another shape": lambda: unmask(MaskedProcess(NetworkPredictor(Logits(4), 4, 3), 2), 2),
    "nothing to collect": lambda: collect(ring(), 1.0, DDIM(3), [0, 1]),
    "no one to collect": lambda: collect(ring(), 2.0, DDIM(3), []),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_told_in_one_line(call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as told:
        call()
    assert "\n" not in str(told.value)


def test_a_network_without_weights_is_a_model() -> None:
    assert torch.isfinite(sample(Network(Still(), Flow(), (2,)), DDIM(3), 4).x).all()


@pytest.mark.parametrize("form", ["state", "network", "target"])
@pytest.mark.parametrize("base", [DDIM(12), Heun(12), PNDM(8, Karras())], ids=repr)
def test_shifted_times_are_refused_where_they_decide_the_price(base: Solver, form: Any) -> None:
    """A step is paid before it is taken, and the time at which its end is shown is only known after it."""
    guided = ClassifierFree(ring(), 3.0, interval=(0.3, 3.0))
    with pytest.raises(UsageError, match="paid"):
        DiffusionProcess(guided, TimeShiftSampler(base, 0.3, 0.0, form=form), 0)
    DiffusionProcess(guided, TimeShiftSampler(base, 0.0, 0.0, form=form), 0)
    DiffusionProcess(ClassifierFree(ring(), 3.0), TimeShiftSampler(base, 0.3, 0.0, form=form), 0)


@pytest.mark.parametrize("base", [DPMpp2M(100), PredictorCorrector(100), AdamsBashforth2(100)], ids=repr)
def test_a_shifted_point_does_not_pass_the_one_before_it(base: Solver) -> None:
    """A window wider than a step could set it there exactly, where multistep solvers divide by nothing."""
    x = sample(ring(), TimeShiftSampler(base, 0.04, 0.0), 5).x
    assert torch.isfinite(x).all() and x.abs().max() < 10


def test_a_start_on_a_flow_is_renoised_to_noise() -> None:
    process = DiffusionProcess(ring(), DDIM(4, eta=1.0))
    keys = roots(0, (), np.arange(400))
    old: Noised = process.start(keys, unlimited()).states
    new = Renoise(process, 1).step(old, keys, unlimited(), "step").states
    assert torch.isfinite(new.x).all() and abs(float(new.x.std()) - 1.0) < 0.1


def test_a_shifted_state_is_renoised_from_the_level_at_which_it_stands() -> None:
    process = DiffusionProcess(ring(), TimeShiftSampler(DDIM(6, eta=1.0), 0.2, 0.0))
    keys, limit = roots(0, (), np.arange(2000)), unlimited()
    states = process.start(keys, limit).states
    for _ in range(3):
        states = process.step(states, keys, limit, "step").states
    assert (states.time != process.grid[3]).any()
    new = Renoise(process, 1).step(states, roots(1, (), np.arange(2000)), limit, "step").states
    level, left = 1 - process.grid[2], (1 - process.grid[2]) / (1 - states.time)
    added = np.sqrt(np.maximum(process.grid[2] ** 2 - (left * states.time) ** 2, 0.0))
    gone = (new.x.numpy() - left[:, None] * states.x.numpy()) / np.where(added > 0, added, np.inf)[:, None]
    assert level > 0 and abs(gone[added > 0.05].std() - 1.0) < 0.06


def test_what_is_not_predicted_yet_has_no_value() -> None:
    process, keys = DiffusionProcess(ring(), DDIM(4)), roots(0, (), np.arange(3))
    states = process.start(keys, unlimited()).states
    near = NearbyNoise(process).step(states, keys, unlimited(), "step").states
    bright = on_clean(lambda x: x.sum(1), "bright", (-9.0, 9.0))
    assert np.isnan(bright(near, unlimited()).values).all()
    assert np.isfinite(bright(states, unlimited()).values).all()


@pytest.mark.parametrize("function", [lambda x: 0.5, lambda x: x], ids=["one for all", "several a row"])
def test_a_reward_is_a_number_a_row(function: Any) -> None:
    process = DiffusionProcess(ring(), DDIM(4))
    states = process.start(roots(0, (), np.arange(3)), unlimited()).states
    with pytest.raises(UsageError, match="one number a row"):
        on_clean(function, "wrong")(states, unlimited())


def test_a_reward_may_be_a_network_that_keeps_gradients() -> None:
    process = DiffusionProcess(ring(), DDIM(4))
    states = process.start(roots(0, (), np.arange(3)), unlimited()).states
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = on_clean(lambda x: (x * weight).sum(1), "graph")(states, unlimited())
    assert np.isfinite(found.values).all()


def test_rows_that_are_no_numbers_fail_and_the_others_do_not() -> None:
    process, keys = DiffusionProcess(Network(Lost(), Flow(), (2,)), DDIM(3)), roots(0, (), np.arange(20))
    reply = process.step(process.start(keys, unlimited()).states, keys, unlimited(), "done")
    fine = np.isfinite(reply.states.x.numpy()).all(1)
    assert (fine == (reply.status == Status.DONE)).all() and 0 < fine.sum() < 20
    assert set(reply.errors) == set(np.flatnonzero(~fine).tolist()) and (reply.status[~fine] == Status.FAILED).all()


def test_predictions_that_are_no_numbers_are_not_symbol_0() -> None:
    process, keys = MaskedProcess(NetworkPredictor(Logits(3, np.nan), 4, 3), 2), roots(0, (), np.arange(3))
    reply = process.step(process.start(keys, unlimited()).states, keys, unlimited(), "done")
    assert (reply.status == Status.FAILED).all() and len(reply.errors) == 3


def test_models_of_one_name_with_other_weights_have_other_settings() -> None:
    """A journal or a pool must not take one for the other."""
    torch.manual_seed(0)
    one, other = (Network(torch.nn.Linear(2, 2), Flow(), (2,), name="mine") for _ in range(2))
    assert one.settings() == one.settings() != other.settings()
    assert skewed().settings() == skewed().settings() != skewed(VE()).settings()
