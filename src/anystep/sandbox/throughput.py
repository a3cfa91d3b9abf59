"""How many short programs a second a boundary runs here, cold and warm, and how long one takes."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass

from anystep.errors import UsageError
from anystep.sandbox.limits import Limits
from anystep.sandbox.pool import Sandbox

SHORT = "print(sum(k * k for k in range(1000)))"
ANSWER = "332833500\n"
COLD = 3  # times that a worker is started to see how long that takes


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was measured of one boundary.

    cold: programs a second where each starts a sandbox of its own. warm: programs a second on workers that have
    started, side by side. latency: milliseconds of one warm program by itself, from asked to answered: the median, the
    90th and the 99th percentile. calls: calls a second of one session. cpu: milliseconds of processor that a warm
    program takes in all processes but ours; the other figures fall where the machine has other work, this one hardly.
    """

    boundary: str
    workers: int
    cold: float
    warm: float
    latency: tuple[float, float, float]
    calls: float
    cpu: float

    def __str__(self) -> str:
        middle, most, nearly = self.latency
        return (
            f"{self.boundary}: {self.warm:.0f} programs/s warm on {self.workers} workers, {self.cold:.1f} cold; "
            f"one takes {middle:.1f} ms (90 % within {most:.1f}, 99 % within {nearly:.1f}), {self.cpu:.1f} ms of "
            f"processor; {self.calls:.0f} calls/s in a session"
        )


def throughput(only: str | None = None, workers: int = 2, programs: int = 200) -> Throughput:
    """Measure the boundary that holds here, or `only` this one, on a short program that is right every time.

    Raises Unsupported where the boundary does not hold, and UsageError for fewer than 20 programs.
    """
    if programs < 20:
        raise UsageError(
            f"throughput(programs={programs}) says little; give 20 or more, as in throughput(programs=200)."
        )
    limits = Limits(cpu=10.0, wall=60.0)
    Sandbox(only=only).close()  # the boundary has been looked for by now
    began = time.perf_counter()
    for _ in range(COLD):
        with Sandbox(1, limits, only=only) as box:
            _right(box, 1)
    cold = COLD / (time.perf_counter() - began)
    spent = _children()
    with Sandbox(workers, limits, only=only) as box:
        _right(box, 2 * workers)
        took = [_right(box, 1) for _ in range(programs)]
        warm = programs / _right(box, programs)
        with box.open("def f(x): return x + 1") as session:
            began = time.perf_counter()
            total = sum(session.call("f", (k,)).value for k in range(programs))
            calls = programs / (time.perf_counter() - began)
        assert total == programs * (programs + 1) // 2
    cpu = (_children() - spent) / (2 * programs + 2 * workers)
    cuts = statistics.quantiles((1000 * t for t in took), n=100, method="inclusive")
    name = box.boundary.name
    return Throughput(name, workers, cold, warm, (cuts[49], cuts[89], cuts[98]), calls, 1000 * cpu)


def _right(box: Sandbox, n: int) -> float:
    """Seconds for n programs, each of which must come out right."""
    began = time.perf_counter()
    outcomes = box.run([SHORT] * n)
    took = time.perf_counter() - began
    wrong = [o for o in outcomes if o.stdout != ANSWER]
    if wrong:
        raise AssertionError(f"a program that is right came out as {wrong[0]}")
    return took


def _children() -> float:
    """Seconds of processor of all processes that have ended beneath this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
