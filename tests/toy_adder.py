"""A tiny process for tests of comparisons and commands: it counts dots, then says a sum, sometimes a wrong one.

Each of its `steps` steps pays for one generated token and, at a state's first, for the prompt. Answers follow each
state's own key, so batching changes nothing. `slow` seconds pass a step, for tests that interrupt.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import Cost, Limit, Process, Reward, Scored, Status, Stepped
from anystep.errors import UsageError
from anystep.keys import Keys, uniforms
from anystep.tasks.task import Task

PROMPT = 5


@dataclass(frozen=True)
class Words:
    """States: what each has written so far."""

    written: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.written)

    def take(self, index: np.ndarray) -> Words:
        return Words(tuple(self.written[i] for i in index))

    def join(self, *others: Words) -> Words:
        return Words(sum((o.written for o in others), self.written))

    def texts(self) -> tuple[str, ...]:
        return self.written


class Adder(Process):
    """Says the right sum with probability `skill`, else one too many or two too few; greedy is the likeliest."""

    logp = "mass"

    def __init__(
        self,
        total: int,
        skill: float,
        greedy: bool = False,
        steps: int = 3,
        slow: float = 0.0,
        early: bool = False,
        announce: bool = False,
    ) -> None:
        self.name, self.horizon, self.branches = "adder", steps, not greedy
        self.total, self.skill, self.greedy = total, skill, greedy
        self.steps, self.slow, self.early, self.announce = steps, slow, early, announce

    def merges(self) -> tuple[Any, ...]:
        return "adder", self.total, self.skill, self.greedy, self.steps

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(Words(("",) * n), np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Words, keys: Keys, limit: Limit, until: Any) -> Stepped:
        written, n = list(states.written), len(states)
        status, logp, cut = np.zeros(n, np.int8), np.zeros(n), np.zeros(n, bool)
        while len(rows := np.flatnonzero((status == Status.LIVE) & ~cut)):
            each = [Cost(prompt=PROMPT * (written[i] == ""), generated=1, evaluations=1) for i in rows]
            if self.announce and any(len(w) == 2 for w in written):
                print("third step", file=sys.stderr, flush=True)
            paid = limit.pay(rows, each, once=Cost(calls=1))
            cut[rows[~paid]] = True
            if self.slow:
                time.sleep(self.slow)
            for i in rows[paid].tolist():
                status[i], logp[i] = self._write(written, i, int(keys[i]))
                limit.show(int(keys[i]), written[i][-1:])
            if until == "step" or (isinstance(until, int) and (status == Status.DONE).sum() >= until):
                break
        return Stepped(Words(tuple(written)), status, logp, np.zeros(n), limit.used, cut)

    def _write(self, written: list[str], i: int, key: int) -> tuple[int, float]:
        length = self.steps
        if self.early and uniforms([key], 99)[0] < 0.5:
            length = 2
        if len(written[i]) + 1 < length:
            written[i] += "."
            return Status.LIVE, 0.0
        u = 0.0 if self.greedy else float(uniforms([key], 7)[0])
        wrong = self.total + (1 if u < (1 + self.skill) / 2 else -2)
        right = u < self.skill if not self.greedy else self.skill >= 0.5
        written[i] += f" {self.total if right else wrong}"
        return Status.DONE, float(np.log(max(self.skill if right else (1 - self.skill) / 2, 1e-9)))

    def answers(self, states: Words) -> tuple[str | None, ...]:
        return tuple(w.split()[-1] if " " in w else None for w in states.written)

    def texts(self, states: Words) -> tuple[str, ...]:
        return states.written

    def dump(self, states: Words) -> bytes:
        return json.dumps(states.written).encode()

    def load(self, data: bytes) -> Words:
        return Words(tuple(json.loads(data)))


@dataclass(frozen=True)
class Right(Reward):
    """Sees the right total most of the time; reading a state costs two prompt tokens."""

    total: int
    name: str = "right"

    def __call__(self, states: Words, limit: Limit) -> Scored:
        paid = limit.pay(np.arange(len(states)), Cost(prompt=2, evaluations=1), once=Cost(calls=1))
        seen = np.array([0.9 if w.endswith(f" {self.total}") else 0.2 for w in states.written])
        return Scored(np.where(paid, seen, np.nan), limit.used)


def adding(n: int, unscored: frozenset[int] = frozenset()) -> list[Task]:
    """n sums; those with an index in `unscored` cannot be scored."""
    return [_task(i, i in unscored) for i in range(n)]


def _task(i: int, unscored: bool) -> Task:
    total = 10 + i

    def score(text: str) -> float:
        return float("nan") if unscored else float(text.split()[-1:] == [str(total)])

    def extract(text: str) -> str | None:
        return text.split()[-1] if " " in text else None

    return Task(f"sum-{i}", "sums", f"5 + {total - 5} =", str(total), extract, score, meta={"total": total})


def adder_for(task: Task, greedy: bool = False) -> Adder:
    """A process for one of these tasks: skilled on the even ones, less so on the odd ones."""
    total = task.meta["total"]
    return Adder(total, 0.6 if total % 2 == 0 else 0.35, greedy)


def install(patch: Any = None, **options: Any) -> None:
    """Put the toy where the commands find models, tasks and rewards: model "adder", task "sums", reward "right".

    patch: a pytest monkeypatch; without one the replacement stays. options: those of `Adder`, for every process.
    """
    from importlib import import_module

    import anystep.tasks

    naming, solving = import_module("anystep.naming"), import_module("anystep.solve")
    known = naming.rewards()

    def engine_for(model: str, before: object = None) -> str:
        if model != "adder":
            raise UsageError(f"There is no model {model!r}; known is adder.")
        return model

    def process_for(task: Any, model: str, **more: Any) -> Process:
        total = task.meta["total"] if isinstance(task, Task) else 12
        return Adder(total, 0.6, greedy=more.get("temperature") == 0.0, **options)

    def load(name: str, n: int, **more: Any) -> list[Task]:
        if name != "sums":
            raise UsageError(f'no task {name!r}: write tasks.load("sums", {n!r})')
        return adding(n)

    def right(task: Any) -> Reward:
        return Right(task.meta["total"] if isinstance(task, Task) else 12)

    put = setattr if patch is None else patch.setattr
    put(solving, "engine_for", engine_for)
    put(solving, "process_for", process_for)
    put(naming, "rewards", lambda: {**known, "right": right})
    put(anystep.tasks, "load", load)
