"""Trajectories of a model with tools, as a process: a step is one turn of the model, or the result of one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic_core import PydanticSerializationError, to_json

from anystep.errors import UsageError
from anystep.keys import Keys, named
from anystep.language.tools.calling import Job
from anystep.language.tools.dialogues import Call, Dialogue, Dialogues, Message
from anystep.language.tools.race import side_by_side
from anystep.language.tools.steps import Steps
from anystep.language.tools.tool import Misuse, Tool, tool
from anystep.language.tools.turns import Turns
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until

Prompt = str | Sequence[Message]


class ToolProcess(Process):
    """A model that may call `tools` before it answers. Samples exactly what the model does with results as they come.

    model: a loaded engine (its turns are text, see `TextTurns`), an endpoint or its URL (see `ChatTurns`), or any
    `Turns`. messages: a question, or chat messages. tools: functions, or `tool(function)` with options. world: the JSON
    value that tools with `world=True` read and replace; each trajectory has its own, and forks share none of it.
    options: those of the turns, such as temperature and max_tokens.

    unit: a step is one turn or one result, or with "exchange" a turn with the results of its calls, so that a reward of
    steps sees what came of each.

    A trajectory is done when the model answers without a call, or a tool with `final=True` has been called well. After
    max_turns turns one that still asks for tools is "failed", or "done" once it has their results (at_cap). Of one turn
    max_calls calls are made, one by one, in their order; the rest are told so. What a model asks for wrongly (an
    unknown tool, arguments that are no JSON or do not fit) becomes an error result that it reads. extract: reads the
    answer that is voted on out of the final text; by default the stripped text, None where that is empty. at_once:
    calls of different trajectories that run side by side, each in a thread. Where the model is served, whole
    trajectories go on at their own pace, so that the first to finish is the first in time; else in rounds.

    Tools with effects outside their world have them in every branch that calls them, also in those that are dropped,
    and again where a call was given up and is made anew. Log-probabilities are of what the model wrote. Asked for
    several children of a state it samples as many turns; a pending call is made once, and its result is the one child.
    """

    def __init__(
        self,
        model: Any,
        messages: Prompt,
        tools: Iterable[Callable[..., Any] | Tool],
        *,
        unit: Literal["step", "exchange"] = "step",
        world: Any = None,
        max_turns: int = 8,
        max_calls: int = 8,
        at_cap: Literal["failed", "done"] = "failed",
        extract: Callable[[str], Hashable | None] | None = None,
        at_once: int = 8,
        name: str | None = None,
        **options: Any,
    ) -> None:
        _check(max_turns=max_turns, max_calls=max_calls, at_once=at_once)
        if unit not in ("step", "exchange"):
            raise UsageError(f"ToolProcess(unit={unit!r}): a unit is 'step' or 'exchange'.")
        if at_cap not in ("failed", "done"):
            raise UsageError(f"ToolProcess(at_cap={at_cap!r}): 'failed' or 'done'.")
        self.tools = _by_name(tools)
        self.turns = turns_of(model, tuple(self.tools.values()), options)
        inner = self.turns.process
        self.max_turns, self.max_calls, self.at_cap, self.at_once = max_turns, max_calls, at_cap, at_once
        self.extract, self.name = extract, name or inner.name
        self.whole = unit == "exchange"
        self.horizon, self.logp = max_turns * (1 if self.whole else 1 + max_calls), inner.logp
        self.branches, self.concurrent = inner.branches, inner.concurrent
        self.first = Dialogue(_messages(messages), _world(world), writing=True)
        self.begun = self.turns.begin(self.first.messages, None)

    @property
    def process(self) -> Process:
        """The process that writes the turns."""
        return self.turns.process

    def job(self, row: int, call: Call, world: str) -> Job:
        """The call as a job; raises Misuse with what the model is told where it cannot be made."""
        if call.broken:
            raise Misuse(call.broken)
        if call.name not in self.tools:
            raise Misuse(f"there is no tool {call.name[:64]!r}; the tools are {', '.join(self.tools)}")
        found = self.tools[call.name]
        return Job(row, found, found.checked(call.arguments), world)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        states = Dialogues((self.first,) * n, self.begun.take(np.zeros(n, np.int64)))
        return Stepped(states, np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Dialogues, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if until != "step" and self.concurrent and len(states) > 1:
            return side_by_side(self, states, keys, limit, until)
        return Steps(self, states, keys, limit, until).run()

    def forced(self, states: Dialogues) -> NDArray[np.bool_]:
        """Where a call is pending: its result is the only child."""
        return np.array([bool(row.pending) for row in states.rows], dtype=bool)

    def answers(self, states: Dialogues) -> tuple[Hashable, ...]:
        read = self.extract or _stripped
        return tuple(None if row.final is None else read(row.final) for row in states.rows)

    def texts(self, states: Dialogues) -> tuple[str, ...]:
        """Each trajectory's answer, or else what its model said last; `states.transcripts()` has all of it."""
        return states.texts()

    def merges(self) -> Hashable:
        """Trajectories with the same tools, under the same rules, of turns that share batches."""
        rules = (tuple(self.tools.values()), self.whole, self.max_turns, self.max_calls, self.at_cap, self.at_once)
        return "tools", self.turns.merges(), rules

    def forget(self) -> None:
        self.process.forget()

    def warm(self, states: Dialogues) -> None:
        self.process.warm(states.turn)

    def settings(self) -> str:
        tools = [(each.described(), each.world, each.final, each.on_error) for each in self.tools.values()]
        begun = json.dumps([list(self.first.messages), self.first.world, tools])
        rules = (self.max_turns, self.max_calls, self.at_cap, getattr(self.extract, "__qualname__", None))
        return f"begun {named(begun):016x}, {rules}; turns: {self.process.settings()}"

    def dump(self, states: Dialogues) -> bytes:
        return states.dump(self.process.dump(states.turn))

    def load(self, data: bytes) -> Dialogues:
        rows, turn = Dialogues.read(data)
        return Dialogues(rows, self.process.load(turn))


