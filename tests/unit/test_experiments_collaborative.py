"""Row 121's experiment, small: its checks and reports measure what they name, and what it trains is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from anystep.experiments import Result, _collaboration, collaborative_cot_pot
from anystep.experiments.collaborative_cot_pot import DEFAULT, HEAD, Setting, asked, trainings
from anystep.language.train import verifiers
from anystep.language.train.reasoners import BASE, Reasoner, examples, reasoner_card, slipped
from anystep.language.train.verifiers import Training, graded
from anystep.tasks.quantities import CHAIN, PROGRAM, TRANSLATE, Quantities, judge, misread, planted, program_of, read

SMALL = Reasoner(tokens=800, modes=(60, 10, 30), misread=dict.fromkeys(BASE.misread, 0.5))
SETTING = Setting(
    {name: replace(r, start=SMALL, tokens=400) for name, r in DEFAULT.reasoners.items()},
    SMALL,
    SMALL,
    Training("outcome", ("A", "B", "C"), problems=6, each=2, groups=4, tokens=500),
)


def drawn(model: Any, some: Sequence[Quantities], n: int, independent: int, seed: int) -> list[_collaboration.Pool]:
    """Pools whose chains a careless book writes, with slips, in place of a model that learned from it."""
    pools, rng = [], Random(seed)
    for problem in some:
        chains = tuple(slipped(misread(problem, {"far": 0.7, "all": 0.7}, rng), rng, 0.1) for _ in range(n))
        pool = _collaboration.Pool(problem, chains, 0.0)
        pool.written = tuple(program_of(misread(problem, {"all": 0.7}, rng)) for _ in range(independent))
        pools.append(pool)
    return pools


def solved(model: Any, prompts: list[str], each: int, seed: int) -> list[Any]:
    found = []
    for prompt in prompts:
        chains = list(planted(read(prompt), Random(seed)).values())
        found.append(graded(prompt, chains, [judge(prompt, chain).right for chain in chains]))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(collaborative_cot_pot, "drawn", drawn)
        patch.setattr(verifiers, "solved", solved)
        return collaborative_cot_pot.run(setting=SETTING, items=3, audited=2, progress=lambda line: None)


def test_it_has_a_check_for_every_clause_and_the_exact_ones_pass(small: Result) -> None:
    assert small.row == 121 and len(small.checks) == 9
    named = (
        "majority@16",
        "majority of at least",
        "verifier alone at no fewer",
        "weighted vote",
        "program verifier alone",
        "several",
    )
    for words in named:
        assert any(words in check.clause for check in small.checks), words
    assert all(check.passed for check in small.checks[-2:]), [str(check) for check in small.checks[-2:]]
    assert [check.bound for check in small.checks[:7]] == [0.0, 0.0, 0.0, 0.02, 0.02, 0.02, 0.0]


def test_it_reports_every_arm_and_what_passes(small: Result) -> None:
    for words in (
        "oracle",
        "several, preference",
        "independent programs",
        "tokens then",
        "ECE",
        "lucky",
        "right against slips",
    ):
        assert words in small.notes, words


def test_no_verifier_has_seen_the_reasoner_it_is_tested_on_and_splits_do_not_meet() -> None:
    for unseen in "ABC":
        found = trainings(unseen, DEFAULT)
        assert len(found) == 2 + (unseen == "A") and HEAD in found
        assert all(unseen not in t.generators for t in found.values())
        sizes = {name: len(t.generators) for name, t in found.items()}
        assert {n for name, n in sizes.items() if name.startswith("several")} == {2}
        assert {n for name, n in sizes.items() if name.startswith("single")} == {1}
    kept = [set(map(str, asked(part, 60, 0, 0))) for part in ("train", "dev", "test")]
    assert not kept[0] & kept[1] and not kept[0] & kept[2] and not kept[1] & kept[2]
    assert set(map(str, asked("test", 60, 0, 0))) != set(map(str, asked("test", 60, 0, 1)))


def test_a_book_has_pages_of_each_kind_and_its_mistakes() -> None:
    pages = [page for page, _ in zip(examples(replace(BASE, modes=(40, 30, 30))), range(300), strict=False)]
    letters = [prompt[0] for prompt, _ in pages]
    assert all(letters.count(mode) > 50 for mode in (CHAIN, PROGRAM, TRANSLATE))
    right = [judge(p, c).right for p, c in pages if p[0] == CHAIN]
    assert 0.1 < np.mean(right) < 0.9
    assert all(c.endswith(".") and len(p + c) <= 96 for p, c in pages)
    sound = [page for page, _ in zip(examples(Reasoner(modes=(100, 0, 0))), range(50), strict=False)]
    assert all(judge(p, c).kind == "right" for p, c in sound)


def test_a_reasoner_is_trained_once_and_goes_on_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    said: list[str] = []
    more = replace(SMALL, start=SMALL, seed=1)
    path = reasoner_card(more, said.append)
    assert sum("training a reasoner" in line for line in said) == 2  # the one it goes on from, and it
    said.clear()
    assert reasoner_card(more, said.append) == path and not said
