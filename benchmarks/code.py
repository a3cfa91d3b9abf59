"""How far can visible tests be trusted, and what are they worth? `python benchmarks/code.py` (10 minutes of one core).

    python benchmarks/code.py planted      # no model: programs with one planted slip, judged by shown and hidden tests
    python benchmarks/code.py generated    # SmolLM2-135M-Instruct on generated problems of level 1
    python benchmarks/code.py humaneval    # the same model on some of HumanEval: pass@1 and pass@k

Without a name, all three. The hidden tests are the truth everywhere; no method sees them. Intervals are over problems,
for what is measured on one problem is not independent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from anystep import search, tasks, verify
from anystep.answer import Answer
from anystep.bench import Interval, bootstrap_mean, pass_at_k
from anystep.ledger import Ledger, Limit
from anystep.population import Decision, Population
from anystep.solve import engine_for, solve_many
from anystep.tasks import Task, code

MODEL = "smollm2-135m"
PROBLEMS, SAMPLES = 40, 16
HUMANEVAL, EACH = 24, 5
PLANTED, SHOWN = 20, (1, 3, 5)  # problems a level; examples shown
RESAMPLES = 4_000


def ratio(top: Sequence[float], bottom: Sequence[float], seed: int = 0) -> Interval:
    """The ratio of two totals, each summed over problems, with its bootstrap interval over problems."""
    a, b = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    rows = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    below = b[rows].sum(1)
    found = a[rows].sum(1)[below > 0] / below[below > 0]
    return Interval(float(a.sum() / b.sum()), *map(float, np.quantile(found, (0.025, 0.975))))


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The chance that a right program's score is above a wrong one's, ties counting half."""
    good, bad = (np.array([s for s, r in zip(scores, right, strict=True) if r is want]) for want in (True, False))
    return float(np.mean((good[:, None] > bad) + 0.5 * (good[:, None] == bad)))


def planted() -> None:
    """False positives of the shown examples, by how many are shown, by level and by kind of slip."""
    some = [task for level in (1, 2, 3) for task in tasks.load("programs", PLANTED, level=level, shown=max(SHOWN))]
    slips = [(task, slip) for task in some for slip in code.planted(task)]
    given = [(task.meta["problem"], f"```python\n{slip.source}\n```") for task, slip in slips]
    began = time.perf_counter()
    truth = code.verdicts(given)
    print(f"{len(some)} generated problems, {len(given)} programs with a slip, {truth.count(0.0)} of them wrong")
    print(f"  hidden tests of {len(given) / (time.perf_counter() - began):.0f} programs a second")
    for shown in SHOWN:
        began = time.perf_counter()
        fewer = [(replace(p, key=f"{p.key}/{shown}", shown=p.shown[:shown]), text) for p, text in given]
        share = code.shares(fewer)
        rows = [(t.id, t.level, s.kind, v, r) for (t, s), v, r in zip(slips, share, truth, strict=True)]
        print(f"{shown} examples shown: {len(given) / (time.perf_counter() - began):.0f} programs a second")
        print(f"  wrong ones that pass: {_false(rows)}")
        print(f"  without those that know the examples by heart: {_false([r for r in rows if r[2] != 'overfit'])}")
        fails = sum(r[4] == 1.0 and r[3] < 1 for r in rows)
        print(f"  right ones that fail: {fails} of {truth.count(1.0)}")
        print(f"  AUROC of the share that passes: {auroc([r[3] for r in rows], [r[4] == 1.0 for r in rows]):.3f}")
        for level in (1, 2, 3):
            print(f"  level {level}: {_false([r for r in rows if r[1] == level])}")
        for kind in sorted({r[2] for r in rows}):
            wrong = sum(r[2] == kind and r[4] == 0.0 for r in rows)
            print(f"  {kind}: {_false([r for r in rows if r[2] == kind])} of {wrong}")


def _false(rows: list) -> Interval:
    wrong = [r for r in rows if r[4] == 0.0]
    names = sorted({r[0] for r in wrong})
    passed = [sum(r[3] == 1.0 for r in wrong if r[0] == name) for name in names]
    return ratio(passed, [sum(r[0] == name for r in wrong) for name in names])


def asked(some: Sequence[Task], n: int) -> tuple[list[Answer], list[list[float]]]:
    """n samples of each task, and the truth of each."""
    answers = solve_many(some, model=engine_for(MODEL), method=search.sample(n=n))
    return answers, [truths(task, answer) for task, answer in zip(some, answers, strict=True)]


