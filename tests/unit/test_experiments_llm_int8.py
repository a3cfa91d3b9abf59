"""Row 76's experiment, small, on ChainLM: its checks measure what they name."""

from __future__ import annotations

import pytest

from anystep.experiments import Result, llm_int8
from anystep.experiments._prose import calibration, held_out


@pytest.fixture(scope="module")
def small() -> Result:
    return llm_int8.run(models=("chainlm-2m",), windows=2, few=1, size=48, progress=lambda line: None)


@pytest.fixture(autouse=True, scope="module")
def chains():
    """ChainLM reads chains, not prose."""
    texts = [f"{a}+{b}=" * 40 for a in range(2, 9) for b in range(2, 9)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm_int8, "held_out", lambda encode, n, size: [list(encode(t))[:size] for t in texts[:n]])
        patch.setattr(llm_int8, "calibration", lambda encode, size: [list(encode(t))[:size] for t in texts[-4:]])
        yield


def test_it_has_a_check_for_every_clause_and_those_that_are_exact_pass(small: Result) -> None:
    assert small.row == 76 and Result.from_json(small.to_json()).name == "llm_int8"
    (product,) = [c for c in small.checks if "int32" in c.clause]
    assert product.passed and product.value == 0
    for words in ("bytes of linear", "share of", "planting moves", "vector-wise", "by row, zero point: perplexity"):
        assert any(words in c.clause for c in small.checks), words
    share, memory = (next(c.value for c in small.checks if words in c.clause) for words in ("share of", "bytes of"))
    assert 0.9 < share < 1 and 0.5 < memory < 0.56
    assert next(c.value for c in small.checks if "planting moves" in c.clause) < 1e-3
    assert "columns by call, dequantised" in small.notes and "threshold 6" in small.notes


def test_the_texts_are_as_long_as_asked_and_those_for_calibration_are_others() -> None:
    texts = held_out(lambda text: list(text.encode()), 12, 500)
    apart = calibration(lambda text: list(text.encode()), 500)
    assert [len(t) for t in texts] == [500] * 12 and [len(t) for t in apart] == [500] * 4
    assert len({tuple(t) for t in texts + apart}) == 16
