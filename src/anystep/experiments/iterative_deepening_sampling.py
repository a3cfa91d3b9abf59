"""Row 176: a ChainLM that rechecks when told to, told at geometrically growing lengths, on the hardest third of the
problems: against plain sampling and against cues at fixed intervals and at random places, at equal tokens.

Stated time: four minutes on one quiet core, and four more the first time, when the model is trained (then it is kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from anystep import search
from anystep.calibrate.interval import level
from anystep.experiments._figures import held, paired, table
from anystep.experiments._rechecks import Pool, Told, pool
from anystep.experiments.check import Check, Result
from anystep.language.engine.engine import Engine
from anystep.language.train.recheck import RECHECK, rechecked
from anystep.search.iterative_deepening_sampling import Schedule
from anystep.tasks.chains import chains
from anystep.tasks.task import Task

ROW = 176
N = 8
MOST = 20  # samples that plain sampling may need to cost as much
FIRSTS, GROWTHS = (4.0, 10.0), (1.5, 2.0, 3.0)
INTERVALS = (6.0, 12.0)
WITHIN = (16.0, 32.0)
CHOSEN: Mapping[str, Schedule] = {  # by `tuned` on the hardest third of 105 problems of dev, seed 0
    "geometric": search.Geometric(4.0, 3.0),
    "every": search.Every(12.0),
    "anywhere": search.Anywhere(2, 32.0),
}


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engine: Engine | None = None,
    plain: Engine | None = None,
    problems: int = 150,
    tuning: int = 0,
    n: int = N,
    most: int = MOST,
) -> Result:
    """Check every clause of the row.

    engine: a model that rechecks, by default the one that `language.train.recheck` trains. plain: the same without
    rechecks learned, ChainLM. problems: of the test split, of which the hardest third counts. tuning: of dev, likewise,
    for the first budget, the growth, the interval and the range of random places; 0 for what 105 of them chose.
    """
    from anystep.language import load
    from anystep.language.train.recheck import rechecking

    began = time.perf_counter()
    own, plain = engine or load(rechecking(say=progress)), plain or load("chainlm-2m")
    chosen, swept = dict(CHOSEN), "not run again"
    if tuning:
        chosen, swept = tuned(own, hardest(own, chains(tuning, "dev", seed), seed), n, seed)
    progress(f"chosen on dev: {chosen}; {swept}")
    tasks = hardest(own, chains(problems, "test", seed), seed)
    pools = {name: pool(own, tasks, n if name == "geometric" else 3 * n // 2, s, seed) for name, s in chosen.items()}
    pools["plain"] = pool(own, tasks, most, None, seed)
    checks = [*compared(pools, n), *exact(own, tasks[:100], pools["geometric"], chosen["geometric"], n, seed)]
    progress("\n".join(map(str, checks)))
    schedules = {g: search.Geometric(first(chosen["geometric"]), g) for g in GROWTHS}
    growth = {
        g: pools["geometric"] if s == chosen["geometric"] else pool(own, tasks, n, s, seed)
        for g, s in schedules.items()
    }
    untrained = {"plain": pool(plain, tasks, 2 * n, None, seed)}
    untrained["geometric"] = pool(plain, tasks, n, chosen["geometric"], seed)
    notes = [
        f"{len(tasks)} problems, the hardest third of {problems} by the model's own samples of another seed. "
        f"Schedules, chosen on dev: {', '.join(map(str, chosen.values()))}. Figures there: {swept}.",
        arms(pools, n),
        "The growth factor, on the test problems:\n\n" + sweep(growth, n),
        "ChainLM, which has not learned to recheck, with the same cues:\n\n" + arms(untrained, n),
    ]
    seconds = time.perf_counter() - began
    return Result("iterative_deepening_sampling", ROW, tuple(checks), seconds, seed, "\n\n".join(notes))


def first(schedule: Schedule) -> float:
    """A schedule's first budget."""
    return schedule.after(0.0, np.zeros(0))


