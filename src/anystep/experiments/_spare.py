"""What row 209's experiment works on: pools of chains with planted errors, their labels from four sources, figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from anystep.calibrate.interval import Interval
from anystep.language.train.figures import best_of
from anystep.language.train.rollouts import Labelling
from anystep.language.train.sampler import sample_many
from anystep.language.train.spare import SpareRecipe, annotated, candidate, forced, labels_of, referenced
from anystep.process import Floats
from anystep.tasks.chains import CHAIN_END, FAMILIES, Problem, Verdict
from anystep.tasks.chains.concluded import concluded
from anystep.tasks.chains.family import split
from anystep.tasks.chains.merged import judge
from anystep.tasks.chains.notes import Note, asked, note, read
from anystep.tasks.chains.outcome import outcome
from anystep.tasks.chains.planted import plant

ROWS = 128  # texts that are written side by side, whoever labels
LONG = 8  # lines: longer chains are left out
Labels = tuple[bool | None, ...]


@dataclass(frozen=True)
class Pool:
    """A problem, chains that were written for it, and whether each is right, all of it and at its end."""

    problem: Problem
    chains: list[str]
    right: Floats
    ended: list[bool]

    @property
    def prompt(self) -> str:
        return self.problem.prompt

    def truth(self) -> list[Labels]:
        """The exact labels of each chain's steps."""
        return [tuple(v is Verdict.RIGHT for v in judge(self.prompt, chain)) for chain in self.chains]


@dataclass(frozen=True)
class Reading:
    """Notes by problem and chain, with the verdicts that their evidence allows; the labels, and what they took; and the
    labels by the verdicts as written."""

    notes: list[list[list[Note | None]]]
    labelling: Labelling
    written: list[list[Labels]]


def distinct(split_name: str, n: int, seed: int, recipe: SpareRecipe) -> list[Problem]:
    """n different problems of a split, of the families and levels that the annotator knows."""
    found: dict[str, Problem] = {}
    for problem in referenced(split_name, f"{split_name}:{seed}", recipe):
        found.setdefault(problem.key, problem)
        if len(found) == n:
            break
    return list(found.values())


def pools(problems: Sequence[Problem], policy: Any, samples: int, planted: int, seed: int) -> list[Pool]:
    """For each problem samples of the policy at temperature 1, and chains with a wrong step and a right end."""
    drawn = sample_many(policy[0], policy[1], [p.prompt for p in problems], samples, seed=seed)
    rng = Random(seed)
    found = []
    for problem, some in zip(problems, drawn, strict=True):
        chains = [c if CHAIN_END in c else c + CHAIN_END for c in some]
        chains = [c for c in chains if len(split(c)) <= LONG]
        while len(chains) < samples + planted:
            chains.append(misled(rng, problem))
        rng.shuffle(chains)
        family = FAMILIES[problem.family]
        right = np.array([family.score(problem.prompt, c) for c in chains])
        found.append(Pool(problem, chains, right, [outcome(problem.prompt, c) for c in chains]))
    return found


def misled(rng: Random, problem: Problem) -> str:
    """A chain with a wrong step and a right end: an error and then the rest of a right chain, or an error carried on
    and the end forced."""
    family = FAMILIES[problem.family]
    while True:
        right = family.taught(rng, problem.prompt)
        if rng.random() < 0.5:
            chain = plant(problem.prompt, right, "right answer", rng)
        else:
            chain = plant(problem.prompt, right, rng.choice(("false result", "illegal move", "wrong copy")), rng)
            chain = chain and forced(problem.prompt, chain, right)
        if chain and outcome(problem.prompt, chain) and not family.score(problem.prompt, chain):
            return chain


def varied(problems: Sequence[Problem], policy: Any, each: int, seed: int) -> list[Pool]:
    """For each problem one sample of the policy and candidates with planted errors, merged and reordered lines."""
    drawn = sample_many(policy[0], policy[1], [p.prompt for p in problems], 1, seed=seed)
    rng, found = Random(seed), []
    for problem, some in zip(problems, drawn, strict=True):
        made = [c for c in some if CHAIN_END in c]
        made += [candidate(rng, problem.prompt, problem.chain) for _ in range(each)]
        chains = sorted({c for c in made if 1 <= len(split(c)) <= LONG and len(c) > 1})
        right = [float(all(v is Verdict.RIGHT for v in judge(problem.prompt, c))) for c in chains]
        found.append(Pool(problem, chains, np.array(right), [outcome(problem.prompt, c) for c in chains]))
    return found


