"""How many threads should torch use? One where cores are shared and busy, more only where that was seen to pay.

A library that changes torch's threads behind its caller's back would slow down everything else in the process, so
`load` does not: the command line calls `settle` before it loads a model, and your program may.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

SPEEDUP = 1.3  # n threads must be this much faster than one to be worth the cores they take from others
TRIES = 7
PATIENCE = 0.015  # seconds: on busy cores one product of several threads may wait as long for the last of them
CGROUP = Path("/sys/fs/cgroup")
ROWS, INPUTS, OUTPUTS = 8, 1024, 2048  # of the product that is tried: a step of a small model, under 2 ms


@dataclass(frozen=True)
class Choice:
    """`threads`, and why: a clause to be read by people."""

    threads: int
    why: str


def usable_cores(cgroup: Path = CGROUP) -> float:
    """Cores that this process may use: its affinity, and the quota of its control group where there is one."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min(cores, quota(cgroup) or cores)


def quota(cgroup: Path = CGROUP) -> float | None:
    """CPU time a second that the control group allows (version 2, or 1), None where it does not limit."""
    try:
        if (cgroup / "cpu.max").exists():
            allowed, period = (cgroup / "cpu.max").read_text().split()
        else:
            allowed = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None


def choose(
    cores: float | None = None, load: float | None = None, probe: Callable[[int], float] | None = None
) -> Choice:
    """The number of threads for torch on this machine as it is now; changes nothing for good.

    A number that was already set stays: OMP_NUM_THREADS in the environment, or `torch.set_num_threads` with anything
    but torch's own default. Else: one on a single core, or where the load average of the last minute leaves no second
    core free; else as many as are free, if a short product runs SPEEDUP times as fast with them as with one, tried
    in turn under the present load (10 to 40 ms). `cores`, `load` and `probe` (threads to seconds) are measured here.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return Choice(torch.get_num_threads(), "OMP_NUM_THREADS says so")
    whole = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.get_num_threads() != whole:
        return Choice(torch.get_num_threads(), "torch.set_num_threads was called")
    cores = usable_cores() if cores is None else cores
    if cores < 2:
        return Choice(1, "there is one core to use")
    if load is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    free = int(min(cores, cores - load + 0.5))
    if free < 2:
        return Choice(1, f"of {cores:g} cores {load:.1f} are busy")
    one, many = _tried(free) if probe is None else (probe(1), probe(free))
    if one < SPEEDUP * many:
        return Choice(1, f"{free} threads ran a product only {one / many:.1f} times as fast as one")
    return Choice(free, f"{free} threads ran a product {one / many:.1f} times as fast as one")


def settle() -> Choice:
    """Make torch use the number of threads that `choose` finds, for the whole process, and say which."""
    return use(choose())


def use(choice: Choice) -> Choice:
    """Make torch use these threads, for the whole process."""
    if choice.threads != torch.get_num_threads():
        torch.set_num_threads(choice.threads)
    return choice


@torch.inference_mode()
def _tried(many: int) -> tuple[float, float]:
    """Median seconds of a product with one thread and with `many`, in turn; torch's threads are left as they were."""
    before = torch.get_num_threads()
    x, weight = torch.ones(ROWS, INPUTS), torch.ones(OUTPUTS, INPUTS)
    torch.nn.functional.linear(x, weight)
    taken: dict[int, list[float]] = {1: [], many: []}
    begun = time.perf_counter()
    try:
        while len(taken[many]) < TRIES and time.perf_counter() - begun < PATIENCE:
            for threads, seconds in taken.items():
                torch.set_num_threads(threads)
                start = time.perf_counter()
                torch.nn.functional.linear(x, weight)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return statistics.median(taken[1]), statistics.median(taken[many])
