"""A finished job in OpenAI's response shapes, and the chunks of a streamed one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from anystep.serve import logprobs, record
from anystep.serve.job import Job, Said
from anystep.serve.shapes import Chat


@dataclass
class Reply:
    """The frame of one response: its id and time, and how its choices look, whole or in chunks."""

    job: Job
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    _offset: dict[int, int] = field(default_factory=dict)

    @property
    def chat(self) -> bool:
        return isinstance(self.job.request, Chat)

    def whole(self) -> dict[str, Any]:
        """The response to a request that did not ask for a stream."""
        shape = self._message if self.chat else self._text
        choices = [shape(i, said) for i, said in enumerate(self.job.said())]
        ours = {"usage": record.usage(self.job), "anystep": record.anystep(self.job)}
        return {**self._head("chat.completion"), "choices": choices, **ours}

    def opening(self, choice: int) -> dict[str, Any]:
        """The first chunk of a chat choice, which says who speaks."""
        return self._chunk(choice, {"role": "assistant", "content": ""}, None, None)

    def piece(self, choice: int, text: str, pieces: Sequence[Any]) -> dict[str, Any]:
        """A chunk: some text with its tokens' log-probabilities."""
        return self._chunk(choice, {"content": text} if self.chat else text, self._logprobs(choice, pieces), None)

    def end(self, choice: int, said: Said) -> dict[str, Any]:
        """The last chunk of a choice, which says why it ended."""
        chunk = self._chunk(choice, {} if self.chat else "", None, said.finish)
        chunk["choices"][0]["stop_reason"] = said.reason
        return chunk

    def closing(self) -> dict[str, Any]:
        """The chunk after the last choice that holds the usage, where it was asked for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": record.usage(self.job)}

    def _head(self, kind: str) -> dict[str, Any]:
        name = {"id": f"chatcmpl-{self.id}", "object": kind}
        if not self.chat:
            name = {"id": f"cmpl-{self.id}", "object": "text_completion"}
        return {**name, "created": self.created, "model": self.job.model}

    def _chunk(self, choice: int, delta: Any, told: Any, finish: str | None) -> dict[str, Any]:
        said = {"delta": delta} if self.chat else {"text": delta}
        chunk = {"index": choice, **said, "logprobs": told, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [chunk]}

    def _logprobs(self, choice: int, pieces: Sequence[Any]) -> dict[str, Any] | None:
        if self.job.process.logprobs is None or not pieces:
            return None
        tokenizer = self.job.process.engine.tokenizer
        if self.chat:
            return logprobs.chat(tokenizer, pieces)
        at = self._offset.get(choice, 0)
        self._offset[choice] = at + sum(map(len, pieces))
        return logprobs.completion(tokenizer, pieces, at)

    def _message(self, choice: int, said: Said) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        told = self._logprobs(choice, said.pieces)
        return {"index": choice, "message": message, "logprobs": told, **_ended(said)}

    def _text(self, choice: int, said: Said) -> dict[str, Any]:
        told = self._logprobs(choice, said.pieces)
        return {"index": choice, "text": said.text or "", "logprobs": told, **_ended(said)}


def _ended(said: Said) -> dict[str, str | None]:
    """Why a choice ended, and, as vLLM tells it, by which stop text."""
    return {"finish_reason": said.finish, "stop_reason": said.reason}
