"""Collect, reflect, refine patch by patch: what each refinement is, to the bit, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion import PatchProcess, ReflectedPatches, collect_patches, reflect_patches, sample_patches
from anystep.diffusion.guidance import WeakRecipe
from anystep.diffusion.models import PatchFlow, PatchNet, PatchShape
from anystep.diffusion.reflected_patches import WeakHead
from anystep.testing import check_process

FOUR = PatchShape(size=4, body=24, body_blocks=1, told=8, head=16, head_blocks=1)  # 4 patches of 4 pixels


def flow() -> PatchFlow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = PatchNet(FOUR)
        torch.nn.init.normal_(net.leave.weight, std=0.3)
        torch.nn.init.normal_(net.label.weight, std=3.0)
        for block in net.blocks:  # zero at first: what the body told would not be heard
            torch.nn.init.normal_(block.told.weight, std=0.3)
    return PatchFlow(net.requires_grad_(False))


def weak_head() -> WeakHead:
    """One that changes what it is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weak = WeakHead(4, 8, 16)
        torch.nn.init.normal_(weak.leave.weight, std=0.3)
    return weak.eval().requires_grad_(False)


def rows(process: PatchProcess, n: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    x, told = torch.randn(n, 4, generator=draw), torch.randn(process.passes, n, 8, generator=draw)
    return x, torch.linspace(1, 0.05, n), told


def test_what_is_collected_is_what_guidance_said() -> None:
    model = flow()
    kept = collect_patches(model, 3.0, [0, 1, 1], seed=2, steps=2)
    assert kept.given.shape == kept.guided.shape == kept.x.shape == (3 * 4 * 2, 4) and kept.told.shape == (24, 8)
    assert kept.given.equal(model.velocity(kept.x, kept.t, kept.told))
    assert (kept.guided - kept.given).abs().max() > 1e-3
    # A step from noise at time 1 to 0 ends at x - velocity: the first patch of guidance itself.
    one = collect_patches(model, 3.0, [5], seed=2, steps=1)
    image, _ = sample_patches(model, PatchProcess(model, 1, scale=3.0), [5], 2)
    first = (one.x - one.guided)[0]
    assert any(torch.allclose(first, image[0, i : i + 2, j : j + 2].flatten()) for i in (0, 2) for j in (0, 2))


def test_the_refinements_have_names() -> None:
    model, weak = flow(), weak_head()
    plain = PatchProcess(model, 4, scale=2.5)
    x, t, told = rows(plain)
    strong, given = plain.velocity(x, t, told), model.velocity(x, t, told[0])
    w = weak(given, x, t, told[0])
    assert (w - given).abs().max() > 1e-3 and (w - strong).abs().max() > 1e-3
    assert ReflectedPatches(model, weak, 2.5, 0.0, steps=4).velocity(x, t, told[:1]).equal(w)
    assert ReflectedPatches(model, weak, 2.5, 1.0, steps=4).velocity(x, t, told).equal(strong)
    past = ReflectedPatches(model, weak, 2.5, 1.5, steps=4).velocity(x, t, told)
    assert torch.allclose(past, w + 1.5 * (strong - w), atol=1e-5)
    late = ReflectedPatches(model, weak, 2.5, 1.5, since=0.5, steps=4).velocity(x, t, told)
    assert torch.allclose(late, torch.where((t >= 0.5)[:, None], past, w), atol=1e-5)


def test_refinement_one_is_guidance_to_the_bit() -> None:
    model, weak = flow(), weak_head()
    (plain, spent), (same, cost) = (
        sample_patches(model, p, [3, 1, 7], 4)
        for p in (PatchProcess(model, 3, scale=1.7), ReflectedPatches(model, weak, 1.7, 1.0, steps=3))
    )
    assert plain.equal(same) and spent.evaluations == cost.evaluations
    assert cost.flops - spent.flops == pytest.approx(3 * 4 * 3 * weak.flops())


def test_what_is_paid_is_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weak, asked = flow(), weak_head(), []
    whole = PatchFlow.forward
    monkeypatch.setattr(PatchFlow, "forward", lambda self, x, *rest: asked.append(len(x)) or whole(self, x, *rest))
    costs = []
    for refinement, since in ((0.0, 0.0), (2.0, 0.0), (2.0, 0.5), (2.0, 1.0)):
        asked.clear()
        process = ReflectedPatches(model, weak, 2.0, refinement, since, steps=4, iterations=3)
        _, cost = sample_patches(model, process, [2, 9])
        assert cost.evaluations == sum(asked) == 2 * (process.head_evaluations() + 3 * process.passes)
        costs.append(process.head_evaluations())
    # A patch's times are 1, 0.75, 0.5 and 0.25.
    assert costs == [4 * 4, 4 * 8, 4 * (4 + 3), 4 * (4 + 1)]


def test_a_reflected_head_learns_what_guidance_does() -> None:
    model = flow()
    kept = collect_patches(model, 3.0, list(range(10)) * 4, steps=4)
    weak = reflect_patches(kept, model, WeakRecipe(width=32, updates=200, batch=64, rate=1e-2))
    again = collect_patches(model, 3.0, list(range(10)) * 4, seed=9, steps=4)
    said = weak(again.given, again.x, again.t, again.told)
    assert ((said - again.guided) ** 2).mean() < 0.6 * ((again.given - again.guided) ** 2).mean()


@pytest.mark.parametrize("refinement", [0.0, 1.5])
def test_it_is_a_lawful_process(refinement: float) -> None:
    check_process(ReflectedPatches(flow(), weak_head(), 2.0, refinement, 0.5, steps=2, iterations=2, condition=3))


def test_what_cannot_be_is_refused() -> None:
    model, weak = flow(), weak_head()
    with pytest.raises(UsageError, match="refinement"):
        ReflectedPatches(model, weak, 2.0, np.nan)
    with pytest.raises(UsageError, match="class in every image"):
        sample_patches(model, ReflectedPatches(model, weak, 2.0, steps=1), [-1])
    with pytest.raises(UsageError, match="other than 1"):
        collect_patches(model, 1.0, [1])
