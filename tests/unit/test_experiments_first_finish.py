"""Row 231's experiment, small: its checks measure what they name, and its pools' laws are right."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from anystep.experiments import Result, first_finish
from anystep.experiments._figures import unbiased
from anystep.experiments._traces import LONGEST, POOLS, Traces
from anystep.experiments._wire import Wired, Worker, Workers
from anystep.language import load
from anystep.language.train import overcheck
from anystep.tasks.chains import FAMILIES, problems, stray
from anystep.testing.server import Request


@pytest.fixture(scope="module")
def small() -> Result:
    engine = load("chainlm-2m")
    return first_finish.run(model=engine, overchecking=engine, problems=4, runs=40, raced=2, progress=lambda line: None)


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(small: Result) -> None:
    assert small.row == 231 and Result.from_json(small.to_json()).name == "first_finish"
    exact = [c for c in small.checks if c.op == "==" and not c.clause.startswith("on the wire")]
    assert len(exact) == 13 and all(c.passed for c in exact), [str(c) for c in exact if not c.passed]
    assert all(c.passed for c in small.checks if c.clause.startswith(("wrong traces", "right traces", "length")))
    named = ("n x shortest", "pinned", "single sample", "majority@4's", "sequential", "over-checking", "enumeration")
    for words in named:
        assert any(words in c.clause for c in small.checks), words


def test_the_race_on_the_wire_leaves_nothing_in_flight_and_measures_what_it_names(small: Result) -> None:
    found = [c for c in small.checks if c.clause.startswith("on the wire")]
    assert all(c.passed for c in found if "in flight" in c.clause)
    for workers in ("even", "uneven"):
        own = [c for c in found if c.clause.startswith(f"on the wire, {workers} workers")]
        for words in ("first reply to end", "to their end", "no ledger has", "majority@4's", "seconds to the first"):
            assert any(words in c.clause for c in own), words


def test_a_served_trace_is_of_its_pool_and_says_who_wrote_it() -> None:
    workers = Workers(POOLS["wrong traces longer"], uneven=False)
    said = [workers.script(Request(i, "/chat/completions", {}, {}, seed=i), 0) for i in range(2_000)]
    right = [s for s in said if s.pieces[-1].text.startswith("0 ")]
    assert said[7].pieces[-1].text.split()[1] == "7" and {p.text for p in said[7].pieces[:-1]} == {"."}
    assert abs(len(right) / 2_000 - 0.55) < 5 * (0.55 * 0.45 / 2_000) ** 0.5
    assert abs(np.mean([len(s.pieces) for s in right]) - 12) < 5 * 3 / len(right) ** 0.5


def worker(number: int, ends: list[float], length: int) -> Worker:
    return Worker(number, length, 0.01, ends)


def test_a_race_that_was_run_wrongly_is_caught() -> None:
    won, beaten, cut = worker(0, [1.0, 2.0], 2), worker(1, [0.5], 1), worker(2, [1.0], 9)
    late = Wired(None, (won, beaten, cut), won, 1.0, 0.1)
    assert not late.early and late.ran_on == 0
    ran = worker(3, [*np.arange(1.0, 10.0)], 9)
    assert Wired(None, (won, ran), won, 1.0, 0.1).early and Wired(None, (won, ran), won, 1.0, 0.1).ran_on == 1


def test_a_pool_s_exact_law_is_what_enumerating_its_pairs_gives() -> None:
    pool = Traces((5, 2), (9, 3), share=0.4)
    joint = pool.lengths * np.array([[0.4], [0.6]])
    brute = sum(
        joint[k, i] * joint[m, j] * ((k == 0) if i <= j else (m == 0))
        for k in range(2)
        for m in range(2)
        for i in range(LONGEST)
        for j in range(LONGEST)
    )
    assert pool.first_right(2) == pytest.approx(brute, abs=1e-12)
    assert pool.first_right(1) == pytest.approx(0.4)
    assert [np.sign(round(p.first_right(4) - p.share, 9)) for p in POOLS.values()] == [1, 0, -1]


def test_a_biased_estimate_is_caught() -> None:
    x = np.random.default_rng(0).normal(0.0, 1.0, 4_000)
    assert unbiased("fair", x, 0.0).passed and not unbiased("biased", x + 0.1, 0.0).passed


@pytest.mark.parametrize("letter", sorted(FAMILIES))
def test_checks_are_written_and_read_away(letter: str) -> None:
    rng, recipe, more = Random(3), overcheck.CheckRecipe(), {True: [0, 0], False: [0, 0]}
    for problem, _ in zip(problems("train", rng, {letter: 1.0}), range(60), strict=False):
        chain = stray(FAMILIES[letter], rng, problem.prompt)
        longer = overcheck.checked(rng, problem.prompt, chain, recipe)
        assert overcheck.unchecked(longer) == chain
        tally = more[FAMILIES[letter].score(problem.prompt, chain) == 1.0]
        tally[0] += sum(line.startswith(overcheck.CHECK) for line in longer.split("\n"))
        tally[1] += 1
    assert more[False][0] / more[False][1] > more[True][0] / max(more[True][1], 1)


def test_the_variant_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe, said = overcheck.CheckRecipe(prompts=6, each=2, tokens=1_000, batch=4), list[str]()
    path = overcheck.overchecking(recipe, said.append)
    assert said and load(path).name == str(path)
    said.clear()
    assert overcheck.overchecking(recipe, said.append) == path and not said
