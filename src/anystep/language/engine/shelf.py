"""An int8 model on disk: what `quantise` found, so that it is found once. One safetensors file, mapped when read."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anystep.language.engine.fused import Fused, fuse
from anystep.language.engine.int8 import Int8Product
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
    """The model that `shelve` wrote, or None where there is none of this shape and format."""
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
    model.load_state_dict({n: t for n, t in tensors.items() if "/" not in n}, strict=False, assign=True)
    model.lay_rotary()

    def product(place: str, weight: Tensor, bias: Tensor | None, norm: nn.RMSNorm | None) -> nn.Module:
        held = {n.removeprefix(f"{place}/"): t for n, t in tensors.items() if n.startswith(f"{place}/")}
        return Int8Product(held | {"kept": held["kept"].float()}, None if norm is None else config.norm_eps)

    return fuse(model, product, torch.float16)
