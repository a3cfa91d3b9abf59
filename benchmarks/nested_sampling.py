"""Evidences by dynesty, by nautilus and by ours, in one run: calls of the true likelihood, error, seconds.

    pip install -e ".[bayes]" nautilus-sampler==1.0.6
    python benchmarks/nested_sampling.py                     # three targets, two seeds: six core-minutes
    python benchmarks/nested_sampling.py gaussian wcdm 0    # these targets and seeds

Every call is counted by the likelihood itself. dynesty and ours run with 400 live points (`NestedSampler` is dynesty,
number for number, which the tests check). nautilus runs with its
defaults, whose error is smaller than theirs, and with as few live points and effective samples as bring it near theirs.
Without nautilus the others run alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anystep.bayes import SurrogateNestedSampler
from anystep.experiments._evidences import Target, gaussian, skewed, supernovae

LIVE = 400


@dataclass
class Counting:
    """The likelihood of a target with its calls counted."""

    target: Target
    calls: int = 0

    def __call__(self, x: Any) -> float:
        self.calls += 1
        return self.target.log_likelihood(np.asarray(x))


@dataclass(frozen=True)
class Row:
    """One run: log Z, what it reports as its error (nan if nothing), and the posterior mean."""

    sampler: str
    target: Target
    calls: int
    logz: float
    reported: float
    mean: Any
    seconds: float


Run = Callable[[Counting, int], tuple[float, float, Any]]


def dynesty(likelihood: Counting, seed: int) -> tuple[float, float, Any]:
    import dynesty as package

    target = likelihood.target
    sampler = package.NestedSampler(
        likelihood, target.prior, target.dim, nlive=LIVE, rstate=np.random.default_rng(seed)
    )
    sampler.run_nested(print_progress=False)
    found = sampler.results
    return found.logz[-1], found.logzerr[-1], found.importance_weights() @ found.samples


def ours(likelihood: Counting, seed: int) -> tuple[float, float, Any]:
    target = likelihood.target
    found = SurrogateNestedSampler(likelihood, target.prior, target.dim, LIVE).run(seed)
    return found.logz, found.logzerr, found.mean


def nautilus(**options: int) -> Run:
    def run(likelihood: Counting, seed: int) -> tuple[float, float, Any]:
        from nautilus import Sampler

        target = likelihood.target
        told = {k: v for k, v in options.items() if k != "n_eff"}
        sampler = Sampler(target.prior, likelihood, n_dim=target.dim, seed=seed, pass_dict=False, **told)
        sampler.run(verbose=False, **({"n_eff": options["n_eff"]} if "n_eff" in options else {}))
        points, log_w, _ = sampler.posterior()
        return sampler.log_z, float("nan"), np.exp(log_w) @ points / np.exp(log_w).sum()

    return run


SAMPLERS: dict[str, Run] = {"dynesty": dynesty, "SurrogateNestedSampler": ours}
try:
    import nautilus as _  # noqa: F401
except ImportError:
    print("nautilus-sampler is not installed: dynesty and ours alone")
else:
    SAMPLERS |= {"nautilus": nautilus(), "nautilus, 400 live, n_eff 400": nautilus(n_live=LIVE, n_eff=400)}


TARGETS: dict[str, Callable[[], Target]] = {"gaussian": gaussian, "skewed": skewed, "wcdm": supernovae}


def rows(target: Target, name: str, seeds: list[int]) -> Iterator[Row]:
    for seed in seeds:
        likelihood, began = Counting(target), time.process_time()
        logz, reported, mean = SAMPLERS[name](likelihood, seed)
        yield Row(name, target, likelihood.calls, logz, reported, mean, time.process_time() - began)


def main(targets: list[str], seeds: list[int]) -> None:
    torch.set_num_threads(1)
    print("| target | sampler | calls | rms error of log Z | reported | worst mean, sd | processor s |")
    print("|---|---|---|---|---|---|---|")
    for target in [TARGETS[key]() for key in targets]:
        for name in SAMPLERS:
            own = list(rows(target, name, seeds))
            error = np.sqrt(np.mean([(row.logz - row.target.logz) ** 2 for row in own]))
            means = max(np.abs((row.mean - row.target.mean) / row.target.sd).max() for row in own)
            told = np.mean([row.reported for row in own])
            calls, seconds = np.mean([row.calls for row in own]), np.mean([row.seconds for row in own])
            reported = "-" if np.isnan(told) else f"{told:.3f}"
            line = f"| {target.name} | {name} | {calls:,.0f} | {error:.3f} | {reported} | {means:.3f} | {seconds:.1f} |"
            print(line, flush=True)


if __name__ == "__main__":
    asked = sys.argv[1:]
    main([a for a in asked if a in TARGETS] or list(TARGETS), [int(a) for a in asked if a.isdigit()] or [0, 1])
