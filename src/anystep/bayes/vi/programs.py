"""Models and guides: generator functions that sample at named addresses, run in a batch and scored on traces.

    def model():
        z = yield Sample(Normal(0.0, 1.0), "z")
        x = yield Sample(Normal(z, 0.5), "x")

A value has the shape (..., draws, *event): independent draws, with branches and copies before them. What is one value
with several numbers in it is an event: `Independent(Normal(m, s), 1)`. A program means a measure over its traces; with
factors an unnormalised one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from anystep.bayes.vi.expectations import Begin, Draw, Going
from anystep.bayes.vi.strategies import Fixed, Strategy, usual
from anystep.errors import UsageError

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Draw at an address; the program goes on with the value. by: the gradient's strategy, None for the usual one."""

    distribution: Distribution
    name: str
    by: Strategy | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.distribution, Distribution) or not isinstance(self.name, str):
            raise UsageError(
                f"Sample({self.distribution!r:.60}, {self.name!r:.20}): a torch distribution and its address, as in "
                'yield Sample(Normal(0.0, 1.0), "z").'
            )


@dataclass(frozen=True, slots=True)
class Factor:
    """Multiply the measure. weight: logarithms, one a draw."""

    weight: Tensor


def Observe(distribution: Distribution, value: Tensor) -> Factor:  # noqa: N802 - it reads as the effect that it is
    """Condition on having drawn `value`: a factor of its density."""
    return Factor(distribution.log_prob(value))


class Construct(ABC):
    """A distribution over traces whose density is known only as an estimate: `marginal` and `normalise` make them."""

    @abstractmethod
    def simulate(self) -> Going:
        """A trace and the logarithm of an estimate whose reciprocal's mean, given the trace, is 1 / density."""

    @abstractmethod
    def score(self, remaining: Trace) -> Going:
        """The logarithm of an estimate whose mean is the density of the values taken out of `remaining`."""


Program = Callable[[], Going] | Construct


@dataclass(frozen=True, slots=True)
class Inner:
    """Run another program as one random choice, with its addresses among this one's; go on with its trace."""

    program: Program


def simulate(program: Program) -> Going:
    """`trace, log_density = yield from simulate(program)`: draw a trace, each site by its strategy.

    Raises UsageError for a program with factors, which says how likely a trace is but not how to draw one.
    """
    if isinstance(program, Construct):
        return (yield from program.simulate())
    trace, density = Trace(), 0.0
    owner, answer = name_of(program), None
    yield Begin(owner)
    going = program()
    while (effect := sent(going, answer)) is not None:
        if isinstance(effect, Sample):
            answer, log = yield Draw(effect.distribution, effect.by or usual(effect.distribution), owner)
            record(trace, effect.name, answer)
        elif isinstance(effect, Inner):
            answer, log = yield from simulate(effect.program)
            for name, value in answer.items():
                record(trace, name, value)
        else:
            raise UsageError(f"{owner} has factors, so it draws nothing: normalise({owner}, proposal, n=10) does.")
        density = density + log
    return trace, density


def density(program: Program, trace: Mapping[str, Tensor]) -> Going:
    """`log_density = yield from density(program, trace)`: of a trace that has the program's addresses and no others."""
    remaining = dict(trace)
    found = yield from scored(program, remaining)
    if remaining:
        raise UsageError(
            f"{name_of(program)} never samples {', '.join(map(repr, remaining))}: density(program, trace) takes its "
            "addresses and no others."
        )
    return found


def scored(program: Program, remaining: Trace) -> Going:
    """The log-density of the program's addresses, which are taken out of `remaining`."""
    if isinstance(program, Construct):
        return (yield from program.score(remaining))
    found: Any = 0.0
    owner, answer = name_of(program), None
    yield Begin(owner)
    going = program()
    while (effect := sent(going, answer)) is not None:
        if isinstance(effect, Sample):
            if effect.name not in remaining:
                raise UsageError(f"{owner} samples {effect.name!r}, which the trace lacks: {list(remaining)}.")
            answer = remaining.pop(effect.name)
            log = effect.distribution.log_prob(answer)
        elif isinstance(effect, Inner):
            before = dict(remaining)
            log = yield from scored(effect.program, remaining)
            answer = {name: value for name, value in before.items() if name not in remaining}
        else:
            answer, log = None, effect.weight
        found = found + log
    return found


def condition(program: Callable[[], Going], data: Mapping[str, Tensor]) -> Callable[[], Going]:
    """The program with these addresses observed: unnormalised, over the others."""
    _plain(program, "condition")

    @wraps(program)
    def conditioned() -> Going:
        going, answer, unseen = program(), None, set(data)
        while (effect := sent(going, answer)) is not None:
            if isinstance(effect, Sample) and effect.name in data:
                answer = data[effect.name]
                unseen.discard(effect.name)
                yield Observe(effect.distribution, answer)
            else:
                answer = yield effect
        if unseen:
            raise UsageError(
                f"{name_of(program)} never samples {', '.join(sorted(unseen))}, which condition() observes."
            )

    return conditioned


def using(program: Callable[[], Going], by: Strategy | Mapping[str, Strategy]) -> Callable[[], Going]:
    """The program with another strategy, everywhere or by address."""
    return _drawing(program, lambda at: by if isinstance(by, Strategy) else by.get(at.name, at.by), "using")


def fixed(program: Callable[[], Going]) -> Callable[[], Going]:
    """The program as a source of data: what it draws has no derivative."""
    return _drawing(program, lambda at: Fixed(at.by or usual(at.distribution)), "fixed")


def _drawing(program: Program, by: Callable[[Sample], Strategy | None], what: str) -> Callable[[], Going]:
    """The program with other strategies, in the programs within it too."""
    plain = _plain(program, what)

    @wraps(plain)
    def drawn() -> Going:
        going, answer = plain(), None
        while (effect := sent(going, answer)) is not None:
            if isinstance(effect, Sample):
                answer = yield replace(effect, by=by(effect))
            else:
                answer = yield Inner(_drawing(effect.program, by, what)) if isinstance(effect, Inner) else effect

    return drawn


def _plain(program: Program, what: str) -> Callable[[], Going]:
    if isinstance(program, Construct):
        raise UsageError(f"{what}(program) changes a generator function: change what {name_of(program)} is made of.")
    return program


def sent(going: Going, answer: Any) -> Any:
    """What a model or guide yields next, None at its end. Raises UsageError for what is no effect."""
    try:
        effect = going.send(answer)
    except StopIteration:
        return None
    except AttributeError as error:
        if hasattr(going, "send"):
            raise
        raise UsageError(f"A program is a generator function without arguments; this gave {going!r:.60}.") from error
    if not isinstance(effect, Sample | Factor | Inner):
        raise UsageError(f"A program yields Sample, Observe, Factor or Inner, not {effect!r:.80}.")
    return effect


def record(trace: Trace, name: str, value: Any) -> None:
    if name in trace:
        raise UsageError(f"{name!r} is sampled twice in one run: an address names one choice.")
    trace[name] = value


def name_of(program: Program) -> str:
    return getattr(program, "__name__", type(program).__name__)
