"""Row 217: marginals in one pass, against enumeration on a 4 x 4 Ising model and against many passes on 8 x 8 digits.

The Ising model has uneven couplings of both signs and uneven fields. Settings were chosen on another one (seed 0), and
on digits of neither the training nor the test rows. Stated time: two minutes with the models, ten to train them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from anystep import Run, drive, search
from anystep.bayes.amortised import AnyOrderProcess, DataRecipe, MarginalizationModel
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.experiments import _marginals as trained
from anystep.experiments._figures import held, ratio, table
from anystep.experiments._ising import Ising, Mask, Symbols, reverse_kl, subsets
from anystep.experiments._marginals import SITES, Glyphs, Sizes
from anystep.experiments.check import Check, Result
from anystep.process import Floats

ROW = 217
ALPHAS = (0.25, 1.0, 4.0, 16.0)
GIVEN = tuple({1: 1, 6: 0, 11: 1}.get(site) for site in range(SITES))
NEAR = 0.05  # what "comparable" is held to, as a share of the log-likelihood; and how near samples' laws are
Say = Callable[[str], None]


def run(
    seed: int = 0,
    progress: Say = print,
    sizes: Sizes | None = None,
    digits: DataRecipe = trained.DIGITS,
    n: int = 2_000,
    draws: int = 20_000,
    repeats: int = 20,
) -> Result:
    """Check every clause of the row.

    n: random subsets of the Ising model. draws: samples in any order. repeats: of each timing.
    """
    began, ising, sizes = time.perf_counter(), Ising(seed=1), sizes or Sizes()
    main = trained.from_energy(ising, trained.energy_recipe(sizes.energy), progress)
    models = {"from data": trained.from_draws(ising, sizes, progress), "from the energy": main}
    checks, told = list[Check](), list[str]()
    for some, text in (
        against_enumeration(ising, models, n, seed),
        order_free(ising, models, draws, seed),
        ablations(ising, sizes, progress),
        evidence(ising, main, seed),
        on_digits(trained.glyphs(), digits, repeats, seed, progress),
    ):
        checks, told = [*checks, *some], [*told, text]
        progress(text)
    return Result("marginalization_models", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def against_enumeration(ising: Ising, models: dict[str, MarginalizationModel], n: int, seed: int) -> Any:
    """Errors of log-marginals, residuals over training, and the divergence of what learned from the energy alone."""
    x, mask = ising.draw(n, 100 + seed), subsets(n, SITES, 200 + seed)
    odd = np.random.Generator(np.random.Philox(300 + seed)).integers(0, 2, x.shape)
    checks, rows = [], []
    for name, model in models.items():
        error = np.abs(model.log_marginal(x, mask) - ising.log_marginal(x, mask))
        apart = np.abs(model.log_marginal(odd, mask) - ising.log_marginal(odd, mask))
        curve = model.record["residual"]
        checks.append(held(f"Ising, {name}: mean error of log-marginals, nats", bootstrap_mean(error), "<=", 0.1))
        fell = curve[-1] / curve[1]
        checks.append(Check(f"Ising, {name}: residual after training over that at a tenth", fell, "<", 1))
        rows.append([name, error.mean(), apart.mean(), divergence(ising, model), *curve[::5]])
    kl = divergence(ising, models["from the energy"])
    checks.append(Check("Ising, energy alone: reverse KL of phi along a fixed order, nats", kl, "<=", 0.1))
    head = ["Ising", "error", "error at uniform symbols", "reverse KL", "residual at 0", "half", "end"]
    return checks, table(head, rows)


def divergence(ising: Ising, model: MarginalizationModel, order: Any = tuple(range(SITES))) -> float:
    """KL(phi || p) over all states, phi along a fixed order: of each prefix once."""
    log_q, known = np.zeros(1), 0
    prefix = np.zeros((1, SITES), dtype=np.int64)
    mask = np.zeros(SITES, dtype=bool)
    for known, site in enumerate(order):
        said = model.log_conditionals(prefix, np.tile(mask, (2**known, 1)))[:, site]
        log_q, prefix = (log_q[:, None] + said).reshape(-1), np.repeat(prefix, 2, 0)
        prefix[:, site] = np.tile([0, 1], 2**known)
        mask[site] = True
    code = prefix @ (1 << np.arange(SITES)[::-1])
    return reverse_kl(log_q, ising.log_p[code])


def order_free(ising: Ising, models: dict[str, MarginalizationModel], draws: int, seed: int) -> Any:
    """Samples in each row's own random order, freely and given three sites: the law of every 2 x 2 block."""
    checks, rows = [], []
    exact = ising.draw(draws, 400 + seed)
    stands = np.all([ising.states[:, i] == s for i, s in enumerate(GIVEN) if s is not None], axis=0)
    for name, model in models.items():
        free, bound = (model.sample(draws, given, seed=500 + seed) for given in (None, GIVEN))
        apart = [blocks(ising, free, None), blocks(ising, bound, stands)]
        for what, value in zip(("", ", three sites given"), apart, strict=True):
            clause = f"Ising, {name}: total variation of 2 x 2 blocks, any-order samples{what}"
            checks.append(Check(clause, value, "<=", NEAR))
        drawn = [np.random.Generator(np.random.Philox(i)).permutation(SITES) for i in range(3)]
        rows.append([name, *apart, float(np.mean([divergence(ising, model, o) for o in drawn]))])
    rows.append(["exact draws", blocks(ising, exact, None), float("nan"), 0.0])
    return checks, table(["samples", "blocks' variation", "given three", "reverse KL, 3 random orders"], rows)


