"""Row 87: a ChainLM with a self-evaluation token: how much of best-of-16's gain a few samples keep, what pruning in the
middle loses, and whether the token chooses better than likelihood; with what is left of it without its own parts.

Stated time: four minutes on one quiet core, and four more the first time, when the model is trained (then it is kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._capability import Pool, gain_kept, sampled, shuffled
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, paired, table
from anystep.experiments.check import Check, Result
from anystep.language.engine.engine import Engine
from anystep.process import Process, Reward
from anystep.solve import process_for
from anystep.tasks.chains import chains
from anystep.tasks.task import Task

ROW = 87
N = 16
FAMILIES = "CA"  # those that reckon: countdown and arithmetic
MOST = 3.6  # samples on average that a threshold may take on dev, so that it takes 4 at most on others
COOL = (0.3, 0.7)  # temperatures of the first samples where they are annealed


@dataclass(frozen=True)
class Model:
    """A model that asks itself, the reward that does, and the threshold that was tuned on its dev samples."""

    engine: Engine
    reward: Reward
    threshold: float


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engine: Engine | None = None,
    ablated: Sequence[tuple[str, Engine]] = (),
    problems: int = 600,
    tuning: int = 150,
    few: int = 200,
    n: int = N,
) -> Result:
    """Check every clause of the row.

    engine: a model with a self-evaluation token, by default the one that `language.train.capability` trains. ablated:
    models trained otherwise, by name, such as with `CapabilityRecipe(label="right")`. problems: held-out ones. tuning:
    of dev, for thresholds. few: of the test problems, for what the ablated models do.
    """
    from anystep.language import load
    from anystep.language.train.capability import capability

    began = time.perf_counter()
    own = engine or load(capability(say=progress))
    tasks, dev = chains(problems, "test", seed, FAMILIES), chains(tuning, "dev", seed, FAMILIES)
    model = prepared(own, dev, n, seed)
    progress(f"threshold {model.threshold}")
    pool, whole = sampled(own, tasks, model.reward, n, seed)
    arms = methods(model, tasks, n, seed)
    progress("; ".join(f"{name} {arm.accuracy}" for name, arm in arms.items()))
    checks = [*adapting(pool, whole, arms, n), *pruning(whole, arms), *choosing(pool), *paying(pool, whole, model)]
    votes = no_cheaper(lambda k: outcomes(own, tasks, search.self_consistency(n=k), seed), arms["adaptive"].cost)
    notes = [
        f"{len(tasks)} problems of countdown and arithmetic; threshold {model.threshold}, tuned on {len(dev)} of dev.",
        told(pool, whole, arms, votes, model, seed),
    ]
    if ablated:
        notes.append(ablations([("as it is", own), *ablated], tasks[:few], dev, n, seed))
    progress(notes[-1])
    return Result(
        "capability_aware_best_of_n", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(notes)
    )


def prepared(engine: Engine, dev: Sequence[Task], n: int, seed: int) -> Model:
    from anystep.verify import self_evaluation_token

    reward = self_evaluation_token(engine)
    return Model(engine, reward, sampled(engine, dev, reward, n, seed)[0].tuned(MOST))


def methods(model: Model, tasks: Sequence[Task], n: int, seed: int) -> dict[str, Outcomes]:
    """The method itself, with and without its parts, run as anyone would run it."""
    adaptive = search.capability_aware_best_of_n(n=n, reward=model.reward, threshold=model.threshold)
    pruned = search.capability_aware_best_of_n(
        n=n, reward=model.reward, threshold=None, batch=n, prune_after=1, keep=0.5
    )

    def annealed(task: Task) -> Any:
        return search.capability_aware_best_of_n(
            n=n, reward=model.reward, threshold=model.threshold, warming=cool(model.engine, task)
        )

    return {
        "adaptive": outcomes(model.engine, tasks, adaptive, seed),
        "annealed": outcomes(model.engine, tasks, annealed, seed),
        "pruned": outcomes(model.engine, tasks, pruned, seed),
        "greedy": outcomes(
            model.engine, tasks, search.sample(n=1), seed, None, lambda t: process_for(t, model.engine, temperature=0.0)
        ),
    }


def cool(engine: Engine, task: Task) -> tuple[Process, ...]:
    return tuple(process_for(task, engine, temperature=t) for t in COOL)


def counts(found: Outcomes) -> np.ndarray:
    """(items,): samples that each run drew."""
    return np.array([run.books.started for run in found.runs], dtype=np.int64)


def adapting(pool: Pool, whole: Outcomes, arms: dict[str, Outcomes], n: int) -> list[Check]:
    """The clauses on how much of the gain is kept, and with how many samples."""
    found = []
    for name in ("adaptive", "annealed"):
        kept = gain_kept(arms[name].right, whole.right, pool.one)
        found.append(held(f"{name}: share of best-of-{n}'s gain over one sample that is kept", kept, ">=", 0.7))
        found.append(held(f"{name}: samples on average", bootstrap_mean(counts(arms[name])), "<=", 4.0))
    return found


def pruning(whole: Outcomes, arms: dict[str, Outcomes]) -> list[Check]:
    gap = arms["pruned"].over(whole)
    return [held("pruning half after the first step: accuracy less that of all", gap, ">=", -0.02)]


def choosing(pool: Pool) -> list[Check]:
    """The clauses on selection; of the two likelihoods, in all and a token, the one that chooses better here."""
    best = pool.best(pool.outlook)
    likely = max((pool.best(pool.likely), pool.best(pool.each)), key=lambda right: float(right.mean()))
    n = pool.right.shape[1]
    over, above = paired(best, likely), paired(best, pool.one)
    return [
        held(f"best of {n} by the token less by likelihood", over, ">", 0.0),
        Check(f"best of {n} by the token less by likelihood, lower end", over.low, ">", 0.0),
        held(f"best of {n} by the token less one sample", above, ">", 0.0),
        Check(f"best of {n} by the token less one sample, lower end", above.low, ">", 0.0),
    ]


def paying(pool: Pool, whole: Outcomes, model: Model) -> list[Check]:
    """The clause on the ledger: the question's prefill is all that a decision costs; equal texts are read once."""
    paid = whole.paid(model.reward.name).sum()
    return [Check("tokens on the ledgers for a decision on a text", float(paid / pool.asked), "==", 1.0)]


