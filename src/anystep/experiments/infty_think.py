"""Row 158: InftyThink on chains eight times a window, against a twin that was trained on the chains as they are.

Stated time: three minutes on one quiet core, and 12 more the first time, when the two models are trained (then they
are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import search
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.language.rounds import Rounds, Sliding, in_rounds
from anystep.language.train.rounds import Counted
from anystep.procedure import Method
from anystep.process import Floats, Process
from anystep.run import Run
from anystep.tasks import iterate
from anystep.tasks.iterate import concluded, iterated
from anystep.tasks.task import Task

ROW = 158
WINDOW = 128
SEGMENT, SUMMARY = 91, 7  # tokens of seven steps, and of a summary with its brackets
ROUNDS = 20  # a chain of 99 steps takes fifteen
TIMES = 8
STEP = 13
EVERY = 7  # steps to a segment: the chains' lengths are its multiples, see `language.train.rounds`


@dataclass(frozen=True)
class LastAlone(Counted):
    """The ablation: a summary of the last segment alone, by one who knows the question and this segment, and not what
    the segment had been told: the value reached, and the steps that are left after these."""

    def summary(self, prompt: str, said: str) -> str | None:
        whole, steps = super().summary(prompt, said), said.count("\n")
        left = iterate.read(prompt.partition("?")[0] + "?").times - steps
        return None if whole is None else f"{left:02d},{whole.partition(',')[2]}"


@dataclass(frozen=True)
class Tooth:
    """One round of a run: how long its state was when it began and when it ended, and the positions it attended to."""

    began: int
    ended: int
    attended: int


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engines: Mapping[str, Any] | None = None,
    problems: int = 40,
    lengths: Sequence[int] = (14, 28, 56, 98),
    each: int = 4,
    long: Sequence[Task] | None = None,
    lines: int = 100,
) -> Result:
    """Check every clause of the row.

    engines: by form, of `language.train.rounds.FORMS`; by default those that `trained` makes or has kept. problems:
    held-out chains beyond eight windows, or else those of `long`. lengths: of the chains whose attended positions are
    compared, `each` of every one. lines: the most that the twin writes with its window sliding.
    """
    began = time.perf_counter()
    models, trainings = (dict(engines), dict[str, int]()) if engines is not None else _trained(progress)
    least = -(-(TIMES * WINDOW - 12) // STEP)
    long = long or iterated(problems, "test", seed, least=least, every=EVERY)
    short = iterated(problems, "test", seed, most=EVERY, every=EVERY)
    with deepest(models["summary"]) as depth:
        found = {"rounds": thought(models["summary"], long, Counted(), seed)}
    progress(f"in rounds {found['rounds'].accuracy}")
    found["twin"] = whole(models["window"], long, search.sample(n=1), seed, temperature=0.0)
    found["sliding"] = thought(models["window"], long, Sliding(), seed, rounds=lines)
    progress(f"twin {found['twin'].accuracy}, its window sliding {found['sliding'].accuracy}")
    n, found["vote"] = no_cheaper(
        lambda n: whole(models["window"], long, search.self_consistency(n=n), seed), found["rounds"].cost
    )
    found["last"] = thought(models["summary"], long, LastAlone(), seed)
    progress(f"summaries of the last segment {found['last'].accuracy}")
    within = {
        "rounds": thought(models["summary"], short, Counted(), seed),
        "twin": whole(models["window"], short, search.sample(n=1), seed, temperature=0.0),
    }
    curves = {k: attended(models, iterated(each, "test", seed, k, k), seed) for k in lengths}
    checks = [
        *solved(found, within),
        *bounded(found["rounds"], depth[0]),
        *growth(curves),
        *ablated(found),
        *_equal(trainings),
    ]
    told = notes(found, within, curves, n, least)
    return Result("infty_think", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def _trained(progress: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, int]]:
    """An engine a form, and the tokens that each was trained on."""
    import json

    from anystep.language import load
    from anystep.language.train.rounds import FORMS, RoundsRecipe, trained

    cards = {form: trained(RoundsRecipe(form=form), say=progress) for form in FORMS}
    costs: dict[str, int] = {
        form: int(json.loads(card.read_text(encoding="utf-8"))["cost"]["tokens"]) for form, card in cards.items()
    }
    return {form: load(card) for form, card in cards.items()}, costs


def _rounds_of(engine: Any, task: Task, form: Rounds) -> tuple[Process, Process]:
    return in_rounds(
        engine, str(task.prompt), form, max_tokens=SEGMENT + SUMMARY, temperature=0.0, extract=concluded, chat=False
    )


def thought(engine: Any, tasks: Sequence[Task], form: Rounds, seed: int, rounds: int | None = None) -> Outcomes:
    """Every task in rounds of a form, greedily."""

    def method(task: Task) -> Method:
        return search.infty_think(restart=_rounds_of(engine, task, form)[1], rounds=rounds or ROUNDS)

    return outcomes(engine, tasks, method, seed, process_of=lambda task: _rounds_of(engine, task, form)[0])


def whole(engine: Any, tasks: Sequence[Task], method: Method, seed: int, temperature: float = 1.0) -> Outcomes:
    """Every task in one piece, in a context that grows as long as the chain."""
    from anystep.solve import process_for

    return outcomes(
        engine, tasks, method, seed, process_of=lambda task: process_for(task, engine, temperature=temperature)
    )


@contextmanager
def deepest(engine: Any) -> Iterator[list[int]]:
    """The longest sequence the network computes while the context is open, seen at its own positions."""
    found = [0]

    def look(_: Any, args: Sequence[Any], named: dict[str, Any]) -> None:
        positions = args[1] if len(args) > 1 else named.get("positions")
        if positions is not None:
            found[0] = max(found[0], int(positions.max()) + 1)

    handle = engine.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def teeth(run: Run) -> list[Tooth]:
    """A run's rounds, from its journal."""
    found = []
    for told in run.journal:
        for asked, reply in zip(told.asked, told.replies, strict=True):
            if asked.verb == "step" and asked.by == run.process.name:
                states: Any = getattr(reply, "states", None)
                for tokens, start in zip(states.tokens, states.starts, strict=True):
                    found.append(Tooth(start, len(tokens), reply.cost.attended))
    return found


