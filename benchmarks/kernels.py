"""Kernels at equal settings: ours beside blackjax's and numpyro's, on targets whose moments are known.

    python -m venv peers && peers/bin/pip install torch==2.13.0 blackjax==1.7.1 numpyro==0.22.0 -e '.[bayes]'
    peers/bin/python benchmarks/kernels.py

Every kernel runs the same number of chains from draws of the target itself, so that no warm-up is compared; for
Hamiltonian Monte Carlo and the random walk the step, the trajectory's length and the scale are the same for both
libraries. What is compared is effective samples per evaluation (bulk, the smallest over coordinates, by arviz for all),
with an interval over groups of chains, and how far each mean is from the truth in its own standard errors. numpyro's
NUTS adapts for itself in 500 draws, whose evaluations are not counted, and is shown for what a user of it gets.
Seconds are reported with compilation apart, and decide nothing. Results go to docs/bayes/kernels.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats

from anystep.bayes import mcmc

OUT = Path(__file__).parent.parent / "docs" / "bayes" / "kernels.json"
CHAINS, DRAWS, GROUPS = 64, 1_000, 8
STEPS = 5


@dataclass(frozen=True)
class Problem:
    """A skewed law made of independent log-exponential coordinates by a matrix that is neither diagonal nor symmetric;
    `slant` (d, d) takes them to the target's coordinates."""

    name: str
    slant: np.ndarray
    hmc: float
    walk: float

    @property
    def dimension(self) -> int:
        return len(self.slant)

    @property
    def mean(self) -> np.ndarray:
        return self.slant @ np.full(self.dimension, -np.euler_gamma)

    @property
    def lower(self) -> np.ndarray:
        return np.linalg.cholesky(self.slant @ self.slant.T * np.pi**2 / 6)

    def draws(self, n: int, seed: int) -> np.ndarray:
        return np.log(np.random.default_rng(seed).exponential(size=(n, self.dimension))) @ self.slant.T


def slanted(dimension: int) -> np.ndarray:
    rng = np.random.default_rng(dimension)
    return np.tril(rng.normal(size=(dimension, dimension)) * 0.4, -1) + np.diag(rng.uniform(0.3, 2.0, dimension))


PROBLEMS = (
    Problem("2 coordinates", np.array([[1.0, 0.0], [1.5, 0.5]]), 0.5, 1.5),
    Problem("10 coordinates", slanted(10), 0.4, 0.7),
)


@dataclass(frozen=True)
class Row:
    problem: str
    kernel: str
    library: str
    evaluations: int
    per_evaluation: float
    low: float
    high: float
    worst_z: float
    acceptance: float
    seconds: float


def row(problem: Problem, kernel: str, library: str, x: np.ndarray, evaluations: int, accept: float, s: float) -> Row:
    """x: (chains, draws, d)."""

    def smallest(part: np.ndarray, method: str = "bulk") -> float:
        return min(
            float(array_stats.ess(c, chain_axis=0, draw_axis=1, method=method)) for c in np.moveaxis(part, -1, 0)
        )

    size = len(x) // GROUPS
    groups = np.array([smallest(x[i * size : (i + 1) * size]) for i in range(GROUPS)]) * GROUPS / evaluations
    error = groups.std(ddof=1) / np.sqrt(GROUPS) * 2.36  # t at 95% with seven degrees of freedom
    flat = x.reshape(-1, x.shape[-1])
    effective = [float(array_stats.ess(c, chain_axis=0, draw_axis=1, method="mean")) for c in np.moveaxis(x, -1, 0)]
    z = np.abs(flat.mean(0) - problem.mean) / (flat.std(0, ddof=1) / np.sqrt(effective))
    per = float(groups.mean())
    return Row(problem.name, kernel, library, evaluations, per, per - error, per + error, float(z.max()), accept, s)


