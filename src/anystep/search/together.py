"""Several procedures in one run, their asks merged round by round."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from anystep.errors import UsageError
from anystep.procedure import All, Ask, Draw, Exploring, Method, Start

T = TypeVar("T")


def together(*methods: Method) -> Method:
    """Drive several procedures at once: one merged batch a round, one budget, one population joined at the end.

    Each keeps its own randomness (its place here is part of its path), so it explores just as it would beside any
    others. The decision is the first method's; change it with `.deciding(...)`. Evidence is not joined, and a
    confidence that was calibrated for a member is not given.
    """
    if not methods or not all(isinstance(m, Method) for m in methods):
        raise UsageError("together() drives methods: call together(search.mcts(reward=r), search.mcts(reward=r)).")
    options = tuple((f"method{i}", m) for i, m in enumerate(methods))
    mass, end = any(m.needs_mass for m in methods), any(m.needs_end for m in methods)
    decision = methods[0].decision
    return Method("together", options, _together, decision.plain or decision, mass, end)


def _together(**options: Method) -> Exploring:
    populations = yield from side_by_side([m() for m in options.values()])
    return populations[0].join(*populations[1:])


def side_by_side(generators: Sequence[Generator[Ask, Any, T]]) -> Generator[Ask, Any, list[T]]:
    """Drive several generators of asks at once, each with randomness of its own; what each of them returned."""
    try:
        return (yield from _merged(generators))
    finally:  # stopped on the way, the members are closed here and now, not when they are collected
        for generator in generators:
            generator.close()


def _merged(generators: Sequence[Generator[Ask, Any, T]]) -> Generator[Ask, Any, list[T]]:
    replies: list[Any] = [None] * len(generators)
    found: dict[int, T] = {}
    while len(found) < len(generators):
        asks: dict[int, Ask] = {}
        for i, generator in enumerate(generators):
            if i not in found:
                try:
                    asks[i] = _placed(generator.send(replies[i]), i)
                except StopIteration as end:
                    found[i] = end.value
        if asks:
            for i, reply in zip(asks, (yield All(tuple(asks.values()))), strict=True):
                replies[i] = reply
    return [found[i] for i in range(len(generators))]


def _placed(ask: Ask, place: int) -> Ask:
    """The ask with its procedure's place added to the path that its randomness comes from."""
    match ask:
        case Start() | Draw():
            return replace(ask, path=(place, *ask.path))
        case All(asks):
            return All(tuple(_placed(a, place) for a in asks))
    return ask
