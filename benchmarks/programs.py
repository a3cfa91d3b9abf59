"""How far can visible tests be trusted, and what are they worth? `python benchmarks/programs.py` (6 core-minutes).

    python benchmarks/programs.py planted      # no model: programs with one slip, judged by shown and hidden tests
    python benchmarks/programs.py generated    # SmolLM2-135M-Instruct on generated problems of level 1
    python benchmarks/programs.py humaneval    # the same model on some of HumanEval: pass@1 and pass@k

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
from anystep.bench import pass_at_k
from anystep.calibrate import bootstrap_mean, paired_difference, states_of, verdicts
from anystep.calibrate.verdicts import share
from anystep.ledger import Ledger, Limit
from anystep.population import Decision, Population
from anystep.process import Floats
from anystep.solve import engine_for, solve_many
from anystep.tasks import Task, code
from anystep.verify.asked import asked_by

MODEL = "smollm2-135m"
PROBLEMS, SAMPLES = 40, 16
HUMANEVAL, EACH = 16, 5
AT_ONCE = 6  # problems, for their samples' keys and values take memory
PLANTED, SHOWN = 20, (1, 3, 5)  # problems a level; examples shown


def planted() -> None:
    """What the shown examples let pass, by how many are shown and by kind of slip."""
    some = [task for level in (1, 2, 3) for task in tasks.load("programs", PLANTED, level=level, shown=max(SHOWN))]
    slips = [(t, slip) for t in some for slip in (code.Slip("right", t.reference), *code.planted(t))]
    texts = [f"```python\n{slip.source}\n```" for _, slip in slips]
    began = time.perf_counter()
    truth = code.score_many([task for task, _ in slips], texts)
    took = time.perf_counter() - began
    print(f"{len(some)} generated problems, {len(slips)} programs; hidden tests of {len(slips) / took:.0f} a second")
    states = states_of(zip([asked_by(task) for task, _ in slips], texts, strict=True))
    kinds, ids = [slip.kind for _, slip in slips], [task.id for task, _ in slips]
    for shown in SHOWN:
        rewards = {task.id: verify.tests(_showing(task, shown)) for task in some}
        began = time.perf_counter()
        found = verdicts([rewards[name] for name in ids], states, truth, 1.0, kinds, ids, f"tests, {shown} shown")
        print(found)
        print(f"  {len(slips) / (time.perf_counter() - began):.0f} programs a second")
        learned = [i for i, kind in enumerate(kinds) if kind != "overfit" and truth[i] == 0.0]
        passed = [found.scores[i] == 1.0 for i in learned]
        print(f"  wrong ones passed, but for those that know the examples: {share(passed, [ids[i] for i in learned])}")
        for level in (1, 2, 3):
            own = [i for i in learned if slips[i][0].level == level]
            print(f"  of level {level}: {share([found.scores[i] == 1.0 for i in own], [ids[i] for i in own])}")


def _showing(task: Task, shown: int) -> Task:
    """The task as if it showed so many of its examples."""
    problem = task.meta["problem"]
    fewer = replace(problem, key=f"{problem.key}/{shown}", shown=problem.shown[:shown])
    return replace(task, id=f"{task.id}/{shown}", meta={**task.meta, "problem": fewer})


def asked(some: Sequence[Task], n: int) -> tuple[list[Answer], list[list[float]]]:
    """n samples of each task, and the truth of each."""
    answers = solve_many(some, model=engine_for(MODEL), method=search.sample(n=n), at_once=AT_ONCE)
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
    base = [t.score(a.text or "") for t, a in zip(some, greedy, strict=True)]
    print(f"  greedy: {bootstrap_mean(base)}, {spent:.0f} tokens generated")
    for k in (1, 4, 16):
        print(f"  pass@{k}: {pass_at_k([(len(row), int(sum(row))) for row in truth], k)}")
    for n in (1, 4, 16):
        print(f"  n={n}, {np.mean([a.cost.generated for a in answers]) * n / SAMPLES:.0f} tokens generated")
        for name, choose in CHOICES.items():
            right = [choose(t, a, n) for t, a in zip(some, answers, strict=True)]
            scores = [row[i] if i is not None else 0.0 for row, i in zip(truth, right, strict=True)]
            print(f"    {name}: {bootstrap_mean(scores)}, against greedy {paired_difference(scores, base)}")
    scored = [_shares(task, answer.population) for task, answer in zip(some, answers, strict=True)]
    flat = [(i, x == 1.0, t == 1.0) for i, row in enumerate(truth) for x, t in zip(scored[i], row, strict=True)]
    wrong, passed = [x for x in flat if not x[2]], [x for x in flat if x[1]]
    print(f"  wrong samples that pass every example: {share([x[1] for x in wrong], [x[0] for x in wrong])}")
    print(f"  wrong among those that pass: {share([not x[2] for x in passed], [x[0] for x in passed])}")


def _chosen(decision: Decision, by_examples: bool = False) -> Callable[[Task, Answer, int], int | None]:
    def choose(task: Task, answer: Answer, n: int) -> int | None:
        population: Population | None = answer.population
        if population is None:
            return None
        population = population.take(np.arange(n))
        if by_examples:
            population = population.scored(_shares(task, population))
        return decision(population).row

    return choose


def _shares(task: Task, population: Population | None) -> Floats:
    assert population is not None
    return verify.tests(task)(population.states, Limit(Ledger(), "tests")).values


def _of_probes(task: Task, answer: Answer, n: int) -> int | None:
    """A program whose behaviour on the examples' arguments and on eight others most samples share."""
    if answer.population is None:
        return None
    problem = code.probed(task.meta["problem"], 8)
    votes = tuple(code.behaviours([(problem, text) for text in texts(answer)[:n]]))
    return search.majority(replace(answer.population.take(np.arange(n)), answers=votes)).row


def _of_texts(task: Task, answer: Answer, n: int) -> int | None:
    """The program that most samples give, letter by letter."""
    if answer.population is None:
        return None
    programs = tuple(map(task.meta["problem"].program, texts(answer)[:n]))
    population = answer.population.take(np.arange(n))
    return search.majority(replace(population, answers=programs)).row


CHOICES: dict[str, Callable[[Task, Answer, int], int | None]] = {
    "best of n by the examples": _chosen(search.best_reward, True),
    "majority by behaviour": _chosen(search.majority),
    "majority by behaviour, 8 probes more": _of_probes,
    "majority by program text": _of_texts,
    "votes of behaviour weighed by the examples": _chosen(search.reward_majority, True),
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
