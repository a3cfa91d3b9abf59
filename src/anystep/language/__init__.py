"""How does a language model become a process? Engine, tokens, steps and completions."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anystep.language.loading import Known, load, models
    from anystep.language.process import LanguageProcess
    from anystep.language.states import Sequences
    from anystep.language.transformers_model import from_transformers

__all__ = ["Known", "LanguageProcess", "Sequences", "from_transformers", "load", "models"]

_HOME = {
    "Known": "loading",
    "load": "loading",
    "models": "loading",
    "LanguageProcess": "process",
    "Sequences": "states",
    "from_transformers": "transformers_model",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: an endpoint needs no torch, and importing it takes seconds."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
