"""Who may ask: the key, and the name that the server was called by. No origin but its own is ever allowed."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from anystep.serve.refusal import Refused

OPEN = ("/health",)


class Guard:
    """Lets a request through that carries the key, where one is set, and names a host that is served.

    hosts: the names that a Host header may hold, without port, None for any (then there must be a key). A page on the
    web whose own name was made to lead to this machine has another Host, and is refused.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str] | None) -> None:
        self.app, self.key, self.hosts = app, key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(Headers(scope=scope), scope["path"])
        except Refused as error:
            await JSONResponse(error.body(), error.status, error.headers())(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> None:
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            raise Refused("this server is not called by that name.", status=421, code="wrong_host")
        if self.key is None or path in OPEN:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = secrets.compare_digest(given.strip().encode(), self.key.encode())
        if scheme.lower() != "bearer" or not same:
            raise Refused(
                "a key is needed: send the header Authorization: Bearer KEY.", status=401, code="invalid_api_key"
            )


def _name(host: str) -> str:
    """The host without its port: [::1]:8000 is [::1]."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
