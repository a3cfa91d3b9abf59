"""An exponential Adams method: the prediction foretold from the last ones, and the foretold step mended afterwards.

Sources: Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator" (ICLR 2023), for polynomials in
time under an exact linear part; Lu et al., "DPM-Solver++" (2022), arXiv 2211.01095, for doing so with the clean thing;
Zhao et al., "UniPC" (NeurIPS 2023), for mending a step with the next step's evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.diffusion.solvers.solver import Here, Level, Reached, Solver, rows_where
from anystep.diffusion.spacing import FlowTime
from anystep.errors import UsageError
from anystep.process import Floats

Rows = NDArray[np.int64]
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """x' / sigma' = x / sigma + the integral of clean d(alpha / sigma), with clean a polynomial in flow time.

    Flow time is u = sigma / (scale alpha + sigma), in which a prediction changes evenly. A step foretells with the last
    `order` predictions; when the model has answered at the point reached, the step is taken again with that answer and
    one more node, and the next step starts from there: one evaluation a step all the same. The last step, to no noise,
    takes the prediction as it is. Depends on noise levels alone, so that VP, VE and flow models take it alike.

    Preserves the model's law as steps grow: the error falls as 1 / steps^2 from order 2 on, for the last step's sake.
    steps: 1 or more. order: 1 to 3, how many predictions foretell. corrects: whether steps are mended. scale: the
    data's standard deviation, roughly. Raises UsageError for other orders and scales.
    """

    order: int = 2
    corrects: bool = True
    scale: float = 1.0

    kept: ClassVar[int] = 4  # the last point as it was left, and three predictions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3) or not 0 < self.scale < np.inf:
            raise UsageError(f"{self!r}: order is 1, 2 or 3 and scale positive; PredictorCorrector(steps=8).")

    def step(self, here: Here) -> Reached:
        now, then, left = here.now, here.then, here.memory[:, 0]
        said = [here.clean, *here.memory[:, 1:].unbind(1)]  # predictions, the latest first
        levels = [now, here.levels(-1), here.levels(-2), here.levels(-3)]
        x = here.x
        if self.corrects:
            mended = self.moved(left, levels[1], now, said, levels, np.minimum(here.index + 1, self.order + 1))
            x = torch.where(rows_where(here, here.index > 0), mended, x)
        ahead = self.moved(x, now, then, said, levels, np.minimum(here.index + 1, self.order))
        reached = torch.where(then.sigma > 0, ahead, here.clean)
        return Reached(reached, memory=torch.stack([x.to(here.x.dtype), *said[:3]], 1))

    def moved(
        self,
        x: Tensor,
        now: Level,
        then: Level,
        said: Sequence[Tensor],
        levels: Sequence[Level],
        nodes: NDArray[np.int64],
    ) -> Tensor:
        """x from now to then, with the first `nodes` predictions (a number a row) interpolated between their levels."""
        times = np.stack([self.flow_time(level) for level in (now, then, *levels[: int(nodes.max())])], -1)
        shares = torch.as_tensor(weights(times[:, 0], times[:, 1], times[:, 2:], nodes) / self.scale, device=x.device)
        pulled = sum(shares[:, i].reshape(now.t.shape) * said[i] for i in range(shares.shape[1]))
        return then.sigma * (x / now.sigma + pulled)

    def flow_time(self, level: Level) -> Floats:
        """(n,) noise as a share of scaled signal and noise."""
        alpha, sigma = (v.flatten().cpu().numpy() for v in (level.alpha, level.sigma))
        return np.asarray(sigma / (self.scale * alpha + sigma))


def weights(now: Floats, then: Floats, at: Floats, nodes: Rows) -> Floats:
    """(n, k) the integral of each Lagrange polynomial on `at` (n, k) from u = now to then, over d(1 / u).

    nodes: (n,) how many of a row's points are in use; the others weigh nothing. A row that ends at u = 0 has none.
    """
    rows = np.column_stack([now, then, at, nodes])
    if len(rows) > 1 and (rows == rows[:1]).all():
        return np.broadcast_to(weights(now[:1], then[:1], at[:1], nodes[:1]), at.shape)
    then = np.where(then > 0, then, now)
    low, high = -np.log(now), -np.log(then)  # in log(1 / u), where d(1 / u) is smooth on long steps too
    half = 0.5 * (high - low)
    where = half[:, None] * POINTS + 0.5 * (high + low)[:, None]
    u, mass = np.exp(-where), half[:, None] * WEIGHTS * np.exp(where)
    used = np.arange(at.shape[1]) < nodes[:, None]
    found = np.zeros_like(at)
    for i in range(at.shape[1]):
        basis = np.ones_like(u)
        for j in range(at.shape[1]):
            if j != i:
                gap = np.where(used[:, i] & used[:, j], at[:, i] - at[:, j], np.inf)[:, None]
                basis *= np.where(np.isinf(gap), 1.0, (u - at[:, j, None]) / gap)
        found[:, i] = np.where(used[:, i], (mass * basis).sum(-1), 0.0)
    return found


def few_step(steps: int = 8, scale: float = 1.0) -> PredictorCorrector:
    """The default for few evaluations, 5 to 30: second order, mended, at even flow times; `steps` evaluations a sample.

    Preserves the model's law as steps grow. scale: the data's standard deviation, roughly: 1 for normalised data. The
    grid is a little finer where there is little noise than flow time of that scale is: 0.7 was chosen on random
    mixtures of several dimensions. There third order is a little better still; with guidance it is worse.
    """
    return PredictorCorrector(steps, FlowTime(0.7 * scale), scale=scale)
