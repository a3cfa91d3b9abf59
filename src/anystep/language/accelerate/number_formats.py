"""Number formats of eight bits and fewer: codecs to the bit, the error each makes on a law, and what it costs to build.

A format is a finite set of numbers around zero times a scale. Integers space them evenly; a float with E bits of
exponent and M of mantissa has 2^E pieces of 2^M even steps, each piece as wide as all before it together, so large
values may be far out while small ones stay fine. Which is best is a matter of the law of the values alone: `Law.sqnr`
integrates the rounding error over the cells of the grid, `best_scale` finds the range that makes it least, and `sample`
makes a law of measured values, so that the same is exact for them.

Preserves: nothing; these are roundings. `encode` rounds to the nearest, ties to the even code, and what is out of range
to the largest. Source: van Baalen, Kuzmin, Nair, Ren, Mahurin, Patel, Subramanian, Lee, Nagel, Soriaga, Blankevoort,
"FP8 versus INT8 for efficient deep learning inference", arXiv 2303.17951 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from anystep.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Format:
    """A sign, `exponent` bits and `mantissa` bits; with no exponent bits an integer, which is all mantissa.

    reserved: codes at the top of the magnitudes that are no numbers (infinities, NaN). bias: of the exponent; another
    bias is a scale of a power of two.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int = 0
    reserved: int = 0

    def __post_init__(self) -> None:
        if self.exponent < 0 or self.mantissa < 0 or not 1 <= self.exponent + self.mantissa <= 7:
            raise UsageError(f"Format({self.name!r}): exponent and mantissa bits are 1 to 7 in all, such as 4 and 3.")
        if not 0 <= self.reserved < 2 ** (self.bits - 1) - 1:
            raise UsageError(f"Format({self.name!r}, reserved={self.reserved}) leaves no numbers.")

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @cached_property
    def magnitudes(self) -> Floats:
        """The numbers from 0 up, in the order of their codes; before the scale."""
        codes = np.arange(2 ** (self.bits - 1) - self.reserved)
        if not self.exponent:
            return codes.astype(np.float64)
        power, rest = codes >> self.mantissa, codes & (2**self.mantissa - 1)
        normal = rest + np.where(power > 0, 2**self.mantissa, 0)  # the lowest piece, of subnormals, has no leading one
        return normal * 2.0 ** (np.maximum(power, 1) - self.bias - self.mantissa)

    @property
    def top(self) -> float:
        return float(self.magnitudes[-1])


INT8, INT4 = Format("INT8", 0, 7), Format("INT4", 0, 3)
E2M5, E3M4 = Format("E2M5", 2, 5, bias=1), Format("E3M4", 3, 4, bias=3)
E4M3, E5M2 = Format("E4M3", 4, 3, bias=7, reserved=1), Format("E5M2", 5, 2, bias=15, reserved=4)
FORMATS = (INT8, INT4, E2M5, E3M4, E4M3, E5M2)  # E4M3 to 448 and E5M2 to 57,344, as in hardware; the others whole


def encode(x: Tensor, form: Format, scale: Tensor | float = 1.0) -> Tensor:
    """The codes (uint8) of x / scale: sign and magnitude for floats, two's complement in `form.bits` for integers."""
    y = (x.double() / scale).contiguous()
    table = torch.from_numpy(form.magnitudes).to(x.device)
    between, size = (table[1:] + table[:-1]) / 2, y.abs()
    below, above = torch.searchsorted(between, size), torch.searchsorted(between, size, right=True)
    code = torch.where(below % 2 == 0, below, above)  # they differ on a tie, by one
    if form.exponent:
        return (code | (torch.signbit(y).long() << (form.bits - 1))).to(torch.uint8)
    return torch.where(y < 0, -code, code).remainder(2**form.bits).to(torch.uint8)


