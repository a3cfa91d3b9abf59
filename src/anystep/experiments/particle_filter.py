"""Row 34: particle filtering, exact where the posterior is known, then on ChainLM with a learned and noisy step reward;
its iterated and parallel variants beside one filter that may spend as much.

Stated time: ten minutes on one quiet core, nearly all of it ChainLM's. DVTS is composed here from what there is: four
independent beams of width one with four children each, the finished chain of highest reward answers. Of the variants,
two islands are particle Gibbs without its reference, and particle Gibbs is tempering without its hot chains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from anystep import search
from anystep.bench.compare import Comparison, Progress
from anystep.bench.entry import Entry
from anystep.bench.report import Report
from anystep.calibrate.interval import Interval, bootstrap_mean, level
from anystep.experiments._figures import held, paired, table
from anystep.experiments._noise import LogValue, Noisy
from anystep.experiments._particles import exact
from anystep.experiments.check import Check, Result
from anystep.procedure import Method
from anystep.process import Floats, Process, Reward
from anystep.solve import process_for
from anystep.tasks.chains import chains
from anystep.tasks.task import Task
from anystep.testing.counting import counted_torch

ROW = 34
NOISE = (1.0, 2.0, 4.0)
BEAM, DVTS, PARTICLES, BEST = "beam 4x4", "DVTS 4x4", "particle_filter", "best_of_n"
GIBBS, ISLANDS, TEMPERED = "particle_gibbs 8, 2 sweeps", "particle_islands 4x4", "parallel_tempering 3, 2 sweeps"
APART = "particle_islands 2x8"
VOTE, LARGER = "self_consistency", (16, 18)
BESIDE = 120


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "chainlm-2m",
    reward: Reward | None = None,
    product: Reward | None = None,
    problems: int = 200,
    noise: Sequence[float] = NOISE,
    particles: int = 30_000,
    runs: int = 2_000,
    beside: int = BESIDE,
) -> Result:
    """Check every clause of the row.

    model: ChainLM's name or engine. reward: the step reward, by default the learned one that ships; product: one that
    multiplies its steps' probabilities, for the emission "product of r". problems: held-out ones. noise: standard
    deviations on the logit scale. particles and runs: see `_particles.exact`. beside: of the problems, those on which
    the variants are compared with one filter.
    """
    from anystep import verify
    from anystep.language import load

    began = time.perf_counter()
    checks = list(exact(seed, particles, runs, progress))
    engine = load(model) if isinstance(model, str) else model
    learned, multiplied = reward or verify.chain_steps(), product or verify.chain_steps(aggregate="product")
    entries, tasks = methods(learned, multiplied, noise, seed), chains(problems, "test", seed)
    report, ledger = compared(entries, engine, (learned, multiplied), tasks, seed, progress)
    checks += [ledger, *accuracy(report), *loss(report, noise)]
    more, told = variants(learned, engine, tasks[:beside], seed, progress)
    said = f"{notes(report, problems)}\n\n{told}"
    return Result("particle_filter", ROW, (*checks, *more), time.perf_counter() - began, seed, said)


def filtered(reward: Reward, n: int, ess: float = 1.0) -> Method:
    """The filter as compared, in the paper's form: the reward's log-odds, resampled at every step, and the finished
    chain of highest reward answers (chosen on the dev split over the largest weight)."""
    return search.particle_filter(n=n, potential=reward.log_odds(), ess=ess).deciding(search.best_reward)


def methods(learned: Reward, product: Reward, noise: Sequence[float], seed: int) -> list[Entry]:
    """What is compared: every method at its size, then the three that read noise at each level of it."""

    def grown(make: Callable[[int], Method]) -> Callable[[int, Task], Method]:
        return lambda n, task: make(n)

    def steady(method: Method) -> Callable[[int, Task], Method]:
        return lambda n, task: method

    lines = [search.beam(width=1, branch=4, reward=learned)] * 4
    multiplied = search.particle_filter(n=16, potential=LogValue(product), ess=1.0).deciding(search.best_reward)
    entries = [
        Entry(VOTE, grown(lambda n: search.self_consistency(n=n)), ns=(16, 32)),
        Entry(DVTS, steady(search.together(*lines)), ns=(16,)),
        Entry("particle_filter, no resampling", grown(lambda n: filtered(learned, n, ess=0.0)), ns=(8, 16)),
        Entry("particle_filter, product of r", steady(multiplied), ns=(16,)),
    ]
    for sd in (0.0, *noise):
        noisy: Reward = Noisy(learned, sd, seed)
        sizes = (16,) if sd else (4, 8, 16)
        entries += [
            Entry(at(BEST, sd), _best(noisy), ns=(16,)),
            Entry(at(BEAM, sd), steady(search.beam(width=4, branch=4, reward=noisy)), ns=(16,)),
            Entry(at(PARTICLES, sd), _filter(noisy), ns=sizes),
        ]
    return entries


def at(label: str, sd: float) -> str:
    """A method's label at a level of noise."""
    return f"{label}, noise {sd:g}" if sd else label


