"""Another prompt before the same output: what is kept, what it costs, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import Budget, Run, Unsupported, UsageError, drive, reward, search
from anystep.language import LanguageProcess
from anystep.language.reprompting import reprompting
from anystep.testing.limits import unlimited
from models import chain_engine


def test_the_output_is_kept_and_read_again_behind_the_new_prompt() -> None:
    engine = chain_engine()
    process = LanguageProcess(engine, "A48-2-9?", stop="\n", end=".", max_tokens=60)
    same, other = reprompting(process, "A48-2-9?", "A50-2-9?")
    run = Run(process, search.adaptive_prompt((same,)), seed=1)
    (answer,) = drive(run)
    assert answer.population is not None and "template" in same.name
    keys = answer.population.key
    begun = process.step(process.start(keys, unlimited()).states, keys, unlimited(), "step").states
    told = other.step(begun, keys, unlimited(), "step")
    assert told.cost.tokens == 0 and told.status.tolist() == [0]
    assert told.states.texts() == begun.texts() and told.states.prompts() == ("A50-2-9?",)
    assert same.step(begun, keys, unlimited(), "step").states.tokens == begun.tokens
    engine.cache.trim(0)
    after = process.step(told.states, keys, unlimited(), "step")
    written = len(after.states.tokens[0]) - len(told.states.tokens[0])
    assert after.cost.prompt == len(told.states.tokens[0])  # all of it, with what had been written under another
    assert after.cost.generated == written
    assert other.load(other.dump(told.states)).tokens == told.states.tokens


def test_a_rejected_step_is_taken_again_under_the_next_template() -> None:
    """The check wants the second prompt: the run ends under it, after one attempt under the first."""
    process = LanguageProcess(chain_engine(), "A48-2-9?", stop="\n", end=".", max_tokens=60)
    templates = reprompting(process, "A48-2-9?", "A50-2-9?")
    wants = reward(lambda states: np.array([float("50" in prompt) for prompt in states.prompts()]), "wants 50")
    run = Run(process, search.adaptive_prompt(templates, wants, tries=2), Budget(tokens=400), seed=0)
    (answer,) = drive(run)
    assert answer.population is not None and answer.population.states.prompts() == ("A50-2-9?",)
    tries = [
        run.books.family.by[p[0]]
        for by, p in zip(run.books.family.by, run.books.family.parents, strict=True)
        if p and by == process.name
    ]
    assert [name.rpartition(" ")[2] for name in tries][:2] == ["1", "2"] and set(tries[1:]) == {templates[1].name}


def test_what_cannot_be_meant_is_refused() -> None:
    process = LanguageProcess(chain_engine(), "A48-2-9?", stop="\n")
    for call in (lambda: reprompting(process), lambda: reprompting("A48-2-9?", "A48-2-9?")):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="reprompting"):
            call()
    with pytest.raises(UsageError, match="empty"):
        reprompting(process, "")
    (template,) = reprompting(process, "A48-2-9?")
    with pytest.raises(Unsupported, match="never ends"):
        template.step(
            template.start(np.array([1], np.uint64), unlimited()).states, np.array([1], np.uint64), unlimited(), "done"
        )