def blocks(ising: Ising, drawn: Symbols, stands: Mask | None) -> float:
    """Mean over 2 x 2 blocks of the total variation between frequencies and the enumerated law of the block."""
    p = np.exp(ising.log_p) * (1.0 if stands is None else stands)
    found = []
    for corner in (r * 4 + c for r in range(3) for c in range(3)):
        sites = [corner, corner + 1, corner + 4, corner + 5]
        law, share = (
            np.bincount(x[:, sites] @ [8, 4, 2, 1], w, 16) for x, w in ((ising.states, p), (drawn, np.ones(len(drawn))))
        )
        found.append(0.5 * np.abs(law / law.sum() - share / share.sum()).sum())
    return float(np.mean(found))


def ablations(ising: Ising, sizes: Sizes, say: Say) -> Any:
    """Short trainings that differ in one thing, at equal network passes."""
    found: dict[str, MarginalizationModel] = {}
    for alpha in ALPHAS:
        found[f"alpha {alpha:g}"] = trained.from_energy(ising, trained.energy_recipe(sizes.ablation, alpha), say)
    short = trained.energy_recipe(sizes.ablation, persistent=False)
    found["chains not persistent"] = trained.from_energy(ising, short, say)
    equal = sizes.ablation * trained.passes_of(short) // trained.ARM_PASSES
    found[f"any-order model alone, REINFORCE, {equal} updates"] = trained.reinforced(ising, equal)
    kl = {name: divergence(ising, model) for name, model in found.items()}
    worse = kl["chains not persistent"] - kl["alpha 1"]
    check = Check("Ising: reverse KL without persistent chains minus with, at equal updates", worse, ">", 0)
    return [check], table([f"energy alone, {sizes.ablation} updates or as many passes", "reverse KL"], list(kl.items()))


def evidence(ising: Ising, model: MarginalizationModel, seed: int) -> Any:
    """The energy-trained model as the proposal of a particle filter: the log-normaliser, which is known."""
    process = AnyOrderProcess(model, energy=ising.energy)
    (answer,) = drive(Run(process, search.particle_filter(n=256), seed=seed))
    truth = float(ising.energy(torch.from_numpy(ising.states[:1]))[0] - ising.log_p[0])
    assert answer.evidence is not None
    return [], f"Log-normaliser by a filter of 256 particles: {answer.evidence:.4f}; by enumeration {truth:.4f}."


