"""Row 55: soft value decoding, exact on enumerated masked diffusion, then with rewards that have no gradient, on digits
and on sequences like DNA, against best-of-N for the same rows of the network.

Stated time: two minutes on one quiet core. Temperature and number of candidates were chosen on another seed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from anystep import search
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.diffusion import DiffusionProcess, MaskedProcess, on_clean, potential_on_clean
from anystep.diffusion.masked import Lattice, Random
from anystep.diffusion.models import chain, digits
from anystep.diffusion.models.markov import MarkovChain
from anystep.diffusion.solvers import DDIM
from anystep.drive import drive
from anystep.experiments._figures import held, table
from anystep.experiments._soft_values import apart, decoded, soft_values
from anystep.experiments.check import Check, Result
from anystep.procedure import Method
from anystep.process import Floats, Process, Reward
from anystep.run import Run
from anystep.testing import total_variation, weighed

ROW = 55
COUNTS = (1, 2, 4, 8, 16, 32, 64)
BRANCH, TEMPERATURE = 16, 0.2
SITES, STEPS = 48, 50


@dataclass(frozen=True)
class Found:
    """One method's answers. states: n finished ones. values, logp: (n,) rewards, log-likelihoods of the base model.
    evaluations: rows of the network a sample."""

    states: Any
    values: Floats
    logp: Floats
    evaluations: float


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    n: int = 100,
    branch: int = BRANCH,
    draws: int = 4_000,
    probes: int = 8,
) -> Result:
    """Check every clause of the row. n: samples of each method on digits and on sequences. draws: from the enumerated
    process. probes: of the trace in a digit's likelihood."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    checks, gaps = exact(seed, draws)
    progress(f"{time.perf_counter() - began:.0f} s: enumerated")
    rows: list[list[object]] = []
    for world in (sequences(), images(probes)):
        with no_gradients() as asked:
            found = compared(world, n, branch, seed)
        checks += world_checks(world, found, len(asked), branch, seed)
        rows += [[world.name, name, *told(f)] for name, f in found.items()]
        progress(f"{time.perf_counter() - began:.0f} s: {world.name}")
    head = ["what", "method", "median reward", "mean reward", "log-likelihood", "network rows"]
    notes = f"{gaps}\n\n{n} samples of each method.\n\n{table(head, rows)}"
    return Result("soft_value_decoding", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def exact(seed: int, draws: int) -> tuple[list[Check], str]:
    """Masked diffusion of 4 sites with 3 symbols in 4 passes, exact values, the temperature fixed."""
    process = MaskedProcess(chain(4, 3, seed=seed), 4, Random())
    lattice = Lattice(process)
    checks, lines = [], []
    for temperature in (0.5, 1.0):
        value = soft_values(lattice, pattern, temperature)
        target = lattice.tilted(lambda x, a=temperature: pattern(x) / a)  # type: ignore[misc]
        gaps = [apart(decoded(lattice, value, temperature, m), target) for m in COUNTS]
        rises = sum(later >= earlier for earlier, later in itertools.pairwise(gaps))
        what = f"enumerated masked diffusion, temperature {temperature:g}"
        checks.append(Check(f"{what}: doublings of M from 1 to {COUNTS[-1]} that do not lower the TV", rises, "==", 0))
        checks.append(Check(f"{what}: TV to the tilted law at M={COUNTS[-1]}", gaps[-1], "<=", 0.05))
        lines.append(f"TV at temperature {temperature:g}: " + ", ".join(f"{g:.4f}" for g in gaps))
    soft = lattice.soft_value(pattern)
    (answer,) = drive(Run(process, search.soft_value_decoding(soft, branch=8, n=draws), seed=seed))
    assert answer.population is not None and answer.population.answers is not None
    found = weighed((tuple(a) for a in answer.population.answers), answer.population.weights)  # type: ignore[arg-type]
    law = decoded(lattice, soft_values(lattice, pattern, 1.0), 1.0, 8)
    noise = float(np.sqrt(2 / np.pi) * sum(np.sqrt(p * (1 - p) / draws) for p in law.values()) / 2)
    clause = f"{draws:,} draws with M=8: TV to the law computed for M=8 ({noise:.4f} expected of so many draws)"
    checks.append(Check(clause, total_variation(found, law), "<=", 2 * noise))
    return checks, f"M = {', '.join(map(str, COUNTS))}. " + ". ".join(lines) + "."


def pattern(x: Sequence[int]) -> float:
    """One for each symbol 2, and one and a half less where the first two are equal."""
    return float(sum(s == 2 for s in x) - 1.5 * (x[0] == x[1]))


@dataclass(frozen=True)
class World:
    """Something to sample, by processes of its classes, and what a method's answers are measured by."""

    name: str
    processes: tuple[Process, ...]
    reward: Reward
    passes: int
    count: Callable[[Tensor], Floats]
    values: Callable[[Any], Floats]
    logp: Callable[[Any], Floats]


def sequences() -> World:
    """48 letters of a chain in which G seldom follows C, as in our DNA; the reward counts the places where it does."""
    rows = "33 17 24 26 35 26 05 34 29 21 26 24 22 20 25 33"
    moves = np.array([int(percent) / 100 for percent in rows.split()]).reshape(4, 4)
    first = np.linalg.matrix_power(moves, 1_000)[0]
    model = MarkovChain(first / first.sum(), moves, SITES, "letters", alphabet="ACGT")

    def count(tokens: Tensor) -> Floats:
        x = np.asarray(tokens)
        return np.asarray(((x[:, :-1] == 1) & (x[:, 1:] == 2)).sum(1), dtype=np.float64)

    reward = on_clean(count, "CG", (0.0, SITES - 1.0))
    process = MaskedProcess(model, SITES, Random())
    return World(
        "sequences", (process,), reward, SITES, count,
        lambda states: count(states.tokens), lambda states: model.log_prob(states.tokens.numpy()),
    )  # fmt: skip


def images(probes: int) -> World:
    """8x8 digits, every class; the reward is minus how often neighbouring pixels differ in being inked: what a code of
    runs would cost."""
    model = digits()

    def plain(x: Tensor) -> Floats:
        ink = x > 0
        changes = (ink[:, :, 1:] != ink[:, :, :-1]).sum((1, 2)) + (ink[:, 1:] != ink[:, :-1]).sum((1, 2))
        return -changes.double().numpy()

    reward = on_clean(plain, "plain", (-112.0, 0.0))
    processes = tuple(DiffusionProcess(model, DDIM(STEPS, eta=1.0), condition=k) for k in range(10))
    return World(
        "digits", processes, reward, STEPS, plain, lambda states: plain(states.x),
        lambda states: log_likelihood(model, states.x, torch.from_numpy(states.condition), probes),
    )  # fmt: skip


def log_likelihood(model: Any, x: Tensor, condition: Tensor, probes: int, steps: int = 25) -> Floats:
    """(n,) log-density of images, in nats, under the model's probability-flow ODE, from t = 0.02 to noise by midpoints;
    the trace of the velocity's derivative is estimated by `probes` random signs, the same for all."""
    draw, grid = torch.Generator().manual_seed(0), np.linspace(0.02, 1.0, steps + 1)
    signs = torch.randint(0, 2, (probes, 1, *model.shape), generator=draw).float() * 2 - 1
    signs = signs.expand(probes, len(x), *model.shape).flatten(0, 1)

    def velocity(x: Tensor, t: float) -> Tensor:
        said: Tensor = model.forward(x, torch.full((len(x),), t, dtype=torch.float64), condition.repeat(len(x) // n))
        return said

    n, change = len(x), torch.zeros(len(x))
    for now, then in itertools.pairwise(grid):
        with torch.no_grad():
            middle = x + (then - now) / 2 * velocity(x, now)
        many = middle.repeat(probes, 1, 1).requires_grad_(True)
        v = velocity(many, (now + then) / 2)
        (turned,) = torch.autograd.grad((v * signs).sum(), many)
        change += float(then - now) * (turned * signs).flatten(1).sum(1).reshape(probes, n).mean(0)
        x = x + float(then - now) * v[:n].detach()
    rows = x.flatten(1).double()
    normal = -0.5 * (rows**2).sum(1) - 0.5 * rows.shape[1] * np.log(2 * np.pi)
    return np.asarray((normal + change.double()).numpy())


@contextmanager
def no_gradients() -> Iterator[list[str]]:
    """Notes every call for a gradient."""
    asked: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> None:
            asked.append(name)
            raise AssertionError(f"{name} was called")

        return noted

    with (
        patch.object(torch.autograd, "grad", noting("grad")),
        patch.object(torch.autograd, "backward", noting("backward")),
        patch.object(torch.Tensor, "backward", noting("backward")),
    ):
        yield asked


def compared(world: World, n: int, branch: int, seed: int) -> dict[str, Found]:
    """Every method: the base, best-of-N at no fewer rows of the network, ours, and ours without what is distinctive."""
    reward = world.reward
    ours = search.soft_value_decoding(reward, branch=branch, temperature=TEMPERATURE)
    size = -(-(1 + branch * (world.passes - 1)) // world.passes)
    sharp = potential_on_clean(lambda clean: world.count(clean) / TEMPERATURE, f"{reward.name} / {TEMPERATURE:g}")
    filtered = search.particle_filter(n=size, potential=sharp, ess=1.0).deciding(search.best_reward)
    return {
        "one sample": sampled(world, search.sample(n=1), n, seed),
        f"best of {size}": sampled(world, search.best_of_n(n=size, reward=reward), n, seed),
        f"SVDD, M={branch}": sampled(world, ours, n, seed),
        f"SVDD, M={branch}, the best (temperature 0)": sampled(
            world, search.soft_value_decoding(reward, branch=branch, temperature=0.0), n, seed
        ),
        f"{size} particles that exchange": sampled(world, filtered, n, seed),
    }


def sampled(world: World, method: Method, n: int, seed: int) -> Found:
    """n runs, each one's answer; not yet its likelihood, which takes gradients."""
    runs = [Run(world.processes[i % len(world.processes)], method, seed=10_000 * (seed + 1) + i) for i in range(n)]
    for at in range(0, n, 50):
        drive(*runs[at : at + 50])
    states = []
    for done in runs:
        assert done.answer is not None and done.answer.population is not None and done.answer.row is not None
        states.append(done.answer.population.take([done.answer.row]).states)
    joined = states[0].join(*states[1:])
    paid = float(np.mean([done.spent.evaluations for done in runs]))
    return Found(joined, world.values(joined), np.zeros(0), paid)


def world_checks(world: World, found: dict[str, Found], asked: int, branch: int, seed: int) -> list[Check]:
    """The clauses on one world. Adds the likelihoods to `found`."""
    for name, f in list(found.items()):
        found[name] = Found(f.states, f.values, world.logp(f.states), f.evaluations)
    best, ours = (next(f for name, f in found.items() if name.startswith(which)) for which in ("best of", "SVDD"))
    clause = f"{world.name}: median reward of SVDD with M={branch} minus that of best-of-N with no fewer network rows"
    lost = (ours.logp.mean() - best.logp.mean()) / abs(best.logp.mean())
    low = bootstrap_ratio(ours.logp, best.logp)
    process, value = world.processes[0], world.reward
    one, plain = drive(
        Run(process, search.soft_value_decoding(value, branch=1, n=20), seed=seed),
        Run(process, search.sample(n=20), seed=seed),
    )
    assert one.population is not None and plain.population is not None
    same = process.dump(one.population.states) == process.dump(plain.population.states)
    return [
        held(clause, medians(ours.values, best.values), ">", 0.0),
        Check(f"{world.name}: network rows of SVDD over best-of-N's", ours.evaluations / best.evaluations, "<=", 1.0),
        Check(f"{world.name}: base log-likelihood of SVDD's, relative to best-of-N's", float(lost), ">=", -0.1, low),
        Check(f"{world.name}: calls for a gradient", asked, "==", 0),
        Check(f"{world.name}: M=1 and the base sampler differ in a bit", float(not same), "==", 0),
    ]


def medians(ours: Floats, theirs: Floats) -> Interval:
    """The difference of medians, bootstrapped over samples."""
    rng = np.random.default_rng(0)
    drawn = [np.median(rng.choice(x, (4_000, len(x))), axis=1) for x in (ours, theirs)]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return Interval(float(np.median(ours) - np.median(theirs)), float(low), float(high))


def bootstrap_ratio(ours: Floats, theirs: Floats) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    a, b = (rng.choice(x, (4_000, len(x))).mean(1) for x in (ours, theirs))
    low, high = np.quantile((a - b) / np.abs(b), [0.025, 0.975])
    return float(low), float(high)


def told(found: Found) -> list[object]:
    return [
        float(np.median(found.values)), str(bootstrap_mean(found.values.tolist())),
        str(bootstrap_mean(found.logp.tolist())), found.evaluations,
    ]  # fmt: skip
