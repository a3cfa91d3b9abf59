"""Guidance against closed forms: what each scale means, and what is told to the ledger."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anystep import UsageError
from anystep.diffusion import NULL, VE, VP, Flow, Schedule, sample
from anystep.diffusion.classifier import NetworkClassifier
from anystep.diffusion.guidance import ClassifierFree, ClassifierGuided, RatioAware
from anystep.diffusion.models import MixtureClassifier, MixtureDenoiser, digits, digits_classifier, skewed
from anystep.diffusion.solvers import DDIM, Euler

SCHEDULES = [Flow(), VE(), VP()]
LEVELS = (0.05, 0.5, 2.0, 20.0)


def points(schedule: Schedule, level: float, n: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy things of the mixture at one noise level, of both classes."""
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal((n, 2)))
    t = torch.full((n,), float(schedule.time(level)), dtype=torch.float64)
    alpha, sigma = (float(f(t[0].item())) for f in (schedule.alpha, schedule.sigma))
    return alpha * skewed().draw(n, 5) + sigma * noise, t, torch.arange(n) % 2


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("level", LEVELS)
def test_an_exact_classifier_at_scale_one_gives_the_conditional_score(schedule: Schedule, level: float) -> None:
    model = skewed(schedule)
    x, t, c = points(schedule, level)
    guided = ClassifierGuided(model, MixtureClassifier(model), 1.0)
    assert torch.allclose(guided(x, t, c), model(x, t, c), atol=1e-9)
    # Each unit of scale moves as far, and classifier-free guidance moves there too.
    for scale in (0.0, 2.5):
        by_gradient = ClassifierGuided(model, MixtureClassifier(model), scale)(x, t, c)
        assert torch.allclose(by_gradient, ClassifierFree(model, scale)(x, t, c), atol=1e-8)


def test_without_signal_the_classifier_is_asked_where_a_little_is_left() -> None:
    model = skewed(Flow())
    x, c = torch.from_numpy(np.random.default_rng(0).standard_normal((32, 2))), torch.arange(32) % 2
    t = torch.ones(32, dtype=torch.float64)
    guided = ClassifierGuided(model, MixtureClassifier(model), 1.0)(x, t, c)
    assert (guided - model(x, t, c)).abs().max() < 0.02
    assert (model(x, t, c) - model(x, t, torch.full_like(c, NULL))).abs().max() > 0.5


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_through_the_denoiser_is_the_chain_rule_and_biased_by_the_noise(schedule: Schedule) -> None:
    model = skewed(schedule)
    classifier = MixtureClassifier(model)
    gaps = []
    for level in (0.02, 0.1, 0.5):
        x, t, c = points(schedule, level)
        guided = ClassifierGuided(model, classifier, 1.0, through="clean")(x, t, c)
        free = torch.full_like(c, NULL)

        def logs(x: Tensor) -> Tensor:
            clean = model(x, t, free)  # noqa: B023
            return classifier(clean, torch.zeros_like(t))[torch.arange(len(x)), c]  # noqa: B023

        step, slopes = 1e-5 * float(schedule.sigma(t[0].item())), []
        for axis in torch.eye(2, dtype=torch.float64):
            slopes.append((logs(x + step * axis) - logs(x - step * axis)) / (2 * step))
        alpha, sigma = (float(f(t[0].item())) for f in (schedule.alpha, schedule.sigma))
        assert torch.allclose(guided, model(x, t, free) + sigma**2 / alpha * torch.stack(slopes, -1), atol=1e-5)
        gaps.append(float((guided - model(x, t, c)).abs().mean()))
    assert gaps[0] < gaps[1] < gaps[2] and gaps[0] < 1e-3 < gaps[2]


def test_a_row_without_a_class_is_not_guided() -> None:
    model = skewed()
    x, t, c = points(Flow(), 1.0)
    c = torch.where(torch.arange(len(c)) < 7, NULL, c)
    guided = ClassifierGuided(model, MixtureClassifier(model), 3.0)(x, t, c)
    free = model(x, t, torch.full_like(c, NULL))
    assert guided[:7].equal(free[:7]) and (guided[7:] - free[7:]).abs().max() > 0.1


def test_guidance_outside_its_interval_is_the_model() -> None:
    model = skewed()
    x, t, c = points(Flow(), 2.0)
    low = ClassifierGuided(model, MixtureClassifier(model), 3.0, interval=(0.0, 1.0))
    assert low(x, t, c).equal(model(x, t, torch.full_like(c, NULL)))
    assert low.evaluations(t.numpy()).tolist() == [1] * len(x) and low.calls(t.numpy()) == 1


@pytest.mark.parametrize(("through", "rows"), [("state", 4), ("clean", 6)])
def test_a_gradient_counts_as_three_rows(through: str, rows: int) -> None:
    model = skewed()
    guided = ClassifierGuided(model, MixtureClassifier(model), 2.0, through=through)  # type: ignore[arg-type]
    assert sample(guided, Euler(5), 3, condition=1).cost.evaluations == 3 * 5 * rows


