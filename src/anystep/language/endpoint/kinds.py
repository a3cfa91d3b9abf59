"""Which software serves a model, and what that settles without a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of server.

    plain: what turns off sampling options that it would apply by default (a model card's top_k, a penalty), so that
    samples follow the model's own distribution. keeps: the parameter that leaves a stop text in the output, which tells
    a step's end from the completion's end. by_position: a seed's draws belong to positions of the output, so a cut
    completion goes on under the same seed as if it had not been cut; elsewhere a seed begins anew at each request.
    cap: how a chat's longest reply is said.
    """

    name: str
    plain: Mapping[str, Any] = field(default_factory=dict)
    keeps: str | None = None
    by_position: bool = False
    cap: str = "max_tokens"
    continuous: bool = False


PENALTIES = {"repetition_penalty": 1.0}
UNKNOWN = Kind("unknown")
KINDS = {
    "anystep": Kind("anystep", keeps="include_stop_str_in_output", by_position=True, continuous=True),
    "vllm": Kind("vllm", {"top_k": 0, "min_p": 0.0, **PENALTIES}, keeps="include_stop_str_in_output", continuous=True),
    "sglang": Kind("sglang", {"top_k": -1, "min_p": 0.0, **PENALTIES}, keeps="no_stop_trim", continuous=True),
    "llama.cpp": Kind("llama.cpp", {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}),
    "openai": Kind("openai", cap="max_completion_tokens"),
}
OWNERS = {"llamacpp": "llama.cpp", "llama.cpp": "llama.cpp", "system": "openai", "openai-internal": "openai"}


def kind_of(url: str, cards: Sequence[Mapping[str, Any]]) -> Kind:
    """The kind of server at `url` that lists its models so."""
    if (urlsplit(url).hostname or "").endswith("api.openai.com"):
        return KINDS["openai"]
    owners = [str(card.get("owned_by", "")).lower() for card in cards]
    if not owners:
        return UNKNOWN
    name = OWNERS.get(owners[0], owners[0])
    return KINDS.get(name, UNKNOWN) if name != "openai" else UNKNOWN
