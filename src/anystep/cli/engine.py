"""The engine of a model for a command: torch gets the threads that pay on this machine before a model is loaded."""

from __future__ import annotations

from typing import Any


def engine_for(model: str) -> Any:
    """`anystep.solve.engine_for`, where the model runs here on as many threads as `anystep.language.threads` finds."""
    from anystep.solve import engine_for as loaded

    return loaded(model, _settle)


def _settle() -> None:
    from anystep.language.threads import settle

    settle()
