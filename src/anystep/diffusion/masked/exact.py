"""Every path of a small masked process, enumerated: its law, tilted laws, and soft values without error."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from anystep.diffusion.masked.process import MaskedProcess
from anystep.diffusion.masked.states import Masked
from anystep.errors import UsageError
from anystep.process import Floats, Potential, potential

Tokens = tuple[int, ...]
MOST = 20_000


class Lattice:
    """What a masked process can reach, pass by pass, and how likely it is.

    process: one whose order does not read what was drawn, and small: (symbols + 1)^length partial sequences at most
    20,000. Raises UsageError otherwise.
    """

    def __init__(self, process: MaskedProcess) -> None:
        model = process.model
        if process.order.reads or (model.symbols + 1) ** model.length > MOST:
            raise UsageError(
                f"Lattice({process.name}, {process.order!r}): an order that does not read what was drawn, and at most "
                f"{MOST:,} partial sequences, such as 5 sites of 3 symbols."
            )
        self.process = process
        levels: list[dict[Tokens, float]] = [{tuple(process.given.tolist()): 1.0}]
        self.onward: dict[Tokens, list[tuple[Tokens, float]]] = {}
        for index in range(process.passes):
            count, following = int(process.hidden[index] - process.hidden[index + 1]), dict[Tokens, float]()
            for tokens, mass in levels[-1].items():
                self.onward[tokens] = self._children(tokens, count)
                for child, p in self.onward[tokens]:
                    following[child] = following.get(child, 0.0) + mass * p
            levels.append(following)
        self.levels = levels

    def _children(self, tokens: Tokens, count: int) -> list[tuple[Tokens, float]]:
        process = self.process
        rows = torch.tensor([tokens], device=process.model.device)
        condition = torch.tensor([process.condition], device=process.model.device)
        logs = process.model(rows, condition)[0].to(torch.float64).cpu().numpy()
        p = _tempered(logs, process.temperature)
        found = []
        for sites, chance in process.order.choices(np.array(tokens) == process.model.mask, count):
            for symbols in product(range(process.model.symbols), repeat=count):
                mass = chance * float(np.prod([p[i, s] for i, s in zip(sites, symbols, strict=True)]))
                if mass > 0:
                    filled = dict(zip(sites, symbols, strict=True))
                    found.append((tuple(filled.get(i, t) for i, t in enumerate(tokens)), mass))
        return found

    @cached_property
    def law(self) -> dict[Tokens, float]:
        """Every output and its probability."""
        return dict(sorted(self.levels[-1].items()))

    def tilted(self, function: Callable[[Tokens], float]) -> dict[Tokens, float]:
        """The law p(x) exp(function(x)) / Z over outputs."""
        joint = {x: p * float(np.exp(function(x))) for x, p in self.law.items()}
        total = sum(joint.values())
        return {x: j / total for x, j in joint.items()}

    def soft_value(self, function: Callable[[Tokens], float], name: str = "soft_value") -> Potential:
        """log E[exp(function(output)) | state], for every state of the process: with it as its potential and one
        resampling a pass, a particle filter's weights are all equal."""
        value = {x: float(np.exp(function(x))) for x in self.law}
        for level in reversed(self.levels[:-1]):
            for tokens in level:
                value[tokens] = sum(p * value[child] for child, p in self.onward[tokens])

        def read(states: Masked) -> Floats:
            return np.log([value[tuple(row)] for row in states.tokens.tolist()])

        return potential(read, name)


def _tempered(logs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    if temperature == 0:
        return np.eye(logs.shape[-1])[logs.argmax(-1)]
    p = np.exp((logs - logs.max(-1, keepdims=True)) / temperature)
    return np.asarray(p / p.sum(-1, keepdims=True))
