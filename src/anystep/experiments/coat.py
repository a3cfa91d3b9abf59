"""Row 169: chain of associated thoughts on multi-hop puzzles whose facts can be looked up only as the chain unfolds.

The reward is no oracle: it is the share of steps that a remembered fact says, read off the output alone. A step that
stands on nothing remembered has none.

Stated time: three minutes on one quiet core, and three more the first time, when the model is trained (then it is
kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.language.associating import associating
from anystep.procedure import Method
from anystep.process import Process, Reward, reward
from anystep.solve import process_for
from anystep.tasks.hops import Puzzle, hops
from anystep.tasks.hops.puzzle import remembered
from anystep.tasks.task import Task

ROW = 169
ROUNDS, BRANCH, C, UP_FRONT = 16, 4, 0.2, 8  # chosen on 40 dev puzzles
MORE = (16, 32, 64, 128)  # rounds that a baseline may have, to spend as many tokens

Recall = Callable[[str, str], list[str]]


@dataclass(frozen=True)
class Bench:
    """The model on a set of puzzles."""

    engine: Any
    tasks: Sequence[Task]
    seed: int

    def run(self, method: Callable[[Task], Method]) -> Outcomes:
        return outcomes(self.engine, self.tasks, method, self.seed, process_of=self.process)

    def process(self, task: Task) -> Process:
        return process_for(task, self.engine, temperature=1.0)

    def coat(self, recall: Callable[[Puzzle], Recall] | None, weight: float = 0.2, rounds: int = ROUNDS) -> Outcomes:
        """The method with what a puzzle's partial outputs recall; without it, and with weight 0, it is MCTS."""

        def method(task: Task) -> Method:
            puzzle = task.meta["puzzle"]
            told: Any = None if recall is None else associating(self.process(task), recall(puzzle))  # type: ignore[arg-type]
            fits = fitting(puzzle) if weight else None
            return search.coat(supported(puzzle), told, fits, weight, rounds=rounds, branch=BRANCH, c=C)

        return self.run(method)


def supported(puzzle: Puzzle) -> Reward:
    return reward(lambda states: [puzzle.supported(text) for text in states.texts()], f"supported {puzzle.prompt}")


def fitting(puzzle: Puzzle) -> Reward:
    """How well the best of what a state remembers fits what it asks for next."""

    def fits(text: str) -> float:
        query = puzzle.query(text)
        known = set(remembered(text))
        return max((f.fits for f in puzzle.facts.search(query, 1) if f.text in known), default=0.0) if query else 0.0

    return reward(lambda states: [fits(text) for text in states.texts()], f"fitting {puzzle.prompt}")


def at_each(puzzle: Puzzle) -> Recall:
    """What the partial output asks for: the two facts that fit best."""
    return lambda prompt, text: [found.text for found in puzzle.facts.search(puzzle.query(text), 2)]


def at_first(puzzle: Puzzle) -> Recall:
    """What the question asks for, once, before the first step."""
    asked = puzzle.start + puzzle.turns
    return lambda prompt, text: [] if text else [found.text for found in puzzle.facts.search(asked, UP_FRONT)]


def at_random(puzzle: Puzzle) -> Recall:
    """Two facts at each node that nobody asked for."""
    return lambda prompt, text: Random(f"{prompt}{text}").sample(puzzle.facts.texts, 2)