def decode(codes: Tensor, form: Format, scale: Tensor | float = 1.0) -> Tensor:
    """The numbers of `codes`, in fp32; a reserved code is NaN, and so is the integers' -2^(bits-1), not used."""
    half, code = 2 ** (form.bits - 1), codes.long()
    gaps = np.full(half - len(form.magnitudes), np.nan)
    table = torch.from_numpy(np.concatenate([form.magnitudes, gaps, [np.nan]])).to(codes.device)
    if form.exponent:
        size, sign = table[code % half], 1 - 2 * (code // half)
    else:
        size, sign = table[torch.where(code < half, code, 2 * half - code)], torch.where(code < half, 1, -1)
    return (size * sign * scale).float()


def rounded(x: Tensor, form: Format, scale: Tensor | float = 1.0) -> Tensor:
    """x as the format holds it: what `decode` makes of `encode`, without the codes."""
    y = x.double() / scale
    if form.exponent:
        power = (torch.frexp(y).exponent - 1).clamp_min(1 - form.bias)  # of the piece that y lies in
        step = torch.ldexp(torch.ones_like(y), power - form.mantissa)
        y = (y / step).round() * step
    return (y.round() if not form.exponent else y).clamp(-form.top, form.top).mul(scale).float()


def straight(x: Tensor, form: Format, scale: Tensor | float = 1.0) -> Tensor:
    """`rounded`, whose gradient is that of the identity within range and nothing beyond it: to train through it."""
    return _Straight.apply(x, form, scale)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, form: Format, scale: Tensor | float) -> Tensor:
        ctx.save_for_backward(x.abs() <= form.top * scale)
        return rounded(x, form, scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


@dataclass(frozen=True)
class Law:
    """A law of values, symmetric around zero, by what its size x >= 0 has below a bound: `below(bounds)` gives the
    integrals (3, ...) of 1, x and x^2 up to there. `reach` is a size beyond which next to nothing lies."""

    name: str
    below: Callable[[Floats], Floats]
    reach: float

    @property
    def power(self) -> float:
        """The mean square."""
        return float(self.below(np.array([np.inf]))[2, 0])

    def error(self, form: Format, scale: float) -> float:
        """The mean squared rounding error: over each number's cell, and over what is clipped to the largest."""
        points = form.magnitudes * scale
        cells = np.diff(self.below(np.concatenate([[0.0], (points[1:] + points[:-1]) / 2, [np.inf]])))
        return float((cells[2] - 2 * points * cells[1] + points**2 * cells[0]).sum())

    def sqnr(self, form: Format, scale: float | None = None) -> float:
        """Signal over rounding noise in dB, at `scale` or at the best."""
        return 10 * math.log10(self.power / self.error(form, self.best_scale(form) if scale is None else scale))

    def best_scale(self, form: Format) -> float:
        """The scale of the least error: the best of eight an octave over 18 octaves of range, refined twice."""
        low, high, steps = self.reach / form.top * 2.0**-16, self.reach / form.top * 4, 145
        for _ in range(3):
            scales = np.geomspace(low, high, steps)
            best = int(np.argmin([self.error(form, scale) for scale in scales]))
            low, high, steps = scales[max(best - 1, 0)], scales[min(best + 1, steps - 1)], 33
        return float(scales[best])


def uniform() -> Law:
    """Uniform on [-1, 1]."""

    def below(bounds: Floats) -> Floats:
        b = np.minimum(bounds, 1.0)
        return np.stack([b, b**2 / 2, b**3 / 3])

    return Law("uniform", below, 1.0)


def gaussian() -> Law:
    """Standard normal."""

    def below(bounds: Floats) -> Floats:
        mass, density = 2 * stats.norm.cdf(bounds) - 1, 2 * stats.norm.pdf(bounds)
        edge = np.where(np.isinf(bounds), 0.0, bounds)
        return np.stack([mass, 2 * stats.norm.pdf(0) - density, mass - edge * density])

    return Law("Gaussian", below, 5.0)


def student(clip: float = 60.0) -> Law:
    """Student's t with three degrees of freedom, given that its size is at most `clip`; without that its rounding
    error has no variance, and no Monte Carlo could check it."""

    def parts(b: Floats) -> Floats:
        k, root = 4 / (math.pi * math.sqrt(3)), math.sqrt(3)  # twice the density at zero
        mass = k / 2 * (root * np.arctan(b / root) + b / (1 + b**2 / 3))
        return np.stack([mass, k * 1.5 * (1 - 1 / (1 + b**2 / 3)), 3 * k * root * np.arctan(b / root) - 3 * mass])

    whole = parts(np.array([clip]))[0, 0]
    return Law("Student t, 3 degrees", lambda bounds: parts(np.minimum(bounds, clip)) / whole, clip)


def sample(x: ArrayLike, name: str = "sample") -> Law:
    """The law that draws from measured values x: its errors are the mean squared errors of rounding x, exactly."""
    size = np.sort(np.abs(np.asarray(x, dtype=np.float64)).ravel())
    if not size.size or not np.isfinite(size).all() or size[-1] == 0:
        raise UsageError("sample(x): x has at least one value that is not zero, and none that is infinite or NaN.")
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(np.stack([np.ones_like(size), size, size**2]), axis=1)], axis=1)
    return Law(name, lambda bounds: sums[:, np.searchsorted(size, bounds)] / len(size), float(size[-1]))


def kurtosis(x: ArrayLike) -> float:
    """E x^4 / (E x^2)^2 around zero, where the grids are centred, of the values that are not zero: zeros are exact in
    every format and would only raise the ratio. 1.8 for uniform values, 3 for Gaussian, more with heavy tails."""
    y = np.asarray(x, dtype=np.float64)
    y = y[y != 0]
    return float((y**4).mean() / (y**2).mean() ** 2)


def gates(form: Format, accumulator: int = 16) -> int:
    """A rough count of two-input gates that multiply two such numbers and add the product to an accumulator of 16 or
    32 bits: an integer for integers, else a float (11 or 24 significant bits), as products of unlike size need.

    Counted: 5 gates for a full adder and 3 for a bit of a multiplexer; an array multiplier of the significant bits;
    for floats the adder of exponents, and in the accumulator the comparison of exponents, the shifter that aligns, the
    adder with three guard bits, the count of leading zeros, the shifter that normalises, and rounding. Good for ratios.
    """
    if accumulator not in (16, 32):
        raise UsageError(f"gates(..., accumulator={accumulator}): accumulators have 16 or 32 bits.")
    adder, mux, significant = 5, 3, form.mantissa + 1  # an integer's sign bit, or a float's hidden one
    multiply = significant**2 + adder * significant * (significant - 1)
    if not form.exponent:
        return multiply + adder * accumulator
    kept, exponent = (11, 5) if accumulator == 16 else (24, 8)
    width = kept + 3
    shifter = mux * width * math.ceil(math.log2(width))
    exponents = adder * (form.exponent + 1) + adder * exponent
    return multiply + exponents + shifter + adder * (width + 1) + mux * width + shifter + adder * kept
