"""Generated programming problems: a signature, plain English, a few examples; and many hidden tests that decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from anystep.errors import UsageError
from anystep.tasks._draw import check_count, check_split, digest, rng, split_of
from anystep.tasks.code import on_numbers, on_texts
from anystep.tasks.code.mutate import Slip, overfit, slips, some
from anystep.tasks.code.problem import Case, Cases, Problem, task_of
from anystep.tasks.code.spec import Arguments, Spec
from anystep.tasks.code.values import spelled
from anystep.tasks.task import Task

LEVELS = (1, 2, 3)
STYLES = ("chat", "plain")
SHOWN = 3  # examples a problem shows
HIDDEN = 40  # typical arguments among its hidden tests, beside the edge cases

_FAMILIES: dict[int, tuple[Callable[[Random], Spec], ...]] = {
    level: (*on_numbers.LEVELS[level], *on_texts.LEVELS[level]) for level in LEVELS
}


def programs(
    n: int,
    seed: int = 0,
    split: str = "test",
    level: int | None = None,
    style: str = "chat",
    shown: int = SHOWN,
    probes: int = 0,
) -> list[Task]:
    """`n` distinct problems: write a function that does what is described.

    level: 1 one operation, 2 two of them or a rule for an edge, 3 loops that remember; None mixes all. style: "chat"
    asks an instructed model for a code block, "plain" is a signature with its docstring for a model that continues.
    shown: how many examples are shown; they are typical and leave the edge cases out. `Task.extract` is what a program
    returns on the examples' arguments, and on `probes` more that are made from them, so programs that behave alike
    there are one vote; `Task.score` is 1 where every hidden test passes. Each split's problems are its own: which one
    a problem is in depends on what it asks.

    Raises UsageError for an option that does not exist, or where the split has too few problems.
    """
    call = f'programs({n!r}, split="test", level=1, style="chat")'
    check_count(n, call)
    check_split(split, call)
    if level is not None and level not in LEVELS:
        raise UsageError(f"level={level!r} does not exist: write {call}, with level one of {LEVELS} or None")
    if style not in STYLES:
        raise UsageError(f"style={style!r} does not exist: write {call}, with style one of {STYLES}")
    if isinstance(shown, bool) or not isinstance(shown, int) or not 1 <= shown <= 10:
        raise UsageError(f"shown={shown!r} examples: write programs({n!r}, shown=3), from 1 to 10")
    found: dict[tuple[Any, ...], Task] = {}
    repeats = 0
    for each, spec in _drawn(seed, split, level):
        repeats = repeats + 1 if (key := (spec.scheme, spec.key)) in found else 0
        if key not in found:
            name = f"programs/{split}/{level or 'mix'}/{seed}/{len(found)}"
            found[key] = _task(name, spec, each, style, shown, probes)
        if len(found) == n:
            break
        if repeats > 500:
            raise UsageError(f"programs({n}): the {split} split has only about {len(found)} such problems")
    return list(found.values())


def planted(task: Task, n: int = 8, seed: int = 0) -> list[Slip]:
    """At most `n` programs that are one slip away from a generated problem's reference, and one more that knows the
    shown examples by heart. Which of them are wrong, the hidden tests say."""
    spec: Spec | None = task.meta.get("spec")
    if spec is None:
        raise UsageError(
            f"planted() needs a generated problem, not {task.id}: write planted(tasks.load('programs', 1)[0])"
        )
    shown = [(case.arguments, case.expected) for case in task.meta["problem"].shown]
    chosen = some(rng("planted", spec.scheme, spec.key, seed), list(slips(spec.source)), n)
    return [*chosen, overfit(spec.name, spec.head, shown)]


def _drawn(seed: int, split: str, level: int | None) -> Iterator[tuple[int, Spec]]:
    """Endless problems of one split, levels and families drawn evenly; they may repeat."""
    r = rng("programs", seed, split, level)
    while True:
        each = level or r.choice(LEVELS)
        spec = r.choice(_FAMILIES[each])(r)
        if split_of("programs", spec.scheme, spec.key) == split:  # a small family may have none in a split
            yield each, spec


def _task(name: str, spec: Spec, level: int, style: str, shown: int, probes: int) -> Task:
    examples, hidden = cases_of(spec, shown)
    stub = _stub(spec, examples)
    problem = Problem(
        f"programs/{spec.scheme}/{digest(spec.says):016x}/{shown}", spec.name, stub, examples, Cases(hidden)
    )
    return task_of(
        problem,
        id=name,
        family=f"programs/{spec.scheme}",
        style=style,
        reference=spec.source,
        level=level,
        probes=probes,
        meta={"question": spec.says, "spec": spec},
    )


def cases_of(spec: Spec, shown: int = SHOWN) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """A problem's shown and hidden tests, the same ones for one problem whatever the seed; no hidden one is shown."""
    solve = _solver(spec)
    r = rng("tests", spec.scheme, spec.key, spec.says)
    examples: list[Case] = []
    for _ in range(100):  # typical arguments, and not all with the same answer where that can be had
        examples = _distinct((Case(a, solve(a)) for a in (spec.draw(r) for _ in range(8 * shown))), shown)
        if len({spelled(case.expected) for case in examples}) > 1 or shown == 1:
            break
    known = {spelled(case.arguments) for case in examples}
    every = [*spec.edges, *(spec.draw(r) for _ in range(HIDDEN))]
    hidden = _distinct((Case(a, solve(a)) for a in every if spelled(a) not in known), len(every))
    return tuple(examples), tuple(hidden)


def _distinct(cases: Iterator[Case], most: int) -> list[Case]:
    found: dict[str, Case] = {}
    for case in cases:
        found.setdefault(spelled(case.arguments), case)
        if len(found) == most:
            break
    return list(found.values())


def _solver(spec: Spec) -> Callable[[Arguments], Any]:
    """The reference, run here: it is this file's own text, never a model's."""
    space: dict[str, Any] = {}
    exec(compile(spec.source, f"<{spec.scheme}>", "exec"), space)
    return lambda arguments: space[spec.name](*arguments)


def _stub(spec: Spec, examples: Sequence[Case]) -> str:
    """The signature with its docstring, as a program begins."""
    lines = [f"    >>> {case.call(spec.name)}\n    {case.expected!r}" for case in examples]
    return f'{spec.head}\n    """{spec.says}\n\n' + "\n".join(lines) + '\n    """\n'
