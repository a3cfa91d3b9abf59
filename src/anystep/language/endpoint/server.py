"""An OpenAI-compatible server: where it is, how it is talked to, and what it has been found to do."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from anystep.errors import ModelError, UsageError
from anystep.language.endpoint.attempt import Attempt, Inbox
from anystep.language.endpoint.capabilities import Capabilities, Prober
from anystep.language.endpoint.credentials import credentials
from anystep.language.endpoint.deltas import told
from anystep.language.endpoint.kinds import Kind, kind_of
from anystep.language.endpoint.loop import Loop, loop
from anystep.language.endpoint.meter import Meter
from anystep.language.endpoint.usage import NO_PRICES, Prices

Api = Literal["auto", "chat", "completions"]
EXAMPLE = 'Endpoint("http://127.0.0.1:8080/v1")'


class Endpoint:
    """A server that speaks OpenAI's API: `Endpoint("http://127.0.0.1:8080/v1#model-name")`.

    url: up to and with /v1; what follows a # is the model's name, and what follows that ?prices= are its prices, as in
    "http://127.0.0.1:8080/v1#small?prices=0.15,0.60". model: its name; where there is none, the only one that the
    server lists. key: else $ANYSTEP_API_KEY, over https or to this machine alone, else $OPENAI_API_KEY, to OpenAI alone
    (see `credentials`); "" sends none. api: which route is used; "auto" is chat where the server has it. concurrency:
    requests in flight at once, over all runs. timeout: the longest silence, in seconds. retries: further attempts at
    one request. patience: the longest wait between two, in seconds; a server that asks for a longer one is not asked
    again. prices: for budgets in money. headers: sent with every request.

    Nothing is sent until it is needed. Connections are kept and used again; `close()` closes them, as does the end of
    the program. Safe in several threads. transport, sleep and now take the network's and the clock's place in tests.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        key: str | None = None,
        *,
        api: Api = "auto",
        concurrency: int = 16,
        timeout: float = 60.0,
        retries: int = 4,
        patience: float = 120.0,
        prices: Prices | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        address, _, more = url.partition("#") if isinstance(url, str) else ("", "", "")
        fragment, _, priced = more.partition("?prices=")
        _check(url, address, api, concurrency, timeout, retries, patience)
        self._given, self.api = credentials(address, key, headers), api
        self.url = self._given.url
        if model and fragment and model != fragment:
            raise UsageError(f"Endpoint('{self.url}#{fragment}', model={model!r}) names two models; give one of them.")
        self.concurrency, self.timeout, self.retries, self.patience = concurrency, timeout, retries, patience
        self.prices = prices or (Prices.read(priced) if priced else NO_PRICES)
        self.sleep, self.now = sleep, now
        self.meter = Meter()
        self.generation: dict[str, Any] = {}
        self.refused: set[str] = set()  # parameters of our own that the server will not have
        self.probes = Prober(self)
        self.says = False  # it tells which stop text ended a choice
        self.lock, self._place = threading.RLock(), threading.Lock()
        self._model, self._kind, self._listed = model or fragment or None, None, None
        self._transport, self._client, self._slots = transport, None, None
        self._loop: Loop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    _kind: Kind | None
    _listed: tuple[dict[str, Any], ...] | None
    _client: httpx.AsyncClient | None
    _slots: asyncio.Semaphore | None

    def __repr__(self) -> str:
        return f"Endpoint({self.url + (f'#{self._model}' if self._model else '')!r})"

    @property
    def name(self) -> str:
        """The model's name, for costs and errors."""
        return self.model

    @property
    def unpriced(self) -> bool:
        return self.prices == NO_PRICES

    @property
    def model(self) -> str:
        """The model's name. Raises UsageError where none was given and the server has several, ModelError where the
        server cannot say."""
        with self.lock:
            if self._model is None:
                names = [str(card.get("id")) for card in self.models()]
                if len(names) != 1:
                    shown = ", ".join(names[:20]) or "none"
                    which = names[0] if names else "model-name"
                    raise UsageError(f"{self.url} lists {len(names)} models ({shown}); name one: '{self.url}#{which}'.")
                self._model = names[0]
            return self._model

    def models(self) -> tuple[dict[str, Any], ...]:
        """The models that the server lists, as it tells of them. Raises ModelError where it does not."""
        with self.lock:
            if self._listed is None:
                status, found = self.ask("GET", "/models")
                cards = found.get("data") if isinstance(found, dict) else None
                if status != 200 or not isinstance(cards, list):
                    refused = f"status {status}: {told(found)}{self.unsent(status)}"
                    why = refused if status != 200 else "it is no list of models"
                    raise ModelError(f"{self.url}/models cannot be read ({why}); name the model: '{self.url}#name'.")
                self._listed = tuple(card for card in cards if isinstance(card, dict) and card.get("id"))
            return self._listed

    @property
    def kind(self) -> Kind:
        """Which software serves it, as far as it can be told."""
        with self.lock:
            if self._kind is None:
                try:
                    cards = self.models()
                except ModelError:
                    return kind_of(self.url, ())  # asked again when it is needed again
                self._kind = kind_of(self.url, cards)
            return self._kind

    @property
    def context(self) -> int | None:
        """Tokens that prompt and reply may have together, where the server says so of its model."""
        if self.kind.name == "unknown" or self._listed is None:
            return None
        cards = [card for card in self._listed if card.get("id") == self._model] or [{}]
        inside = cards[0].get("anystep")
        size = cards[0].get("max_model_len") or (inside.get("context") if isinstance(inside, dict) else None)
        return size if isinstance(size, int) and not isinstance(size, bool) and size > 1 else None

    def probe(self) -> Capabilities:
        """Everything the server can do, found out by some twenty requests of a token or so, once."""
        return self.probes.all()

    def ask(self, method: str, path: str, body: Any = None, root: bool = False) -> tuple[int, Any]:
        """One plain request, not retried: its status, and what came back as JSON (else as text). root: the path is
        below the server's address instead of below /v1. Raises ModelError where there is no answer."""

        async def asked() -> tuple[int, Any]:
            where = (self.url.removesuffix("/v1") if root else self.url) + path
            content = None if body is None else json.dumps(body).encode()
            response = await self.client().request(method, where, content=content)
            try:
                return response.status_code, response.json()
            except ValueError:
                return response.status_code, " ".join(response.text.split())[:200]

        try:
            return self.loop.call(asked())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{self.url} does not answer ({why}).") from None

    def unsent(self, status: int) -> str:
        """Behind a refusal for want of a key: why none was sent, where there is one."""
        return f"; {self._given.withheld}" if status in (401, 403) and self._given.withheld else ""

    async def pause(self, seconds: float) -> None:
        await self.sleep(seconds)

    def attempt(self, inbox: Inbox, delay: float = 0.0, beside: bool = False) -> Attempt:
        """Begin one request, after `delay` seconds; its events come into `inbox`, and the first asks what to send.

        beside: it takes no place among those in flight, for whoever holds those may be waiting for its outcome.
        """
        made = Attempt(self, inbox, delay, beside)
        self.loop.spawn(made.run(), self._tasks)
        return made

    @property
    def loop(self) -> Loop:
        """The loop that this endpoint lives in; after a fork, and after the end of a loop, a new one."""
        with self._place:
            current = loop()
            if self._loop is not current:
                self._loop, self._client, self._slots = current, None, None
            return current

    def client(self) -> httpx.AsyncClient:
        """The one client, in the loop's thread."""
        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
            timeout = httpx.Timeout(self.timeout)
            self._client = httpx.AsyncClient(
                headers=dict(self._given.headers),
                timeout=timeout,
                limits=limits,
                transport=self._transport,
                trust_env=not self._given.stays,  # else a proxy is told what was for this machine alone
            )
            weakref.finalize(self, _closed, self._loop, self._client).atexit = False
        return self._client

    def slots(self) -> asyncio.Semaphore:
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.concurrency)
        return self._slots

    def close(self) -> None:
        """End what is in flight, and close the connections. The endpoint can be used again afterwards."""

        async def closing() -> None:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            client, self._client = self._client, None
            if client is not None:
                await client.aclose()

        if self._loop is not None and not self._loop.closed:
            self._loop.call(closing())

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _closed(loop: Loop | None, client: httpx.AsyncClient) -> None:
    """Close the client of an endpoint that nobody holds any more."""
    if loop is not None and not loop.closed:
        loop.spawn(client.aclose(), set())


def _check(url: Any, address: str, api: str, concurrency: Any, timeout: Any, retries: Any, patience: Any) -> None:
    """UsageError for an option that cannot be meant."""
    if not isinstance(url, str) or not _is_address(address):
        raise UsageError(f"Endpoint({url!r}): give the address of a server, as {EXAMPLE}.")
    if api not in ("auto", "chat", "completions"):
        raise UsageError(f"Endpoint(api={api!r}): 'auto', 'chat' or 'completions'.")
    for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"Endpoint({name}={value!r}): a whole number, {least} or more.")
    for name, value in (("timeout", timeout), ("patience", patience)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise UsageError(f"Endpoint({name}={value!r}): seconds, more than 0, such as 60.")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is none, half of an IPv6 address
        return False
