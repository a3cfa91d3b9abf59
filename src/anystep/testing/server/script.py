"""What does a fake model say? A pure function of the request and the number of the choice, one piece a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.testing.oracles.language import EOS, EnumerableLM, Tokens

_WORD = re.compile(r"[α-ω]|(?:(?![α-ω])\w){1,6}|[^\w\s]|\s+")


@dataclass(frozen=True)
class Piece:
    """One token: its text, its log-probability, and the likeliest ones in its place with theirs."""

    text: str
    logprob: float = 0.0
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """A tool's name and the JSON text of its arguments; the name is one token, the arguments are as many as words."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """One choice: thinking first, then text, then tool calls. A last piece without text is the end token."""

    pieces: tuple[Piece, ...]
    reasoning: tuple[Piece, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"


@dataclass(frozen=True)
class Request:
    """One request as the server read it. number: its place in the order of arrival, from 0, among the completions.

    messages: those of a chat, without a trailing one that is to be continued; prefix is that one's text. On the route
    of raw completions the prompt is all there is. seed: the request's, else `number`.
    """

    number: int
    route: str
    headers: dict[str, str]
    body: dict[str, Any]
    prompt: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    prefix: str = ""
    seed: int = 0
    n: int = 1

    @property
    def chat(self) -> bool:
        return self.route == "/chat/completions"

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    def get(self, name: str, default: Any) -> Any:
        """A field of the body, where null means the default, as at OpenAI."""
        value = self.body.get(name)
        return default if value is None else value


Script = Callable[[Request, int], Said]


def words(text: str) -> tuple[str, ...]:
    """A text's tokens: runs of six letters at most (of one, where they are Greek), marks, and white space."""
    return tuple(_WORD.findall(text))


def pieces(text: str, logprob: float = -1.0) -> tuple[Piece, ...]:
    """A text in pieces, a token each."""
    return tuple(Piece(word, logprob) for word in words(text))


def says(*texts: str, reasoning: str = "", tool_calls: Iterable[ToolCall] = (), finish: str = "stop") -> Script:
    """A script that says one of `texts`: the one at (seed + choice) modulo their number.

    A trailing assistant message, or a raw prompt, that ends in the beginning of a text is continued with the rest.
    """
    if not texts:
        raise UsageError('says() needs something to say; call says("The answer is 4.").')
    calls = tuple(tool_calls)

    def script(request: Request, choice: int) -> Said:
        order = [texts[(request.seed + choice + i) % len(texts)] for i in range(len(texts))]
        text, begun = next(((t, b) for t in order if (b := _begun(t, request))), (order[0], ""))
        rest = (*pieces(text[len(begun) :]), Piece(""))
        return Said(rest, () if begun else pieces(reasoning), calls, finish)

    return script


def _begun(text: str, request: Request) -> str:
    """The longest beginning of `text` that the request ends in."""
    end = request.prefix if request.chat else request.prompt
    return next((text[:k] for k in range(min(len(text), len(end)), 0, -1) if end.endswith(text[:k])), "")


@dataclass(frozen=True)
class Toy:
    """A language model whose every output has a known probability, drawn by the request's seed.

    Temperature, top_p, top_k and min_p are honoured; log-probabilities are those of the model itself, before them. The
    draw at a position depends on (seed, prompt, choice, position) alone, so a prefix goes on as it would have gone on.
    letters: the texts of tokens 1, 2, ...; a prompt or prefix that ends in them is continued.
    """

    model: EnumerableLM = field(default_factory=lambda: EnumerableLM(seed=0, vocab=3, length=5))
    letters: tuple[str, ...] = ("α", "β", "γ", "δ", "ε", "ζ", "η", "θ", "ι")

    def __call__(self, request: Request, choice: int) -> Said:
        text = request.prefix if request.chat else request.prompt
        tokens = self.tokens(text)
        rest = text[: len(text) - len(self.text(tokens))]
        asked = "\n".join([*(f"{m.get('role')}:{m.get('content')}" for m in request.messages), rest])
        key = lineage.roots(request.seed, (lineage.named(asked) & 0xFFFFFFFF,), [choice])
        found: list[Piece] = []
        while len(tokens) < self.model.length and (not tokens or tokens[-1] != EOS):
            p = self.law(tokens)
            token = int(lineage.choose(shaped(p, request)[None, :], lineage.uniforms(key, len(tokens)))[0])
            order = np.argsort(-p, kind="stable").tolist()
            found.append(Piece(self._word(token), float(np.log(p[token])), tuple(self._ranked(order, p))))
            tokens = (*tokens, token)
        return Said(tuple(found))

    def law(self, tokens: Tokens) -> NDArray[np.float64]:
        """The next token's probabilities after an unfinished output."""
        row = self.model.numerators[self.model.number(tokens)]
        return np.asarray(row / row.sum())

    def outputs(self) -> dict[str, Fraction]:
        """Every output's text and its probability at temperature 1."""
        return {self.text(tokens): p for tokens, p in self.model.outputs.items()}

    def text(self, tokens: Tokens) -> str:
        return "".join(self._word(token) for token in tokens)

    def tokens(self, text: str) -> Tokens:
        """The longest run of letters that `text` ends in, `length` at most, as tokens."""
        known = self.letters[: self.model.vocab - 1]
        found: list[int] = []
        while text and text[-1] in known and len(found) < self.model.length:
            found.append(known.index(text[-1]) + 1)
            text = text[:-1]
        return tuple(reversed(found))

    def _word(self, token: int) -> str:
        return "" if token == EOS else self.letters[token - 1]

    def _ranked(self, order: list[int], p: NDArray[np.float64]) -> Iterable[tuple[str, float]]:
        return ((self._word(token), float(np.log(p[token]))) for token in order)


def shaped(p: NDArray[np.float64], request: Request) -> NDArray[np.float64]:
    """What is sampled from: `p` under the request's temperature, then its top_k, min_p and top_p."""
    temperature = float(request.get("temperature", 1.0))
    if temperature == 0:
        return np.asarray(np.eye(len(p))[int(np.argmax(p))])
    p = p ** (1 / temperature)
    p = p / p.sum()
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    top_k = int(request.get("top_k", 0))
    keep = np.arange(len(p)) < (top_k if top_k > 0 else len(p))
    keep &= ranked >= float(request.get("min_p", 0.0)) * ranked[0]
    keep &= np.cumsum(ranked) - ranked < float(request.get("top_p", 1.0))
    kept = np.zeros_like(p)
    kept[order[keep]] = ranked[keep]
    return np.asarray(kept / kept.sum())
