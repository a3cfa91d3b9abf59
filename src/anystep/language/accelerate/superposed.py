"""Superposed decoding: k drafts from the passes of one.

Each step feeds one vector, the sum of the drafts' last token embeddings weighted by how good the drafts are, and reads
one next-token distribution for all of them. What tells the drafts apart is a table of n-grams, which knows what has
followed each draft's own last tokens. Source: Shen et al., "Superposed Decoding: Multiple Generations from a Single
Autoregressive Inference Pass" (NeurIPS 2024), arXiv 2405.18400.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import Unsupported, UsageError
from anystep.language.accelerate.ngrams import NGrams
from anystep.language.engine.attention import look_own
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend
from anystep.language.engine.tokenizer import begun
from anystep.language.prefill import opened
from anystep.ledger import Cost, Ledger, Limit

ORDERS = (0.01, 0.04, 0.15, 0.18, 0.12)  # the paper's weights of 2-grams to 6-grams
UNSEEN = 200.0  # what a token that no n-gram of its draft supports loses: it falls behind those that are supported


@dataclass(frozen=True)
class Continuation:
    """One continuation. `score` is its summed log score, in which n-grams have their share: not a log-probability.
    `ended` is whether the model's own end token closes it."""

    tokens: tuple[int, ...]
    text: str
    score: float
    ended: bool


@dataclass(frozen=True)
class Superposed:
    """Distinct drafts, the best first, and what they cost together."""

    drafts: tuple[Continuation, ...]
    cost: Cost


@dataclass(frozen=True)
class Mixing:
    """How the model and the n-grams are weighed.

    weight: of the n-grams, 0 to 1; the model has the rest. temperature: the model's distribution is sharpened by it,
    above 0; the paper's, so low, orders tokens that are supported much as the model alone would. kept: how many of the
    model's likeliest tokens are considered a step, by default three times the drafts.
    """

    weight: float = 0.54
    temperature: float = 0.06
    kept: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or not self.temperature > 0:
            raise UsageError("Mixing(weight=0.54, temperature=0.06): a weight from 0 to 1, a temperature above 0.")
        if self.kept is not None and self.kept < 1:
            raise UsageError(f"Mixing(kept={self.kept!r}): how many tokens to consider a step, such as 9.")


@torch.inference_mode()
def superposed_decoding(
    engine: Engine,
    prompt: str | Sequence[int],
    k: int = 3,
    tokens: int = 10,
    ngrams: NGrams | None = None,
    mixing: Mixing | None = None,
    limit: Limit | None = None,
) -> Superposed:
    """k drafts of up to `tokens` tokens that continue `prompt`, at one forwarded position a step whatever k is.

    **Preserves** nothing but the first step: drafts share one superposed past, so from the second token on each is
    scored by a distribution that is not its own. With k = 1 and no n-grams it is greedy decoding, token for token.
    Without n-grams the drafts of a step all get the same continuations. A draft that ends stands aside with its score.

    prompt: text as it is, without a chat template, or tokens. limit: pays for each pass before it is made; where it
    refuses, the drafts come back as far as they have got. Their tokens are all counted as generated. Superposed keys
    are of no text: they never enter the prefix cache.

    Raises UsageError for counts below 1, an empty prompt, or a prompt whose drafts pass the end of the context.
    """
    mixing, limit = mixing or Mixing(), limit or Limit(Ledger(), engine.name)
    read = begun(engine.tokenizer, prompt) if isinstance(prompt, str) else tuple(prompt)
    if k < 1 or tokens < 1:
        raise UsageError("superposed_decoding(engine, prompt, k=3, tokens=10): one draft of one token at least.")
    if len(read) + tokens > engine.config.context:
        raise UsageError(f"A prompt of {len(read)} and {tokens} tokens pass the context of {engine.config.context}.")
    if not hasattr(engine.model, "embed"):
        raise Unsupported(f"{engine.name} reads tokens only; superposed_decoding needs a model that load() reads.")
    beams = Beams(engine, read, k, ngrams, mixing)
    with engine.lock:
        first = Cost(generated=k, flops=engine.flops(0, 0, heads=1))
        _, session = opened(engine, [read], limit, first)
        if session is None:
            return Superposed((), limit.used)
        try:
            beams.grow(engine.model.logits(session.hidden)[0])
            stream = Stream(engine, session, tokens)
            for at in range(len(read), len(read) + tokens - 1):
                each, once = engine.feed([at + 1])
                each[0] = each[0] + Cost(generated=len(beams.alive) - 1)
                if beams.settled or not limit.pay([0], each, once)[0]:
                    break
                beams.grow(stream.feed(beams.superposed(beams.gamma()), at))
        finally:
            session.close(keep=False)
    return Superposed(beams.best(), limit.used)


