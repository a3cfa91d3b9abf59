"""A process that begins anew from what was written: what it reads, what it pays, and how it goes on."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import Budget, Run, drive, reward, search
from anystep.errors import UsageError
from anystep.keys import roots
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.revising import revising
from anystep.language.train.chainlm import untrained
from anystep.ledger import Ledger, Limit
from anystep.process import Status
from anystep.tasks.chains import Alphabet as Symbols


def engine(context: int = 64) -> Engine:
    symbols = Symbols()
    model = untrained(Config(len(symbols), 32, 1, 1, 1, 32, 32, context=context), 3).eval()
    return Engine(model, Alphabet(symbols.symbols), name="tiny")


def process(context: int = 64, prompt: str = "L12?") -> LanguageProcess:
    return LanguageProcess(engine(context), prompt, unit="completion", end=(".",), max_tokens=6, temperature=1.0)


def rewrite(prompt: str, text: str) -> str:
    return f"{prompt.rstrip('?')}|{text[:2].replace('?', '_')}?"


def finished(base: LanguageProcess, n: int = 3):  # type: ignore[no-untyped-def]
    keys = roots(0, (0, 0), np.arange(n))
    begun = base.start(keys, Limit(Ledger(), base.name))
    return base.step(begun.states, keys, Limit(Ledger(), base.name), "done").states, keys


def test_a_finished_state_is_continued_from_its_new_prompt_as_the_process_would() -> None:
    base = process()
    states, keys = finished(base)
    made = revising(base, rewrite).step(states, keys, Limit(Ledger(), "r"), "done")
    assert (made.status == Status.DONE).all()
    for row, (prompt, text) in enumerate(zip(states.prompts(), base.texts(states), strict=True)):
        new = rewrite(prompt, text)
        assert made.states.prompts()[row] == new
        alone = LanguageProcess(base.engine, new, unit="completion", end=(".",), max_tokens=6, temperature=1.0)
        begun = alone.start(keys[[row]], Limit(Ledger(), "a"))
        same = alone.step(begun.states, keys[[row]], Limit(Ledger(), "a"), "done")
        assert same.states.outputs()[0] == made.states.outputs()[row] and same.logp[0] == pytest.approx(made.logp[row])


def test_a_revision_that_was_cut_goes_on_and_is_not_begun_again() -> None:
    base = process()
    states, keys = finished(base, 1)
    reviser = revising(base, rewrite)
    whole = reviser.step(states, keys, Limit(Ledger(), "r"), "done").states
    for tokens in range(1, 12):
        base.forget()
        cut = reviser.step(states, keys, Limit(Ledger(Budget(tokens=tokens)), "r"), "done")
        later = reviser.step(cut.states, keys, Limit(Ledger(), "r"), "done") if cut.status[0] == Status.LIVE else cut
        assert later.states.tokens == whole.tokens and later.states.starts == whole.starts


def test_a_prompt_without_room_fails_its_state_alone() -> None:
    base = process(context=16)
    states, keys = finished(base, 2)

    def grows(prompt: str, text: str) -> str:
        return prompt if text == base.texts(states)[1] else prompt * 5

    made = revising(base, grows).step(states, keys, Limit(Ledger(), "r"), "done")
    assert made.status.tolist() == [Status.FAILED, Status.DONE] and "leaves no room" in made.errors[0]
    assert len(made.states) == 2 and made.states.prompts()[1] == "L12?"


def test_it_serves_as_the_reviser_of_hypothesis_refinement_and_books_its_own_costs() -> None:
    base = process()
    reviser = revising(base, rewrite, name="reviser")
    length = reward(lambda states: np.array([len(t) / 9 for t in states.texts()]), "length")
    runs = [
        Run(process(prompt=p), search.hypothesis_refinement(3, length, reviser, rounds=2), seed=1)
        for p in ("L12?", "L345?")
    ]
    for run in runs:
        run.process.engine = base.engine  # type: ignore[attr-defined]
    answers = drive(*runs)
    for run, answer, prompt in zip(runs, answers, ("L12", "L345"), strict=True):
        assert answer.population is not None and len(answer.population) == 6
        assert all(p.startswith(prompt) and "|" in p for p in answer.population.states.prompts()[3:])
        assert run.ledger.by["reviser"].generated > 0 and answer.cost.tokens == sum(
            c.tokens for c in run.ledger.by.values()
        )


def test_two_rewrites_do_not_share_a_batch_and_nonsense_is_refused() -> None:
    base = process()
    assert revising(base, rewrite).merges() == revising(base, rewrite).merges() != base.merges()
    assert revising(base, lambda p, t: p).merges() != revising(base, rewrite).merges()
    for wrong in (lambda: revising(revising(base, rewrite), rewrite), lambda: revising(base, "better")):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="takes a LanguageProcess and a function"):
            wrong()
