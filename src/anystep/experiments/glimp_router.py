"""Row 193: a glimpse at the small model's first token routes each step, on a pair of ChainLMs at temperature 0.6.

Stated time: ten minutes on one quiet core. The threshold was chosen on dev problems (the page has the sweep).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.reliability import auroc
from anystep.drive import drive
from anystep.experiments._equal import no_cheaper
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments._routes import Bench, Hashed, Routed, StepDoubt, by_steps, labelled, pair, problems
from anystep.experiments.check import Check, Result
from anystep.ledger import FREE
from anystep.procedure import Method
from anystep.run import Run

ROW = 193
THRESHOLD = 0.001


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    small: Any = "chainlm-300k",
    large: Any = "chainlm-2m",
    items: int = 800,
    fewer: int = 400,
    seeds: int = 2,
    threshold: float = THRESHOLD,
) -> Result:
    """Check every clause of the row.

    items: held-out problems, as many of each family, each run with `seeds` seeds by the large model, the router and
    random routing; `fewer` of them, once, by the ablations and baselines.
    """
    from anystep.verify import glimpse

    began = time.perf_counter()
    little, big = pair(small, large)
    bench = Bench(little, big, problems(items, "test", seed), seed, say=progress)
    look, writer = glimpse(little), bench.writer(big)
    routed = bench(search.glimp_router(writer, look, threshold), seeds=seeds, name="glimpse")
    whole = bench(search.sample(n=1), big, seeds, name="large")
    random = bench(search.glimp_router(writer, Hashed(), 1 - routed.rate), seeds=seeds, name="random")
    alone = bench(search.glimp_router(writer, look, math.nextafter(look.range[1], 0)), name="small, glimpsed")
    values, wrong, names, families = labelled(alone, bench.tasks, before=True)
    checks = [
        held("AUROC of first-token entropy for the small model's step errors", auroc(values, wrong, names), ">=", 0.7),
        held("accuracy over the large model's", ratio(routed.right, whole.right), ">=", 0.97),
        held("tokens that the large model writes, over its own alone", ratio(routed.wrote, whole.wrote), "<=", 0.6),
        held("accuracy minus random routing's at equal rate", paired(routed.right, random.right), ">", 0.0),
        *ledger(routed),
        *extremes(replace(bench, tasks=bench.tasks[: max(2, fewer // 4)])),
    ]
    part = replace(bench, tasks=bench.tasks[:fewer])
    told = {"large model": whole, "small model": alone, "glimp_router": routed, "random routing": random}
    areas = {"first-token entropy": (values, wrong, names, families)}
    told |= ablations(part, areas, routed.rate)
    told |= baselines(part, routed)
    notes = f"{items} test problems, {seeds} seeds, temperature 0.6, threshold {threshold} nats.\n\n"
    notes += f"{rows(told, whole)}\n\n{doubts(areas)}"
    return Result("glimp_router", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def ledger(routed: Routed) -> Iterator[Check]:
    """The clause on the wasted token, run by run."""
    off = 0
    for run in routed.runs:
        handed = sum(by == routed.large for by in run.books.family.by)
        off += abs(run.ledger.by.get(f"{routed.small}-glimpse", FREE).generated - handed)
    yield Check(f"glimpsed tokens on {len(routed.runs)} ledgers apart from one a handed step", off, "==", 0)


def extremes(bench: Bench) -> Iterator[Check]:
    """Threshold infinite and negative against each model alone: the same tokens with the same seeds."""
    from anystep.verify import glimpse

    for temperature in (0.0, bench.temperature):
        for threshold, engine in ((math.inf, bench.small), (-1.0, bench.large)):
            method = search.glimp_router(bench.writer(bench.large, temperature), glimpse(bench.small), threshold)
            one: Method = search.sample(n=1) if temperature == 0 else by_steps(n=1)
            ours = [Run(bench.process(t, bench.small, temperature), method, None, bench.seed) for t in bench.tasks]
            its = [Run(bench.process(t, engine, temperature), one, None, bench.seed) for t in bench.tasks]
            drive(*ours, *its)
            apart = sum(_tokens(a) != _tokens(b) for a, b in zip(ours, its, strict=True))
            said = (
                f"threshold {threshold}, temperature {temperature}: of {len(ours)} outputs, not {engine.name}'s alone"
            )
            yield Check(said, apart, "==", 0)


def _tokens(run: Run) -> Any:
    assert run.answer is not None and run.answer.population is not None
    return run.answer.population.states.tokens


def ablations(bench: Bench, areas: dict[str, Any], rate: float) -> dict[str, Routed]:
    """Other measures of doubt at the router's rate: the glimpse's margin, and two of whole drafted steps."""
    from anystep.verify import glimpse

    writer, found = bench.writer(bench.large), dict[str, Routed]()
    looks: dict[str, tuple[Any, Any]] = {
        "first-token margin": (glimpse(bench.small, "margin"), search.glimp_router),
        "step's mean entropy": (StepDoubt("entropy", engine=bench.small), search.draft_router),
        "step's perplexity": (StepDoubt("surprise", engine=bench.small), search.draft_router),
    }
    for name, (look, router) in looks.items():
        before = router is search.glimp_router
        alone = bench(router(writer, look, math.nextafter(look.range[1], 0)), name=f"small, {name}")
        areas[name] = labelled(alone, bench.tasks, before)
        every = [v for run in alone.runs for v in run.books.family.scores.values() if not math.isnan(v)]
        found[name] = bench(router(writer, look, float(np.quantile(every, 1 - rate))), name=name)
    return found


def baselines(bench: Bench, routed: Routed) -> dict[str, Routed]:
    """What else could be done: the large model greedily, the small one greedily, its vote at no fewer tokens."""
    found = {
        "large model, greedy": bench(search.sample(n=1), bench.large, temperature=0.0, name="large greedy"),
        "small model, greedy": bench(search.sample(n=1), temperature=0.0, name="small greedy"),
    }
    votes: dict[int, Routed] = {}

    def family(n: int) -> Any:
        votes[n] = bench(search.self_consistency(n=n), name=f"small vote@{n}")
        return votes[n].seeds[0]

    n, _ = no_cheaper(family, float(routed.tokens.mean()), (2, 3, 4, 8))
    found[f"small model, vote@{n}"] = votes[n]
    return found


def rows(told: dict[str, Routed], whole: Routed) -> str:
    head = ["method", "accuracy", "steps handed", "large wrote", "large read or wrote", "tokens in all", "FLOPs"]
    base = whole.flops.mean()
    lines = [
        [
            name,
            str(level_of(r)),
            f"{r.rate:.2f}" if r.handed and not name.startswith("large model") else "",
            f"{r.wrote.mean():.1f}",
            f"{r.read.mean():.1f}",
            f"{r.tokens.mean():.1f}",
            f"{r.flops.mean() / base:.2f}",
        ]
        for name, r in told.items()
    ]
    return table(head, lines)


def level_of(routed: Routed) -> Any:
    from anystep.calibrate.interval import bootstrap_mean

    return bootstrap_mean(routed.right)


def doubts(areas: dict[str, Any]) -> str:
    """AUROC for the small model's step errors, pooled and within each family."""
    lines = []
    for name, (values, wrong, names, families) in areas.items():
        line = [name, str(auroc(values, wrong, names))]
        for family in "CPAL":
            own = np.array([f == family for f in families])
            known = 0 < wrong[own].sum() < own.sum()
            line.append(f"{auroc(values[own], wrong[own]).value:.2f}" if known else "")
        lines.append(line)
    return table(["doubt", "AUROC, all", "C", "P", "A", "L"], lines)
