"""The one contract of a diffusion or flow model: given something noisy, what is expected to lie behind it?

Whatever a network was trained to predict (the noise, the velocity, the clean thing), here it answers E[x_0 | x_t]; the
rest follows from the schedule. Solvers, guidance and search are written on this alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anystep.diffusion.schedules import Schedule
from anystep.errors import UsageError

NULL = -1  # the condition of a row that has none
Predicts = Literal["clean", "noise", "velocity"]


class Denoiser(ABC):
    """E[x_0 | x_t], for rows at times of their own.

    schedule: what x_t is. shape: of one row. classes: how many conditions there are, numbered from 0; 0 for a model
    that takes none. dtype, device: of what it is given and answers. A wrapper keeps what it wraps as `model`; what
    computes numbers itself does it in `forward`, where a hook counts the rows.
    """

    name: str = "denoiser"
    schedule: Schedule
    shape: tuple[int, ...]
    classes: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The clean thing that is expected. x: (n, *shape). t: (n,) float64 times above 0. condition: (n,) int64,
        `NULL` where there is none. Each row depends on itself alone. Differentiable in x."""

    def evaluations(self, t: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many rows of a network each row of a call takes at these times: 1, and 2 where guidance asks twice."""
        return np.ones(len(t), dtype=np.int64)

    def calls(self, t: NDArray[np.float64]) -> int:
        """How many batched calls of a network a call with these rows takes."""
        return int(len(t) > 0)

    def flops(self) -> float:
        """Floating-point operations of one row of the network, 0 where they are not known."""
        return 0.0

    def beside(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) floating-point operations of each row of a call that no evaluation counts, such as a small network's."""
        return np.zeros(len(t))

    def settings(self) -> str:
        """What decides its answers, as text: two with equal settings answer alike."""
        return self.name

    def answers(self, x: Tensor) -> tuple[Hashable, ...]:
        """What finished rows say, for votes and display: the numbers themselves, where they are few."""
        rows = x.detach().to(torch.float64).flatten(1).cpu().numpy()
        return tuple(tuple(row.tolist()) for row in rows)

    def texts(self, x: Tensor) -> tuple[str, ...]:
        """Finished rows as text, for display."""
        return tuple(" ".join(f"{v:.3g}" for v in row[:16]) for row in x.detach().flatten(1).tolist())


class Network(Denoiser):
    """A torch module as a denoiser: module(x, t, condition) predicts the noise, the velocity or the clean thing.

    module: takes x (n, *shape), t (n,) of x's dtype, and condition (n,) int64 in -1..classes-1; a module that takes no
    condition is called with x and t alone. predicts: what it was trained for. most: rows a call at most; larger batches
    are cut. least: rows a call at least, filled with copies: a row's result then does not depend on how many there are,
    since matrix products choose their order of summation by size. Raises UsageError for what it cannot predict.
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        shape: tuple[int, ...],
        predicts: Predicts = "velocity",
        classes: int = 0,
        name: str = "network",
        most: int = 1024,
        least: int = 16,
    ) -> None:
        if predicts not in ("clean", "noise", "velocity"):
            raise UsageError(f"predicts={predicts!r}: a network predicts 'clean', 'noise' or 'velocity'.")
        first = next(module.parameters(), torch.empty(0))
        self.module, self.schedule, self.shape, self.predicts = (
            module.eval().requires_grad_(False),
            schedule,
            shape,
            predicts,
        )
        self.classes, self.name, self.most, self.least = classes, name, most, least
        self.dtype, self.device = first.dtype, first.device

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        said = torch.cat(
            [self.forward(*rows) for rows in zip(*(v.split(self.most) for v in (x, t, condition)), strict=True)]
        )
        if said.shape != x.shape:
            raise UsageError(
                f"Network({self.name}): the module answers {tuple(said.shape[1:])} a row where {tuple(x.shape[1:])} is "
                "asked; a denoiser's network answers in the shape of x."
            )
        return clean_from(said, x, t, self.schedule, self.predicts)

    @cached_property
    def _weights(self) -> str:
        return weights_of(self.module.state_dict())

    def settings(self) -> str:
        return f"{self.name} ({self.predicts}, {self.schedule!r}, weights {self._weights})"

    def calls(self, t: NDArray[np.float64]) -> int:
        return -(-len(t) // self.most)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """What the module predicts, row by row."""
        n, args = len(x), (x, t.to(x.dtype), *((condition,) if self.classes else ()))
        if n < self.least:
            fill = torch.arange(self.least, device=x.device) % n
            args = tuple(a[fill] for a in args)
        said: Tensor = self.module(*args)
        return said[:n]


def weights_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of a model's numbers: what tells two of one name apart."""
    found = blake2b(digest_size=8)
    for name, value in tensors.items():
        found.update(f"{name}{tuple(value.shape)}".encode())
        found.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def clean_from(said: Tensor, x: Tensor, t: Tensor, schedule: Schedule, predicts: Predicts) -> Tensor:
    """E[x_0 | x_t] from what a network said of x at t."""
    if predicts == "clean":
        return said
    alpha, sigma = (spread(values(t), x) for values in (schedule.alpha, schedule.sigma))
    if predicts == "noise":
        return ((x - sigma * said) / alpha).to(x.dtype)
    alpha_rate, sigma_rate = (spread(rate, x) for rate in schedule.rates(t))
    return ((sigma_rate * x - sigma * said) / (alpha * sigma_rate - sigma * alpha_rate)).to(x.dtype)


def spread(values: object, x: Tensor) -> Tensor:
    """(n,) numbers as a float64 tensor that multiplies rows of x."""
    return torch.as_tensor(np.asarray(values, dtype=np.float64), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
