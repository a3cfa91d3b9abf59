"""How small networks learn: one loop, which keeps a running average of the weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """What training took: updates, examples shown, seconds on the clock and of processor."""

    updates: int
    examples: int
    seconds: float
    cpu_seconds: float


class Rates(Protocol):
    """What of a recipe decides its loop."""

    @property
    def updates(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def average(self) -> float: ...


def averaged(
    net: nn.Module,
    recipe: Rates,
    loss_of: Callable[[], Tensor],
    decay: float,
    say: Callable[[str], None] | None = None,
    every: int = 500,
) -> Cost:
    """Trains `net` on `loss_of()`, the loss of a fresh batch, and leaves it with the average of its weights.

    AdamW with a warm-up of 100 updates, a constant rate, and a fall to a fiftieth over the second half.
    """
    net.train()
    held = {k: v.clone() for k, v in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), recipe.rate, betas=(0.9, 0.99), weight_decay=decay)
    began, began_cpu = time.perf_counter(), time.process_time()
    for update in range(recipe.updates):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (update + 1) / 100, 0.02 + 2 * (1 - update / recipe.updates))
        loss = loss_of()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        keep = min(recipe.average, (1 + update) / (10 + update))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                held[name].lerp_(value, 1 - keep)
        if say and update % every == 0:
            say(f"{time.perf_counter() - began:.0f} s, update {update}, loss {loss.item():.4f}")
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    net.load_state_dict(held)
    net.eval()
    return Cost(recipe.updates, recipe.updates * recipe.batch, round(seconds, 1), round(cpu, 1))
