"""A process written as one unit of work on arrays: this pays for it, repeats it, stops where it must and collects."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anystep.keys import Keys
from anystep.ledger import Cost, Limit
from anystep.process import Floats, Process, Status, Stepped, Until


@dataclass(frozen=True, eq=False)
class Arrays:
    """States whose every field is an array with the states first; subclasses only name the fields."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, index: NDArray[np.int64]) -> Self:
        rows = np.asarray(index, dtype=np.int64)
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, *others: Any) -> Self:
        return replace(
            self, **{f.name: np.concatenate([getattr(s, f.name) for s in (self, *others)]) for f in fields(self)}
        )

    def contents(self) -> tuple[tuple[bytes, ...], ...]:
        """What tells states apart: the bytes of their fields."""
        arrays = [np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)]
        return tuple(tuple(a[row].tobytes() for a in arrays) for row in range(len(self)))

    def put(self, rows: NDArray[np.int64], states: Self) -> Self:
        """A copy with `states` in place of `rows`."""
        copies = {f.name: getattr(self, f.name).copy() for f in fields(self)}
        for name, copy in copies.items():
            copy[rows] = getattr(states, name)
        return replace(self, **copies)

    def dump(self) -> bytes:
        """One line of JSON that describes the fields, then their bytes."""
        arrays = {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}
        header = [[name, a.dtype.str, a.shape] for name, a in arrays.items()]
        return json.dumps(header).encode() + b"\n" + b"".join(a.tobytes() for a in arrays.values())

    @classmethod
    def load(cls, data: bytes) -> Self:
        header, _, body = data.partition(b"\n")
        found, at = {}, 0
        for name, dtype, shape in json.loads(header):
            count = int(np.prod(shape))
            found[name] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
            at += found[name].nbytes
        return cls(**found)


@dataclass(frozen=True)
class Moved:
    """Where one unit of work leads, row by row; `errors` has a message for each failed row."""

    states: Any
    status: NDArray[np.int8]
    logp: Floats
    logw: Floats
    errors: Mapping[int, str] = field(default_factory=dict)


class Stepwise(Process):
    """A process written as one unit of work: `advance` moves rows by it, this class pays, stops and collects.

    Subclasses give `begin`, `price`, `advance`, and compute their numbers in `forward(rows, ...)` alone, so that a hook
    there counts the work that was really done.
    """

    states: ClassVar[type[Arrays]]

    @abstractmethod
    def begin(self, keys: Keys) -> Any:
        """One fresh state a key, made without work."""

    @abstractmethod
    def advance(self, states: Any, keys: Keys) -> Moved:
        """One unit of work on each state, drawing at the state's own clock."""

    def price(self, states: Any) -> Cost | Sequence[Cost]:
        """What the next unit of work costs, for each state: one cost for all, or one a state."""
        return Cost(evaluations=1)

    def once(self, states: Any) -> Cost:
        """What the next unit of work costs beside, for the batch."""
        return Cost(calls=1)

    def free(self, states: Any) -> NDArray[np.bool_]:
        """Which states move without any work, and so without paying."""
        return np.zeros(len(states), dtype=bool)

    def boundary(self, states: Any) -> NDArray[np.bool_]:
        """Whether a step ends here; every unit is a step unless a subclass says otherwise."""
        return np.ones(len(states), dtype=bool)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        return Stepped(self.begin(keys), np.zeros(n, dtype=np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        n = len(states)
        status, cut = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=bool)
        logp, logw, errors = np.zeros(n), np.zeros(n), dict[int, str]()
        rows = np.arange(n)
        while len(rows):
            moving = states.take(rows)
            due, paid = np.flatnonzero(~self.free(moving)), np.ones(len(rows), dtype=bool)
            buying = moving.take(due)
            paid[due] = limit.pay(rows[due], each=self.price(buying), once=self.once(buying))
            cut[rows[~paid]] = True
            rows = rows[paid]
            if len(rows) == 0:
                break
            moved = self.advance(states.take(rows), keys[rows])
            states = states.put(rows, moved.states)
            status[rows] = moved.status
            logp[rows] += moved.logp
            logw[rows] += moved.logw
            errors.update({int(rows[i]): text for i, text in moved.errors.items()})
            for row in rows.tolist():
                limit.show(int(keys[row]), int(status[row]), row)
            if isinstance(until, int) and (status == Status.DONE).sum() >= until:
                break
            going = status[rows] == Status.LIVE
            rows = rows[going & ~self.boundary(moved.states)] if until == "step" else rows[going]
        if until != "step":
            cut |= status == Status.LIVE
        return Stepped(states, status, logp, logw, limit.used, cut, errors)

    def dump(self, states: Any) -> bytes:
        return bytes(states.dump())

    def load(self, data: bytes) -> Any:
        return self.states.load(data)
