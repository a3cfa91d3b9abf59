"""The page on verdicts says what was measured, and its benchmark measures what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from anystep.calibrate import pressure
from scripts import script


def test_the_page_s_tables_are_those_of_the_file() -> None:
    page = script("tools/verdicts_page.py")
    text = page.PAGE.read_text()
    assert text == page.render(text, json.loads(page.DATA.read_text())), "run `make docs`"
    assert set(page.TABLES) == set(name for _, name, _ in page.BLOCK.findall(text))


def test_every_verifier_of_the_file_can_be_measured_again() -> None:
    bench = script("benchmarks/verdicts.py")
    found = json.loads(bench.FILE.read_text())
    assert set(found) == set(bench.ENTRIES)
    for record in found.values():
        assert record["planted"]["unscored"] == 0 and record["planted"]["wrong"] > 300


def test_a_few_problems_give_figures_of_the_recorded_kind() -> None:
    """The benchmark in small, whose false positives lie where the recorded interval's neighbourhood is."""
    bench = script("benchmarks/verdicts.py")
    bench.PROBLEMS = 20
    found = bench.rounded(bench.ENTRIES["equations"]())["planted"]
    recorded = json.loads(bench.FILE.read_text())["equations"]["planted"]
    assert set(found) == set(recorded) and set(found["by_kind"]) == set(recorded["by_kind"])
    for kind, share in recorded["by_kind"].items():
        n = found["by_kind"][kind]["n"]
        spread = 5 * math.sqrt(max(share["value"] * (1 - share["value"]), 0.05) / n)
        assert found["by_kind"][kind]["value"] == pytest.approx(share["value"], abs=spread)


def test_winners_of_groups_agree_with_the_exact_figure() -> None:
    bench = script("benchmarks/verdicts.py")
    rng = np.random.default_rng(0)
    scores = [rng.random(64) for _ in range(300)]
    some = [bench.Pool(None, 0.0, [], (rng.random(64) < s).astype(float), []) for s in scores]
    said, right, problem = bench.winners(scores, some, 4)
    assert len(said) == 300 * 16 and problem.max() == 299
    (exact,) = pressure(scores, [p.right for p in some], sizes=(4,))
    assert exact.says.value == pytest.approx(said.mean(), abs=0.02)
    assert exact.right.value == pytest.approx(right.mean(), abs=0.03)
    x, y = bench.one_wrong(scores, some)
    assert len(x) == 600 and y.sum() == 300
