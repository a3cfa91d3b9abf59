"""First-finish on the wire: n requests race at a server that writes in real time, and keeps a log of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep import search
from anystep.answer import Answer
from anystep.drive import drive
from anystep.experiments._figures import unbiased
from anystep.experiments._traces import POOLS, WRONG_ANSWERS, Traces
from anystep.experiments.check import Check
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.procedure import Method
from anystep.run import Run
from anystep.testing.server import FakeServer, Fault, Piece, Request, Said

TOKEN = 0.01  # seconds that a worker takes over a token
SLOW = 3  # how much longer a slow worker takes
NEAR = 4  # tokens within which a reply may end while its cancellation is on its way
POOL = "wrong traces longer"


@dataclass
class Worker(Fault):
    """One request at the server: how long its reply is and how fast it is written; when each token was made."""

    number: int
    length: int
    pace: float
    made: list[float] = field(default_factory=list)

    async def at(self, exchange: Any, made: int) -> None:
        if made:
            self.made.append(time.perf_counter())
        if made < self.length:
            await asyncio.sleep(self.pace)

    @property
    def ended(self) -> float:
        """When its last token was made, infinite where it never was."""
        return self.made[-1] if len(self.made) == self.length else np.inf


class Workers:
    """What a server says and how fast: traces of a known law, drawn by each request's seed.

    uneven: half of the workers are slow, so that the first in time need not be the shortest.
    """

    def __init__(self, pool: Traces, uneven: bool) -> None:
        self.pool, self.uneven = pool, uneven
        self.log: dict[int, Worker] = {}
        self.lock = threading.Lock()

    def script(self, request: Request, choice: int) -> Said:
        """Dots, a token each, and last the answer: which kind, and by whom."""
        u = [float(lineage.uniforms(request.seed, 0, lane)) for lane in range(3)]
        wrong = u[0] >= self.pool.share
        kind = 1 + int(u[1] * WRONG_ANSWERS) if wrong else 0
        length = 1 + int(lineage.choose(self.pool.lengths[[int(wrong)]], np.array([u[2]]))[0])
        return Said((*(Piece(".") for _ in range(length - 1)), Piece(f"{kind} {request.number}")))

    def fault(self, request: Request) -> Fault:
        slow = self.uneven and float(lineage.uniforms(request.seed, 0, 3)) < 0.5
        worker = Worker(request.number, len(self.script(request, 0).pieces), TOKEN * (SLOW if slow else 1))
        with self.lock:
            self.log[request.number] = worker
        return worker


@dataclass(frozen=True)
class Wired:
    """One race: its answer, its workers, and the one that answered."""

    answer: Answer
    workers: tuple[Worker, ...]
    winner: Worker
    right: float
    seconds: float

    @property
    def early(self) -> bool:
        """Whether the answer is the first reply to end, ties of one token's time excepted."""
        return self.winner.ended <= min(w.ended for w in self.workers) + TOKEN

    @property
    def losers(self) -> tuple[Worker, ...]:
        return tuple(w for w in self.workers if w is not self.winner)

    @property
    def ran_on(self) -> int:
        """Losers that were written to their end though they had more than `NEAR` tokens to go when the first ended."""
        by_then = {w.number: sum(at <= self.winner.ended for at in w.made) for w in self.losers}
        return sum(w.ended < np.inf and w.length - by_then[w.number] > NEAR for w in self.losers)


def wire(seed: int, races: int, n: int, progress: Callable[[str], None]) -> Iterator[Check]:
    """The clauses on the asynchronous form."""
    for who, uneven in (("even workers", False), ("uneven workers", True)):
        methods = (search.first_finish(n=n), search.sample(n=1), search.self_consistency(n=n))
        found: list[list[Wired]] = [[], [], []]
        in_flight = lost = 0
        with served(uneven) as (workers, endpoint, server):
            for i in range(races):  # side by side, so that what else the machine does touches all three
                for each, method in zip(found, methods, strict=True):
                    each.append(race(workers, endpoint, method, seed + i))
                    in_flight += not server.idle()
                lost += abs(sum(len(w.made) for w in found[0][-1].workers) - found[0][-1].answer.cost.generated)
        first, _, voted = found
        waits = [float(np.mean([r.seconds for r in each])) for each in found]
        progress(f"{who}: {waits[0]:.3f} s to the first, {waits[1]:.3f} of one, {waits[2]:.3f} of all")
        on = f"on the wire, {who}"
        late = sum(not r.early for r in first)
        clause = (
            f"answers of {races} that are not the first reply to end at the server, ties of one token's time excepted"
        )
        yield Check(f"{on}: {clause}", late, "==", 0)
        ran_on = sum(r.ran_on for r in first)
        yield Check(f"{on}: losing requests that were written on to their end", ran_on, "==", 0)
        yield Check(f"{on}: requests still in flight at the server afterwards", in_flight, "==", 0)
        apart = lost / (races * (n - 1))
        yield Check(f"{on}: tokens that the server made and no ledger has, a cancelled reply", apart, "<=", 1.0)
        paid = sum(r.answer.cost.generated for r in first)
        tokens = paid / sum(r.answer.cost.generated for r in voted)
        yield Check(f"{on}: tokens generated over majority@{n}'s", tokens, "<", 1.0)
        clause = f"seconds to the first of {n} over the least of a single sample's and majority's"
        yield Check(f"{on}: {clause}", waits[0] / min(waits[1:]), "<", 1.0)
        if uneven:
            longer = float(np.mean([r.winner.length > min(w.length for w in r.workers) for r in first]))
            yield Check(
                f"{on}: share of answers that are not the shortest, as they would be in lockstep", longer, ">", 0.0
            )
        else:
            right = np.array([r.right for r in first])
            exact = POOLS[POOL].first_right(n)
            yield unbiased(f"{on}: accuracy of the first of {n} is its exact law's", right, exact)


@contextlib.contextmanager
def served(uneven: bool) -> Iterator[tuple[Workers, Endpoint, FakeServer]]:
    workers = Workers(POOLS[POOL], uneven)
    with FakeServer(workers.script, faults=workers.fault) as server, Endpoint(server.url, api="chat") as endpoint:
        yield workers, endpoint, server


def race(workers: Workers, endpoint: Endpoint, method: Method, seed: int) -> Wired:
    """One run, and what the server logged of it."""
    with workers.lock:
        workers.log.clear()
    (answer,) = drive(Run(EndpointProcess(endpoint, "How many?"), method, seed=seed))
    kind, number = (answer.text or "").lstrip(".").split()
    with workers.lock:
        log = dict(workers.log)
    return Wired(answer, tuple(log.values()), log[int(number)], float(kind == "0"), answer.cost.seconds)
