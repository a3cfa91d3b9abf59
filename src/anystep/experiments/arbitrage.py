"""Row 46: step-level speculation with a router of advantages, on a pair of ChainLMs at temperature 0.6.

Stated time: ten minutes on one quiet core, two of them for the pairs of steps that the ablations' heads learn from.
Thresholds come from pairs of steps recorded on training problems: no test problem has a part in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments._routes import Bench, Hashed, Routed, by_steps, pair, problems
from anystep.experiments.check import Check, Result
from anystep.ledger import FREE, Limit
from anystep.procedure import ByProcess, ByReward, Exploring, procedure, score, start, step
from anystep.process import Reward, Scored
from anystep.run import Run
from anystep.search import decide

ROW = 46
FIXED = 0.5  # the fixed rule: a drafted step whose reward is below this is written again
FEWER = 0.65  # how many of the fixed rule's steps the router may have written again


class Negative(Reward):
    """How bad a step reward finds a state; a value, as its reward is."""

    def __init__(self, reward: Reward) -> None:
        self.reward, self.name, self.range = reward, reward.name, (-1.0, 0.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Negative) and other.reward == self.reward

    def __hash__(self) -> int:
        return hash(("negative", self.reward))

    def __repr__(self) -> str:
        return f"-{self.reward!r}"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = self.reward(states, limit)
        return Scored(-scored.values, scored.cost)

    def forget(self) -> None:
        self.reward.forget()

    def warm(self, states: Any) -> None:
        self.reward.warm(states)


@procedure(decide=decide.majority)
def hindsight(large: ByProcess, reward: ByReward, threshold: float) -> Exploring:
    """Both models write every step, and the large one's is kept where it scores better by more than `threshold`."""
    population = yield from start(1)
    while population.live.any():
        drafted = yield from step(population)
        again = yield from step(population, by=large)
        better = (yield from score(again, reward)) - (yield from score(drafted, reward)) > threshold
        population = drafted.put(better, again.take(better))
    return population


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    small: Any = "chainlm-300k",
    large: Any = "chainlm-2m",
    items: int = 200,
    recorded: int = 1_500,
    seeds: int = 1,
    pairs: Any = None,
) -> Result:
    """Check every clause of the row.

    items: held-out problems, as many of each family; the ablations run on a quarter of them. recorded: training
    problems on which both models' steps are compared, for the heads and the thresholds. pairs: those comparisons, where
    they are at hand.
    """
    from anystep import verify
    from anystep.language.accelerate.advantage import Head, advantage_router
    from anystep.language.train.router import Fit, fit, record, training_tasks

    began = time.perf_counter()
    little, big = pair(small, large)
    bench = Bench(little, big, problems(items, "test", seed), seed, say=progress)
    reward, writer = verify.chain_steps(), bench.writer(big)
    tasks = training_tasks(recorded)
    some = advantage_router(Head(big.config.dim))
    if pairs is None:
        pairs = record([bench.process(t, little) for t in tasks], writer, reward, some)
    progress(f"{len(pairs.draft)} pairs of steps")
    rate = FEWER * float((pairs.draft < FIXED).float().mean())
    hows = {
        "arbitrage": Fit(),
        "no annotations": Fit(annotated=False),
        "sign, balanced": Fit(balanced=True, regress=False),
    }
    found, ranks = dict[str, Routed](), dict[str, float]()
    for name, how in hows.items():
        head, ranks[name] = fit(pairs, how)
        scores = head(pairs.features).sigmoid().detach().numpy()
        by, part = advantage_router(head), bench if how == Fit() else replace(bench, tasks=bench.tasks[: items // 4])
        threshold = float(np.quantile(scores, 1 - rate))
        found[name] = part(search.draft_router(writer, by, threshold), seeds=seeds, name=name)
    ours = found["arbitrage"]
    found["fixed threshold"] = bench(search.draft_router(writer, Negative(reward), -FIXED), seeds=seeds, name="fixed")
    least = float(np.quantile(pairs.advantage.numpy(), 1 - ours.rate))
    found["hindsight"] = bench(hindsight(writer, reward, max(least, 0.0)), seeds=seeds, name="hindsight")
    found["random"] = bench(search.draft_router(writer, Hashed(), 1 - ours.rate), seeds=seeds, name="random")
    found["draft alone"] = bench(search.sample(n=1), seeds=seeds, name="draft")
    found["target alone"] = bench(search.sample(n=1), big, seeds, name="target")
    fixed = found["fixed threshold"]
    by_steps_again = partial(per_problem, large=big.name)
    checks = [
        held("accuracy minus the fixed threshold's", paired(ours.right, fixed.right), ">=", 0.0),
        held(
            "regenerated steps over the fixed threshold's",
            ratio(by_steps_again(ours), by_steps_again(fixed)),
            "<=",
            0.7,
        ),
        held(
            "accuracy minus hindsight's at equal target use", paired(ours.right, found["hindsight"].right), ">=", -0.02
        ),
        *extremes(replace(bench, tasks=bench.tasks[: max(2, items // 10)]), by),
        *booked(replace(bench, tasks=bench.tasks[: max(2, items // 10)]), by, threshold),
    ]
    notes = f"{items} test problems, {len(pairs.draft)} pairs of steps from {recorded} training problems.\n\n"
    notes += rows(found, ranks, big.name)
    return Result("arbitrage", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def per_problem(routed: Routed, large: str) -> Any:
    """Steps that the large model wrote, kept or not, (items,)."""
    counts = [[sum(by == large for by in run.books.family.by) for run in one.runs] for one in routed.seeds]
    return np.mean(counts, axis=0)


def extremes(bench: Bench, by: Reward) -> Iterator[Check]:
    """Thresholds 1 and -1 against each model alone: the same tokens with the same seeds."""
    for temperature in (0.0, bench.temperature):
        for threshold, engine in ((1.0, bench.small), (-1.0, bench.large)):
            method = search.draft_router(bench.writer(bench.large, temperature), by, threshold)
            one = search.sample(n=1) if temperature == 0 else by_steps(n=1)
            ours = [Run(bench.process(t, bench.small, temperature), method, None, bench.seed) for t in bench.tasks]
            its = [Run(bench.process(t, engine, temperature), one, None, bench.seed) for t in bench.tasks]
            drive(*ours, *its)
            pairs = [(a.result().population, b.result().population) for a, b in zip(ours, its, strict=True)]
            apart = sum(a is None or b is None or a.states.tokens != b.states.tokens for a, b in pairs)
            said = (
                f"threshold {threshold}, temperature {temperature}: of {len(ours)} outputs, not {engine.name}'s alone"
            )
            yield Check(said, apart, "==", 0)


def booked(bench: Bench, by: Any, threshold: float) -> Iterator[Check]:
    """The router's own positions, counted as they are computed, against what its account has."""
    from anystep.testing.counting import counted_torch

    with counted_torch(by.engine.model) as work:
        routed = bench(search.draft_router(bench.writer(bench.large), by, threshold), name="booked")
    paid = sum(run.ledger.by.get(by.name, FREE).evaluations for run in routed.runs)
    yield Check("positions that the router computed and no ledger has", abs(paid - work.evaluations), "==", 0)
    yield Check("positions that the router computed", work.evaluations, ">", 0)


def rows(found: dict[str, Routed], ranks: dict[str, float], large: str) -> str:
    head = ["method", "accuracy", "target use", "regenerated", "tokens in all", "rank correlation"]
    lines = [
        [
            name,
            str(bootstrap_mean(r.right)),
            "" if name.endswith("alone") else f"{r.rate if name != 'hindsight' else kept(r):.2f}",
            "" if name.endswith("alone") else f"{per_problem(r, large).mean():.2f}",
            f"{r.tokens.mean():.1f}",
            f"{ranks[name]:.2f}" if name in ranks else "",
        ]
        for name, r in found.items()
    ]
    return table(head, lines)


def kept(routed: Routed) -> float:
    """The share of an answer's steps that the large model wrote."""
    lines = [(run, routed.line(run)[1:]) for run in routed.runs]
    return sum(run.books.family.by[i] == routed.large for run, line in lines for i in line) / sum(
        len(x) for _, x in lines
    )