def on_digits(data: Glyphs, recipe: DataRecipe, repeats: int, seed: int, say: Say) -> Any:
    """Held-out likelihood by one pass and by one a site; time and work of marginals.

    m of a whole image need not add up to 1 over images, so what it adds up to is estimated, by samples of phi weighed
    exactly, and taken off: the difference is that of two normalised laws.
    """
    model = trained.from_digits(data.learn, recipe, say)
    everywhere = [np.random.Generator(np.random.Philox(600 + i)).permutation(64).tolist() for i in range(3)]
    chains = np.array([model.log_prob(data.test, order) for order in everywhere])
    chain, one = chains.mean(0), model.log_prob(data.test)
    made = model.sample(repeats * 50, order=everywhere[0], seed=seed)
    logs = np.subtract(model.log_prob(made), model.log_prob(made, everywhere[0]))
    gap = normalised(one, chain, np.exp(logs), seed)
    faster, lines = timed(model, data.test, repeats, seed)
    checks = [
        held("digits: what a held-out image takes more by one pass, normalised, than by 64, share", gap, "<=", NEAR),
        held("digits: time of |S| passes over that of one, batch of 100", faster, ">=", 10),
    ]
    noise = np.random.Generator(np.random.Philox(9)).integers(0, 2, data.test.shape)
    text = (
        f"Digits, nats a held-out image: one pass {-one.mean():.2f}, 64 passes of the any-order model "
        f"{-chain.mean():.2f} (mean of 3 orders, which differ by {np.ptp(chains.mean(1)):.2f}). m adds up to "
        f"exp({np.log(np.exp(logs).mean()):+.2f}) over all images, by {len(made)} samples of phi, of whose log-ratios "
        f"the deviation is {logs.std():.2f}. Residual on test images {model.residual(data.test).rms:.3f}, on noise "
        f"{model.residual(noise).rms:.3f}."
    )
    return checks, f"{text}\n\n{lines}"


def normalised(one: Floats, chain: Floats, ratios: Floats, seed: int) -> Interval:
    """Mean of -log p by one pass, with the log of the ratios' mean taken off, over that by many, less 1; bootstrapped
    over images and over ratios."""
    rng = np.random.Generator(np.random.Philox(800 + seed))
    rows, others = (rng.integers(0, len(x), (4_000, len(x))) for x in (one, ratios))
    nats = -chain.mean()
    apart = (np.log(ratios[others].mean(1)) + (chain - one)[rows].mean(1)) / nats
    low, high = np.quantile(apart, [0.025, 0.975])
    return Interval(float((np.log(ratios.mean()) + (chain - one).mean()) / nats), float(low), float(high))


def timed(model: MarginalizationModel, x: Symbols, repeats: int, seed: int) -> Any:
    """The ratio of wall clocks at a batch of 100, and a table of both batches, side by side in turns."""
    rows, main = [], None
    for batch in (100, 1):
        some, mask = x[:batch], subsets(batch, 64, 700 + seed) if batch > 1 else subsets(3, 64, 0)[2:]
        ways: dict[str, Callable[[], Floats]] = {
            "one pass of m": lambda s=some, k=mask: model.log_marginal(s, k),  # type: ignore[misc]
            "|S| passes of phi": lambda s=some, k=mask: model.log_chain(s, k),  # type: ignore[misc]
            "prefixes side by side": lambda s=some, k=mask: model.log_chain(s, k, batched=True),  # type: ignore[misc]
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, ask in ways.items():
                began = time.perf_counter()
                ask()
                seconds[name].append(time.perf_counter() - began)
        took = {name: np.array(values) for name, values in seconds.items()}
        work = {name: model.net.phi.flops() * mask.sum() for name in ways} | {
            "one pass of m": model.net.m.flops() * batch
        }
        main = main or ratio(took["|S| passes of phi"], took["one pass of m"])
        first = next(iter(ways))
        for name in ways:
            times = float(np.median(took[name]) / np.median(took[first]))
            middle = 1e3 * float(np.median(took[name]))
            rows.append([f"{batch}, {mask.sum() / batch:.1f}", name, middle, times, work[name] / work[first]])
    return main, table(["batch, mean |S|", "way", "median ms", "times", "FLOPs, times"], rows)
