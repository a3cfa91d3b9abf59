"""The sandbox: a few warm workers behind one boundary, shared by whoever asks."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from anystep.errors import UsageError
from anystep.sandbox.boundary import choose
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.outcome import Outcome
from anystep.sandbox.session import Session
from anystep.sandbox.worker import Lost, Worker, lost, outcome

_every: weakref.WeakSet[Sandbox] = weakref.WeakSet()
_sharing = threading.Lock()


class Sandbox:
    """Runs model-written Python, contained: `with Sandbox() as box: box.run(["print(6 * 7)"])`.

    workers: programs that run side by side; each worker is a Python that has started already and forks for each
    program. limits: of every program that has none of its own. demand: the weakest boundary that is accepted, by name;
    None accepts all that keep programs from this machine's files. only: this boundary and no other.

    Every program starts from the same state: nothing of an earlier one, a fixed hash seed and random seed, an empty
    folder. It may be used from several threads, and by processes forked from this one, which start workers of their
    own. Raises Unsupported where no boundary holds that is strong enough, and UsageError once it is closed.
    """

    def __init__(
        self, workers: int = 2, limits: Limits | None = None, demand: str | None = None, only: str | None = None
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise UsageError(f"Sandbox(workers={workers!r}): give 1 or more, as in Sandbox(workers=2).")
        self.limits = Limits() if limits is None else limits
        self.boundary = choose(demand, only)
        self.workers = workers
        self._closed = False
        self._idle: list[Worker] = []
        self._lent = 0
        self._held: list[int] = []  # the threads of open sessions
        self._every: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._process = os.getpid()
        _every.add(self)

    def run(self, programs: Sequence[Program | str] | Program | str) -> list[Outcome]:
        """Run programs side by side on the workers; their outcomes, in the order of the programs.

        A program that breaks out in errors, hangs or is killed is an outcome like any other, and no exception.
        """
        given = [programs] if isinstance(programs, (Program, str)) else list(programs)
        todo = [Program(p) if isinstance(p, str) else p for p in given]
        outcomes: list[Outcome | None] = [None] * len(todo)
        problems: list[BaseException] = []
        turns = iter(range(len(todo)))

        def work() -> None:
            try:
                for i in turns:  # shared: an iterator hands each turn to one thread
                    if problems:
                        break
                    outcomes[i] = self._one(todo[i])
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=work) for _ in range(min(self.workers, len(todo)) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        return [o for o in outcomes if o is not None]

    def open(self, program: Program | str) -> Session:
        """Start a program that defines functions and keep it for calls. It holds one worker until it is closed.

        Raises UsageError where all workers are held by sessions that this very thread has open.
        """
        program = Program(program) if isinstance(program, str) else program
        worker, thread = self._take(), threading.get_ident()

        def give_back(worker: Worker, sound: bool) -> None:
            if thread in self._held:  # not so in a process forked since
                self._held.remove(thread)
            self._give_back(worker, sound)

        self._held.append(thread)
        return Session(worker, program, program.limits or self.limits, give_back)

    def close(self) -> None:
        """End all workers and what runs on them. It may be called twice."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for worker in idle:
            worker.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _one(self, program: Program) -> Outcome:
        worker, sound = self._take(), False
        try:
            told = worker.start(program, program.limits or self.limits, session=False)
            sound = True
            return outcome(told)
        except Lost as problem:
            return lost(problem)
        finally:
            self._give_back(worker, sound)

    def _take(self) -> Worker:
        """A worker for one program, when one is free."""
        with self._changed:
            while not self._closed and not self._idle and self._lent >= self.workers:
                if self._held.count(threading.get_ident()) >= self.workers:
                    raise UsageError(
                        f"this thread's open sessions hold all {self.workers} workers; close one, "
                        f"or call Sandbox(workers={self.workers + 1})."
                    )
                self._changed.wait()
            if self._closed:
                raise UsageError("the sandbox is closed; run programs within `with Sandbox() as box:`.")
            self._lent += 1
            if self._idle:
                return self._idle.pop()
        try:
            worker = Worker(self.boundary.name)
            self._every.add(worker)
            return worker
        except BaseException:
            self._returned()
            raise

    def _give_back(self, worker: Worker, sound: bool) -> None:
        if os.getpid() != self._process:
            return  # a session that was open when we were forked: the worker is our parent's
        if not sound or self._closed:
            worker.end()
            self._returned()
        else:
            self._returned(worker)

    def _returned(self, worker: Worker | None = None) -> None:
        with self._changed:
            self._lent -= 1
            if worker is not None:
                self._idle.append(worker)
            self._changed.notify()

    def _forked(self) -> None:
        """In a process forked from ours: the workers are our parent's, and so may be the lock."""
        for worker in self._every:
            worker.forget()
        self._idle, self._lent, self._held = [], 0, []
        self._every = weakref.WeakSet()
        self._changed, self._process = threading.Condition(), os.getpid()


def _after_fork() -> None:
    global _sharing
    _sharing = threading.Lock()  # another thread may have held it
    for box in list(_every):
        box._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_shared: Sandbox | None = None


def shared() -> Sandbox:
    """One sandbox for the whole process, as rewards and scorers use it: started when first asked for, ended at exit."""
    global _shared
    with _sharing:
        if _shared is None:
            _shared = Sandbox(workers=os.cpu_count() or 1)
            atexit.register(_shared.close)
        return _shared
