"""Few-step samplers at equal counted evaluations: ours, and every diffusers scheduler that solves the same ODE.

    python -m venv peers && peers/bin/pip install torch==2.13.0 diffusers==0.42.1 && peers/bin/pip install -e .
    peers/bin/python benchmarks/few_step.py                # without diffusers: ours alone

The models are mixtures whose denoiser is known in closed form, in float64. A sampler's error is its distance to where
the probability-flow ODE, integrated finely by classical Runge-Kutta, takes the very point that the sampler starts from:
root mean square over samples, and the median, since a few samples near the border between two modes make most of the
former. Every scheduler starts from the same normals, scaled as it asks, and is given the exact prediction for the level
that it believes to be at. Evaluations are counted where the model is asked; where a scheduler cannot hit 8 or 16 it is
shown with the next lower and the next higher count it has. Those that add noise are not compared: they do not solve the
ODE. Results go to docs/diffusion/few_step.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import VE, VP, DiffusionProcess, Flow, FlowTime, Karras, few_step, sample, solvers
from anystep.diffusion.models import MixtureDenoiser, ring, skewed
from anystep.diffusion.solvers import Solver
from anystep.keys import normals, roots

OUT = Path(__file__).parent.parent / "docs" / "diffusion" / "few_step.json"
SAMPLES = 256
BUDGETS = (8, 16)


@dataclass(frozen=True)
class Row:
    problem: str
    sampler: str
    ours: bool
    budget: int
    evaluations: int
    rmse: float
    median: float


def uneven(schedule: Any = None) -> MixtureDenoiser:
    """Eight unequal modes at random places, scaled to unit variance."""
    rng = np.random.default_rng(8)
    means = rng.normal(size=(8, 2))
    roots_ = rng.normal(size=(8, 2, 2)) * rng.uniform(0.1, 0.4, (8, 1, 1))
    covariances = roots_ @ roots_.transpose(0, 2, 1) + 0.003 * np.eye(2)
    weights = rng.dirichlet(np.full(8, 2.0))
    means -= weights @ means
    spread = np.sqrt((weights @ (means**2).sum(1) + weights @ np.trace(covariances, axis1=1, axis2=2)) / 2)
    return MixtureDenoiser(weights, means / spread, covariances / spread**2, schedule, name="uneven")


PROBLEMS: dict[str, Callable[..., MixtureDenoiser]] = {"ring": ring, "skewed": skewed, "uneven": uneven}


class Exact:
    """A mixture's denoiser on the flow's path, with calls counted: x_flow = (1 - u) x_0 + u noise."""

    def __init__(self, model: MixtureDenoiser) -> None:
        self.model, self.calls = model, 0

    def clean(self, x: Tensor, u: float) -> Tensor:
        """E[x_0] at a point of the flow's path."""
        self.calls += 1
        return self.model(x, torch.full((len(x),), u, dtype=torch.float64), torch.full((len(x),), -1))

    def carried(self, x: Tensor, u: float, steps: int = 160) -> Tensor:
        """Where it takes x from flow time u, by classical Runge-Kutta to just above 0, and the clean thing there."""
        grid = u * (1 - np.linspace(0, 1, steps + 1)) ** 1.5 + 1e-5
        grid[0] = u
        for now, then in zip(grid, grid[1:], strict=False):
            h, half = then - now, (now + then) / 2

            def slope(at: Tensor, time: float) -> Tensor:
                return (at - self.clean(at, float(time))) / time

            a = slope(x, now)
            b = slope(x + 0.5 * h * a, half)
            c = slope(x + 0.5 * h * b, half)
            x = x + h / 6 * (a + 2 * b + 2 * c + slope(x + h * c, then))
        return self.clean(x, float(grid[-1]))


def noise(model: MixtureDenoiser) -> Tensor:
    return torch.from_numpy(normals(roots(0, (), np.arange(SAMPLES)), 0, model.shape[0]))


def scored(problem: str, name: str, ours: bool, budget: int, calls: int, got: Tensor, truth: Tensor) -> Row:
    gap = (got - truth).pow(2).sum(-1).sqrt()
    rmse = float(gap.pow(2).mean().sqrt())
    return Row(problem, name, ours, budget, calls, rmse if np.isfinite(rmse) else np.inf, float(gap.median()))


