"""Row 113: plans verified by extracted constraints, and a bandit that chooses per problem which search makes them.

Stated time: four minutes on one quiet core, and ten more the first time, when its four models are trained (then they
are kept). The record has 150 problems.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments.check import Result
from anystep.procedure import Method
from anystep.process import Floats, Process, Reward
from anystep.run import Run
from anystep.search.plangen import Played
from anystep.solve import process_for
from anystep.tasks.planning import Constraint, planning
from anystep.tasks.task import Task
from anystep.verify import constraints_of, oracle, plan_constraints

ROW = 113
TEMPERATURE = 0.7
ROUNDS = 3

ALGORITHMS: dict[str, Callable[[Reward, int], Method]] = {  # with how many more calls than the published sizes
    "best of n": lambda reward, more: search.best_of_n(n=5 + more, reward=reward),
    "tree": lambda reward, more: search.beam(width=2, reward=reward, branch=3 + more),
    "rebase": lambda reward, more: search.rebase(n=5 + more, reward=reward, temperature=25.0).deciding(
        search.decide.best_reward
    ),
}


@dataclass(frozen=True)
class Bench:
    """The four models on problems."""

    engines: dict[str, Any]
    tasks: Sequence[Task]
    seed: int

    @property
    def planner(self) -> Any:
        return self.engines["planner"]

    @functools.cached_property
    def extracted(self) -> dict[str, tuple[tuple[Constraint, ...], int]]:
        """Of each problem, the constraints that the extractor finds, and the tokens it took."""
        found = {task.id: constraints_of(task, self.engines["extractor"]) for task in self.tasks}
        return {key: (constraints, cost.tokens) for key, (constraints, cost) in found.items()}

    def verifier(self, task: Task, guided: bool) -> Reward:
        """A problem's verifier; where nothing was extracted the guided one has only the text to go by."""
        constraints = self.extracted[task.id][0] if guided else ()
        return plan_constraints(task, constraints, self.engines["guided" if constraints else "unguided"])

    def sampled(self, task: Task) -> Process:
        return process_for(task, self.planner, temperature=TEMPERATURE)

    def greedy(self) -> Outcomes:
        def likeliest(task: Task) -> Process:
            return process_for(task, self.planner, temperature=0.0)

        return outcomes(self.planner, self.tasks, search.sample(n=1), self.seed, process_of=likeliest)

    def voted(self, n: int) -> Outcomes:
        method = search.self_consistency(n=n)
        return outcomes(self.planner, self.tasks, method, self.seed, process_of=self.sampled)

    def fixed(self, name: str, guided: bool = True, more: int = 0) -> Outcomes:
        """One algorithm on every problem."""
        make = ALGORITHMS[name]
        return self._run(lambda task: make(self.verifier(task, guided), more), guided)

    def oracled(self, n: int = 5) -> Outcomes:
        """Best of n by the exact checker: the upper bound of any verifier, no method."""
        return self._run(lambda task: search.best_of_n(n=n, reward=oracle(task)))

    def selected(self, known: Known, rounds: int, prior: bool = True) -> Outcomes:
        """PlanGEN's mixture, with what is known of the algorithms from problems for choosing settings."""

        def method(task: Task) -> Method:
            reward = self.verifier(task, True)
            made = [make(reward, 0) for make in ALGORITHMS.values()]
            suited = known.suited(task) if prior else ()
            return search.plangen(made, reward, rounds=rounds, prior=suited, played=known.played)

        return self._run(method, guided=True)

    def _run(self, method: Callable[[Task], Method], guided: bool = False) -> Outcomes:
        """With the extraction's tokens added where it was used."""
        found = outcomes(self.planner, self.tasks, method, self.seed, process_of=self.sampled)
        extra = np.array([self.extracted[task.id][1] if guided else 0 for task in self.tasks])
        return replace(found, tokens=found.tokens + extra)


@dataclass(frozen=True)
class Known:
    """What other problems have taught of each algorithm: plays and mean best reward in all, and by how much is said."""

    played: Played
    by_length: dict[int, tuple[float, ...]]

    def suited(self, task: Task) -> tuple[float, ...]:
        """How much better than in all each algorithm did where as much was said."""
        return self.by_length[_said(task)]

    @classmethod
    def of(cls, bench: Bench, found: dict[str, Outcomes]) -> Known:
        """From verifier's rewards alone; the exact checker has no part in it."""
        best = np.array([[_share(run) for run in o.runs] for o in found.values()])
        said = np.array([_said(task) for task in bench.tasks])
        means = best.mean(1)
        by_length = {}
        for length in range(3):
            here = best[:, said == length].mean(1) if (said == length).any() else means
            by_length[length] = tuple((here - means).tolist())
        return cls(Played((float(len(said)),) * len(found), tuple(means.tolist())), by_length)


def _said(task: Task) -> int:
    """How much a problem says, in three classes that any reader sees: up to 5 sentences, 6 to 8, more."""
    sentences = str(task.prompt).count(";")
    return 0 if sentences <= 5 else 1 if sentences <= 8 else 2


def _share(run: Run) -> float:
    """The best reward that a run found, as a share of its range."""
    if run.answer is None or run.answer.population is None:
        return 0.0
    scores = run.answer.population.scores
    return float((np.nanmax(scores) + 100) / 200) if len(scores) and not np.isnan(scores).all() else 0.0


