"""diffusers' models and schedulers as denoisers and processes, and our solvers in its pipelines."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep import keys as lineage
from anystep.diffusion import Karras, Times, diffusers_loop, from_diffusers, sample, to_diffusers
from anystep.diffusion.adapters.denoiser import Asked
from anystep.diffusion.adapters.process import DiffusersProcess, seeds_of
from anystep.diffusion.guidance import ClassifierFree
from anystep.diffusion.solvers import DDIM, DPMpp2M, Euler, Heun
from anystep.ledger import Ledger, Limit
from anystep.testing import check_process, counted

diffusers = pytest.importorskip("diffusers")

KEYS = lineage.roots(0, (), np.arange(3))
NOISE = torch.from_numpy(lineage.normals(KEYS, 0, 16).reshape(3, 1, 4, 4)).float()

SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {},
    "DDIMScheduler": {"timestep_spacing": "trailing", "thresholding": True},
    "PNDMScheduler": {"prediction_type": "v_prediction"},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++", "use_lu_lambdas": True},
    "DPMSolverSinglestepScheduler": {"lower_order_final": True},
    "UniPCMultistepScheduler": {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
    "SASolverScheduler": {},
    "LCMScheduler": {},
    "EDMEulerScheduler": {},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
    "CMStochasticIterativeScheduler": {},
    "IPNDMScheduler": {},
}


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4,), norm_num_groups=2,
        down_block_types=("AttnDownBlock2D",), up_block_types=("AttnUpBlock2D",), num_class_embeds=11,
        attention_head_dim=2,
    ).eval()  # fmt: skip


def made(name: str, **more: Any) -> Any:
    return getattr(diffusers, name)(**(SCHEDULERS.get(name, {}) | more))


def by_hand(unet: Any, scheduler: Any, steps: int, guidance: float = 1.0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """diffusers' documented loop, and what the scheduler said of the clean thing on the way."""
    ask, told = Asked(unet, None, 10, None, None, None, 16), []
    scheduler.set_timesteps(steps)
    x = NOISE * getattr(scheduler, "init_noise_sigma", 1.0)
    for i, t in enumerate(scheduler.timesteps):
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        both = torch.cat([shown, shown]), t.expand(6).float(), torch.tensor([-1] * 3 + [3] * 3)
        free, said = ask(*both).chunk(2)
        said = free + guidance * (said - free) if guidance != 1.0 else ask(shown, t.expand(3).float(), both[2][3:])
        named = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            named["generator"] = [torch.Generator().manual_seed(s) for s in seeds_of(KEYS, i)]
        reply = scheduler.step(said, t, x, **named)
        x = reply.prev_sample
        told.append(getattr(reply, "pred_original_sample", None))
    return x, told


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_loop_is_diffusers_own_to_the_bit(unet: Any, name: str) -> None:
    steps = 4 if name == "PNDMScheduler" else 3  # its method is of fourth order
    process, limit = diffusers_loop(unet, made(name), steps, condition=3, null=10), Limit(Ledger(), "unet")
    ended = process.step(process.begin(KEYS), KEYS, limit, "done").states
    scheduler = made(name)
    with torch.no_grad():
        wanted, _ = by_hand(unet, scheduler, steps)
    assert torch.equal(ended.x, wanted.to(ended.x.dtype))
    assert limit.used.evaluations == 3 * len(scheduler.timesteps) == 3 * (process.horizon or 0)


def test_the_loop_is_a_lawful_process(unet: Any) -> None:
    check_process(diffusers_loop(unet, made("DPMSolverMultistepScheduler"), 2, condition=3, null=10, guidance=2.0))


def test_guidance_costs_two_and_is_the_pipelines(unet: Any) -> None:
    process = diffusers_loop(unet, made("DDIMScheduler"), 2, condition=3, null=10, guidance=2.5)
    limit = Limit(Ledger(), "unet")
    ended = process.step(process.begin(KEYS), KEYS, limit, "done").states
    with torch.no_grad():
        wanted, _ = by_hand(unet, made("DDIMScheduler"), 2, guidance=2.5)
    assert torch.equal(ended.x, wanted) and limit.used.evaluations == 2 * 2 * 3