def noted(some: Sequence[Pool], annotator: Any, reference: bool = True, explained: bool = True) -> Reading:
    """The annotator's notes on every chain; a chain that comes twice in a pool is read once.

    reference: whether it is shown one. explained: whether its notes have evidence to be weighed.
    """
    began = time.process_time()
    asks = {(p.prompt, c): asked(p.prompt, p.problem.chain if reference else None, c) for p in some for c in p.chains}
    every = sorted(set(asks.values()))
    texts = dict(zip(every, annotated(annotator[0], annotator[1], every, ROWS), strict=True))
    raw = [[read(texts[asks[p.prompt, c]], len(split(c))) for c in p.chains] for p in some]
    notes = raw
    if explained:
        notes = [
            [
                concluded(p.prompt, p.problem.chain if reference else None, c, row)
                for c, row in zip(p.chains, rows, strict=True)
            ]
            for p, rows in zip(some, raw, strict=True)
        ]
    labels = [[labels_of(rows) for rows in one] for one in notes]
    spent = time.process_time() - began
    labelling = Labelling(labels, sum(map(len, every)), sum(map(len, texts.values())), spent)
    return Reading(notes, labelling, [[labels_of(rows) for rows in one] for one in raw])


def single(some: Sequence[Pool], reading: Reading) -> Reading:
    """The same reading, had each line been aligned with one line of the reference at most."""
    notes = [
        [
            concluded(p.prompt, p.problem.chain, c, [n and replace(n, aligned=n.aligned[:1]) for n in row])
            for c, row in zip(p.chains, rows, strict=True)
        ]
        for p, rows in zip(some, reading.notes, strict=True)
    ]
    return Reading(notes, reading.labelling, [[labels_of(row) for row in rows] for rows in notes])


def counts(some: Sequence[Pool], labels: Sequence[Sequence[Labels]], first: bool = False) -> Floats:
    """(pools, 4): wrong steps called wrong, right called wrong, wrong not called so, right not called wrong.

    A step of which nothing is known counts as called wrong where it is right, and as right where it is wrong: against
    the annotator. first: steps behind a chain's first error are left out.
    """
    found = []
    for pool, mine in zip(some, labels, strict=True):
        row = np.zeros(4)
        for truth, said in zip(pool.truth(), mine, strict=True):
            end = truth.index(False) + 1 if first and False in truth else len(truth)
            for right, label in list(zip(truth, said, strict=True))[:end]:
                called = right if label is None else not label
                row[[[2, 0], [3, 1]][bool(right)][bool(called)]] += 1
        found.append(row)
    return np.array(found)


def f1(table: Floats) -> tuple[Interval, Interval]:
    """F1 of wrong steps, and the mean of it and right steps' F1, with intervals over problems."""

    def both(total: Floats) -> Floats:
        tp, fp, fn, tn = np.moveaxis(total, -1, 0)
        wrong, right = 2 * tp / np.maximum(1, 2 * tp + fp + fn), 2 * tn / np.maximum(1, 2 * tn + fp + fn)
        return np.stack([wrong, (wrong + right) / 2], -1)

    at = np.random.default_rng(0).integers(0, len(table), (2_000, len(table)))
    low, high = np.quantile(both(table[at].sum(1)), [0.025, 0.975], axis=0)
    value = both(table.sum(0))
    one, two = (Interval(float(value[i]), float(low[i]), float(high[i])) for i in range(2))
    return one, two


def alignments(some: Sequence[Pool], reading: Reading, many: bool) -> list[list[float]]:
    """For each pool, whether each line's alignment is exactly the true one: of lines that stand for several of the
    reference's, or of all."""
    found = []
    for pool, notes in zip(some, reading.notes, strict=True):
        row = []
        for chain, mine in zip(pool.chains, notes, strict=True):
            for true, said in zip(note(pool.prompt, pool.problem.chain, chain), mine, strict=True):
                if len(true.aligned) > 1 or not many:
                    row.append(float(said is not None and said.aligned == true.aligned))
        found.append(row)
    return found


def chosen(some: Sequence[Pool], judge_model: Any, combine: Callable[[Sequence[float]], float], k: int) -> Floats:
    """For each pool the chance that the best scored of k of its chains is right, all of it."""
    read = judge_model.probabilities([p.prompt + c for p in some for c in p.chains])
    scores = iter([combine(steps) if steps else 0.0 for steps in read])
    return np.array([best_of(p.right, np.array([next(scores) for _ in p.chains]), k) for p in some])
