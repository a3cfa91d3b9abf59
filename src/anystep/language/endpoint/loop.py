"""One event loop in a thread of its own, for everything that waits on a network; made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_current: Loop | None = None


def loop() -> Loop:
    """This process's loop. After a fork the child makes its own, for threads are not inherited."""
    global _current
    with _lock:
        if _current is None or _current.closed or _current.pid != os.getpid():
            _current = Loop()
        return _current


class Loop:
    """A running event loop. It is closed at exit, when what still runs on it is cancelled and waited for."""

    def __init__(self) -> None:
        self.pid, self.closed = os.getpid(), False
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="anystep-network", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        """Start `work` and keep it in `tasks` (touched in the loop's thread alone) until it has ended."""

        def begin() -> None:
            task = self._loop.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.soon(begin)

    def soon(self, function: Any, *args: Any) -> None:
        """Call a plain function in the loop's thread, soon."""
        self._loop.call_soon_threadsafe(function, *args)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, waited for; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        if self.closed or self.pid != os.getpid():
            return
        self.closed = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
