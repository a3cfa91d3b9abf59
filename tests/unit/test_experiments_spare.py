"""Row 209's experiment, small: every clause has its check, and its figures are what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Budget, verify
from anystep.errors import UsageError
from anystep.experiments import Result
from anystep.experiments._spare import Pool, counts, distinct, f1, misled, pools
from anystep.experiments.spare import Setting, run
from anystep.language.train.chainlm import policy
from anystep.language.train.orpo import Orpo
from anystep.language.train.reward import Fitting
from anystep.language.train.spare import SpareRecipe, annotated, labels_of, spare
from anystep.tasks.chains import FAMILIES, Verdict
from anystep.tasks.chains.notes import Note, asked
from anystep.tasks.chains.outcome import outcome

TINY = SpareRecipe(first=800, tokens=1_000, last=400, problems=12)
FITTING = Fitting(tokens=1_500, groups=4, micro=1, each=8, warm_steps=2)
SETTING = Setting(
    split="dev", annotator=TINY, ablation=1_000, ablated=3, test=4, each=2, pooled=4, rolled=2, rollouts=2, taught=6,
    seeds=1, tuned=1, fitting=FITTING, orpo=Orpo(tokens=1_500, batch=8), greedy=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: Any) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def test_it_has_a_check_for_every_clause(cache: None) -> None:
    small = run(0, lambda _: None, SETTING)
    assert small.row == 209 and Result.from_json(small.to_json()).name == "spare"
    named = (
        "F1 of wrong",
        "mean of wrong and right",
        "one-to-many",
        "control",
        "tokens read",
        "CPU seconds",
        "true ones",
    )
    for words in (*named, "outcomes alone", "minus before"):
        assert any(words in c.clause for c in small.checks), words
    assert [c.value for c in small.checks if "control" in c.clause] in ([1.0], [pytest.approx(np.nan, nan_ok=True)])


def test_the_annotator_in_the_engine_writes_what_the_sampler_writes(cache: None) -> None:
    path = spare(TINY, lambda _: None)
    annotator, prompt = verify.spare(path), "A48-2-9?"
    reference, chains = "48-2=46\n46-9=37.", ["48-2=46\n46-9=37.", "48-2-9=36."]
    found = annotator(prompt, reference, chains)
    plain = annotated(*policy(path.stem, path.parent), [asked(prompt, reference, c) for c in chains])
    assert [one.text.strip() for one in found] == [text.strip() for text in plain]
    for one, text in zip(found, plain, strict=True):
        assert one.cost.generated == len(text) and one.cost.prompt > 0 and len(one.labels) == len(one.notes)
    group = annotator.labelled(prompt, reference, chains)
    assert group.chains == chains and [len(v) for v in group.verdicts] == [2, 1]
    cut = annotator(prompt, reference, chains[:1], Budget(tokens=len(asked(prompt, reference, chains[0])) + 2))
    assert cut[0].notes == (None, None) and cut[0].labels == (None, None)
    for bad in (("Pq>d:qg,gd?", "qg\ngd.", ["qg\ngd."]), (prompt, reference, ["48-2=46\n"]), (prompt, "48", chains)):
        with pytest.raises(UsageError, match="spare"):
            annotator(*bad)


def test_labels_stay_wrong_behind_a_wrong_line() -> None:
    right, off = (Note(0, "", (), (), (), v) for v in (Verdict.RIGHT, Verdict.FALSE))
    assert labels_of([right, None, off, right, None]) == (True, None, False, False, False)


def test_f1_counts_what_it_says() -> None:
    problem = distinct("dev", 1, 0, SpareRecipe(mix={"A": 1.0}))[0]
    good = problem.chain
    first, _, rest = good.partition("\n")
    bad = f"{first[:-1]}{(int(first[-1]) + 1) % 10}\n{rest}"
    pool = Pool(problem, [good, bad], np.array([1.0, 0.0]), [True, True])
    steps = len(pool.truth()[0])
    assert pool.truth() == [(True,) * steps, (False,) * steps]
    said = [[(True,) * (steps - 1) + (None,), (False,) * (steps - 1) + (None,)]]
    assert counts([pool], said).tolist() == [[steps - 1, 1, 1, steps - 1]]
    assert counts([pool], said, first=True).tolist() == [[1, 1, 0, steps - 1]]
    wrong, mean = f1(np.repeat(counts([pool], said), 3, 0))
    assert wrong.value == pytest.approx((steps - 1) / steps) == mean.value == wrong.low == wrong.high


def test_pools_hold_chains_that_mislead_a_check_of_ends() -> None:
    from random import Random

    some = distinct("dev", 6, 1, SpareRecipe())
    for problem in some:
        chain = misled(Random(1), problem)
        assert outcome(problem.prompt, chain) and not FAMILIES[problem.family].score(problem.prompt, chain)
    for pool in pools(some, policy("chainlm-2m"), 2, 2, 0):
        assert len(pool.chains) == 4 and sum(pool.ended) - sum(pool.right) >= 2
        assert [all(t) for t in pool.truth()] == [bool(r) for r in pool.right]
