"""Reads a GGUF file: shape, tensors (dequantised to fp32) and tokenizer, all from the file itself.

For `llama` files llama.cpp stores the rows of the query and key projections interleaved for its own rotary layout;
`unpermute` undoes that, since `llama.Rotary` uses the half-split layout of Hugging Face checkpoints. The other
architectures are stored half-split. Norms of `gemma3` files are whole, not told by how far they are from one.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor, quants
from torch import Tensor

from anystep.errors import ModelError
from anystep.language.engine.architectures import FAMILIES, gemma_config, rope_factors, sliding, windows_of
from anystep.language.engine.llama import Config
from anystep.language.engine.tokenizer import Subwords
from anystep.language.engine.weights import Weights

BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
WHOLE = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
FACTORS = "rope_freqs.weight"  # what each rotary frequency is divided by, where a file says so
ARCHITECTURES = tuple(dict.fromkeys(architecture for _, architecture in FAMILIES.values()))


def read_gguf(path: Path) -> Weights:
    """Weights of a GGUF file of one of ARCHITECTURES, in any tensor type that the gguf package dequantises.

    Raises ModelError in one line for a file that is missing, truncated, corrupt or of another architecture.
    """
    reader = open_reader(path)
    try:
        return _weights(path, reader)
    except ModelError:
        raise
    except Exception as error:  # one wrong byte can make any of the text, vocabulary and tensor readers raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelError(f"{path} is not a sound GGUF file ({reason}); download it again.") from error


def _weights(path: Path, reader: GGUFReader) -> Weights:
    meta = {name: field.contents() for name, field in reader.fields.items()}
    kind = meta.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise ModelError(f"{path} is a {kind!r} model; this engine runs {', '.join(ARCHITECTURES)} files.")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    factors = tuple(map(float, _values(path, stored.pop(FACTORS)))) if FACTORS in stored else ()
    try:
        config = gguf_config(meta, kind, stored.keys(), factors)
        tokenizer = Subwords.from_gguf(meta)
    except KeyError as error:
        raise ModelError(f"{path} lacks the field {error}; a {kind} GGUF was expected.") from error
    tensors = {}
    for tensor in stored.values():
        name = rename(tensor.name, kind)
        if name is None:
            raise ModelError(f"{path} has the tensor {tensor.name!r}, which plain {kind} models do not.")
        values = _values(path, tensor)
        heads = {"self_attn.q_proj": config.heads, "self_attn.k_proj": config.kv_heads} if kind == "llama" else {}
        for part, count in heads.items():
            values = unpermute(values, count) if part in name else values
        tensors[name] = values
    return Weights(config, tensors, tokenizer)


def _values(path: Path, tensor: ReaderTensor) -> Tensor:
    try:
        return torch.from_numpy(np.array(quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    except NotImplementedError as error:
        raise ModelError(f"{path}: {tensor.name} is stored as {tensor.tensor_type.name}, not supported.") from error


def open_reader(path: Path) -> GGUFReader:
    """The gguf package's reader, with its many ways of failing on a bad file turned into one line."""
    try:
        reader = GGUFReader(path)
        end = max((int(t.data_offset + t.n_bytes) for t in reader.tensors), default=0)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.") from error
    except (ValueError, IndexError, KeyError, OSError, TypeError, OverflowError, MemoryError, struct.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{path} is not a whole GGUF file ({reason}); download it again.") from error
    if not reader.tensors or end > path.stat().st_size:
        raise ModelError(f"{path} is cut short ({path.stat().st_size:,} of {end:,} bytes); download it again.")
    return reader


def gguf_config(meta: dict[str, Any], kind: str, tensors: Collection[str], factors: tuple[float, ...]) -> Config:
    """llama.Config from the file's fields, the names of its tensors, and the rotary factors it holds as a tensor.

    What llama.cpp holds to be so without a field, this does too: Gemma 3 sees everything in every sixth layer, its
    other layers rotate to base 10,000, and its largest model (62 layers) scales queries by the width of a head's share.
    """
    own = {name.removeprefix(f"{kind}."): value for name, value in meta.items() if name.startswith(f"{kind}.")}
    heads, dim, layers = own["attention.head_count"], own["embedding_length"], own["block_count"]
    head_dim = own.get("attention.key_length", own.get("rope.dimension_count", dim // heads))
    if own.get("attention.value_length", head_dim) != head_dim or own.get("rope.dimension_count", head_dim) != head_dim:
        raise ModelError("Heads whose keys, values and rotary parts differ in length are not supported.")
    if any(own.get(f"{name}_logit_softcapping") for name in ("attn", "final")):
        raise ModelError("A soft cap on logits is not supported.")
    theta, context = float(own.get("rope.freq_base", 10_000.0)), own["context_length"]
    rope = {"type": own.get("rope.scaling.type", "none"), "factor": own.get("rope.scaling.factor", 1.0)}
    if rope["type"] not in ("none", "linear"):
        raise ModelError(f"Scaled rotary embedding ({rope['type']}) is not supported.")
    if rope["type"] == "linear":
        factors = rope_factors(rope, theta, head_dim, context)
    window, pattern = own.get("attention.sliding_window"), own.get("attention.sliding_window_pattern", 6)
    if not isinstance(pattern, int):
        raise ModelError("A pattern of windows that is a list is not supported.")
    if window and kind not in ("llama", "gemma3"):
        raise ModelError(f"A window in a {kind} file is not supported: it does not say in which layers.")
    gemma = kind == "gemma3"
    windows = windows_of(sliding(layers, pattern if gemma else layers + 1), window, None if gemma else context)
    config = Config(
        vocab=len(meta["tokenizer.ggml.tokens"]),
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=own.get("attention.head_count_kv", heads),
        hidden=own["feed_forward_length"],
        head_dim=head_dim,
        context=context,
        rope_theta=theta,
        norm_eps=float(own["attention.layer_norm_rms_epsilon"]),
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        rope_factors=factors,
        windows=windows,
    )
    near = float(own.get("rope.freq_base_swa", 10_000.0))
    return gemma_config(config, near, dim / heads if layers == 62 else head_dim) if gemma else config


def rename(name: str, kind: str) -> str | None:
    """`blk.3.attn_q.weight` -> `layers.3.self_attn.q_proj.weight`; None for a tensor that has no place."""
    parts, block = name.split("."), BLOCK | (SANDWICH if kind == "gemma3" else {})
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in block:
        return f"layers.{parts[1]}.{block[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in WHOLE:
        return f"{WHOLE[parts[0]]}.{parts[1]}"
    return None


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Rows of a (heads * head_dim, dim) projection, or of its bias, from interleaved pairs to two halves."""
    return weight.view(heads, len(weight) // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
