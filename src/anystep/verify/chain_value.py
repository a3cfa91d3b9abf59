"""The value of a state that AlphaMath learnt from outcomes alone: how likely a chain is to end well from here."""

from __future__ import annotations

import functools
from pathlib import Path

from anystep.language.engine.engine import Engine
from anystep.language.train.alphamath import alphamath, load
from anystep.language.value import StateValue


@functools.cache
def _loaded(path: Path) -> tuple[Engine, StateValue]:
    return load(path)


def chain_value(model: str | Path | None = None) -> StateValue:
    """The value head of a policy that `language.train.alphamath` trained, in [0, 1], as a reward of its own chains.

    model: the card of one round; by default the last round's of the default recipe, which is trained where it is not
    kept yet (about ten minutes of one core). `chain_value(card).engine` is the policy that it belongs to: run it on
    that engine, where the value reads what writing had computed. Preserves nothing. Raises ModelError for a file that
    is no such card.
    """
    return _loaded(alphamath()[-1] if model is None else Path(model))[1]
