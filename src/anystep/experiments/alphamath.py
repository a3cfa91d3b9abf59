"""Row 30: AlphaMath on ChainLM, countdown and lines of arithmetic (the row's countdown and chain_sum), outcomes only.

Stated time: four minutes on one quiet core, and three more the first time, when three rounds are trained (then they are
kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from anystep import search
from anystep.calibrate.interval import Interval
from anystep.drive import drive
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.language.engine.engine import Engine
from anystep.language.states import Sequences
from anystep.language.train.alphamath import AlphaRecipe, Solved, alphamath, load
from anystep.language.train.chainlm import policy
from anystep.language.train.figures import within_auroc
from anystep.language.train.sampler import sample_many
from anystep.language.value import StateValue
from anystep.ledger import Ledger, Limit
from anystep.procedure import Count, Exploring, procedure, start, step
from anystep.process import Floats, reward
from anystep.run import Run
from anystep.search import decide
from anystep.search.alphamath import HALF, tree_values
from anystep.solve import process_for
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet, chains, family_of
from anystep.tasks.task import Task
from anystep.testing.oracles import EnumerableLM

ROW = 30
FAMILIES = "CA"
FEWEST = 20  # rollouts through a state for its chance of success to be counted
Model = tuple[Engine, StateValue]


@procedure(decide=decide.best_reward, needs_end=True)
def prior_beam(width: Count, branch: Count = 5) -> Exploring:
    """`search.step_beam` with the path's log-probability in the value's place: the ablation."""
    population, retired = (yield from start(width, distinct=True)), []
    while population.live.any():
        population = (yield from step(population, branch)).distinct()
        population = population.take(~population.failed)
        population = population.take(np.argsort(-population.logp, kind="stable")[:width])
        retired.append(population.take(population.done))
        population = population.take(population.live)
        width -= len(retired[-1])
    every = [some for some in retired if len(some)] or [population]
    joined = every[0].join(*every[1:])
    return joined.scored(joined.logp)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    recipe: AlphaRecipe | None = None,
    problems: int = 150,
    searched: int = 40,
    level: int = 12,
    rollouts: int = 200,
) -> Result:
    """Check every clause of the row.

    recipe: of the three rounds. problems: held-out ones for accuracies and AUROC. searched: of those, how many have
    their trees compared with `rollouts` samples of the policy; level: of three-number countdown problems, how many for
    values at a large c.
    """
    began = time.perf_counter()
    cards = alphamath(recipe, say=progress)
    models = [load(Path(card)) for card in cards]
    tasks = chains(problems, "test", seed, families=FAMILIES)
    checks, told = solvability(models, tasks, (recipe or AlphaRecipe()).start, seed)
    progress(told)
    checks += [*supervision(cards[-1], tasks[:searched], level, rollouts, seed), oracle_error(seed)]
    progress("\n".join(map(str, checks)))
    found, figures = answers(models[-1], tasks, seed)
    notes = (
        f"{problems} test problems of families C (countdown) and A (a line of arithmetic, the row's chain_sum), shares "
        f"4 to 1; {searched} of them searched, {level} more at a large c; the policy of round 3 throughout. The trees "
        f"see one bit a finished chain, from the task's scorer. {told} Tokens are prompt and generated, the value's "
        f"reading included.\n\n{figures}"
    )
    return Result("alphamath", ROW, (*checks, *found), time.perf_counter() - began, seed, notes)


@dataclass(frozen=True)
class Begun:
    """Unfinished chains of one problem, and whether the goal can still be met from each: exhaustively."""

    task: Task
    texts: list[str]
    alive: Floats


def begun(tasks: Sequence[Task], start: str, seed: int, each: int = 4) -> list[Begun]:
    """Distinct beginnings of the base policy's samples, step by step."""
    model, alphabet = policy(start)
    drawn = sample_many(model, alphabet, [task.prompt for task in tasks], each, seed=seed + 5)
    found = []
    for task, some in zip(tasks, drawn, strict=True):
        texts = sorted({c[: i + 1] for c in some for i, x in enumerate(c) if x == STEP_END})
        family = family_of(task.prompt)
        found.append(Begun(task, texts, np.array([all(family.steps(task.prompt, t)) for t in texts], dtype=float)))
    return found


