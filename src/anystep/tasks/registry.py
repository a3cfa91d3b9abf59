"""Tasks by name, with their options checked: what `--task NAME` and `solve_many` look up."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from anystep.errors import Unsupported, UsageError
from anystep.tasks._draw import check_count, check_split, digest
from anystep.tasks.premises import premises
from anystep.tasks.procbench import ProcBench
from anystep.tasks.task import Task
from anystep.tasks.word_problems import word_problems

_GYM = "reasoning-gym:"
_NAMES = ("chains", "lines", "premises", "procbench", "word-problems", "programs", "humaneval", f"{_GYM}<dataset>")


def names() -> tuple[str, ...]:
    """Every name that `load` takes; `reasoning-gym:<dataset>` stands for each dataset of that package."""
    return _NAMES


def load(name: str, n: int, seed: int = 0, split: str = "test", **options: Any) -> list[Task]:
    """`n` tasks of that name, the same on every machine for the same seed.

    `split` is "train", "dev" or "test"; no problem stands in two (reasoning-gym keeps no splits: there each gets seeds
    of its own, and small datasets may repeat items; "humaneval" has no "train" and no seeds). The options are those of
    the generator: `families` and `level` of "chains"; `family` of "lines"; `family`, `steps` and `metric` of
    "procbench"; `level` and `style` of "premises" and "word-problems"; `level`, `style`, `shown` and `probes` of
    "programs"; `style` and `probes` of "humaneval"; a dataset's own. "programs-1" is "programs" of level 1, where a
    name is all that can be given.

    Raises UsageError, with the nearest name and the call that was meant, for an unknown name, split or option.
    """
    call = f'tasks.load("{name}", {n!r}, split="test")'
    check_count(n, call)
    check_split(split, call)
    if name.startswith(_GYM):
        from anystep.tasks.reasoning_gym import reasoning_gym

        # Items are drawn from seed, seed + 1, ...: hashed seeds keep neighbouring seeds and splits apart.
        return reasoning_gym(name.removeprefix(_GYM), n, digest("reasoning-gym", seed, split) >> 33, **options)
    if re.fullmatch(r"programs-\d+", str(name)) and "level" not in options:
        name, options = "programs", {"level": int(name.removeprefix("programs-")), **options}
    source = _SOURCES.get(name)
    if source is None:
        near = difflib.get_close_matches(str(name), _NAMES, n=1, cutoff=0.3) or ["word-problems"]
        raise UsageError(f'no task {name!r}: write tasks.load("{near[0]}", {n!r}), one of {", ".join(_NAMES)}')
    accepted, build = source()
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1, cutoff=0.4) or sorted(accepted)[:1]
            raise UsageError(f'{name} has no option {option!r}: write tasks.load("{name}", {n!r}, {near[0]}=...)')
    return build(n, seed, split, options)


Build = Callable[[int, int, str, dict[str, Any]], list[Task]]


def _options(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"n", "seed", "split"}


def _chains() -> tuple[set[str], Build]:
    try:
        chains = import_module("anystep.tasks.chains").chains
    except ImportError as error:
        raise Unsupported('chains are not part of this installation: write tasks.load("word-problems", 10)') from error
    return _options(chains), lambda n, seed, split, options: chains(n, seed=seed, split=split, **options)


def _word_problems() -> tuple[set[str], Build]:
    return _options(word_problems), lambda n, seed, split, options: word_problems(n, seed=seed, split=split, **options)


def _premises() -> tuple[set[str], Build]:
    return _options(premises), lambda n, seed, split, options: premises(n, seed=seed, split=split, **options)


def _procbench() -> tuple[set[str], Build]:
    return _options(ProcBench), lambda n, seed, split, options: ProcBench(seed=seed, split=split, **options).take(n)


def _lines() -> tuple[set[str], Build]:
    from anystep.tasks.lines import lines

    return _options(lines), lambda n, seed, split, options: lines(n, seed=seed, split=split, **options)


def _programs() -> tuple[set[str], Build]:
    from anystep.tasks.code import programs

    return _options(programs), lambda n, seed, split, options: programs(n, seed=seed, split=split, **options)


def _humaneval() -> tuple[set[str], Build]:
    from anystep.tasks.code import humaneval

    return _options(humaneval), lambda n, seed, split, options: humaneval(n, split=split, **options)


_SOURCES: dict[str, Callable[[], tuple[set[str], Build]]] = {
    "chains": _chains,
    "humaneval": _humaneval,
    "lines": _lines,
    "premises": _premises,
    "procbench": _procbench,
    "programs": _programs,
    "word-problems": _word_problems,
}
