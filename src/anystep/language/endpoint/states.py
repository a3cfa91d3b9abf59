"""What a state on an endpoint is: a prompt, and what has been said in reply so far. Nothing that a server holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Prompt = str | tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Transcript:
    """One conversation with its reply.

    prompt: text, or chat messages as they are sent. text: the reply's content, with what was put into it to end the
    thinking. thought: thinking that the server delivered apart. generated: tokens so far. waited: how often it was told
    to think on. closed: the thinking was ended from outside. asked: calls of tools, each its id, name and arguments.
    """

    prompt: Prompt
    text: str = ""
    thought: str = ""
    generated: int = 0
    waited: int = 0
    closed: bool = False
    asked: tuple[tuple[str, str, str], ...] = ()


SAID = ("text", "thought", "generated", "waited", "closed", "asked")


@dataclass(frozen=True)
class Transcripts:
    """n of them side by side; forks share theirs."""

    rows: tuple[Transcript, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Self:
        return type(self)(tuple(self.rows[i] for i in np.asarray(index).tolist()))

    def join(self, *others: Self) -> Self:
        return type(self)(tuple(row for states in (self, *others) for row in states.rows))

    def texts(self) -> tuple[str, ...]:
        """Each reply's text, as it was generated."""
        return tuple(row.text for row in self.rows)

    def contents(self) -> tuple[tuple[Any, ...], ...]:
        """What tells conversations apart: all but how many tokens they took."""
        return tuple((str(r.prompt), r.text, r.thought, r.waited, r.closed, r.asked) for r in self.rows)

    def prompts(self) -> tuple[str, ...]:
        """What each was asked, as text: the prompt, or the last thing the user said."""
        return tuple(asked(row.prompt) for row in self.rows)

    def unsaid(self) -> Self:
        """The same prompts, with nothing said."""
        return type(self)(tuple(Transcript(row.prompt) for row in self.rows))

    def dump(self) -> bytes:
        """As JSON, each prompt written once; `read` is its inverse."""
        prompts: list[Any] = []
        rows = []
        for row in self.rows:
            if row.prompt not in prompts:
                prompts.append(row.prompt)
            said = {name: getattr(row, name) for name in SAID}
            rows.append({"prompt": prompts.index(row.prompt), **said})
        return json.dumps({"prompts": prompts, "rows": rows}).encode()

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Raises ValueError, KeyError or TypeError for what `dump` did not write."""
        record = json.loads(data)
        prompts = [p if isinstance(p, str) else _messages(p) for p in record["prompts"]]
        return cls(tuple(_transcript(row, prompts) for row in record["rows"]))


def _messages(found: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(found, list) or not found or not all(isinstance(message, dict) for message in found):
        raise ValueError("a prompt is neither text nor messages")
    return tuple(found)


def _transcript(row: Any, prompts: list[Prompt]) -> Transcript:
    calls = tuple(map(tuple, row["asked"]))
    texts = all(type(row[name]) is str for name in ("text", "thought"))
    counts = all(type(row[name]) is int and row[name] >= 0 for name in ("prompt", "generated", "waited"))
    whole = all(len(call) == 3 and all(type(part) is str for part in call) for call in calls)
    if not (texts and counts and whole and type(row["closed"]) is bool and set(row) == {"prompt", *SAID}):
        raise ValueError("a conversation says something else than it would")
    return Transcript(**{**row, "prompt": prompts[row["prompt"]], "asked": calls})


def asked(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    said = [message for message in prompt if message.get("role") == "user"] or list(prompt)
    content = said[-1].get("content")
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content or () if isinstance(part, Mapping)]
    return "\n".join(part for part in parts if isinstance(part, str))
