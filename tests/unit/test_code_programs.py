"""Generated programming problems: what is shown and hidden, splits, prompts, and the slips that are planted in them."""

from __future__ import annotations

import ast
import random

import pytest

from anystep import tasks
from anystep.errors import UsageError
from anystep.tasks import code
from anystep.tasks.code import Cases, on_numbers, on_texts
from anystep.tasks.code.mutate import slips
from anystep.tasks.code.programs import cases_of
from anystep.tasks.code.values import same, spelled

FAMILIES = [family for table in (on_numbers, on_texts) for families in table.LEVELS.values() for family in families]


def fenced(source: str) -> str:
    return f"So:\n```python\n{source}\n```"


def test_every_family_s_reference_passes_and_shows_nothing_of_what_is_hidden():
    for family in FAMILIES:
        for seed in range(20):
            spec = family(random.Random(seed))
            shown, hidden = cases_of(spec)
            space: dict = {}
            exec(spec.source, space)
            for case in (*shown, *hidden):
                assert same(space[spec.name](*case.arguments), case.expected)
            known = {spelled(case.arguments) for case in shown}
            assert len(shown) == len(known) == 3 and len(hidden) > 25
            assert known.isdisjoint(spelled(case.arguments) for case in hidden)
            assert spec.edges and ast.unparse(ast.parse(spec.source)).startswith(spec.head)
            assert len({spelled(case.expected) for case in hidden}) > 1, spec.says


def test_a_problem_has_the_same_tests_whatever_the_seed_and_is_in_one_split():
    drawn = [
        (split, task)
        for split in ("train", "dev", "test")
        for seed in range(3)
        for task in tasks.load("programs", 60, seed=seed, split=split)
    ]
    seen: dict = {}
    for split, task in drawn:
        spec = task.meta["spec"]
        where, cases = seen.setdefault((spec.scheme, spec.key, spec.says), (split, task.prompt))
        assert (where, cases) == (split, task.prompt)
    assert len({(scheme, key) for scheme, key, _ in seen}) < len(drawn)  # some were drawn twice
    by_key = {(spec.scheme, spec.key): split for split, task in drawn if (spec := task.meta["spec"])}
    assert all(by_key[t.meta["spec"].scheme, t.meta["spec"].key] == split for split, t in drawn)


def test_conditions_that_are_one_are_one_problem():
    rng = random.Random(0)
    conditions = [on_numbers.asked(rng) for _ in range(600)]
    values = {c.key: tuple(eval(c.code, {"x": x}) for x in range(-30, 40)) for c in conditions}
    for c in conditions:
        assert values[c.key] == tuple(eval(c.code, {"x": x}) for x in range(-30, 40))
    assert len(set(values.values())) == len(values)


def test_a_chat_prompt_and_a_plain_one_show_the_examples_and_only_those():
    (chat,), (plain,) = (tasks.load("programs", 1, style=style) for style in ("chat", "plain"))
    problem = chat.meta["problem"]
    assert plain.prompt == problem.before and problem.before.strip() in chat.prompt[0]["content"]
    for case in problem.shown:
        assert f">>> {case.call(problem.entry)}\n    {case.expected!r}" in plain.prompt
    assert isinstance(problem.hidden, Cases) and repr(problem.hidden.cases[5]) not in repr(chat)
    body = chat.reference.split("\n", 1)[1]
    assert plain.score(body) == chat.score(fenced(chat.reference)) == 1.0
    assert chat.score("I cannot.") == 0.0 and chat.extract("I cannot.") is None


def test_a_level_can_be_named_and_other_levels_shown_examples_and_styles_are_refused():
    named, given = tasks.load("programs-2", 3), tasks.load("programs", 3, level=2)
    assert [t.prompt for t in named] == [t.prompt for t in given] and {t.level for t in named} == {2}
    assert len(tasks.load("programs", 1, shown=5)[0].meta["problem"].shown) == 5
    for options, meant in (
        ({"level": 7}, "level one of"),
        ({"style": "x"}, "style one of"),
        ({"shown": 0}, "from 1 to"),
    ):
        with pytest.raises(UsageError, match=meant):
            tasks.load("programs", 1, **options)
    with pytest.raises(UsageError, match="level one of"):
        tasks.load("programs-9", 1)
    with pytest.raises(UsageError, match="too few|only about"):
        tasks.load("programs", 2_000, split="dev", level=3)


