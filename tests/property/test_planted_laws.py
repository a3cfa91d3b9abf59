"""A planted error is what its kind says, by the exact checker, and the only one its writer would own to."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep import tasks
from anystep.errors import UsageError
from anystep.tasks.chains import FAMILIES, Verdict, chains, family_of, split
from anystep.tasks.chains.planted import KINDS, first_error, plant
from anystep.tasks.equations import check_equations
from anystep.tasks.planted import GUESSED, WORD_KINDS, counts, planted, worked
from anystep.tasks.task import Task

SEEDS = st.integers(0, 10_000)
CHAINS = {letter: chains(40, "train", 7, letter) for letter in FAMILIES}
WORDS = [t for level in (1, 2, 3, 4) for t in tasks.word_problems(12, seed=5, split="train", level=level)]

# What the checker says of the first wrong step; where a family's steps state nothing, what is false is illegal.
VERDICTS = {
    "false result": {Verdict.FALSE, Verdict.ILLEGAL},
    "illegal move": {Verdict.ILLEGAL},
    "doomed move": {Verdict.DOOMED},
    "early ending": {Verdict.ENDING},
    "wrong copy": {Verdict.ILLEGAL},
    "right answer": {Verdict.FALSE, Verdict.ILLEGAL},
    "dropped step": set(Verdict) - {Verdict.RIGHT, Verdict.AFTER},
    "swapped steps": set(Verdict) - {Verdict.RIGHT, Verdict.AFTER},
}
NONE = {("A", "doomed move"), ("L", "doomed move"), ("P", "false result")}


def _steps(chain: str) -> list[str]:
    return [text for text, _ in split(chain)]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from(sorted(KINDS)), st.integers(0, 39), SEEDS)
def test_a_planted_chain_is_wrong_in_the_way_its_kind_says(letter: str, kind: str, at: int, seed: int) -> None:
    task = CHAINS[letter][at]
    prompt, right = str(task.prompt), task.reference
    found = plant(prompt, right, kind, Random(seed))
    assert found == plant(prompt, right, kind, Random(seed))
    if (letter, kind) in NONE:
        assert found is None
    if found is None:
        return
    assert task.score(right) == 1.0 and task.score(found) == 0.0 and found.endswith(".")
    place, verdict = first_error(prompt, found) or (0, Verdict.RIGHT)
    assert verdict in VERDICTS[kind]
    if letter in "AC" and kind in ("false result", "right answer"):
        assert verdict is Verdict.FALSE
    if kind not in ("dropped step", "swapped steps"):  # what stands before the error is as it was
        same = place if kind != "early ending" else len(_steps(found))
        assert _steps(found)[:same] == _steps(right)[:same]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 39), SEEDS)
def test_kinds_that_keep_the_other_steps_keep_them(letter: str, at: int, seed: int) -> None:
    task = CHAINS[letter][at]
    prompt, own = str(task.prompt), _steps(task.reference)
    dropped = plant(prompt, task.reference, "dropped step", Random(seed))
    if dropped is not None:
        assert any(_steps(dropped) == own[:i] + own[i + 1 :] for i in range(len(own) - 1))
    swapped = plant(prompt, task.reference, "swapped steps", Random(seed))
    if swapped is not None:
        assert sorted(_steps(swapped)) == sorted(own)
        moved = [i for i, (a, b) in enumerate(zip(_steps(swapped), own, strict=True)) if a != b]
        assert len(moved) == 2 and moved[1] == moved[0] + 1
    early = plant(prompt, task.reference, "early ending", Random(seed))
    assert early is not None and 0 < len(_steps(early)) < len(own) and _steps(early) == own[: len(_steps(early))]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 39), SEEDS)
def test_a_right_answer_by_a_wrong_step_ends_as_the_right_chain_does(letter: str, at: int, seed: int) -> None:
    task = CHAINS[letter][at]
    found = plant(str(task.prompt), task.reference, "right answer", Random(seed))
    if found is not None:
        end, own = _steps(found)[-1], _steps(task.reference)[-1]
        assert end[-1] == own[-1] if letter == "P" else end == own


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.sampled_from(["false result", "illegal move", "wrong copy"]),
    st.integers(0, 39),
    SEEDS,
)
def test_behind_its_error_a_chain_goes_on_to_what_its_writer_takes_for_the_goal(
    letter: str, kind: str, at: int, seed: int
) -> None:
    """The steps behind the error are a right chain of the problem that the writer believes to be left."""
    task = CHAINS[letter][at]
    family, prompt = family_of(str(task.prompt)), str(task.prompt)
    found = plant(prompt, task.reference, kind, Random(seed))
    if found is None:
        return
    place, _ = first_error(prompt, found) or (0, None)
    wrong, rest = _steps(found)[place], _steps(found)[place + 1 :]
    state = family.start(prompt)
    for text in _steps(found)[:place]:
        state = family.moves(state)[text]
    own = family.moves(state)[_steps(task.reference)[place]]  # what the right step would have left to do
    held = wrong.partition("=")[2]
    if letter == "P":
        state = own._replace(node=wrong[1])
    elif letter == "L":
        state = own._replace(digits=wrong[1:])
    else:
        state = own._replace(value=int(held))
    for text in rest:
        state = family.moves(state)[text]
    assert family.met(state)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WORDS) - 1), st.sampled_from(sorted(WORD_KINDS)), SEEDS)
def test_a_planted_word_problem_is_wrong_in_the_way_its_kind_says(at: int, kind: str, seed: int) -> None:
    task: Task = WORDS[at]
    right, *rest = planted([task], [kind], seed)
    assert right.right and right.answer and right.text == task.meta["chain"] and worked(task, right.text)
    for case in rest:
        said = check_equations(case.text)
        assert case.kind == kind and not case.right and case.answer == (kind in GUESSED)
        assert task.score(case.text) == float(case.answer)
        holds = all(e.true for e in said)
        if kind in ("wrong number", "wrong operation", "dropped step", "wrong copy", "garbage"):
            assert holds  # nothing that is written is false: the plan is wrong, or the answer
        if kind in ("wrong result", "right answer", "injection"):
            assert sum(not e.true for e in said) >= 1
        if kind == "answer only":
            assert not said
        if kind in ("wrong result", "injection"):  # carried on: one false equation, and the answer is the last result
            assert sum(not e.true for e in said) == 1
            assert said[-1].result == int(task.extract(case.text) or 0)


def test_every_kind_is_planted_in_most_problems_that_can_hold_it() -> None:
    for letter, some in CHAINS.items():
        n = counts(planted(some, seed=1))
        assert all(n.get(kind, 0) >= 20 for kind in KINDS if (letter, kind) not in NONE), (letter, n)
    n = counts(planted(WORDS, seed=1))
    assert all(n[kind] >= 30 for kind in WORD_KINDS)


def test_cases_depend_on_their_own_task_alone() -> None:
    some = CHAINS["C"][:6]
    every = planted(some, seed=3)
    assert every == [case for task in some for case in planted([task], seed=3)]
    assert every != planted(some, seed=4)
    only = planted(some, ["doomed move"], seed=3)
    assert only == [case for case in every if case.kind in ("right", "doomed move")]


def test_other_tasks_and_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="errors are planted in chains and word problems"):
        planted(tasks.load("procbench", 1))
    with pytest.raises(UsageError, match="kinds are false result, illegal move"):
        planted(CHAINS["C"][:1], ["typo"])
