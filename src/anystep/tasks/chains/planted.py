"""Right chains with exactly one error planted, of a named kind, for counting what a verifier lets pass.

Behind its error a chain goes on as a writer would who has not noticed it: from the state he believes to be in, by
legal steps to the goal (from a doomed move, to where no step is left). Four kinds keep the right chain's other steps
instead: what ends early, what is dropped or swapped, and `right answer`. Labels come from the exact checker alone.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from anystep.tasks.chains.alphabet import CHAIN_END, STEP_END
from anystep.tasks.chains.arithmetic import EQUATION, LIMIT, OPERATORS, apply, miscount
from anystep.tasks.chains.arithmetic import At as ValueAt
from anystep.tasks.chains.countdown import At as NumbersAt
from anystep.tasks.chains.countdown import without
from anystep.tasks.chains.draw import family_of
from anystep.tasks.chains.family import Family, State, Verdict, split
from anystep.tasks.chains.lists import INSTRUCTIONS
from anystep.tasks.chains.lists import At as ListAt

KINDS = {
    "false result": "a result is false and carried on: 3+4=8; in lists, other digits",
    "illegal move": "true, but not to be played here: an operation or instruction that is not the one due, a number "
    "that is not left, an edge that is not given",
    "doomed move": "legal, but the goal can no longer be reached (countdown and paths)",
    "early ending": "stops before the goal is met; each step is right",
    "dropped step": "a step is left out",
    "swapped steps": "two neighbouring steps have changed places",
    "wrong copy": "a step starts from another value, list or node than the last one led to",
    "right answer": "a wrong step on the way, but the end of a right chain",
}
TRIES = 40


class _Place(NamedTuple):
    """Where an error goes: the family, a right chain's steps, the place, the state before it and the draws."""

    family: Family
    steps: list[str]
    at: int
    state: State
    rng: Random


def plant(prompt: str, chain: str, kind: str, rng: Random) -> str | None:
    """`chain`, a right one for `prompt`, with one error of `kind` (see `KINDS`) planted.

    None where the family knows no such error, or this chain has no place for it.
    """
    family, steps = family_of(prompt), [text for text, _ in split(chain)]
    states = [family.start(prompt)]
    for text in steps[:-1]:
        states.append(family.moves(states[-1])[text])
    for _ in range(TRIES):
        at = rng.randrange(len(steps))
        found = _PLANT[kind](_Place(family, steps, at, states[at], rng))
        if found and not family.score(prompt, written := STEP_END.join(found) + CHAIN_END):
            return written
    return None


def first_error(prompt: str, chain: str) -> tuple[int, Verdict] | None:
    """The place and kind of a chain's first wrong step, by the checker; None where there is none."""
    verdicts = family_of(prompt).judge(prompt, chain)
    return next(((i, v) for i, v in enumerate(verdicts) if v is not Verdict.RIGHT), None)


def _carried(place: _Place, text: str, after: State) -> list[str] | None:
    """The right steps up to the place, `text`, and from the state its writer believes in on to the goal."""
    family, rest, state = place.family, list[str](), after
    while not family.met(state):
        good = {t: s for t, s in family.moves(state).items() if family.alive(s)}
        if not good:
            return None
        move = place.rng.choice(sorted(good))
        state = good[move]
        rest.append(move)
    return [*place.steps[: place.at], text, *rest]


def _false_result(place: _Place) -> list[str] | None:
    if place.family.letter == "P":
        return None  # a path's steps state nothing that could be false
    if place.family.letter == "L":
        name, listed = place.steps[place.at][0], place.steps[place.at][1:]
        digits = _misread(listed, place.rng)
        return None if digits == listed else _carried(place, name + digits, ListAt(digits, place.state.rest[1:]))
    left, operator, right, result = _parts(place.steps[place.at])
    if place.family.letter == "C" and not _left_after(place):  # the last step claims the target
        false = [o for o in OPERATORS if apply(left, o, right) != result]
        return [*place.steps[:-1], f"{left}{place.rng.choice(false)}{right}={result}"]
    claimed = _near(place, result)
    return None if claimed is None else _carried(place, f"{left}{operator}{right}={claimed}", _believed(place, claimed))


def _illegal_move(place: _Place) -> list[str] | None:
    state, rng = place.state, place.rng
    if place.family.letter == "L":
        name = rng.choice([n for n in INSTRUCTIONS if n != state.rest[0]])
        digits = INSTRUCTIONS[name](state.digits)
        return _carried(place, name + digits, ListAt(digits, state.rest[1:]))
    if place.family.letter == "P":
        reach = [n for n in _nodes(state) if n != state.node and state.node + n not in state.edges]
        reach = [n for n in reach if place.family.alive(state._replace(node=n))]
        return _jump(place, state.node, rng.choice(reach)) if reach else None
    left, operator, right, _ = _parts(place.steps[place.at])
    others = range(2, 10) if place.family.letter == "A" else [n for n in range(1, 10) if n not in state.left]
    plays = [(left, o, n) for o in OPERATORS for n in others if (o, n) != (operator, right)]
    return _played(place, plays)


