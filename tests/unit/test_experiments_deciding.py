"""The experiments on decisions, small: pools of an oracle, laws written down, checks that say what they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anystep import reward, search
from anystep.experiments import _path_errors as errors
from anystep.experiments import best_of_majority, perplexity_consistency, reasoning_pruning
from anystep.experiments._deciding import decided, ece_difference, perplexity, solved
from anystep.experiments._regret import instance, regret
from anystep.experiments.check import Result
from anystep.search import decide
from anystep.search.pools import Pool, Pools
from anystep.testing.oracles import EnumerableLM

RIGHT = reward(lambda states: np.array([float(sum(x) % 3 == 1) for x in states.tuples()]), "right")
GUESS = reward(lambda states: np.array([(1 + sum(x)) / 12 for x in states.tuples()]), "guess")


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pool]]:
    path: Path = tmp_path_factory.mktemp("pools") / "oracles.pools.db"
    with Pools(path) as kept:
        found = []
        for seed in range(6):
            lm = EnumerableLM(seed=seed, length=4, answer=sum)
            found.append(kept.record(lm, 64, seed, item=f"law {seed}", rewards={"oracle": RIGHT, "step": GUESS}))
        yield found


def quiet(line: str) -> None:
    pass


def test_row_222_has_a_check_for_every_clause_and_the_exact_ones_pass(pools: list[Pool]) -> None:
    found = perplexity_consistency.run(pools={"laws": pools}, runs=1_000, times=1, progress=quiet)
    assert found.row == 222 and Result.from_json(found.to_json()).checks == found.checks
    assert all(c.passed for c in found.checks if c.clause.startswith("law over paths") or c.op == "==")
    for words in (
        "closed form",
        "p (1 - p) / n",
        "majority@32",
        "calibration error",
        "likeliest path's",
        "pruning off",
    ):
        assert any(words in c.clause for c in found.checks), words


def test_row_28_has_a_check_for_every_clause_and_the_laws_pass(pools: list[Pool]) -> None:
    found = reasoning_pruning.run(pools={"laws": pools}, runs=20_000, times=1, progress=quiet)
    assert found.row == 28 and all(c.passed for c in found.checks if c.clause.startswith("law over paths"))
    for words in ("exponentially", "over log n", "majority@32", "the vote's", "perplexity alone", "without pruning"):
        assert any(words in c.clause for c in found.checks), words
    assert "model error" in found.notes and "every draw counted" in found.notes


def test_row_212_has_a_check_for_every_clause(pools: list[Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_of_majority, "NS", (8, 16))
    monkeypatch.setattr(best_of_majority, "SIZES", (64, 2_048, 4_096))
    monkeypatch.setattr(best_of_majority, "GRID", (0.0, 0.1, 2.0))
    both = {"laws": best_of_majority.Pools(pools[:3], pools[3:])}
    found = best_of_majority.run(pools=both, runs=6, times=1, progress=quiet)
    assert found.row == 212 and all(c.passed for c in found.checks if c.op == "==")
    for words in ("best of majority's regret", "best of n's regret", "majority's regret", "threshold 0", "pass@8"):
        assert any(words in c.clause for c in found.checks), words


def test_what_is_decided_is_what_a_loop_by_hand_says(pools: list[Pool]) -> None:
    pool, rows = pools[0], pools[0].subsets(8, 3, 0)
    found = decided([pool], search.majority, 8, 3)
    for j, own in enumerate(rows):
        verdict = search.majority(pool.population(own))
        assert verdict.row is not None
        assert found.right[0, j] == solved(pool)[own[verdict.row]] and found.said[0, j] == verdict.support
    several = decided([pool], decide.best_of_majority(2.0, k=3), 8, 3)
    assert (several.right >= found.right).all()
    alone = perplexity(pool.population())
    assert alone.row is not None and pool.population().logp[alone.row] == pool.population().logp.max()


def test_a_gap_between_calibration_errors_has_its_value_in_its_interval(pools: list[Pool]) -> None:
    ours, theirs = (decided(pools, d, 16, 4) for d in (decide.perplexity_consistency(), search.majority))
    gap = ece_difference(ours, theirs)
    assert gap.low <= gap.value <= gap.high
    assert gap.value == pytest.approx(ours.ece().value - theirs.ece().value)


def test_the_simulated_policy_is_as_it_is_described() -> None:
    where = instance()
    assert where.p.sum() == pytest.approx(1) and (where.p[1:9] > where.p[0]).all() and where.coverage == 20
    assert (where.rewards > where.rewards[0]).sum() > 1_000
    first = regret(where, decide.best_of_majority(0), 1_024, 4, seed=0)
    gated = regret(where, decide.best_of_majority(where.threshold()), 2_048, 4, seed=0)
    assert first.mean() == 1 and gated.mean() == 0


def test_a_law_s_estimates_agree_with_its_closed_forms() -> None:
    rng, law = np.random.default_rng(0), errors.TOY
    assert law.p.sum() == pytest.approx(1) and errors.agrees(law, "a", 10, 20, rng) < 1e-12
    found = errors.estimated(law, "a", 12, 20_000, rng)
    mean, variance = errors.exact(law, "a", 12)
    assert found["perplexity consistency"].mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / 20_000))
    assert found["vote"].mean() == pytest.approx(law.share("a"), abs=0.01)
    assert errors.squared_error(law, "a", 12) == pytest.approx((law.share("a") - mean) ** 2 + variance)
