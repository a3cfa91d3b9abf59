"""What this machine can do at best: bytes read a second by working-set size, operations a second by arithmetic.

The two terms of a roofline (Williams, Waterman and Patterson, 2009): a step that must read so many bytes and multiply
so many numbers takes at least the longer of the two times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from anystep.language.engine.llama import Config

KINDS = ("fp32", "bf16", "int8")
SIZES = (1 << 20, 16 << 20)  # working sets that are measured beside the model's own
LARGEST = 512 << 20  # a working set is not measured beyond this
PREFILL = 512  # rows of a product as large as a prompt's
Q4_1_BITS = 5  # a weight: 4 bits, and for each 32 of them a scale and a least value in fp16
TRIES = 5
LEAST = 1e-3  # seconds that one try of a product lasts at least


@dataclass(frozen=True)
class Machine:
    """`bandwidth[size]` in bytes a second; `rates[kind][rows]` in operations a second, a multiply and an add counted as
    two, over a layer's own matrices; `threads` torch threads."""

    threads: int
    bandwidth: Mapping[int, float]
    rates: Mapping[str, Mapping[int, float]]

    def peak(self, kind: str) -> float:
        """The best rate at which `kind` of arithmetic was seen to run, at any number of rows. Narrow floats may be
        widened first, so they are no slower than fp32."""
        best = {k: max(by_rows.values()) for k, by_rows in self.rates.items()}
        return max(best["fp32"], best.get(kind, 0.0)) if kind in ("fp32", "fp16", "bf16") else best[kind]

    @property
    def fastest(self) -> float:
        """The best rate of any arithmetic."""
        return max(self.peak(kind) for kind in self.rates)

    def reading(self, size: int) -> float:
        """Bytes a second at the measured working set nearest in proportion to `size`."""
        return self.bandwidth[min(self.bandwidth, key=lambda known: abs(math.log(known / max(size, 1))))]

    def least(self, read: float, operations: Mapping[str, float], size: int) -> tuple[float, str]:
        """Seconds that reading `read` bytes and these operations by kind take at least, and which of them decides."""
        bytes_term = read / self.reading(size)
        product_term = sum(count / self.peak(kind) for kind, count in operations.items())
        return max((bytes_term, "bytes"), (product_term, "products"))


def measure_machine(config: Config, size: int, rows: Sequence[int] = (1, 8, 32, 64)) -> Machine:
    """This machine under torch's present number of threads, for a model of this shape that reads `size` bytes a pass.

    The best of a few tries each: what else runs makes single tries slower, never faster. Takes a second or two.
    """
    shapes = layer_shapes(config)
    own = (size, packed4(config))
    sizes = sorted({*(s for s in SIZES if s < max(own)), *(min(s, LARGEST) for s in own)})
    counts = sorted({*rows, PREFILL})
    return Machine(
        threads=torch.get_num_threads(),
        bandwidth={size: bandwidth(size) for size in sizes},
        rates={kind: {n: product_rate(kind, n, shapes) for n in counts} for kind in KINDS},
    )


def layer_shapes(config: Config) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of a layer's matrices, those that read the same input as one."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return (
        (config.dim, queries + 2 * keys),
        (queries, config.dim),
        (config.dim, 2 * config.hidden),
        (config.hidden, config.dim),
    )


def packed4(config: Config) -> int:
    """Bytes of the matrices that a pass reads, head included, as GGUF's Q4_1 keeps them."""
    weights = config.layers * sum(a * b for a, b in layer_shapes(config)) + config.vocab * config.dim
    return weights * Q4_1_BITS // 8


def bandwidth(size: int) -> float:
    """Bytes a second at which torch reads a working set of `size` bytes over and over, by its fastest way to."""
    wide = min(4096, size // 4)
    matrix = torch.ones(max(size // 4 // wide, 1), wide)
    vector, again = torch.ones(wide), max(1, (8 << 20) // size)
    ways: tuple[Callable[[], object], ...] = (lambda: torch.mv(matrix, vector), matrix.sum)
    return matrix.nbytes / min(shortest(way, again) for way in ways)


@torch.inference_mode()
def product_rate(kind: str, rows: int, shapes: Iterable[tuple[int, int]]) -> float:
    """Operations a second of products of `rows` rows with matrices (inputs, outputs), each at its best try."""
    seconds, operations = 0.0, 0
    for inputs, outputs in shapes:
        product, count = _product(kind, rows, inputs, outputs), 2 * rows * inputs * outputs
        once = shortest(product, 1, tries=1)
        seconds += shortest(product, max(1, int(LEAST / max(once, 1e-6))))
        operations += count
    return operations / seconds


def _product(kind: str, rows: int, inputs: int, outputs: int) -> Callable[[], object]:
    if kind == "int8":
        few, many = (torch.randint(-127, 128, (n, inputs), dtype=torch.int8) for n in (rows, outputs))
        return lambda: torch._int_mm(few, many.t())
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[kind]
    x, weight = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    return lambda: torch.nn.functional.linear(x, weight)


def shortest(work: Callable[[], object], again: int, tries: int = TRIES) -> float:
    """Seconds of one `work` at its best: CPU time where one thread does it, so that waiting does not count."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    work()
    taken = []
    for _ in range(tries):
        before = clock()
        for _ in range(again):
            work()
        taken.append(clock() - before)
    return max(min(taken) / again, 1e-9)
