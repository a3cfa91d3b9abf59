"""A program that defines functions, kept alive for calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from anystep.errors import UsageError
from anystep.sandbox import values
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.outcome import Outcome
from anystep.sandbox.worker import Lost, Worker, lost, outcome


class Session:
    """What `Sandbox.open` gives: `with box.open(code) as session: session.call("f", (1, [2, 3])).value`.

    opened: what became of the definitions themselves. alive: whether it can be called. The limits hold for all calls
    together; a call that goes over one ends the session, and later calls have the status "closed". A call that raises
    does not end it. It keeps a worker until it is closed or forgotten, and is for one thread at a time. In a process
    that was forked meanwhile it counts as closed.
    """

    def __init__(self, worker: Worker, program: Program, limits: Limits, give_back: Callable[[Worker, bool], None]):
        self.alive = False
        self._worker: Worker | None = worker
        self._limits, self._give_back = limits, give_back
        self._sound = True  # whether the worker can serve another program
        self.opened = self._last = self._told(lambda: worker.start(program, limits, session=True))

    def call(self, name: str, args: tuple[Any, ...] = ()) -> Outcome:
        """Call one of the program's functions with literals; `value` is what it returned, read within bounds.

        Raises UsageError for arguments that are no literals, which is the caller's own mistake.
        """
        try:
            values.dumps((name, tuple(args)))
        except values.NotLiteral as problem:
            raise UsageError(
                f"call({name!r}, args): {problem}; give literals, as in call({name!r}, (1, [2]))"
            ) from None
        worker = self._worker
        if worker is None or not self.alive:
            why = "the session was closed" if worker is None else f"the program had ended: {self._last.status}"
            return Outcome("closed", detail=why, exit_code=self._last.exit_code)
        self._last = self._told(lambda: worker.call(name, tuple(args), self._limits))
        return self._last

    def close(self) -> None:
        """End the program and free its worker. It may be called twice."""
        worker, self._worker = self._worker, None
        if worker is None or worker.owner != os.getpid():  # a forked process has no say in its parent's worker
            return
        try:
            if self.alive:
                worker.close_session()
        except Lost:
            self._sound = False
        self.alive = False
        self._give_back(worker, self._sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # else a session that is forgotten would keep its worker from everybody for good

    def _told(self, ask: Callable[[], dict[str, Any]]) -> Outcome:
        self._sound, self.alive = False, False  # while it is asked: an interrupt leaves half an answer in the line
        try:
            told = ask()
        except Lost as problem:
            return lost(problem)
        self._sound, self.alive = True, told["alive"]
        return outcome(told)
