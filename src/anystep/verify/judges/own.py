"""The model that wrote an answer is asked whether it is right: the probability that it says so.

Source: Kadavath et al., "Language Models (Mostly) Know What They Know" (2022), whose P(True) this is; asked in the
middle whether to go on, Manvi et al., "Adaptive Inference-Time Compute" (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from anystep.errors import UsageError
from anystep.language.endpoint.states import Transcripts
from anystep.ledger import Limit
from anystep.process import Floats, Reward, Scored
from anystep.verify.judges.asking import asked
from anystep.verify.judges.given import unmarked
from anystep.verify.judges.pointwise import warn_missing
from anystep.verify.judges.scale import TRUE_FALSE, Scale

About = Literal["right", "going on"]
QUESTIONS: dict[About, tuple[str, Scale]] = {
    "right": ("The answer above is correct. True or false? Reply with True or False only.", TRUE_FALSE),
    "going on": (
        "Would you do better if you started the answer over? Reply with Yes or No only.",
        Scale(("Yes", "No"), (0.0, 1.0)),
    ),
}
PLACE = "anystep:answer:"


@dataclass(frozen=True, kw_only=True)
class SelfEvaluation(Reward):
    """The probability, by a model's own account, that what it wrote is right, in [0, 1]; see `self_evaluation`."""

    name: str
    ask: str
    scale: Scale
    chat: bool
    identity: int = field(repr=False)
    asked: Any = field(compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values, errors = (self._served if self.asked.remote else self._local)(states, limit)
        warn_missing(self.name, errors, len(values))
        return Scored(values, limit.used)

    def _local(self, states: Any, limit: Limit) -> tuple[Floats, dict[int, str]]:
        values = np.full(len(states), np.nan)
        sequences, errors = self._sequences(states)
        fit = np.array([row for row in range(len(states)) if row not in errors], np.int64)
        if len(fit):
            mass = self.asked.read([sequences[row] for row in fit.tolist()], self.scale, limit, fit)
            values[fit] = self.scale.expected(mass)
        return values, errors

    def _sequences(self, states: Any) -> tuple[list[tuple[int, ...]], dict[int, str]]:
        """Each state's own tokens with the question behind them, so that all but the question is in the cache."""
        engine: Any = self.asked.own
        if not hasattr(states, "tokenizer") or states.tokenizer is not engine.tokenizer:
            raise UsageError(
                f"self_evaluation asks a model about what it wrote itself, and these states are not of {engine.name}: "
                "give it the run's own model, or use verify.judge(model)."
            )
        suffix = self._suffix()
        special, ends = self.asked.plain.forbidden, engine.tokenizer.ends
        found, errors = [], dict[int, str]()
        for row, (tokens, output) in enumerate(zip(states.tokens, states.outputs(), strict=True)):
            body = tokens[:-1] if output and output[-1] in ends & special else tokens
            if special.intersection(output[: len(output) - (len(tokens) - len(body))]):
                errors[row] = "the output holds special tokens of the model's own, and could speak for the user"
            elif len(body) + len(suffix) > engine.config.context:
                errors[row] = f"no room for the question in the {engine.config.context:,} tokens of {engine.name}"
            found.append((*body, *suffix))
        return found, errors

    def _suffix(self) -> tuple[int, ...]:
        """The end of the answer's turn, the question, and the beginning of the reply."""
        tokenizer = self.asked.own.tokenizer
        if not self.chat:
            return tuple(tokenizer.encode(f"\n\n{self.ask}\n"))
        turns = [("user", "?"), ("assistant", PLACE), ("user", self.ask)]
        text = tokenizer.chat([{"role": role, "content": content} for role, content in turns])
        return tuple(tokenizer.encode(text.rpartition(PLACE)[2]))

    def _served(self, states: Any, limit: Limit) -> tuple[Floats, dict[int, str]]:
        if not isinstance(states, Transcripts):
            raise UsageError(f"self_evaluation asks {self.asked.own.name} about its own replies; these states are not.")
        prompts = [self._turns(row.prompt, text) for row, text in zip(states.rows, states.texts(), strict=True)]
        weighed = self.asked.read(prompts, self.scale, limit, np.arange(len(prompts)))
        return self.scale.expected(weighed.mass), dict(weighed.errors)

    def _turns(self, prompt: Any, text: str) -> Any:
        """The conversation with its answer, and the question as the user's next turn."""
        if not self.chat:
            return f"{prompt}{unmarked(text)}\n\n{self.ask}\n"
        before = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
        said = {"role": "assistant", "content": unmarked(text)}
        return (*before, said, {"role": "user", "content": self.ask})

    def forget(self) -> None:
        self.asked.forget()

    def warm(self, states: Any) -> None:
        if not self.asked.remote:
            sequences, errors = self._sequences(states)
            self.asked.warmed([tokens for row, tokens in enumerate(sequences) if row not in errors])


def self_evaluation(
    model: Any,
    about: About = "right",
    *,
    ask: str | None = None,
    scale: Scale | Mapping[str, float] | None = None,
    chat: bool | None = None,
    name: str | None = None,
) -> SelfEvaluation:
    """What a model thinks of its own output, in [0, 1]: the probability of its answer to one more question.

    Preserves nothing. A model is a poor judge of what it is poor at, and most say True too often: see
    docs/verify/judges.md before it decides anything.

    model: the run's own engine, endpoint or name's engine; states of another model are refused. about: "right" asks
    whether the answer is correct, for finished states: P(True). "going on" asks whether to start over, for states in
    the middle: P(No). ask, scale: a question of one's own, and what its labels are worth. chat: whether the question is
    put as the user's next turn, as where the prompt went through a chat template; by default where the model has one.

    Costs one prefill of the question: the prompt and the answer are in the engine's cache from writing them (all but
    the token written last). On a server the conversation is sent again, and what its cache holds is shown as cached.
    NaN where the budget refused, where the output holds special tokens in its middle (they could speak for the user),
    and where a server failed.
    """
    if about not in QUESTIONS:
        raise UsageError(f"self_evaluation(about={about!r}): 'right', or 'going on', or ask='...' with its scale.")
    if ask is not None and scale is None:
        raise UsageError("self_evaluation(ask=...) needs what its labels are worth: scale={'Yes': 1.0, 'No': 0.0}.")
    question, own = QUESTIONS[about]
    to_ask = asked(model, name, chat, role="self")
    return SelfEvaluation(
        name=to_ask.name,
        ask=ask or question,
        scale=own if scale is None else Scale.of(scale),
        chat=to_ask.chat is not False,
        identity=id(to_ask.own),
        asked=to_ask,
    )
