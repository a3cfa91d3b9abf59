"""What the objects of a reply say: text, thinking, the end of a choice, usage. Nothing in them is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anystep.language.endpoint.trouble import Trouble
from anystep.language.endpoint.usage import Usage, usage_of

THOUGHTS = ("reasoning_content", "reasoning")  # DeepSeek, vLLM, llama.cpp; OpenRouter and newer vLLM
ENDED_BY = ("stop_reason", "matched_stop")  # vLLM and anystep; SGLang
WHOLE = -1


@dataclass(frozen=True)
class Part:
    """A piece of a call that the model asks for: of which call, and what it adds to its name and arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Delta:
    """What one object adds to one choice.

    tokens: how many, as its log-probabilities' entries tell; None where it has none. logp: their sum. likely: the
    likeliest tokens in place of the first of them, with their log-probabilities, where the request asked for some.
    finish: why the choice ended. asked: pieces of calls. said: whether the object tells which stop text ended it;
    stopped: that text. usage: figures so far, of the choice they came with, or of no choice in particular (WHOLE).
    """

    choice: int = 0
    text: str = ""
    thought: str = ""
    tokens: int | None = None
    logp: float = 0.0
    likely: tuple[tuple[str, float], ...] = ()
    finish: str | None = None
    said: bool = False
    stopped: str | None = None
    asked: tuple[Part, ...] = ()
    usage: Usage | None = None


def parsed(data: str | bytes) -> dict[str, Any]:
    """The object that `data` is. Raises Trouble for what is none, or is the server's report of an error."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        shown = (data.decode("utf-8", "replace") if isinstance(data, bytes) else data)[:60]
        raise Trouble(f"the reply is no JSON: {shown!r}" if shown else "the reply is empty", again=True) from None
    if not isinstance(found, dict):
        raise Trouble(f"the reply is no object: {str(found)[:60]!r}", again=True)
    if found.get("error"):
        raise Trouble("the server reported an error", again=True, said=told(found))
    return found


def told(found: Any) -> str:
    """What an error object says, in one line."""
    error = found.get("error", found) if isinstance(found, Mapping) else found
    for name in ("message", "detail", "error"):
        if isinstance(error, Mapping) and error.get(name):
            error = error[name]
    return " ".join(str(error).split())[:300]


def deltas(found: Mapping[str, Any]) -> list[Delta]:
    """The deltas of one object: a stream's chunk, or a whole reply. Raises Trouble for a choice that is no choice."""
    choices = found.get("choices")
    usage = usage_of(found.get("usage"))
    if choices is None and usage is None:
        raise Trouble("the reply has no choices", again=True)
    every = [_delta(choice) for choice in (choices if isinstance(choices, list) else ())]
    if usage is not None:
        every.append(Delta(every[0].choice if len(every) == 1 else WHOLE, usage=usage))
    return every


def _delta(choice: Any) -> Delta:
    if not isinstance(choice, Mapping):
        raise Trouble(f"the reply has a choice that is no object: {str(choice)[:60]!r}", again=True)
    inside = choice.get("delta") or choice.get("message")
    message = inside if isinstance(inside, Mapping) else {"content": choice.get("text")}
    index = choice.get("index")
    tokens, logp = _logprobs(choice.get("logprobs"))
    finish = choice.get("finish_reason")
    ended = next((choice[name] for name in ENDED_BY if isinstance(choice.get(name), str)), None)
    return Delta(
        choice=index if isinstance(index, int) and not isinstance(index, bool) and index >= 0 else 0,
        text=_text(message.get("content")),
        thought=next((t for name in THOUGHTS if (t := _text(message.get(name)))), ""),
        tokens=tokens,
        logp=logp,
        likely=_likely(choice.get("logprobs")),
        finish=finish if isinstance(finish, str) and finish else None,
        said=any(name in choice for name in ENDED_BY),
        stopped=ended,
        asked=_parts(message.get("tool_calls")),
    )


def _parts(found: Any) -> tuple[Part, ...]:
    """The pieces of calls: of a stream, or of a whole message, whose calls have no index. Arguments are JSON's text;
    some servers send the object itself."""
    parts = []
    for place, call in enumerate(found if isinstance(found, list) else ()):
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            index, arguments = call.get("index"), function.get("arguments")
            index = index if isinstance(index, int) and not isinstance(index, bool) else place
            text = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
            parts.append(Part(index, _text(call.get("id")), _text(function.get("name")), text))
    return tuple(parts)


def _text(found: Any) -> str:
    """A content: text, or a list of parts of which the text ones count."""
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        parts = [part.get("text") for part in found if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _logprobs(found: Any) -> tuple[int | None, float]:
    """How many tokens have a log-probability, and the sum: of a chat's `content`, or a completion's lists."""
    if not isinstance(found, Mapping):
        return None, 0.0
    entries = found.get("content")
    values = found.get("token_logprobs")
    if isinstance(entries, list):
        values = [entry.get("logprob") if isinstance(entry, Mapping) else None for entry in entries]
    if not isinstance(values, list) or not all(_number(value) for value in values):
        return None, 0.0
    return len(values), float(sum(min(value, 0.0) for value in values))


def _likely(found: Any) -> tuple[tuple[str, float], ...]:
    """The likeliest tokens in the first place: a chat's list of entries, or a completion's mapping."""
    if not isinstance(found, Mapping):
        return ()
    places = found.get("content") if isinstance(found.get("content"), list) else found.get("top_logprobs")
    first = places[0] if isinstance(places, list) and places else None
    if not isinstance(first, Mapping):
        return ()
    told, pairs = first.get("top_logprobs"), list[tuple[Any, Any]](first.items())
    if "token" in first:  # a chat's
        entries = told if isinstance(told, list) else ()
        pairs = [(entry.get("token"), entry.get("logprob")) for entry in entries if isinstance(entry, Mapping)]
    return tuple((token, float(min(logp, 0.0))) for token, logp in pairs if isinstance(token, str) and _number(logp))


def _number(found: Any) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