def told(
    pool: Pool, whole: Outcomes, arms: dict[str, Outcomes], votes: tuple[int, Outcomes], model: Model, seed: int
) -> str:
    """Every arm's accuracy, samples and tokens; then what the threshold did on solved and on hopeless problems."""
    n, drawn = pool.right.shape[1], pool.drawn(model.threshold)
    mean = float(drawn.mean())
    rows: list[list[object]] = [
        ["one sample", str(bootstrap_mean(pool.one)), 1.0, ""],
        ["greedy", str(arms["greedy"].accuracy), 1.0, arms["greedy"].cost],
        [f"vote@{votes[0]}, no cheaper than adaptive", str(votes[1].accuracy), float(votes[0]), votes[1].cost],
        [f"best of {n} by likelihood", str(bootstrap_mean(pool.best(pool.likely))), float(n), ""],
        [f"best of {n} by likelihood a token", str(bootstrap_mean(pool.best(pool.each))), float(n), ""],
        [f"best of {n} by the token", str(whole.accuracy), float(n), whole.cost],
        ["the same, half pruned after a step", str(arms["pruned"].accuracy), float(n), arms["pruned"].cost],
        ["adaptive", str(arms["adaptive"].accuracy), float(counts(arms["adaptive"]).mean()), arms["adaptive"].cost],
        [
            "adaptive, annealed",
            str(arms["annealed"].accuracy),
            float(counts(arms["annealed"]).mean()),
            arms["annealed"].cost,
        ],
        ["random stop, as many samples", str(bootstrap_mean(shuffled(pool, drawn, seed))), mean, ""],
        *(
            [f"best of {k} by the token", str(bootstrap_mean(pool.best(pool.outlook, k))), float(k), ""]
            for k in (2, 3, 4)
        ),
        [f"oracle of {n}", str(bootstrap_mean(pool.right.max(1))), float(n), ""],
    ]
    text = table(["method", "accuracy", "samples", "tokens"], rows)
    solved, hopeless = pool.one > 0.9, pool.right.max(1) == 0
    random = paired(arms["adaptive"].right, shuffled(pool, drawn, seed))
    annealing = paired(arms["annealed"].right, arms["adaptive"].right)
    against = arms["adaptive"].over(votes[1])
    kinds = {"where 9 in 10 are right": solved, f"where none of {n} is": hopeless, "elsewhere": ~solved & ~hopeless}
    spent = ", ".join(f"{drawn[rows].mean():.2f} {kind} ({rows.sum()})" for kind, rows in kinds.items() if rows.any())
    return (
        f"{text}\n\nSamples drawn on average: {spent}. Adaptive less a random stop {random}; annealed less not "
        f"{annealing}; adaptive less vote@{votes[0]} {against}. Temperatures of the first samples where annealed: "
        f"{COOL}, then 1."
    )


def ablations(
    models: Sequence[tuple[str, Engine]], tasks: Sequence[Task], dev: Sequence[Task], n: int, seed: int
) -> str:
    """What each model chooses, keeps of its own gain, and loses by pruning, on fewer problems."""
    rows: list[list[object]] = []
    for name, engine in models:
        model = prepared(engine, dev, n, seed)
        pool, whole = sampled(engine, tasks, model.reward, n, seed)
        half = search.capability_aware_best_of_n(n, model.reward, None, batch=n, prune_after=1, keep=0.5)
        pruned, drawn = outcomes(engine, tasks, half, seed), pool.drawn(model.threshold)
        best = pool.best(pool.outlook)
        rows.append(
            [
                name,
                float(pool.one.mean()),
                str(bootstrap_mean(best)),
                str(gain_kept(pool.after(drawn), best, pool.one)),
                float(drawn.mean()),
                str(pruned.over(whole)),
            ]
        )
    head = ["trained with", "one sample", f"best of {n}", "gain kept", "samples", "pruned less all"]
    return f"On {len(tasks)} of the test problems:\n\n{table(head, rows)}"
