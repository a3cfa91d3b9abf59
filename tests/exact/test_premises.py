"""Citations are read exactly however they are spelled; the checker agrees with what was planted, in both styles."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystep import tasks
from anystep.errors import UsageError
from anystep.experiments._spellings import spelled
from anystep.tasks.premises import (
    CONTENT,
    KINDS,
    LEVELS,
    Fault,
    answer,
    faults,
    judge,
    numbered,
    plant,
    problems,
    read,
    statements,
    steps,
    write,
)
from anystep.tasks.premises.asking import CONTEXTS, asked, compact
from anystep.tasks.premises.program import MAX_RANGE, premises

EXPECTED = {
    "result": {Fault.RESULT},
    "rule": {Fault.RULE},
    "operand": {Fault.OPERAND},
    "cancelled": {Fault.RULE, Fault.OPERAND},
    "citation": {Fault.UNCITED},
    "missing": {Fault.UNCITED},
    "nowhere": {Fault.NOWHERE},
}


def test_citations_are_recovered_exactly_however_they_are_spelled() -> None:
    rng = Random(0)
    for _ in range(3_000):
        step = spelled(rng)
        found = statements(step.text)
        assert [(one.number, one.cites) for one in found] == [(step.number, step.cites)], step.text


@pytest.mark.parametrize(
    ("text", "cites", "left"),
    [
        ("#7. (by #1 #2) Bob has 12 + 4 = 16 apples.", (1, 2), "Bob has 12 + 4 = 16 apples."),
        ("#7(#1#2)b=12+4=16", (1, 2), "b=12+4=16"),
        ("#7. (by #2-5) x", (2, 3, 4, 5), "x"),
        ("#7. (By: #5 to #2; #9) x", (2, 3, 4, 5, 9), "x"),
        ("#7: Step 3: (from 1, 2 & 3) x", (1, 2, 3), "x"),
        ("#7. By premises #1 and #2, Bob has 16.", (1, 2), "Bob has 16."),
        ("#7. Bob has 16 (using #1, #3 and #4).", (1, 3, 4), "Bob has 16."),
        ("#7. [#1\N{EN DASH}#3] Bob has (12) 3 - 4", (1, 2, 3), "Bob has (12) 3 - 4"),
        ("#7()39.", (), "39."),
        ("#7. (16 - 4) is 12", (), "(16 - 4) is 12"),
    ],
)
def test_spellings(text: str, cites: tuple[int, ...], left: str) -> None:
    (one,) = statements(text)
    assert (one.number, one.cites, one.text) == (7, cites, left)


def test_a_huge_range_cites_its_ends_only() -> None:
    (one,) = statements("#7. (by #1-#999999) x")
    assert one.cites == (1, 999999)
    (one,) = statements(f"#7. (by #1-#{MAX_RANGE + 1}) x")
    assert len(one.cites) == MAX_RANGE + 1


def test_statements_begin_at_labels_and_nowhere_else() -> None:
    text = "Sure!\n#1. Ann has 2 hats. #2. Bob has 3.\n#3. (by #1;\n#2) so (by #1; #2) 5; #4 (by #3) 6"
    found = [(one.number, one.cites) for one in statements(text)]
    assert found == [(None, ()), (1, ()), (2, ()), (3, (1,)), (2, (1, 2)), (4, (3,))]
    assert statements("") == () and premises("no numbers here") == {}


@given(st.text(alphabet="#()[]0123456789by,-;. \nab=+", max_size=200))
@settings(max_examples=300, deadline=None)
def test_reading_is_total(text: str) -> None:
    for one in statements(text):
        read(one.text)
        assert len(one.cites) <= len(text) * (MAX_RANGE + 1)
    assert len(steps(text, text)) == len(statements(text))
    answer(text)


def test_premises_are_the_last_run_of_a_prompt() -> None:
    prompt = "#1. Ann has 2 hats.\n#2. How many?\n#3. (by #1) 2\n\nNow yours:\n#1. Bob has 3 hats.\n#2. How many?"
    assert [one.text for one in premises(prompt).values()] == ["Bob has 3 hats.", "How many?"]


@pytest.mark.parametrize("level", LEVELS)
def test_taught_chains_are_right_in_both_styles(level: int) -> None:
    for problem in islice(problems("dev", 1, level), 60):
        assert len(problem.chain) in LEVELS[level]
        for style in ("compact", "natural"):
            prompt, chain = problem.prompt(style), problem.text(style=style)
            assert set(faults(prompt, chain)) == {Fault.NONE} and answer(chain) == problem.answer
            for meaning in (*problem.premises, *(said for _, said in problem.chain)):
                assert read(write(meaning, style, problem.things)) == meaning
        assert all(1 <= said.value <= 99 for _, said in problem.chain)
        needed = {c for cites, _ in problem.chain for c in cites}
        assert len(set(range(1, len(problem.premises) + 1)) - needed) >= 2, "distractors"


@pytest.mark.parametrize("kind", KINDS)
def test_planted_errors_are_what_they_are_called(kind: str) -> None:
    rng = Random(3)
    for problem in islice(problems("dev", 2), 60):
        planted = plant(rng, problem, (kind,))
        for style in ("compact", "natural"):
            found = faults(problem.prompt(style), problem.text(planted.steps, style))
            for fault, mark in zip(found, planted.kinds, strict=True):
                assert fault in (EXPECTED[mark] if mark else {Fault.NONE})
        wrong = planted.kinds.index(kind)
        labels = steps(problem.prompt(), planted.text)
        assert labels == (True,) * wrong + (False,) * (len(labels) - wrong)
        if kind not in CONTENT[:3]:
            assert answer(planted.text) == problem.answer, "the answer is right, and a step is not"


def test_a_step_is_judged_by_what_it_cites_alone() -> None:
    known = premises("#1a=12;#2b=a+4;#3c=12;#4a=13;#5b?")
    for cites, text, fault in [
        ((1, 2), "b=12+4=16", Fault.NONE),
        ((1, 2), "b=4+12=16", Fault.NONE),
        ((1, 2, 3), "Bob has 16 apples.", Fault.NONE),
        ((1, 2), "Bob has 17 apples.", Fault.RESULT),
        ((1, 4, 2), "b=13+4=17", Fault.NONE),
        ((3, 2), "b=12+4=16", Fault.UNCITED),
        ((1,), "b=12+4=16", Fault.UNCITED),
        ((1, 2), "b=12-4=8", Fault.RULE),
        ((1, 2), "b=13+4=17", Fault.OPERAND),
        ((1, 2), "b=12+4=17", Fault.RESULT),
        ((1, 9), "b=12+4=16", Fault.NOWHERE),
        ((1, 2), "Bob is rich.", Fault.UNREADABLE),
        ((1, 5), "12", Fault.UNCITED),
        ((1,), "a=12", Fault.NONE),
    ]:
        (step,) = statements(numbered(6, cites, text))
        assert judge(step, known) is fault, (cites, text)
    (taken,) = statements(numbered(2, (1,), "a=12"))
    assert judge(taken, known) is Fault.NOWHERE


def test_splits_do_not_meet_and_draws_repeat() -> None:
    keys = {split: {p.key for p in islice(problems(split, 0), 300)} for split in ("train", "dev", "test")}
    assert not keys["train"] & keys["dev"] and not keys["train"] & keys["test"] and not keys["dev"] & keys["test"]
    again = [task.id for task in tasks.load("premises", 5, seed=4)]
    assert again == [task.id for task in tasks.load("premises", 5, seed=4)]


def test_tasks() -> None:
    for style in ("compact", "natural"):
        task = tasks.load("premises", 1, level=2, style=style)[0]
        chain = task.meta["chain"]
        assert task.score(chain) == 1.0 and task.steps is not None and all(task.steps(chain)) and task.level == 2
        assert task.score("#9(#1)1.") == 0.0 and task.extract("nothing") is None
    for wrong in ({"level": 4}, {"style": "latin"}, {"levels": 1}):
        with pytest.raises(UsageError, match=r"write .*premises"):
            tasks.load("premises", 1, **wrong)


def test_a_check_shows_what_its_context_says() -> None:
    prompt, chain = "#1a=12;#2b=a+4;#3c=7;#4b?", "#5(#1#2)b=12+4=16\n#6(#5#9#4)16."
    shown = {context: [compact(a.lines, a.step) for a in asked(prompt, chain, context)] for context in CONTEXTS}
    assert shown["cited"] == ["a=12;b=a+4>b=12+4=16:", "b=12+4=16;b?>16:"]
    assert shown["previous"][0] == "#1a=12;#2b=a+4;#3c=7;#4b?>#5(#1#2)b=12+4=16:"
    assert shown["previous"][1] == "#1a=12;#2b=a+4;#3c=7;#4b?;#5(#1#2)b=12+4=16>#6(#5#9#4)16:"
    assert shown["whole"][0] == "#1a=12;#2b=a+4;#3c=7;#4b?;#5(#1#2)b=12+4=16;#6(#5#9#4)16>#5(#1#2)b=12+4=16:"