def test_guided_things_can_be_guided_again() -> None:
    """The gradient of a guided model is that of what it computes: guidance stacks, and so does what is paid for it."""
    model = skewed()
    inner = ClassifierGuided(model, MixtureClassifier(model), 1.0)
    conditional = ClassifierGuided(inner, MixtureClassifier(model), 1.0, through="clean")
    x, t, c = points(Flow(), 0.5)
    free = model(x, t, torch.full_like(c, NULL))
    assert torch.allclose(inner(x, t, torch.full_like(c, NULL)), free, atol=1e-12)
    plain = ClassifierGuided(model, MixtureClassifier(model), 1.0, through="clean")
    assert torch.allclose(conditional(x, t, c), plain(x, t, c), atol=1e-9)
    assert conditional.evaluations(t.numpy())[0] == 3 * 4 + 3


class Corner(nn.Module):
    """Two classes by the sign of the first number, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        out: Tensor = self.line(x.float())
        return out if t is None else out / (1 + t[:, None])


@pytest.mark.parametrize("timed", [False, True])
def test_a_network_classifier_pads_and_gives_log_probabilities(timed: bool) -> None:
    classifier = NetworkClassifier(Corner(), 2, timed=timed)
    x, t = torch.from_numpy(np.random.default_rng(1).standard_normal((20, 2))).float(), torch.full((20,), 0.5)
    logs = classifier(x, t)
    assert torch.allclose(logs.exp().sum(1), torch.ones(20))
    assert classifier(x[3:4], t[3:4]).equal(logs[3:4])
    assert not timed or not classifier(x, 2 * t).equal(logs)


@pytest.mark.parametrize("wrong", [{"scale": np.inf}, {"interval": (2.0, 1.0)}, {"through": "noise"}])
def test_a_guidance_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="call ClassifierGuided"):
        ClassifierGuided(skewed(), MixtureClassifier(skewed()), **wrong)  # type: ignore[arg-type]


def test_classifier_free_scales_are_named() -> None:
    model = skewed(VP())
    one, none = ClassifierFree(model, 1.0), ClassifierFree(model, 0.0)
    x, t, c = points(VP(), 1.0)
    assert one(x, t, c).equal(model(x, t, c))
    assert none(x, t, c).equal(model(x, t, torch.full_like(c, NULL)))


# --- ratio-aware -----------------------------------------------------------------------------------------------------


def split() -> MixtureDenoiser:
    """Two round classes of unequal weight, whose means and the mean of all are known."""
    return MixtureDenoiser([0.7, 0.3], [[2.0, 0.0], [-1.0, 1.0]], np.tile(0.25 * np.eye(2), (2, 1, 1)))


def test_the_ratio_at_pure_noise_is_its_closed_form() -> None:
    model = split()
    guided = RatioAware(model, 7.0, 1.0)
    x, c = torch.from_numpy(np.random.default_rng(2).standard_normal((64, 2))), torch.arange(64) % 2
    t = torch.ones(64, dtype=torch.float64)
    means, all_of_them = torch.from_numpy(model.means), torch.from_numpy(model.weights @ model.means)
    exact = (means[c] - all_of_them).norm(dim=1) / (all_of_them - x).norm(dim=1)
    found = guided.ratios(x, t, model(x, t, c), model(x, t, torch.full_like(c, NULL)))
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-12)


def test_no_damping_is_constant_guidance_and_all_damping_none() -> None:
    for scale in (7.0, 1.1, 0.3):
        plain, aware = (sample(m, DDIM(6), 16, condition=1) for m in _pair(scale, 0.0))
        assert plain.x.equal(aware.x) and plain.cost == aware.cost
    x, t, c = points(Flow(), 2.0)
    damped, conditional = RatioAware(skewed(), 7.0, 1e9)(x, t, c), skewed()(x, t, c)
    assert torch.allclose(damped, conditional, atol=1e-12)


def _pair(scale: float, damping: float) -> tuple[ClassifierFree, ClassifierFree]:
    return ClassifierFree(skewed(), scale), RatioAware(skewed(), scale, damping)


def test_a_row_is_scaled_by_its_own_ratio() -> None:
    model = skewed()
    x, t, c = points(Flow(), 3.0)
    guided = RatioAware(model, 5.0, 2.0)
    clean, free = model(x, t, c), model(x, t, torch.full_like(c, NULL))
    ratio = (clean - free).norm(dim=1) / (x - free).norm(dim=1)  # on a flow the common factor of time cancels
    scale = 1 + 4.0 * torch.exp(-2.0 * ratio)
    assert torch.allclose(guided(x, t, c), free + scale[:, None] * (clean - free), atol=1e-12)
    assert scale.max() - scale.min() > 0.5


def test_a_negative_damping_is_refused() -> None:
    with pytest.raises(UsageError, match="damping"):
        RatioAware(skewed(), 7.0, -1.0)


def test_a_classifier_of_clean_digits_leads_an_unconditional_model() -> None:
    """One classifier guides, the other looks: 0.13 of these samples are threes without it, all of them with it."""
    found = {}
    for scale in (0.0, 3.0):
        guided = ClassifierGuided(digits(), digits_classifier("a"), scale, through="clean", interval=(0.0, 10.0))
        drawn = sample(guided, Euler(12), 32, condition=3)
        found[scale] = (digits_classifier("b").labels(drawn.x) == 3).float().mean().item()
    assert found[0.0] < 0.3 and found[3.0] > 0.9
