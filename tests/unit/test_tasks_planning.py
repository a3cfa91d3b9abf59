"""Plans and their checkers, by hand and by exhaustion; and the verifiers that read them, with untrained models."""

from __future__ import annotations

from itertools import islice, permutations
from random import Random

import numpy as np
import pytest

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.states import Sequences
from anystep.language.train.chainlm import untrained
from anystep.language.train.planners import PlannerRecipe, pair, verdicts
from anystep.ledger import Ledger, Limit
from anystep.tasks.chains import Alphabet as Symbols
from anystep.tasks.planning import Constraint, listed, parse, planning, problems, read_plan, spoiled
from anystep.testing import check_reward
from anystep.testing.counting import counted_torch
from anystep.verify import constraints_of, plan_constraints


def engine() -> Engine:
    config = PlannerRecipe(dim=32, layers=1).config
    return Engine(untrained(config, 1).eval(), Alphabet(Symbols().symbols), name="tiny")


def states(prompt: str, *plans: str) -> Sequences:
    tokenizer = Alphabet(Symbols().symbols)
    rows = tuple(tuple(tokenizer.encode(prompt + plan)) for plan in plans)
    return Sequences(rows, (len(prompt),) * len(plans), tokenizer)


@pytest.mark.parametrize(
    ("text", "plan", "broken"),
    [
        ("a!3", {"a": 3}, True),
        ("a!3", {"a": 2}, False),
        ("a>2", {"a": 2}, True),
        ("a<4", {"a": 3}, False),
        ("a<b", {"a": 4, "b": 3}, True),
        ("a<b", {"a": 4}, False),
        ("a*b", {"a": 4, "b": 2}, True),
        ("a*b", {"a": 4, "b": 5}, False),
    ],
)
def test_constraints_by_hand(text: str, plan: dict[str, int], broken: bool) -> None:
    constraint = parse(text)
    assert constraint is not None and str(constraint) == text and constraint.broken(plan) == broken


@pytest.mark.parametrize("text", ["", "a", "a!", "a!7", "a!b", "a<a", "f<a", "a*3", "a>b", "a<4,b<3"])
def test_what_is_no_constraint_is_none(text: str) -> None:
    assert parse(text) is None


def test_plans_are_read_line_by_line() -> None:
    assert read_plan("a3\nb1.") == ({"a": 3, "b": 1}, True) and read_plan("a3\nb") == ({"a": 3}, False)
    assert read_plan("a3\nb3.") is None and read_plan("a3\na1.") is None and read_plan("a9.") is None


def test_every_problem_has_the_plan_it_was_drawn_with_and_scores_every_other_by_its_constraints() -> None:
    for problem in islice(problems("train", Random(0)), 12):
        assert problem.score(problem.reference) == 1 and problem.score(problem.reference[:-1]) == 0
        for slots in islice(permutations(range(1, 7), len(problem.items)), 0, 400, 7):
            placed = dict(zip(problem.items, slots, strict=True))
            text = "\n".join(f"{a}{s}" for a, s in placed.items()) + "."
            assert problem.score(text) == float(not any(c.broken(placed) for c in problem.constraints))
        assert [c for c in problem.constraints if str(c) in listed(problem.constraints)] == list(problem.constraints)
        Symbols().encode(problem.prompt + problem.reference + listed(problem.constraints))


def test_tasks_are_distinct_and_their_answers_do_not_depend_on_the_order_of_lines() -> None:
    tasks = planning(20, "dev", 1)
    assert len({t.prompt for t in tasks}) == 20 and {t.level for t in tasks} <= set(range(3, 10))
    task = tasks[0]
    lines = task.reference.rstrip(".").split("\n")
    assert task.extract("\n".join(lines[::-1]) + ".") == task.extract(task.reference) is not None
    assert task.extract("a1") is None
    for call in (lambda: planning(0), lambda: planning(3, "all")):
        with pytest.raises(UsageError, match="planning\\(n"):
            call()


def test_what_the_models_learn_from() -> None:
    rng = Random(1)
    for problem in islice(problems("train", Random(2)), 20):
        assert pair(problem, PlannerRecipe("planner"), rng) == (problem.prompt, problem.reference)
        prompt, said = pair(problem, PlannerRecipe("extractor"), rng)
        assert [parse(c) for c in said.rstrip(".").split(",")] == list(problem.constraints) and prompt == problem.prompt
        plan = spoiled(problem, rng)
        broken = problem.broken(plan)
        assert broken is not None
        _, said = verdicts(plan, problem.constraints, broken)
        assert said.count("n") == len(broken) and said.count("y") == len(problem.constraints) - len(broken)


SAID = (Constraint("a", "!", "3"), Constraint("b", "<", "c"))


@pytest.mark.parametrize("constraints", [SAID, ()])
def test_a_verifier_is_a_reward(constraints: tuple[Constraint, ...]) -> None:
    prompt, some = "Cabc;a busy 3;b then c?", engine()
    verifier = plan_constraints(prompt, constraints, some)
    plans = states(prompt, "a3\n", "a3\nb1\nc2.", "a1\nb2\nc3.")
    check_reward(verifier, plans, lambda: counted_torch(some.model))
    assert (np.abs(verifier(plans, Limit(Ledger(), "v")).values) <= 100).all()
    assert "breaks" in verifier.feedback("a3\n")


def test_constraints_are_extracted_in_one_call_that_is_counted() -> None:
    some = engine()
    with counted_torch(some.model) as work:
        found, cost = constraints_of("Cabc;a busy 3;b then c?", some)
    assert isinstance(found, tuple) and cost.evaluations == work.evaluations and cost.generated > 0
    assert cost.prompt == len("Cabc;a busy 3;b then c?")


def test_the_value_is_the_chance_that_every_letter_says_kept() -> None:
    import torch

    prompt, some = "Cabc;a busy 3;b then c?", engine()
    verifier = plan_constraints(prompt, SAID, some)
    found = verifier(states(prompt, "a3\nb1\n"), Limit(Ledger(), "v")).values[0]
    text, letter = "a3\nb1\n|a!3y,b<cy", Symbols().encode("y")[0]
    tokens = torch.tensor([Symbols().encode(text)])
    p = some.model.logits(some.model(tokens))[0].softmax(-1)[:, letter]
    at = [i for i, c in enumerate(text) if c == "y"]
    assert found == pytest.approx(200 * float(np.prod([p[i - 1].item() for i in at])) - 100, abs=1e-3)
    with pytest.raises(UsageError, match="plan_constraints"):
        plan_constraints("no problem")
