"""A model that was trained to is asked by one character whether the line that it wrote last holds."""

from __future__ import annotations

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.loading import load
from anystep.language.train.formats import ASK, CHECKED, HOLDS, formats
from anystep.verify.self_evaluation_token import SelfEvaluationToken


def own_check(engine: Engine | None = None) -> SelfEvaluationToken:
    """What a ChainLM that reckons in formats thinks of its own last line: the probability that its value is right, in
    [0, 1], where all was right before it.

    engine: the run's own, of a model trained by `language.train.formats`; by default that recipe's, which is trained
    the first time. It knows no answer, and is no calculator: what the model cannot work out at a glance it can only
    doubt. One asking costs one prompt token on the writer's own engine. Raises UsageError for any other model.
    """
    own = load(formats()) if engine is None else engine
    symbols = getattr(own.tokenizer, "symbols", ())
    if CHECKED not in own.name or ASK not in symbols:
        raise UsageError(
            f"{own.name} has not learned to check its own lines: run on "
            "anystep.language.load(language.train.formats.formats()), or check by verify.step_arithmetic()."
        )
    return SelfEvaluationToken(
        name=f"{own.name}-own-check", ask=symbols.index(ASK), keep=symbols.index(HOLDS), engine=own
    )
