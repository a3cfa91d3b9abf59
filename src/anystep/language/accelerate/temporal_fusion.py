"""Temporal fusion: requests that arrive at any time share each pass of the model from their next token on.

A pass serves every active request, whatever step each is at. One that arrives reads its prompt in pieces of at most
`chunk` positions, which ride in the passes of the others and so never hold them up for long, and joins at the token
after. One that ends is evicted at once, and the rows that stay are brought into one contiguous window of slots by the
fewest moves (`engine.slots.window`). Source: Yao et al., "Flover: A Temporal Fusion Framework for Efficient
Autoregressive Model Parallel Inference" (2023); there prompts are read on a stream of their own beside the passes.

Preserves: every output is the one its request gives alone with the same seed, token for token, up to near ties in
floating point. What a request is charged is what it costs alone but for passes (`calls`), which it counts whenever a
pass does some of its work, and for what was found in the cache.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

import numpy as np

from anystep import keys
from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.slots import Arrange, Slots, window
from anystep.language.joined import Joined
from anystep.language.member import Member
from anystep.language.process import LanguageProcess, Prompt
from anystep.ledger import Budget, Cost, Ledger, Limit
from anystep.process import Status, Stepped

CHUNK = 64  # positions of prompts in a pass: few enough that the other rows hardly wait


class Ticket:
    """One request: what has come of it, and what it has cost. `ended` is None while it goes on."""

    def __init__(self, process: LanguageProcess, seed: int, budget: Budget | None) -> None:
        self.process, self.ledger = process, Ledger(budget or Budget(), reserve=0.0)
        limit, key = Limit(self.ledger, process.name or "request"), keys.roots(seed, (), np.arange(1))
        self._member = Member(process, process.start(key, limit).states, key, limit, "done")
        self._reply: Stepped | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The output so far."""
        return self._member.tokens[0][len(self.process.prompt) :]

    @property
    def text(self) -> str:
        (text,) = self.process.texts(self._states())
        return text

    @property
    def cost(self) -> Cost:
        return self._member.limit.used

    @property
    def ended(self) -> str | None:
        """Why it ended: "done", "failed", "cancelled", or the figure of its budget that ran out."""
        if self._reply is None:
            return None
        status = self._reply.status[0]
        return self.ledger.refused or "cut" if status == Status.LIVE else "done" if status == Status.DONE else "failed"

    def cancel(self) -> None:
        """Ends it before its next token, from any thread; what it had waits in the cache."""
        self.ledger.cancel()

    def _states(self) -> Any:
        states = self._member.states
        return type(states)(tuple(self._member.tokens), states.starts, states.tokenizer)

    def _end(self) -> None:
        self.ledger.end()
        self._member.refuse([0] if not self._member.done else [])
        self._reply = self._member.reply()


class TemporalFusionScheduler:
    """Serves requests on `engine`, one fused pass a `step()`; `submit` may be called at any time, from any thread.

    max_rows: requests in a pass; max_bytes: of keys that active requests hold, by default the engine's `live_bytes`.
    Beyond either, requests wait in order of arrival; where active ones outgrow the bytes, the last that came waits
    again, and what the cache has lost of it is computed and charged once more. chunk: positions of prompts in a pass.
    arrange: how slots are kept in order, `(active slots, all slots) -> (first, width, moves)`.

        with TemporalFusionScheduler(engine) as scheduler:
            tickets = [scheduler.submit(prompt, max_tokens=40, seed=i) for i, prompt in enumerate(prompts)]
            scheduler.run()

    Raises UsageError for bounds below 1, and for a prompt or settings that `LanguageProcess` refuses.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        chunk: int = CHUNK,
        arrange: Arrange = window,
    ) -> None:
        self.engine = engine
        self._joined = Joined(engine, chunk, max_rows, max_bytes, arrange)
        self._come: deque[Ticket] = deque()
        self._tickets: dict[Member, Ticket] = {}

    def submit(self, prompt: Prompt, *, seed: int = 0, budget: Budget | None = None, **settings: Any) -> Ticket:
        """A request, which takes part from the next step on. settings: those of `LanguageProcess`, such as
        `temperature`, `top_p`, `max_tokens` and `end`. seed: the draws' own, as that of a run of one sample.
        """
        if "unit" in settings:
            raise UsageError("submit(prompt, max_tokens=40): a request is a whole completion, and takes no unit.")
        ticket = Ticket(LanguageProcess(self.engine, prompt, unit="completion", **settings), seed, budget)
        self._come.append(ticket)
        return ticket

    @property
    def active(self) -> int:
        """Requests that the next pass serves, on their way in included."""
        return self._joined.rows

    @property
    def idle(self) -> bool:
        """Whether nobody waits or goes on."""
        return not self._come and not self._tickets

    @property
    def moved(self) -> int:
        """Rows moved from slot to slot so far."""
        slots = self._joined.session.slots
        return slots.moved if isinstance(slots, Slots) else 0

    def step(self) -> list[Ticket]:
        """One pass for all; the requests that it ended, in order of arrival."""
        with self.engine.lock:
            while self._come:
                ticket = self._come.popleft()
                self._tickets[ticket._member] = ticket
                self._joined.add(ticket._member)
            ended = [self._tickets.pop(member) for member in self._joined.round()]
            for ticket in ended:
                ticket._end()
        return ended

    def run(self) -> None:
        """Steps until nobody waits or goes on."""
        while not self.idle:
            self.step()

    def close(self) -> None:
        """Cancels who is there, and gives back every row and pin."""
        with self.engine.lock:
            for ticket in [*self._tickets.values(), *self._come]:
                ticket.cancel()
                ticket._end()
            self._joined.close()
        self._come.clear()
        self._tickets.clear()

    def __enter__(self) -> TemporalFusionScheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
