"""Row 154: induction by proposing rules, selecting them by an interpreter and refining them by their failures, against
a twin of the proposer that answers directly.

Stated time: eight minutes on a crowded core given the two models, and four more of a quiet one the first time, when
they are trained (then they are kept).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import Interval, level, paired_difference
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.procedure import Method
from anystep.process import Floats, Process
from anystep.solve import process_for
from anystep.tasks.rules import (
    Problem,
    applying,
    behaviour,
    direct,
    drawn,
    perturbed,
    revised,
    rule_of,
    task,
    unfailing,
)
from anystep.tasks.task import Task
from anystep.verify import rule_fit

ROW = 154
N, ROUNDS = 5, 3
TEMPERATURE = 0.7
SHARES = (0.125, 0.25, 0.5)  # of the shown outputs that are wrong


@dataclass(frozen=True)
class Bench:
    """The two models on one set of problems."""

    proposer: Any
    twin: Any
    problems: Sequence[Problem]
    seed: int

    def proposing(self, task: Task) -> Process:
        return process_for(task, self.proposer, temperature=TEMPERATURE)

    def refined(
        self, n: int = N, rounds: int = ROUNDS, rewrite: Callable[[str, str], str] = revised, wrong: float = 0.0
    ) -> Outcomes:
        """Hypothesis refinement of n hypotheses a round; wrong: the share of shown outputs that are perturbed."""
        from anystep.language.revising import revising

        def method(task: Task) -> Method:
            reviser = revising(self.proposing(task), rewrite)  # type: ignore[arg-type]
            return search.hypothesis_refinement(n=n, reward=rule_fit(task), reviser=reviser, rounds=rounds)

        return outcomes(self.proposer, self.tasks(wrong), method, self.seed, process_of=self.proposing)

    def voted(self, n: int) -> Outcomes:
        """Self-consistency of rules: what most of n rules make of the unseen lists. No example is checked."""
        method = search.self_consistency(n=n)
        return outcomes(self.proposer, self.tasks(), method, self.seed, process_of=self.proposing)

    def greedy(self, wrong: float = 0.0) -> Outcomes:
        """Direct prompting: the twin's likeliest outputs."""
        tasks = [direct(p) for p in self.perturbed(wrong)]
        return outcomes(self.twin, tasks, search.sample(n=1), self.seed, process_of=self._greedily)

    def direct_voted(self, n: int) -> Outcomes:
        """Self-consistency of the twin, list by list: of each unseen list the output that most of n samples give."""
        tasks = [direct(p) for p in self.problems]
        found = outcomes(self.twin, tasks, search.self_consistency(n=n), self.seed, process_of=self._sampled)
        right = [_list_by_list(t, run) for t, run in zip(tasks, found.runs, strict=True)]
        return replace(found, right=np.array(right))

    def tasks(self, wrong: float = 0.0) -> list[Task]:
        return [task(p) for p in self.perturbed(wrong)]

    def perturbed(self, wrong: float) -> Sequence[Problem]:
        rng = Random(self.seed)
        return [perturbed(p, wrong, rng) for p in self.problems] if wrong else self.problems

    def _greedily(self, task: Task) -> Process:
        return process_for(task, self.twin, temperature=0.0)

    def _sampled(self, task: Task) -> Process:
        return process_for(task, self.twin, temperature=TEMPERATURE)