def calls(found: Outcomes) -> Floats:
    """Plans and steps asked of the planner, states verified, and the extraction where there was one, (problems,)."""
    return np.array([_calls(run) for run in found.runs], dtype=np.float64)


def _calls(run: Run) -> int:
    family = run.books.family
    made = sum(bool(parents) for parents in family.parents)
    guided = any(getattr(reward, "constraints", ()) for reward, _ in family.scores)
    return made + len(family.scores) + guided


def extracted(bench: Bench) -> tuple[Floats, Floats, Floats]:
    """Of each problem: constraints found that are there, found that are not, and missed."""
    rows = []
    for task in bench.tasks:
        found = set(map(str, bench.extracted[task.id][0]))
        there = set(map(str, task.meta["problem"].constraints))
        rows.append((len(found & there), len(found - there), len(there - found)))
    hits, extra, missed = np.array(rows, dtype=np.float64).T
    return hits, extra, missed


def f1(hits: Floats, extra: Floats, missed: Floats, seed: int = 0) -> Interval:
    """Micro F1 over all problems, bootstrapped over them."""
    at = np.random.default_rng(seed).integers(0, len(hits), (2_000, len(hits)))
    h, e, m = (x[at].sum(1) for x in (hits, extra, missed))
    low, high = np.quantile(2 * h / (2 * h + e + m), [0.025, 0.975])
    value = 2 * hits.sum() / (2 * hits.sum() + extra.sum() + missed.sum())
    return Interval(float(value), float(low), float(high))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engines: dict[str, Any] | None = None,
    problems: int = 300,
    rounds: int = ROUNDS,
) -> Result:
    """Check every clause of the row.

    engines: of "planner", "extractor", "guided" and "unguided", by default those of `language.train.planners`.
    problems: held-out ones; as many of the dev split teach the bandit.
    """
    began = time.perf_counter()
    loaded = engines or trained(progress)

    def bench(split: str) -> Bench:
        return Bench(loaded, planning(problems, split, seed), seed)

    dev = bench("dev")
    known = Known.of(dev, {name: dev.fixed(name) for name in ALGORITHMS})
    test = bench("test")
    guided = {name: test.fixed(name) for name in ALGORITHMS}
    unguided = {name: test.fixed(name, guided=False, more=1) for name in ALGORITHMS}
    ours = test.selected(known, rounds)
    best = max(guided, key=lambda name: guided[name].accuracy.value)
    progress(f"selection {ours.accuracy}, best fixed {best} {guided[best].accuracy}")
    top = np.array([task.level for task in test.tasks]) >= np.quantile([task.level for task in test.tasks], 2 / 3)
    hardest = max(guided, key=lambda name: guided[name].right[top].mean())
    oracle_choice = np.max([o.right for o in guided.values()], axis=0)
    checks = [
        *(held(f"{name}: guided minus unguided at no fewer calls", guided[name].over(unguided[name]), ">=", 0.05)
          for name in ALGORITHMS),
        held(f"top complexity tercile: selection minus {hardest}, the best fixed there",
             paired(ours.right[top], guided[hardest].right[top]), ">=", 0.0),
        held(f"overall: selection minus {best}, the best fixed", ours.over(guided[best]), ">=", -0.01),
        held(f"calls of the selection over those of {best}", ratio(calls(ours), calls(guided[best])), "<=", 0.8),
        held(f"oracle choice minus {best}: what choosing could gain", paired(oracle_choice, guided[best].right),
             ">=", 0.03),
        held("F1 of the extracted constraints", f1(*extracted(test)), ">=", 0.9),
    ]  # fmt: skip
    k, voted = no_cheaper(test.voted, ours.cost)
    rows = [("greedy plan", test.greedy()), (f"vote@{k}", voted)]
    rows += [(f"{name}, unguided", o) for name, o in unguided.items()]
    rows += [(f"{name}, guided", o) for name, o in guided.items()]
    rows += [("selection", ours), ("selection without the prior", test.selected(known, rounds, prior=False))]
    rows.append(("best of 5 by the exact checker (oracle, an upper bound)", test.oracled()))
    lines: list[list[object]] = [
        [name, str(o.accuracy), float(o.right[top].mean()), float(calls(o).mean()), o.cost] for name, o in rows
    ]
    lines.append(["oracle choice of a guided algorithm", str(bootstrap_mean(oracle_choice)),
                  float(oracle_choice[top].mean()), "", ""])  # fmt: skip
    told = (
        f"{problems} problems, {int(top.sum())} in the top tercile, temperature {TEMPERATURE}, at most {rounds} rounds."
        f"\n\n{table(['method', 'plans right', 'top tercile', 'calls', 'tokens'], lines)}\n\n"
        f"Selection minus vote@{k} at no fewer tokens: {ours.over(voted)}."
    )
    return Result("plangen", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def trained(progress: Callable[[str], None]) -> dict[str, Any]:
    """The engines of the four recipes, trained where they are not kept."""
    from anystep.language import load
    from anystep.language.train.planners import PlannerRecipe, planner

    roles: tuple[Any, ...] = ("planner", "extractor", "guided", "unguided")
    return {role: load(planner(PlannerRecipe(role), progress)) for role in roles}