def _best(reward: Reward) -> Callable[[int, Task], Method]:
    return lambda n, task: search.best_of_n(n=n, reward=reward)


def _filter(reward: Reward) -> Callable[[int, Task], Method]:
    return lambda n, task: filtered(reward, n)


def compared(
    entries: list[Entry],
    engine: Any,
    rewards: Sequence[Reward],
    tasks: list[Task],
    seed: int,
    progress: Callable[[str], None],
) -> tuple[Report, Check]:
    """Every method on every problem, and whether the ledgers hold exactly the positions that the models computed."""
    last = [""]

    def say(now: Progress) -> None:
        if now.label != last[0]:
            last[0] = now.label
            progress(f"{now.seconds:.0f} s: {now.label} (n={now.n}), {now.done} of {now.total} runs done")

    def process_of(task: Task, greedy: bool) -> Process:
        return process_for(task, engine, temperature=0.0 if greedy else 1.0)

    judges = {id(e): e for r in rewards if (e := getattr(r, "engine", None)) is not None}
    with ExitStack() as stack:
        work = [stack.enter_context(counted_torch(e.model)) for e in (engine, *judges.values())]
        report = Comparison(entries, tasks, process_of, (seed,), progress=say).run()
    done = sum(w.evaluations for w in work)
    booked = sum(t.cost.evaluations for t in report.trials)
    clause = f"ledger: positions booked by all runs apart from the {done:,} that the models computed"
    return report, Check(clause, abs(booked - done), "==", 0)


def scores(report: Report, label: str, n: int = 16) -> Floats:
    """A method's scores, in the order of the items."""
    found = {t.item: t.score for t in report.trials if (t.label, t.n) == (label, n)}
    return np.array([found[item] for item in sorted(found)])


def accuracy(report: Report) -> list[Check]:
    """The clauses on accuracy, as first written and as amended."""
    beam, dvts = scores(report, BEAM), scores(report, DVTS)
    eight, sixteen = scores(report, PARTICLES, 8), scores(report, PARTICLES, 16)
    bare = scores(report, "particle_filter, no resampling", 8)
    return [
        held("ChainLM: accuracy of 8 particles minus beam's at 16 rollouts", paired(eight, beam), ">=", 0),
        held("ChainLM: accuracy of 16 particles minus beam's at 16", paired(sixteen, beam), ">=", 0),
        held("ChainLM: accuracy of 8 particles minus DVTS's at 16", paired(eight, dvts), ">=", 0),
        held("ablation: accuracy of 8 particles minus without resampling", paired(eight, bare), ">", 0),
    ]


def loss(report: Report, noise: Sequence[float]) -> list[Check]:
    """What noise costs the others minus what it costs the filter, all at 16, meaned over the levels of noise."""
    lost = {
        label: np.mean([scores(report, label) - scores(report, at(label, sd)) for sd in noise], axis=0)
        for label in (BEAM, BEST, PARTICLES)
    }
    levels = ", ".join(f"{sd:g}" for sd in noise)
    return [
        held(
            f"accuracy lost to reward noise of sd {levels}: {label}'s loss minus the filter's",
            paired(lost[label], lost[PARTICLES]),
            ">",
            0,
        )
        for label in (BEAM, BEST)
    ]


