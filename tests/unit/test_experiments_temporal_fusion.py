"""Row 157's experiment, small: it has a check for each clause, and its counts are right."""

from __future__ import annotations

import numpy as np
import pytest

from anystep.experiments import Result, _schedules, temporal_fusion
from anystep.experiments._schedules import Arrival, Clock, fused, instances, static
from anystep.language.engine.tokenizer import Alphabet
from models import chain_engine

LENGTHS = (9, 3, 6, 3)


@pytest.fixture
def trace() -> list[Arrival]:
    """Four requests, one step apart, of known lengths."""
    return [Arrival(float(i), "ask" + "bcde"[i], n) for i, n in enumerate(LENGTHS)]


def test_passes_and_latencies_are_those_counted_by_hand(trace: list[Arrival]) -> None:
    made = _schedules.stand_in()
    ours = fused(made, trace, Clock(), 8)
    assert ours.passes == 9 and ours.latency.tolist() == [9, 3, 6, 3]  # each joins at once, and ends as if alone
    alone = instances(made, trace[:1], Clock(), 8)
    assert alone.passes == 9 and alone.latency.tolist() == [9]
    together = static(made, trace, Clock(), 8)
    assert together.passes == 9 + 6 and together.latency.tolist() == [9, 8 + 3, 7 + 6, 6 + 3]
    by_turns = instances(made, trace, Clock(), 8)
    assert by_turns.passes == sum(LENGTHS)
    assert [len(out) for out in by_turns.outputs] == list(
        LENGTHS
    ) and by_turns.outputs == ours.outputs == together.outputs


def test_a_bound_on_rows_binds_every_scheduler(trace: list[Arrival]) -> None:
    made = _schedules.stand_in()
    assert fused(made, trace, Clock(), 1).passes == static(made, trace, Clock(), 1).passes == sum(LENGTHS)
    assert fused(made, trace, Clock(), 2).passes < static(made, trace, Clock(), 2).passes


def test_idle_slots_are_seen(trace: list[Arrival]) -> None:
    made = _schedules.stand_in()
    ours, idle = (fused(made, trace, Clock(), 8, arrange=a) for a in (_schedules.window, _schedules.unordered))
    assert ours.uneven == ours.unpaid == 0 and idle.uneven > 0 and idle.unpaid > 0
    assert idle.outputs == ours.outputs


def test_a_clock_of_positions_charges_for_them(trace: list[Arrival]) -> None:
    made = _schedules.stand_in()
    one = fused(made, trace[:1], Clock(each=0.5), 8)
    assert one.latency.tolist() == [1 + 3 * 0.5 + 8]  # four positions of the prompt at once, then one by one


def test_every_clause_has_its_check_and_the_exact_ones_pass() -> None:
    engine = chain_engine()
    engine.tokenizer = _Letters(engine.tokenizer.symbols)  # type: ignore[attr-defined]
    result = temporal_fusion.run(model=engine, requests=8, traces=2, progress=lambda line: None)
    assert result.row == 157 and Result.from_json(result.to_json()).name == "temporal_fusion"
    exact = [c for c in result.checks if c.op == "=="]
    assert len(exact) == 5 and all(c.passed for c in exact), [str(c) for c in exact if not c.passed]
    for words in ("passes: weight passes", "CPU time: latency", "positions: latency", "brute force", "largest pass"):
        assert any(words in c.clause for c in result.checks), words


class _Letters(Alphabet):
    """ChainLM's tokenizer, for prompts that are not in its alphabet."""

    def encode(self, text: str) -> list[int]:
        return [1 + ord(c) % (self.size - 1) for c in text]


def test_the_trace_is_fixed_by_its_seed() -> None:
    one, again, other = (temporal_fusion.arrivals(seed, 32) for seed in (0, 0, 1))
    assert one == again != other
    assert np.mean(np.diff([a.at for a in one])) == pytest.approx(2.0, rel=0.5)
    assert min(a.longest for a in one) >= 4 and max(a.longest for a in one) <= 128
