"""A reward that is shown something else than what was written, such as the chain that a recheck has left standing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Reward, Scored


@dataclass(frozen=True)
class Reread(Reward):
    """`reward` of states whose outputs have gone through `show`; it costs what `reward` does on those."""

    reward: Reward
    show: Callable[[str], str]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.reward.name

    @property
    def range(self) -> tuple[float, float]:  # type: ignore[override]
        return self.reward.range

    def __call__(self, states: Any, limit: Limit) -> Scored:
        return self.reward(self._read(states), limit)

    def _read(self, states: Any) -> Sequences:
        begun = (tokens[:start] for tokens, start in zip(states.tokens, states.starts, strict=True))
        shown = (tuple(states.tokenizer.encode(self.show(text))) for text in states.texts())
        tokens = tuple(prompt + output for prompt, output in zip(begun, shown, strict=True))
        return Sequences(tokens, states.starts, states.tokenizer)

    def forget(self) -> None:
        self.reward.forget()

    def warm(self, states: Any) -> None:
        self.reward.warm(self._read(states))


def reread(reward: Reward, show: Callable[[str], str]) -> Reread:
    """`reward`, shown `show(text)` in place of what was written: `reread(chain_steps(), rechecked)` judges the chain
    that is left when a model's rechecks have been followed."""
    return Reread(reward, show)
