"""What sampling costs beside the network: the share of a sample's processor time that is not the network's own.

    python benchmarks/sampling_overhead.py

The network's time is that of its forward passes, timed inside the run; the rest is ours: the solver's arithmetic,
noise, the books, the process. Two networks: the shipped digits (8x8), and an untrained convolutional one of 28x28
images, whose time does not depend on training. `sample` and a whole run of `search.sample` (population, ledger, family)
on the same process. Medians of alternating repeats.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from anystep import search
from anystep.diffusion import DiffusionProcess, Flow, Network, few_step, sample
from anystep.diffusion.models import digits
from anystep.diffusion.solvers import DDPM, DPMpp2M, Heun, Solver
from anystep.run import Run

REPEATS = 3
SOLVERS: dict[str, Solver] = {
    "few_step(8)": few_step(8),
    "DPMpp2M(20)": DPMpp2M(20),
    "Heun(10)": Heun(10),
    "DDPM(20)": DDPM(20),
}


class Convolutional(nn.Module):
    """A small convolutional network of 28x28 images."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        image = x[:, None]
        h = self.first(torch.cat([image, t[:, None, None, None].expand_as(image)], 1))
        for layer in self.inner:
            h = h + torch.nn.functional.silu(layer(h))
        answer: Tensor = self.last(h)[:, 0]
        return answer


class Timed:
    """The processor time of a module's forward passes."""

    def __init__(self, module: nn.Module) -> None:
        self.seconds, self._began = 0.0, 0.0
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, *rest: Any) -> None:
        self._began = time.process_time()

    def _after(self, *rest: Any) -> None:
        self.seconds += time.process_time() - self._began


def searched(model: Network, solver: Solver, n: int) -> None:
    run = Run(DiffusionProcess(model, solver), search.sample(n=n))
    while run.calls:
        run.tell([call.perform() for call in run.calls])


def share(timed: Timed, work: Callable[[], object]) -> tuple[float, float]:
    """The network's share and milliseconds in all, of one piece of work."""
    timed.seconds, began = 0.0, time.process_time()
    work()
    total = time.process_time() - began
    return 1 - timed.seconds / total, 1e3 * total


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models: dict[str, tuple[Network, tuple[int, ...]]] = {
        "digits 8x8": (digits(), (1, 500)),
        "convolutional 28x28": (Network(Convolutional(), Flow(), (28, 28), least=2), (1, 32)),
    }
    print("| network | rows | solver | sample: beside the network | a run: beside the network | ms in all |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (model, sizes) in models.items():
        timed = Timed(model.module)
        for rows in sizes:
            for label, solver in SOLVERS.items():
                plain, whole = [], []
                for _ in range(REPEATS):
                    plain.append(share(timed, lambda m=model, s=solver, n=rows: sample(m, s, n)))
                    whole.append(share(timed, lambda m=model, s=solver, n=rows: searched(m, s, n)))
                shares = [statistics.median(s for s, _ in side) for side in (plain, whole)]
                total = statistics.median(ms for _, ms in plain)
                print(f"| {name} | {rows} | {label} | {shares[0]:.1%} | {shares[1]:.1%} | {total:.1f} |", flush=True)


if __name__ == "__main__":
    main()
