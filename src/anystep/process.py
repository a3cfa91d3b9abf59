"""A process makes its output in steps, over a batch of states; a reward scores states, partial or finished.

This is the contract a model author implements. Nothing here knows a search algorithm, a budget or a clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from anystep.errors import Unsupported
from anystep.keys import Keys
from anystep.ledger import Cost, Limit

Floats = NDArray[np.float64]
Until = Literal["step", "done"] | int


class Status(IntEnum):
    """A state is live (it has steps to take), done (its output is complete), or failed (its error says why)."""

    LIVE, DONE, FAILED = 0, 1, 2


class States(Protocol):
    """n states side by side: immutable, opaque to procedures, and only their content: caches live in the process.

    Where equal states can be told, `contents()` gives something hashable for each (`Population.distinct` reads it).
    """

    def __len__(self) -> int: ...
    def take(self, index: NDArray[np.int64]) -> Self:
        """Fork, drop and reorder in one gather."""
        ...

    def join(self, *others: Any) -> Self: ...


@dataclass(frozen=True)
class Stepped:
    """What a process returns for a batch: the states reached, and what reaching them took.

    status: (n,) of `Status`. logp: (n,) log-probability of the choices just made, under the distribution they were
    drawn from. logw: (n,) log of target over proposal; zero where the process samples from its own target. cost has no
    default and must equal what was paid to the limit. cut: (n,) True where the limit refused in the middle of a step:
    the state is live, and its step goes on with the same key when it is asked again. errors: row to message, for
    failed rows. parent: from `expand` only, the row of the batch that each child came from, in order.
    """

    states: Any
    status: NDArray[np.int8]
    logp: Floats
    logw: Floats
    cost: Cost
    cut: NDArray[np.bool_] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)
    parent: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Scored:
    """Values (n,), NaN where a state could not be scored or paid for, and what scoring cost."""

    values: Floats
    cost: Cost


class Process(ABC):
    """Anything that makes outputs in steps: a language model, a sampler, a probabilistic program.

    Pure: what comes out depends on states, keys and the limit alone, and each row on its own key and state, so that
    batching changes no answer. Each draw is `keys.uniforms(key, position)` with the state's own clock as position.

    name: what costs are booked under. horizon: the most steps a state can take, None for an endless process. logp:
    whether log-probabilities are masses, densities, or not known. branches: False where a step is deterministic, so
    that asking for several children of one state makes no sense. expands: whether `expand` gives a state's distinct
    children; a procedure then asks for one fresh state where it would ask for several (`Start(distinct=True)`), so its
    starts must all be alike. concurrent: whether its work waits on something elsewhere, as an endpoint does, so that
    runs on it are better driven side by side than in lockstep; its calls must then be safe in several threads.
    """

    name: str = "process"
    horizon: int | None = None
    logp: Literal["mass", "density", "unknown"] = "unknown"
    branches: bool = True
    expands: bool = False
    concurrent: bool = False

    def __repr__(self) -> str:
        return self.name

    @abstractmethod
    def start(self, keys: Keys, limit: Limit) -> Stepped:
        """One fresh state a key."""

    @abstractmethod
    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        """Advance every state by one step, until it is done, or until `until` (an int) of them are done.

        Before each unit of work it pays the limit and goes on with the rows that were paid for; rows that were refused
        come back live and cut. States that cannot finish alone come back done or failed, never live for ever.
        """

    @abstractmethod
    def answers(self, states: Any) -> tuple[Hashable, ...]:
        """What each state says, for votes and for display; None where it gives no answer."""

    def texts(self, states: Any) -> tuple[str, ...]:
        """Each state's whole output as text, for display."""
        return tuple("" if a is None else str(a) for a in self.answers(states))

    def expand(self, states: Any, k: int, keys: Keys, limit: Limit) -> Stepped:
        """Up to k distinct children of every state, one step on, with `parent` saying whose they are.

        keys: (n * k,), parent by parent; a parent with fewer than k distinct children has fewer rows. Only called where
        `expands` is True; elsewhere children are sampled, and may repeat.
        """
        raise Unsupported(f"{self.name} says expands=True; implement expand(states, k, keys, limit).")

    def forced(self, states: Any) -> NDArray[np.bool_]:
        """Which states have one next step only, whatever its key, as where a call waits for its result: whoever asks
        for several of their children gets that one."""
        return np.zeros(len(states), dtype=bool)

    def fuse(self, parents: Any, keys: Keys, limit: Limit) -> Stepped:
        """New states made from all of `parents` together, one a key."""
        raise Unsupported(
            f"{self.name} cannot fuse states; give Start(by=...) a process that implements fuse(parents, keys, limit)."
        )

    def merges(self) -> Hashable:
        """Processes that return equal values here may have their states stepped in one batch. Itself by default."""
        return id(self)

    def forget(self) -> None:
        """Drop what is cached, so that the next run pays for all it uses: comparisons call it between methods."""

    def warm(self, states: Any) -> None:
        """Compute again, at nobody's cost, what these states had in a cache: a resumed run then pays what it would have
        paid without the interruption."""

    def settings(self) -> str:
        """What decides its outputs beside its name, as text without secrets: a journal is replayed on an equal one."""
        return ""

    def dump(self, states: Any) -> bytes:
        """States as bytes, for a journal; `load` is its inverse."""
        raise Unsupported(f"{self.name} cannot write its states down; implement dump(states) and load(data).")

    def load(self, data: bytes) -> Any:
        raise Unsupported(f"{self.name} cannot read states; implement dump(states) and load(data).")


