"""Row 53: Bayesian optimisation with neural surrogates, in one harness: which one is best depends on the problem.

Stated time: twelve minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from anystep.bayes.optimise import (
    HMC,
    SGHMC,
    BNNSurrogate,
    DeepKernelSurrogate,
    EnsembleSurrogate,
    GPSurrogate,
    InfiniteWidthSurrogate,
    Network,
    Surrogate,
    minimise_many,
)
from anystep.bayes.optimise.acquisition import sobol, stretched
from anystep.errors import UsageError
from anystep.experiments._figures import table
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 53
GATED = ("GP", "HMC", "ensemble", "infinite width", "deep kernel")
HMC_TOO = ("relu", "prior variance 1")  # the ablations that HMC runs too, for time
SURROGATES: Mapping[str, Surrogate] = {
    "GP": GPSurrogate(),
    "infinite width": InfiniteWidthSurrogate(),
    "deep kernel": DeepKernelSurrogate(),
    "ensemble": EnsembleSurrogate(),
    "HMC": BNNSurrogate(),
    "SGHMC": BNNSurrogate(inference=SGHMC()),
}


@dataclass(frozen=True)
class Problem:
    """A function (...) of points (..., dimensions) of the unit cube, and its lowest value."""

    name: str
    dimensions: int
    lowest: float
    value: Callable[[Tensor], Tensor] = field(repr=False)


def branin(u: Tensor) -> Tensor:
    """Branin's function on [-5, 10] x [0, 15]: three equal minima."""
    a, b = 15 * u[..., 0] - 5, 15 * u[..., 1]
    bend = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
    return bend**2 + 10 * (1 - 1 / (8 * math.pi)) * torch.cos(a) + 10


HEIGHTS = (1.0, 1.2, 3.0, 3.2)
NARROW = ((10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14), (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14))
PLACES = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def hartmann6(u: Tensor) -> Tensor:
    """Hartmann's function of six inputs: four wells."""
    heights, narrow, places = (torch.tensor(c, dtype=u.dtype) for c in (HEIGHTS, NARROW, PLACES))
    apart = (narrow * (u[..., None, :] - places).square()).sum(-1)
    return -(heights * torch.exp(-apart)).sum(-1)


def gramacy_lee(u: Tensor) -> Tensor:
    """Gramacy and Lee's (2008) on [-2, 6]^2: a peak and a well in one corner, flat elsewhere."""
    a, b = 8 * u[..., 0] - 2, 8 * u[..., 1] - 2
    return a * torch.exp(-a.square() - b.square())


def ackley50(u: Tensor) -> Tensor:
    """Ackley's function of 50 inputs on [-5, 10]^50: its minimum is away from the middle."""
    x = 15 * u - 5
    near = torch.exp(-0.2 * x.square().mean(-1).sqrt())
    return -20 * near - torch.exp(torch.cos(2 * math.pi * x).mean(-1)) + 20 + math.e


PROBLEMS = (
    Problem("Branin", 2, 0.397887, branin),
    Problem("Hartmann6", 6, -3.32237, hartmann6),
    Problem("Gramacy-Lee", 2, -math.exp(-0.5) / math.sqrt(2), gramacy_lee),
    Problem("Ackley-50", 50, 0.0, ackley50),
)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    evaluations: int = 40,
    seeds: int = 5,
    nets: int = 60,
    width: int = 4096,
    draws: int = 1_200,
) -> Result:
    """Check every clause of the row. nets, width: of the random networks. draws: of each chain that R-hat is of.

    seeds: a run with another `seed` has others; the interval of a median of five is nearly its whole range.
    """
    began = time.perf_counter()
    apart = {a: frobenius(Network(width, 2, a), nets, seed) for a in ("erf", "relu")}
    wrong = covariance_error(apart["erf"][1], Network(width, 2, "relu"))
    progress(f"infinite width: {', '.join(f'{a} {e[0]:.4f}' for a, e in apart.items())}; the wrong kernel {wrong:.2f}")
    chance = {p.name: random_search(p, evaluations, seed) for p in PROBLEMS}
    regret: dict[tuple[str, str], Floats] = {}
    data: dict[str, tuple[Tensor, Tensor]] = {}
    for problem in PROBLEMS:
        for name, surrogate in SURROGATES.items():
            regret[problem.name, name], seen = compete(problem, surrogate, evaluations, seeds, seed)
            if name == "HMC":
                data[problem.name] = seen
            progress(told(problem.name, name, regret[problem.name, name], time.perf_counter() - began))
    mixed = {p.name: rhat(data[p.name], draws, seed) for p in PROBLEMS[:2]}
    progress(f"split R-hat {mixed}")
    changed = ablations(regret, evaluations, seeds, seed, progress)
    checks = (
        *(beats(p.name, s, regret[p.name, s], chance[p.name]) for p in PROBLEMS[:2] for s in GATED),
        *(
            Check(f"relative Frobenius error of the {a} kernel, {nets} nets of width {width}", e[0], "<", 0.02, e[2])
            for a, e in apart.items()
        ),
        *(
            Check(f"largest split R-hat of HMC's predictions at 30 test points, {name}", value[0], "<", 1.05)
            for name, value in mixed.items()
        ),
        Check("problems on which every surrogate is ranked", ranked(regret, seeds), "==", len(PROBLEMS)),
    )
    notes = "\n\n".join(
        (
            f"{evaluations} evaluations, 10 of them Sobol's and the rest in pairs; {seeds} seeds. "
            "Random search: 1,000 runs. Median regret, and mean rank over seeds:",
            ranks(regret, chance),
            fifty(regret),
            mixing(mixed, draws),
            f"The erf networks' covariance is {wrong:.2f} from the relu kernel's, so the 2% tells kernels apart.",
            "Median regret with another architecture or prior:",
            changed,
        )
    )
    return Result("bnn_surrogates", ROW, checks, time.perf_counter() - began, seed, notes)