class Beams:
    """The drafts so far, as (score, tokens): those that go on, at most k, and those that have ended."""

    def __init__(self, engine: Engine, prompt: tuple[int, ...], k: int, ngrams: NGrams | None, mixing: Mixing) -> None:
        self.engine, self.prompt, self.k, self.ngrams, self.mixing = engine, prompt, k, ngrams, mixing
        self.alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self.ended: list[tuple[float, tuple[int, ...]]] = []

    def grow(self, logits: Tensor) -> None:
        """One more token for each draft, from next-token logits (vocab,) that they share: the best k of all pairs."""
        logp, kept = self._likeliest(logits)
        pairs = [
            (score + gain, (*tokens, token))
            for score, tokens in self.alive
            for gain, token in zip(self._gains(tokens, logp, kept).tolist(), kept, strict=True)
        ]
        pairs.sort(key=lambda pair: -pair[0])  # stable: of equals the better draft's, then the likelier token
        ends = self.engine.tokenizer.ends
        self.ended += [pair for pair in pairs[: 2 * self.k] if pair[1][-1] in ends]
        self.alive = [pair for pair in pairs if pair[1][-1] not in ends][: self.k]

    def _likeliest(self, logits: Tensor) -> tuple[NDArray[np.float64], list[int]]:
        """The tokens considered, likeliest first, and their log-probabilities among themselves, sharpened."""
        scores = logits.double().cpu().numpy()
        n = min(self.mixing.kept or 3 * self.k, len(scores))
        some = np.sort(np.argpartition(-scores, n - 1)[:n])
        some = some[np.argsort(-scores[some], kind="stable")]
        return _log_softmax(scores[some] / self.mixing.temperature), some.tolist()

    def _gains(self, tokens: tuple[int, ...], logp: NDArray[np.float64], kept: list[int]) -> NDArray[np.float64]:
        """What each token would add to this draft's score."""
        weight = self.mixing.weight
        if self.ngrams is None or weight == 0:
            return logp
        mass = np.zeros(len(kept))
        past = self.prompt + tokens
        for back, share in zip(range(1, self.ngrams.order), ORDERS, strict=False):
            found = self.ngrams.share(past[-back:], kept) if back <= len(past) else None
            if found is not None:
                mass += share * found
        seen = mass > 0
        return (1 - weight) * logp + np.where(seen, weight * np.log(np.where(seen, mass, 1.0)), -UNSEEN)

    def gamma(self) -> Tensor:
        """(alive,): the softmax of the drafts' scores, as weights of their embeddings."""
        return torch.from_numpy(np.exp(_log_softmax(np.array([score for score, _ in self.alive]))))

    def superposed(self, gamma: Tensor) -> Tensor:
        """(dim,): the drafts' last tokens' embeddings, weighted by `gamma`."""
        embed: Callable[[Tensor], Tensor] = self.engine.model.embed  # type: ignore[attr-defined]
        embedded = embed(torch.tensor([tokens[-1] for _, tokens in self.alive]))
        return gamma.to(embedded.dtype) @ embedded

    @property
    def settled(self) -> bool:
        """Whether no draft can come among the k best any more: scores only fall."""
        ahead = sorted((score for score, _ in self.ended), reverse=True)[: self.k]
        return not self.alive or (len(ahead) == self.k and ahead[-1] >= self.alive[0][0])

    def best(self) -> tuple[Continuation, ...]:
        drafts = [(score, tokens, True) for score, tokens in self.ended]
        drafts += [(score, tokens, False) for score, tokens in self.alive]
        drafts.sort(key=lambda draft: -draft[0])
        decode = self.engine.tokenizer.decode
        return tuple(Continuation(tokens, decode(tokens), score, ended) for score, tokens, ended in drafts[: self.k])


class Stream:
    """One row that is fed vectors, over a copy of its prompt's keys: what is fed has no tokens, so no place in the
    prefix cache."""

    def __init__(self, engine: Engine, session: Decoding, room: int) -> None:
        self.engine = engine
        layers, two, heads, _, width = engine.like.shape
        spans = [span.keys for span in session.paths[0]]
        engine.counters.copied_prompt_bytes += sum(keys.nbytes for keys in spans)
        self.keys = torch.cat([*spans, engine.like.new_zeros(layers, two, heads, room, width)], 3)

    def feed(self, vector: Tensor, at: int) -> Tensor:
        """Next-token logits (vocab,) after `vector` (dim,) at position `at`."""
        unread, place = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[at]])
        hidden = self.engine.run(unread, place, self._attend(at), inputs=vector[None, None])
        return self.engine.model.logits(hidden)[0, 0]

    def _attend(self, at: int) -> Attend:
        window = self.engine.config.window

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys = self.keys[layer]
            keys[0, :, at], keys[1, :, at] = k[0, :, 0], v[0, :, 0]
            size = window(layer)
            seen = keys[:, None, :, 0 if size is None else max(at + 1 - size, 0) : at + 1]
            return look_own(q, seen[0], seen[1], seen.new_zeros(1, seen.shape[3]))[0]

        return attend


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())
