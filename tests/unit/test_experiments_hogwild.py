"""Row 153's experiment, small: a check for every clause, and those that hold at any size pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anystep.experiments import Result, hogwild
from anystep.language.accelerate.blocks import Blocks
from models import tiny_engine


@pytest.fixture(scope="module")
def small() -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hogwild, "TASK", "say {about}")  # in the tiny model's alphabet
        return hogwild.run(
            model=tiny_engine(scale=0.15),
            about=("a b", "c d"),
            tokens=40,
            timed=2,
            stop="e",
            progress=lambda line: None,
        )


def test_it_has_a_check_for_every_clause_and_all_but_the_timed_ones_pass(small: Result) -> None:
    assert small.row == 153 and Result.from_json(small.to_json()).name == "hogwild"
    timed = [check for check in small.checks if check.clause.startswith("CPU time")]
    others = [check for check in small.checks if check not in timed]
    assert len(timed) == 2 and len(others) == 11 and all(c.passed for c in others), [str(c) for c in others]


def test_rotating_wrongly_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[[Blocks, int], int] = Blocks.seen
    assert hogwild.turned("plain", {}, seed=0, rounds=8).passed
    monkeypatch.setattr(Blocks, "seen", lambda self, worker: right(self, worker) + 1)
    assert not hogwild.turned("plain", {}, seed=0, rounds=8).passed