def solvability(models: Sequence[Model], tasks: Sequence[Task], start: str, seed: int) -> tuple[list[Check], str]:
    """Does each round's value tell solvable beginnings from doomed ones better than the round before?"""
    some = begun(tasks, start, seed)
    read = [[worth(model, b.task.prompt, b.texts) for b in some] for model in models]
    rng, n = np.random.default_rng(seed), len(some)

    def pooled(values: Sequence[Floats], rows: Sequence[int]) -> float:
        return within_auroc(np.concatenate([some[i].alive for i in rows]), np.concatenate([values[i] for i in rows]))

    drawn = [rng.integers(0, n, n).tolist() for _ in range(400)]
    aurocs = [[pooled(values, range(n)), *(pooled(values, rows) for rows in drawn)] for values in read]
    checks = []
    for number in range(1, len(models)):
        gain = np.subtract(aurocs[number], aurocs[number - 1])
        low, high = np.nanquantile(gain[1:], [0.025, 0.975])
        clause = f"value AUROC against exact solvability, round {number + 1} minus round {number}"
        checks.append(held(clause, Interval(float(gain[0]), float(low), float(high)), ">", 0.0))
    inside = [np.nanmean([within_auroc(b.alive, v) for b, v in zip(some, values, strict=True)]) for values in read]
    states = sum(len(b.texts) for b in some)
    told = (
        f"AUROC by round over {states} unfinished states: {', '.join(f'{a[0]:.3f}' for a in aurocs)} pooled, "
        f"{', '.join(f'{a:.3f}' for a in inside)} within a problem."
    )
    return checks, told


def worth(model: Model, prompt: str, texts: Sequence[str]) -> Floats:
    """The model's value of these beginnings of its prompt, (texts,)."""
    engine, value = model
    if not texts:
        return np.zeros(0)
    head = tuple(engine.tokenizer.encode(prompt))
    tokens = tuple(head + tuple(engine.tokenizer.encode(text)) for text in texts)
    states = Sequences(tokens, (len(head),) * len(tokens), engine.tokenizer)
    return value(states, Limit(Ledger(), value.name)).values


def supervision(card: Path, tasks: Sequence[Task], level: int, rollouts: int, seed: int) -> list[Check]:
    """What trees say of states against the policy's own chance of success, by many rollouts."""
    model = load(Path(card))
    ranked = compared(model, tasks, rollouts, seed, rounds=40, branch=5, c=0.75, temper=6.0)
    values, chances = np.concatenate([v for v, _ in ranked]), np.concatenate([c for _, c in ranked])
    rng, n, drawn = np.random.default_rng(seed), len(ranked), []
    for _ in range(400):
        rows = rng.integers(0, n, n)
        pairs = np.concatenate([np.stack(ranked[i]) for i in rows], axis=1)
        drawn.append(float(spearmanr(pairs[0], pairs[1]).statistic))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    rank = Interval(float(spearmanr(values, chances).statistic), float(low), float(high))
    clause = f"rank correlation of (Q + 1) / 2 with the policy's chance of success, {len(values)} states"
    checks = [held(clause, rank, ">=", 0.8)]
    easy = chains(level, "test", seed + 1, families="C", level=1)
    wide = compared(model, easy, rollouts, seed, rounds=40, branch=32, c=1e6, temper=1e9, close=False, distinct=False)
    errors = [float(np.abs(v - c).mean()) for v, c in wide if len(v)]
    at = np.random.default_rng(seed).integers(0, len(errors), (2_000, len(errors)))
    low, high = np.quantile(np.array(errors)[at].mean(1), [0.025, 0.975])
    error = Interval(float(np.mean(errors)), float(low), float(high))
    clause = f"mean error of (Q + 1) / 2 at a large c, nothing skipped, 32 samples a state, {len(errors)} problems"
    return [*checks, held(clause, error, "<=", 0.1)]