def texts(answer: Answer) -> tuple[str, ...]:
    return () if answer.population is None else answer.population.states.texts()


def truths(task: Task, answer: Answer) -> list[float]:
    return code.score_many([task] * len(texts(answer)), texts(answer))


def generated() -> None:
    """pass@k, and what a choice among n samples is worth: by the shown examples, by votes of behaviour and of text."""
    some = tasks.load("programs", PROBLEMS, level=1)
    answers, truth = asked(some, SAMPLES)
    greedy = solve_many(some, model=engine_for(MODEL), method="greedy")
    print(f"{MODEL}, {len(some)} generated problems of level 1, {SAMPLES} samples each, temperature 0.8")
    spent = np.mean([a.cost.generated for a in greedy])
    print(f"  greedy: {bootstrap_mean([t.score(a.text or '') for t, a in zip(some, greedy, strict=True)])}, "
          f"{spent:.0f} tokens generated")  # fmt: skip
    for k in (1, 4, 16):
        print(f"  pass@{k}: {pass_at_k([(len(row), int(sum(row))) for row in truth], k)}")
    for n in (1, 4, 16):
        print(f"  n={n}, {np.mean([a.cost.generated for a in answers]) * n / SAMPLES:.0f} tokens generated")
        for name, choose in CHOICES.items():
            right = [choose(t, a, n) for t, a in zip(some, answers, strict=True)]
            scores = [row[i] if i is not None else 0.0 for row, i in zip(truth, right, strict=True)]
            print(f"    {name}: {bootstrap_mean(scores)}")
    shares = [
        verify.tests(t)(a.population.states, Limit(Ledger(), "tests")).values
        for t, a in zip(some, answers, strict=True)
    ]
    passed = [sum((s == 1.0) & (np.array(row) == 0.0)) for s, row in zip(shares, truth, strict=True)]
    print(f"  wrong samples that pass every example: {ratio(passed, [row.count(0.0) for row in truth])}")
    print(f"  samples that pass every example and are wrong: "
          f"{ratio(passed, [float(sum(s == 1.0)) for s in shares])}")  # fmt: skip


def _chosen(
    decision: Decision, reward: Callable[[Task], object] | None = None
) -> Callable[[Task, Answer, int], int | None]:
    def choose(task: Task, answer: Answer, n: int) -> int | None:
        population: Population | None = answer.population
        if population is None:
            return None
        population = population.take(np.arange(n))
        if reward is not None:
            scored = verify.tests(task)(population.states, Limit(Ledger(), "tests"))
            population = population.scored(scored.values)
        return decision(population).row

    return choose


def _of_texts(task: Task, answer: Answer, n: int) -> int | None:
    """The program that most samples give, letter by letter."""
    if answer.population is None:
        return None
    programs = tuple(map(task.meta["problem"].program, texts(answer)[:n]))
    population = answer.population.take(np.arange(n))
    return search.majority(replace(population, answers=programs)).row


CHOICES: dict[str, Callable[[Task, Answer, int], int | None]] = {
    "best of n by the examples": _chosen(search.best_reward, verify.tests),
    "majority by behaviour": _chosen(search.majority),
    "majority by program text": _of_texts,
    "votes of behaviour weighed by the examples": _chosen(search.reward_majority, verify.tests),
}


def humaneval() -> None:
    """pass@k of the first problems of the test split."""
    some = tasks.load("humaneval", HUMANEVAL)
    answers, truth = asked(some, EACH)
    print(f"{MODEL}, the first {len(some)} problems of HumanEval's test split, {EACH} samples each, temperature 0.8")
    for k in (1, EACH):
        print(f"  pass@{k}: {pass_at_k([(len(row), int(sum(row))) for row in truth], k)}")
    print(f"  right: {[t.id for t, row in zip(some, truth, strict=True) if any(row)]}")
    empty = [t for t, a in zip(some, answers, strict=True) for x in texts(a) if not t.meta["problem"].program(x)]
    print(f"  texts without a program: {len(empty)} of {len(some) * EACH}")


if __name__ == "__main__":
    parts = {"planted": planted, "generated": generated, "humaneval": humaneval}
    for part in sys.argv[1:] or parts:
        parts[part]()
