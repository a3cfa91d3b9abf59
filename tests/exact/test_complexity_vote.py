"""Voting among the most complex: all of them is majority, and a count of steps reads what it says it reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep import Run, UsageError, reward, search, verify
from anystep.language.train.haste import HARD, HasteRecipe, examples, hurried
from anystep.search import decide
from anystep.tasks.chains import family_of
from anystep.testing.checks_decision import population
from anystep.testing.laws import assert_law
from anystep.testing.limits import unlimited
from anystep.testing.oracles import EnumerableLM
from anystep.testing.runs import merged

ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([0.0, 2.0, 3.0, np.nan]), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(ROWS)
def test_where_all_vote_it_is_majority(rows: list[tuple[str | None, float, bool]]) -> None:
    p = population([a for a, _, _ in rows], [s for _, s, _ in rows], status=[1 if done else 0 for _, _, done in rows])
    for k in (len(rows), len(rows) + 3):
        assert decide.complex_majority(k)(p) == search.majority(p)


@given(ROWS, st.integers(1, 12))
def test_whoever_has_no_vote_changes_nothing(rows: list[tuple[str | None, float, bool]], k: int) -> None:
    p = population([a for a, _, _ in rows], [s for _, s, _ in rows], status=[1 if done else 0 for _, _, done in rows])
    order = sorted(np.flatnonzero(p.done).tolist(), key=lambda r: (-np.nan_to_num(p.scores[r], nan=-np.inf), r))
    if not order:
        return
    few = p.take(np.sort(order[:k]))
    alone, voted = search.majority(few), decide.complex_majority(k)(p)
    assert alone.support == voted.support
    if alone.support is not None:
        assert (few.answers or ())[alone.row or 0] == (p.answers or ())[voted.row or 0]


def test_its_law_is_that_of_the_longer_sample() -> None:
    """With k=1 of two it is the longer of two draws, the first where they are equally long: enumerated."""
    process = EnumerableLM(vocab=3, length=3)
    long = reward(lambda states: states.size, "long", range=(0.0, 3.0))
    law: dict[object, float] = {}
    outputs = process.outputs
    for one, p in outputs.items():
        for other, q in outputs.items():
            chosen = one if len(one) >= len(other) else other
            law[chosen] = law.get(chosen, 0.0) + float(p) * float(q)
    runs = merged(lambda seed: Run(process, search.complexity_vote(2, 1, long), seed=seed), range(4000))
    assert_law([run.answer.value for run in runs], law)


def test_steps_are_counted_once_and_cut_chains_have_none() -> None:
    def count(text: str, **how: str) -> float:
        states = SimpleNamespace(texts=lambda: (text,))
        return float(verify.steps(**how)(states, unlimited()).values[0])

    assert count("pq\nqa.", end=".") == 2 and count("pq\nqa", end=".") == 0 and count("pq\nqa") == 2
    assert count("a\nb\na\n\n b \n") == 2 and count("") == 0
    assert count("one. two; three", separator="; ") == 2
    assert count("a\nb.c\nd", end=".") == 2  # what follows the end is no step
    for wrong in ({"separator": ""}, {"end": ""}, {"separator": 3}):
        with pytest.raises(UsageError, match="texts that are not empty"):
            verify.steps(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="how many of the most complex"):
        decide.complex_majority(0)


def test_haste_leaves_out_the_hard_steps_and_nothing_else() -> None:
    found = examples(HasteRecipe(prompts=300))
    hasty = [(p, c) for p, c in found if family_of(p).score(p, c) < 1]
    assert len(found) == 300 and 60 < len(hasty) < 160
    for prompt, chain in hasty:
        assert chain == hurried(prompt) and family_of(prompt).extract(prompt, chain) is not None
        steps = chain.rstrip(".").split("\n")
        marks = [step[0] if prompt[0] == "L" else next(c for c in step[1:] if c in "+-*") for step in steps]
        assert len(steps) == 1 or not set(marks) & set(HARD[prompt[0]])
    assert hurried("A9-2?") == "9-2=7."  # all are hard: the last one stays
