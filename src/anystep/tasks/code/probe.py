"""More arguments to tell programs apart by: those that a problem shows, changed a little, their values unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from anystep.tasks._draw import rng
from anystep.tasks.code.problem import Case, Problem
from anystep.tasks.code.spec import Arguments
from anystep.tasks.code.values import spelled

MOST_TRIES = 50  # for each new arguments


def probed(problem: Problem, n: int, seed: int = 0) -> Problem:
    """The problem with up to `n` more arguments shown, without their values: programs are told apart on more of them,
    and no example is added that a program could be checked by.

    Nothing but what the problem shows is used, so that no answer key is; some arguments may be none that the problem
    means, where right programs may differ. Fewer than n where the shown arguments allow no more, none where none is
    shown.
    """
    r = rng("probes", problem.key, seed)
    known = {spelled(case.arguments) for case in problem.shown}
    found: list[Case] = []
    for _ in range(n * MOST_TRIES if problem.shown else 0):
        arguments = perturbed(r, r.choice(problem.shown).arguments)
        if (name := spelled(arguments)) not in known:
            known.add(name)
            found.append(Case(arguments))
        if len(found) == n:
            break
    return replace(problem, key=f"{problem.key}+{n}/{seed}", shown=(*problem.shown, *found))


def perturbed(r: Random, arguments: Arguments) -> Arguments:
    """Arguments of the same types, one of them or more changed."""
    at = r.randrange(len(arguments)) if arguments else 0
    return tuple(changed(r, x) if i == at or r.random() < 0.3 else x for i, x in enumerate(arguments))


def changed(r: Random, value: Any) -> Any:
    """Another value of the same type: a near one, or one at its edge."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return r.choice((0, 1, -value, value + 1, value - 1, 2 * value))
    if isinstance(value, float):
        return r.choice((0.0, -value, value + 1.0, value / 2))
    if isinstance(value, str):
        return _text(r, value)
    if isinstance(value, list | tuple):
        return type(value)(_sequence(r, value))
    if isinstance(value, set | frozenset):
        return type(value)(_sequence(r, sorted(value, key=spelled)))
    if isinstance(value, dict):
        left = dict(_sequence(r, list(value.items()), whole=True))
        return {key: changed(r, x) if r.random() < 0.5 else x for key, x in left.items()}
    return value


def _text(r: Random, value: str) -> str:
    if not value:
        return r.choice(("a", " ", "0"))
    at = r.randrange(len(value))
    return r.choice((value[:at] + value[at + 1 :], value + value[at], value[::-1], value.swapcase(), value[:at], ""))


def _sequence(r: Random, value: Sequence[Any], whole: bool = False) -> list[Any]:
    """Shorter, longer, turned around or empty; or, unless its parts stay `whole`, with one part changed."""
    parts = list(value)
    if not parts:
        return parts
    at = r.randrange(len(parts))
    ways = [parts[:at] + parts[at + 1 :], parts[::-1], parts[:at], [*parts, parts[at]]]
    if not whole:
        ways += [[*parts[:at], changed(r, parts[at]), *parts[at + 1 :]]] * 3
    return r.choice(ways)
