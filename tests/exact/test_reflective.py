"""Reflective verification: what stands where in the joint pass, what is mixed, and what weight 0 keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models import text, tiny_engine

from anystep import search
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.accelerate import DraftModel, Follow, Reject, Thrift, reflective_verification, speculate
from anystep.language.accelerate.drafts import Draft
from anystep.language.accelerate.reflective import Reflective, branches
from anystep.language.accelerate.verify import Place
from anystep.language.engine.trees import Tree
from anystep.run import Run

FORK = Tree((5, 6, 7, 8, 9), (-1, 0, 0, 1, 2))  # 5 6 8 and 5 7 9


def spelled(tree: Tree, node: int) -> list[int]:
    return [tree.tokens[n] for n in tree.path(node)]


def test_each_branch_is_followed_by_prompt_last_tokens_and_itself_but_its_end() -> None:
    shown = Reflective((40, 41), 0.3, 3, Follow(), 4096).shown(Draft(FORK), (1, 2, 3, 4)).tree
    assert shown.first(5) == FORK and branches(FORK) == [[0, 1, 3], [0, 2, 4]]
    ends = [spelled(shown, node) for node in range(len(shown)) if not shown.children(node)]
    assert ends == [[5, 6, 8, 40, 41, 2, 3, 4, 5, 6], [5, 7, 9, 40, 41, 2, 3, 4, 5, 7]]


@pytest.mark.parametrize("words", [0, 2])
def test_the_mixture_is_of_the_plain_pass_and_of_the_sequence_that_looks_back(words: int) -> None:
    engine, prefix, weight = tiny_engine(layers=3), text(20), 0.3
    verifier = Reflective((40, 41)[:words], weight, 3, Follow(), 4096)
    shown = verifier.shown(Draft(FORK), prefix).tree
    with engine.open(engine.plan([prefix[:-1]])) as session:
        hidden = session.look({0: shown.under(prefix[-1])})[0]
        fused = verifier.fused(Place(engine.model.logits(hidden), Draft(FORK), np.uint64(0), len(prefix)))
    assert len(fused) == 1 + len(FORK)
    for branch in ([5, 6, 8], [5, 7, 9]):
        whole = [*prefix, *branch, *(40, 41)[:words], *prefix[-3:], *branch]
        logits = engine.forward(torch.tensor([whole]))[0]
        plain, back = logits[len(prefix) - 1 :], logits[len(whole) - 4 :]
        at = [0, *(node + 1 for node in next(b for b in branches(FORK) if spelled(FORK, b[-1]) == branch))]
        for depth, row in enumerate(at):
            shared = branch == [5, 7, 9] and depth < 2  # read in the first branch that has it
            if not shared:
                wanted = plain[depth] if depth == 3 else (1 - weight) * plain[depth] + weight * back[depth]
                torch.testing.assert_close(fused[row], wanted, atol=2e-4, rtol=1e-4)


def answers(engine, verifier, temperature: float, most: int = 24):
    drafter = DraftModel(tiny_engine(seed=1, layers=1))
    process = LanguageProcess(engine, "look 12 back", unit="completion", temperature=temperature, max_tokens=most)
    made = speculate(process, drafter, verifier, Thrift(fixed=3))
    run = Run(made, search.sample(n=4), None, 3)
    drive(run)
    assert run.answer is not None and run.answer.population is not None
    return [states for states in run.answer.population.states.tokens], made.rounds, run.spent


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weight_zero_is_exact_verification_at_its_cost(temperature: float) -> None:
    engine = tiny_engine(layers=3)
    zero = reflective_verification(engine, "look back:", weight=0.0)
    assert zero.keeps == "tokens" and reflective_verification(engine, "no", weight=0.0, rule=Reject()).keeps == "law"
    found, rounds, spent = answers(engine, zero, temperature)
    engine.cache.trim(0)
    wanted, other, cost = answers(engine, Follow(), temperature)
    assert found == wanted and rounds == other and spent.same(cost)


def test_what_is_added_is_paid_and_forgotten() -> None:
    engine = tiny_engine(layers=3)
    verifier = reflective_verification(engine, "back:", weight=0.4, repeat=2)
    assert verifier.keeps == "nothing"
    before = engine.counters.positions
    found, rounds, spent = answers(engine, verifier, 0.0)
    passes = engine.counters.positions - before
    assert rounds.shown > 3 * rounds.looks and spent.evaluations >= passes
    for tokens in found:  # only what was accepted is left, and cached as plain decoding would have it
        plan = engine.plan([tokens])
        with engine.open(plan) as session:
            states = session.states(0)
        torch.testing.assert_close(states, engine.forward(torch.tensor([tokens]), hidden=True)[0], atol=2e-4, rtol=1e-4)


def test_near_the_end_of_the_context_drafts_go_without() -> None:
    verifier = Reflective((40,), 0.5, 2, Follow(), 30)
    draft = Draft(FORK)
    assert verifier.shown(draft, tuple(range(25))) is draft and len(verifier.shown(draft, tuple(range(10)))) > 5
    logits = torch.randn(1 + len(FORK), 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(verifier.fused(Place(logits, draft, np.uint64(0), 25)), logits)
    empty = Draft()
    assert verifier.shown(empty, (1, 2, 3)) is empty


def test_settings_that_cannot_be_meant_are_refused() -> None:
    engine = tiny_engine()
    for bad in ({"weight": 1.5}, {"weight": -0.1}, {"repeat": -1}, {"prompt": "", "repeat": 0}):
        with pytest.raises(UsageError, match="reflective_verification"):
            reflective_verification(engine, **({"prompt": "back"} | bad))
