"""How much a graph holds: the bytes of the tensors that autograd keeps for its way back, at their most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Held:
    """Bytes and tensors saved at this moment, and the most bytes so far."""

    now: int = 0
    most: int = 0


class _Kept:
    """A saved tensor, whose end is noticed."""

    def __init__(self, tensor: Tensor, held: Held) -> None:
        self.tensor, self.held = tensor, held
        held.now += tensor.nbytes
        held.most = max(held.most, held.now)

    def __del__(self) -> None:
        self.held.now -= self.tensor.nbytes


def saved_bytes(work: Callable[[], object]) -> int:
    """The most bytes that graphs held at once while `work()` ran; a tensor that is saved twice counts twice."""
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, held), lambda kept: kept.tensor):
        work()
    return held.most
