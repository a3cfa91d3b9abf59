"""What a tool-using process's state is: a conversation, the calls it waits for, and its world. Nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Message = Mapping[str, Any]  # as chat servers write it: role, content, tool_calls, tool_call_id


@dataclass(frozen=True)
class Call:
    """A call that a model asked for, as it wrote it: neither the name nor the arguments are to be trusted.

    broken: why what it wrote cannot be read as a call at all.
    """

    name: str
    arguments: str = "{}"
    id: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Dialogue:
    """One trajectory. A value: forks share it, and nothing changes it.

    messages: the conversation so far, its prompt first. world: the world of its tools, as JSON. pending: calls of the
    last turn that have no result yet. answered: how many of them have one. turns: how many the model has taken. steps:
    those turns, and the results. writing: whether its next turn has been begun. final: the answer it ended with.
    """

    messages: tuple[Message, ...]
    world: str = "null"
    pending: tuple[Call, ...] = ()
    answered: int = 0
    turns: int = 0
    steps: int = 0
    writing: bool = False
    final: str | None = None

    def said(self) -> str:
        """Its answer, or else what the model said last."""
        if self.final is not None:
            return self.final
        turns = (text_of(m) for m in reversed(self.messages) if m.get("role") == "assistant")
        return next(turns, "") if self.turns else ""

    def transcript(self) -> str:
        """All of it for people to read: who said what, each call, and its result."""
        lines: list[str] = []
        for message in self.messages:
            role, text = str(message.get("role")), text_of(message)
            lines += [f"{role}: {text}"] if text or role != "assistant" else []
            for call in message.get("tool_calls") or ():
                asked = call.get("function", {})
                lines.append(f"{role} calls {asked.get('name')}({asked.get('arguments')})")
        return "\n".join(lines)


@dataclass(frozen=True)
class Dialogues:
    """n trajectories side by side, and what their models are writing.

    turn: one state of the turns' process a row: the turn that is being written, or the last one that was.
    """

    rows: tuple[Dialogue, ...]
    turn: Any

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Self:
        rows = np.asarray(index, dtype=np.int64)
        return type(self)(tuple(self.rows[i] for i in rows.tolist()), self.turn.take(rows))

    def join(self, *others: Self) -> Self:
        rows = tuple(row for states in (self, *others) for row in states.rows)
        return type(self)(rows, self.turn.join(*(other.turn for other in others)))

    def put(self, index: NDArray[np.int64], turn: Any) -> Any:
        """The turns, with those of `turn` in place of the rows `index`."""
        others = np.setdiff1d(np.arange(len(self)), index)
        order = np.argsort(np.concatenate([others, index]), kind="stable")
        return self.turn.take(others).join(turn).take(order)

    def messages(self) -> tuple[tuple[Message, ...], ...]:
        """Each conversation so far, in the form that chat servers take."""
        return tuple(row.messages for row in self.rows)

    def worlds(self) -> tuple[Any, ...]:
        """Each trajectory's world, as a JSON value."""
        return tuple(json.loads(row.world) for row in self.rows)

    def texts(self) -> tuple[str, ...]:
        """Each trajectory's answer, or else what its model said last."""
        return tuple(row.said() for row in self.rows)

    def prompts(self) -> tuple[str, ...]:
        """What each trajectory was asked: the last thing that the user said."""
        said = ((text_of(m) for m in reversed(row.messages) if m.get("role") == "user") for row in self.rows)
        return tuple(next(found, "") for found in said)

    def transcripts(self) -> tuple[str, ...]:
        return tuple(row.transcript() for row in self.rows)

    def dump(self, turn: bytes) -> bytes:
        """One line of JSON, and then `turn`: the turns as their own process writes them down."""
        return json.dumps([asdict(row) for row in self.rows]).encode() + b"\n" + turn

    @staticmethod
    def read(data: bytes) -> tuple[tuple[Dialogue, ...], bytes]:
        """The rows and the turns that `dump` wrote."""
        line, _, turn = data.partition(b"\n")
        records = json.loads(line)
        for record in records:
            record["messages"] = tuple(record["messages"])
            record["pending"] = tuple(Call(**call) for call in record["pending"])
        return tuple(Dialogue(**record) for record in records), turn


def text_of(message: Message) -> str:
    """A message's text; of one made of parts, the text parts."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
