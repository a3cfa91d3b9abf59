"""What the model families of Hugging Face directories mean in terms of one `Config`, and back.

A family is known by `model_type` in config.json. What a file asks for and this engine does not do is refused by its
name, never ignored. Where a key is missing, the value is the one that transformers takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anystep.errors import ModelError
from anystep.language.engine.llama import Config

FAMILIES = {  # by model_type: who they are, and the architecture that GGUF files of theirs name
    "llama": ("Llama 1 to 3, SmolLM2 and others of that shape", "llama"),
    "mistral": ("Mistral, with its sliding window", "llama"),
    "qwen2": ("Qwen 2 and 2.5", "qwen2"),
    "qwen3": ("Qwen 3", "qwen3"),
    "gemma3_text": ("Gemma 3, text alone", "gemma3"),
}
FULL, SLIDING = "full_attention", "sliding_attention"
PLAIN = {"type", "rope_type", "rope_theta"}  # keys that every kind of rotary embedding may have
STRETCH = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}


def folder_config(meta: Mapping[str, Any], where: str) -> Config:
    """llama.Config from the content of a config.json; `where` names it in errors.

    Raises ModelError that names what this engine does not do, or the key that is missing.
    """
    family = meta.get("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"{where} is of model_type {family!r}; this engine runs {', '.join(FAMILIES)}, and others run through "
            "anystep.language.from_transformers(model, tokenizer)."
        )
    if unfit := ", ".join(what for what, found in _unfit(meta, family).items() if found):
        raise ModelError(f"{where} has {unfit}, which this engine does not do.")
    try:
        return _config(meta, family)
    except KeyError as error:
        raise ModelError(f"{where} lacks {error}; a {family} config was expected.") from error
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ModelError(f"{where} is not a sound {family} config ({' '.join(str(error).split())}).") from error


def _unfit(meta: Mapping[str, Any], family: str) -> dict[str, bool]:
    """What would be silently wrong if it were read over, and whether it is there."""
    gate = meta.get("hidden_activation" if family == "gemma3_text" else "hidden_act")
    kinds = set(meta.get("layer_types") or ()) - {FULL, SLIDING}
    found = {
        "biases": bool(meta.get("attention_bias") or meta.get("mlp_bias")),
        f"activation {gate!r}": gate not in (None, "gelu_pytorch_tanh" if family == "gemma3_text" else "silu"),
        f"layers of kind {', '.join(map(repr, sorted(map(str, kinds))))}": bool(kinds),
        "a soft cap on logits": bool(meta.get("attn_logit_softcapping") or meta.get("final_logit_softcapping")),
        "attention in both directions": bool(meta.get("use_bidirectional_attention")),
    }
    far, *near = _ropes(meta)
    found["rotary settings by kind of layer"] = bool(near) and family != "gemma3_text"
    for rope, known in [(far, ("default", "linear", "llama3")), *((rope, ("default",)) for rope in near)]:
        kind = rope.get("rope_type", rope.get("type", "default"))
        found[f"rope scaling {kind!r}"] = kind not in known
        extra = {key: value for key, value in rope.items() if key not in PLAIN | STRETCH}
        extra |= {key: meta[key] for key in ("partial_rotary_factor",) if key in meta}
        found[f"rotary settings {extra}"] = bool(extra) and extra != {"partial_rotary_factor": 1}
    return found


def _ropes(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rotary settings in `meta`: for full layers, and where they have their own for sliding ones."""
    given = meta.get("rope_parameters") or {}
    if given.keys() <= {FULL, SLIDING} and given:
        return [given.get(FULL) or {}, given.get(SLIDING) or {}]
    return [{**(meta.get("rope_scaling") or {}), **given}]