def solved(found: Mapping[str, Outcomes], within: Mapping[str, Outcomes]) -> Iterator[Check]:
    """The clauses on what is solved."""
    size = f"chains of {TIMES} windows and more"
    yield held(f"{size}: accuracy in rounds, with summaries", found["rounds"].accuracy, ">=", 0.8)
    yield held(f"{size}: the twin's accuracy, its context growing", found["twin"].accuracy, "<=", 0.4)
    yield held(
        f"{size}: the twin's accuracy, its window sliding behind the question", found["sliding"].accuracy, "<=", 0.4
    )
    yield held(f"{size}: the twin's vote at no fewer tokens", found["vote"].accuracy, "<=", 0.4)
    yield held("chains that fit the window: the twin's accuracy", within["twin"].accuracy, ">=", 0.8)


def bounded(rounds: Outcomes, depth: int) -> Iterator[Check]:
    """The clauses on the context."""
    most = 12 + SUMMARY + SEGMENT + SUMMARY
    every = [teeth(run) for run in rounds.runs]
    over = sum(tooth.ended > most for some in every for tooth in some)
    peak = max(tooth.ended for some in every for tooth in some)
    clause = "rounds of all runs longer than question + summary + segment and the summary that closes it"
    yield Check(f"{clause} ({most} tokens; the longest has {peak})", over, "==", 0)
    yield Check("the longest sequence that the network itself computed, in tokens", depth, "<=", WINDOW)
    saw = sum(after.began >= before.ended for some in every for before, after in zip(some, some[1:], strict=False))
    yield Check("rounds that do not begin below where the one before ended (the saw's teeth)", saw, "==", 0)
    apart = sum(
        abs(sum(t.attended for t in some) - run.spent.attended) for some, run in zip(every, rounds.runs, strict=True)
    )
    yield Check("attended positions of the rounds apart from the ledgers' totals", apart, "==", 0)


