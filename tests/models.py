"""Tiny random Llama models for tests, and their files as other libraries write them."""

from __future__ import annotations

import functools

import torch

from anystep.language import load
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config, Llama
from anystep.language.engine.tokenizer import Alphabet

SYMBOLS = "\0\n.? 0123456789abcdefghijklmnopqrstuvwxyz+-*=>:,;!ABCDEFGHIJKLMN"  # 64 characters


def tiny_config(tied: bool = True, kv_heads: int = 2, **changes: object) -> Config:
    shape = {"vocab": 64, "dim": 32, "layers": 2, "heads": 4, "kv_heads": kv_heads, "hidden": 48, "head_dim": 8}
    return Config(**(shape | {"tied": tied, "context": 4096} | changes))  # type: ignore[arg-type]


def tiny_model(seed: int = 0, scale: float = 0.3, **changes: object) -> Llama:
    """Weights wide enough that the next token is neither certain nor uniform."""
    torch.manual_seed(seed)
    model = Llama(tiny_config(**changes)).requires_grad_(False).eval()  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.normal_(0, scale)
    return model


def tiny_engine(seed: int = 0, cache_bytes: int = 1 << 28, **changes: object) -> Engine:
    return Engine(tiny_model(seed, **changes), Alphabet(SYMBOLS), cache_bytes, name="tiny")


def text(length: int, seed: int = 0) -> tuple[int, ...]:
    """Random tokens of the tiny vocabulary."""
    return tuple(torch.randint(3, 64, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


@functools.cache
def _chain() -> Engine:
    return load("chainlm-2m")


def chain_engine() -> Engine:
    """ChainLM in an engine of its own: nothing cached, nothing counted; the weights are read once."""
    one = _chain()
    return Engine(one.model, one.tokenizer, name=one.name, generation=one.generation)
