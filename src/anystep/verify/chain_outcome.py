"""The outcome reward of ChainLM: how likely a chain ends, or will end, on the right answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from anystep.language.train.labelled import outcome_reward
from anystep.verify.chain_steps import ChainSteps, loaded


@dataclass(frozen=True)
class ChainOutcome(ChainSteps):
    """The probability that a chain's end is right, in [0, 1]; an unbegun chain has `prior`. It reads as `ChainSteps`
    does, and of an unfinished chain the last finished step's number: the chance that it will end right."""

    maker: ClassVar[str] = "chain_outcome"


def chain_outcome(model: str | Path | None = None) -> ChainOutcome:
    """The learned outcome reward over the states of a chain model, the sibling of `chain_steps`.

    It was told how chains ended, never which step was wrong: a chain that reaches the right value by a false step is
    right to it. Use it where steps cannot be labelled. model: the card of one of your own; the default is trained
    the first time, from ChainLM's own samples, in about one minute of one quiet core, and kept in the cache folder.
    Preserves nothing; as a potential (`.log_odds()`) the target that results is p(x) times the odds of a right end.
    Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021).
    """
    engine, judge = loaded(outcome_reward() if model is None else model)
    return ChainOutcome(engine.name, "last", engine=engine, judge=judge)
