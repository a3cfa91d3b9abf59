"""An int8 model on disk: what `quantise` found, so that it is found once. One safetensors file, mapped when read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anystep.language.engine.fused import Fused, fuse
from anystep.language.engine.int8 import HELD, TURN, Int8Product, hadamard
from anystep.language.engine.llama import Config, Llama

FORMAT = "anystep int8, 1"  # changes whenever an older file would be read wrongly


def shelve(model: Llama, fused: Fused, path: Path) -> None:
    """Writes `fused`, which `quantise` made of `model` with all products int8, to `path`, whole or not at all.

    Raises OSError where there is no place to write.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.ndim == 1}
    tensors["embed_tokens.weight"] = fused.embed_tokens.weight
    for place, product in fused.named_modules():
        if isinstance(product, Int8Product):
            tensors |= {f"{place}/{name}": tensor.contiguous() for name, tensor in product.state().items()}
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        save_file(tensors, scratch, metadata={"format": FORMAT, "config": json.dumps(asdict(model.config))})
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def shelved(path: Path, config: Config) -> Fused | None:
    """The model that `shelve` wrote, or None where there is none of this shape and format.

    Every tensor is held against the shape: what reads them afterwards reads without looking.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
        if about.get("format") != FORMAT or json.loads(about["config"]) != json.loads(json.dumps(asdict(config))):
            return None
        tensors = load_file(path)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    with torch.device("meta"):
        model = Llama(config)
    plain = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    wanted = {name: (tensor.shape, torch.float32) for name, tensor in model.state_dict().items() if tensor.ndim == 1}
    wanted["embed_tokens.weight"] = model.embed_tokens.weight.shape, torch.float16
    if {name: (tensor.shape, tensor.dtype) for name, tensor in plain.items()} != wanted:
        return None
    model.load_state_dict(plain, strict=False, assign=True)
    model.lay_rotary()

    def product(place: str, weight: Tensor, bias: Tensor | None, norm: nn.RMSNorm | None) -> nn.Module:
        held = {name: tensors[f"{place}/{name}"] for name in HELD if f"{place}/{name}" in tensors}
        if not fit(held, len(weight), weight.shape[1], bias is not None, norm is not None):
            raise ValueError(f"{place} does not fit {weight.shape}")
        return Int8Product(held | {"kept": held["kept"].float()}, None if norm is None else config.norm_eps)

    try:
        return fuse(model, product, torch.float16)
    except ValueError:
        return None


def fit(held: Mapping[str, Tensor], outputs: int, inputs: int, biased: bool, normed: bool) -> bool:
    """Whether an `Int8Product` of this shape may be made of `held`."""
    columns = held.get("columns", torch.empty(0))
    wanted = {
        "weight": ((outputs, inputs), torch.int8),
        "scale": ((outputs,), torch.float32),
        "columns": ((columns.numel(),), torch.int64),
        "kept": ((columns.numel(), outputs), torch.float16),
        "gain": ((inputs,), torch.float32),
        "turn": ((TURN, TURN), torch.float32),
        "bias": ((outputs,), torch.float32),
    }
    free = {"turn"} | ({"bias"} if not biased else set()) | ({"gain"} if not normed and not columns.numel() else set())
    if not wanted.keys() - free <= held.keys() or ("bias" in held) != biased:
        return False
    if any((tuple(tensor.shape), tensor.dtype) != wanted[name] for name, tensor in held.items()):
        return False
    inside = bool(((columns >= 0) & (columns < inputs)).all())
    return inside and ("turn" not in held or (inputs % TURN == 0 and torch.equal(held["turn"], hadamard(TURN))))
