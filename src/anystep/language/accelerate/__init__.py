"""How does a model say the same with fewer or cheaper passes? One method a file."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "ActQKV": "act_qkv",
    "Draft": "drafts",
    "DraftModel": "draft_model",
    "Drafter": "drafts",
    "Drafting": "drafts",
    "EarlyLayers": "early_layers",
    "Follow": "verify",
    "Hogwild": "hogwild",
    "HogwildEngine": "hogwild",
    "Medusa": "medusa",
    "Mixing": "superposed",
    "NGrams": "ngrams",
    "PromptLookup": "prompt_lookup",
    "Reflective": "reflective",
    "Reject": "verify",
    "Router": "advantage",
    "SemiAutoregressiveDrafter": "semi_autoregressive",
    "Speculative": "speculative",
    "TemporalFusionScheduler": "temporal_fusion",
    "Thrift": "thrift",
    "Ticket": "temporal_fusion",
    "TrieLookahead": "lookahead",
    "Typical": "typical",
    "Verifier": "verify",
    "advantage_router": "advantage",
    "arbitrage": "advantage",
    "reflective_verification": "reflective",
    "speculate": "speculative",
    "superposed_decoding": "superposed",
    "trie_lookahead": "lookahead",
}
_MODULES = {"llm_int8", "number_formats"}  # methods of several parts, used by their module's name
__all__ = sorted({*_HOME, *_MODULES})


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: an endpoint needs no torch, and importing it takes seconds."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