class References:
    """The reference of each start, integrated once."""

    def __init__(self, problem: str) -> None:
        self.exact, self.known = Exact(PROBLEMS[problem]()), dict[tuple[float, float], Tensor]()

    def __call__(self, x: Tensor, u: float) -> Tensor:
        key = (round(u, 10), round(float(x[0, 0]), 10))
        if key not in self.known:
            self.known[key] = self.exact.carried(x, u)
        return self.known[key]


def ours(problem: str, budget: int, truth: References) -> Iterator[Row]:
    """Our default on three schedules, and plain solvers of ours on the schedule they are made for."""
    made: list[tuple[str, Any, Solver]] = [
        ("few_step, flow", Flow(), few_step(budget)),
        ("few_step, VE", VE(), few_step(budget)),
        ("few_step, VP", VP(), few_step(budget)),
        ("AdamsBashforth2, flow", Flow(), solvers.AdamsBashforth2(budget)),
        ("DPMpp2M, FlowTime(0.7)", Flow(), solvers.DPMpp2M(budget, FlowTime(0.7))),
        ("DPMpp2M, Karras, VE", VE(), solvers.DPMpp2M(budget, Karras())),
        ("Midpoint, flow", Flow(), solvers.Midpoint(budget // 2)),
        ("Heun, flow", Flow(), solvers.Heun(budget // 2)),
        ("DDIM, flow", Flow(), solvers.DDIM(budget)),
    ]
    for name, schedule, solver in made:
        model = PROBLEMS[problem](schedule=schedule)
        got, start = sample(model, solver, SAMPLES), float(DiffusionProcess(model, solver).grid[0])
        alpha, sigma = float(schedule.alpha(start)), float(schedule.sigma(start))
        x = noise(model) * sigma / (alpha + sigma)
        reference = truth(x, sigma / (alpha + sigma))
        calls = got.cost.evaluations // SAMPLES
        yield scored(problem, name, True, budget, calls, got.x, reference)


def peers() -> dict[str, Callable[[], Any]]:
    """Every scheduler of diffusers that solves the probability-flow ODE, in the forms that its users choose from."""
    import diffusers.schedulers as s

    found: dict[str, Callable[[], Any]] = {
        "DDIM trailing": lambda: s.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"),
        "DDIM leading": lambda: s.DDIMScheduler(clip_sample=False),
        "PNDM": lambda: s.PNDMScheduler(skip_prk_steps=True, timestep_spacing="trailing"),
        "PNDM with Runge-Kutta": lambda: s.PNDMScheduler(skip_prk_steps=False),
        "EDMEuler": lambda: s.EDMEulerScheduler(sigma_data=1.0),
        "EDMDPMSolverMultistep": lambda: s.EDMDPMSolverMultistepScheduler(sigma_data=1.0),
        "FlowMatchEuler": s.FlowMatchEulerDiscreteScheduler,
        "FlowMatchHeun": s.FlowMatchHeunDiscreteScheduler,
    }
    spaced: dict[str, dict[str, Any]] = {
        "trailing": {"timestep_spacing": "trailing"},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
    }
    by_sigma = {"Euler": s.EulerDiscreteScheduler, "LMS": s.LMSDiscreteScheduler, "Heun": s.HeunDiscreteScheduler}
    by_sigma |= {"KDPM2": s.KDPM2DiscreteScheduler}
    multistep = {"DPMSolverMultistep": s.DPMSolverMultistepScheduler, "DEIS": s.DEISMultistepScheduler}
    multistep |= {"UniPC": s.UniPCMultistepScheduler, "DPMSolverSinglestep": s.DPMSolverSinglestepScheduler}
    for name, maker in by_sigma.items():
        for kind, options in spaced.items():
            found[f"{name} {kind}"] = lambda m=maker, o=options: m(**o)
    for name, maker in multistep.items():
        forms = spaced | {"flow": {"prediction_type": "flow_prediction", "use_flow_sigmas": True}}
        if name == "DPMSolverSinglestep":
            forms = {kind: options for kind, options in forms.items() if kind != "trailing"} | {"uniform": {}}
        if name == "DPMSolverMultistep":
            forms |= {"lu": {"use_lu_lambdas": True}}
        for kind, options in forms.items():
            for order in (2, 3):
                more = {"final_sigmas_type": "zero"} if name in ("UniPC",) or name.startswith("DPM") else {}
                found[f"{name}-{order} {kind}"] = lambda m=maker, o=options, k=order, z=more: m(
                    solver_order=k, **o, **z
                )
    found["SASolver, tau 0"] = lambda: s.SASolverScheduler(tau_func=lambda t: 0.0)
    return found


def run_peer(scheduler: Any, steps: int, exact: Exact, z: Tensor) -> tuple[Tensor, Tensor, float, int]:
    """Its sample, where it started on the flow's path and when, and how often it asked."""
    scheduler.set_timesteps(steps)
    x, exact.calls, start = z.float() * float(getattr(scheduler, "init_noise_sigma", 1.0)), 0, None
    flow = "FlowMatch" in type(scheduler).__name__ or getattr(scheduler.config, "use_flow_sigmas", False)
    name = type(scheduler).__name__
    for t in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, t)  # what it returns is for networks; calling it sets the scheduler going
        index = getattr(scheduler, "step_index", None) or 0
        if name in ("DDIMScheduler", "PNDMScheduler"):
            left = float(scheduler.alphas_cumprod[int(t)])
            level, alpha = np.sqrt((1 - left) / left), np.sqrt(left)
            raw = x.double() / alpha
        elif flow:
            u = float(scheduler.sigmas[index])
            level, raw = np.inf if u == 1 else u / (1 - u), x.double()
        else:
            level = float(scheduler.sigmas[index])
            in_place = name.startswith(("Euler", "LMS", "Heun", "KDPM2", "EDM"))  # these keep x_0 + sigma noise
            raw = x.double() if in_place else x.double() * np.sqrt(1 + level**2)
        u = 1.0 if np.isinf(level) else level / (1 + level)
        on_flow = raw if flow else raw * (1 - u)
        start = (on_flow, u) if start is None else start
        clean = exact.clean(on_flow, u)
        if flow:
            said = (raw - clean) / u
        elif name.startswith("EDM"):  # given scaled, says the scaled residual
            data = scheduler.config.sigma_data
            skip, out = data**2 / (level**2 + data**2), level * data / np.sqrt(level**2 + data**2)
            said = (clean - skip * raw) / out
        else:
            said = (raw - clean) / level
        x = scheduler.step(said.float(), t, x).prev_sample
    assert start is not None
    return x.double(), *start, exact.calls


def theirs(problem: str, budget: int, truth: References) -> Iterator[Row]:
    """Each at the most steps that its count allows, and where that is below the budget at the next count above it."""
    z = noise(truth.exact.model)
    for name, make in peers().items():
        found: list[Row] = []
        for steps in range(budget, 0, -1):
            try:
                got, start, u, calls = run_peer(make(), steps, truth.exact, z)
            except (ValueError, RuntimeError, IndexError, TypeError) as error:
                print(f"  {name} with {steps} steps did not run: {error}"[:140])
                break
            found.append(scored(problem, name, False, budget, calls, got, truth(start, u)))
            if calls <= budget:
                break
        if found:
            yield from found[-1:] if found[-1].evaluations == budget else found[-2:]


def table(rows: list[Row]) -> str:
    lines = ["| sampler | problem | evaluations | RMSE | median |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        name = f"**{row.sampler}**" if row.ours else f"diffusers {row.sampler}"
        lines.append(f"| {name} | {row.problem} | {row.evaluations} | {row.rmse:.4f} | {row.median:.4f} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    rows: list[Row] = []
    for problem in PROBLEMS:
        truth = References(problem)
        for budget in BUDGETS:
            found = list(ours(problem, budget, truth))
            try:
                import diffusers
            except ImportError:
                print("diffusers is not installed: ours alone")
            else:
                diffusers.logging.set_verbosity_error()
                found += theirs(problem, budget, truth)
            found.sort(key=lambda row: row.rmse)
            rows += found
            print(f"\n{problem}, {budget} evaluations\n{table(found[:16])}", flush=True)
            worst = max(row.rmse for row in found if row.ours and row.sampler.startswith("few_step"))
            best = min((row.rmse for row in found if not row.ours and row.evaluations <= budget), default=np.inf)
            print(f"few_step at most {worst:.4f}; the best of diffusers with no more evaluations {best:.4f}")
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