def variants(
    reward: Reward, engine: Any, tasks: list[Task], seed: int, progress: Callable[[str], None]
) -> tuple[list[Check], str]:
    """Each variant, of 16 particles or nearly, against one filter and a vote at no fewer tokens, and its ablation; and
    what is to be told of them."""
    hope = reward.log_odds()
    steady = {
        GIBBS: search.particle_gibbs(n=8, sweeps=2, potential=hope),
        ISLANDS: search.particle_islands(islands=4, n=4, potential=hope, ess=1.0),
        APART: search.particle_islands(islands=2, n=8, potential=hope, ess=1.0),
        TEMPERED: search.parallel_tempering(n=3, sweeps=2, potential=hope),
    }
    entries = [Entry(label, _always(m.deciding(search.best_reward)), ns=(16,)) for label, m in steady.items()]
    entries += [Entry(PARTICLES, _filter(reward), ns=LARGER), Entry(VOTE, _vote, ns=(16, 32))]
    report, ledger = compared(entries, engine, (reward,), tasks, seed, progress)
    found = [replace(ledger, clause=f"variants' {ledger.clause}")]
    for label in (GIBBS, ISLANDS, TEMPERED):
        ours, most = scores(report, label), cost(report, label)
        n = next((n for n in LARGER if cost(report, PARTICLES, n) >= most), LARGER[-1])
        k = next((k for k in (16, 32) if cost(report, VOTE, k) >= most), 32)
        one, vote = scores(report, PARTICLES, n), scores(report, VOTE, k)
        clause = f"{label}: accuracy minus that of one filter of {n} at no fewer tokens"
        found += [
            held(clause, paired(ours, one), ">=", 0),
            held(f"{label}: accuracy minus that of a vote of {k} at no fewer tokens", paired(ours, vote), ">", 0),
        ]
    for label, without, what in ((GIBBS, APART, "without a reference"), (TEMPERED, GIBBS, "without hot chains")):
        clause = f"ablation: accuracy of {label} minus {what} ({without})"
        found.append(held(clause, paired(scores(report, label), scores(report, without)), ">", 0))
    told = (
        f"The variants, on the first {len(tasks)} of these problems; their sizes and temperatures were chosen on 100 "
        f"of the dev split, and all answer with the finished chain of highest reward.\n\n{figures(report)}"
    )
    return found, told


def _always(method: Method) -> Callable[[int, Task], Method]:
    return lambda n, task: method


def _vote(n: int, task: Task) -> Method:
    return search.self_consistency(n=n)


def cost(report: Report, label: str, n: int = 16) -> float:
    """A method's mean tokens an item."""
    return float(np.mean([t.cost.tokens for t in report.trials if (t.label, t.n) == (label, n)]))


def figures(report: Report) -> str:
    """Accuracy beside what it truly cost an item, judge included; cheapest first."""
    rows = []
    for label, n in dict.fromkeys((t.label, t.n) for t in report.trials):
        trials = [t for t in report.trials if (t.label, t.n) == (label, n)]
        found: Interval = level([[t.score] for t in trials])
        tokens = bootstrap_mean([t.cost.tokens for t in trials]).value
        generated = bootstrap_mean([t.cost.generated for t in trials]).value
        rows.append([label, n, str(found), round(tokens), round(generated), sum(t.failed for t in trials)])
    rows.sort(key=lambda row: (str(row[0]).partition(", noise")[0], row[3]))
    return table(["method", "n", "accuracy", "tokens an item", "of them generated", "without an answer"], rows)


def notes(report: Report, problems: int) -> str:
    """What was compared, and the figures."""
    return (
        f"ChainLM 2M at temperature 1, {problems} held-out problems, learned step reward. Tokens are prompt and "
        f"generated ones, the reward's reading included. beam 4x4 keeps 4 of 16 children a step, DVTS 4x4 is four "
        f"beams of width 1 with 4 children.\n\n{figures(report)}"
    )