def ours(problem: Problem) -> list[Row]:
    back = torch.tensor(np.linalg.inv(problem.slant))

    def log_density(x: torch.Tensor) -> torch.Tensor:
        u = (back * x[:, None, :]).sum(-1)
        return (u - u.exp()).sum(-1)

    target, found = mcmc.Target(log_density, problem.dimension), []
    kernels = {
        "hmc": mcmc.HMC(target, problem.hmc, STEPS, problem.lower),
        "random walk": mcmc.RandomWalk(target, problem.walk, problem.lower),
        "slice": mcmc.Slice(target, 2.5, problem.lower),
    }
    for name, kernel in kernels.items():
        began = time.perf_counter()
        start = mcmc.Walkers.at(problem.draws(CHAINS, 1))
        chains = mcmc.sample(kernel, DRAWS, start, seed=2)
        seconds = time.perf_counter() - began
        evaluations, accept = chains.cost.evaluations, float(chains.acceptance.mean())
        found.append(row(problem, name, "anystep", chains.position, evaluations, accept, seconds))
    return found


def blackjax(problem: Problem) -> list[Row]:
    import blackjax as peer
    import jax
    import jax.numpy as jnp

    back, covariance = jnp.array(np.linalg.inv(problem.slant)), problem.lower @ problem.lower.T

    def log_density(x: Any) -> Any:
        u = back @ x
        return (u - jnp.exp(u)).sum()

    hmc = peer.hmc(log_density, problem.hmc, jnp.array(covariance), STEPS)
    walk = peer.additive_step_random_walk.normal_random_walk(log_density, problem.walk * jnp.array(problem.lower))
    start = jnp.array(problem.draws(CHAINS, 1))
    found = []
    for name, kernel, cost in (("hmc", hmc, STEPS), ("random walk", walk, 1)):

        def run(key: Any, kernel: Any = kernel) -> Any:
            def move(states: Any, key: Any) -> Any:
                states, info = jax.vmap(kernel.step)(jax.random.split(key, CHAINS), states)
                return states, (states.position, info.acceptance_rate)

            states = jax.vmap(kernel.init)(start)
            return jax.lax.scan(move, states, jax.random.split(key, DRAWS))[1]

        compiled = jax.jit(run)
        jax.block_until_ready(compiled(jax.random.key(0)))
        began = time.perf_counter()
        position, accept = jax.block_until_ready(compiled(jax.random.key(3)))
        seconds = time.perf_counter() - began
        x = np.moveaxis(np.asarray(position), 0, 1)
        found.append(row(problem, name, "blackjax", x, CHAINS * (DRAWS * cost + 1), float(accept.mean()), seconds))
    return found


def numpyro(problem: Problem) -> list[Row]:
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    back = jnp.array(np.linalg.inv(problem.slant))

    def potential(x: Any) -> Any:
        u = back @ x
        return -(u - jnp.exp(u)).sum()

    chains = MCMC(
        NUTS(potential_fn=potential, dense_mass=True),
        num_warmup=500,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    began = time.perf_counter()
    start = jnp.array(problem.draws(CHAINS, 1))
    chains.run(jax.random.key(4), init_params=start, extra_fields=("num_steps", "accept_prob"))
    seconds = time.perf_counter() - began
    extra = chains.get_extra_fields()
    x = np.asarray(chains.get_samples(group_by_chain=True))
    evaluations = int(extra["num_steps"].sum())
    return [row(problem, "nuts", "numpyro", x, evaluations, float(extra["accept_prob"].mean()), seconds)]


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    libraries: tuple[Callable[[Problem], list[Row]], ...] = (ours, blackjax, numpyro)
    rows = [found for problem in PROBLEMS for library in libraries for found in library(problem)]
    print(
        f"{'problem':16}{'kernel':13}{'library':10}{'ESS/evaluation':>15}{'95%':>18}{'worst z':>9}{'accept':>8}{'s':>7}"
    )
    for r in rows:
        between = f"[{r.low:.4f}, {r.high:.4f}]"
        print(
            f"{r.problem:16}{r.kernel:13}{r.library:10}{r.per_evaluation:15.4f}{between:>18}{r.worst_z:9.2f}"
            f"{r.acceptance:8.2f}{r.seconds:7.2f}"
        )
    OUT.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