def _doomed_move(place: _Place) -> list[str] | None:
    family, state, rng = place.family, place.state, place.rng
    doomed = {t: s for t, s in family.moves(state).items() if not family.alive(s)}
    steps = place.steps[: place.at]
    while doomed:
        text = rng.choice(sorted(doomed))
        steps, state = [*steps, text], doomed[text]
        doomed = {} if family.met(state) else family.moves(state)
    return steps if len(steps) > place.at else None


def _early_ending(place: _Place) -> list[str] | None:
    return place.steps[: place.at]


def _dropped_step(place: _Place) -> list[str] | None:
    if place.at == len(place.steps) - 1:
        return None  # that would be an early ending
    return place.steps[: place.at] + place.steps[place.at + 1 :]


def _swapped_steps(place: _Place) -> list[str] | None:
    if place.at == len(place.steps) - 1:
        return None
    first, second = place.steps[place.at : place.at + 2]
    return [*place.steps[: place.at], second, first, *place.steps[place.at + 2 :]] if first != second else None


def _wrong_copy(place: _Place) -> list[str] | None:
    state, rng = place.state, place.rng
    if place.at == 0:
        return None  # nothing has been said yet that could be copied
    if place.family.letter == "L":
        digits = _misread(state.digits, rng)
        after = INSTRUCTIONS[state.rest[0]](digits)
        if after == INSTRUCTIONS[state.rest[0]](state.digits):
            return None
        return _carried(place, state.rest[0] + after, ListAt(after, state.rest[1:]))
    if place.family.letter == "P":
        edges = [e for e in sorted(state.edges) if e[0] != state.node]
        edges = [e for e in edges if place.family.alive(state._replace(node=e[1]))]
        edge = rng.choice(edges) if edges else None
        return _jump(place, edge[0], edge[1]) if edge else None
    left, operator, right, _ = _parts(place.steps[place.at])
    near = [v for v in sorted({miscount(rng, left) for _ in range(20)}) if v != left]
    forced = OPERATORS if place.family.letter == "C" and not _left_after(place) else operator
    return _played(place, [(v, o, right) for v in near for o in forced])


def _right_answer(place: _Place) -> list[str] | None:
    steps, at = place.steps, place.at
    if at == len(steps) - 1:
        return None
    if place.family.letter == "P":  # a short cut along the right path: an edge that is not given
        edge = steps[at][0] + steps[at + 1][1]
        return [*steps[:at], edge, *steps[at + 2 :]] if edge not in place.state.edges else None
    if place.family.letter == "L":
        wrong = steps[at][0] + _misread(steps[at][1:], place.rng)
    else:
        left, operator, right, result = _parts(steps[at])
        wrong = f"{left}{operator}{right}={miscount(place.rng, result)}"
    return [*steps[:at], wrong, *steps[at + 1 :]] if wrong != steps[at] else None


_PLANT: dict[str, Callable[[_Place], list[str] | None]] = {
    "false result": _false_result,
    "illegal move": _illegal_move,
    "doomed move": _doomed_move,
    "early ending": _early_ending,
    "dropped step": _dropped_step,
    "swapped steps": _swapped_steps,
    "wrong copy": _wrong_copy,
    "right answer": _right_answer,
}


def _parts(step: str) -> tuple[int, str, int, int]:
    match = EQUATION.fullmatch(step)
    assert match is not None  # the steps of a right chain
    return int(match[1]), match[2], int(match[3]), int(match[4])


def _left_after(place: _Place) -> tuple[int, ...]:
    """Countdown: the numbers left when the right step at the place has been taken."""
    left, _, right, _ = _parts(place.steps[place.at])
    return without(place.state.left, *((left, right) if place.state.value is None else (right,)))


def _believed(place: _Place, value: int) -> State:
    """Where a writer believes to be who has used what the right step uses, and holds `value`."""
    if place.family.letter == "A":
        return ValueAt(value, place.state.rest[1:])
    return NumbersAt(value, _left_after(place), place.state.target)


def _played(place: _Place, plays: list[tuple[int, str, int]]) -> list[str] | None:
    """One of these operations, worked out rightly, after which the goal can still be reached, and the way there."""
    found = [(f"{x}{o}{y}={v}", _believed(place, v)) for x, o, y in plays if (v := apply(x, o, y)) is not None]
    good = [(text, after) for text, after in found if place.family.alive(after)]
    return _carried(place, *place.rng.choice(good)) if good else None


def _near(place: _Place, right: int) -> int | None:
    """A false result from which the goal can still be reached, one of the four nearest."""
    values = sorted((v for v in range(LIMIT + 1) if v != right), key=lambda v: abs(v - right))
    good = [v for v in values if place.family.alive(_believed(place, v))][:4]
    return place.rng.choice(good) if good else None


def _misread(digits: str, rng: Random) -> str:
    """Other digits: one changed, or two neighbours swapped."""
    at = rng.randrange(len(digits))
    if rng.random() < 0.5:
        return digits[:at] + str((int(digits[at]) + rng.randrange(1, 10)) % 10) + digits[at + 1 :]
    return digits[:at] + digits[at:][:2][::-1] + digits[at + 2 :]


def _nodes(state: State) -> list[str]:
    return sorted({node for edge in state.edges for node in edge})


def _jump(place: _Place, node: str, to: str) -> list[str] | None:
    return _carried(place, node + to, place.state._replace(node=to))
