"""Who takes the model's turns: the one seam between tool-using trajectories and the models that speak in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from anystep.language.tools.dialogues import Call, Message
from anystep.process import Process


@dataclass(frozen=True)
class Turn:
    """What a model said: the message as the conversation keeps it, and the calls that it asks for."""

    message: Message
    calls: tuple[Call, ...] = ()


class Turns(ABC):
    """A process whose states are turns being written, how a conversation becomes one, and what it says in the end.

    process: runs a turn from `begin` to its end as any process runs its states: paying, cut, resumed, drawing by key.
    """

    process: Process

    @abstractmethod
    def begin(self, messages: Sequence[Message], before: Any | None) -> Any:
        """One state of `process`, the next turn of this conversation. Free.

        before: the last turn's finished state, in the same conversation, where there was one: what it had in a cache
        can be gone on from. Raises an AnystepError where the conversation cannot be gone on with.
        """

    @abstractmethod
    def read(self, states: Any) -> tuple[Turn, ...]:
        """What finished turns say."""

    def result(self, call: Call, text: str) -> Message:
        """The message that brings a call's result."""
        return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": text}

    def merges(self) -> Hashable:
        """Turns that return equal values here may write theirs in one batch."""
        return type(self).__name__, self.process.merges()
