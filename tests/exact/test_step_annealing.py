"""Images made patch by patch: laws of a process, a closed form of what is drawn, and what annealing is worth there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep import UsageError
from anystep import keys as lineage
from anystep.diffusion import PatchProcess, sample_patches, step_annealing
from anystep.diffusion.models import PatchFlow, PatchNet, PatchRecipe, PatchShape
from anystep.diffusion.models.digit_data import digits_data
from anystep.diffusion.models.patch_digits import loss_of, train, untrained
from anystep.diffusion.models.patch_net import cut, joined
from anystep.diffusion.patchwise import masked_cosine
from anystep.ledger import Ledger, Limit
from anystep.testing import check_process

SMALL = PatchShape(body=24, body_blocks=1, told=8, head=16, head_blocks=1)
FOUR = PatchShape(size=4, body=24, body_blocks=1, told=8, head=16, head_blocks=1)
CORRELATION = 0.9


class Equicorrelated(PatchFlow):
    """Four pixels, Gaussian with unit variance and one correlation: what the body tells is a mean and a variance."""

    def __init__(self) -> None:
        self.shape, self.name, self.classes = PatchShape(size=2, patch=1, told=2), "gaussian", 10
        self.body_flops = self.head_flops = 1.0

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        return self.body(first, rest[0]) if first.ndim == 3 else self.head(first, *rest)

    def body(self, patches: Tensor, known: Tensor) -> Tensor:
        n = known.sum(1).to(patches.dtype)
        share = CORRELATION / (1 + (n - 1) * CORRELATION)
        mean, variance = share * (patches[:, :, 0] * known).sum(1), 1 - n * CORRELATION * share
        return torch.stack([mean, variance], -1)[:, None].expand(-1, 4, -1)

    def head(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        t, mean, variance = t[:, None], told[:, :1], told[:, 1:]
        gap = (x - (1 - t) * mean) / ((1 - t) ** 2 * variance + t**2)
        return t * gap - mean - (1 - t) * variance * gap


def factor(variance: float, steps: int) -> float:
    """The standard deviation that Euler's steps make of unit noise where sqrt(variance) is right."""
    scale = 1.0
    for i in range(steps):
        t = 1 - i / steps
        scale *= 1 - (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2) / steps
    return scale


def variances() -> list[float]:
    """Of a pixel when 0, 1, 2 and 3 others are known."""
    told = [CORRELATION / (1 + (n - 1) * CORRELATION) if n else 0.0 for n in range(4)]
    return [1 - n * CORRELATION * share for n, share in enumerate(told)]


@pytest.mark.parametrize(
    "kind, wanted", [("linear", (50, 35, 20, 5)), ("cosine", (50, 38, 16, 5)), ("two-stage", (50, 50, 5, 5))]
)
def test_steps_fall_from_upper_to_lower(kind: str, wanted: tuple[int, ...]) -> None:
    assert step_annealing(50, 5, kind).all(4) == wanted
    assert step_annealing(7, 7, kind).all(5) == (7,) * 5 and step_annealing(9, 2, kind).all(1) == (9,)
    assert sum(step_annealing(50, 5).all(16)) == 440


def test_patches_a_step_follow_the_cosine_and_all_are_made() -> None:
    assert np.diff(masked_cosine(16, 8)).tolist() == [1, 1, 1, 2, 3, 2, 3, 3]
    for iterations in range(1, 17):
        made = masked_cosine(16, iterations)
        assert made[0] == 0 and made[-1] == 16 and (np.diff(made) >= 1).all()


def test_cutting_and_joining_are_inverse() -> None:
    images = torch.randn(3, 8, 8)
    assert cut(images, 2)[0, 1].tolist() == images[0, :2, 2:4].flatten().tolist()
    for side in (1, 2, 4):
        assert joined(cut(images, side), side).equal(images)


