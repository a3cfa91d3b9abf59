"""From an application to a port: bind first, say where, serve until Ctrl-C, and then stop all work at once."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from anystep.errors import AnystepError, UsageError
from anystep.language.endpoint.credentials import loopback
from anystep.serve.app import LOOPBACK, make
from anystep.serve.house import House

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine


class PortTaken(AnystepError):
    """The address cannot be listened on."""


class Server(uvicorn.Server):
    """Cancels the runs under way as soon as it is told to stop, before it waits for their responses."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self.house: House = app.state.house
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.house.close()
        super().handle_exit(sig, frame)

    def stop(self) -> None:
        """End the server from another thread."""
        self.should_exit = True
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self.loop.call_soon_threadsafe(self.house.close)


def serve(
    models: Mapping[str, str | Engine],
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve `models`, names to engines or to what `language.load` takes, until interrupted. `ready` is told the URL.

    Raises UsageError for an address beyond this machine without a key, PortTaken where the port is in use.
    """
    server, bound, url = _opened(models, host, port, key, say)
    with bound:
        ready(url)
        server.run(sockets=[bound])


@contextmanager
def running(
    models: Mapping[str, str | Engine],
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[str]:
    """A server in a thread of this process while the context lasts; gives its URL. For tests and notebooks."""
    server, bound, url = _opened(models, host, port, key, say)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="anystep-serve")
    with bound:
        thread.start()
        try:
            yield url
        finally:
            server.stop()
            thread.join()


def _opened(
    models: Mapping[str, str | Engine], host: str, port: int, key: str | None, say: Callable[[str], None]
) -> tuple[Server, socket.socket, str]:
    """A server that has not begun, the socket it will have, and the URL that leads there."""
    if key is not None and not (key and key.isascii() and key.isprintable() and key.strip() == key):
        raise UsageError("a key is printable ASCII without spaces around it; make one with: openssl rand -hex 32.")
    if key is None and not loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines, so it needs a key: call anystep serve --host {host} "
            "--key KEY, or set ANYSTEP_KEY."
        )
    for what in models.values():
        if isinstance(what, str):
            check_name(what)
    bound = bind(host, port)
    name, number = bound.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    hosts = None if key is not None else LOOPBACK | {host.lower(), shown}
    return Server(make(models, key, hosts, say)), bound, f"http://{shown}:{number}/v1"


def check_name(what: str) -> None:
    """UsageError for what can be no model, before a request finds out; what it holds is read when it is loaded."""
    from anystep.language import models

    known = [model.name for model in models()]
    if what not in known and not Path(what).expanduser().exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", what):
        raise UsageError(
            f"There is no model {what!r}; known are {', '.join(known)}; or give a .gguf file, a folder, or a Hugging "
            "Face id: call anystep serve --model chainlm-2m."
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one."""
    if not 0 <= port < 65536:
        raise UsageError(f"--port {port}: a port is a number from 0 (any free one) to 65535, as in --port 8000.")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}; give an address such as 127.0.0.1.") from None
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        raise PortTaken(
            f"{host}:{port} cannot be listened on ({error.strerror}); give another, as in --port 0 for any free one."
        ) from None
    return bound
