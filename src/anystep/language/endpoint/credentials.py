"""Who is told which key: what the headers of a request say of who sends it.

A key that is handed in goes where the caller says. One that merely stands in the environment was put there for some
server, perhaps another one, and follows two rules. It never leaves this machine in the clear: it is sent over https, or
to a loopback address. And $OPENAI_API_KEY is for OpenAI: it goes to api.openai.com, or to the server that
$OPENAI_BASE_URL names. $ANYSTEP_API_KEY is for whatever server this library is pointed at.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from anystep.errors import UsageError

PLAIN = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
OPENAI = "api.openai.com"


@dataclass(frozen=True)
class Credentials:
    """url: the address without user and password. headers: names in lower case; they hold secrets. withheld: why no key
    is sent, where one stands in the environment, else empty."""

    url: str
    headers: Mapping[str, str]
    withheld: str = ""

    @property
    def stays(self) -> bool:
        """Whether what is sent never leaves this machine, unless a proxy is asked to pass it on."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and loopback(parts.hostname or "")

    def __repr__(self) -> str:
        return f"Credentials({self.url!r})"


def credentials(address: str, key: str | None, headers: Mapping[str, str] | None) -> Credentials:
    """What to send to `address`, the address of a server, perhaps with user:password@ in it.

    key: "" sends none; None is that of the environment, if the rules above let it go there. headers: stand over
    everything else. Raises UsageError, which never shows a secret, for what no header can hold, a key beside a user,
    and an address with a query, where keys would end up in logs.
    """
    parts = urlsplit(address)
    if parts.query:
        raise UsageError(
            "Endpoint(url): an address ends with its path, as in http://127.0.0.1:8080/v1; send what stands behind the "
            "? as headers={...}."
        )
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    found, withheld = dict(PLAIN), ""
    if parts.username is not None or parts.password is not None:
        if key:
            raise UsageError("Endpoint(url, key=...): the address names a user already; give one of them.")
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        found["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        given, withheld = (key, "") if key is not None else _from_environment(parts)
        if given and given.strip():
            found["authorization"] = f"Bearer {_sendable(given.strip(), 'key')}"
    for name, value in (headers or {}).items():
        found[name.lower()] = _sendable(value, f"headers={{{name!r}: ...}}")
    return Credentials(bare, found, "" if "authorization" in found else withheld)


def _from_environment(parts: SplitResult) -> tuple[str | None, str]:
    """The key that may go there, or why the one that there is may not."""
    ours, theirs = os.environ.get("ANYSTEP_API_KEY"), os.environ.get("OPENAI_API_KEY")
    hidden = parts.scheme == "https" or loopback(parts.hostname or "")
    if ours and hidden:
        return ours, ""
    if theirs and hidden and _openai(parts):
        return theirs, ""
    if ours or (theirs and _openai(parts)):
        return None, "no key was sent, for this address is neither https nor of this machine; key= sends one"
    if theirs:
        return None, f"no key was sent, for $OPENAI_API_KEY goes to {OPENAI} alone; set $ANYSTEP_API_KEY or give key="
    return None, ""


def _openai(parts: SplitResult) -> bool:
    """Whether $OPENAI_API_KEY belongs there."""
    host, base = parts.hostname or "", urlsplit(os.environ.get("OPENAI_BASE_URL", ""))
    own = (parts.scheme, parts.hostname, parts.port) == (base.scheme, base.hostname, base.port)
    return host == OPENAI or host.endswith(f".{OPENAI}") or own


def loopback(host: str) -> bool:
    """Whether a host is this machine, whatever a name server says."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sendable(value: str, what: str) -> str:
    """A header's value. The complaint does not show it: it may be a secret."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise UsageError(f"Endpoint({what}): it holds characters that no header can (it is not shown here).")
    return value