@pytest.mark.parametrize(
    "name, options",
    [
        ("DDIMScheduler", {}),
        ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
        ("DDPMScheduler", {"prediction_type": "sample", "thresholding": True, "clip_sample": False}),
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    ],
)
def test_a_states_prediction_is_the_schedulers(unet: Any, name: str, options: dict[str, Any]) -> None:
    scheduler = getattr(diffusers, name)(**options)
    process = diffusers_loop(unet, scheduler, 4, condition=3, null=10)
    with torch.no_grad():
        _, told = by_hand(unet, getattr(diffusers, name)(**options), 4)
    states = process.predicted(process.begin(KEYS))
    for wanted in told:
        torch.testing.assert_close(states.clean, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
        states = process.advance(states, KEYS).states


def ends(unet: Any, scheduler: Any, solver: Any) -> torch.Tensor:
    return sample(from_diffusers(unet, scheduler, null=10), solver, 3, condition=3).x


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_ddim_is_diffusers_trailing_ddim(unet: Any) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    with torch.no_grad():
        wanted, _ = by_hand(unet, scheduler, 10)
    same(ends(unet, scheduler, DDIM(10)), wanted)


def test_euler_is_diffusers_edm_euler_but_for_the_first_noise(unet: Any) -> None:
    scheduler = diffusers.EDMEulerScheduler(sigma_max=20.0)
    process = diffusers_loop(unet, scheduler, 6, condition=3, null=10)
    scaled = replace(process.begin(KEYS), x=NOISE * 20.0)
    theirs = process.step(scaled, KEYS, Limit(Ledger(), ""), "done").states.x
    same(ends(unet, scheduler, Euler(6, Karras())), theirs)


def test_euler_is_diffusers_flow_matching_at_the_same_times(unet: Any) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    times = (1.0, 0.7, 0.3, 0.1)
    process = diffusers_loop(unet, scheduler, None, condition=3, null=10, setting={"sigmas": list(times)})
    theirs = process.step(process.begin(KEYS), KEYS, Limit(Ledger(), ""), "done").states.x
    same(ends(unet, scheduler, Euler(4, Times((*times, 0.0)))), theirs)


@pytest.mark.parametrize("solver", [Heun(4), DPMpp2M(4)], ids=repr)
@pytest.mark.parametrize("name", ["DDIMScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_solver_in_a_pipeline_ends_where_it_ends_here(unet: Any, name: str, solver: Any) -> None:
    theirs, scheduler = made(name), to_diffusers(type(solver)(7), made(name))
    scheduler.set_timesteps(4)
    x, calls = NOISE * scheduler.init_noise_sigma, 0
    with torch.no_grad():
        for t in scheduler.timesteps:
            said = unet(scheduler.scale_model_input(x, t), t, torch.full((3,), 3)).sample
            x, calls = scheduler.step(said, t, x).prev_sample, calls + 1
    same(x, ends(unet, theirs, solver))
    assert calls == (7 if isinstance(solver, Heun) else 4)
    with pytest.raises(UsageError, match="set_timesteps"):
        scheduler.step(said, t, x)


def test_a_real_pipeline_runs_a_solver(unet: Any) -> None:
    torch.manual_seed(0)
    plain = diffusers.UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 4), norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, attention_head_dim=2,
    )  # fmt: skip
    pipe = diffusers.DDPMPipeline(plain, diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = to_diffusers(DDIM(5, eta=1.0), pipe.scheduler)
    one, again, other = (
        pipe(2, generator=torch.Generator().manual_seed(s), num_inference_steps=5, output_type="np").images
        for s in (0, 0, 1)
    )
    assert one.shape == (2, 4, 4, 1) and (one == again).all() and (one != other).any()
    assert "beta_start" in pipe.scheduler.config


def test_a_model_of_diffusers_is_guided_and_counted(unet: Any) -> None:
    model = from_diffusers(unet, made("DDPMScheduler"), null=10)
    with counted(model) as work:
        drawn = sample(ClassifierFree(model, 2.0), Heun(2), 3, condition=1)
    assert drawn.cost.evaluations == work.evaluations == 3 * 2 * 3


def test_prompts_are_conditions_and_the_last_stands_for_none() -> None:
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 4), norm_num_groups=2,
        cross_attention_dim=6, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    prompts = torch.randn(3, 2, 6)
    known = from_diffusers(model, made("DDIMScheduler"), prompts=prompts, least=1)
    assert known.classes == 2
    condition = torch.tensor([1, -1])
    said = known.asked(NOISE[:2], torch.tensor([5.0, 9.0]), condition)
    wanted = model(NOISE[:2], torch.tensor([5, 9]), encoder_hidden_states=prompts[[1, 2]]).sample
    assert torch.equal(said, wanted)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda unet: from_diffusers(unet, object()), "pipe.scheduler"),
        (lambda unet: from_diffusers(unet, diffusers.IPNDMScheduler()), "diffusers_loop"),
        (lambda unet: from_diffusers(torch.nn.Linear(2, 2), diffusers.DDIMScheduler(), shape=(2,)), "ask="),
        (lambda unet: sample(from_diffusers(unet, diffusers.DDIMScheduler()), DDIM(2), 2), "null="),
        (lambda unet: diffusers_loop(unet, diffusers.RePaintScheduler(), 4), "cannot be stepped"),
        (lambda unet: diffusers_loop(unet, diffusers.DDIMScheduler(), 4, condition=11), "11 conditions"),
        (lambda unet: diffusers_loop(unet, diffusers.DDIMScheduler(), 4, nul=10), "no option nul"),
        (lambda unet: to_diffusers(DDIM(3), diffusers.DDIMScheduler()).step(NOISE, 1, NOISE, eta=0.5), "eta=1.0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(unet: Any, call: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        call(unet)
    assert "\n" not in str(caught.value)


def test_the_process_is_what_the_page_says(unet: Any) -> None:
    assert isinstance(diffusers_loop(unet, made("DDPMScheduler"), 2, null=10), DiffusersProcess)
    assert not diffusers_loop(unet, made("DDIMScheduler"), 2, null=10).branches
    assert diffusers_loop(unet, made("DDIMScheduler"), 2, null=10, stepping={"eta": 1.0}).branches
