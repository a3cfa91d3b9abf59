"""LLM.int8(): linear layers multiply int8 by int8 into int32, and the few input columns that stick out stay wide.

Y = X W^T with a scale for each row of X (a token) and each row of W (an output): "vector-wise". Columns of X that hold
a value of at least `threshold` are taken out first: they would stretch their rows' scales until nothing else is left
of them. Those columns are multiplied with a 16-bit copy of the weights, the rest in int8, and the two are added.
Embeddings, norms and the output head stay as they are. The readable reference of the method with all its ablations;
the engine's own int8 form is the fast one.

Preserves: nothing exactly. The int32 product is exact; rounding to 8 bits moves the model's distribution (measured on
SmolLM2 and Gemma 3 in docs/accelerate/llm_int8.md). With `columns="fixed"` or `"row"` a row's result does not depend on
the rest of its batch, but for the order in which the wide columns' products are summed; with `"call"`, as in the paper,
it does. Source: Dettmers, Lewis, Belkada, Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at
Scale", arXiv 2208.07339 (2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.engine.llama import Llama

TOP = 127  # the largest code: the grid is symmetric, -128 is not used
TINY = 1e-12  # a scale of a row of zeros
SAMPLE = 10_000  # values that a calibration keeps of one layer and sequence
Scales = Literal["vector", "row", "tensor"]
Columns = Literal["fixed", "row", "call"]


@dataclass(frozen=True)
class Recipe:
    """How a layer is quantised.

    scales: "vector", a scale for each row of X and of W; "row", each row of X and one for W; "tensor", one for each.
    zero_point: whether codes are shifted so that a lopsided range is covered; zero itself keeps an exact code.
    threshold: a value of this size or above sticks out; in units of the activations, 0 for no decomposition. The
    paper's 6.0 is for large models.
    share: where given, each layer has a threshold of its own in place of that, so that in any model about this share of
    the work stays in int8: the size that was reached in the calibration by 1 - share of its columns, or of all its
    values with `columns="row"`. 1 - share of its columns are copied.
    columns: which columns are wide. "fixed", those that stuck out in the calibration, in every call; "row", each row's
    own; "call", those that stick out in any row of the call (the paper's).
    copy: whether columns that stuck out in the calibration have a 16-bit copy. Without it, and for columns that had not
    stuck out, the wide product's weights are dequantised from int8.
    """

    scales: Scales = "vector"
    zero_point: bool = False
    threshold: float = 6.0
    share: float | None = None
    columns: Columns = "fixed"
    copy: bool = True

    def __post_init__(self) -> None:
        if self.scales not in get_args(Scales) or self.columns not in get_args(Columns):
            raise UsageError(
                f"Recipe(scales={self.scales!r}, columns={self.columns!r}): scales is one of {get_args(Scales)}, "
                f"columns one of {get_args(Columns)}."
            )
        if not self.threshold >= 0:
            raise UsageError(f"Recipe(threshold={self.threshold}): use a size above 0, or 0 for no decomposition.")
        if self.share is not None and not 0 < self.share < 1:
            raise UsageError(f"Recipe(share={self.share}): a share lies between 0 and 1, such as 0.96.")


@dataclass
class Work:
    """Multiply-accumulates that layers have done since they were made, by the width they were done in."""

    int8: int = 0
    wide: int = 0

    @property
    def share(self) -> float:
        """Of them, in int8; not a number where none were done."""
        return self.int8 / total if (total := self.int8 + self.wide) else float("nan")


@dataclass(frozen=True)
class Seen:
    """What a calibration showed of a layer's inputs: the largest size in each column (inputs,), and a sample of all
    values' sizes, in order."""

    peak: Tensor
    sizes: Tensor


@dataclass(frozen=True)
class Codes:
    """A matrix as int8: x is about scale * (codes + zero), by rows or for all of it."""

    codes: Tensor
    scale: Tensor
    zero: Tensor

    @property
    def values(self) -> Tensor:
        return (self.codes.float() + self.zero) * self.scale


def encode(x: Tensor, rows: bool, zero_point: bool = False) -> Codes:
    """x (n, m) rounded to the nearest code, with a scale (n, 1) for each row or one (1, 1) for all."""
    dims = (1,) if rows else (0, 1)
    if not zero_point:
        scale = x.abs().amax(dims, keepdim=True).clamp_min(TINY) / TOP
        return Codes((x / scale).round().to(torch.int8), scale, torch.zeros_like(scale))
    low, high = x.amin(dims, keepdim=True).clamp_max(0), x.amax(dims, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(TINY) / (2 * TOP)
    zero = ((high + low) / (2 * scale)).round()
    return Codes(((x / scale).round() - zero).clamp(-TOP, TOP).to(torch.int8), scale, zero)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of int8 codes (n, inputs) and (outputs, inputs), exact in int32 up to 133,000 inputs."""
    if x.shape[1] == 1:  # for a single input torch 2.13's kernel is wrong on CPU
        return x.int() * weight.int().T
    return torch._int_mm(x, weight.T)


def multiply(x: Codes, weight: Codes) -> Tensor:
    """x W^T (n, outputs) in fp32, its sums over the inputs exact in int32."""
    total = product(x.codes, weight.codes).double()
    if x.zero.any() or weight.zero.any():
        across = [m.codes.sum(1, dtype=torch.int32)[:, None].double() for m in (x, weight)]
        total += x.zero * across[1].T + across[0] * weight.zero.T + x.codes.shape[1] * (x.zero * weight.zero.T)
    return (total * (x.scale * weight.scale.T)).float()


class Int8Linear(nn.Module):
    """A linear layer in int8; `seen` is what a calibration showed of its inputs."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    held: Tensor
    copy: Tensor
    sticks: Tensor

    def __init__(self, layer: nn.Linear, recipe: Recipe, seen: Seen | None = None, work: Work | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        columns, self.threshold = thresholds(recipe, seen)
        sticks = torch.zeros(layer.in_features, dtype=torch.bool, device=weight.device)
        if seen is not None and columns:
            sticks = seen.peak >= columns
        self.recipe, self.work, self.bias = recipe, work or Work(), layer.bias
        held = sticks.nonzero()[:, 0] if recipe.copy else sticks.new_zeros(0, dtype=torch.long)
        self.register_buffer("held", held)
        self.register_buffer("copy", weight[:, held].half())
        self.register_buffer("sticks", sticks, persistent=False)
        if recipe.columns == "fixed" and recipe.copy:  # never read as int8, so they need not fit its scales
            weight = weight.masked_fill(sticks, 0)
        stored = encode(weight, rows=recipe.scales == "vector", zero_point=recipe.zero_point)
        for name in ("codes", "scale", "zero"):
            self.register_buffer(name, getattr(stored, name))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        stored, wide = Codes(self.codes, self.scale, self.zero), self.wide(flat)
        rest = flat.masked_fill(wide, 0)  # before the scales are taken: after, nothing would be gained
        y = multiply(encode(rest, rows=self.recipe.scales != "tensor", zero_point=self.recipe.zero_point), stored)
        columns = wide.any(0).nonzero()[:, 0]
        if len(columns):
            y = y + F.linear((flat - rest)[:, columns], self.weight(columns))
        apart = int(wide.expand_as(flat).sum()) * len(self.codes)
        self.work.wide += apart
        self.work.int8 += flat.numel() * len(self.codes) - apart
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)

    def wide(self, flat: Tensor) -> Tensor:
        """Which values of flat (rows, inputs) are not multiplied in int8: bool, broadcast over rows or not."""
        if self.threshold == 0 or self.recipe.columns == "fixed":
            return self.sticks[None]
        large = flat.abs() >= self.threshold
        return large if self.recipe.columns == "row" else large.any(0, keepdim=True)

    def weight(self, columns: Tensor) -> Tensor:
        """The weights (outputs, n) of some columns: their 16-bit copy where there is one, else what int8 kept."""
        found = Codes(self.codes[:, columns], self.scale, self.zero).values
        at = torch.isin(columns, self.held)
        found[:, at] = self.copy[:, torch.searchsorted(self.held, columns[at])].float()
        return found

    @property
    def bytes(self) -> int:
        """Of codes, scales, zeros where there are any, and the copy with its columns' numbers; the marks of columns, a
        byte an input, are not counted."""
        zeros = self.zero if self.recipe.zero_point else self.zero[:0]
        return sum(t.nbytes for t in (self.codes, self.scale, zeros, self.copy, self.held))


@dataclass
class Conversion:
    """A converted model, what it has multiplied since, and the bytes of its linear layers, before as fp16 and now."""

    model: Llama
    work: Work = field(default_factory=Work)
    fp16_bytes: int = 0
    bytes: int = 0


def linears(model: Llama) -> dict[str, nn.Linear]:
    """The layers that the method quantises, by name: projections of attention and feed-forward, not the head."""
    return {name: part for name, part in model.layers.named_modules() if isinstance(part, nn.Linear)}


@torch.inference_mode()
def observe(model: Llama, calibration: Iterable[Sequence[int]]) -> dict[str, Seen]:
    """What each linear layer's inputs are like while `model` reads these sequences of tokens."""
    peak: dict[str, Tensor] = {}
    sizes: dict[str, list[Tensor]] = {}

    def watch(name: str, x: Tensor) -> None:
        size = x.abs().flatten(0, -2)
        top = size.amax(0)
        peak[name] = torch.maximum(peak[name], top) if name in peak else top
        sizes.setdefault(name, []).append(size.ravel()[:: max(1, size.numel() // SAMPLE)].clone())

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: watch(name, args[0]))
        for name, layer in linears(model).items()
    ]
    try:
        for tokens in calibration:
            model(torch.tensor([list(tokens)], device=model.embed_tokens.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: Seen(peak[name], torch.cat(sizes[name]).sort().values) for name in peak}


def thresholds(recipe: Recipe, seen: Seen | None) -> tuple[float, float]:
    """The sizes from which a column, by its peak, and a value stick out of a layer's inputs; 0 for none."""
    if recipe.share is None or seen is None:
        return recipe.threshold, recipe.threshold
    wide = int((1 - recipe.share) * len(seen.peak))
    column = float(seen.peak.sort(descending=True).values[wide].nextafter(torch.tensor(torch.inf)))
    value = float(seen.sizes[int(recipe.share * (len(seen.sizes) - 1))])
    return column, value if recipe.columns == "row" else column


@torch.inference_mode()
def convert(model: Llama, recipe: Recipe = Recipe(), seen: Mapping[str, Seen] | None = None) -> Conversion:  # noqa: B008
    """Replaces the linear layers of `model` (fp32, as `load(..., weights="fp32").model`) in place.

    seen: what `observe` found, from which the columns with a copy are taken. Raises UsageError where the recipe fixes
    columns by the calibration and there is none, and for a model whose layers are not in fp32.
    """
    layers = linears(model) if isinstance(model, Llama) else {}
    if not layers:
        raise UsageError('This model has no fp32 linear layers; convert(load(name, weights="fp32").model, ...).')
    if seen is None and (recipe.share is not None or (recipe.threshold and recipe.columns == "fixed")):
        raise UsageError(
            "A share and fixed columns need a calibration: convert(model, recipe, observe(model, sequences))."
        )
    done = Conversion(model)
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        small = Int8Linear(layer, recipe, None if seen is None else seen[name], done.work)
        setattr(model.layers.get_submodule(parent), own, small)
        done.fp16_bytes += 2 * layer.weight.numel()
        done.bytes += small.bytes
    return done
