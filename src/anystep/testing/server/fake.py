"""A faulty OpenAI-compatible server of our own: what it says is known exactly, what it does wrong is planned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from anystep import keys as lineage
from anystep.testing.server import shapes
from anystep.testing.server.counts import Counts, Flight
from anystep.testing.server.exchange import JSON, Exchange, reason
from anystep.testing.server.faults import Plan, planned
from anystep.testing.server.http import Head, Peer, head_of
from anystep.testing.server.listener import Listener
from anystep.testing.server.offers import Offers
from anystep.testing.server.script import Request, Script, Toy, words

CORE = {"messages", "prompt", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n"}
SHAPE = {"temperature", "top_p", "seed", "logprobs", "top_logprobs", "frequency_penalty", "presence_penalty"}
REST = {"user", "tools", "tool_choice", "response_format", "metadata", "store"}
KNOWN = frozenset(
    CORE | SHAPE | REST
)  # what OpenAI's routes take; a script may read what this server does nothing with
OURS = frozenset({"top_k", "min_p", "include_stop_str_in_output"})  # what it honours besides, as vLLM does
CONTINUES = frozenset({"continue_final_message", "add_generation_prompt"})


class Refused(Exception):
    """The request is answered with an error of OpenAI's shape."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.body = status, shapes.error(message, "invalid_request_error", param, code)


