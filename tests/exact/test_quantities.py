"""Problems of quantities against an oracle that searches for the numbers, and the checker against planted errors."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from anystep.errors import UsageError
from anystep.language.train.reasoners import slipped
from anystep.tasks.chains.draw import split_of
from anystep.tasks.quantities import (
    KINDS,
    Quantities,
    chain_of,
    fits,
    judge,
    misread,
    plan,
    planted,
    problems,
    program_of,
    quantities,
    read,
    score,
    solution,
    steps_of,
)


def some(n: int, seed: int = 0, part: str = "train") -> list[Quantities]:
    return list(islice(problems(part, Random(seed)), n))


def searched(prompt: str) -> int:
    """The answer by trying every number that b and c could be, from the prompt's words alone."""
    first, *clauses, asked = prompt[1:-1].split(",")
    known = {"a": int(first.split()[1])}
    for name, clause in zip("bc", clauses, strict=True):
        subject, amount, word, other = clause.split()

        def holds(n: int, name: str = name, clause: tuple[str, str, str, str] = (subject, amount, word, other)) -> bool:
            who, how, what, whom = clause
            at = known | {name: n}
            more = {"more": at[whom] + int(how), "less": at[whom] - int(how), "times": at[whom] * int(how)}
            return at[who] == more[what]

        (known[name],) = [n for n in range(1, 400) if holds(n)]
    return {"all": sum(known.values()), "gap": abs(known["a"] - known["c"]), "c": known["c"]}[asked]


def test_a_plan_s_chain_and_program_come_to_what_searching_finds() -> None:
    for problem in some(300):
        prompt, steps = f"C{problem}", plan(problem)
        truth = searched(prompt)
        assert solution(problem) == truth and fits(steps)
        assert judge(prompt, chain_of(steps)).kind == "right"
        names: dict[str, float] = {}
        exec(program_of(steps).removesuffix("."), {}, names)  # our own text, and no model's
        assert list(names.values())[-1] == truth


def test_a_problem_is_read_back_and_its_text_decides_its_split() -> None:
    for part in ("train", "dev", "test"):
        for problem in some(40, 3, part):
            assert read(f"C{problem}") == read(str(problem)) == problem and split_of(str(problem)) == part
    for text in ("Ca 36?", "Ca 36,b 17 more a,c 3 times d,all?", "Ca 36,b 17 more c,c 3 times b,all?", "C?", ""):
        with pytest.raises(UsageError, match="a problem of quantities reads"):
            read(text)
    with pytest.raises(UsageError, match="train, dev and test"):
        quantities(1, "exam")


def test_every_mistake_is_made_and_changes_the_plan() -> None:
    seen: Counter[str] = Counter()
    for problem in some(600, 1):
        for kind in KINDS:
            changed = plan(problem, frozenset({kind})) != plan(problem)
            if kind != "far":  # where both are told of the same way, another person may make no difference
                assert changed == (kind in problem.kinds), (problem, kind)
            seen[kind] += changed
    assert min(seen[kind] for kind in KINDS) > 50


def test_a_book_misreads_in_its_share() -> None:
    found = []
    for problem in some(3_000, 2):
        if "gap" in problem.kinds:
            found.append(misread(problem, {"gap": 0.6}, Random(str(problem))) != plan(problem))
    assert abs(sum(found) - 0.6 * len(found)) < 5 * (0.24 * len(found)) ** 0.5


def test_the_checker_names_what_was_planted() -> None:
    prompt = "Ca 36,b 17 more a,c 3 times b,all?"
    right = "36+17=53\n53*3=159\n36+53=89\n89+159=248."
    assert judge(prompt, right).kind == "right" and score(prompt, right) == 1.0
    assert judge(prompt, "36+17=54\n54*3=162\n36+54=90\n90+162=252.").kind == "slip"
    assert judge(prompt, "36+17=53\n36*3=108\n36+53=89\n89+108=197.").kind == "plan"
    assert judge(prompt, "36+17=54\n36*3=108\n36+54=90\n90+108=198.").kind == "both"
    assert judge(prompt, "36+17=52\n53*3=159\n36+53=89\n89+159=248.").kind == "lucky"
    for text in ("", ".", "36+17=53\n53*3=159", "36+17.", "x.", "1+1=2\n1+1=2\n1+1=2\n1+1=2\n1+1=2."):
        assert judge(prompt, text).kind == "garbled" and score(prompt, text) == 0.0


def test_a_slipped_chain_s_steps_are_its_plan_s() -> None:
    rng, slips = Random(5), 0
    for problem in some(400, 4):
        steps = plan(problem)
        chain = slipped(steps, rng)
        found = judge(f"C{problem}", chain)
        values = [value for _, value in steps_of(chain) or []]
        told = {problem.amount, *(clause.amount for clause in problem.clauses)}
        if len(set(values)) == len(values) and not told & set(values):  # else a number is read as another step's
            assert program_of([step for step, _ in steps_of(chain) or []]) == program_of(steps) and found.planned
            assert found.holds == (chain == chain_of(steps))
            slips += not found.holds
    assert slips > 100


def test_tasks_are_distinct_and_scored_by_their_answer() -> None:
    tasks = quantities(50, "test", seed=1)
    assert len({task.prompt for task in tasks}) == 50
    for task in tasks:
        chain = chain_of(plan(read(str(task.prompt))))
        assert task.score(chain) == 1.0 and task.extract(chain) == task.reference and task.extract("1+1=2") is None


def test_what_is_planted_is_what_it_is_called() -> None:
    rng, seen = Random(0), Counter[str]()
    for problem in some(300, 9):
        chains = planted(problem, rng)
        assert all(judge(f"C{problem}", chain).kind == kind for kind, chain in chains.items())
        seen.update(list(chains))
    assert seen["right"] == 300 and min(seen[kind] for kind in ("slip", "plan", "lucky")) > 150