class Reward(ABC):
    """Scores states: higher is better, within a declared range. Compared and hashed by name and settings.

    A frozen dataclass makes a good reward: it is paid once per (reward, state), and two that are equal share a payment.
    """

    name: str = "reward"
    range: tuple[float, float] = (0.0, 1.0)

    @abstractmethod
    def __call__(self, states: Any, limit: Limit) -> Scored:
        """Score each state, paying first; NaN where the limit refused."""

    def source(self) -> Reward:
        """The reward that is paid for; a conversion such as log-odds answers with what it converts."""
        return self

    def read(self, values: Floats) -> Floats:
        """This reward's values from its source's."""
        return values

    def forget(self) -> None:
        """Drop what is cached, so that the next run pays for all it uses."""

    def warm(self, states: Any) -> None:
        """Compute again, at nobody's cost, what scoring these states had left in a cache."""

    def log_odds(self, clip: float = 1e-4) -> Potential:
        """As a potential; see `LogOdds` for the target that results."""
        return LogOdds(self, clip)


class Potential(Reward):
    """A reward in log units. Its value at a finished state is what tilts the target: p(x) exp(potential(x)).

    Values at unfinished states only steer: a particle filter weights by their change, so they telescope away.
    """

    range = (-np.inf, np.inf)


@dataclass(frozen=True)
class FunctionReward(Reward):
    """A free reward from a plain function of states."""

    function: Callable[[Any], Any]
    name: str
    range: tuple[float, float] = (0.0, 1.0)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(np.asarray(self.function(states), dtype=np.float64), Cost())


@dataclass(frozen=True)
class FunctionPotential(Potential):
    """A free potential from a plain function of states, in log units."""

    function: Callable[[Any], Any]
    name: str

    def __repr__(self) -> str:
        return self.name

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return Scored(np.asarray(self.function(states), dtype=np.float64), Cost())


@dataclass(frozen=True)
class LogOdds(Potential):
    """A reward r in [0, 1] as the potential log(r / (1 - r)), clipped to r in [clip, 1 - clip].

    The target that results is p(x) r(x) / (1 - r(x)), with r read at the finished state. A process reward that returns
    its last step's probability thus tilts by the last step's odds alone; the earlier ones steer.
    """

    reward: Reward
    clip: float = 1e-4

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.reward.name}.log_odds"

    def source(self) -> Reward:
        return self.reward.source()

    def read(self, values: Floats) -> Floats:
        r = np.clip(self.reward.read(values), self.clip, 1 - self.clip)
        return np.asarray(np.log(r) - np.log1p(-r))

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = self.source()(states, limit)
        return Scored(self.read(scored.values), scored.cost)


def reward(function: Callable[[Any], Any], name: str | None = None, range: tuple[float, float] = (0.0, 1.0)) -> Reward:
    """Wrap a plain function of states into a reward that costs nothing."""
    return FunctionReward(function, name or function.__name__, range)


def potential(function: Callable[[Any], Any], name: str | None = None) -> Potential:
    """Wrap a plain function of states into a potential, in log units, that costs nothing."""
    return FunctionPotential(function, name or function.__name__)
