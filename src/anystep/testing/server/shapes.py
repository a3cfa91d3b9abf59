"""OpenAI's shapes: what a request means, and the objects that answer it, whole or in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from anystep.testing.server.offers import Offers
from anystep.testing.server.script import Piece, Request, Said, words

Kind = Literal["reasoning", "text", "name", "arguments"]
Object = dict[str, Any]


@dataclass(frozen=True)
class Token:
    """One token of a choice: what kind of thing it adds to, and the text that is sent (less where a stop cut it)."""

    kind: Kind
    piece: Piece
    text: str
    call: int = 0


@dataclass(frozen=True)
class Choice:
    """One choice as it will be made: its tokens, why it ends, and the stop string that ended it."""

    tokens: tuple[Token, ...]
    finish: str
    stopped_by: str | None = None

    def text(self, kind: Kind, call: int = 0) -> str:
        return "".join(t.text for t in self.tokens if t.kind == kind and t.call == call)

    @property
    def reasoning(self) -> int:
        return sum(token.kind == "reasoning" for token in self.tokens)


def choice_of(said: Said, request: Request) -> Choice:
    """What is said under the request's stop strings and token cap."""
    tokens = [Token("reasoning", p, p.text) for p in said.reasoning]
    stop = request.get("stop", ())
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    shown, stopped_by = _stopped(said.pieces, stops, bool(request.get("include_stop_str_in_output", False)))
    tokens += [Token("text", piece, text) for piece, text in zip(said.pieces, shown, strict=False)]
    finish = said.finish
    if stopped_by is None:
        for i, call in enumerate(said.tool_calls):
            tokens.append(Token("name", Piece(call.name), call.name, i))
            tokens += [Token("arguments", Piece(word), word, i) for word in words(call.arguments)]
        finish = "tool_calls" if said.tool_calls and said.finish == "stop" else said.finish
    cap = request.get("max_completion_tokens", request.get("max_tokens", len(tokens)))
    if cap < len(tokens):
        return Choice(tuple(tokens[:cap]), "length")
    return Choice(tuple(tokens), finish if stopped_by is None else "stop", stopped_by)


def _stopped(pieces: tuple[Piece, ...], stops: tuple[str, ...], include: bool) -> tuple[list[str], str | None]:
    """The text each piece adds up to the first stop string, and that string."""
    whole = ""
    for i, piece in enumerate(pieces):
        whole += piece.text
        found = [(at, stop) for stop in stops if stop and (at := whole.find(stop)) >= 0]
        if found:
            at, stop = min(found)
            keep = at + len(stop) if include else at
            texts = [p.text for p in pieces[: i + 1]]
            for j, text in enumerate(texts):
                texts[j] = text[: max(keep, 0)]
                keep -= len(text)
            return texts, stop
    return [p.text for p in pieces], None


def logprobs(tokens: tuple[Token, ...], request: Request, offers: Offers, offset: int = 0) -> Object | None:
    """The log-probabilities of text tokens, as the request's route shapes them; None where it asked for none."""
    asked = request.get("logprobs", None)
    texts = [t for t in tokens if t.kind == "text"]
    if asked is None or asked is False:
        return None
    if not request.chat and not offers.plain:
        starts = [offset + sum(len(t.text) for t in texts[:i]) for i in range(len(texts))]
        return {
            "tokens": [t.piece.text for t in texts],
            "token_logprobs": [t.piece.logprob for t in texts],
            "top_logprobs": [dict(t.piece.top[: int(asked)]) for t in texts],
            "text_offset": starts,
        }
    top = int(request.get("top_logprobs", 0) if request.chat else asked)
    return {
        "content": [
            {**_said(t.piece.text, t.piece.logprob), "top_logprobs": [_said(*pair) for pair in t.piece.top[:top]]}
            for t in texts
        ]
    }


def _said(text: str, logprob: float) -> Object:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def frame(request: Request, model: str, choices: list[Object], usage: Object | None = None) -> Object:
    """The object around choices: a chunk of a stream, or the whole answer."""
    kind = "chat.completion" if request.chat else "text_completion"
    kind += ".chunk" if request.chat and request.stream else ""
    name = f"{'chatcmpl' if request.chat else 'cmpl'}-{request.number}"
    found: Object = {"id": name, "object": kind, "created": 1_700_000_000, "model": model, "choices": choices}
    return found if usage is None else {**found, "usage": usage}


def whole(request: Request, choices: list[Choice], offers: Offers) -> list[Object]:
    """The choices of an answer that is sent in one piece."""
    return [_whole(request, choice, i, offers) for i, choice in enumerate(choices)]


def _whole(request: Request, choice: Choice, index: int, offers: Offers) -> Object:
    told = logprobs(choice.tokens, request, offers)
    found: Object = {"index": index, "logprobs": told, "finish_reason": choice.finish}
    if offers.stop_reason:
        found["stop_reason"] = choice.stopped_by
    text = (request.prefix if offers.echoes else "") + choice.text("text")
    if not request.chat:
        return {**found, "text": text}
    message: Object = {"role": "assistant", "content": text}
    if choice.reasoning:
        message["reasoning_content"] = choice.text("reasoning")
    names = [t for t in choice.tokens if t.kind == "name"]
    if names:
        message["content"] = text or None
        message["tool_calls"] = [
            {"id": f"call_{t.call}", "type": "function", "function": {"name": t.text, "arguments": arguments}}
            for t in names
            for arguments in [choice.text("arguments", t.call)]
        ]
    return {**found, "message": message}


def opening(request: Request, n: int, offers: Offers) -> Iterator[Object]:
    """A chat stream's first chunk a choice: the role."""
    for index in range(n if request.chat else 0):
        yield {
            "index": index,
            "delta": {"role": "assistant", "content": None if offers.plain else ""},
            "finish_reason": None,
        }


def part(request: Request, token: Token, index: int, offset: int, offers: Offers) -> Object:
    """A token as a choice of a stream's chunk."""
    found: Object = {"index": index, "finish_reason": None, "logprobs": logprobs((token,), request, offers, offset)}
    if not request.chat:
        return {**found, "text": token.text if token.kind == "text" else ""}
    match token.kind:
        case "reasoning":
            delta: Object = {"reasoning_content": token.text}
        case "text":
            delta = {"content": token.text}
        case "name":
            function = {"name": token.text, "arguments": ""}
            call = {"index": token.call, "id": f"call_{token.call}", "type": "function", "function": function}
            delta = {"tool_calls": [call]}
        case "arguments":
            delta = {"tool_calls": [{"index": token.call, "function": {"arguments": token.text}}]}
    return {**found, "delta": delta}


def closing(request: Request, choice: Choice, index: int, offers: Offers) -> Object:
    """A choice's last chunk: why it ended."""
    found: Object = {"index": index, "logprobs": None, "finish_reason": choice.finish}
    if offers.stop_reason:
        found["stop_reason"] = choice.stopped_by
    return {**found, "delta": {}} if request.chat else {**found, "text": ""}


def usage(prompt: int, cached: int, generated: int, reasoning: int) -> Object:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def error(message: str, kind: str, param: str | None = None, code: str | int | None = None) -> Object:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(data: Object) -> bytes:
    """One event of a stream, as bytes."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
