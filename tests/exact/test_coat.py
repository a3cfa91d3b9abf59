"""CoAT is MCTS with memory: without it the same runs, and with it nothing remembered twice; puzzles and their facts."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, reward, search
from anystep.keys import named, uniforms
from anystep.language import load
from anystep.language.associating import associating
from anystep.language.train.hops import HopRecipe, pairs
from anystep.ledger import Budget
from anystep.solve import process_for
from anystep.tasks.hops import Facts, hops, puzzles
from anystep.tasks.hops.puzzle import remembered, written
from anystep.testing import check_procedure
from anystep.testing.oracles import EnumerableLM, Reviser


def figure(states: Any) -> np.ndarray:
    return np.array([float(uniforms(np.uint64(named(str(t))))) for t in states.tuples()])


ANY = reward(figure, "any")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("expands", [False, True])
def test_without_association_it_is_mcts_state_by_state(seed: int, expands: bool) -> None:
    model = EnumerableLM(seed=1, vocab=4, length=5, expands=expands)
    ours, plain = (
        Run(model, method, seed=seed)
        for method in (
            search.coat(ANY, weight=0.0, rounds=12),
            search.mcts(ANY, value=ANY, rounds=12),
        )
    )
    (a,), (b,) = drive(ours), drive(plain)
    assert a.text == b.text and a.cost.same(b.cost)
    assert ours.books.family.parents == plain.books.family.parents
    assert np.array_equal(ours.books.family.logp, plain.books.family.logp)


def test_a_perfect_relevance_moves_the_search() -> None:
    """What is remembered counts in a node's value: the share of visits below relevant nodes grows with the weight."""
    model = EnumerableLM(seed=1, vocab=4, length=5)
    first = reward(lambda states: (states.tokens[:, 0] == 1).astype(float), "first")
    flat = reward(lambda states: np.zeros(len(states)), "flat")
    shares = []
    for weight in (0.0, 1.0):
        run = Run(model, search.coat(flat, None, first, weight, rounds=30), seed=0)
        drive(run)
        family = run.books.family
        states = run.answer.population.states.tuples()  # type: ignore[union-attr]
        shares.append(np.mean([t[0] == 1 for t in states]) if len(family) else 0.0)
    assert shares[1] > shares[0]


def test_it_keeps_the_laws_of_procedures() -> None:
    model = EnumerableLM(seed=0, vocab=3, length=4)
    check_procedure(search.coat(ANY, Reviser(model, "cue"), ANY, rounds=4, branch=2), model)


def test_bm25_ranks_by_rare_words_and_counts_them_once_each() -> None:
    facts = Facts(("a b", "a c", "a a a", "d"), str.split)
    assert [f.text for f in facts.search("c", 3)] == ["a c"]
    assert facts.search("a b", 1)[0].text == "a b"
    assert facts.search("x", 3) == []
    known = facts.search("a b", 4)
    assert [f.fits for f in known] == sorted((f.fits for f in known), reverse=True) and known[0].fits <= 1
    n, k, length, mean = 4, 3, 2, (2 + 2 + 3 + 1) / 4
    rare = np.log(1 + (n - k + 0.5) / (k + 0.5))
    norm = 1.2 * (0.25 + 0.75 * length / mean)
    assert facts.search("a", 3)[0].fits == pytest.approx(max(3 / (3 + 1.2 * (0.25 + 0.75 * 3 / mean)), 1 / (1 + norm)))
    assert rare > 0


def test_a_puzzle_s_reward_reads_support_off_the_output_alone() -> None:
    puzzle = next(puzzles("test", Random(0)))
    facts, path = puzzle.needed(), puzzle.path
    right = "".join(f"({fact}){entity}\n" for fact, entity in zip(facts, path, strict=True))[:-1] + "."
    assert puzzle.supported(right) == 1 and written(right) == list(path) and remembered(right) == facts
    assert puzzle.supported("\n".join(path) + ".") == 0  # true, and nothing says so
    assert puzzle.supported(f"({facts[0]}){path[0]}\n") == 1 and puzzle.supported("") == 1
    assert puzzle.supported(f"({facts[0]}){path[0]}.") == 0  # it ends too soon
    assert puzzle.query("") == puzzle.start + puzzle.turns[0] and puzzle.query(right) == ""
    task = hops(1, "test", 0)[0]
    assert task.score("x\ny\n" + task.reference + ".") == 1 and task.score(task.reference) == 0
    with pytest.raises(UsageError, match="hops"):
        hops(0)


def test_what_is_remembered_is_written_once_and_paid_as_prompt() -> None:
    engine, task = load("chainlm-2m"), hops(1)[0]
    process = process_for(task, engine, temperature=1.0)
    facts = associating(process, lambda prompt, text: ["a1b", "a1b", "c2d"])  # type: ignore[arg-type]
    method = search.coat(reward(lambda s: np.ones(len(s)), "one"), facts, rounds=3, branch=2)
    run = Run(process, method, Budget(tokens=600))
    drive(run)
    texts = process.texts(run.answer.population.states)  # type: ignore[union-attr]
    assert all(remembered(text) == ["a1b", "c2d"] for text in texts)
    assert set(run.ledger.by) == {process.name}
    with pytest.raises(UsageError, match="associating"):
        associating(process, lambda prompt, text: [], form="no place")  # type: ignore[arg-type]


def test_the_model_learns_from_facts_in_three_ways() -> None:
    some = [next(pair) for pair in [pairs(HopRecipe())] for _ in range(300)]
    bare = [p for p, _ in some if p.endswith("?")]
    assert 10 < len(bare) < 60 and all(t.endswith((".", "\n")) for _, t in some)
    assert max(len(p) + len(t) for p, t in some) <= 160