def _list_by_list(task: Task, run: Any) -> float:
    """The score of the most frequent output of each list, ties to the first."""
    population = None if run.answer is None else run.answer.population
    said = [a.split(";") for a in (population.answers if population is not None else ()) or () if isinstance(a, str)]
    lists = len(task.meta["problem"].unseen)
    columns = [Counter(row[i] for row in said if len(row) > i) for i in range(lists)]
    text = ";".join(c.most_common(1)[0][0] if c else "/" for c in columns)
    return float(task.score(f"{text}."))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    proposer: Any = None,
    twin: Any = None,
    problems: int = 200,
    split: str = "test",
) -> Result:
    """Check every clause of the row.

    proposer, twin: engines, by default those that `language.train.induction` trains. problems: held-out ones, at most
    six of a rule; no rule does what one of training did. Intervals are over rules.
    """
    from anystep.language import load
    from anystep.language.train.induction import InductionRecipe, inducer

    began = time.perf_counter()
    proposer = proposer or load(inducer(InductionRecipe("rules"), progress))
    twin = twin or load(inducer(InductionRecipe("direct"), progress))
    bench = Bench(proposer, twin, drawn(problems, split, seed), seed)
    grid = {(n, rounds): bench.refined(n, rounds) for n in (1, 2, N) for rounds in (1, 2, ROUNDS)}
    ours = grid[N, ROUNDS]
    progress(f"refined {ours.accuracy}")
    k, voted = no_cheaper(bench.direct_voted, ours.cost)
    m, rules_voted = no_cheaper(bench.voted, ours.cost)
    m2, many = no_cheaper(lambda n: bench.refined(n, 1), ours.cost)
    one, blind = bench.greedy(), bench.refined(rewrite=unfailing)
    progress(f"direct {one.accuracy}, vote@{k} {voted.accuracy}")
    applied = by_model(bench, ours)

    def over(theirs: Outcomes | Floats) -> Interval:
        right = theirs.right if isinstance(theirs, Outcomes) else theirs
        return paired_difference(by_rule(bench.problems, ours.right), by_rule(bench.problems, right))

    checks = [
        held(f"n={N}, {ROUNDS} rounds: accuracy on unseen lists minus direct prompting's", over(one), ">=", 0.1),
        held(f"minus direct prompting's vote@{k}, no fewer tokens", over(voted), ">=", 0.1),
        held(f"more proposals: n={N} minus n=1", over(grid[1, ROUNDS]), ">", 0.0),
        held(f"more rounds: {ROUNDS} minus one", over(grid[N, 1]), ">", 0.0),
        *(Check(clause, count, "==", 0) for clause, count in falls(grid).items()),
        Check("runs whose answer fits fewer seen examples than some proposal", unfit(grid.values()), "==", 0),
        held("interpreter minus the model applying the same rule, accuracy", over(applied), ">", 0.0),
        held(f"ablation, no interpreter: minus a vote of {m} rules", over(rules_voted), ">", 0.0),
    ]
    rows = [
        ["direct, greedy", one],
        [f"direct, vote@{k} list by list", voted],
        [f"vote of {m} rules", rules_voted],
        [f"best of {m2} rules, no refinement", many],
        ["refinement that is not told its failures", blind],
        *([f"refinement n={n}, rounds={rounds}", found] for (n, rounds), found in grid.items()),
    ]
    told = notes(bench, rows, ours, over(many), over(blind), applied)
    return Result("hypothesis_refinement", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def by_rule(problems: Sequence[Problem], right: Floats) -> list[list[float]]:
    """What was right, rule by rule: problems of one rule are no independent draws."""
    groups: dict[str, list[float]] = {}
    for problem, r in zip(problems, right.tolist(), strict=True):
        groups.setdefault(behaviour(problem.rule), []).append(r)
    return list(groups.values())


def falls(grid: dict[tuple[int, int], Outcomes]) -> dict[str, int]:
    """How often more proposals, or more rounds, explain fewer seen examples in the mean."""
    fits = {key: float(np.mean([_fitted(run)[0] for run in found.runs])) for key, found in grid.items()}
    ns, rounds = sorted({n for n, _ in fits}), sorted({r for _, r in fits})
    more = sum(fits[b, r] < fits[a, r] for r in rounds for a, b in zip(ns, ns[1:], strict=False))
    longer = sum(fits[n, b] < fits[n, a] for n in ns for a, b in zip(rounds, rounds[1:], strict=False))
    return {
        f"steps of n in {ns} at which fewer seen examples are explained": more,
        f"steps of rounds in {rounds} at which fewer seen examples are explained": longer,
    }


def _fitted(run: Any) -> tuple[float, float]:
    """The fit of a run's answer, and of its best proposal; 0 where nothing was finished."""
    if run.answer is None or run.answer.population is None or run.answer.row is None:
        return 0.0, 0.0
    scores = run.answer.population.scores
    return float(scores[run.answer.row]), float(np.nanmax(np.where(run.answer.population.done, scores, np.nan)))


def unfit(found: Any) -> int:
    return sum(fit < best for o in found for fit, best in map(_fitted, o.runs))


def by_model(bench: Bench, ours: Outcomes) -> Floats:
    """Accuracy where the proposer itself applies, at temperature 0, each rule that refinement answers with."""
    rows, asked = [], []
    for i, (problem, run) in enumerate(zip(bench.problems, ours.runs, strict=True)):
        rule = None if run.answer is None else rule_of(run.answer.text or "")
        if rule is not None:
            lists = [x for x, _ in problem.unseen]
            rows.append(i)
            asked.append(replace(direct(problem), prompt=applying(str(rule), lists)))

    def greedily(task: Task) -> Process:
        return process_for(task, bench.proposer, temperature=0.0)

    right = np.zeros(len(bench.problems))
    if asked:
        right[rows] = outcomes(bench.proposer, asked, search.sample(n=1), bench.seed, process_of=greedily).right
    return right


def notes(
    bench: Bench, rows: Sequence[Sequence[Any]], ours: Outcomes, many: Interval, blind: Interval, applied: Floats
) -> str:
    """Accuracy list by list, whole problems, what is paid; the ablations; and the perturbed examples."""

    def told(right: Floats) -> str:
        return str(level(by_rule(bench.problems, right)))

    lines = [[name, told(o.right), float((o.right == 1).mean()), o.cost] for name, o in rows]
    lines.append(["the proposer applies the refined rule", told(applied), "", ""])
    worse = [["0%", told(ours.right), told(rows[0][1].right)]]
    for share in SHARES:
        worse.append([f"{share:.1%}", told(bench.refined(wrong=share).right), told(bench.greedy(share).right)])
    rules = len({behaviour(p.rule) for p in bench.problems})
    head = ["method", "unseen lists right", "whole problems", "tokens"]
    return (
        f"{len(bench.problems)} problems of {rules} rules, temperature {TEMPERATURE}.\n\n{table(head, lines)}\n\n"
        f"Refinement minus best of as many tokens without it: {many}; minus refinement that is not told "
        f"where a rule fails: {blind}.\n\n"
        + table(["shown outputs with a wrong digit", f"refinement n={N}, rounds={ROUNDS}", "direct, greedy"], worse)
    )
