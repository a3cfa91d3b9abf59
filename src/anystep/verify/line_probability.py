"""How likely did the model find the line that it wrote last? Read off its own predictions, at no further token."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.prefill import paid, portions
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Reward, Scored
from anystep.tasks.reckoning import nines


@dataclass(frozen=True)
class LineProbability(Reward):
    """The probability of a state's last line, in [0, 1]; NaN for a state without one. See `line_probability`."""

    name: str
    stop: str = "\n"
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        if getattr(getattr(states, "tokenizer", None), "size", None) != self.engine.tokenizer.size:
            raise UsageError(
                f"{self.name} reads what its own model wrote, and these states are none of it: give "
                "verify.line_probability(engine) the engine that writes them."
            )
        with self.engine.lock:
            return self._read(states, limit)

    def _read(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), np.nan)
        begins = [self._begins(tokens, start) for tokens, start in zip(states.tokens, states.starts, strict=True)]
        rows = np.flatnonzero([len(t) > start for t, start in zip(states.tokens, begins, strict=True)])
        fed = [states.tokens[row][:-1] for row in rows.tolist()]  # its writer has not read the last token either
        for some in portions(self.engine, fed):
            part = rows[some]
            prices = [Cost(flops=self.engine.flops(0, 0, heads=len(states.tokens[r]) - begins[r])) for r in part]
            left, plan = paid(self.engine, [fed[i] for i in some.tolist()], limit, prices, rows=part)
            if plan is None:
                continue
            with self.engine.open(plan) as session:
                for i, row in enumerate(part[left].tolist()):
                    start, tokens = begins[row], states.tokens[row]
                    hidden = session.states(i)[start - 1 : len(tokens) - 1, : self.engine.config.dim]
                    logs = self.engine.model.logits(hidden).double().log_softmax(-1)
                    values[row] = math.exp(sum(float(logs[at, t]) for at, t in enumerate(tokens[start:])))
        return Scored(values, limit.used)

    def _begins(self, tokens: tuple[int, ...], start: int) -> int:
        """Where the last line begins: behind the last `stop` that something follows."""
        found, text, stream = start, "", self.engine.tokenizer.stream()
        for at in range(start, len(tokens) - 1):
            text += stream.push(tokens[at])
            found = at + 1 if text.endswith(self.stop) else found
        return found

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self(states, Limit(Ledger(), self.name))


def line_probability(engine: Engine, stop: str = "\n") -> LineProbability:
    """The probability that `engine` gave, at temperature 1, to the last line it wrote: a check of single steps.

    engine: the one that writes, whose cache then has what is read, so that it costs no token. stop: what ends a line.
    For a model whose lines have one right form and that has learned them without seeing any twice, it is about the
    chance that the line is right; for one that can say the same in many ways it is far less. It knows no answer, and
    errors of which the model is sure pass. Preserves nothing. What the cache has lost is read again, as prompt tokens.
    """
    if not isinstance(engine, Engine) or not isinstance(stop, str) or not stop:
        raise UsageError(
            f"line_probability({engine!r:.40}, stop={stop!r}): the engine that writes, such as "
            "language.load('chainlm-2m'), and what ends its lines."
        )
    return LineProbability(f"{engine.name}-line-probability", stop, engine=engine)


@dataclass(frozen=True)
class CastOut(LineProbability):
    """The probability of a state's last line where its result passes casting out nines, else 0."""

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = super().__call__(states, limit)
        passes = [nines(prompt, text) for prompt, text in zip(states.prompts(), states.texts(), strict=True)]
        return Scored(np.where(passes | np.isnan(scored.values), scored.values, 0.0), scored.cost)


def cast_out(engine: Engine) -> CastOut:
    """A check of the lines of `tasks.reckoning`, by rule and by learning: `line_probability` where the result passes
    casting out nines, and 0 where it does not.

    The rule works on sums of digits: it knows no answer, and lets one wrong result in nine pass, also such as have two
    digits exchanged. Raises what `line_probability` does.
    """
    plain = line_probability(engine)
    return CastOut(f"{engine.name}-cast-out", plain.stop, engine=engine)
