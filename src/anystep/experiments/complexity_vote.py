"""Row 205: votes among the samples with most steps, on a ChainLM that skips steps and on one that over-checks; and
examples with most steps before SmolLM2.

Stated time: under a minute on recorded pools. The first time the two ChainLMs are trained and their pools recorded,
about six minutes of one quiet core in all.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._figures import held, paired, table
from anystep.experiments._pools import PoolRecipe, recorded
from anystep.experiments.check import Check, Result
from anystep.language.prefill import read_each
from anystep.language.prompt import Example, exemplars
from anystep.ledger import Ledger, Limit
from anystep.population import Decision, Population
from anystep.process import Floats, Reward
from anystep.search.decide import complex_majority
from anystep.search.pools import Pool
from anystep.tasks.chains import CHAIN_END
from anystep.tasks.task import Task

ROW = 205
N, K = 20, 10
SWEEP = (4, 10, 16, 20)
SUBSETS = 10  # sub-pools of N samples a problem
ROOM, SETS = 600, 4  # tokens of examples before a question, and how many sets of each kind


@dataclass(frozen=True)
class Voted:
    """One problem: whether each way to vote is right, averaged over its sub-pools of N samples. top: by K."""

    top: Mapping[int, float]
    low: float
    any: float
    majority: float
    differs: int
    one: float
    greedy: float
    tokens: float


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    problems: int = 150,
    samples: int = 40,
    skips: Path | None = None,
    overchecks: Path | None = None,
    reader: str | Any = "smollm2-135m",
    questions: int = 60,
) -> Result:
    """Check every clause of the row.

    problems, samples: of each pool. skips, overchecks: cards of the two variants, by default those that `train.haste`
    and `train.overcheck` train. reader: whose log-likelihood of worked solutions is read, of so many questions.
    """
    from anystep.language import load
    from anystep.language.train.haste import hasty
    from anystep.language.train.overcheck import overchecking

    began = time.perf_counter()
    found = {
        "step-skipping ChainLM": votes(skips or hasty(say=progress), "chains-AL", problems, samples, seed, progress),
        "over-checking ChainLM": votes(
            overchecks or overchecking(say=progress), "chains", problems, samples, seed, progress, unchecking
        ),
    }
    told = likelihoods(load(reader) if isinstance(reader, str) else reader, questions, seed)
    checks = [*voting(found), *prompting(told)]
    text = f"{_table(found)}\n\n{_prompts(told)}"
    return Result("complexity_vote", ROW, tuple(checks), time.perf_counter() - began, seed, text)


def unchecking(task: Task) -> Task:
    """The task as an over-checking model's outputs are read: without their checks."""
    from anystep.language.train.overcheck import unchecked

    extract, score = task.extract, task.score
    return replace(
        task, extract=lambda text: extract(unchecked(text)), score=lambda text: score(unchecked(text)), steps=None
    )


def rewards(task: Task) -> dict[str, Reward]:
    from anystep import verify

    return {"steps": verify.steps(end=CHAIN_END), "oracle": verify.oracle(task)}


def votes(
    card: Path,
    family: str,
    problems: int,
    samples: int,
    seed: int,
    say: Callable[[str], None],
    read: Callable[[Task], Task] = lambda task: task,
) -> list[Voted]:
    """Every way to vote, on the pools of one variant; they are recorded where they are not there."""
    from anystep.language import load

    engine = functools.cache(lambda: load(card))
    labels = ("steps", "oracle")
    recipe = PoolRecipe(card.stem, family)
    drawn = recorded(recipe, problems, samples, rewards, labels, say, engine, read)
    plain = recorded(replace(recipe, temperature=0.0), problems, 2, rewards, labels, say, engine, read)
    return [
        voted(pool, float(greedy.scores("oracle")[0] == 1), seed)
        for (_, pool), (_, greedy) in zip(drawn, plain, strict=True)
    ]


def voted(pool: Pool, greedy: float, seed: int) -> Voted:
    """One problem's votes."""
    right, whole = np.nan_to_num(pool.scores("oracle")) == 1, pool.population(scores="steps")

    def share(chosen: Callable[[Population], int | None], rows: Sequence[Any]) -> float:
        picked = [(some, chosen(whole.take(some))) for some in rows]
        return float(np.mean([0.0 if row is None else right[some[row]] for some, row in picked]))

    rows = list(pool.subsets(N, SUBSETS, seed))
    any_ten = [some[:K] for some in rows]  # their order is random
    majority = [search.majority(whole.take(some)) for some in rows]
    everyone = [complex_majority(N)(whole.take(some)) for some in rows]
    return Voted(
        top={k: share(functools.partial(_row, complex_majority(k)), rows) for k in SWEEP},
        low=share(lambda p: complex_majority(K)(p.scored(-p.scores)).row, rows),
        any=share(lambda p: search.majority(p).row, any_ten),
        majority=share(lambda p: search.majority(p).row, rows),
        differs=sum(a != b for a, b in zip(majority, everyone, strict=True)),
        one=float(right.mean()),
        greedy=greedy,
        tokens=float(np.mean([pool.cost(some).tokens for some in rows])),
    )


def _row(decision: Decision, population: Population) -> int | None:
    return decision(population).row


