"""A step reward that says nothing: a state gets the value of another state that was as many steps long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep import keys
from anystep.drive import drive
from anystep.ledger import Limit
from anystep.process import Reward, Scored
from anystep.run import Run
from anystep.search import sample
from anystep.solve import process_for
from anystep.tasks.chains import STEP_END
from anystep.tasks.task import Task
from anystep.testing.limits import unlimited


@dataclass(frozen=True)
class Shuffled(Reward):
    """`reward` with its values dealt out again among states of equal length, by each state's own text: their law is
    kept, what they say of a state is lost. Costs what `reward` costs. values: sorted values by number of steps."""

    reward: Reward
    values: Mapping[int, tuple[float, ...]] = field(compare=False, repr=False)
    seed: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.reward.name}, shuffled"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = self.reward(states, limit)
        texts = list(zip(states.prompts(), states.texts(), strict=True))
        own = np.array([keys.named(f"shuffled {self.seed}:{prompt}{text}") for prompt, text in texts], np.uint64)
        u = keys.uniforms(own)
        dealt = [self._dealt(text.count(STEP_END) + ("." in text), u[i]) for i, (_, text) in enumerate(texts)]
        return Scored(np.where(np.isnan(scored.values), np.nan, dealt), scored.cost)

    def _dealt(self, steps: int, u: float) -> float:
        some = self.values[min(steps, max(self.values))] if steps else (0.5,)
        return some[int(u * len(some))]

    def forget(self) -> None:
        self.reward.forget()


def values_by_length(reward: Reward, engine: Any, tasks: list[Task], n: int = 4) -> dict[int, tuple[float, ...]]:
    """What a reward says of n samples of each task, wherever a step of theirs ends."""
    found: dict[int, list[float]] = {}
    answers = drive(
        *(Run(process_for(task, engine, temperature=1.0), sample(n=n), seed=i) for i, task in enumerate(tasks))
    )
    for answer in answers:
        assert answer.population is not None
        states = answer.population.states
        for steps, prefixes in _prefixes(states).items():
            found.setdefault(steps, []).extend(reward(prefixes, unlimited()).values.tolist())
    return {steps: tuple(sorted(values)) for steps, values in sorted(found.items())}


def _prefixes(states: Any) -> dict[int, Any]:
    """The states that some finished ones passed through, by number of steps: each cut after a step's end."""
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for tokens, first, text in zip(states.tokens, states.starts, states.texts(), strict=True):
        ends = [i + 1 for i, symbol in enumerate(text) if symbol == STEP_END]
        for steps, end in enumerate([*ends, len(text)], 1):
            found.setdefault(steps, []).append((tokens[: first + end], first))
    kind = type(states)
    return {
        steps: kind(tuple(t for t, _ in rows), tuple(s for _, s in rows), states.tokenizer)
        for steps, rows in found.items()
    }
