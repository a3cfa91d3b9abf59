"""Row 79: one unconditional model of seasonal windows that predicts, fills in, refines and synthesises.

Stated time: three minutes on one quiet core, and one more the first time, when the two models are trained (then they
are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anystep.diffusion import Denoiser, Flow, Network, TSDiff, sample
from anystep.diffusion.series import Seasonal, crps, ridge
from anystep.diffusion.series.net import SeriesNet, SeriesRecipe, series, trained
from anystep.diffusion.solvers import DDPM
from anystep.experiments._figures import held, ratio, table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 79
SHOWN = 24  # of 36 places; what follows is forecast
SCALE, REFINING, RATE, TIME = 3.0, 3.0, 0.1, 0.2  # chosen on other windows


class Beside(Denoiser):
    """The conditional model: condition i is told the first places of window i."""

    def __init__(self, net: SeriesNet, seen: Floats) -> None:
        self.net, self.seen = net, torch.from_numpy(seen).float()
        self.schedule, self.shape, self.classes, self.name = Flow(), (seen.shape[1] + 12,), len(seen), "conditional"

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.forward(x, t, condition)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        velocity: Tensor = self.net(x, t.to(x.dtype), self.seen[condition])
        return x - t.to(x.dtype)[:, None] * velocity


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: Network | None = None,
    conditional: SeriesNet | None = None,
    windows: int = 50,
    samples: int = 50,
    steps: int = 50,
    synthetic: int = 2_000,
) -> Result:
    """Check every clause of the row.

    model, conditional: by default the kept ones of `SeriesRecipe()` and `SeriesRecipe(shown=24)`. windows: to forecast.
    samples: a window. steps: of the ancestral sampler. synthetic: windows made up, and real ones to match.
    """
    began, data = time.perf_counter(), Seasonal()
    model = model or series(say=progress)
    conditional = conditional or trained(SeriesRecipe(shown=SHOWN), progress)
    truth = data.draw(windows, 10_000 + seed)
    found = forecasts(data, model, conditional, truth, samples, steps, seed)
    scores = {name: crps(made[:, :, SHOWN:], truth[:, SHOWN:]) for name, made in found.items()}
    filled = imputed(model, truth, samples, steps, seed)
    synth = synthesised(data, model, truth, synthetic, steps, seed)
    evaluations = {"refine": 3 * 10, "sample": 3 * steps}
    quantile, base = scores["quantile"], scores["linear"]
    against = {"a conditional model's": (scores["conditional"], 1.1), "seasonal naive's": (scores["naive"], 0.8)}
    checks = (
        *(
            held(f"CRPS of quantile guidance over {n}", ratio(quantile, o), "<=", top)
            for n, (o, top) in against.items()
        ),
        held("imputation: median's absolute error over linear interpolation's", ratio(*filled), "<", 1.0),
        held("CRPS of a refined linear forecast over its base's", ratio(scores["refined"], base), "<", 1.0),
        Check("refining: evaluations over full sampling's", evaluations["refine"] / evaluations["sample"], "<", 1.0),
        held("linear forecaster: CRPS when taught by made-up windows over real ones", ratio(*synth), "<=", 1.1),
    )
    for check in checks:
        progress(str(check))
    notes = told(scores, evaluations, windows, samples, steps)
    return Result("tsdiff", ROW, checks, time.perf_counter() - began, seed, notes)


def seen_of(truth: Floats) -> Floats:
    """The windows with what is to be forecast missing."""
    return np.where(np.arange(truth.shape[1]) < SHOWN, truth, np.nan)


def forecasts(
    data: Seasonal, model: Network, conditional: SeriesNet, truth: Floats, samples: int, steps: int, seed: int
) -> dict[str, Floats]:
    """(windows, samples, length) of every forecaster; a point forecast has one sample, or equal ones to refine."""
    n, solver, seen = len(truth), DDPM(steps), np.arange(data.length) < SHOWN
    hidden, rows = seen_of(truth), np.repeat(np.arange(n), samples)
    told = sample(Beside(conditional, truth[:, :SHOWN]), solver, len(rows), rows.tolist(), seed).x
    mean, covariance = data.given(truth, seen)
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(data.length))
    exact = mean[:, None] + np.random.default_rng(seed).standard_normal((n, samples, data.length)) @ root.T
    naive = truth.copy()
    naive[:, SHOWN:] = truth[:, SHOWN - data.period : SHOWN]
    linear = truth.copy()
    linear[:, SHOWN:] = truth[:, :SHOWN] @ ridge(data.draw(4_000, 0), seen)
    base = np.repeat(linear[:, None], samples, 1)
    return {
        "the law itself": exact,
        "conditional": told.double().numpy().reshape(n, samples, -1),
        "quantile": TSDiff(model, SCALE).predict(hidden, samples, solver, seed).values,
        "square": TSDiff(model, SCALE, "square").predict(hidden, samples, solver, seed).values,
        "refined": TSDiff(model, REFINING).refine(hidden, base, rate=RATE, time=TIME, seed=seed).values,
        "linear": base[:, :1],
        "naive": naive[:, None],
    }


def imputed(model: Network, truth: Floats, samples: int, steps: int, seed: int) -> tuple[Floats, Floats]:
    """Absolute errors of our median and of linear interpolation, on twelve missing places in the middle."""
    places = np.arange(truth.shape[1])
    missing = (places >= 12) & (places < 24)
    made = TSDiff(model, SCALE).predict(np.where(missing, np.nan, truth), samples, DDPM(steps), seed).values
    straight = np.stack([np.interp(places, places[~missing], row[~missing]) for row in truth])
    ours = np.abs(np.median(made, 1) - truth)[:, missing].mean(1)
    return ours, np.abs(straight - truth)[:, missing].mean(1)


def synthesised(data: Seasonal, model: Network, truth: Floats, n: int, steps: int, seed: int) -> tuple[Floats, Floats]:
    """CRPS (absolute errors, of point forecasts) of linear forecasters taught by made-up and by real windows."""
    seen = np.arange(data.length) < SHOWN
    made = TSDiff(model).synthesise(n, DDPM(steps), seed).values[:, 0]
    test = np.concatenate([truth, data.draw(500, 20_000 + seed)])
    taught = (test[:, seen] @ ridge(windows, seen) for windows in (made, data.draw(n, 30_000 + seed)))
    ours, real = (np.abs(said - test[:, ~seen]).mean(1) for said in taught)
    return ours, real


def told(scores: dict[str, Floats], evaluations: dict[str, int], windows: int, samples: int, steps: int) -> str:
    paid = {"conditional": steps, "quantile": evaluations["sample"], "square": evaluations["sample"]}
    paid["refined"] = evaluations["refine"]
    rows = [[name, float(score.mean()), paid.get(name, 0)] for name, score in scores.items()]
    return (
        f"Windows of 36 with a period of 12, the last 12 to forecast; {windows} windows, {samples} samples each, "
        f"{steps} ancestral steps. An evaluation is a row of the network, a gradient three.\n\n"
        f"{table(['forecast', 'CRPS', 'evaluations a sample'], rows)}"
    )