def voting(found: Mapping[str, Sequence[Voted]]) -> Iterator[Check]:
    """The clauses on votes."""
    differing = sum(v.differs for some in found.values() for v in some)
    yield Check(f"verdicts with K=N={N} that are not the majority's", differing, "==", 0)
    skipping, checking = (np.array([_ways(v) for v in some]) for some in found.values())
    who = f"step-skipping ChainLM: the {K} most complex of {N} minus"
    for i, other in enumerate((f"all {N}", f"the {K} simplest", f"any {K}"), start=1):
        yield held(f"{who} {other}", paired(skipping[:, 0], skipping[:, i]), ">", 0.0)
    lost = paired(checking[:, 0], checking[:, 1])
    yield held(f"over-checking ChainLM (must lose): the {K} most complex of {N} minus all {N}", lost, "<", 0.0)


def _ways(v: Voted) -> tuple[float, float, float, float]:
    return v.top[K], v.majority, v.low, v.any


def _table(found: Mapping[str, Sequence[Voted]]) -> str:
    rows = []
    for name, some in found.items():
        for way, values in (
            ("greedy", [v.greedy for v in some]),
            ("one sample", [v.one for v in some]),
            (f"all {N} (vote@{N})", [v.majority for v in some]),
            *((f"{k} most complex", [v.top[k] for v in some]) for k in SWEEP[:-1]),
            (f"{K} simplest", [v.low for v in some]),
            (f"any {K}", [v.any for v in some]),
        ):
            rows.append([name, way, bootstrap_mean(values)])
        name = f"(tokens of {N}: {np.mean([v.tokens for v in some]):.0f} a problem)"
        rows.append([name, "", ""])
    return f"Accuracy; every vote is among the same {N} samples, and costs the same:\n" + table(
        ["model", "vote", "right"], rows
    )


# --- worked examples before a question ------------------------------------------------------------------------------


def sums(n: int, seed: int) -> list[Example]:
    """Worked sums and differences of 2 to 8 numbers, a step a line."""
    rng, found = Random(seed), list[Example]()
    while len(found) < n:
        value, signs = rng.randrange(10, 100), [rng.choice("+-") for _ in range(rng.randrange(1, 8))]
        text, lines = str(value), list[str]()
        for sign in signs:
            number = rng.randrange(10, 100)
            after = value + number if sign == "+" else value - number
            text, value = f"{text} {sign} {number}", after
            lines.append(f"{lines[-1].split(' = ')[1] if lines else text.split(' ')[0]} {sign} {number} = {after}")
        found.append(Example(f"What is {text}?", "\n".join([*lines, f"The answer is {value}."])))
    return found


def likelihoods(
    engine: Any, questions: int, seed: int, sets: int = SETS, room: int = ROOM
) -> dict[str, tuple[Floats, Floats]]:
    """By kind of set: mean log-likelihood of each question's worked solution, (questions,), and tokens of the sets."""
    shown, asked = sums(120, seed + 1), sums(questions, seed + 2)
    return {
        kind: _likelihood(
            engine, [exemplars(shown, room, kind, lambda e: _size(engine, e), seed=i) for i in range(sets)], asked
        )
        for kind in ("most", "random", "fewest")
    }


def _likelihood(engine: Any, sets: Sequence[Sequence[Example]], asked: Sequence[Example]) -> tuple[Floats, Floats]:
    values, sizes = [], []
    for some in sets:
        before = "".join(f"{_told(e)}{e.solution}\n\n" for e in some)
        sizes.append(len(engine.tokenizer.encode(before)))
        prompts = [tuple(engine.tokenizer.encode(before + _told(e))) for e in asked]
        wholes = [p + tuple(engine.tokenizer.encode(e.solution)) for p, e in zip(prompts, asked, strict=True)]
        read = functools.partial(_read, engine, wholes, [len(p) for p in prompts])
        values.append(read_each(engine, wholes, np.arange(len(wholes)), Limit(Ledger(), "reader"), read))
    return np.mean(values, axis=0), np.array(sizes, dtype=np.float64)


def _told(example: Example) -> str:
    return f"Question: {example.question}\nSolution:\n"


def _size(engine: Any, example: Example) -> int:
    return len(engine.tokenizer.encode(f"{_told(example)}{example.solution}\n\n"))


@torch.inference_mode()
def _read(engine: Any, wholes: Sequence[Sequence[int]], starts: Sequence[int], hidden: torch.Tensor, i: int) -> float:
    """Log-probability of a row's tokens from its start on."""
    own = torch.tensor(wholes[i][starts[i] :])
    logits = engine.model.logits(hidden[starts[i] - 1 : len(wholes[i]) - 1])
    return float(torch.log_softmax(logits.float(), -1)[torch.arange(len(own)), own].sum())


def prompting(told: Mapping[str, tuple[Floats, Floats]]) -> Iterator[Check]:
    """The clauses on examples."""
    sizes = [sizes.mean() for _, sizes in told.values()]
    yield Check("examples: longest over shortest prompt of the three kinds", float(max(sizes) / min(sizes)), "<", 1.05)
    for other in ("random", "fewest"):
        clause = f"gold-solution log-likelihood, nats: examples with most steps minus {other}"
        yield held(clause, paired(told["most"][0], told[other][0]), ">", 0.0)


def _prompts(told: Mapping[str, tuple[Floats, Floats]]) -> str:
    rows = [[kind, bootstrap_mean(values), f"{sizes.mean():.0f}"] for kind, (values, sizes) in told.items()]
    return "SmolLM2's log-likelihood of worked solutions, nats a solution:\n" + table(
        ["examples", "log-likelihood", "prompt tokens"], rows
    )
