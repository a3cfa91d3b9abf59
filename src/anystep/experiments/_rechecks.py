"""What row 176's experiment compares: pools of samples, and what the first k of each problem answer and pay.

A pool counts every token written, cues included, and the prompt once; a best-of-k pays besides for what its verifier
reads, as its engine prices it. A ledger has less where cues stand behind equal beginnings and are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from anystep import search
from anystep.experiments._equal import Outcomes, outcomes
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.prefill import paid
from anystep.language.recheck import trigger, written
from anystep.language.train.recheck import RECHECK, rechecked
from anystep.ledger import Ledger, Limit
from anystep.population import Decision, Population
from anystep.procedure import Method
from anystep.process import Floats, Reward
from anystep.run import Run
from anystep.search.iterative_deepening_sampling import Schedule
from anystep.solve import process_for
from anystep.tasks.task import Task
from anystep.verify import chain_steps
from anystep.verify.chain_steps import finished
from anystep.verify.reread import reread


@dataclass(frozen=True)
class Told:
    """(items,): whether each answer is right, and the tokens it took."""

    right: Floats
    tokens: Floats

    @property
    def cost(self) -> float:
        return float(self.tokens.mean())


@dataclass(frozen=True)
class Rows:
    """One problem's samples: who they are, whether each is right, its tokens, and the prompt's."""

    population: Population | None
    right: Floats
    lengths: Floats
    prompt: int

    def vote(self, k: int) -> tuple[float, float]:
        return self._decided(k, search.majority), self.prompt + float(self.lengths[:k].sum())

    def best(self, k: int) -> tuple[float, float]:
        return self._decided(k, search.best_reward), self.vote(k)[1] + self._read(k)

    def _decided(self, k: int, decision: Decision) -> float:
        if self.population is None:
            return 0.0
        row = decision(self.population.take(np.arange(min(k, len(self.population))))).row
        return 0.0 if row is None else float(self.right[row])

    def _read(self, k: int) -> float:
        """Prompt tokens that the verifier computes for the first k chains, from an empty cache."""
        if self.population is None:
            return 0.0
        first = self.population.take(np.arange(min(k, len(self.population))))
        first, engine, limit = first.take(first.done), chain_steps().engine, Limit(Ledger(), "reading")
        chains = [engine.tokenizer.encode(finished(rechecked(text))) for text in first.texts or ()]
        begun = [tokens[:start] for tokens, start in zip(first.states.tokens, first.states.starts, strict=True)]
        engine.cache.trim(0)
        paid(engine, [(*prompt, *chain) for prompt, chain in zip(begun, chains, strict=True) if chain], limit)
        return float(limit.used.prompt)


@dataclass(frozen=True)
class Pool:
    """Every problem's samples, n each."""

    rows: tuple[Rows, ...]
    n: int
    runs: Outcomes

    def vote(self, k: int) -> Told:
        return _told([row.vote(k) for row in self.rows])

    def best(self, k: int) -> Told:
        return _told([row.best(k) for row in self.rows])

    def equal(self, how: str, tokens: float) -> tuple[int, Told]:
        """The smallest k whose vote or best costs `tokens` or more on average, or all."""
        for k in range(1, self.n + 1):
            found: Told = getattr(self, how)(k)
            if found.cost >= tokens:
                break
        return k, found

    @property
    def one(self) -> float:
        """How often a sample is right."""
        return float(np.mean([row.right.mean() for row in self.rows]))

    @property
    def cues(self) -> float:
        """Cues in a sample, on average."""
        texts = [t for row in self.rows if row.population is not None for t in row.population.texts or ()]
        return float(np.mean([text.count(RECHECK) for text in texts]))

    def texts(self) -> list[tuple[str, ...]]:
        return [() if row.population is None else row.population.texts or () for row in self.rows]


def _told(each: Sequence[tuple[float, float]]) -> Told:
    right, tokens = np.array(each, dtype=np.float64).T
    return Told(right, tokens)


def verifier() -> Reward:
    """The learned step reward, of the chain that is left standing."""
    return reread(chain_steps(), rechecked)


def pool(engine: Engine, tasks: Sequence[Task], n: int, schedule: Schedule | None, seed: int) -> Pool:
    """n samples of every problem with cues by `schedule`, or without any, scored by the learned reward."""
    reward = verifier()

    def method(task: Task) -> Method:
        process = process_for(task, engine, temperature=1.0)
        assert isinstance(process, LanguageProcess)
        if schedule is None:
            return search.best_of_n(n=n, reward=reward)
        return search.triggered_sampling(n, trigger(process, RECHECK), written, schedule, reward)

    found = outcomes(engine, tasks, method, seed)
    return Pool(tuple(_rows(task, run, n) for task, run in zip(tasks, found.runs, strict=True)), n, found)


def _rows(task: Task, run: Run, n: int) -> Rows:
    answer, process = run.answer, run.process
    assert isinstance(process, LanguageProcess)
    prompt = len(process.prompt)
    if answer is None or answer.population is None:  # all of its samples ran into the cap
        return Rows(None, np.zeros(n), np.full(n, float(process.longest)), prompt)
    population: Population = answer.population
    texts = process.texts(population.states)
    right = np.array([task.score(text) for text in texts]) * population.done
    lengths = np.array([len(output) for output in population.states.outputs()], dtype=np.float64)
    answers = process.answers(population.states)
    return Rows(replace(population, answers=answers, texts=tuple(texts)), right, lengths, prompt)
