"""Reckonings in three formats: every line is worked out exactly, and the checker follows any mixture of them."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from anystep import UsageError
from anystep.language.train.formats import CONTEXT, FormatsRecipe, pairs
from anystep.tasks.reckoning import FAMILIES, FORMATS, columns, nines, reached, read, reckoning, reckonings, steps
from anystep.verify.consistency import step_arithmetic


def test_columns_are_worked_from_the_right_with_what_is_carried() -> None:
    assert columns(821, "+", 376) == ["1+6=7", "2+7=9", "8+3=11"]
    assert columns(95, "+", 7) == ["5+7=12", "9+1=10"]
    assert columns(341, "-", 85) == ["11-5=6", "14-1-8=5", "3-1=2"]
    assert columns(300, "-", 1) == ["10-1=9", "10-1=9", "3-1=2"]
    assert columns(256, "*", 7) == ["6*7=42", "5*7+4=39", "2*7+3=17"]


def test_every_format_s_lines_hold_and_end_with_the_same_value() -> None:
    calculator = step_arithmetic()
    for family, _, problem in islice(reckonings("train", Random(1)), 200):
        assert read(str(problem)) == problem
        told = [problem.lines(form) for form in FORMATS]
        assert len({reached(text) for text in told}) == 1
        assert all(all(steps(str(problem), text)) for text in told)
        for column in re.findall(r"[\d+*-]+=\d+", told[2]):
            assert calculator.holds(column), (family, column)


def test_the_checker_follows_formats_that_change_and_names_the_first_wrong_line() -> None:
    prompt = "821+376-95?"
    assert steps(prompt, "821+376=1197\n1102.") == (True, True)
    assert steps(prompt, "821+376:1+6=7,2+7=9,8+3=11>1197\n1197-95=1102.") == (True, True)
    assert steps(prompt, "821+376=1196\n1196-95=1102.") == (False, False)
    assert steps(prompt, "821+376=1197\n") == (True,)
    assert steps(prompt, "821+376=1197.") == (False,)  # a full stop before all is done
    assert steps(prompt, "1102\n") == (False,)  # none behind the last
    assert steps(prompt, "") == ()
    assert reached("1102.") == "1102" and reached("x.") is None


def test_casting_out_nines_lets_one_wrong_result_in_nine_pass_and_knows_no_answer() -> None:
    prompt = "821+376-95?"
    passing = [value for value in range(1000, 1999) if nines(f"{prompt}s", f"{value}.")]
    assert 1102 in passing and len(passing) == 111 and all(value % 9 == 1102 % 9 for value in passing)
    assert nines(prompt, "821+376=1197\n") and not nines(prompt, "821+376=1196\n")
    assert nines(prompt, "821+376=1196\n1101.")  # from a wrong value it goes on rightly: that line is not at fault
    assert not nines(prompt, "821+376=1197.")  # ends too soon
    assert not nines(prompt, "1102\n") and not nines(prompt, "") and not nines(prompt, "x\n")
    assert not nines(prompt, "821+376=1197\n1197-95=1102\n1102.")  # nothing was left
    assert nines("37*46?", "1702.") and nines("37*46?", "1720.")  # exchanged digits pass


def test_tasks_are_distinct_and_of_all_families_and_their_split() -> None:
    tasks = reckoning(60, "dev", 1)
    assert len({task.id for task in tasks}) == 60 and {task.family for task in tasks} == set(FAMILIES)
    assert all(task.score(f"{task.reference}.") == 1 and task.score(task.reference) == 0 for task in tasks)
    assert not {t.id for t in tasks} & {t.id for t in reckoning(60, "test", 1)}
    for call in ({"split": "all"}, {"families": ("powers",)}, {"families": ()}):
        with pytest.raises(UsageError, match="reckoning"):
            reckoning(1, **call)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="821"):
        read("821+?")


def test_every_format_is_learned_as_often_and_a_letter_names_it() -> None:
    some = list(islice(pairs(FormatsRecipe()), 600))
    assert max(len(prompt) + len(text) for prompt, text in some) <= CONTEXT
    marks = [prompt[prompt.index("?") + 1] for prompt, _ in some]
    assert all(150 < marks.count(mark) < 250 for mark in "sgd")
    assert 60 < sum("\n" in prompt for prompt, _ in some) < 240
    for prompt, text in some:
        question, told = prompt[: prompt.index("?") + 1], prompt[prompt.index("?") + 2 :]
        assert all(steps(question, told + text))
