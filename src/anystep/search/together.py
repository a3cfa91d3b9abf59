"""Several procedures in one run, their asks merged round by round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anystep.errors import UsageError
from anystep.population import Population
from anystep.procedure import All, Ask, Draw, Exploring, Method, Start


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
    exploring = [m() for m in options.values()]
    try:
        return (yield from _merged(exploring))
    finally:  # stopped on the way, the members are closed here and now, not when they are collected
        for generator in exploring:
            generator.close()


def _merged(exploring: list[Exploring]) -> Exploring:
    replies: list[Any] = [None] * len(exploring)
    found: dict[int, Population] = {}
    while len(found) < len(exploring):
        asks: dict[int, Ask] = {}
        for i, generator in enumerate(exploring):
            if i not in found:
                try:
                    asks[i] = _placed(generator.send(replies[i]), i)
                except StopIteration as end:
                    found[i] = end.value
        if asks:
            for i, reply in zip(asks, (yield All(tuple(asks.values()))), strict=True):
                replies[i] = reply
    populations = [found[i] for i in range(len(exploring))]
    return populations[0].join(*populations[1:])


def _placed(ask: Ask, place: int) -> Ask:
    """The ask with its procedure's place added to the path that its randomness comes from."""
    match ask:
        case Start() | Draw():
            return replace(ask, path=(place, *ask.path))
        case All(asks):
            return All(tuple(_placed(a, place) for a in asks))
    return ask