def _config(meta: Mapping[str, Any], family: str) -> Config:
    gemma = family == "gemma3_text"
    heads, dim, layers = meta["num_attention_heads"], meta["hidden_size"], meta["num_hidden_layers"]
    head_dim = meta.get("head_dim") or {"qwen3": 128, "gemma3_text": 256}.get(family, dim // heads)
    context = meta.get("max_position_embeddings", 2048)
    rope, *near = _ropes(meta)
    theta = float(rope.get("rope_theta") or meta.get("rope_theta") or (1e6 if gemma else 1e4))
    local = float((near[0] if near else {}).get("rope_theta") or meta.get("rope_local_base_freq") or 1e4)
    windows = _windows(meta, family, layers, context)
    config = Config(
        vocab=meta["vocab_size"],
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=meta.get("num_key_value_heads") or heads,
        hidden=meta["intermediate_size"],
        head_dim=head_dim,
        context=context,
        rope_theta=theta,
        norm_eps=meta.get("rms_norm_eps", 1e-6),
        tied=meta.get("tie_word_embeddings", gemma),
        qkv_bias=family == "qwen2",
        qk_norm=family in ("qwen3", "gemma3_text"),
        rope_factors=rope_factors(rope, theta, head_dim, context),
        windows=windows,
    )
    return gemma_config(config, local, meta.get("query_pre_attn_scalar", 256)) if gemma else config


def gemma_config(config: Config, near_theta: float, query_scalar: float) -> Config:
    """What makes a Gemma 3 of a shape: norms around the halves, GELU gates, embeddings times the root of their width,
    scores divided by the root of `query_scalar`, and a rotary base of their own for layers with a window."""
    near = near_theta if any(config.windows) else None
    scale = math.sqrt(config.head_dim / query_scalar)
    return replace(config, sandwich=True, gate="gelu", embed_scale=config.dim**0.5, near_theta=near, query_scale=scale)


def _windows(meta: Mapping[str, Any], family: str, layers: int, context: int) -> tuple[int | None, ...]:
    """Each layer's window; none at all where it would not hide anything within the context."""
    window = meta.get("sliding_window", 4096) or (context if family == "gemma3_text" else None)
    if family == "mistral":
        kinds = [SLIDING] * layers
    elif family == "gemma3_text":
        kinds = meta.get("layer_types") or sliding(layers, meta.get("sliding_window_pattern", 6))
    elif family in ("qwen2", "qwen3") and meta.get("use_sliding_window"):
        full = meta.get("max_window_layers", 28)
        kinds = meta.get("layer_types") or [FULL if i < full else SLIDING for i in range(layers)]
    else:
        kinds = [FULL] * layers
    if len(kinds) != layers:
        raise ValueError(f"layer_types names {len(kinds)} layers of {layers}")
    return windows_of(kinds, window, None if family == "gemma3_text" else context)


def sliding(layers: int, pattern: int) -> list[str]:
    """Kinds of layers of which each `pattern`-th sees everything."""
    return [SLIDING if (i + 1) % pattern else FULL for i in range(layers)]


def windows_of(kinds: Sequence[str], window: int | None, context: int | None) -> tuple[int | None, ...]:
    """Windows of layers of these kinds; () where none has one that is shorter than `context`."""
    if not window or SLIDING not in kinds or (context is not None and window >= context):
        return ()
    return tuple(window if kind == SLIDING else None for kind in kinds)


def rope_factors(rope: Mapping[str, Any], theta: float, head_dim: int, context: int) -> tuple[float, ...]:
    """What each rotary frequency is divided by: one factor for all ("linear"), or as in Llama 3: slow ones by the
    factor, fast ones by nothing, and those between by a mean of the two that is linear in frequency."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    factor = float(rope["factor"])
    if kind == "linear":
        return (factor,) * (head_dim // 2)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = rope.get("original_max_position_embeddings") or context
    found = []
    for i in range(0, head_dim, 2):
        turns = trained * theta ** (-i / head_dim) / (2 * math.pi)  # within the context it was trained on
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - share) / factor + share))
    return tuple(found)


def config_json(config: Config) -> dict[str, Any]:
    """The config.json of a model of this shape, which `folder_config` reads back as it was.

    Raises ModelError for a shape that none of the families has.
    """
    c = config
    sandwich, biased = c.sandwich, c.qkv_bias
    family = "gemma3_text" if sandwich else "qwen3" if c.qk_norm else "qwen2" if biased else "llama"
    if family == "llama" and c.windows:
        family = "mistral"
    window = next((w for w in c.windows if w), None)
    meta: dict[str, Any] = {
        "model_type": family,
        "architectures": [f"{family.removesuffix('_text').capitalize()}ForCausalLM"],
        "vocab_size": c.vocab,
        "hidden_size": c.dim,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "intermediate_size": c.hidden,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.context,
        "rope_theta": c.rope_theta,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "sliding_window": window,
    }
    if family in ("qwen2", "qwen3", "gemma3_text"):
        meta["layer_types"] = [SLIDING if c.window(i) else FULL for i in range(c.layers)]
        meta["use_sliding_window"] = window is not None
    if sandwich:
        meta["rope_local_base_freq"] = c.near_theta or 1e4
        meta["query_pre_attn_scalar"] = round(c.head_dim / c.query_scale**2)
    meta["hidden_activation" if sandwich else "hidden_act"] = "gelu_pytorch_tanh" if sandwich else "silu"
    if len(set(c.rope_factors)) == 1:
        meta["rope_scaling"] = {"rope_type": "linear", "factor": c.rope_factors[0]}
    if folder_config(meta, "this shape") != config:
        raise ModelError(f"No family of Hugging Face models has this shape: {config}.")
    return meta