def run(
    seed: int = 0, progress: Callable[[str], None] = print, model: Any = None, problems: int = 200, rounds: int = ROUNDS
) -> Result:
    """Check every clause of the row. model: an engine, by default that of `language.train.hops`."""
    from anystep.language import load
    from anystep.language.train.hops import hopping

    began = time.perf_counter()
    engine = model or load(hopping(say=progress))
    bench = Bench(engine, hops(problems, "test", seed), seed)
    checks = [*recalls([task.meta["puzzle"] for task in bench.tasks])]
    ours = bench.coat(at_each, rounds=rounds)
    progress(f"CoAT {ours.accuracy} at {ours.cost:.0f} tokens")
    rows: list[list[object]] = [["CoAT", rounds, str(ours.accuracy), ours.cost]]
    for name, recall in (("MCTS", None), ("MCTS, facts once up front", at_first)):
        same = bench.coat(recall, 0.0, rounds)
        n, equal = no_cheaper(lambda n, recall=recall: bench.coat(recall, 0.0, n), ours.cost, MORE)  # type: ignore[misc]
        checks.append(held(f"CoAT minus {name} at {rounds} rounds each", ours.over(same), ">=", 0.10))
        checks.append(held(f"CoAT minus {name} at no fewer tokens ({n} rounds)", ours.over(equal), ">=", 0.10))
        checks.append(Check(f"{name}: tokens at {n} rounds over CoAT's", equal.cost / ours.cost, ">=", 1.0))
        rows += [[name, rounds, str(same.accuracy), same.cost], [name, n, str(equal.accuracy), equal.cost]]
        progress(f"{name} {same.accuracy}, {equal.accuracy} at {equal.cost:.0f} tokens")
    checks.append(Check("facts that a node remembers and an ancestor had remembered", repeats(ours), "==", 0))
    checks.append(Check("runs that differ from MCTS with association off and weight 0", apart(bench), "==", 0))
    k, vote = no_cheaper(lambda k: bench.run(lambda _: search.self_consistency(n=k)), ours.cost)
    rows.append([f"majority of {k}", "", str(vote.accuracy), vote.cost])
    for name, recall, weight in (("CoAT, weight 0", at_each, 0.0), ("CoAT, facts at random", at_random, 0.2)):
        found = bench.coat(recall, weight, rounds)
        rows.append([name, rounds, str(found.accuracy), found.cost])
        if recall is at_random:
            checks.append(held("ablation, facts at random: CoAT minus it", ours.over(found), ">", 0.0))
    head = ["method", "rounds", "accuracy", "tokens"]
    told = f"{problems} held-out puzzles of 3 or 4 hops, each with 260 facts of its own, temperature 1, "
    told += f"branch {BRANCH}, c {C}."
    return Result("coat", ROW, tuple(checks), time.perf_counter() - began, seed, f"{told}\n\n{table(head, rows)}")


def recalls(some: Sequence[Puzzle]) -> Iterator[Check]:
    """Whether the facts of later hops can be found from the question, and from the right partial derivation."""
    question, derived = [], []
    for puzzle in some:
        told = {found.text for found in puzzle.facts.search(puzzle.start + puzzle.turns, UP_FRONT)}
        needed = puzzle.needed()
        question.append(float(np.mean([fact in told for fact in needed[1:]])))
        lines = ["".join(f"{entity}\n" for entity in puzzle.path[:hop]) for hop in range(len(needed))]
        asked = [puzzle.facts.search(puzzle.query(line), 2) for line in lines]
        found = [fact in [f.text for f in some] for fact, some in zip(needed, asked, strict=True)]
        derived.append(float(np.mean(found)))
    yield held("recall of later hops' facts from the question", bootstrap_mean(question), "<=", 0.1)
    yield held("recall of a hop's fact from the right partial derivation", bootstrap_mean(derived), ">=", 0.9)


def repeats(found: Outcomes) -> int:
    """Facts that stand twice in one finished state."""
    total = 0
    for run in found.runs:
        if run.answer is not None and run.answer.population is not None:
            for text in run.process.texts(run.answer.population.states):
                total += len(remembered(text)) - len(set(remembered(text)))
    return total


def apart(bench: Bench, problems: int = 20) -> int:
    """Runs whose states or costs are not those of MCTS with the reward as its value."""
    some = Bench(bench.engine, bench.tasks[:problems], bench.seed)
    off = some.coat(None, 0.0).runs
    plain = some.run(lambda task: _mcts(task)).runs
    return sum(
        a.books.family.logp != b.books.family.logp or not a.spent.same(b.spent) for a, b in zip(off, plain, strict=True)
    )


def _mcts(task: Task) -> Method:
    by = supported(task.meta["puzzle"])
    return search.mcts(by, rounds=ROUNDS, branch=BRANCH, c=C, value=by)
