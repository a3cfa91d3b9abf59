"""The learned step reward of ChainLM: how likely a chain is still right, read where its steps end."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.prefill import opened, portions, read_each
from anystep.language.train.reward import StepReward, step_reward
from anystep.ledger import Ledger, Limit
from anystep.process import Floats, Reward, Scored
from anystep.tasks.chains import CHAIN_END, STEP_END

Aggregate = Literal["last", "product", "min"]

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda p: p[-1],
    "product": math.prod,
    "min": min,
}


@dataclass(frozen=True)
class ChainSteps(Reward):
    """The probability that a chain is right so far, in [0, 1]; an unbegun chain has `prior`.

    The model reads a state's tokens through a prefix cache, so extending a state pays for its new tokens alone: prompt
    tokens on the ledger, for a verifier reads and does not write. aggregate: how the steps' probabilities become one:
    the last step's (taught of the whole prefix, but it can forget an early error), their product, or the least.
    """

    name: str
    aggregate: Aggregate = "product"
    prior: float = 0.5
    maker: ClassVar[str] = "chain_steps"
    engine: Any = field(default=None, compare=False, repr=False)
    judge: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), self.prior)
        rows, sequences, starts = self._begun(states)
        if len(rows):
            values[rows] = self._read(sequences, starts, rows, limit)
        return Scored(values, limit.used)

    def _begun(self, states: Any) -> tuple[NDArray[np.int64], list[tuple[int, ...]], list[int]]:
        """The rows with a finished step, the tokens to be read for each, and where its chain begins."""
        prompts, chains = self._encoded(states.prompts()), self._encoded(map(finished, states.texts()))
        rows = np.flatnonzero([bool(chain) for chain in chains])
        return rows, [prompts[row] + chains[row] for row in rows], [len(prompts[row]) for row in rows]

    def _encoded(self, texts: Iterable[str]) -> list[tuple[int, ...]]:
        try:
            return [tuple(self.engine.tokenizer.encode(text)) for text in texts]
        except UsageError as error:
            raise UsageError(
                f"{self.maker} reads what a chain model writes, and {error} Use it with model='chainlm-2m', or "
                "verify.equations(question)."
            ) from error

    def _read(
        self, sequences: list[tuple[int, ...]], starts: list[int], rows: NDArray[np.int64], limit: Limit
    ) -> Floats:
        def read(hidden: Tensor, i: int) -> float:
            return self.together(self.judge.read(hidden, sequences[i], starts[i]))

        return read_each(self.engine, sequences, rows, limit, read)

    def together(self, steps: Sequence[float]) -> float:
        """One value from the probabilities that all is right after each step."""
        return AGGREGATES[self.aggregate](steps)

    def forget(self) -> None:
        self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        sequences = self._begun(states)[1]
        with self.engine.lock:
            for some in portions(self.engine, sequences):
                _, session = opened(self.engine, [sequences[i] for i in some.tolist()], Limit(Ledger(), self.name))
                if session is not None:
                    session.close()


def finished(chain: str) -> str:
    """The finished steps of a chain: up to its full stop, else up to its last line's end."""
    body, stop, _ = chain.partition(CHAIN_END)
    return body + stop if stop else body[: body.rfind(STEP_END) + 1]


@functools.cache
def loaded(model: str | Path) -> tuple[Engine, StepReward]:
    """A reward model, shipped or by its card's path, and the engine that reads with its trunk."""
    path = Path(model)
    judge = step_reward(path.stem, path.parent) if path.suffix == ".json" else step_reward(str(model))
    judge.requires_grad_(False)
    name = path.stem if path.suffix == ".json" else str(model)
    return Engine(judge.trunk, Alphabet(judge.alphabet.symbols), name=name), judge


def chain_steps(model: str | Path = "chainlm-2m-step-reward", aggregate: Aggregate = "product") -> ChainSteps:
    """The learned step reward that ships with ChainLM, over the states of a chain model.

    model: another step reward's card, such as one trained from your own labels. Preserves nothing. As a potential
    (`.log_odds()`) with the last step's aggregate the target that results is p(x) times the odds that x is right;
    earlier steps only steer.
    """
    if aggregate not in AGGREGATES:
        raise UsageError(f"chain_steps(aggregate={aggregate!r}): one of {', '.join(AGGREGATES)}.")
    engine, judge = loaded(model)
    return ChainSteps(engine.name, aggregate, engine=engine, judge=judge)
