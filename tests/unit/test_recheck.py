"""What a recheck leaves standing, what the model learns of rechecks, and row 176's experiment, small."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from anystep import Run, drive, search, verify
from anystep.experiments import Result, iterative_deepening_sampling
from anystep.experiments._rechecks import pool
from anystep.language import load
from anystep.language.train import recheck
from anystep.process import reward
from anystep.solve import process_for
from anystep.tasks.chains import FAMILIES, chains, family_of, problems, stray
from anystep.tasks.chains.family import split
from anystep.verify.reread import reread


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("9-4=5\n#0\n9*4=36\n36+1=37.", "9*4=36\n36+1=37."),
        ("ab\nbc\n#1\nbd.", "ab\nbd."),
        ("ab\nbc\n#0\nad\n#1\nde.", "ad\nde."),
        ("ab\n#7\nbc.", "ab\nbc."),
        ("ab\n#\nbc.", "ab\nbc."),
        ("ab\n#1", "ab\n"),
        ("ab\n#0\n", ""),
        ("ab\nb", "ab\nb"),
        ("ab.\n#0\n", "ab.\n#0\n"),
    ],
)
def test_what_a_recheck_leaves_standing(text: str, left: str) -> None:
    assert recheck.rechecked(text) == left


@pytest.mark.parametrize("letter", sorted(FAMILIES))
def test_a_lesson_says_how_many_steps_stand_and_goes_on_rightly(letter: str) -> None:
    rng, twice = Random(3), 0
    for problem, _ in zip(problems("train", rng, {letter: 1.0}), range(40), strict=False):
        samples = [[s for s, _ in split(stray(FAMILIES[letter], rng, problem.prompt))] for _ in range(3)]
        pair = recheck.recheck(rng, problem.prompt, samples, twice=0.5)
        if pair is None:
            assert all(len(steps) < 2 for steps in samples)
            continue
        told, rest = pair
        assert told.endswith("\n#") and rest[0].isdigit()
        assert family_of(problem.prompt).score(problem.prompt, recheck.rechecked((told + rest)[len(problem.prompt) :]))
        kept = recheck.rechecked(told[len(problem.prompt) : -1]).split("\n")[:-1]
        assert int(rest[0]) == recheck.standing(problem.prompt, kept)
        twice += told.count("#") == 2
    assert letter in "AL" or twice


def test_a_reward_is_shown_what_stands() -> None:
    process = process_for(chains(1, "dev")[0], load("chainlm-2m"), temperature=1.0)
    seen: list[str] = []
    shown = reread(
        reward(lambda states: [float(bool(seen.extend(states.texts()))) for _ in states.texts()], "r"), str.upper
    )
    (answer,) = drive(Run(process, search.best_of_n(n=2, reward=shown)))
    assert answer.population is not None
    assert set(seen) == {text.upper() for text in answer.population.states.texts()} and shown.name == "r"


def test_the_variant_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe, said = recheck.RecheckRecipe(prompts=6, each=2, tokens=1_000, batch=4), list[str]()
    path = recheck.rechecking(recipe, said.append)
    assert said and load(path).name == str(path)
    said.clear()
    assert recheck.rechecking(recipe, said.append) == path and not said


def test_the_experiment_has_a_check_for_every_clause_and_the_exact_ones_pass() -> None:
    engine = load("chainlm-2m")
    module, said = iterative_deepening_sampling, list[str]()
    small = module.run(engine=engine, plain=engine, problems=6, tuning=3, n=2, most=4, progress=said.append)
    assert small.row == 176 and Result.from_json(small.to_json()).name == "iterative_deepening_sampling"
    exact = [c for c in small.checks if c.op == "=="]
    assert len(exact) == 2 and all(c.passed for c in exact)
    for words in ("plain sampling's", "fixed interval's", "random places's", "majority@2", "best of 2"):
        assert any(words in c.clause for c in small.checks), words


def test_a_pool_counts_what_its_first_samples_cost() -> None:
    engine, tasks = load("chainlm-2m"), [iterative_deepening_sampling.reading(t) for t in chains(3, "dev")]
    found = pool(engine, tasks, 4, search.Geometric(4, 2), 0)
    assert found.cues > 0 and all(r.lengths.sum() > 0 for r in found.rows)
    vote, best = found.vote(4), found.best(4)
    ledgers = np.array([run.ledger.by[engine.name].tokens for run in found.runs.runs])
    assert (vote.tokens >= ledgers).all(), "cues that equal beginnings share are counted for each"
    read = best.tokens - vote.tokens
    booked = found.runs.tokens - ledgers  # what begins alike in two problems is read once too
    assert (read >= booked).all() and (read <= booked + 6).all()
    assert found.equal("vote", float(found.vote(2).cost))[0] == 2
    assert verify.chain_steps().name == found.runs.runs[0].method.rewards()[1].name


def test_misplaced_cues_are_counted() -> None:
    rule = search.Geometric(4, 2)
    assert iterative_deepening_sampling.misplaced("ab\ncde\n#1\nfg.", rule) == 0
    assert iterative_deepening_sampling.misplaced("ab\n#1\nfg.", rule) >= 1
    assert iterative_deepening_sampling.misplaced("ab\ncde\nfg.", rule) == 1
