"""Row 161: a global check on planted contradictions that single steps do not show, and the loop that uses one on
ChainLM's countdown problems, five stored runs each.

Stated time: four minutes on one quiet core. The gate is an external calculator, which is exact on single steps and sees
neither the target nor the answer. The global check of the headline is the learned step reward. The exact bookkeeping of
a countdown chain decides whether it is a solution, so the loop with that is an upper bound, and labelled oracle.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from anystep import search, verify
from anystep.bench import Comparison, Entry, Interval, Point, Repeated, Report, Store, repeated, runs_of
from anystep.calibrate.interval import wilson
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.process import Process
from anystep.tasks import planted as planted_room
from anystep.tasks.chains import chains
from anystep.tasks.contradicted import FORMS, Told, contradicted
from anystep.tasks.task import Task
from anystep.tasks.word_problems import word_problems
from anystep.testing import counted_torch
from anystep.verify.consistency import consistent

ROW = 161
FIVE = (0, 1, 2, 3, 4)
ROUNDS = 5  # as chosen on dev problems, like THRESHOLD
THRESHOLD = 0.3
VOTES = (1, 4, 8, 16)
LOOP, GATE, CHECK, ORACLE, VOTE, BEST = (
    "gate and learned check",
    "gate alone",
    "learned check alone",
    "gate and exact check (oracle)",
    "self_consistency",
    "best_of_n",
)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "chainlm-2m",
    problems: int = 100,
    planted: int = 300,
) -> Result:
    """Check every clause of the row. problems: held-out countdown ones, five runs each. planted: of every form."""
    from anystep.language import load

    began = time.perf_counter()
    told = contradicted(planted, seed)
    sound = [t for t in told if not t.contradicts] + list(wrong_plans(planted, seed))
    checks = list(flagged([t for t in told if t.contradicts], sound))
    engine = load(model) if isinstance(model, str) else model
    tasks = chains(problems, "test", seed, families="C")
    with tempfile.TemporaryDirectory() as folder:
        report, again, computed = stored(engine, tasks, Path(folder) / "runs.sqlite", progress)
    checks += [*looped(report), *recomputed(report, again, computed)]
    return Result("consistency_check_loop", ROW, tuple(checks), time.perf_counter() - began, seed, notes(report, told))


def wrong_plans(n: int, seed: int) -> Iterator[Told]:
    """Word problems solved by a wrong operation that is carried out consistently: wrong, and no contradiction."""
    for case in planted_room.planted(word_problems(n, seed=seed, split="test"), ("wrong operation",), seed):
        yield Told(str(case.task.meta["question"]), case.text, False, "wrong plan")


def flagged(bad: Sequence[Told], sound: Sequence[Told]) -> Iterator[Check]:
    """The clauses on planted contradictions, all of which single-step checks pass."""
    gate = [verify.step_arithmetic().holds(line) for told in bad for line in told.chain.split("\n")]
    yield Check(
        "steps of contradictory chains that the gate for single steps objects to", sum(not g for g in gate), "==", 0
    )
    for form in (None, *FORMS):
        some = [t for t in bad if form in (None, t.form)]
        caught = sum(consistent(t.question, t.chain) < 1 for t in some)
        clause = f"contradictions flagged, of {len(some)}" + (f" of the form {form!r}" if form else "")
        yield held(clause, wilson(caught, len(some)), ">=", 0.9)
    alarms = sum(consistent(t.question, t.chain) < 1 for t in sound)
    clause = f"false alarms, of {len(sound)} chains without contradiction"
    yield held(f"{clause} (right ones, and wrong plans carried out)", wilson(alarms, len(sound)), "<=", 0.1)


def entries() -> tuple[Entry, ...]:
    """What is compared: the loop, its two ablations, its upper bound, and what may spend as much."""
    loop, gate, learned = search.consistency_check_loop, verify.step_arithmetic(), verify.standing_steps(THRESHOLD)

    def exact(n: int, task: Task) -> Any:
        return loop(gate=gate, check=verify.consistency(str(task.prompt)), rounds=n)

    return (
        Entry(LOOP, lambda n, task: loop(gate=gate, check=learned, rounds=n), (ROUNDS,)),
        Entry(GATE, lambda n, task: loop(gate=gate, rounds=n), (1,)),
        Entry(CHECK, lambda n, task: loop(check=learned, rounds=n), (ROUNDS,)),
        Entry(ORACLE, exact, (ROUNDS,), oracle=True),
        Entry(VOTE, lambda n, task: search.self_consistency(n=n), VOTES),
        Entry(BEST, lambda n, task: search.best_of_n(n=n, reward=verify.chain_steps()), (2, 4)),
    )


def stored(
    engine: Any, tasks: Sequence[Task], path: Path, progress: Callable[[str], None]
) -> tuple[Report, Report, int]:
    """The comparison, run into a store; the same read from that store; and what the model had to compute for that."""
    from anystep.solve import process_for

    def process_of(task: Task, greedy: bool) -> Process:
        return process_for(task, engine, temperature=0.0 if greedy else 1.0)

    with Store(path) as store:
        report = Comparison(entries(), tasks, process_of, FIVE, store=store).run()
    for point in report.points:
        progress(f"{point.label} n={point.n}: {point.accuracy}, {point.tokens:.0f} tokens")
    with Store(path) as store, counted_torch(engine.model) as work:
        again = Comparison(entries(), tasks, process_of, FIVE, store=store).run()
    return report, again, work.evaluations


def _point(report: Report, label: str, n: int | None = None) -> Point:
    return next(p for p in report.points if p.label == label and n in (None, p.n))


def _fair(report: Report, point: Point) -> Point:
    """The vote of the fewest samples that spends no fewer tokens, or the largest."""
    votes = [p for p in report.points if p.label == VOTE]
    return next((p for p in votes if p.tokens >= point.tokens), votes[-1])


def looped(report: Report) -> Iterator[Check]:
    """The clauses on the loop: AVG@5 against one-shot chains at no fewer tokens, and the ablations."""
    one = _point(report, VOTE, 1)
    for label in (LOOP, ORACLE):
        ours = _point(report, label)
        vote = _fair(report, ours)
        yield Check(
            f"{label}: tokens over those of the one-shot vote of {vote.n}", ours.tokens / vote.tokens, "<=", 1.0
        )
        clause = f"{label}: AVG@5 minus that of the one-shot vote of {vote.n}, at no fewer tokens"
        yield held(clause, report.difference(ours, vote), ">", 0.0)
        clause = f"{label}: AVG@5 minus that of one one-shot chain"
        yield held(clause, report.difference(ours, one), ">", 0.0)
        clause = f"{label}: gain over one chain minus the gain of the gate alone"
        yield held(clause, report.difference(ours, _point(report, GATE)), ">", 0.0)


def recomputed(report: Report, again: Report, computed: int) -> Iterator[Check]:
    """The clause on the metrics: from what the store keeps they come out the same, and in their order."""
    yield Check("positions that the model computed while the stored runs were read", computed, "==", 0)
    for label, n in ((LOOP, ROUNDS), (VOTE, 1)):
        live, read = (repeated(runs_of(r, label, n)) for r in (report, again))
        apart = sum(getattr(live, name) != getattr(read, name) for name in ("average", "majority", "all", "any"))
        yield Check(
            f"{label}: of average, majority, all and any@5, those that the stored runs give otherwise", apart, "==", 0
        )
        ordered = live.all.value <= live.average.value <= live.any.value and live.k == len(FIVE)
        yield Check(f"{label}: all@5 <= average@5 <= any@5, of five runs", float(ordered), "==", 1)


def notes(report: Report, told: Sequence[Told]) -> str:
    names = ["average", "majority", "all", "any"]
    rows: list[list[object]] = []
    for point in report.points:
        if point.greedy:
            rows.append([point.label, point.n, point.tokens, str(point.accuracy), "", "", ""])
            continue
        read = repeated(runs_of(report, point.label, point.n))
        rows.append([point.label, point.n, point.tokens, *(_shown(read, name) for name in names)])
    items = len(report.items)
    return (
        f"{items} held-out countdown problems, five runs each at temperature 1; n is rounds of the loop, samples of "
        f"the others; tokens with those of the learned check. {len(told)} planted chains and their originals.\n\n"
        + table(["method", "n", "tokens", *(f"{name}@5" for name in names)], rows)
    )


def _shown(read: Repeated, name: str) -> str:
    found: Interval = getattr(read, name)
    return str(found)
