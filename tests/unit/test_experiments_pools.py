"""What the experiments on recorded pools compute, on pools so small that it can be said beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anystep import reward, search
from anystep.bench import pass_at
from anystep.errors import UsageError
from anystep.experiments import complexity_vote, repeated_sampling
from anystep.experiments._pools import DATASETS, PoolRecipe, asked, checked, recorded
from anystep.experiments.complexity_vote import Voted, voted, voting
from anystep.experiments.repeated_sampling import Solved, cheap, enumerated, forecast, laws, ledger, plateau
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.prompt import Example, exemplars
from anystep.search.pools import Pool, Pools
from anystep.tasks.chains import chains
from anystep.testing.oracles import EnumerableLM
from models import tiny_model


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    with Pools(tmp_path / "x.pools.db") as opened:
        yield opened


def pool_of(pools: Pools, item: str, target: tuple[int, ...], n: int = 256) -> Pool:
    process = EnumerableLM(seed=len(item), vocab=3, length=3)
    rewards = {
        "oracle": reward(lambda states: [t == target for t in states.tuples()], "oracle"),
        "steps": reward(lambda states: states.size, "steps", range=(0.0, 3.0)),
        "step": reward(lambda states: states.size / 3, "step"),
    }
    return pools.record(process, n, item=item, rewards=rewards)


def test_every_clause_on_coverage_is_computed(pools: Pools) -> None:
    targets = [(1, 0), (0,), (2, 2, 1), (2, 1, 2), (9,)]
    found = [Solved.of(pool_of(pools, f"item {i}", target)) for i, target in enumerate(targets)]
    assert found[-1].right.sum() == 0 and found[0].counts(64) == (64, int(found[0].right[:64].sum()))
    (exact,) = enumerated()
    assert exact.passed
    (law,) = laws({"toy": found}, seed=0)
    assert law.interval is not None and 0 <= law.value <= 1
    vote, coverage = plateau(found, seed=0)
    assert coverage.value >= 0 and vote.op == "<"
    solved = next(cheap({"toy": (found, found)}))
    one = np.mean([s.right.mean() for s in found])
    assert solved.value == pytest.approx(np.mean([pass_at(*s.counts(256), 5) for s in found]) - one)
    assert ledger(found[0].pool, 5).generated == found[0].pool.lengths[:5].sum()
    whole = found[0].mean(search.majority, 256)
    assert whole == float(found[0].right[search.majority(found[0].pool.population()).row or 0])
    told = repeated_sampling._curves({"toy": found}, 0)
    assert "power law" in told and "toy" in told


def test_a_forecast_sees_only_the_first_samples(pools: Pools) -> None:
    found = [Solved.of(pool_of(pools, f"item {i}", t)) for i, t in enumerate([(1, 0), (2, 1, 2)])]
    cut = [Solved.of(pool_of(pools, f"item {i}", t).first(64)) for i, t in enumerate([(1, 0), (2, 1, 2)])]
    assert forecast([s.counts(64) for s in found]) == forecast([s.counts(64) for s in cut])


def test_votes_by_complexity_are_what_the_decisions_say(pools: Pools) -> None:
    pool = pool_of(pools, "item", (2, 1, 2), n=40)
    found = voted(pool, greedy=1.0, seed=0)
    assert found.differs == 0 and found.top[20] == found.majority and found.one == pool.scores("oracle").mean()
    base = Voted({4: 1, 10: 1.0, 16: 1, 20: 0.5}, 0.0, 0.5, 0.5, 0, 0.5, 1.0, 9.0)
    worse = Voted({4: 0, 10: 0.0, 16: 0, 20: 0.5}, 1.0, 0.5, 0.5, 0, 0.5, 1.0, 9.0)
    checks = list(voting({"skipping": [base] * 3, "checking": [worse] * 3}))
    assert [c.value for c in checks] == [0, 0.5, 1.0, 0.5, -0.5] and all(c.passed for c in checks)


def test_examples_fill_the_same_room(tmp_path: Path) -> None:
    shown = complexity_vote.sums(60, seed=1)
    assert all(eval(e.question[8:-1]) == int(e.solution.split()[-1][:-1]) for e in shown)  # noqa: S307
    kinds = {kind: exemplars(shown, 600, kind) for kind in ("most", "fewest", "random")}
    sizes = {kind: sum(len(e.question) + len(e.solution) for e in some) for kind, some in kinds.items()}
    assert all(540 < size <= 600 for size in sizes.values()), sizes
    steps = {kind: np.mean([e.steps for e in some]) for kind, some in kinds.items()}
    assert steps["fewest"] < steps["random"] < steps["most"] and len(kinds["fewest"]) > len(kinds["most"])
    assert kinds["random"] == exemplars(shown, 600, "random") != exemplars(shown, 600, "random", seed=1)
    for call in (lambda: exemplars(shown, 3), lambda: exemplars(shown, 600, "longest")):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="exemplars"):
            call()
    assert Example("?", "a\n\n b\n").steps == 2


def test_a_log_likelihood_of_solutions_is_that_of_the_model() -> None:
    symbols = "\0\n" + "".join(map(chr, range(32, 127)))
    engine = Engine(tiny_model(vocab=len(symbols)), Alphabet(symbols), name="tiny")
    told = complexity_vote.likelihoods(engine, questions=3, seed=0, sets=1, room=250)
    assert set(told) == {"most", "random", "fewest"}
    for values, sizes in told.values():
        assert values.shape == (3,) and sizes.shape == (1,) and 100 < sizes[0] <= 250
    (first, *_), some = complexity_vote.sums(3, 2), exemplars(complexity_vote.sums(120, 1), 250, "most", _told_length)
    before = "".join(f"Question: {e.question}\nSolution:\n{e.solution}\n\n" for e in some)
    start = engine.tokenizer.encode(f"{before}Question: {first.question}\nSolution:\n")
    tokens = start + engine.tokenizer.encode(first.solution)
    logp = torch.log_softmax(engine.model.logits(engine.model(torch.tensor([tokens]))[0]), -1)
    by_hand = sum(float(logp[i - 1, tokens[i]]) for i in range(len(start), len(tokens)))
    assert told["most"][0][0] == pytest.approx(by_hand, rel=1e-4)


def _told_length(example: Example) -> int:
    return len(f"Question: {example.question}\nSolution:\n{example.solution}\n\n")


def test_a_recipe_is_its_file_and_its_items_are_asked_in_lines() -> None:
    assert PoolRecipe().path != PoolRecipe(split="dev").path != PoolRecipe(split="dev", temperature=0.5).path
    tasks = {name: asked(name, 2, "test") for name in DATASETS}
    for some in tasks.values():
        assert all(t.prompt.count("Question:") == 5 and t.prompt.endswith("Answer:") for t in some)
        assert all(t.score(f" {t.reference}\n") == 1.0 for t in some)
    assert {t.prompt for t in tasks["products"]}.isdisjoint(t.prompt for t in asked("products", 2, "dev"))
    letters = {t.family for t in PoolRecipe(task="chains-AL").tasks(6)}
    assert letters == {"A", "L"} and [t.prompt for t in PoolRecipe().tasks(3)] == [t.prompt for t in chains(3)]


def test_what_is_recorded_is_read_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    recipe = PoolRecipe(split="dev")
    first = [pool for _, pool in recorded(recipe, 2, 8, checked, ("oracle",))]
    assert [len(pool) for pool in first] == [8, 8] and all(set(p.scores("oracle")) <= {0.0, 1.0} for p in first)

    def nobody() -> Any:
        raise AssertionError("a model was asked for")

    again = [pool for _, pool in recorded(recipe, 2, 6, checked, ("oracle",), engine=nobody)]
    assert [p.texts for p in again] == [p.texts[:6] for p in first]
    with pytest.raises(AssertionError, match="a model was asked for"):
        list(recorded(recipe, 2, 9, checked, ("oracle",), engine=nobody))