def test_slips_are_programs_each_once_and_none_is_the_reference():
    for task in tasks.load("programs", 20, split="train"):
        every = list(slips(task.reference))
        texts = [slip.source for slip in every]
        assert len(set(texts)) == len(texts) > 0
        assert ast.unparse(ast.parse(task.reference)) not in texts
        some = code.planted(task, n=3)
        assert len(some) <= 4 and some == code.planted(task, n=3) and some[-1].kind == "overfit"
        assert all(task.meta["problem"].program(fenced(slip.source)) for slip in some)
    with pytest.raises(UsageError, match="planted"):
        code.planted(tasks.load("word-problems", 1)[0])


KINDS = {
    "bound": "x >= 4",
    "turned": "x < 4",
    "sign": "total -= 2 * x",
    "number": "x > 5",
    "name": "min(xs)",
    "edge": "pass",
    "start": "xs[1:3 + 1]",
}


def test_each_kind_of_slip_is_made():
    source = """
def f(xs):
    if not xs:
        return 0
    total = max(xs)
    for x in xs[1:3]:
        if x > 4:
            total += 2 * x
    return total
"""
    found = {slip.kind: [] for slip in slips(source)}
    for slip in slips(source):
        found[slip.kind].append(slip.source)
    assert set(found) == set(KINDS)
    for kind, part in KINDS.items():
        assert any(part in text for text in found[kind]), kind


@pytest.mark.slow
def test_what_passes_the_hidden_tests_with_a_slip_does_what_was_asked():
    """One slip from the references of all families: those that the hidden tests let pass are the same function."""
    specs = [family(random.Random("0")) for family in FAMILIES]
    problems = [code.Problem(spec.says, spec.name, "", *map(_as_given, cases_of(spec))) for spec in specs]
    given = [(s, p, slip) for s, p in zip(specs, problems, strict=True) for slip in slips(s.source)]
    found = code.verdicts([(problem, fenced(slip.source)) for _, problem, slip in given])
    passed = [(spec, slip) for (spec, _, slip), value in zip(given, found, strict=True) if value == 1.0]
    assert len(passed) < 0.06 * len(given)
    for spec, slip in passed:
        rng, ours, theirs = random.Random(0), {}, {}
        exec(spec.source, ours)
        exec(slip.source, theirs)
        for arguments in (spec.draw(rng) for _ in range(500)):
            assert same(theirs[spec.name](*arguments), ours[spec.name](*arguments)), slip.source


def _as_given(cases: tuple) -> tuple | Cases:
    return cases if len(cases) == 3 else Cases(cases)


def test_probes_are_arguments_of_the_same_types_and_no_examples():
    for task in tasks.load("programs", 30, split="train"):
        problem = task.meta["problem"]
        more = code.probed(problem, 8)
        assert more.shown[:3] == problem.shown and 3 < len(more.shown) <= 11
        assert len({spelled(case.arguments) for case in more.shown}) == len(more.shown)
        for case in more.shown[3:]:
            assert not case.known
            assert [type(x) for x in case.arguments] == [type(x) for x in problem.shown[0].arguments]
        assert [c.arguments for c in code.probed(problem, 8).shown] == [c.arguments for c in more.shown]
    assert code.probed(code.Problem("k", "f", "", (), Cases(())), 8).shown == ()


def test_probes_tell_programs_apart_that_agree_on_the_examples():
    few, more = (tasks.load("programs", 1, level=2, probes=n)[0] for n in (0, 8))
    problem = few.meta["problem"]
    assert more.meta["problem"] == problem and more.prompt == few.prompt
    memorised = fenced(code.planted(few)[-1].source)
    right = fenced(few.reference)
    assert few.extract(memorised) == few.extract(right)
    assert more.extract(right) not in (None, more.extract(memorised))
    assert code.shares([(code.probed(problem, 8), memorised), (code.probed(problem, 8), right)]) == [1.0, 1.0]
    with pytest.raises(UsageError, match="probes=8"):
        tasks.load("programs", 1, probes=-1)
