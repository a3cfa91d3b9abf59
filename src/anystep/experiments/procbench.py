"""Row 27: ProcBench deals procedures whose answers are known step by step, and SmolLM2 is measured on them.

Stated time: seven minutes on one quiet core, nearly all of it SmolLM2's. The interpreter, the corrupted answers and the
re-solver are checked on every family and every length; SmolLM2 answers greedily after two worked examples of the same
family, the same ones for every length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anystep import search
from anystep.calibrate.interval import bootstrap_mean, paired_difference
from anystep.drive import drive
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.run import Run
from anystep.tasks import ProcBench
from anystep.tasks.procbench import FAMILIES, MAX_STEPS, MIN_STEPS, Metrics, measure, resolve, write_answer
from anystep.tasks.task import Task

ROW = 27
LENGTHS = (2, 4, 8, 16)
ITEMS = (8, 4, 2, 1)  # of each family at each length: short ones are cheap, and their accuracy is what can fall
SHOWN = (2, 3)  # steps of the worked examples


@dataclass(frozen=True)
class Followed:
    """One procedure and how far its answer followed it; `idle` is how far repeating the first state gets."""

    family: str
    steps: int
    metrics: Metrics
    idle: float
    tokens: int


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    lengths: Sequence[int] = LENGTHS,
    items: Sequence[int] = ITEMS,
    rounds: int = 3,
) -> Result:
    """Check every clause of the row.

    model: a name that `language.load` takes, or a loaded engine. lengths: the numbers of steps it is measured at, from
    short to long; items: procedures of each family, for each length. rounds: procedures of each family and every length
    from 2 to 25 that the exact clauses are checked on.
    """
    began = time.perf_counter()
    checks = [*exact(ProcBench(seed=seed).take(rounds * len(FAMILIES) * (MAX_STEPS - MIN_STEPS + 1)))]
    progress(f"exact clauses: {sum(c.passed for c in checks)} of {len(checks)} pass")
    followed = answered(model, lengths, items, seed, progress)
    cells = {(f.family, f.steps) for f in followed}
    clause = f"{len(lengths)} lengths x {len(FAMILIES)} families: cells of SmolLM2's curves that were measured"
    checks.append(Check(clause, len(cells), "==", len(lengths) * len(FAMILIES)))
    checks.append(fall(followed, lengths))
    return Result("procbench", ROW, tuple(checks), time.perf_counter() - began, seed, notes(followed, lengths))


def exact(tasks: Sequence[Task]) -> list[Check]:
    """The clauses that need no model."""
    perfect, agreed, right, tried, hidden, middle = 0, 0, 0, 0, 0, 0
    for task in tasks:
        states = task.meta["states"]
        perfect += measure(write_answer(states), states) == Metrics(len(states), 1.0, 1.0, 1.0)
        agreed += resolve(str(task.prompt)) == states
        for k in range(1, len(states) + 1):
            wrong = measure(write_answer((*states[: k - 1], f"{states[k - 1]} zz", *states[k:])), states)
            tried, right = tried + 1, right + (wrong.pml == k - 1)
            if k < len(states):
                middle, hidden = middle + 1, hidden + (wrong.fm == 1.0)
    lengths = {len(task.meta["states"]) for task in tasks}
    n = len(tasks)
    return [
        Check("task families", len({task.family for task in tasks}), ">=", 10),
        Check("fewest steps", min(lengths), "==", MIN_STEPS),
        Check("most steps", max(lengths), "==", MAX_STEPS),
        Check(f"share of {n:,} procedures on which the interpreter scores 1.0 on all metrics", perfect / n, "==", 1.0),
        Check(f"share of {tried:,} corruptions at step k with prefix match length k - 1", right / tried, "==", 1.0),
        Check(f"share of {n:,} procedures on which the re-solver agrees", agreed / n, "==", 1.0),
        Check(
            f"ablation, the final state alone: share of {middle:,} corruptions before the last step that it misses",
            hidden / middle,
            "==",
            1.0,
        ),
    ]


def asked(task: Task) -> list[dict[str, str]]:
    """The task as a chat, after worked examples of its family that no test task repeats."""
    family = task.family.removeprefix("procbench/")
    shown = ProcBench(family, steps=SHOWN, seed=1, split="dev").take(len(SHOWN))
    turns = [(str(t.prompt), str(t.meta["chain"])) for t in shown]
    messages = [m for q, a in turns for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
    return [*messages, {"role": "user", "content": str(task.prompt)}]


def answered(
    model: str | Any, lengths: Sequence[int], items: Sequence[int], seed: int, progress: Callable[[str], None]
) -> list[Followed]:
    """Greedy answers of every family, one merged batch a length."""
    from anystep.language import LanguageProcess, load

    engine = load(model, say=progress) if isinstance(model, str) else model
    followed: list[Followed] = []
    for steps, each in zip(lengths, items, strict=True):
        began = time.perf_counter()
        tasks = ProcBench(steps=steps, seed=seed, split="test").take(each * len(FAMILIES))
        longest = 10 + max(len(engine.tokenizer.encode(task.meta["chain"])) for task in tasks)
        options: dict[str, Any] = {"unit": "completion", "temperature": 0.0, "max_tokens": longest}
        answers = drive(*(Run(LanguageProcess(engine, asked(t), **options), search.sample(n=1)) for t in tasks))
        for task, answer in zip(tasks, answers, strict=True):
            states = task.meta["states"]
            idle = measure(write_answer((task.meta["start"],) * steps), states).pa
            found = measure(answer.text or "", states)
            family = task.family.removeprefix("procbench/")
            followed.append(Followed(family, steps, found, idle, answer.cost.generated))
        mean = sum(f.metrics.pa for f in followed if f.steps == steps) / len(tasks)
        progress(f"{steps} steps: prefix accuracy {mean:.3f}, {time.perf_counter() - began:.0f} s")
    return followed


def fall(followed: Sequence[Followed], lengths: Sequence[int]) -> Check:
    """Prefix accuracy at the shortest length minus that at the longest, over families."""
    short, long = (
        [[f.metrics.pa for f in followed if (f.family, f.steps) == (name, steps)] for name in FAMILIES]
        for steps in (lengths[0], lengths[-1])
    )
    clause = f"prefix accuracy at {lengths[0]} steps minus at {lengths[-1]}, over families"
    return held(clause, paired_difference(short, long), ">", 0.0)


def notes(followed: Sequence[Followed], lengths: Sequence[int]) -> str:
    """The curves: by length with intervals, and by family and length."""
    rows = []
    for steps in lengths:
        at = [f for f in followed if f.steps == steps]
        pa = bootstrap_mean([f.metrics.pa for f in at])
        others = [sum(getattr(f.metrics, m) for f in at) / len(at) for m in ("pml", "sm", "fm")]
        rows.append([steps, len(at), str(pa), *others, sum(f.idle for f in at) / len(at), sum(f.tokens for f in at)])
    head = ["steps", "items", "prefix accuracy", "match length", "sequential", "final", "idle baseline", "tokens"]
    cells = [
        [name, *(_mean([f.metrics.pa for f in followed if (f.family, f.steps) == (name, s)]) for s in lengths)]
        for name in FAMILIES
    ]
    curves = table(["prefix accuracy", *(f"{s} steps" for s in lengths)], cells)
    shown = " and ".join(map(str, SHOWN))
    return (
        f"SmolLM2-135M-Instruct, greedy, after worked examples of {shown} steps of the same family. The idle baseline "
        f"repeats the first state.\n\n{table(head, rows)}\n\n{curves}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
