"""Collect, reflect, refine: what each refinement is, to the bit, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import VP, DiffusionProcess, collect_reflect_refine, sample
from anystep.diffusion.guidance import ClassifierFree, CollectReflectRefine, WeakRecipe, collect, reflect
from anystep.diffusion.guidance.collect_reflect_refine import WeakNet
from anystep.diffusion.models import digits, skewed
from anystep.diffusion.solvers import DDIM, Euler
from anystep.testing import check_process


def weak_net(seed: int = 0) -> WeakNet:
    """One that changes what it is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = WeakNet((2,), 2, 8)
        torch.nn.init.normal_(net.leave.weight, std=0.1)
    return net.eval().requires_grad_(False)


def test_what_is_collected_is_what_guidance_said() -> None:
    model = skewed(VP())
    kept = collect(model, 3.0, DDIM(4), [0, 1, 1], seed=2)
    assert kept.clean.shape == kept.guided.shape == (12, 2) and kept.condition.tolist() == [0, 1, 1] * 4
    # A single step ends at the first prediction.
    for said, m in ((kept.clean, model), (kept.guided, ClassifierFree(model, 3.0))):
        assert said[:3].equal(sample(m, DDIM(1), 3, [0, 1, 1], 2).x)
    assert (kept.clean - kept.guided).abs().max() > 0.1


def test_the_refinements_have_names() -> None:
    model, weak = skewed(), weak_net()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 2)))
    t, c = torch.full((24,), 0.6, dtype=torch.float64), torch.arange(24) % 2
    alone, strong = CollectReflectRefine(model, weak, 3.0, 0.0), ClassifierFree(model, 3.0)(x, t, c)
    w = alone(x, t, c)
    assert w.equal(alone.reflected(model(x, t, c), t, c)) and (w - model(x, t, c)).abs().max() > 1e-3
    assert CollectReflectRefine(model, weak, 3.0, 1.0)(x, t, c).equal(strong)
    past = CollectReflectRefine(model, weak, 3.0, 1.5)(x, t, c)
    assert torch.allclose(past, w + 1.5 * (strong - w), atol=1e-12)


def test_refinement_one_is_guidance_to_the_bit_on_digits() -> None:
    """In float32 too, where the scale is applied in float64."""
    model = digits()
    weak = WeakNet((8, 8), 10, 16)
    plain, same = (
        sample(m, Euler(4), 20, 3) for m in (ClassifierFree(model, 1.7), CollectReflectRefine(model, weak, 1.7, 1.0))
    )
    assert plain.x.equal(same.x) and plain.cost.evaluations == same.cost.evaluations
    assert same.cost.flops - plain.cost.flops == pytest.approx(20 * 4 * weak.flops())


def test_the_weak_network_alone_takes_half_the_evaluations() -> None:
    model, weak = skewed(), weak_net()
    costs = [
        sample(CollectReflectRefine(model, weak, 3.0, r, interval), Euler(6), 5, 1).cost.evaluations
        for r, interval in ((0.0, (0.0, np.inf)), (1.5, (0.0, np.inf)), (1.5, (1.0, np.inf)))
    ]
    assert costs == [5 * 6, 5 * 12, 5 * (6 + 4)]  # the levels are inf, 5, 2, 1, 0.5, 0.2


def test_a_reflected_network_learns_what_guidance_does() -> None:
    model = skewed()
    recipe = WeakRecipe(width=32, updates=150, batch=64, rate=1e-2)
    kept = collect(model, 3.0, Euler(8), [0, 1] * 40)
    weak = reflect(kept, model, recipe)
    again = collect(model, 3.0, Euler(8), [0, 1] * 40, seed=9)
    guided = collect_reflect_refine(model, 3.0, Euler(8), [0, 1] * 40, 0.0, recipe=recipe)
    said = guided.reflected(again.clean, again.t, again.condition)
    assert ((said - again.guided) ** 2).mean() < 0.3 * ((again.clean - again.guided) ** 2).mean()
    assert all(a.equal(b) for a, b in zip(weak.parameters(), guided.weak.parameters(), strict=True))


def test_it_makes_a_lawful_process() -> None:
    guided = CollectReflectRefine(skewed(), weak_net(), 3.0, 1.5, interval=(0.5, np.inf))
    check_process(DiffusionProcess(guided, Euler(3), condition=1))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="refinement"):
        CollectReflectRefine(skewed(), weak_net(), 3.0, np.nan)
    with pytest.raises(UsageError, match="class in every row"):
        sample(CollectReflectRefine(skewed(), weak_net(), 3.0), Euler(2), 3)
