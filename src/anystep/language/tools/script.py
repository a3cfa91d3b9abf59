"""A model for tests and examples, whose every turn has a known probability."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language.tools.dialogues import Call, Message
from anystep.language.tools.turns import Turn, Turns
from anystep.ledger import Cost, Limit
from anystep.process import Process, Status, Stepped, Until


@dataclass(frozen=True)
class Saying:
    """What a scripted model may say in a turn: text, calls, or both."""

    text: str = ""
    calls: tuple[Call, ...] = ()

    def __and__(self, other: Saying) -> Saying:
        """Both in one turn."""
        return Saying(self.text + other.text, self.calls + other.calls)

    def words(self) -> int:
        """How many tokens it is counted as: a word of text or a call is one."""
        return max(1, len(self.text.split()) + len(self.calls))


Policy = Callable[[tuple[Message, ...]], Mapping[Saying | str, float]]


def asks(name: str, **arguments: Any) -> Saying:
    """A turn that calls a tool."""
    return Saying(calls=(Call(name, json.dumps(arguments)),))


class Scripted(Turns):
    """Says what `policy` says of the conversation so far, with the probabilities that it says, which sum to one.

    A turn is written word by word: each word or call is a generated token and an evaluation. greedy: say the likeliest;
    of several, the first.
    """

    def __init__(self, policy: Policy, greedy: bool = False, name: str = "scripted") -> None:
        self.process = ScriptedTurn(policy, greedy, name)

    def begin(self, messages: Sequence[Message], before: Any | None) -> Sayings:
        return Sayings((Written(tuple(messages)),))

    def read(self, states: Sayings) -> tuple[Turn, ...]:
        return tuple(_turn(row) for row in states.rows)


@dataclass(frozen=True)
class Written:
    """A turn being written: what it answers to, what was chosen to be said, and how many of its words are there."""

    messages: tuple[Message, ...]
    saying: Saying | None = None
    words: int = 0


@dataclass(frozen=True)
class Sayings:
    """States of `ScriptedTurn`."""

    rows: tuple[Written, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Self:
        return type(self)(tuple(self.rows[i] for i in np.asarray(index, np.int64).tolist()))

    def join(self, *others: Self) -> Self:
        return type(self)(tuple(row for states in (self, *others) for row in states.rows))


class ScriptedTurn(Process):
    """Writes one scripted turn."""

    logp = "mass"
    horizon = 1

    def __init__(self, policy: Policy, greedy: bool, name: str) -> None:
        self.policy, self.greedy, self.name, self.branches = policy, greedy, name, not greedy

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(Sayings((Written(()),) * n), np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def forward(self, rows: Sequence[Written]) -> list[Mapping[Saying | str, float]]:
        """What may be said next, and how probably: all the work there is."""
        return [self.policy(row.messages) for row in rows]

    def step(self, states: Sayings, keys: Keys, limit: Limit, until: Until) -> Stepped:
        rows, n = list(states.rows), len(states)
        status, logp, cut = np.zeros(n, np.int8), np.zeros(n), np.zeros(n, bool)
        going = np.arange(n)
        while len(going):
            paid = limit.pay(going, each=Cost(generated=1, evaluations=1), once=Cost(calls=1))
            cut[going[~paid]] = True
            going = going[paid]
            laws = self.forward([rows[i] for i in going.tolist()]) if len(going) else []
            for i, law in zip(going.tolist(), laws, strict=True):
                rows[i], more = self._longer(rows[i], law, int(keys[i]))
                logp[i] += more
                status[i] = Status.DONE if rows[i].words >= _chosen(rows[i]).words() else Status.LIVE
            going = going[status[going] == Status.LIVE]
        return Stepped(Sayings(tuple(rows)), status, logp, np.zeros(n), limit.used, cut)

    def _longer(self, row: Written, law: Mapping[Saying | str, float], key: int) -> tuple[Written, float]:
        """One word more; what is said is chosen with the first."""
        if row.saying is not None:
            return replace(row, words=row.words + 1), 0.0
        sayings, p = list(law), np.array(list(law.values()), dtype=np.float64)
        if not sayings or (p < 0).any() or abs(p.sum() - 1) > 1e-9:
            raise UsageError(f"a policy gives turns with probabilities that sum to 1, not {dict(law)!r:.200}.")
        at = int(p.argmax()) if self.greedy else int(lineage.choose(p[None], lineage.uniforms([key]))[0])
        said = sayings[at]
        saying = Saying(said) if isinstance(said, str) else said
        return Written(row.messages, saying, 1), 0.0 if self.greedy else float(np.log(p[at]))

    def answers(self, states: Sayings) -> tuple[Hashable, ...]:
        return tuple(None if row.saying is None else row.saying.text for row in states.rows)

    def merges(self) -> Hashable:
        return "scripted", self.policy, self.greedy

    def dump(self, states: Sayings) -> bytes:
        return json.dumps([asdict(row) for row in states.rows]).encode()

    def load(self, data: bytes) -> Sayings:
        return Sayings(tuple(_written(record) for record in json.loads(data)))


def _written(record: Mapping[str, Any]) -> Written:
    saying = record["saying"]
    if saying is not None:
        saying = Saying(saying["text"], tuple(Call(**call) for call in saying["calls"]))
    return Written(tuple(record["messages"]), saying, record["words"])


def _chosen(row: Written) -> Saying:
    assert row.saying is not None
    return row.saying


def _turn(row: Written) -> Turn:
    """The message of a whole turn, its calls numbered on from those in the conversation."""
    saying = _chosen(row)
    before = sum(len(m.get("tool_calls") or ()) for m in row.messages)
    calls = tuple(replace(call, id=f"call-{before + i}") for i, call in enumerate(saying.calls, 1))
    message: dict[str, Any] = {"role": "assistant", "content": saying.text}
    if calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls
        ]
    return Turn(message, calls)
