"""What a denoiser draws, on one page: grids over steps, what it expected on the way, quality against evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from anystep.diffusion import Denoiser, sample, trajectory
from anystep.diffusion.evaluate import Spread, Swept, digits_floor, sweep
from anystep.diffusion.solvers import DPMpp2M, Euler, Heun, Solver, few_step
from anystep.view.html import Figure, Section
from anystep.view.levels import Measured, levels, levels_legend
from anystep.view.pictures import grid, png
from anystep.view.text import counted, figure

STEPS = (1, 2, 4, 8, 50)
FIGURES = {
    "sw2": "sliced Wasserstein distance",
    "energy": "energy distance",
    "frechet": "Frechet distance in a classifier's features",
    "recall": "recall",
}
SOLVERS: dict[str, Callable[[int], Solver]] = {
    "Euler": Euler,
    "Heun": Heun,
    "DPM-Solver++ 2M": DPMpp2M,
    "few_step": few_step,
}


def drawn(denoiser: Denoiser, solver: Callable[[int], Solver] = few_step, seed: int = 0) -> Section:
    """The same noise in few steps and in many: a row a number of steps, a column a class."""
    classes = list(range(denoiser.classes))
    rows = [sample(denoiser, solver(steps), len(classes), classes, seed) for steps in STEPS]
    pixels = [image for row in rows for image in row.x.tolist()]
    spent = ", ".join(f"{r.cost.evaluations // len(classes)}" for r in rows)
    told = (
        f"Each column is a class, from the same noise; rows are {', '.join(map(str, STEPS))} steps, "
        f"at {spent} evaluations a sample."
    )
    return Section(
        "In few steps and in many", figures=(Figure(told, png=png(grid(pixels, len(classes), 6)), alt=told),)
    )


def on_the_way(denoiser: Denoiser, solver: Solver, seed: int = 0) -> Section:
    """What the model expects behind the noise, after each step."""
    classes = list(range(denoiser.classes))
    paths = trajectory(denoiser, solver, len(classes), classes, seed)
    times = ", ".join(f"{t:.2g}" for t in paths.times)
    pixels = [image for row in range(len(classes)) for image in paths.clean[:, row].tolist()]
    told = f"Each row is a sample of {solver!r}; from left to right what is expected behind it at the times {times}."
    return Section(
        "What it expects on the way", figures=(Figure(told, png=png(grid(pixels, len(paths.times), 6)), alt=told),)
    )


def against_cost(
    denoiser: Denoiser,
    solvers: Mapping[str, Callable[[int], Solver]] = SOLVERS,
    steps: Sequence[int] = STEPS,
    seeds: Sequence[int] = (0, 1, 2),
) -> tuple[Section, dict[str, list[Swept]]]:
    """Quality of 8x8 digits against evaluations, with real digits' own level; and the figures."""
    floor, found = digits_floor(), {name: sweep(denoiser, [s(n) for n in steps], seeds) for name, s in solvers.items()}
    svg = {
        title: levels(
            {name: [_measured(point, of) for point in some] for name, some in found.items()},
            title,
            floor=Measured(1.0, getattr(floor.mean, of), getattr(floor.deviation, of)),
        )
        for of, title in FIGURES.items()
    }
    caption = (
        f"500 samples, with the classes of the 500 held-out digits, against those; {counted(len(seeds), 'seed')}, bars "
        "are one standard deviation. The dashed level is what as many real training digits get."
    )
    legend = levels_legend(list(found), "real digits")
    return Section(
        "Quality against evaluations",
        figures=(Figure(caption, svg=svg, legend=legend),),
        table=(["solver", "steps", "evaluations", *FIGURES, "MMD x1000"], [*_rows(found), _row("real digits", floor)]),
    ), found


def _measured(point: Swept, of: str) -> Measured:
    q = point.quality
    return Measured(point.evaluations, getattr(q.mean, of), getattr(q.deviation, of))


def _rows(found: Mapping[str, Sequence[Swept]]) -> list[list[str]]:
    return [
        _row(name, p.quality, f"{p.solver.steps}", figure(p.evaluations)) for name, some in found.items() for p in some
    ]


def _row(name: str, spread: Spread, steps: str = "", evaluations: str = "") -> list[str]:
    mean, deviation = spread.mean, spread.deviation
    figures = [f"{getattr(mean, of):.3f} ± {getattr(deviation, of):.3f}" for of in FIGURES]
    return [name, steps, evaluations, *figures, f"{1e3 * mean.mmd:.2f} ± {1e3 * deviation.mmd:.2f}"]
