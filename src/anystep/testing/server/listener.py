"""A server in a thread of its own: an address to connect to, every connection a task, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self

from anystep.testing.server.counts import Counting
from anystep.testing.server.http import Head, Left, Peer


class Listener:
    """Listens on a free port of the loopback while its context is open. A subclass says how a request is answered.

    `url` ends in /v1, as a client's base URL does. `counting` is what it counts; `counts` is a snapshot.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port, self.counting = host, port, Counting()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up, self._failed = threading.Event(), list[BaseException]()
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._main, name=type(self).__name__, daemon=True)
        self._thread.start()
        self._up.wait()
        if self._failed:
            self._thread.join()
            raise self._failed[0]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and the thread."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def idle(self, timeout: float = 10.0) -> bool:
        """Waits until no request is in flight; False where some still are after `timeout` seconds."""
        return self.counting.idle(timeout)

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failed.append(error)
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, self.host, self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.counting.connected()
        peer = Peer(reader, writer)
        try:
            stays = True
            while stays:
                head = await peer.head()
                stays = await self.serve(peer, head, await peer.body(head)) and head.stays
        except (Left, asyncio.CancelledError):  # cancelled only by the end of this server
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def serve(self, peer: Peer, head: Head, body: bytes) -> bool:
        """Answer one request; whether the connection can take another. A subclass says how."""
        raise NotImplementedError

    async def while_there(self, peer: Peer, work: Coroutine[Any, Any, bool]) -> bool | None:
        """The result of `work`, which is cancelled when the client leaves: then None."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(peer.gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        except Left:
            return None
        finally:
            for part in (task, gone):
                part.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