def compete(
    problem: Problem, surrogate: Surrogate, evaluations: int, seeds: int, seed: int
) -> tuple[Floats, tuple[Tensor, Tensor]]:
    """Regrets (seeds,) after all evaluations, and all that was seen."""
    which = range(seed * seeds, (seed + 1) * seeds)
    x, y = minimise_many(problem.value, problem.dimensions, evaluations, surrogate, which, q=2)
    return y.amin(-1).numpy() - problem.lowest, (x, y)


def random_search(problem: Problem, evaluations: int, seed: int, runs: int = 1_000) -> float:
    """Median regret of uniform points."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(runs, evaluations, problem.dimensions, generator=generator, dtype=torch.float64)
    return float(problem.value(u).amin(-1).median()) - problem.lowest


def beats(problem: str, surrogate: str, regret: Floats, chance: float) -> Check:
    """The median regret over random search's, with a bootstrapped interval over seeds."""
    share = regret / chance
    at = np.random.default_rng(0).integers(0, len(share), (4_000, len(share)))
    low, high = np.quantile(np.median(share[at], 1), [0.025, 0.975])
    clause = f"{problem}: median regret with {surrogate} over random search's"
    return Check(clause, float(np.median(share)), "<", 1.0, (float(low), float(high)))


def frobenius(network: Network, nets: int, seed: int) -> tuple[float, Tensor, tuple[float, float]]:
    """Relative error of the infinite-width kernel on 12 points, the wide networks' covariances, and an interval.

    Each network's hidden weights are drawn; given them its outputs' covariance over readouts is known, and is averaged.
    """
    x = twelve()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(nets):
        theta = torch.randn(network.size(3), generator=generator)
        h = network.features(theta, x.float()).double()
        found.append(network.biases + network.weights * h @ h.mT / network.width)
    each = torch.stack(found)
    at = np.random.default_rng(seed).integers(0, nets, (500, nets))
    spread = [covariance_error(each[row], network) for row in at]
    low, high = np.quantile(spread, [0.025, 0.975])
    value = covariance_error(each, network)
    return value, each, (float(min(low, value)), float(max(high, value)))


def twelve() -> Tensor:
    """Points (12, 3) that are neither centred nor round."""
    return torch.as_tensor(sobol(12, 3, 0)) * torch.tensor([4.0, 1.0, 2.0]) - 1.0


def covariance_error(each: Tensor, network: Network) -> float:
    """How far the networks' mean covariance is from a network's infinite-width kernel."""
    k = network.limit()(twelve())
    return float((each.mean(0) - k).norm() / k.norm())


