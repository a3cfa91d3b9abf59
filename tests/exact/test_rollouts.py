"""Labels from rollouts: which prefixes are rolled out, what is counted, and labels that are certain."""

from __future__ import annotations

from typing import Any

import pytest

from anystep.language.train import rollouts
from anystep.language.train.rollouts import heads, rolled_out
from anystep.tasks.chains import Alphabet

PROMPT, GOOD = "A48-2-9+5?", "48-2=46\n46-9=37\n37+5=42."
WRONG = "48-2=46\n46-9=36\n36+5=41."


def test_heads_are_the_unfinished_prefixes() -> None:
    assert heads(GOOD) == ["48-2=46\n", "48-2=46\n46-9=37\n"] and heads("48.") == [] and heads("48-2=46\n") == []


@pytest.mark.parametrize(("rule", "expected"), [("any", True), ("most", False)])
def test_a_step_is_right_where_rollouts_end_right(monkeypatch: Any, rule: Any, expected: bool) -> None:
    """The sampler is played: from the shared prefix one of three rollouts ends right, from the others none or all."""
    asked: list[str] = []

    def played(model: Any, alphabet: Any, prompts: list[str], n: int, seed: int, rows: int) -> list[list[str]]:
        asked.extend(prompts)
        ends = {"48-2=46\n": ["?=42.", "?=1.", "?=2."], "46-9=37\n": ["37+5=42."] * 3, "46-9=36\n": ["36+5=41."] * 3}
        return [next(v for k, v in ends.items() if p.endswith(k)) for p in prompts]

    monkeypatch.setattr(rollouts, "sample_many", played)
    found = rolled_out(None, Alphabet(), [(PROMPT, [GOOD, WRONG, GOOD])], 3, rule)  # type: ignore[arg-type]
    assert found.labels == [[(expected, True, True), (expected, False, False), (expected, True, True)]]
    assert len(asked) == 3  # the prefix that all share is rolled out once
    assert found.read == sum(map(len, asked))
    assert found.written == len("?=42.?=1.?=2.") + 6 * len("37+5=42.") and found.tokens == found.read + found.written
