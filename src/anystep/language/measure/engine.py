"""How fast an engine decodes forks of one prompt, what each step reads and multiplies, and what it could be at best.

Nothing here prints: a `Report` is data, and every figure in it was measured or counted in this very run. Bytes and
operations are counted as torch runs them, in one step that is not timed; the tests check them against what follows
from the model's shape.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from anystep.errors import UsageError
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.native.watch import watched
from anystep.language.measure.machine import Machine, measure_machine, packed4
from anystep.language.measure.memory import held
from anystep.testing.operators import Operators, counted_operators

FORKS = (1, 8, 32, 64)
REPEATS = 3  # prefills that are timed


@dataclass(frozen=True)
class Spent:
    """Seconds of single pieces of work: this process's CPU time, and wall time."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    def seconds(self, threads: int) -> float:
        """The median that a limit is compared with: CPU time where one thread works, else wall time."""
        return statistics.median(self.cpu if threads == 1 else self.wall)


@dataclass(frozen=True)
class Forks:
    """Decoding `rows` forks of the prompt, logits and the choice of a token included.

    read: weight bytes that a step reads; keys: bytes of keys and values; operations: multiplies and adds of a step by
    arithmetic; operators: how many torch runs. limit: the least seconds for a step of these weights, decided by
    "bytes" or "products"; limit4: the same for weights of 4 bits (GGUF's Q4_1) and the machine's fastest arithmetic.
    shared: bytes of the prompt's cache; own: bytes held for what the rows have beyond it, `new` tokens each.
    """

    rows: int
    new: int
    step: Spent
    read: int
    keys: int
    operations: dict[str, int]
    operators: int
    limit: float
    decided_by: str
    limit4: float
    shared: int
    own: int
    own_tokens: int

    @property
    def bytes(self) -> int:
        return self.read + self.keys

    def tokens_per_second(self, threads: int) -> float:
        return self.rows / self.step.seconds(threads)

    def reached(self, threads: int) -> float:
        """The share of the limit that is reached: 1 is the limit."""
        return self.limit / self.step.seconds(threads)

    def reached4(self, threads: int) -> float:
        """The share of the limit of 4-bit weights that is reached."""
        return self.limit4 / self.step.seconds(threads)

    @property
    def cache_ratio(self) -> float:
        """Cache of all rows, their own new tokens apart, to that of one prompt."""
        return (self.shared + self.own - self.own_tokens) / self.shared


@dataclass(frozen=True)
class Report:
    """An engine on this machine. held: bytes of all weights in memory; packed: those that a pass reads, in their forms;
    prefill: of `prompt` positions, nothing cached; first: until the first token's logits."""

    model: str
    prompt: int
    load: float
    machine: Machine
    held: int
    packed: int
    prefill: Spent
    first: Spent
    forks: tuple[Forks, ...]


def measure_engine(
    engine: Engine,
    forks: Sequence[int] = FORKS,
    prompt: int = 500,
    new: int = 16,
    machine: Machine | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Times and counts decoding of `forks` rows of a prompt of `prompt` tokens, `new` tokens each, greedily.

    Empties the engine's prefix cache. The tokens of the prompt are drawn by a fixed rule: speed does not depend on
    them. machine: what is known of it already; else it is measured here. `say` is told what is being done.

    Raises UsageError for counts that cannot be measured, or a prompt that does not fit the context.
    """
    _check(engine, forks, prompt, new)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, engine.config.vocab, (prompt,), generator=draw).tolist()
    say(f"prompt of {prompt} tokens")
    prefill, first = _prefilled(engine, tokens)
    storages = held(engine.model)
    with engine.open(engine.plan([tokens])) as session:
        packed = _counted_step(session, storages).read_bytes
    if machine is None:
        say("what the machine can do")
        machine = measure_machine(engine.config, packed, forks)
    rows = []
    for count in forks:
        say(f"{count} fork{'s' if count > 1 else ''}")
        rows.append(_forks(engine, tokens, count, new, machine, storages))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    held_bytes = sum(storages.values())
    return Report(engine.name, prompt, load, machine, held_bytes, packed, prefill, first, tuple(rows))


def _check(engine: Engine, forks: Sequence[int], prompt: int, new: int) -> None:
    if not forks or min(forks) < 1:
        raise UsageError(f"forks={tuple(forks)}: how many rows, each 1 or more, as in forks=(1, 8, 32).")
    if prompt < 1 or new < 2:
        raise UsageError(f"prompt={prompt}, new={new}: a prompt has a token or more, and new is 2 or more (16).")
    if prompt + new + 1 > engine.config.context:
        room = engine.config.context - new - 1
        raise UsageError(
            f"prompt={prompt} and new={new} do not fit {engine.name}'s context of {engine.config.context}; "
            f"try prompt={max(room, 1)} or less."
        )


class _Clock:
    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    @contextmanager
    def timed(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    @property
    def spent(self) -> Spent:
        return Spent(tuple(self.cpu), tuple(self.wall))


def _prefilled(engine: Engine, tokens: list[int]) -> tuple[Spent, Spent]:
    """Opening the prompt with nothing cached, and the same until the first token's logits."""
    opening, first = _Clock(), _Clock()
    for _ in range(REPEATS):
        engine.cache.trim(0)
        with first.timed():
            with opening.timed():
                session = engine.open(engine.plan([tokens]))
            session.logits()
        session.close()
    return opening.spent, first.spent


def _counted_step(session: Decoding, storages: dict[int, int]) -> Operators:
    """One step, every row fed a token and read out, as torch ran it. Not for timing: watching is slow."""
    chosen = session.logits().argmax(-1).tolist()
    with counted_operators(storages) as found, watched(found.add):
        session.append(chosen)
        session.logits()
    return found


def _forks(engine: Engine, tokens: list[int], rows: int, new: int, machine: Machine, storages: dict[int, int]) -> Forks:
    clock = _Clock()
    engine.cache.trim(0)
    engine.open(engine.plan([tokens])).close()
    shared = engine.cache.bytes
    with engine.open(engine.plan([tokens] * rows)) as session:
        session.append(session.logits().argmax(-1).tolist())  # lays out the rows' own room: not a step like the others
        for _ in range(new // 2 - 1):
            _step(session, clock)
        found = _counted_step(session, storages)
        for _ in range(new - new // 2 - 1):
            _step(session, clock)
        own = session.bytes
    read, keys = found.read_bytes, found.key_bytes
    limit, decided_by = machine.least(read + keys, found.operations, read)
    return Forks(
        rows=rows,
        new=new,
        step=clock.spent,
        read=read,
        keys=keys,
        operations=dict(found.operations),
        operators=found.calls,
        limit=limit,
        decided_by=decided_by,
        limit4=limit4(engine, machine, keys, found.operations.total()),
        shared=shared,
        own=own,
        own_tokens=rows * new * engine.bytes_per_position,
    )


def limit4(engine: Engine, machine: Machine, keys: int, operations: int) -> float:
    """Least seconds of a step were the weights Q4_1, keys and values fp16, and all products in the fastest arithmetic.

    keys: bytes of keys and values as this engine holds them.
    """
    read = packed4(engine.config)
    return max((read + keys * 2 // engine.like.element_size()) / machine.reading(read), operations / machine.fastest)


def _step(session: Decoding, clock: _Clock) -> None:
    with clock.timed():
        session.append(session.logits().argmax(-1).tolist())