@dataclass(frozen=True)
class Attended:
    """Positions attended to on chains of one length, in rounds and in one piece, (each,); and their mean tokens."""

    rounds: Floats
    whole: Floats
    tokens: float


def attended(models: Mapping[str, Any], tasks: Sequence[Task], seed: int) -> Attended:
    """What the ledgers say of the same chains: thought in rounds, and read in one piece.

    The twin reads the right chain: left to itself it loses its way, and its chains are not as long as they should be.
    """
    from anystep.language.process import LanguageProcess

    rounds = thought(models["summary"], tasks, Counted(), seed)

    def reads(task: Task) -> Process:
        text = str(task.prompt) + task.reference[:-1]
        return LanguageProcess(models["window"], text, unit="token", max_tokens=1, temperature=0.0, chat=False)

    one = outcomes(models["window"], tasks, search.sample(n=1), seed, process_of=reads)
    figures = [np.array([float(run.spent.attended) for run in some.runs]) for some in (rounds, one)]
    return Attended(figures[0], figures[1], float(np.mean([len(t.prompt) + len(t.reference) for t in tasks])))


def growth(curves: Mapping[int, Attended]) -> Iterator[Check]:
    """The clauses on how the attended positions grow with the length of the chain."""
    size = np.log([c.tokens for c in curves.values()])
    ours = float(np.polyfit(size, np.log([c.rounds.mean() for c in curves.values()]), 1)[0])
    theirs = float(np.polyfit(size, np.log([c.whole.mean() for c in curves.values()]), 1)[0])
    yield Check("power of the chain's length by which attended positions grow, in rounds", ours, "<=", 1.1)
    yield Check("the same in one piece", theirs, ">=", 1.8)


def ablated(found: Mapping[str, Outcomes]) -> Iterator[Check]:
    """The method without what is distinctive in it."""
    yield held(
        "accuracy minus that of summaries of the last segment alone", found["rounds"].over(found["last"]), ">", 0.0
    )
    yield held(
        "accuracy minus that of truncation, the twin's last lines in place of a summary",
        found["rounds"].over(found["sliding"]),
        ">",
        0.0,
    )


def _equal(trainings: Mapping[str, int]) -> Iterator[Check]:
    if trainings:
        apart = max(trainings.values()) / min(trainings.values()) - 1
        clause = f"training tokens of the two models apart, as a share (least {min(trainings.values()):,})"
        yield Check(clause, apart, "<=", 0.005)


def notes(
    found: Mapping[str, Outcomes], within: Mapping[str, Outcomes], curves: Mapping[int, Attended], n: int, least: int
) -> str:
    names = {
        "rounds": "in rounds, cumulative summaries",
        "twin": "twin, growing context, greedy",
        "vote": f"twin, majority@{n} at temperature 1",
        "sliding": "twin, window sliding behind the question (truncation)",
        "last": "in rounds, summaries of the last segment",
    }
    rows = [
        [names[k], str(o.accuracy), o.cost, float(np.mean([r.spent.attended for r in o.runs]))]
        for k, o in found.items()
    ]
    first = table(["method", "accuracy", "tokens", "attended"], rows)
    grown = [[k, c.tokens, float(c.rounds.mean()), float(c.whole.mean())] for k, c in curves.items()]
    second = table(["steps", "tokens of the chain", "attended in rounds", "attended in one piece"], grown)
    fits = ", ".join(f"{who} {o.accuracy}" for who, o in within.items())
    count = len(found["rounds"].right)
    return (
        f"{count} held-out chains of {least} to 98 steps, more than {TIMES} windows of {WINDOW} tokens each; greedy "
        "but for the vote. Both models have one recipe, but for the form of its data."
        f"\n\n{first}\n\nChains of seven steps, which fit the window: {fits}.\n\n{second}"
    )
