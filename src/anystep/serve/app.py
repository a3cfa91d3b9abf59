"""The routes: OpenAI's chat and completions, models, tokenize and health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from anystep.serve import record, shapes
from anystep.serve.faults import explained
from anystep.serve.guard import Guard
from anystep.serve.house import ClientLeft, House, unless_left
from anystep.serve.job import Job, job
from anystep.serve.models import Models
from anystep.serve.prompt import continues, written
from anystep.serve.refusal import Refused
from anystep.serve.replies import Reply
from anystep.serve.shapes import Chat, Completion, Tokenize
from anystep.serve.stream import Stream, Streamed

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine

LARGEST = 4 << 20  # bytes of a request's body
LEFT = 499  # what the log calls a response that nobody waited for

Handler = Callable[[Request], Awaitable[Response]]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


class App:
    """What the routes share: the models, the runs under way, and where lines of the log go."""

    def __init__(self, models: Models, say: Callable[[str], None]) -> None:
        self.models, self.house, self.say = models, House(), say

    async def chat(self, request: Request) -> Response:
        return await self._answered(request, Chat)

    async def completions(self, request: Request) -> Response:
        return await self._answered(request, Completion)

    async def _answered(self, request: Request, shape: type[Chat] | type[Completion]) -> Response:
        began = time.perf_counter()
        asked = shapes.read(shape, await body(request))
        made = await job(asked, self.models)
        if asked.stream:

            def ended(left: bool) -> None:
                self.log(request, LEFT if left else 200, began, made)

            return Streamed(Stream(made, self.house, self.say), ended)
        request.state.job = made
        await unless_left(request.receive, self.house.drive(made.run))
        return JSONResponse(Reply(made).whole())

    def log(self, request: Request, status: int, began: float, made: Job | None) -> None:
        """One line a request: what was asked, how it ended, how long it took, and what it cost."""
        work = "" if made is None else f", {made.run.spent.tokens:,} tokens, {made.model} {made.method[:80]}"
        left = " (client left)" if status == LEFT else ""
        self.say(f"{request.method} {request.url.path} {status}{left} {time.perf_counter() - began:.2f} s{work}")

    async def tokenize(self, request: Request) -> Response:
        asked = shapes.read(Tokenize, await body(request))
        given = [text for text in (asked.prompt, asked.content, asked.messages) if text is not None]
        if len(given) != 1:
            raise Refused("give one of prompt, content and messages.", param="prompt", code="invalid_value")
        name, _ = self.models.split(asked.model or next(iter(self.models.named)))
        if asked.model is None and len(self.models.named) > 1:
            raise Refused("several models are served here: name one.", param="model", code="missing_required_parameter")
        engine = await self.models.engine(name)
        text = asked.prompt if asked.content is None else asked.content
        if asked.messages is not None:
            go_on = continues(asked.messages, asked.continue_final_message, asked.add_generation_prompt)
            text = written(engine.tokenizer, asked.messages, go_on)
        tokens = await asyncio.to_thread(_read, engine, text or "")
        return JSONResponse({"count": len(tokens), "tokens": tokens, "max_model_len": engine.config.context})

    async def listed(self, request: Request) -> Response:
        return JSONResponse(self.models.listed())

    async def card(self, request: Request) -> Response:
        name, _ = self.models.split(request.path_params["name"])
        return JSONResponse(self.models.card(name))

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "closing" if self.house.closing else "ok"})

    def guarded(self, handler: Handler) -> Handler:
        """`handler` with every error as OpenAI's object, and a line in the log."""

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            try:
                response = await handler(request)
            except (ClientLeft, ClientDisconnect):
                response = Response(status_code=LEFT)
            except Exception as error:
                refused = explained(error, self.say)
                told = record.billed(refused.body(), getattr(request.state, "job", None))
                response = JSONResponse(told, refused.status, refused.headers())
            if not isinstance(response, Streamed):  # a stream tells when it has ended
                self.log(request, response.status_code, began, getattr(request.state, "job", None))
            return response

        return handle


def _read(engine: Engine, text: str) -> list[int]:
    """The tokens that a prompt becomes."""
    from anystep.language.engine.tokenizer import begun

    return list(begun(engine.tokenizer, text))


async def body(request: Request) -> bytes:
    """The request's body, bounded, and JSON by its own account: a web page cannot send that here unasked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("send the header Content-Type: application/json.", status=415, code="unsupported_media_type")
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > LARGEST:
            raise Refused(f"a body has at most {LARGEST:,} bytes here.", status=413, code="body_too_large")
    return bytes(found)


def make(
    models: Mapping[str, str | Engine],
    key: str | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    say: Callable[[str], None] = lambda line: None,
) -> Starlette:
    """The ASGI application that serves `models`, by name: an engine, or what `language.load` makes one of.

    key: what callers must send as a bearer token. hosts: the names a Host header may hold; None for any. say: is told
    one line a request. The runs under way are in `app.state.house`, whose `close` cancels them all.
    """
    app = App(Models(models), say)
    routes = [
        Route("/v1/chat/completions", app.guarded(app.chat), methods=["POST"]),
        Route("/v1/completions", app.guarded(app.completions), methods=["POST"]),
        Route("/v1/models", app.guarded(app.listed), methods=["GET"]),
        Route("/v1/models/{name:path}", app.guarded(app.card), methods=["GET"]),
        Route("/tokenize", app.guarded(app.tokenize), methods=["POST"]),
        Route("/health", app.health, methods=["GET"]),
    ]
    star = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, key=key, hosts=hosts)],
        exception_handlers={HTTPException: _unknown},
    )
    star.state.house = app.house
    return star


async def _unknown(request: Request, error: Any) -> Response:
    """A path or a verb that is not served."""
    what = "there is nothing" if error.status_code == 404 else "that is not the way to ask"
    told = Refused(f"{what} at {request.method} {request.url.path[:80]}.", status=error.status_code, code="not_found")
    return JSONResponse(told.body(), told.status, headers=error.headers)
