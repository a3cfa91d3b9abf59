"""From an application to a port: bind first, say where, serve until Ctrl-C, and then stop all work at once."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from anystep.errors import AnystepError, UsageError
from anystep.serve.app import LOOPBACK, make
from anystep.serve.house import RUNNING

THREADS = RUNNING + 8  # a running request holds one, and loading and reading need some


class PortTaken(AnystepError):
    """The address cannot be listened on."""


class Server(uvicorn.Server):
    """Cancels the runs under way at the first signal, before it waits for their responses."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        assert isinstance(app, Starlette)
        app.state.house.close()
        super().handle_exit(sig, frame)


def serve(
    models: Mapping[str, str],
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve `models` (names to what `language.load` takes) until interrupted; `ready` is told the base URL.

    Raises UsageError for an address beyond this machine without a key, PortTaken where the port is in use.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise UsageError("a key is printable ASCII without spaces around it; make one with: openssl rand -hex 32.")
    local = is_loopback(host)
    if not local and key is None:
        raise UsageError(
            f"--host {host} can be reached from other machines, so it needs a key: call anystep serve --host {host} "
            "--key KEY, or set ANYSTEP_KEY."
        )
    for what in models.values():
        check_name(what)
    bound = bind(host, port)
    name, number = bound.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    hosts = None if key is not None else LOOPBACK | {host.lower(), shown}
    app = make(models, key, hosts, say)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    ready(f"http://{shown}:{number}/v1")
    with bound:
        Server(config).run(sockets=[bound])


def check_name(what: str) -> None:
    """UsageError for what can be no model, before a request finds out; what it holds is read when it is loaded."""
    from anystep.language import models

    known = [model.name for model in models()]
    if what not in known and not Path(what).expanduser().exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", what):
        raise UsageError(
            f"There is no model {what!r}; known are {', '.join(known)}; or give a .gguf file, a folder, or a Hugging "
            "Face id: call anystep serve --model chainlm-2m."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
