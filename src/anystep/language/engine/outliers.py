"""Which inputs of which products carry outliers: read off the model itself, on a sample of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from anystep.errors import UsageError
from anystep.language.engine.llama import Llama
from anystep.language.engine.tokenizer import Tokenizer

SAMPLE = """The capital of France is Paris, which lies on the Seine. In 1889 a tower of iron was built there for the
World's Fair; it is 330 metres high and was, for 41 years, the tallest structure on earth. "Why climb it?" she asked.

Question: A train leaves at 9:15 and travels 60 miles an hour. How far has it gone by noon? Let us think step by step.
From 9:15 to 12:00 are 2.75 hours, and 2.75 * 60 = 165, so the answer is 165 miles.

def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

1. Water boils at 100 degrees.  2. Ice floats, because it is lighter than water.  3. See https://example.org/a?b=c&d=7
Die Sonne scheint, y el perro duerme; la vie est belle!
"""


def sample(tokenizer: Tokenizer, vocab: int) -> list[int]:
    """SAMPLE as tokens, or where the tokenizer cannot write it, tokens spread over the vocabulary."""
    try:
        found = list(tokenizer.begin) + tokenizer.encode(SAMPLE)
    except UsageError:  # an alphabet of a few symbols
        found = []
    return found or list(range(0, vocab, max(vocab // 256, 1)))


@torch.inference_mode()
def strengths(model: Llama, tokens: Sequence[int]) -> dict[str, Tensor]:
    """For each product of `fused.fuse`, by its place: the root mean square of each of its inputs over `tokens`."""
    found: dict[str, Tensor] = {}

    def watch(place: str, module: nn.Module) -> RemovableHandle:
        def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[place] = args[0].flatten(0, -2).square().mean(0).sqrt()

        return module.register_forward_pre_hook(note)

    handles = []
    block: Any
    for i, block in enumerate(model.layers):
        mine, gates, place = block.self_attn, block.mlp, f"layers.{i}"
        for name, module in (("qkv", mine.q_proj), ("o", mine.o_proj), ("gate_up", gates.up_proj)):
            handles.append(watch(f"{place}.{name}", module))
        handles.append(watch(f"{place}.down", gates.down_proj))
    try:
        hidden = model(torch.tensor([list(tokens)[: model.config.context]]))
    finally:
        for handle in handles:
            handle.remove()
    found["head"] = hidden[0].square().mean(0).sqrt()
    return found