def compared(
    model: Model, tasks: Sequence[Task], rollouts: int, seed: int, **options: Any
) -> list[tuple[Floats, Floats]]:
    """For each problem's states that enough rollouts pass through: the tree's values, and the rollouts' success."""
    engine, value = model
    prompts = [task.prompt for task in tasks]
    pools = sample_many(engine.model, Alphabet(), prompts, rollouts, seed=seed + 9)
    made = [process_for(task, engine, temperature=1.0) for task in tasks]
    runs = [
        Run(process, tree_values(Solved(p), value, **options), seed=seed + i)
        for i, (process, p) in enumerate(zip(made, prompts, strict=True))
    ]
    found = []
    for answer, task, pool in zip(drive(*runs), tasks, pools, strict=True):
        tree = answer.population
        right = np.array([task.score(text) for text in pool])
        pairs = []
        for text, q in dict(zip(tree.states.texts(), tree.scores.tolist(), strict=True)).items():
            passing = [bool(text == sample[: len(text)]) for sample in pool]
            if CHAIN_END not in text and sum(passing) >= FEWEST:
                pairs.append((q, right[passing].mean()))
        columns = np.array(pairs).T if pairs else np.zeros((2, 0))
        found.append((columns[0], columns[1]))
    return found


def oracle_error(seed: int, rounds: int = 3_000) -> Check:
    """The clause on large c where all steps are enumerated: the root's value against its exact chance of success."""
    worst = 0.0
    good = reward(lambda states: np.array([1.0 - sum(x) % 2 for x in states.tuples()]), "even")
    for number in range(5):
        lm = EnumerableLM(seed=seed + number, vocab=3, length=4, expands=True)
        (answer,) = drive(Run(lm, tree_values(good, HALF, rounds=rounds, branch=3, c=1e6, close=False), seed=seed))
        exact = float(sum(p for x, p in lm.outputs.items() if sum(x) % 2 == 0))
        worst = max(worst, abs(float(answer.population.scores[0]) - exact))
    return Check(f"error at the root of five enumerable models, {rounds:,} rounds at a large c", worst, "<=", 0.1)


def answers(model: Model, tasks: Sequence[Task], seed: int) -> tuple[list[Check], str]:
    """The step-level beam against greedy, votes that spend no less, and the beam by prior probability."""
    engine, value = model

    def asked(method: Any, temperature: float = 1.0) -> Outcomes:
        return outcomes(
            engine, tasks, method, seed, process_of=lambda t: process_for(t, engine, temperature=temperature)
        )

    greedy = asked(search.sample(n=1), 0.0)
    one, three = (asked(search.AlphaMath(value, width=width).beam()) for width in (1, 3))
    priors = asked(prior_beam(width=3))
    best = asked(search.best_of_n(n=8, reward=value))
    five = asked(search.self_consistency(n=5))
    k, votes = no_cheaper(lambda n: asked(search.self_consistency(n=n)), three.cost, (5, 8, 12, 16, 20, 24, 32))
    small, few = no_cheaper(lambda n: asked(search.self_consistency(n=n)), one.cost, (5, 6, 7, 8, 10, 12))
    checks = [
        held("step-level beam (3, 5) minus greedy", three.over(greedy), ">=", 0.10),
        held(f"step-level beam (3, 5) minus majority@{k}, which spends no less", three.over(votes), ">", 0.0),
        held(f"step-level beam (1, 5) minus majority@{small}, which spends no less", one.over(few), ">", 0.0),
        held("by prior probability in the value's place, (3, 5), minus greedy", priors.over(greedy), "<", 0.10),
        held("by the value minus by prior probability, (3, 5)", three.over(priors), ">", 0.0),
    ]
    rows = {
        "greedy": greedy,
        "majority@5": five,
        f"majority@{small}": few,
        "step-level beam (1, 5)": one,
        f"majority@{k}": votes,
        "step-level beam (3, 5)": three,
        "the same by prior probability": priors,
        "best of 8 by the value": best,
    }
    head = ["method, policy of round 3", "accuracy", "tokens an item"]
    return checks, table(head, [[name, str(o.accuracy), f"{o.cost:.0f}"] for name, o in rows.items()])
