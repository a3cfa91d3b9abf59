"""Ways to serve requests that arrive over time, and a clock that says what each pass took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.language.accelerate.temporal_fusion import TemporalFusionScheduler
from anystep.language.engine.slots import Moves, window
from anystep.process import Floats


@dataclass(frozen=True)
class Arrival:
    """One request: when it comes, in steps of a request that is alone, and what it asks for."""

    at: float
    prompt: str
    longest: int


@dataclass
class Served:
    """What a scheduler did with a trace; latencies are from arrival to the last token, on the clock it ran by."""

    outputs: list[tuple[int, ...]]
    latency: Floats
    passes: int
    positions: int
    cpu: float
    moved: int = 0
    uneven: int = 0  # passes that held other rows than active requests
    charged: int = 0  # evaluations on the requests' accounts


@dataclass
class Clock:
    """Time as passes go by: each takes `fixed` and `each` a position, or what the CPU took for it over `unit` seconds.

    `skip` goes on to the next arrival when there is nothing to do.
    """

    fixed: float = 1.0
    each: float = 0.0
    unit: float | None = None
    now: float = 0.0
    cpu: float = 0.0
    passes: int = field(default=0)

    def run(self, engine: Any, work: Callable[[], Any]) -> Any:
        """`work`, with the clock moved on by the passes it makes."""
        passes, positions, began = engine.counters.passes, engine.counters.positions, time.thread_time()
        result = work()
        took = time.thread_time() - began
        self.cpu += took
        self.passes += (made := engine.counters.passes - passes)
        counted = made * self.fixed + (engine.counters.positions - positions) * self.each
        self.now += counted if self.unit is None else took / self.unit
        return result

    def skip(self, to: float) -> None:
        self.now = max(self.now, to)


def fused(engine: Any, trace: Sequence[Arrival], clock: Clock, rows: int, arrange: Any = window, **more: Any) -> Served:
    """Temporal fusion, or an ablation of how it keeps its slots in order."""
    before, uneven = engine.counters.positions, 0
    finished: dict[int, float] = {}
    with TemporalFusionScheduler(engine, max_rows=rows, arrange=arrange, **more) as scheduler:
        tickets: list[Any] = []
        while len(finished) < len(trace):
            while len(tickets) < len(trace) and trace[len(tickets)].at <= clock.now:
                one = trace[len(tickets)]
                tickets.append(scheduler.submit(one.prompt, temperature=0, max_tokens=one.longest))
            if scheduler.idle:
                clock.skip(trace[len(tickets)].at)
                continue
            counters = engine.counters
            was, read, had = counters.positions, counters.prefilled, [t.cost.evaluations for t in tickets]
            ended = clock.run(engine, scheduler.step)
            paid = sum(t.cost.evaluations - h for t, h in zip(tickets, had, strict=True))
            rode = counters.prefilled - read
            uneven += counters.positions - was - rode != paid - _prompts(tickets, had) and paid > 0
            finished |= {tickets.index(t): clock.now for t in ended}
        moved = scheduler.moved
    done = np.array([finished[i] - one.at for i, one in enumerate(trace)])
    charged = sum(t.cost.evaluations for t in tickets)
    positions = engine.counters.positions - before
    return Served([t.tokens for t in tickets], done, clock.passes, positions, clock.cpu, moved, uneven, charged)
