"""How sure is a model of its next token? Read at the beginning of a step, before anything of it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from anystep.errors import Unsupported, UsageError
from anystep.language.endpoint import Endpoint
from anystep.language.endpoint.process import EndpointProcess
from anystep.language.endpoint.states import Transcripts
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import distribution
from anystep.language.loading import load
from anystep.language.prefill import opened, portions
from anystep.language.states import Sequences
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Floats, Reward, Scored

TOP = 20  # likeliest tokens that a server is asked for: the most that OpenAI and vLLM give


def entropy(p: Floats) -> Floats:
    """Of distributions (rows, vocab), in nats."""
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(-1))


def margin(p: Floats) -> Floats:
    """One minus the lead of the likeliest token over the second."""
    two = np.sort(np.concatenate([p, np.zeros((len(p), 1))], -1), -1)[:, -2:]
    return np.asarray(1 - two[:, 1] + two[:, 0])


KINDS: dict[str, Callable[[Floats], Floats]] = {"entropy": entropy, "margin": margin}


@dataclass(frozen=True)
class Glimpse(Reward):
    """The uncertainty of a model's next token behind each state, at temperature 1 over its whole vocabulary, whatever
    its process samples at. Higher is less sure.

    On the writer's own engine the position it reads stays in the prefix cache, so that a step that follows pays only
    for its tokens. kept: where the value is above it, the token is dropped and paid here, one generated token; at it or
    below, it is the first of the step that follows, and paid there. Without `kept` nothing is generated here.
    """

    name: str
    of: str = "entropy"
    kept: float = math.inf
    range: tuple[float, float] = (0.0, 1.0)
    engine: Any = field(default=None, compare=False, repr=False)

    def dropping(self, threshold: float) -> Glimpse:
        return replace(self, kept=float(threshold))

    def __call__(self, states: Any, limit: Limit) -> Scored:
        if not isinstance(states, Sequences) or states.tokenizer.size != self.engine.tokenizer.size:
            raise UsageError(
                f"{self.name} reads the tokens of {self.engine.name}, and these states are none of its: give "
                "verify.glimpse(model) the model whose process runs."
            )
        values, drawn = np.full(len(states), np.nan), states.drawn(self.engine.name)
        head = Cost(flops=self.engine.flops(0, 0, heads=1))
        with self.engine.lock:
            for some in portions(self.engine, states.tokens):
                sequences, own = [states.tokens[i] for i in some.tolist()], [drawn[i] for i in some.tolist()]
                left, session = opened(self.engine, sequences, limit, head, own, some)
                if session is not None:
                    with session:
                        values[some[left]] = KINDS[self.of](distribution(session.logits(), 1.0))
        dropped = np.flatnonzero(values > self.kept)
        values[dropped[~limit.pay(dropped, each=Cost(generated=1))]] = np.nan
        return Scored(values, limit.used)

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self(states, Limit(Ledger(), self.name))


@dataclass(frozen=True)
class RemoteGlimpse(Reward):
    """The uncertainty of a served model's next token behind each state, from the server's `TOP` likeliest tokens: their
    probabilities are divided by their sum, so the entropy is that of a truncated law, a little too small.

    Costs a request of one generated token for each state, its prompt as sent; the step that follows draws its own. NaN
    where the server told no likeliest tokens.
    """

    name: str
    of: str = "entropy"
    range: tuple[float, float] = (0.0, math.log(TOP))
    process: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Transcripts, limit: Limit) -> Scored:
        if any(states.texts()) and not self.process.continues:
            raise Unsupported(f"{self.name} looks behind a reply's beginning, but {self.process.unable}.")
        asked = Transcripts(tuple(replace(row, generated=0) for row in states.rows))
        _, likely = self.process.likely(asked, np.zeros(len(states), np.uint64), limit)
        values = [told(found, KINDS[self.of]) for found in likely]
        return Scored(np.array(values, dtype=np.float64), limit.used)


def told(likely: Sequence[tuple[str, float]], kind: Callable[[Floats], Floats]) -> float:
    """The uncertainty that log-probabilities of the likeliest tokens tell, renormalised; NaN where there are none."""
    p = np.exp([logp for _, logp in likely])
    return float(kind((p / p.sum())[None])[0]) if len(p) else math.nan


def glimpse(model: str | Engine | Endpoint | EndpointProcess = "chainlm-2m", of: str = "entropy") -> Reward:
    """How unsure `model` is of the next token behind a live state: what `search.glimp_router` looks at.

    model: the engine that writes (then a look costs one evaluation, which the step that follows finds in the cache),
    its name, an endpoint or its process. of: "entropy" in nats, or "margin", one minus the lead of the likeliest token.
    A fixed beginning of every step ("Step 3:") has no entropy: let `stop` be what it ends with, so that a step begins
    behind it. Preserves nothing; it is a measure of doubt, no probability of being right.
    """
    if of not in KINDS:
        raise UsageError(f"glimpse(of={of!r}): one of {', '.join(KINDS)}.")
    if isinstance(model, (Endpoint, EndpointProcess)):
        return _remote(model, of)
    engine = load(model) if isinstance(model, str) else model
    most = math.log(engine.config.vocab) if of == "entropy" else 1.0
    return Glimpse(f"{engine.name}-glimpse", of, range=(0.0, most), engine=engine)


def _remote(model: Endpoint | EndpointProcess, of: str) -> RemoteGlimpse:
    server = model.server if isinstance(model, EndpointProcess) else model
    own: dict[str, Any] = {"chat": model.chat} if isinstance(model, EndpointProcess) else {}
    prompt: Any = model.prompt if isinstance(model, EndpointProcess) else "?"
    process = EndpointProcess(
        server, prompt, max_tokens=1, logprobs=True, extra={"top_logprobs": TOP}, name=f"{server.name}-glimpse", **own
    )
    most = math.log(TOP) if of == "entropy" else 1.0
    return RemoteGlimpse(process.name, of, range=(0.0, most), process=process)
