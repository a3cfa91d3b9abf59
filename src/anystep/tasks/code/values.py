"""Are two values the same? Compared by the parent, on plain literals, so that no program has a say in it."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 9  # significant digits of a float that a spelling keeps


def same(got: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Whether a value is the expected one, by type and by value.

    True is not 1, 1.0 is not 1, and a tuple is not a list; a whole number is taken where a float is expected, as Python
    itself takes it. Floats agree within `tolerance`, relatively or absolutely; NaN agrees with NaN. Only the built-in
    types themselves are known, no subclass and no other: those are never the same.
    """
    try:
        return _same(got, expected, tolerance)
    except RecursionError:
        return False


def _same(got: Any, expected: Any, tolerance: float) -> bool:
    kind = type(expected)
    if kind is float and type(got) in (int, float):
        return _near(got, expected, tolerance)
    if type(got) is not kind:
        return False
    if kind in (list, tuple):
        return len(got) == len(expected) and all(_same(g, e, tolerance) for g, e in zip(got, expected, strict=True))
    if kind is dict:
        ours, theirs = ({spelled(key): value for key, value in d.items()} for d in (got, expected))
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key], tolerance) for key in ours)
    if kind in (set, frozenset):
        return {spelled(x) for x in got} == {spelled(x) for x in expected}
    return kind in (bool, int, str, bytes, type(None)) and bool(got == expected)


def _near(got: int | float, expected: float, tolerance: float) -> bool:
    if math.isnan(expected):
        return math.isnan(got)
    try:
        return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # a whole number that is no float
        return False


def spelled(value: Any) -> str:
    """A value in one spelling: sets and dictionaries in order, floats to nine digits, types kept apart.

    What is no plain literal is written as its type alone.
    """
    kind = type(value)
    if kind is float:
        return f"{value + 0.0:.{DIGITS}g}" + ("" if not value.is_integer() or abs(value) >= 10**DIGITS else ".0")
    if kind in (bool, int, str, bytes, type(None)):
        try:
            return repr(value)
        except ValueError:  # a whole number with thousands of digits
            return hex(value)
    if kind is list:
        return f"[{', '.join(map(spelled, value))}]"
    if kind is tuple:
        return f"({', '.join(map(spelled, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return f"{{{', '.join(f'{k}: {v}' for k, v in sorted((spelled(k), spelled(v)) for k, v in value.items()))}}}"
    if kind in (set, frozenset):
        return f"{kind.__name__}({', '.join(sorted(map(spelled, value)))})"
    return f"<{kind.__name__}>"
