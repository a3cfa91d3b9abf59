"""States of diffusion processes: rows of tensors and the clock, and nothing that can be computed again."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.process import Floats
from anystep.stepwise import Arrays


@dataclass(frozen=True, eq=False)
class Rows(Arrays):
    """States whose fields are tensors and arrays with the states first; subclasses only name the fields."""

    def join(self, *others: Any) -> Self:
        def side_by_side(name: str) -> Any:
            parts = [getattr(s, name) for s in (self, *others)]
            return torch.cat(parts) if isinstance(parts[0], Tensor) else np.concatenate(parts)

        return replace(self, **{f.name: side_by_side(f.name) for f in fields(self)})

    def take(self, index: NDArray[np.int64]) -> Self:
        return self if _everyone(index, len(self)) else super().take(index)

    def put(self, rows: NDArray[np.int64], states: Self) -> Self:
        if _everyone(rows, len(self)):
            return states
        copies = {f.name: getattr(self, f.name) for f in fields(self)}
        copies = {name: a.clone() if isinstance(a, Tensor) else a.copy() for name, a in copies.items()}
        for name, copy in copies.items():
            copy[rows] = getattr(states, name)
        return replace(self, **copies)

    def contents(self) -> tuple[tuple[bytes, ...], ...]:
        arrays = [np.ascontiguousarray(_host(getattr(self, f.name))) for f in fields(self)]
        return tuple(tuple(a[row].tobytes() for a in arrays) for row in range(len(self)))

    def dump(self) -> bytes:
        arrays = {f.name: np.ascontiguousarray(_host(getattr(self, f.name))) for f in fields(self)}
        header = [[name, a.dtype.str, a.shape] for name, a in arrays.items()]
        return json.dumps(header).encode() + b"\n" + b"".join(a.tobytes() for a in arrays.values())

    @classmethod
    def read(cls, data: bytes, device: torch.device) -> Self:
        """What `dump` wrote, with its tensors on `device`."""
        plain = cls.load(data)
        tensors = {f.name: torch.from_numpy(getattr(plain, f.name)) for f in fields(cls) if f.type == "Tensor"}
        return replace(plain, **{name: a.to(device) for name, a in tensors.items()})


@dataclass(frozen=True, eq=False)
class Noised(Rows):
    """n things on their way from noise to data.

    x: (n, *shape). clean: (n, *shape), E[x_0 | x] as the model has predicted it at x, which rewards read for nothing
    and the next step starts from; x itself where the state is done. memory: (n, k, *shape), what a multistep solver
    keeps. index: (n,) steps taken. time: (n,) that x was shown to the model at. known: (n,) False where `clean` was
    not paid for yet. condition: (n,), -1 for none.
    """

    x: Tensor
    clean: Tensor
    memory: Tensor
    index: NDArray[np.int64]
    time: Floats
    known: NDArray[np.bool_]
    condition: NDArray[np.int64]


def _host(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _everyone(rows: NDArray[np.int64], n: int) -> bool:
    """Whether these are all rows in their order: states are never changed in place, so none has to be copied."""
    return len(rows) == n and bool((np.asarray(rows) == np.arange(n)).all())
