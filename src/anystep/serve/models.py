"""The models that this server answers with: named at the start, loaded when first asked for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from anystep.errors import UsageError
from anystep.serve.refusal import Refused

if TYPE_CHECKING:
    from anystep.language.engine.engine import Engine
    from anystep.serve.share import Desk

SEPARATOR = ":"


class Models:
    """Names to engines. What is not an engine yet is what `language.load` takes."""

    def __init__(self, named: Mapping[str, str | Engine]) -> None:
        if not named or not all(named):
            raise UsageError("a server needs a model: call anystep serve --model chainlm-2m.")
        self.named: dict[str, Any] = dict(named)
        self.created = int(time.time())
        self._desks: dict[int, Desk] = {}
        self._loading: dict[str, asyncio.Future[Engine]] = {}

    def split(self, asked: str) -> tuple[str, str | None]:
        """A served model's name, and the method after the separator, if there is one:
        `chainlm-2m:best_of_n(n=16, reward=chain_steps)`."""
        if asked in self.named:
            return asked, None
        for name in sorted(self.named, key=len, reverse=True):  # a name may hold the separator itself
            if asked.startswith(name + SEPARATOR):
                return name, asked[len(name) + 1 :]
        raise Refused(
            f"There is no model {asked[:80]!r} here; there is {', '.join(self.named)}. A method follows a colon: "
            f"{next(iter(self.named))}:self_consistency(n=8).",
            status=404,
            param="model",
            code="model_not_found",
        )

    async def engine(self, name: str) -> Engine:
        """The engine of a served model, loaded once, however many wait for it and whichever of them leave."""
        if isinstance(self.named[name], str):
            if name not in self._loading:
                self._loading[name] = asyncio.ensure_future(_apart(_loaded, self.named[name]))
            task = self._loading[name]
            try:
                self.named[name] = await asyncio.shield(task)
            finally:
                if task.done():
                    self._loading.pop(name, None)  # what failed may be tried again
        return self.named[name]

    def desk(self, engine: Engine) -> Desk:
        """Where the requests of an engine meet, under whichever name they asked for it."""
        from anystep.serve.share import Desk

        return self._desks.setdefault(id(engine), Desk())

    def listed(self) -> dict[str, Any]:
        return {"object": "list", "data": [self.card(name) for name in self.named]}

    def card(self, name: str) -> dict[str, Any]:
        """One model as /v1/models tells it; what only its file says is null until it is loaded."""
        from anystep.naming import methods

        engine = None if isinstance(self.named[name], str) else self.named[name]
        ours = {
            "loaded": engine is not None,
            "context": None if engine is None else engine.config.context,
            "chat_template": None if engine is None else engine.tokenizer.template is not None,
            "methods": ["greedy", *methods()],
        }
        return {"id": name, "object": "model", "created": self.created, "owned_by": "anystep", "anystep": ours}


async def _apart(work: Callable[[str], Engine], what: str) -> Engine:
    """`work(what)` in a thread that nothing waits for at the end: a download does not hold up Ctrl-C."""
    future: Future[Engine] = Future()

    future.set_running_or_notify_cancel()  # from here on it ends with a result or an error, awaited or not

    def run() -> None:
        try:
            future.set_result(work(what))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=f"load {what}").start()
    return await asyncio.wrap_future(future)


def _loaded(what: str) -> Engine:
    from anystep.language.threads import settle
    from anystep.solve import engine_for

    engine: Engine = engine_for(what, settle)
    return engine