class FakeServer(Listener):
    """`with FakeServer() as server: client(base_url=server.url)`

    script: what it says (see `Toy`, `says`). offers: what it can do. faults: what goes wrong, and when. models: names
    that it answers to; others are a 404. context: tokens that prompt and answer may have together. api_key: asked for
    where given. caches: prompts share their common beginnings, and usage says so. `requests` holds every completion's
    `Request`, in the order of arrival, and `seen` every request's method, path and headers.
    """

    def __init__(
        self,
        script: Script | None = None,
        offers: Offers | None = None,
        faults: Plan = None,
        models: Sequence[str] = ("toy",),
        context: int | None = None,
        api_key: str | None = None,
        caches: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        self.script, self.offers, self.faults = script or Toy(), offers or Offers(), faults
        self.models, self.context, self.api_key, self.caches = tuple(models), context, api_key, caches
        self.requests: list[Request] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._prompts: list[tuple[str, ...]] = []

    @property
    def counts(self) -> Counts:
        return self.counting.snapshot()

    async def serve(self, peer: Peer, head: Head, body: bytes) -> bool:
        method, path, *_ = [*head.first.split(" "), "", ""]
        route = path.partition("?")[0].removeprefix("/v1")
        self.seen.append((method, path, head.headers))
        flight = self.counting.began(route)
        try:
            self._admit(method, route, head)
            if route in ("/chat/completions", "/completions"):
                exchange = self._exchange(peer, flight, route, head, parsed(body))
                stays = await self.while_there(peer, exchange.run())
                flight.end("cancelled")  # where the client left before the exchange had ended
                return bool(stays)
            found = self._list() if route == "/models" else self._tokens(parsed(body))
            status, data = 200, json.dumps(found).encode()
        except Refused as refused:
            status, data = refused.status, json.dumps(refused.body).encode()
        except BaseException:  # this server is closed under it, or its script is wrong
            flight.end("broken")
            raise
        flight.end("completed")
        await peer.write(head_of(status, reason(status), {**JSON, "content-length": str(len(data))}) + data)
        return True

    def _admit(self, method: str, route: str, head: Head) -> None:
        name = route.strip("/").replace("chat/completions", "chat")
        if not getattr(self.offers, name, False) or name not in ("chat", "completions", "models", "tokenize"):
            raise Refused(404, f"Not found: {route}", code="not_found")
        if method != ("GET" if name == "models" else "POST"):
            raise Refused(405, f"{method} is not allowed on {route}")
        if self.api_key is not None and head.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")

    def _list(self) -> dict[str, Any]:
        of = {"object": "model", "created": 1_700_000_000, "owned_by": self.offers.owner}
        more = {} if self.context is None else {"max_model_len": self.context}
        return {"object": "list", "data": [{"id": name, **of, **more} for name in self.models]}

    def _tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        found = tokens_of(body.get("messages") or body.get("prompt") or body.get("content") or "")
        numbers = [lineage.named(word) & 0xFFFF for word in found]
        return {"count": len(found), "tokens": numbers, "max_model_len": self.context}

    def _exchange(self, peer: Peer, flight: Flight, route: str, head: Head, body: dict[str, Any]) -> Exchange:
        """Raises Refused where the request cannot be meant."""
        request = self._request(route, head, body)
        self.requests.append(request)
        fault = planned(self.faults, request)
        if request.get("model", self.models[0]) not in self.models:
            raise Refused(404, f"The model `{body['model']}` does not exist", "model", "model_not_found")
        prompt = tokens_of(request.messages) + words(request.prompt) + words(request.prefix)
        choices = [shapes.choice_of(self.script(request, i), request) for i in range(request.n)]
        cap = request.get("max_completion_tokens", request.get("max_tokens", 0))
        if self.context is not None and len(prompt) + cap > self.context:
            raise Refused(
                400,
                f"This model's maximum context length is {self.context} tokens, you asked for {len(prompt) + cap}.",
                "messages" if request.chat else "prompt",
                "context_length_exceeded",
            )
        cached = max((shared(prompt, other) for other in self._prompts), default=0) if self.caches else 0
        self._prompts += [prompt] if self.caches else []
        told = request.get("stream_options", {}) if self.offers.usage == "yes" else {}
        usage = bool(told.get("include_usage"))
        continuous = usage and bool(told.get("continuous_usage_stats")) and self.offers.continuous == "yes"
        return Exchange(
            peer,
            self.counting,
            flight,
            request,
            str(request.get("model", self.models[0])),
            choices,
            prompt=len(prompt),
            cached=cached,
            usage=usage,
            continuous=continuous,
            offers=self.offers,
            fault=fault,
        )

    def _request(self, route: str, head: Head, body: dict[str, Any]) -> Request:
        body = self._offered(body)
        number, n = len(self.requests), body.get("n", 1) or 1
        check(isinstance(n, int) and 1 <= n <= 128, "n", "is a whole number from 1 to 128")
        for name in ("max_tokens", "max_completion_tokens"):
            cap = body.get(name)
            check(cap is None or (isinstance(cap, int) and cap >= 1), name, "is at least 1")
        temperature = body.get("temperature")
        check(temperature is None or 0 <= temperature <= 2, "temperature", "is from 0 to 2")
        seed = body.get("seed") if self.offers.seed == "yes" else None
        seed = number if seed is None else int(seed)
        if route == "/completions":
            prompt = body.get("prompt")
            check(isinstance(prompt, str), "prompt", "is a text")
            return Request(number, route, head.headers, body, prompt=str(prompt), seed=seed, n=n)
        messages = body.get("messages")
        check(isinstance(messages, list) and len(messages or ()) > 0, "messages", "is a list of messages")
        kept, prefix = self._continued(tuple(messages or ()), body)
        return Request(number, route, head.headers, body, messages=kept, prefix=prefix, seed=seed, n=n)

    def _continued(
        self, messages: tuple[dict[str, Any], ...], body: dict[str, Any]
    ) -> tuple[tuple[dict[str, Any], ...], str]:
        asked = bool(body.get("continue_final_message")) and self.offers.continuation == "yes"
        check(
            not (asked and body.get("add_generation_prompt", True)),
            "continue_final_message",
            "needs add_generation_prompt=false",
        )
        if not asked and self.offers.continuation != "always":
            return messages, ""
        last = messages[-1]
        if last.get("role") != "assistant" or not isinstance(last.get("content"), str):
            check(not asked, "continue_final_message", "needs a last message of the assistant")
            return messages, ""
        return messages[:-1], last["content"]

    def _offered(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without what is ignored; raises Refused for what is refused."""
        offers, body = self.offers, dict(body)
        known = KNOWN | OURS | CONTINUES | frozenset(offers.accepts)
        support: dict[str, str] = {name: offers.others for name in body if name not in known}
        support |= dict.fromkeys(OURS, "yes" if offers.others == "ignored" else "refused")
        support |= dict.fromkeys(("logprobs", "top_logprobs"), offers.logprobs) | dict.fromkeys(
            CONTINUES, offers.continuation
        )
        support |= {"n": offers.n, "seed": offers.seed, "stream_options": offers.usage}
        for name, how in support.items():
            if body.get(name) is None or (name == "n" and body[name] == 1):
                continue
            if how == "refused":
                raise Refused(400, f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
            if how == "ignored":
                del body[name]
        if offers.continuous == "refused" and "continuous_usage_stats" in (body.get("stream_options") or {}):
            param = "stream_options.continuous_usage_stats"
            raise Refused(400, f"Unknown parameter: '{param}'.", param, "unknown_parameter")
        return body


def parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "We could not parse the JSON body of your request.")
    return found


def check(holds: bool, param: str, words: str) -> None:
    if not holds:
        raise Refused(400, f"'{param}' {words}.", param, "invalid_value")


def tokens_of(prompt: Any) -> tuple[str, ...]:
    """A prompt's tokens: a chat's messages cost three each besides their words, a part that is no text sixteen."""
    if isinstance(prompt, str):
        return words(prompt)
    found: tuple[str, ...] = ()
    for message in prompt:
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found += ("<message>", str(message.get("role")), ":")
        for part in parts:
            found += words(part["text"]) if part.get("type") == "text" else (f"<{part.get('type')}>",) * 16
    return found


def shared(prompt: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Tokens that two prompts begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), min(len(prompt), len(other))
    )
