"""What the routing experiments share: the pair, its problems, and what is said of a step other than by a glimpse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.experiments._equal import Outcomes, outcomes
from anystep.ledger import FREE, Limit
from anystep.procedure import Exploring, Method, procedure, start, step
from anystep.process import Floats, Process, Reward, Scored
from anystep.run import Run
from anystep.search import decide
from anystep.solve import process_for
from anystep.tasks.chains import FAMILIES, STEP_END, chains, family_of
from anystep.tasks.task import Task

TEMPERATURE = 0.6


@procedure(decide=decide.majority)
def by_steps(n: int = 1, by: Any = None) -> Exploring:
    """One process stepped step by step, with a key for every step."""
    population = yield from start(n)
    while population.live.any():
        population = yield from step(population, by=by)
    return population


@dataclass(frozen=True)
class Hashed(Reward):
    """A free and fair draw in [0, 1) for every state, from its tokens: random routing."""

    name: str = "random"
    salt: int = 0

    def __call__(self, states: Any, limit: Limit) -> Scored:
        keys = [lineage.named(f"{self.salt}:{tokens}") for tokens in states.tokens]
        return Scored(lineage.uniforms(np.array(keys, np.uint64)), limit.used)


@dataclass(frozen=True)
class StepDoubt(Reward):
    """The mean entropy, or the mean surprise (log of the perplexity), of a drafted step's tokens under its writer."""

    of: str = "entropy"
    name: str = "step-doubt"
    range: tuple[float, float] = (0.0, 1e3)
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        from anystep.language.prefill import read_each

        steps = [(last_step(t, s, states.tokenizer), t) for t, s in zip(states.tokens, states.starts, strict=True)]

        def read(hidden: Any, i: int) -> float:
            begin, tokens = steps[i]
            logs = self.engine.model.logits(hidden[begin - 1 : -1]).double().log_softmax(-1)
            if self.of == "entropy":
                return float(-(logs.exp() * logs).sum(-1).mean())
            return float(-logs.gather(-1, logs.new_tensor(tokens[begin:]).long()[:, None]).mean())

        rows = np.arange(len(states))
        return Scored(read_each(self.engine, states.tokens, rows, limit, read), limit.used)


def last_step(tokens: Sequence[int], start: int, tokenizer: Any) -> int:
    """Where the last finished step begins."""
    (stop,) = tokenizer.encode(STEP_END)
    return max([start, *(i + 1 for i in range(start, len(tokens) - 1) if tokens[i] == stop)])


def pair(small: Any, large: Any) -> tuple[Any, Any]:
    """The engines of the two models, by name or as they are."""
    from anystep.language import load

    return tuple(load(m) if isinstance(m, str) else m for m in (small, large))  # type: ignore[return-value]


def problems(n: int, split: str, seed: int) -> list[Task]:
    """As many of every family, shuffled."""
    found = [task for family in FAMILIES for task in chains(-(-n // len(FAMILIES)), split, seed, families=family)]
    Random(seed).shuffle(found)
    return found[:n]


@dataclass(frozen=True)
class Bench:
    """The pair on some problems: what a method answers and pays, and how much of it is the large model's."""

    small: Any
    large: Any
    tasks: Sequence[Task]
    seed: int
    temperature: float = TEMPERATURE
    say: Callable[[str], None] = print

    def process(self, task: Task, engine: Any, temperature: float | None = None) -> Process:
        return process_for(task, engine, temperature=self.temperature if temperature is None else temperature)

    def writer(self, engine: Any, temperature: float | None = None) -> Process:
        """The engine as a process that goes on from any task's states."""
        return self.process(self.tasks[0], engine, temperature)

    def __call__(
        self, method: Method, engine: Any = None, seeds: int = 1, temperature: float | None = None, name: str = ""
    ) -> Routed:
        engine = self.small if engine is None else engine
        found = [
            outcomes(
                engine,
                self.tasks,
                method,
                self.seed + 1_000 * i,
                process_of=lambda task: self.process(task, engine, temperature),
            )
            for i in range(seeds)
        ]
        routed = Routed(tuple(found), self.small.name, self.large.name)
        self.say(
            f"{name or method}: {routed.right.mean():.3f}, handed {routed.rate:.3f}, large {routed.wrote.mean():.2f}"
        )
        return routed


@dataclass(frozen=True)
class Routed:
    """Runs of one method, several seeds of the same problems; per problem, means over seeds: (items,)."""

    seeds: tuple[Outcomes, ...] = field(repr=False)
    small: str
    large: str

    @property
    def runs(self) -> list[Run]:
        return [run for one in self.seeds for run in one.runs]

    @property
    def right(self) -> Floats:
        return self._mean(lambda o: o.right)

    @property
    def tokens(self) -> Floats:
        return self._mean(lambda o: o.tokens)

    @property
    def wrote(self) -> Floats:
        """Tokens that the large model generated."""
        return self._mean(lambda o: np.array([run.ledger.by.get(self.large, FREE).generated for run in o.runs]))

    @property
    def read(self) -> Floats:
        """Tokens that the large model read or generated."""
        return self._mean(lambda o: o.paid(self.large))

    @property
    def flops(self) -> Floats:
        return self._mean(lambda o: np.array([run.spent.flops for run in o.runs]))

    @property
    def handed(self) -> int:
        """Steps that the large model wrote."""
        return sum(by == self.large for run in self.runs for by in run.books.family.by)

    @property
    def rate(self) -> float:
        """The share of steps in the answers that the large model wrote, where runs have steps."""
        return self.handed / max(1, sum(len(self.line(run)) - 1 for run in self.runs))

    def line(self, run: Run) -> list[int]:
        """The states that lead to the answer, in order."""
        assert run.answer is not None and run.answer.population is not None and run.answer.row is not None
        return run.books.family.ancestors(int(run.answer.population.id[run.answer.row]))

    def _mean(self, read: Callable[[Outcomes], Floats]) -> Floats:
        return np.asarray(np.mean([read(one) for one in self.seeds], axis=0), dtype=np.float64)


def labelled(routed: Routed, tasks: Sequence[Task], before: bool) -> tuple[Floats, Floats, list[str], list[str]]:
    """What was said of each step up to and with the first wrong one: value, whether it is wrong, problem and family.

    before: values are of the state that a step began at, as a glimpse's are, else of the one that it led to.
    """
    values: list[float] = []
    wrong: list[float] = []
    names: list[str] = []
    families: list[str] = []
    for one in routed.seeds:
        for task, run in zip(tasks, one.runs, strict=True):
            if run.answer is None or run.answer.text is None:
                continue
            said = {node: value for (_, node), value in run.books.family.scores.items()}
            labels = family_of(str(task.prompt)).steps(str(task.prompt), run.answer.text)
            for (begin, end), right in zip(pairwise(routed.line(run)), labels, strict=False):
                values.append(said.get(begin if before else end, np.nan))
                wrong.append(float(not right))
                names.append(task.id)
                families.append(task.family)
                if not right:
                    break
    return np.array(values), np.array(wrong), names, families
