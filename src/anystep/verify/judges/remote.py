"""A served model as a judge: a request a candidate, its labels read from the first token's log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anystep.errors import Unsupported
from anystep.keys import Keys
from anystep.language.endpoint import Endpoint, EndpointProcess
from anystep.language.endpoint.process import Likely
from anystep.language.endpoint.states import Transcript, Transcripts
from anystep.ledger import Limit, Rows
from anystep.process import Floats, Status, Stepped
from anystep.verify.judges.asking import Replies, Weighed, quiet
from anystep.verify.judges.given import Ask, Given, unmarked
from anystep.verify.judges.scale import Scale

TOP = 20  # likeliest tokens that a server is asked for: the most that OpenAI and vLLM give
HIDDEN = 0.05  # of the labels' mass, what a label that the server did not tell of may have at most
SOMETHING: list[dict[str, str]] = [{"role": "user", "content": "?"}]  # a process has a prompt; each row brings its own

Messages = tuple[Mapping[str, Any], ...]


class Remote:
    """An endpoint that is asked; see `Asked`.

    A label whose tokens are not among the TOP likeliest has no share; where none is, or such a label could have more
    than a twentieth of what the others have, there is no verdict. Marks of turns in what is given are broken by a
    zero-width space, since servers may read them as tokens.
    """

    remote = True

    def __init__(self, server: Endpoint, name: str, chat: bool | None = None) -> None:
        self.own, self.name, self.chat = server, name, chat

    def weigh(self, asks: Sequence[Ask], begun: str, scale: Scale, limit: Limit, rows: Rows) -> Weighed:
        return self.read([self.prompt(ask, begun) for ask in asks], scale, limit, rows)

    def read(self, prompts: Sequence[str | Messages], scale: Scale, limit: Limit, rows: Rows) -> Weighed:
        """The labels' shares of the first token behind each prompt: a request and a generated token each."""
        process = self._process(max_tokens=1, logprobs=True, extra={"top_logprobs": TOP})
        states = Transcripts(tuple(Transcript(prompt) for prompt in prompts))
        keys = np.zeros(len(prompts), np.uint64)
        stepped, likely = process.likely(states, keys, quiet(limit, rows))
        mass, errors = np.full((len(prompts), len(scale.labels)), np.nan), dict(stepped.errors)
        for row, found in enumerate(likely):
            if stepped.status[row] == Status.DONE:
                mass[row], error = shares(found, scale)
                errors |= {row: error} if error else {}
        return Weighed(mass, errors)

    def say(
        self, asks: Sequence[Ask], begun: str, keys: Keys, temperature: float, most: int, limit: Limit, rows: Rows
    ) -> Replies:
        process, k = self._process(max_tokens=most, temperature=temperature), keys.shape[1]
        prompts = [self.prompt(ask, begun) for ask in asks for _ in range(k)]
        states = Transcripts(tuple(Transcript(prompt) for prompt in prompts))
        stepped = process.step(states, keys.reshape(-1), quiet(limit, np.repeat(rows, k)), "done")
        said = process.texts(stepped.states)
        texts, errors = list[tuple[str, ...] | None](), dict[int, str]()
        for row in range(len(asks)):
            own = range(row * k, row * k + k)
            texts.append(tuple(said[i] for i in own) if all(_done(stepped, i) for i in own) else None)
            failed = [stepped.errors[i] for i in own if i in stepped.errors]
            errors |= {row: failed[0]} if failed else {}
        return Replies(tuple(texts), errors)

    def prompt(self, ask: Ask, begun: str) -> str | Messages:
        text = "".join(unmarked(piece.text) if isinstance(piece, Given) else piece for piece in ask)
        return f"{text}\n\n{begun}" if self.chat is False else ({"role": "user", "content": text},)

    def _process(self, **options: Any) -> EndpointProcess:
        if options.get("logprobs") and self.own.probes["logprobs"].there is False:
            raise Unsupported(
                f"{self.name} reads label probabilities, and {self.own.url} tells none "
                f"({self.own.probes['logprobs'].note}): judge(..., samples=3) reads what it writes."
            )
        prompt: Any = "?" if self.chat is False else SOMETHING
        return EndpointProcess(self.own, prompt, chat=self.chat, name=self.name, **options)

    def forget(self) -> None:
        """Nothing: what a server has cached is its own."""


def shares(found: Likely, scale: Scale) -> tuple[Floats, str | None]:
    """Each label's share of the first token, (labels,), from the likeliest tokens; or NaN and why it cannot be told."""
    mass = np.zeros(len(scale.labels))
    for token, logp in found:
        label = scale.begins(token)
        if label is not None:
            mass[label] += math.exp(logp)
    hidden = min((math.exp(logp) for _, logp in found), default=1.0)  # the most that a token not told of can have
    if mass.any() and (mass.all() or hidden <= HIDDEN * mass.sum()):
        return mass, None
    shown = ", ".join(repr(token) for token, _ in found[:3]) or "no text, as of a model that thinks first"
    why = f"the reply's first token is told as {shown}, and {scale.named()} cannot be weighed by it"
    return mass * np.nan, f"{why}: judge(..., samples=3) lets it write"


def _done(stepped: Stepped, row: int) -> bool:
    return bool(stepped.status[row] == Status.DONE)
