"""The loop on a model whose law hangs on its prompt: its law against enumeration, the route of its templates, and
what it keeps.

Counts of answers over independent runs, |z| < 5 (false alarm 6e-7 each), seeds fixed.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Run, UsageError, drive, reward, search
from anystep.procedure import Method
from anystep.process import Status
from anystep.stepwise import Moved
from anystep.testing.oracles import Prompt, PromptedLM
from anystep.testing.oracles.language import EOS, Tokens

LM = PromptedLM(prompts=3, seed=5, vocab=3, length=3)
PROMPTS = tuple(Prompt(LM, k) for k in range(3))
RUNS = 600


def worth(x: Tokens) -> float:
    """Passes at 0.5: after a 1 nothing but another 1 does, and of what fails an end is better than a 2."""
    return (1.0 if x[-2:-1] != (1,) or x[-1] == 1 else 0.3 if x[-1] == EOS else 0.1) if x[-1] != 2 else 0.2


CHECK = reward(lambda states: np.array([worth(x) for x in states.tuples()]), "check")


def law(templates: int, tries: int, relax: bool) -> dict[Tokens, Fraction]:
    """The exact law of the answers, by enumeration of every attempt of every step."""
    found: dict[Tokens, Fraction] = {}
    open_: list[tuple[Tokens, int, Fraction]] = [((), 0, Fraction(1))]
    while open_:
        prefix, level, mass = open_.pop()
        if prefix and (prefix[-1] == EOS or len(prefix) == LM.length):
            found[prefix] = found.get(prefix, Fraction(0)) + mass
            continue
        plan = [*range(level, templates - 1), *[templates - 1] * tries]
        failed: list[tuple[tuple[tuple[float, int, int], ...], Fraction]] = [((), mass)]  # worth, order, token
        for order, at in enumerate(plan):
            numerators = LM.under[at].numerators[LM.under[at].number(prefix)]
            later = []
            for before, p in failed:
                for token, k in enumerate(numerators.tolist()):
                    q, w = p * Fraction(k, int(numerators.sum())), worth((*prefix, token))
                    if w >= 0.5:
                        open_.append(((*prefix, token), 0 if relax else at, q))
                    else:
                        later.append(((*before, (w, order, token)), q))
            failed = later
        for before, p in failed:
            open_.append(((*prefix, max(before[-tries:])[2]), 0 if relax else plan[-1], p))
    return found


def agree(method: Method, exact: dict[Tokens, Fraction]) -> None:
    """Counts of rare answers have a deviation of at least one."""
    found = Counter(answer.value for answer in drive(*(Run(LM, method, seed=seed) for seed in range(RUNS))))
    assert sum(exact.values()) == 1 and set(found) <= set(exact)
    for x, p in exact.items():
        z = (found[x] - RUNS * float(p)) / np.sqrt(max(RUNS * float(p * (1 - p)), 1.0))
        assert abs(z) < 5, (x, found[x], RUNS * float(p))


@pytest.mark.parametrize(("templates", "tries", "relax"), [(1, 2, False), (3, 2, False), (3, 1, True)])
def test_its_law_is_that_of_attempts_under_one_template_after_the_other(
    templates: int, tries: int, relax: bool
) -> None:
    method = search.adaptive_prompt(PROMPTS[:templates], CHECK, tries=tries, relax=relax)
    agree(method, law(templates, tries, relax))


def test_without_a_check_it_samples_under_the_first_template() -> None:
    agree(search.adaptive_prompt(PROMPTS[1:]), LM.under[1].outputs)


@pytest.mark.parametrize(
    ("passes", "options", "expected"),
    [
        ((1, 1, 1), {}, [0, 0, 0]),  # what passes at once keeps the first template
        ((0, 1, 1, 1), {}, [0, 1, 1, 1]),
        ((0, 0, 1, 1, 1), {}, [0, 1, 2, 2, 2]),
        ((0, 1, 1, 1), {"relax": True}, [0, 1, 0, 0]),
        ((0, 0, 0, 1, 0, 0, 1), {"tries": 2}, [0, 1, 2, 2, 2, 2, 2]),
        ((0, 0, 0, 0, 0), {}, [0, 1, 2, 2, 2]),  # when every template has failed, it goes on
        ((0,) * 9, {"relax": True}, [0, 1, 2] * 3),
        ((np.nan, 1, 1), {}, [0, 0, 0]),  # what could not be scored stands
    ],
)
def test_the_route_of_its_templates(passes: Any, options: Any, expected: list[int]) -> None:
    """A chain of three steps whose checks are scripted: which template each attempt was made under."""
    asked, scripted = list[int](), iter(passes)

    class Watched(Prompt):
        def advance(self, states: Any, keys: Any) -> Moved:
            asked.append(self.k)
            return super().advance(states, keys)

    endless = PromptedLM(prompts=3, seed=5, vocab=3, length=3)
    for model in endless.under:
        model.numerators[:, EOS] = 0  # so that no output ends before its length
    check = reward(lambda states: np.array([next(scripted) for _ in range(len(states))]), "scripted")
    run = Run(endless, search.adaptive_prompt(tuple(Watched(endless, k) for k in range(3)), check, **options), seed=1)
    (answer,) = drive(run)
    assert asked == expected and run.spent.generated == len(expected)
    assert answer.population is not None and answer.population.status.tolist() == [Status.DONE]


def test_steps_that_passed_are_kept_under_every_template() -> None:
    """Whatever is tried for the second step stands behind the first one."""
    seen: list[Tokens] = []

    def second(states: Any) -> np.ndarray:
        seen.extend(states.tuples())
        return np.array([float(len(x) == 1) for x in states.tuples()])

    (answer,) = drive(Run(LM, search.adaptive_prompt(PROMPTS, reward(second, "second")), seed=2))
    assert [len(x) for x in seen[:4]] == [1, 2, 2, 2] and len(seen) <= 5
    assert {x[0] for x in seen} == {answer.value[0]}


def test_a_budget_stops_it_and_options_are_checked() -> None:
    run = Run(LM, search.adaptive_prompt(PROMPTS, CHECK, tries=50), Budget(tokens=7), seed=3)
    drive(run)
    assert run.spent.tokens <= 7
    calls: list[dict[str, Any]] = [{"templates": ()}, {"templates": LM}]
    for call in [*calls, {"templates": PROMPTS, "tries": 0}, {"templates": PROMPTS, "threshold": 2}]:
        with pytest.raises(UsageError, match="call adaptive_prompt"):
            search.adaptive_prompt(**call)
