"""A procedure explores a process by asking; it holds no process, does no I/O and keeps no clock and no random state.

Calling `best_of_n(n=16, reward=r)` returns a `Method`: a frozen, printable, comparable value, an explorer with its
default decision. A run calls it for one generator, which yields asks and returns a population.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast, get_args, get_type_hints

import numpy as np

from anystep.errors import UsageError
from anystep.population import Decision, Population
from anystep.process import Floats, Process, Reward, Until


@dataclass(frozen=True)
class Start:
    """Ask for n fresh states; with `parents`, states that process `by` makes from all of them together.

    distinct: one is enough where the process can `expand`, because its fresh states are all alike.
    """

    n: int
    by: Process | None = None
    parents: Population | None = None
    path: tuple[int, ...] = ()
    distinct: bool = False


@dataclass(frozen=True)
class Step:
    """Ask for every live state's next step: `branch` children each (one where it is forced), by the run's process or
    another, until the step ends, until "done", or until k states of the population are done (the rest stay live, their
    step cut).

    draft: what comes out done is something to work on, such as a critique, and never an answer. drawn: children are
    independent draws also where the process can `expand`.
    """

    population: Population
    branch: int = 1
    by: Process | None = None
    until: Until = "step"
    draft: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class Score:
    """Ask for a reward's value of every state, paid once per (reward, state)."""

    population: Population
    by: Reward


@dataclass(frozen=True)
class Read:
    """Ask what each state says: the population with its `answers` and `texts`, which are a pure function of the states
    and free."""

    population: Population


@dataclass(frozen=True)
class Draw:
    """Ask for n uniform draws in [0, 1): a procedure's own randomness, so that a replay has it."""

    n: int
    path: tuple[int, ...] = ()


@dataclass(frozen=True)
class All:
    """Ask for several things at once; what can be merged is performed in one batch."""

    asks: tuple[Ask, ...]


Ask = Start | Step | Score | Read | Draw | All
Exploring = Generator[Ask, Any, Population]


def start(
    n: int, by: Process | None = None, parents: Population | None = None, distinct: bool = False
) -> Generator[Ask, Any, Population]:
    return cast(Population, (yield Start(n, by, parents, distinct=distinct)))


def step(
    population: Population,
    branch: int = 1,
    by: Process | None = None,
    until: Until = "step",
    draft: bool = False,
    drawn: bool = False,
) -> Generator[Ask, Any, Population]:
    return cast(Population, (yield Step(population, branch, by, until, draft, drawn)))


def score(population: Population, by: Reward) -> Generator[Ask, Any, Floats]:
    return cast(Floats, (yield Score(population, by)))


def read(population: Population) -> Generator[Ask, Any, Population]:
    return cast(Population, (yield Read(population)))


def draw(n: int) -> Generator[Ask, Any, Floats]:
    return cast(Floats, (yield Draw(n)))


@dataclass(frozen=True)
class Rule:
    """What an option must satisfy, said in words for the error message."""

    words: str
    holds: Callable[[Any], bool]


def _whole(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


Count = Annotated[int, Rule("a whole number, 1 or more", lambda x: _whole(x) and x >= 1)]
Flag = Annotated[bool, Rule("True or False", lambda x: isinstance(x, bool))]
Share = Annotated[float, Rule("a number in [0, 1]", lambda x: isinstance(x, (int, float)) and 0 <= x <= 1)]
Positive = Annotated[float, Rule("a positive number", lambda x: isinstance(x, (int, float)) and x > 0)]
ByReward = Annotated[Reward, Rule("a Reward, such as anystep.reward(function)", lambda x: isinstance(x, Reward))]
ByProcess = Annotated[Process, Rule("a Process", lambda x: isinstance(x, Process))]


@dataclass(frozen=True)
class Method:
    """An explorer with its options and its decision, as one value. `method.deciding(other)` changes the decision."""

    name: str
    options: tuple[tuple[str, Any], ...]
    body: Callable[..., Exploring]
    decision: Decision
    needs_mass: bool = False
    needs_end: bool = False
    needs_branches: bool = False

    def __call__(self) -> Exploring:
        return self.body(**dict(self.options))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.options)})"

    def deciding(self, decision: Decision) -> Method:
        return replace(self, decision=decision)

    def rewards(self) -> tuple[Reward, ...]:
        """The rewards among the options, a member method's too; the first is what a run cut short scores its finished
        states by."""
        found: list[Reward] = []
        for _, value in self.options:
            found += [value] if isinstance(value, Reward) else value.rewards() if isinstance(value, Method) else []
        return tuple(found)


def procedure(
    decide: Decision | Callable[..., Decision],
    needs_mass: bool = False,
    needs_end: bool = False,
    needs_branches: bool = False,
) -> Callable[[Callable[..., Exploring]], Callable[..., Method]]:
    """Make a generator function into a procedure: a call checks its options and returns a `Method`.

    decide: the default decision; of a method whose options are its decision's too, what makes it from all options.
    Options are checked against the rules in their annotations (`n: Count`, `reward: ByReward`). `needs_mass` says that
    it compares path log-probabilities, so a run refuses it a process whose log-probabilities are densities; `needs_end`
    that it steps for as long as a state is live, so a run without a budget refuses it an endless process;
    `needs_branches` that it asks for further children of a state one at a time, so a run refuses a deterministic one.
    """

    def wrap(body: Callable[..., Exploring]) -> Callable[..., Method]:
        signature = inspect.signature(body)

        @functools.wraps(body)
        def make(*args: Any, **options: Any) -> Method:
            try:
                bound = signature.bind(*args, **options)
            except TypeError as error:
                raise UsageError(f"{body.__name__}: {error}; call {body.__name__}{_shown(signature)}.") from None
            bound.apply_defaults()
            hints = get_type_hints(body, include_extras=True)
            for name, value in bound.arguments.items():
                _check(body.__name__, name, value, hints.get(name), signature)
            chosen = decide if isinstance(decide, Decision) else decide(**bound.arguments)
            needs = (needs_mass, needs_end, needs_branches)
            return Method(body.__name__, tuple(bound.arguments.items()), body, chosen, *needs)

        return make

    return wrap


def _shown(signature: inspect.Signature) -> str:
    return (
        f"({', '.join(n if p.default is p.empty else f'{n}={p.default!r}' for n, p in signature.parameters.items())})"
    )


def _check(procedure: str, name: str, value: Any, hint: Any, signature: inspect.Signature) -> None:
    options = get_args(hint)
    if value is None and type(None) in options:
        return
    annotated = [h for h in (hint, *options) if hasattr(h, "__metadata__")]
    for rule in (r for h in annotated for r in h.__metadata__ if isinstance(r, Rule)):
        if not rule.holds(value):
            raise UsageError(
                f"{procedure}({name}={value!r}): {name} must be {rule.words}; call {procedure}{_shown(signature)}."
            )
