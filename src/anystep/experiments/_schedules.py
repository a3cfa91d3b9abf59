"""Ways to serve requests that arrive over time, on a clock that moves with the passes they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anystep.language.accelerate.temporal_fusion import TemporalFusionScheduler, Ticket
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config, Llama
from anystep.language.engine.plan import CHUNK
from anystep.language.engine.slots import Moves, window
from anystep.language.engine.tokenizer import Alphabet
from anystep.process import Floats

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "


@dataclass(frozen=True)
class Arrival:
    """One request: when it comes, in steps of a request that is alone, and what it asks for."""

    at: float
    prompt: str
    longest: int


@dataclass
class Clock:
    """What a pass takes: 1 and `each` for every position beyond the first, or its CPU time over `unit` seconds."""

    each: float = 0.0
    unit: float | None = None
    now: float = 0.0
    cpu: float = 0.0

    def run(self, engine: Engine, work: Callable[[], Any]) -> Any:
        """`work`, with the clock moved on by the passes it makes."""
        passes, positions, began = engine.counters.passes, engine.counters.positions, time.thread_time()
        result = work()
        took = time.thread_time() - began
        self.cpu += took
        passes, positions = engine.counters.passes - passes, engine.counters.positions - positions
        self.now += passes + (positions - passes) * self.each if self.unit is None else took / self.unit
        return result


@dataclass(frozen=True)
class Served:
    """What became of a trace. latency: of each request, from its arrival to its last token. uneven: passes over other
    rows than those of active requests. unpaid: positions that were computed and are on no request's account. largest:
    positions of the largest pass."""

    outputs: list[tuple[int, ...]]
    latency: Floats
    passes: int
    positions: int
    cpu: float
    moved: int
    uneven: int
    unpaid: int
    largest: int


class Watch:
    """Counts the passes of an engine over rows that are not those of active requests."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.uneven, self.largest = engine, 0, 0
        self.live: Callable[[], int] = lambda: 0
        inner = type(engine).run

        def run(tokens: Any, *more: Any, **named: Any) -> Any:
            self.largest = max(self.largest, tokens.numel())
            self.size, self.rows = tokens.numel(), self.live()
            return inner(engine, tokens, *more, **named)

        engine.run = run  # type: ignore[method-assign]

    def step(self, scheduler: TemporalFusionScheduler) -> list[Ticket]:
        counters = self.engine.counters
        read, self.size, self.rows = counters.prefilled, 0, 0
        self.live = lambda: int(scheduler._joined.session.live.sum())
        ended = scheduler.step()
        self.uneven += self.size - (counters.prefilled - read) != self.rows
        return ended


def fused(
    made: Callable[[], Engine],
    trace: Sequence[Arrival],
    clock: Clock,
    rows: int,
    arrange: Any = window,
    together: bool = False,
    chunk: int = 64,
) -> Served:
    """Temporal fusion. together: static batching in its place, where a batch is collected while the one before it runs
    to its end, and nobody joins it; rows that are done leave it all the same, and are answered at once."""
    engine = made()
    watch = Watch(engine)
    finished: dict[Ticket, float] = {}
    tickets: list[Ticket] = []
    with TemporalFusionScheduler(engine, max_rows=rows, arrange=arrange, chunk=chunk) as scheduler:
        while len(finished) < len(trace):
            while len(tickets) < len(trace) and trace[len(tickets)].at <= clock.now:
                if together and (len(tickets) - len(finished) >= rows or scheduler.active):
                    break
                one = trace[len(tickets)]
                tickets.append(scheduler.submit(one.prompt, temperature=0, max_tokens=one.longest, chat=False))
            if scheduler.idle:
                clock.now = max(clock.now, trace[len(tickets)].at)
                continue
            for ticket in clock.run(engine, lambda: watch.step(scheduler)):
                finished[ticket] = clock.now
        moved = scheduler.moved
    return _served(trace, tickets, finished, clock, [engine], watch, moved)


def static(made: Callable[[], Engine], trace: Sequence[Arrival], clock: Clock, rows: int) -> Served:
    return fused(made, trace, clock, rows, together=True, chunk=CHUNK)


def instances(made: Callable[[], Engine], trace: Sequence[Arrival], clock: Clock, rows: int) -> Served:
    """Each request by itself in an engine of its own, up to `rows` of them at a time, which take turns."""
    waiting = list(range(len(trace)))
    running: dict[int, tuple[TemporalFusionScheduler, Ticket, Engine]] = {}
    tickets: dict[int, Ticket] = {}
    finished: dict[Ticket, float] = {}
    engines: list[Engine] = []
    while waiting or running:
        while waiting and len(running) < rows and trace[waiting[0]].at <= clock.now:
            i, engine = waiting.pop(0), made()
            engines.append(engine)
            scheduler, one = TemporalFusionScheduler(engine, chunk=CHUNK), trace[i]
            tickets[i] = scheduler.submit(one.prompt, temperature=0, max_tokens=one.longest, chat=False)
            running[i] = scheduler, tickets[i], engine
        if not running:
            clock.now = max(clock.now, trace[waiting[0]].at)
        for i, (scheduler, _, engine) in list(running.items()):
            for ticket in clock.run(engine, scheduler.step):
                finished[ticket] = clock.now
                running.pop(i)[0].close()
    order = [tickets[i] for i in range(len(trace))]
    return _served(trace, order, finished, clock, engines, Watch(made()), 0)


def _served(
    trace: Sequence[Arrival],
    tickets: Sequence[Ticket],
    finished: dict[Ticket, float],
    clock: Clock,
    engines: Sequence[Engine],
    watch: Watch,
    moved: int,
) -> Served:
    latency = np.array([finished[t] - one.at for t, one in zip(tickets, trace, strict=True)])
    passes, positions = (sum(getattr(e.counters, name) for e in engines) for name in ("passes", "positions"))
    unpaid = positions - sum(t.cost.evaluations for t in tickets)
    outputs = [t.tokens for t in tickets]
    return Served(outputs, latency, passes, positions, clock.cpu, moved, watch.uneven, unpaid, watch.largest)


def leftward(active: np.ndarray, total: int) -> tuple[int, int, Moves]:
    """Naive compaction: the rows that stay close up to the left, in order."""
    return 0, len(active), [(slot, i) for i, slot in enumerate(active.tolist()) if slot != i]


def unordered(active: np.ndarray, total: int) -> tuple[int, int, Moves]:
    """No reordering: the pass runs over all slots from the first active one to the last, holes included."""
    return int(active[0]), int(active[-1] - active[0]) + 1, []


def stand_in(seed: int = 0) -> Callable[[], Engine]:
    """A tiny random model that never ends by itself: schedules, passes and positions depend on lengths alone."""
    generator = torch.Generator().manual_seed(seed)
    shape = Config(len(LETTERS), dim=16, layers=1, heads=2, kv_heads=1, hidden=16, head_dim=8, context=4096)
    model = Llama(shape).requires_grad_(False).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.3, generator=generator)
    tokenizer = Alphabet(LETTERS)
    tokenizer.ends = frozenset()
    return lambda: Engine(model, tokenizer, name="stand-in")
