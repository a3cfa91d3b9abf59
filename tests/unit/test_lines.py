"""Problems worked by line: what is due, what is right, and which problems there are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.errors import UsageError
from anystep.tasks.lines import LINES, lines, lines_of

FIRST = {family: lines(12, family, split="train") for family in LINES}


@pytest.mark.parametrize("family", LINES)
def test_the_worked_lines_are_right_and_a_changed_result_is_not(family: str) -> None:
    for task in FIRST[family]:
        told = list(task.meta["lines"])
        judge = task.meta["judge"]
        assert judge("\n".join(told)) == (True,) * len(told)
        assert task.score("\n".join(told)) == 1.0 and task.extract("\n".join(told) + "\n\nmore") == task.reference
        for i, line in enumerate(told):
            false = re.sub(r"\d+$", lambda m: str(int(m[0]) + 1), line)
            changed = "\n".join([*told[:i], false, *told[i + 1 :]])
            assert judge(changed)[i] is False and all(judge(changed)[:i])
            assert task.steps is not None and not any(task.steps(changed)[i:])
            assert task.score(changed) == 0.0


def test_a_line_is_judged_from_what_the_line_before_says() -> None:
    judge = next(t for t in FIRST["counts"] if t.meta["question"].startswith("Count on from")).meta["judge"]
    start, by = map(int, re.findall(r"\d+", FIRST["counts"][0].meta["question"]))
    judge = FIRST["counts"][0].meta["judge"]
    slip = f"{start} + {by} = {start + by + 1}\n{start + by + 1} + {by} = {start + 2 * by + 1}\n"
    assert judge(slip) == (False, True)
    assert judge(f"{by} + {start} = {start + by}") == (True,)  # either order
    assert judge(f"{start} + {by + 1} = {start + by + 1}") == (False,)  # true, and not what is due
    assert judge(f"{start} + {by} = {start + by} apples\n{start + by} + {by} = {start + 2 * by}") == (False, False)


def test_a_subtraction_has_one_order_and_a_line_too_many_is_wrong() -> None:
    task = next(t for t in FIRST["stories"] if " - " in t.meta["lines"][1])
    first, second = task.meta["lines"]
    a, b, c = re.findall(r"\d+", second)
    assert task.meta["judge"](f"{first}\n{b} - {a} = {int(b) - int(a)}") == (True, False)
    assert task.meta["judge"](f"{first}\n{second}\n{c} + 1 = {int(c) + 1}") == (True, True, False)


@pytest.mark.parametrize("family", LINES)
def test_splits_never_meet_and_draws_repeat(family: str) -> None:
    n = 4 if family == "doubles" else 40
    seen = {split: {t.meta["lines"] for t in lines(n, family, split=split)} for split in ("train", "dev", "test")}
    assert not seen["train"] & seen["dev"] and not seen["train"] & seen["test"] and not seen["dev"] & seen["test"]
    assert [t.prompt for t in lines(6, family, split="train")] == [t.prompt for t in FIRST[family][:6]]
    assert lines(6, family, split="train", seed=1)[0].prompt != FIRST[family][0].prompt
    for task in FIRST[family]:
        assert isinstance(task.prompt, str) and task.prompt.count(task.meta["question"]) == 1
        assert task.prompt.endswith(f"{task.meta['question']}\nAnswer:\n")


@given(st.text(alphabet="0123456789+-*= or\nabc", max_size=60))
def test_any_text_has_a_label_a_line(text: str) -> None:
    for family in LINES:
        task = FIRST[family][0]
        assert len(task.meta["judge"](text)) == len(lines_of(text))
        assert task.score(text) in (0.0, 1.0)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match=r"family='sums' does not exist: write lines\(3"):
        lines(3, "sums")
    with pytest.raises(UsageError, match="unknown split"):
        lines(3, "counts", split="all")
    with pytest.raises(UsageError, match="doubles has 4 problems of this split|doubles has [0-9]+ problems"):
        lines(500, "doubles")