def hardest(engine: Engine, tasks: Sequence[Task], seed: int, samples: int = 6) -> list[Task]:
    """The third of the problems that the model solves least often unasked, in samples that serve for nothing else; its
    texts are read as the chains that rechecks leave standing."""
    read = [reading(task) for task in tasks]
    found = pool(engine, read, samples, None, seed + 1_000)
    order = np.argsort([row.right.mean() for row in found.rows], kind="stable")
    return [read[i] for i in sorted(order[: max(1, len(read) // 3)].tolist())]


def reading(task: Task) -> Task:
    extract, score = task.extract, task.score
    return replace(task, extract=lambda text: extract(rechecked(text)), score=lambda text: score(rechecked(text)))


def tuned(engine: Engine, tasks: Sequence[Task], n: int, seed: int) -> tuple[dict[str, Schedule], str]:
    """Of each kind of schedule the one whose vote is best on these problems, and all their figures; random places are
    as many as the geometric schedule's cues."""
    found: dict[Schedule, Pool] = {}

    def best(some: Sequence[Schedule]) -> Schedule:
        found.update({s: pool(engine, tasks, n, s, seed) for s in some})
        return max(some, key=lambda s: found[s].vote(n).right.mean() + found[s].best(n).right.mean())

    geometric = best([search.Geometric(f, g) for f in FIRSTS for g in GROWTHS])
    every = best([search.Every(interval) for interval in INTERVALS])
    cues = max(1, round(found[geometric].cues))
    anywhere = best([search.Anywhere(cues, within) for within in WITHIN])
    told = "; ".join(f"{s} {p.vote(n).right.mean():.3f}, best {p.best(n).right.mean():.3f}" for s, p in found.items())
    return {"geometric": geometric, "every": every, "anywhere": anywhere}, told


NAMES = {"plain": "plain sampling", "every": "a fixed interval", "anywhere": "random places"}
HOW = {"vote": "majority@{}", "best": "best of {} by the step reward"}


def compared(pools: dict[str, Pool], n: int) -> list[Check]:
    """Ours with n samples less each other kind with as many as cost no less."""
    checks = []
    for how, words in HOW.items():
        ours: Told = getattr(pools["geometric"], how)(n)
        for other, name in NAMES.items():
            k, theirs = pools[other].equal(how, ours.cost)
            over = paired(ours.right, theirs.right)
            share = theirs.cost / ours.cost
            clause = f"{words.format(n)} at geometric lengths less {name}'s {k} at {share:.2f} of the tokens"
            checks += [held(clause, over, ">", 0.0), Check(f"{clause}, lower end", over.low, ">", 0.0)]
    return checks


def exact(engine: Engine, tasks: Sequence[Task], ours: Pool, schedule: Schedule, n: int, seed: int) -> list[Check]:
    """The clauses on where cues stand, and on a first budget that no output reaches."""
    astray = sum(misplaced(text, schedule) for texts in ours.texts() for text in texts)
    unasked, vanilla = (pool(engine, tasks, n, s, seed) for s in (search.Geometric(10_000, 2), None))
    apart = sum(
        a != b for x, y in zip(unasked.texts(), vanilla.texts(), strict=True) for a, b in zip(x, y, strict=True)
    )
    return [
        Check("line ends with a cue where the rule has none, or without where it has one", astray, "==", 0),
        Check(
            f"samples of {n * len(tasks)} that differ from plain sampling's, where no budget is reached", apart, "==", 0
        ),
    ]


def misplaced(text: str, schedule: Schedule) -> int:
    """Line ends of a sample that are not as the schedule has them: a cue at the first one where the length has reached
    the budget, but not at the end of a recheck, and then the next budget above that length."""
    none = np.zeros(0)
    due, told, wrong = schedule.after(0.0, none), False, 0
    for end in [i + 1 for i, c in enumerate(text[:-1]) if c == "\n"]:
        cue = end >= due and not told
        wrong += (text[end] == RECHECK) != cue
        due, told = schedule.after(float(end), none) if cue else due, cue
    return wrong


def arms(pools: dict[str, Pool], n: int) -> str:
    """Every kind of cue: a sample's accuracy and cues, and both decisions with as many samples as cost no less than
    ours with n."""
    rows: list[list[object]] = []
    for name, each in pools.items():
        row: list[object] = [name, each.one, each.cues]
        for how in HOW:
            budget: Told = getattr(pools["geometric"], how)(n)
            k, found = (n, budget) if name == "geometric" else each.equal(how, budget.cost)
            row += [k, str(level([[r] for r in found.right])), found.cost]
        rows.append(row)
    head = ["cues", "one sample", "a sample's cues", "n", "majority", "tokens", "n", "best by reward", "tokens"]
    return table(head, rows)


def sweep(growth: dict[float, Pool], n: int) -> str:
    rows = [
        [g, p.one, p.cues, str(level([[r] for r in p.vote(n).right])), p.vote(n).cost, float(p.best(n).right.mean())]
        for g, p in growth.items()
    ]
    return table(["growth", "one sample", "a sample's cues", f"majority@{n}", "tokens", f"best of {n}"], rows)
