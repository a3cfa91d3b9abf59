"""Problems of induction: what is read, what is refused, how it is written, and that no rule is met twice."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from anystep.errors import UsageError
from anystep.tasks.chains import Alphabet, split_of
from anystep.tasks.rules import (
    LONGEST_LIST,
    LONGEST_RULE,
    Rule,
    applying,
    asked,
    behaviour,
    direct,
    drawn,
    examples_of,
    mistaken,
    parse,
    perturbed,
    problems,
    read,
    revised,
    rule_of,
    rules,
    unfailing,
    written,
)


@pytest.mark.parametrize(
    "text",
    ["", ",", "s,", ",s", "q", "t", "t9", "s s", "__import__('os')", "g,s", "w3", "+1", "s" * 10_000, "s,r." * 900],
)
def test_a_text_that_is_no_rule_is_no_rule(text: str) -> None:
    assert parse(text) is None


def test_rules_are_bounded_in_operations_and_in_the_lists_they_make() -> None:
    assert parse(",".join(["r"] * LONGEST_RULE)) is not None and parse(",".join(["r"] * (LONGEST_RULE + 1))) is None
    six = parse(",".join(["a9"] * LONGEST_RULE))
    assert six is not None and six.apply((1,) * 6) == (1,) * 6 + (9,) * 6
    assert six.apply((1,) * 7) is None and LONGEST_LIST == 12
    assert parse("fe,g").apply((1, 3)) is None  # type: ignore[union-attr]


def test_lists_are_written_and_read() -> None:
    for x in ((), (0,), (9, 0, 3)):
        assert read(written(x)) == x
    assert read("/") is None and read("1" * 13) is None and read("") is None and read("1a") is None


def test_requests_show_examples_rules_and_failures() -> None:
    seen = [((9, 2, 7), (7, 2, 9)), ((1, 2, 3), (3, 2, 1)), ((4, 4, 5), ())]
    first = asked(seen)
    assert first == "L927;123;445>729__;321__;-____?" and examples_of(first) == seen
    again = revised(first, "z.")
    assert again == "L927;123;445>729__;321__;-____|z|927>729!972;445>-!544?" and examples_of(again) == seen
    assert revised(again, "t1.") == "L927;123;445>729__;321__;-____|t1|927>729!9;123>321!1;445>-!4?"
    assert revised(first, "oh.") == "L927;123;445>729__;321__;-____|/|927>729!/;123>321!/;445>-!/?"
    assert unfailing(first, "z.") == "L927;123;445>729__;321__;-____|z?"
    assert asked(seen, [(6, 0)], "P") == "P927;123;445;60>729__;321__;-____?"
    assert applying("s,t1", [(6, 0)]) == "As,t1|60?"
    assert rule_of("s,t2.more") == Rule(("s", "t2")) and rule_of("s,t2") is None


def test_no_two_splits_share_a_rule_by_any_name() -> None:
    does = {split: {behaviour(p.rule) for p in drawn(25, split, seed=5)} for split in ("dev", "test")}
    does["train"] = {behaviour(p.rule) for p in islice(problems("train", Random(0)), 200)}
    assert all(split_of(b) == split for split, found in does.items() for b in found)
    assert not does["dev"] & does["test"] and not does["train"] & (does["dev"] | does["test"])
    most = Counter(behaviour(p.rule) for p in drawn(25, "test", each=2))
    assert max(most.values()) == 2


def test_every_operation_of_a_drawn_rule_matters_and_mistakes_are_mistakes() -> None:
    rng = Random(2)
    for problem in islice(problems("train", Random(1)), 60):
        for i in range(len(problem.rule.operations)):
            shorter = parse(",".join(o for j, o in enumerate(problem.rule.operations) if j != i))
            assert shorter is None or behaviour(shorter) != behaviour(problem.rule)
        assert behaviour(mistaken(problem.rule, rng)) != behaviour(problem.rule)
        assert all(problem.rule.apply(x) == y for x, y in (*problem.seen, *problem.unseen))
        assert len({x for x, _ in (*problem.seen, *problem.unseen)}) == 8
        Alphabet().encode(problem.prompt + problem.direct + str(problem.rule))


def test_a_task_scores_rules_by_what_they_do_to_unseen_lists() -> None:
    for problem, task in zip(drawn(8, "dev"), rules(8, "dev"), strict=True):
        assert task.score(f"{problem.rule}.") == 1 and task.score("oh.") == 0 and task.score(str(problem.rule)) == 0
        assert task.extract(f"{problem.rule}.") == direct(problem).reference and task.extract("oh.") is None
        twin = direct(problem)
        assert twin.score(f"{twin.reference}.") == 1 and twin.extract(f"{twin.reference}.") == twin.reference
        half = ";".join([twin.reference.split(";")[0], "/", "/"])
        assert twin.score(f"{half}.") == pytest.approx(1 / 3) and twin.score(twin.reference) == 0


def test_perturbing_changes_one_digit_of_as_many_outputs_as_it_says() -> None:
    some, rng = drawn(40, "dev"), Random(0)
    changed = [a != b for p in some for (_, a), (_, b) in zip(p.seen, perturbed(p, 0.5, rng).seen, strict=True)]
    assert 0.3 < sum(changed) / len(changed) < 0.7
    for p in some:
        for (x, a), (y, b) in zip(p.seen, perturbed(p, 1.0, rng).seen, strict=True):
            assert x == y and (sum(i != j for i, j in zip(a, b, strict=True)) == 1 if a else len(b) == 1)


@pytest.mark.parametrize(
    "call", [lambda: drawn(0), lambda: rules(3, "all"), lambda: drawn(True), lambda: drawn(5_000, each=1)]
)
def test_what_cannot_be_drawn_shows_the_call_that_was_meant(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="rules\\(n"):
        call()
