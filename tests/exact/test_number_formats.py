"""Number formats: codes against torch's own, nearest by brute force, and analytic errors against closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as laws

from anystep.errors import UsageError
from anystep.language.accelerate.number_formats import (
    E2M5,
    E3M4,
    E4M3,
    E5M2,
    FORMATS,
    INT4,
    INT8,
    Format,
    decode,
    encode,
    gates,
    gaussian,
    kurtosis,
    rounded,
    sample,
    straight,
    student,
    uniform,
)

FLOATS = [f for f in FORMATS if f.exponent]


@pytest.mark.parametrize(("form", "dtype"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)])
def test_all_codes_and_a_quarter_million_roundings_are_torch_s_bit_for_bit(form, dtype):
    codes = torch.arange(256, dtype=torch.uint8)
    ours, theirs = decode(codes, form), codes.view(dtype).float()
    numbers = theirs.isfinite()
    assert torch.equal(ours.isfinite(), numbers) and torch.equal(ours[numbers], theirs[numbers])
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1 << 18, generator=draw) * torch.exp(3 * torch.randn(1 << 18, generator=draw))
    between = (ours[numbers].sort().values[1:] + ours[numbers].sort().values[:-1]) / 2  # ties
    x = torch.cat([x.clamp(-form.top, form.top), between, ours[numbers]])
    assert torch.equal(encode(x, form), x.to(dtype).view(torch.uint8))


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.name)
def test_every_number_comes_back_and_every_value_goes_to_the_nearest(form):
    codes = torch.arange(2**form.bits, dtype=torch.uint8)
    numbers = decode(codes, form)
    there = numbers.isfinite()
    assert int(there.sum()) == 2 * len(form.magnitudes) - (0 if form.exponent else 1)
    assert torch.equal(encode(numbers[there], form), codes[there])
    x = torch.empty(4000).uniform_(-1.2 * form.top, 1.2 * form.top, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rounded(x, form, 0.3), decode(encode(x, form, 0.3), form, 0.3))
    ties = (numbers[there].sort().values[1:] + numbers[there].sort().values[:-1]) / 2
    assert torch.equal(rounded(ties, form), decode(encode(ties, form), form))
    nearest = (x[:, None] - numbers[there]).abs().amin(1)
    assert torch.equal((rounded(x, form) - x).abs(), nearest)


def test_the_floats_are_those_of_the_bits_read_as_the_definition_says():
    for form in FLOATS:
        for code in range(256):
            power, rest = (code >> form.mantissa) & (2**form.exponent - 1), code & (2**form.mantissa - 1)
            if (code & 127) >= 128 - form.reserved:
                continue
            part = rest / 2**form.mantissa
            size = 2.0 ** (power - form.bias) * (1 + part) if power else 2.0 ** (1 - form.bias) * part
            assert float(decode(torch.tensor([code], dtype=torch.uint8), form)) == (-size if code > 127 else size)
    assert (INT8.top, INT4.top, E2M5.top, E3M4.top, E4M3.top, E5M2.top) == (127, 7, 7.875, 31, 448, 57344)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(-20, 20), st.integers(0, 2**31))
def test_a_bias_is_a_scale_of_a_power_of_two(exponent, bias, seed):
    plain, moved = (Format("f", exponent, 7 - exponent, bias=b) for b in (0, bias))
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(encode(x, moved), encode(x, plain, 2.0**-bias))
    assert torch.equal(rounded(x, moved), rounded(x, plain, 2.0**-bias))


@pytest.mark.parametrize("law", [uniform(), gaussian(), student()], ids=lambda law: law.name)
def test_the_analytic_error_is_the_integral(law):
    top = law.reach if law.name != "Gaussian" else 12.0
    density = {"uniform": lambda x: np.ones_like(x), "Gaussian": lambda x: 2 * laws.norm.pdf(x)}.get(
        law.name, lambda x: 2 * laws.t(3).pdf(x) / (1 - 2 * laws.t(3).sf(60.0))
    )
    assert abs(float(law.below(np.array([np.inf]))[0, 0]) - 1) < 1e-12
    assert abs(law.power - integrate.quad(lambda x: x * x * density(x), 0, top, limit=500)[0]) < 1e-7
    form = Format("tiny", 2, 1, bias=1)
    for scale in (law.reach / 8, law.reach / 20):
        points = form.magnitudes * scale
        ends = [0, *((points[1:] + points[:-1]) / 2), top]
        ends = [min(e, top) for e in ends]
        whole = sum(
            integrate.quad(lambda x, q=q: (x - q) ** 2 * density(x), a, b, limit=500)[0]
            for q, (a, b) in zip(points, itertools.pairwise(ends), strict=True)
        )
        assert math.isclose(law.error(form, scale), whole, rel_tol=1e-6)


def test_a_uniform_law_under_int8_has_the_textbook_error():
    assert math.isclose(uniform().error(INT8, 1 / 127.5), (1 / 127.5) ** 2 / 12, rel_tol=1e-9)
    assert abs(uniform().sqnr(INT8) - 20 * math.log10(255)) < 0.001


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.name)
def test_a_sample_s_error_is_that_of_rounding_it(form):
    x = torch.randn(3000, generator=torch.Generator().manual_seed(0)) ** 3
    law = sample(x.numpy())
    scale = law.best_scale(form)
    measured = float((rounded(x.double(), form, scale).double() - x.double()).square().mean())
    assert math.isclose(law.error(form, scale), measured, rel_tol=1e-4)
    assert all(law.error(form, scale) <= law.error(form, scale * f) * 1.02 for f in (0.5, 0.8, 1.25, 2.0))


def test_kurtosis_of_known_laws():
    draw = np.random.default_rng(0)
    assert abs(kurtosis(draw.uniform(-1, 1, 200_000)) - 1.8) < 0.02
    assert kurtosis([1.0, -2.0, 0.0, 0.0]) == kurtosis([1.0, -2.0]) == 8.5 / 2.5**2
    assert abs(kurtosis(draw.normal(size=200_000)) - 3) < 0.1


def test_training_through_it_sees_the_identity_within_range():
    x = torch.tensor([0.3, -0.7, 5.0], requires_grad=True)
    y = straight(x, INT4, 1 / 7)
    y.sum().backward()
    assert torch.equal(y.detach(), rounded(x.detach(), INT4, 1 / 7)) and x.grad.tolist() == [1, 1, 0]


def test_gates_grow_with_exponent_bits_and_accumulators():
    assert gates(INT4) < gates(INT8) < gates(INT8, 32) < gates(E5M2) < gates(E4M3) < gates(E4M3, 32)


def test_formats_and_calls_that_cannot_be_meant():
    with pytest.raises(UsageError, match="exponent"):
        Format("E5M4", 5, 4)
    with pytest.raises(UsageError, match="reserved"):
        Format("none", 1, 1, reserved=4)
    with pytest.raises(UsageError, match="zero"):
        sample(np.zeros(4))
    with pytest.raises(UsageError, match="16 or 32"):
        gates(INT8, 8)
