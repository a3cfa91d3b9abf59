"""Log-probabilities in the two shapes that OpenAI's API has for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def chat(tokenizer: Any, pieces: Iterable[Any]) -> dict[str, Any]:
    """Of a chat choice: an entry a token, its likeliest alternatives in it."""
    content = []
    for piece in pieces:
        top = [_entry(tokenizer, token, logp) for token, logp in piece.top]
        content.append({**_entry(tokenizer, piece.token, piece.logp), "top_logprobs": top})
    return {"content": content, "refusal": None}


def _entry(tokenizer: Any, token: int, logp: float) -> dict[str, Any]:
    raw = tokenizer.spelled(token)
    return {"token": _text(tokenizer, token), "logprob": logp, "bytes": None if raw is None else list(raw)}


def completion(tokenizer: Any, pieces: Sequence[Any], at: int = 0) -> dict[str, Any]:
    """Of a completions choice: parallel lists. at: where in the text the first token begins."""
    tokens = [_text(tokenizer, piece.token) for piece in pieces]
    offsets = []
    for piece in pieces:
        offsets.append(at)
        at += len(piece)
    return {
        "tokens": tokens,
        "token_logprobs": [piece.logp for piece in pieces],
        "top_logprobs": [{_text(tokenizer, t): logp for t, logp in piece.top} for piece in pieces],
        "text_offset": offsets,
    }


def _text(tokenizer: Any, token: int) -> str:
    """The token's text; a special token's written name; bytes that are no whole character as OpenAI shows them."""
    raw = tokenizer.spelled(token)
    if raw is None:
        return str(tokenizer.written(token))
    try:
        return str(raw.decode())
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