@pytest.mark.parametrize("options", [{}, {"iterations": 3}, {"condition": 3, "scale": 2.0, "iterations": 2}], ids=str)
def test_it_is_a_lawful_process(options: dict[str, object]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PatchFlow(PatchNet(FOUR))
    torch.nn.init.normal_(model.net.leave.weight)
    check_process(PatchProcess(model, step_annealing(2, 1), **options))


def test_pixels_are_eulers_steps_from_their_noise() -> None:
    model, keys = Equicorrelated(), lineage.roots(0, (), np.arange(5))
    process, annealed = PatchProcess(model, step_annealing(6, 3)), step_annealing(6, 3).all(4)
    states = process.begin(keys)
    for k, (variance, steps) in enumerate(zip(variances(), annealed, strict=True)):
        told = model.body(torch.from_numpy(states.patches), torch.from_numpy(states.known))[:, 0, 0]
        place = states.order[:, k]
        states = process.step(states, keys, Limit(Ledger(), ""), "step").states
        drawn = states.patches[np.arange(5), place, 0]
        noise = lineage.normals(keys, (k + 1) * 4, 1)[:, 0]
        np.testing.assert_allclose(drawn, told.numpy() + factor(variance, steps) * noise, atol=1e-5)


def test_the_joint_law_is_reached_with_many_steps() -> None:
    x, cost = sample_patches(Equicorrelated(), PatchProcess(Equicorrelated(), 100), [0] * 4000)
    found = np.cov(x.flatten(1).numpy().T)
    wanted = np.full((4, 4), CORRELATION) + (1 - CORRELATION) * np.eye(4)
    # Sampling spreads an entry by at most sqrt(2 / 4000) = 0.022, Euler's hundred steps take at most 0.02.
    assert np.abs(found - wanted).max() < 5 * 0.022 + 0.02
    assert cost.evaluations == 4000 * (4 * 100 + 4)


def test_narrow_laws_need_fewer_steps_and_annealing_gives_them_fewer() -> None:
    def error(steps: tuple[int, ...]) -> float:
        return sum((factor(v, n) - v**0.5) ** 2 for v, n in zip(variances(), steps, strict=True))

    falling = [abs(factor(v, 20) - v**0.5) for v in variances()]
    assert falling == sorted(falling, reverse=True)
    mild, even, steep = step_annealing(28, 12).all(4), (20,) * 4, step_annealing(35, 5).all(4)
    assert sum(mild) <= sum(even) == sum(steep) == 80
    # Gains are bounded by how much narrower later laws are: here steep annealing is worse than none.
    assert error(mild) < error(even) < error(steep) < error(steep[::-1])


def test_guidance_of_one_and_many_patches_a_step_count_what_they_ask() -> None:
    model = PatchFlow(untrained(PatchRecipe(shape=SMALL)))
    assert PatchProcess(model, step_annealing(50, 5)).head_evaluations() == 440
    assert PatchProcess(model, step_annealing(50, 5), iterations=8).head_evaluations() == 344
    _, plain = sample_patches(model, PatchProcess(model, 5, iterations=4), [1, 2])
    _, guided = sample_patches(model, PatchProcess(model, 5, iterations=4, scale=2.0), [1, 2])
    assert plain.evaluations == 2 * (16 * 5 + 4) and guided.evaluations == 2 * plain.evaluations


def test_a_miniature_recipe_learns() -> None:
    recipe, data = PatchRecipe(shape=SMALL, updates=60, batch=32, rate=5e-3), digits_data("train")
    first, (net, cost) = untrained(recipe), train(recipe)

    def loss(model: PatchNet) -> float:
        draw = torch.Generator().manual_seed(5)
        return float(loss_of(model, recipe, cut(data.images, 2), data.labels, draw).detach())

    assert loss(net) < 0.9 * loss(first) and cost.examples == 60 * 32


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: step_annealing(0, 5), "step_annealing"),
        (lambda: step_annealing(50, 5, "quadratic"), "two-stage"),
        (lambda: PatchProcess(Equicorrelated(), 5, iterations=5), "1 to 4"),
        (lambda: PatchProcess(Equicorrelated(), 5, condition=10), "0 to 9"),
    ],
)
def test_what_cannot_be_is_said(call: object, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        call()  # type: ignore[operator]