def turns_of(model: Any, tools: tuple[Tool, ...], options: Mapping[str, Any]) -> Turns:
    """Who takes the turns of `model`."""
    if isinstance(model, Turns):
        if options:
            raise UsageError(f"ToolProcess({model!r}, {next(iter(options))}=...): give it where the turns are made.")
        return model
    from anystep.language.endpoint import Endpoint

    if isinstance(model, Endpoint) or (isinstance(model, str) and "://" in model):
        from anystep.language.tools.chat import ChatTurns

        return ChatTurns(model, tools, **options)
    from anystep.language.tools.text import TextTurns  # a local model brings torch with it

    return TextTurns(model, tools, **options)


def _stripped(text: str) -> str | None:
    return text.strip() or None


def _by_name(tools: Iterable[Callable[..., Any] | Tool]) -> dict[str, Tool]:
    if isinstance(tools, (str, Tool)) or not isinstance(tools, Iterable):
        raise UsageError(f"ToolProcess(tools={tools!r:.60}): a list of functions, such as tools=[add, look_up].")
    made = [tool(each) for each in tools]
    names = [each.name for each in made]
    if not made or len(set(names)) < len(names):
        said = f"two tools are called {max(names, key=names.count)!r}" if made else "there are none"
        raise UsageError(
            f"ToolProcess(tools=...): {said}; give functions with names of their own: tools=[add, look_up]."
        )
    return dict(zip(names, made, strict=True))


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    fine = (
        isinstance(messages, (list, tuple))
        and messages
        and all(isinstance(m, Mapping) and "role" in m for m in messages)
    )
    if not fine:
        raise UsageError(
            f"{prompt!r:.60} is no prompt: give text, or messages such as [{{'role': 'user', 'content': 'Hello'}}]."
        )
    try:
        return tuple(json.loads(json.dumps(messages)))  # a copy of the process's own
    except (TypeError, ValueError):
        raise UsageError(
            "ToolProcess(messages=...): messages are JSON: [{'role': 'user', 'content': 'Hello'}]."
        ) from None


def _world(world: Any) -> str:
    try:
        return to_json(world).decode()
    except (PydanticSerializationError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"ToolProcess(world={world!r:.60}): a JSON value, such as {{'at': [0, 0]}} ({reason})."
        ) from None


def _check(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"ToolProcess({name}={value!r}): a positive whole number, such as 8.")