def rhat(seen: tuple[Tensor, Tensor], draws: int, seed: int) -> tuple[float, float, float]:
    """Largest rank-normalised split R-hat of predictions on the first seed's values: of long chains, and as optimised.

    Third is the smallest effective sample size of the long chains.
    """
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise UsageError('R-hat needs arviz-stats: pip install "anystep[bayes]"') from error
    x, y = seen[0][0], seen[1][0]
    at = stretched(torch.as_tensor(sobol(30, x.shape[-1], 1_000 + seed)))
    value = (y - y.mean()) / y.std(correction=0)
    short = BNNSurrogate()
    long = replace(short, chains=8, inference=HMC(warm=draws // 6, draws=draws, leaps=100))
    traces = [s.traces(stretched(x), value, at, seed).permute(2, 1, 0).numpy() for s in (long, short)]
    found = [float(array_stats.rhat(t, chain_axis=-2, draw_axis=-1).max()) for t in traces]
    return found[0], found[1], float(array_stats.ess(traces[0], chain_axis=-2, draw_axis=-1).min())


def ablations(
    regret: Mapping[tuple[str, str], Floats],
    evaluations: int,
    seeds: int,
    seed: int,
    progress: Callable[[str], None],
) -> str:
    """Architectures and prior variances: the infinite-width net on the first two problems, HMC on Hartmann6."""
    base, names = Network(), [p.name for p in PROBLEMS[:2]]
    medians = [regret[p, "infinite width"] for p in names] + [regret["Hartmann6", "HMC"]]
    rows: list[list[object]] = [["as compared", *(float(np.median(m)) for m in medians)]]
    nets = {
        "one hidden layer": replace(base, depth=1),
        "relu": replace(base, activation="relu"),
        "prior variance 1": replace(base, weights=1.0),
        "prior variance 16": replace(base, weights=16.0),
    }
    for name, net in nets.items():
        wide = [compete(p, InfiniteWidthSurrogate(net.limit()), evaluations, seeds, seed)[0] for p in PROBLEMS[:2]]
        deep = [compete(PROBLEMS[1], BNNSurrogate(net), evaluations, seeds, seed)[0]] if name in HMC_TOO else []
        rows.append([name, *(float(np.median(r)) for r in wide + deep), *([] if deep else ["not run"])])
        progress(str(rows[-1]))
    return table(("network", "infinite width, Branin", "infinite width, Hartmann6", "HMC, Hartmann6"), rows)


def ranked(regret: Mapping[tuple[str, str], Floats], seeds: int) -> int:
    """Problems on which all surrogates have a finite regret for every seed."""
    return sum(
        all(len(r := regret[p.name, s]) == seeds and bool(np.isfinite(r).all()) for s in SURROGATES) for p in PROBLEMS
    )


def ranks(regret: Mapping[tuple[str, str], Floats], chance: Mapping[str, float]) -> str:
    """Median regrets with their ranks, a row for each surrogate."""
    place = {}
    for p in PROBLEMS:
        every = np.stack([regret[p.name, s] for s in SURROGATES])
        mean = every.argsort(0).argsort(0).mean(1) + 1
        place.update({(p.name, s): float(m) for s, m in zip(SURROGATES, mean, strict=True)})
    rows: list[list[object]] = [
        [s, *(f"{np.median(regret[p.name, s]):.4f} ({place[p.name, s]:.1f})" for p in PROBLEMS)] for s in SURROGATES
    ]
    rows.append(["random search", *(f"{chance[p.name]:.4f}" for p in PROBLEMS)])
    return table(("surrogate", *(p.name for p in PROBLEMS)), rows)


def fifty(regret: Mapping[tuple[str, str], Floats]) -> str:
    """The paper's claim about many dimensions, as it came out."""
    wide, gp = regret["Ackley-50", "infinite width"], regret["Ackley-50", "GP"]
    wins = int((wide < gp).sum())
    holds = "below" if np.median(wide) < np.median(gp) else "not below"
    return (
        f"In 50 dimensions infinite width is {holds} the GP with fitted relevances: {np.median(wide):.3f} against "
        f"{np.median(gp):.3f}, on {wins} of {len(gp)} seeds."
    )


def mixing(mixed: Mapping[str, tuple[float, float, float]], draws: int) -> str:
    """What R-hat was of chains as short as the optimisation's."""
    said = "; ".join(
        f"{name} {short:.2f} (long {long:.3f}, {ess:.0f} effective draws)" for name, (long, short, ess) in mixed.items()
    )
    return (
        f"R-hat is of 8 chains of {draws} draws by trajectories of up to 100 steps, on the first seed's 40 values. The "
        f"chains inside the optimisation are shorter (4 of {HMC().draws} draws, up to {HMC().leaps} steps), and "
        f"their R-hat is: {said}."
    )


def told(problem: str, surrogate: str, regret: Floats, seconds: float) -> str:
    """A line of progress."""
    return f"{seconds:.0f} s {problem}, {surrogate}: regret {np.median(regret):.4f} of {np.round(np.sort(regret), 4)}"
