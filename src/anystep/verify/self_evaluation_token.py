"""A model that was trained to is asked by one character whether it would do better starting over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.loading import load
from anystep.language.prefill import opened, portions, read_each
from anystep.language.train.capability import ASK, KEEP, TRAINED, capability
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Reward, Scored


@dataclass(frozen=True, kw_only=True)
class SelfEvaluationToken(Reward):
    """The probability of one predefined token behind one question token: by the model's own account, that a fresh
    sample would not be better, in [0, 1]; NaN where the question has no room in the context.

    The question stands on a fork of the state, which goes on without it. On the writer's own engine all but a state's
    last token lies in the cache, so that one asking costs the question token, as prompt, and two evaluations.
    """

    name: str
    ask: int
    keep: int
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), np.nan)
        sequences = self._asked(states)
        rows = np.flatnonzero([len(tokens) <= self.engine.config.context for tokens in sequences])
        chosen = [sequences[row] for row in rows.tolist()]
        sizes = [(len(states.tokens[row]), states.starts[row]) for row in rows.tolist()]
        drawn = [size if size > start else 0 for size, start in sizes]  # the question is prompt, the last token is not

        def read(hidden: Tensor, i: int) -> float:
            logits: Tensor = self.engine.model.logits(hidden[-1:]).float()
            return float(logits.softmax(-1)[0, self.keep])

        each = Cost(flops=self.engine.flops(0, 0, heads=1))
        values[rows] = read_each(self.engine, chosen, rows, limit, read, each, drawn)
        return Scored(values, limit.used)

    def _asked(self, states: Any) -> list[tuple[int, ...]]:
        if getattr(states, "tokenizer", None) is not self.engine.tokenizer:
            raise UsageError(
                f"{self.name} asks a model about what it wrote itself, and these states are not of {self.engine.name}: "
                "run the method on the engine that was given to verify.self_evaluation_token(engine)."
            )
        return [(*tokens, self.ask) for tokens in states.tokens]

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        sequences = self._asked(states)
        with self.engine.lock:
            for some in portions(self.engine, sequences):
                _, session = opened(self.engine, [sequences[i] for i in some.tolist()], Limit(Ledger(), self.name))
                if session is not None:
                    session.close()


def self_evaluation_token(engine: Engine | None = None) -> SelfEvaluationToken:
    """What a ChainLM with a self-evaluation token thinks of its own output, finished or not.

    engine: the run's own, of a model trained by `language.train.capability`; by default that recipe's, which is trained
    the first time. Preserves nothing. It is relative to what the model can do: a hopeless problem's wrong answer has a
    high value, as a fresh one would be wrong too, so compare the samples of one problem only. It holds for samples at
    temperature 1, as in training. Raises UsageError for any other model.
    """
    own = load(capability()) if engine is None else engine
    symbols = getattr(own.tokenizer, "symbols", ())
    if TRAINED not in own.name or ASK not in symbols or KEEP not in symbols:
        raise UsageError(
            f"{own.name} has not learned to answer by a self-evaluation token: run on "
            "anystep.language.load(language.train.capability.capability()), or ask any model by verify.self_evaluation."
        )
    name = f"{own.name}-self-evaluation"
    return SelfEvaluationToken(name=name, ask=symbols.index(ASK), keep=symbols.index(KEEP), engine=own)
