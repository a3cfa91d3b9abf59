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
    cap: how a chat's longest reply is said. continuous: usage comes with every piece where it is asked for. continues:
    a reply's beginning is gone on with, for which a chat's template is to blame where it fails. scores_end: the
    log-probabilities hold that of the end token. chats: it has a chat route for every model.
    """

    name: str
    plain: Mapping[str, Any] = field(default_factory=dict)
    keeps: str | None = None
    by_position: bool = False
    cap: str = "max_tokens"
    continuous: bool = False
    continues: bool = False
    scores_end: bool = False
    chats: bool = False


UNKNOWN = Kind("unknown")
KEEPS = "include_stop_str_in_output"
NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0}
LLAMA = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
KINDS = {
    "anystep": Kind(
        "anystep", {}, KEEPS, by_position=True, continuous=True, continues=True, scores_end=True, chats=True
    ),
    "vllm": Kind("vllm", {"top_k": -1, **NEUTRAL}, KEEPS, continuous=True, continues=True, scores_end=True),
    "sglang": Kind("sglang", {"top_k": -1, **NEUTRAL}, "no_stop_trim", continuous=True, continues=True),
    "llama.cpp": Kind("llama.cpp", LLAMA, continues=True, chats=True),
    "openai": Kind("openai", cap="max_completion_tokens", chats=True),
}
OWNERS = {"llamacpp": "llama.cpp", "system": "openai", "openai": "unknown"}  # gateways say "openai" of anything


def kind_of(url: str, cards: Sequence[Mapping[str, Any]]) -> Kind:
    """The kind of server at `url` that lists its models so."""
    if (urlsplit(url).hostname or "").endswith("api.openai.com"):
        return KINDS["openai"]
    owners = [str(card.get("owned_by", "")).lower() for card in cards]
    if not owners:
        return UNKNOWN
    return KINDS.get(OWNERS.get(owners[0], owners[0]), UNKNOWN)
