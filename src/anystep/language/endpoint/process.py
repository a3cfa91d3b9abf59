"""A served language model as a process: whole completions, or reasoning steps, by requests to an endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys, named
from anystep.language.endpoint.capabilities import Found
from anystep.language.endpoint.going import Going
from anystep.language.endpoint.options import check, read
from anystep.language.endpoint.row import Row
from anystep.language.endpoint.server import Endpoint
from anystep.language.endpoint.states import Transcript, Transcripts
from anystep.language.endpoint.thinking import Thinking
from anystep.language.endpoint.trouble import Trouble
from anystep.ledger import FREE, JointLimit, Limit
from anystep.process import Process, Status, Stepped, Until

Likely = tuple[tuple[str, float], ...]
THINKING = Thinking()  # how thinking is told from text where nothing else is said
HARMLESS = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})


class EndpointProcess(Process):
    """Continues a prompt with a served model, one request a row.

    Preserves: samples follow the model's distribution at `temperature` and `top_p`, as far as the server samples from
    it; what it would do by default beside that (a top_k, a penalty) is turned off on servers of a known kind. Seeds
    follow the keys where the server takes them; what it draws from them is its own affair, so answers repeat as far as
    the server's do.

    prompt: text, or chat messages, with parts of any kind (images) as they are. unit: a step is the whole "completion",
    or a "step" of reasoning, up to and with `stop`, which needs a server that can continue a prefix. end: texts that
    end a completion; they belong to it. max_tokens: the longest completion; at_cap says whether one that long is "done"
    or "failed". extract: reads an answer out of the text; by default the stripped text, None where it is empty.
    logprobs: sum the tokens' log-probabilities; `logp` is "mass" with them at temperature 1 and top_p 1, where the
    server is known to give the end token's too (anystep, vLLM). n: choices a
    request: rows of one fresh prompt share a request and pay its prompt once, are cancelled together, and draw as the
    server will. chat: whether the chat route is used, where the endpoint leaves that open. extra: further fields of the
    request, as they are: response_format, reasoning_effort, guided_json. thinking: how long the model may think before
    it has to answer; texts and answers are what follows the thinking, however it ended.

    Costs: a call a request, prompt tokens as sent, generated ones with their reasoning. What the server found in its
    cache is `cached`: shown, free in tokens, and priced by `Prices.cached`. Figures are the server's own wherever it
    reports them; else they are counted by pieces, and marked `estimated`, as those of a request that was cut. A budget
    is overshot by no more than what is on the wire when it runs out. Where a server does not stream, a limit can act
    only between requests.

    A row that was cut keeps its text, and goes on from there where the server can; else it is asked for anew.
    """

    concurrent = True

    def __init__(
        self,
        server: Endpoint | str,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        unit: Literal["completion", "step"] = "completion",
        stop: str = "\n\n",
        end: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        at_cap: Literal["done", "failed"] = "done",
        extract: Callable[[str], Hashable | None] | None = None,
        logprobs: bool = False,
        n: int = 1,
        extra: Mapping[str, Any] | None = None,
        thinking: Thinking | None = None,
        chat: bool | None = None,
        name: str | None = None,
    ) -> None:
        self.server = Endpoint(server) if isinstance(server, str) else server
        self.end = (end,) if isinstance(end, str) else tuple(end)
        self.extra = dict(extra or {})
        check(unit, stop, self.end, temperature, top_p, max_tokens, at_cap, n, self.extra)
        self.unit, self.stop, self.temperature, self.top_p = unit, stop, float(temperature), float(top_p)
        self.max_tokens, self.at_cap, self.extract, self.n = max_tokens, at_cap, extract, n
        self.logprobs, self.prompt = logprobs, read(prompt)
        self.name, self.horizon = name or self.server.name, max_tokens
        self.branches = temperature > 0
        plain = temperature == 1 and top_p == 1 and set(self.extra) <= HARMLESS
        if logprobs and self.server.probes["logprobs"].there is False:
            said = self.server.probes["logprobs"].note
            raise Unsupported(f"logprobs=True, but {self.server.url} gives none ({said}); leave logprobs out.")
        plain = plain and thinking is None and self.server.kind.scores_end
        self.logp = "mass" if logprobs and plain else "unknown"
        self.chat = self._chats(chat)
        if not self.chat and not isinstance(self.prompt, str):
            raise UsageError("api='completions' continues plain text: give the prompt as a string, not as messages.")
        self._think(thinking)

    def _think(self, thinking: Thinking | None) -> None:
        self.thinking = thinking
        if thinking is None:
            return
        if thinking.budget >= self.max_tokens:
            raise UsageError(
                f"Thinking(budget={thinking.budget}) leaves nothing of max_tokens={self.max_tokens} for the answer; "
                "max_tokens counts both."
            )
        if not self.continues:
            raise Unsupported(f"thinking=Thinking(...) ends thinking and goes on with the answer, but {self.unable}.")

    def _chats(self, wanted: bool | None) -> bool:
        """Which route: the endpoint's own, else the one asked for, else chat where the server has it."""
        if self.server.api != "auto":
            return self.server.api == "chat"
        if wanted is not None or not isinstance(self.prompt, str):
            return wanted is not False
        return self.server.kind.chats or self.server.probes["chat"].there is not False

    def rerouted(self, trouble: Trouble) -> bool:
        """Whether a server that was thought to have a chat route has none, so that the other one is to be used."""
        missing = trouble.status in (404, 405) and "model" not in f"{trouble.parameter} {trouble.said}".lower()
        if not (missing and self.chat and self.server.api == "auto" and isinstance(self.prompt, str)):
            return False
        self.server.probes.learn("chat", Found(False, str(trouble)))
        self.chat = False
        return True

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        """Nothing is sent yet: the prompt is paid at the first step, once a request."""
        self._bill(limit)
        n = len(keys)
        states = Transcripts((Transcript(self.prompt),) * n)
        return Stepped(states, np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def opening(self, prompt: str | Sequence[Mapping[str, Any]]) -> Transcripts:
        """One state that begins with another prompt, for an editor that restarts a row."""
        return Transcripts((Transcript(read(prompt)),))

    def step(self, states: Transcripts, keys: Keys, limit: Limit, until: Until) -> Stepped:
        """Raises Unsupported for reasoning steps on a server that cannot continue a prefix, before anything is sent."""
        if self.unit == "step" and until == "step" and not self.continues:
            raise Unsupported(
                f"{self.name} cannot be stepped through its reasoning: {self.unable}; use unit='completion', or a "
                "method of whole completions such as best_of_n(n=16)."
            )
        try:
            return Going(self, states, keys, limit, until).run()
        finally:
            self._bill(limit)

    def likely(self, states: Transcripts, keys: Keys, limit: Limit) -> tuple[Stepped, tuple[Likely, ...]]:
        """Steps to the end, and for each state the likeliest tokens in place of its reply's first one, with their
        log-probabilities; none where the server told none. The process asks for n by `extra={"top_logprobs": n}` and
        `logprobs=True`."""
        try:
            going = Going(self, states, keys, limit, "done")
            stepped = going.run()
            return stepped, tuple(row.likely for row in going.rows)
        finally:
            self._bill(limit)

    def _bill(self, limit: Limit) -> None:
        """Books what probes have cost under a name of their own; they belong to no row, and are paid by whoever comes
        first."""
        owed = self.server.probes.owed()
        if owed != FREE:
            first = limit.limits[0] if isinstance(limit, JointLimit) else limit
            first.ledger.charge(owed, f"{self.name}.probe")

    def cap(self, row: Row) -> int:
        """The most tokens that a row's next request may generate."""
        left = self.max_tokens - row.generated
        if self.thinking is not None and self.thinking.goes_on(row):
            return min(left, max(1, self.thinking.left(row)))
        return left

    def hold(self, row: Row) -> str | None:
        """A text at which the server is to be held up, because the reply goes on otherwise."""
        return None if self.thinking is None else self.thinking.hold(row)

    def prefix(self, row: Row) -> str:
        """The reply's beginning that a row goes on from."""
        return (self.thinking or THINKING).prefix(row)

    def ended(self, row: Row) -> bool:
        """Judges a row whose request has ended; False where another has to follow."""
        stepped = row.stopped is not None and row.stopped == row.stop
        if row.finish == "content_filter":
            row.status, row.error = Status.FAILED, "the server's content filter ended the completion"
        elif row.asked and not row.text:
            row.status, row.error = Status.FAILED, "the reply is a tool call, and this process reads text"
        elif self.logprobs and row.unscored:
            row.status, row.error = Status.FAILED, "logprobs=True, but the server gave none for some of the tokens"
        elif row.stopped in self.end:
            row.status = Status.DONE
        elif self.thinking is not None and not stepped and self.thinking.turned(row) and self.cap(row) > 0:
            return False
        elif (
            row.finish == "length" and row.clamped and row.begun and row.generated < self.max_tokens and self.continues
        ):
            return False  # now that the prompt's tokens are known, there may be room for more
        elif (row.finish == "length" and not stepped) or (stepped and row.generated >= self.max_tokens):
            row.status = Status.DONE if self.at_cap == "done" else Status.FAILED
            if self.at_cap == "failed":
                cap = f"max_tokens={self.max_tokens}" if row.generated >= self.max_tokens else "the server's own limit"
                row.error = f"reached {cap} without an end"
        elif not stepped:
            row.status = Status.DONE
        return True

    @property
    def continues(self) -> bool:
        """Whether the server can go on with the beginning of a reply."""
        found = True if not self.chat else self.server.probes["continuation"].there
        return self.server.kind.continues if found is None else found

    @property
    def undecided(self) -> bool:
        """Whether it takes probes to know that. A kind that is known to do it is believed where a reply was cut, for
        there may be nothing left to pay probes with."""
        return self.chat and not self.server.kind.continues and not self.server.probes.known("continuation")

    @property
    def goes_on(self) -> bool:
        """As `continues`, without probes where the server's kind settles it."""
        if not self.chat or self.server.probes.known("continuation") or not self.server.kind.continues:
            return self.continues
        return True

    @property
    def unable(self) -> str:
        """Why a reply cannot be gone on with."""
        return f"{self.server.url} cannot continue a prefix ({self.server.probes['continuation'].note})"

    def texts(self, states: Transcripts) -> tuple[str, ...]:
        """What each says after its thinking; `states.texts()` has it whole."""
        return tuple((self.thinking or THINKING).said(text) for text in states.texts())

    def answers(self, states: Transcripts) -> tuple[Hashable, ...]:
        read = self.extract or (lambda text: text.strip() or None)
        return tuple(read(text) if text else None for text in self.texts(states))

    def merges(self) -> Hashable:
        """Prompts of different problems share a step, as long as they are continued by the same rules."""
        rules = (self.unit, self.stop, self.end, self.temperature, self.top_p, self.max_tokens, self.at_cap)
        more = (self.chat, self.logprobs, self.n, self.thinking, json.dumps(self.extra, sort_keys=True))
        return ("endpoint", id(self.server), *rules, *more)

    def settings(self) -> str:
        reads = getattr(self.extract, "__qualname__", None)
        rules = (self.unit, self.stop, self.end, self.temperature, self.top_p, self.max_tokens, self.at_cap, reads)
        asked = named(json.dumps([self.prompt, self.extra], sort_keys=True))  # as a hash: it may hold secrets
        return f"asked {asked:016x}, {rules}, {(self.chat, self.logprobs, self.n, self.thinking)}"

    def dump(self, states: Transcripts) -> bytes:
        return states.dump()

    def load(self, data: bytes) -> Transcripts:
        return Transcripts.read(data)
