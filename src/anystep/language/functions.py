"""What a function is called where two must not be taken for one: in a process's settings, which a journal compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType
from typing import Any

from anystep.keys import named

PLAIN = (str, bytes, int, float, complex, bool, type(None))


def identity(function: Callable[..., Any]) -> str:
    """Its qualified name; of a lambda, a function made within another or a partial one, also a hash of what it does
    and of the plain values it has taken along, so that two from one place are told apart. The hash is the same in every
    process under one version of Python.

    A value that is no plain one, such as an object, counts by its type alone.
    """
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    if "<" not in name and not isinstance(function, partial):
        return name
    return f"{name} {named(repr(_described(function))):016x}"


def _described(value: Any, within: tuple[int, ...] = ()) -> Any:
    """within: the functions and containers that it is found in, for they may hold themselves."""
    if isinstance(value, PLAIN):
        return value
    if id(value) in within:
        return f"{len(within) - within.index(id(value))} up"
    within = (*within, id(value))
    if isinstance(value, (tuple, list)):
        return [_described(v, within) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_described(v, within)) for v in value)
    if isinstance(value, dict):
        return [(_described(k, within), _described(v, within)) for k, v in value.items()]
    if isinstance(value, CodeType):
        names = (value.co_names, value.co_varnames, value.co_freevars)
        return [value.co_code, *map(list, names), [_described(v, within) for v in value.co_consts]]
    if isinstance(value, partial):
        return [_described(v, within) for v in (value.func, value.args, value.keywords)]
    code = getattr(value, "__code__", None)
    if code is None:
        return f"a {type(value).__qualname__}"
    if "<" not in value.__qualname__:
        return value.__qualname__
    taken = (value.__defaults__, value.__kwdefaults__, list(_cells(value.__closure__ or ())))
    return [_described(code, within), [_described(v, within) for v in taken]]


def _cells(closure: Iterable[Any]) -> Iterable[Any]:
    for cell in closure:
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None
