"""A program as a process: a step runs it to its next factor, and a particle filter estimates its evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.bayes.programs import Effects, Finite, Inner, Program, Sample, begun, effect_of
from anystep.bayes.representations import Suspended, advance, mh_step, replay
from anystep.errors import AnystepError, Unsupported, UsageError
from anystep.keys import Keys
from anystep.process import Status
from anystep.stepwise import Moved, Stepwise

BLOCK = 8  # uniforms that are drawn at a time
UNREAD = Finite((0,), (1,))  # where a value stands that was read, until the replay says what it was drawn from


@dataclass(frozen=True, eq=False)
class Traces:
    """n computations, each suspended at a factor or done. clock: (n,) how many steps made each."""

    rows: tuple[Suspended, ...]
    clock: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Self:
        where = np.asarray(index, dtype=np.int64)
        return type(self)(tuple(self.rows[i] for i in where.tolist()), self.clock[where])

    def join(self, *others: Any) -> Self:
        clock = np.concatenate([s.clock for s in (self, *others)])
        return type(self)(tuple(row for s in (self, *others) for row in s.rows), clock)

    def put(self, rows: NDArray[np.int64], states: Self) -> Self:
        held, clock = list(self.rows), self.clock.copy()
        for at, row in zip(rows.tolist(), states.rows, strict=True):
            held[at] = row
        clock[rows] = states.clock
        return type(self)(tuple(held), clock)

    def contents(self) -> tuple[Hashable, ...]:
        return tuple((values(row), len(row.factors), row.done) for row in self.rows)


def values(row: Suspended) -> tuple[Any, ...]:
    """What a trace chose."""
    return tuple(value for _, value in row.trace)


class ProgramProcess(Stepwise):
    """A program's runs, each step to the next factor; its factors are `logw`, so its target is what the program means.

    One evaluation is one row run from one factor to the next. Each state is its choices: going on replays them, so long
    programs cost the square of their length. The answer is what the program returns.

    program: a function without arguments that returns a generator of effects. horizon: the most factors it meets; a run
    that meets more fails. logp: "mass" if all its distributions are finite, else "density".
    """

    def __init__(
        self, program: Program, horizon: int, logp: Literal["mass", "density"] = "density", name: str | None = None
    ) -> None:
        if not isinstance(horizon, int) or horizon < 1:
            raise UsageError(f"ProgramProcess(horizon={horizon!r}): the most factors it meets, 1 or more; horizon=100.")
        self.program, self.logp = program, logp
        self.name = name or str(getattr(program, "__name__", "program"))
        self.horizon = horizon + 1  # what comes after the last factor is a step of its own

    def begin(self, keys: Keys) -> Traces:
        return Traces((Suspended(self.program),) * len(keys), np.zeros(len(keys), dtype=np.int64))

    def advance(self, states: Traces, keys: Keys) -> Moved:
        return self._moved(states, *self._each(states, keys, self._next))

    def _next(self, row: Suspended, supply: Iterator[float]) -> Suspended:
        after: Suspended = perform(advance(row), supply)
        if len(after.factors) >= (self.horizon or 0):
            raise UsageError(f"{self.name} met more factors than its horizon of {(self.horizon or 0) - 1}.")
        return after

    def _each(
        self, states: Traces, keys: Keys, go: Callable[[Suspended, Iterator[float]], Suspended]
    ) -> tuple[list[Suspended], dict[int, str]]:
        """The rows after `go`, and why it failed for those that stay as they were."""
        rows, errors = list(states.rows), dict[int, str]()
        for i, (row, supply) in enumerate(zip(states.rows, self.forward(keys, states.clock), strict=True)):
            try:
                rows[i] = go(row, supply)
            except (AnystepError, ArithmeticError) as error:
                errors[i] = str(error) or type(error).__name__
        return rows, errors

    def forward(self, keys: Keys, clock: NDArray[np.int64]) -> list[Iterator[float]]:
        """The uniforms that each row draws from at its clock, as many as it wants."""
        first = lineage.uniforms(keys[:, None], clock[:, None], np.arange(BLOCK)[None, :])
        return [_supply(key, at, block) for key, at, block in zip(keys, clock, first.tolist(), strict=True)]

    def _moved(self, states: Traces, rows: list[Suspended], errors: dict[int, str]) -> Moved:
        n = len(rows)
        status, logp, logw = np.zeros(n, dtype=np.int8), np.zeros(n), np.zeros(n)
        for i, (before, after) in enumerate(zip(states.rows, rows, strict=True)):
            status[i] = Status.FAILED if i in errors else Status.DONE if after.done else Status.LIVE
            new = after.trace[len(before.trace) :]
            logp[i] = sum(_log(site.mass(value)) for site, value in new if not isinstance(site, Inner))
            logw[i] = sum(_log(weight) for weight in after.factors[len(before.factors) :])
        return Moved(Traces(tuple(rows), states.clock + 1), status, logp, logw, errors)

    def answers(self, states: Traces) -> tuple[Hashable, ...]:
        return tuple(row.value if row.done else None for row in states.rows)

    def dump(self, states: Traces) -> bytes:
        plain = [[[*values(row)], len(row.factors), row.done] for row in states.rows]
        try:
            written = json.dumps([plain, states.clock.tolist()])
            same = json.loads(written)[0] == plain  # a tuple would come back as a list
        except (TypeError, ValueError):
            same = False
        if not same:
            raise Unsupported(f"{self.name} chooses values that JSON has no words for; it keeps no journal.")
        return written.encode()

    def load(self, data: bytes) -> Traces:
        plain, clock = json.loads(data)
        return Traces(tuple(self._again(*row) for row in plain), np.array(clock, dtype=np.int64))

    def _again(self, chosen: list[Any], factors: int, done: bool) -> Suspended:
        if not factors and not done:
            return Suspended(self.program)
        kept = tuple((UNREAD, value) for value in chosen)
        return perform(replay(self.program, kept, None if done else factors), iter(()))


class TraceKernel(ProgramProcess):
    """Single-site Metropolis-Hastings on the states of a `ProgramProcess`: an endless process, `Step(by=kernel)`.

    A step is one transition. Leaves the law of the program's traces, weighted by their factors, invariant.
    """

    def __init__(self, of: ProgramProcess) -> None:
        super().__init__(of.program, 1, name=f"{of.name}-mh")
        self.horizon, self.logp = None, of.logp

    def advance(self, states: Traces, keys: Keys) -> Moved:
        rows, errors = self._each(states, keys, lambda row, supply: perform(mh_step(row), supply))
        status = np.array([Status.DONE if row.done else Status.LIVE for row in rows], dtype=np.int8)
        status[list(errors)] = Status.FAILED
        zeros = np.zeros(len(rows))
        return Moved(Traces(tuple(rows), states.clock + 1), status, zeros, zeros, errors)


def perform(going: Effects, supply: Iterator[float]) -> Any:
    """Run a program of effects with these uniforms; what it returns. Factors outside a suspended computation are lost,
    so whatever has any is suspended first."""
    stack, answer = [going], None
    while stack:
        try:
            effect = effect_of(stack[-1], answer, len(stack) > 1)
        except StopIteration as end:
            answer = end.value
            stack.pop()
            continue
        if isinstance(effect, Inner):
            stack.append(begun(effect.program))
            answer = None
        else:
            answer = effect.distribution.draw(next(supply)) if isinstance(effect, Sample) else None
    return answer


def _supply(key: np.uint64, clock: np.int64, block: list[float]) -> Iterator[float]:
    first = 0
    while True:
        yield from block
        first += BLOCK
        block = lineage.uniforms(np.array([key])[:, None], clock, first + np.arange(BLOCK)[None, :])[0].tolist()


def _log(mass: Any) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(float(mass)))
