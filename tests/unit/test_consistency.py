"""Contradictions between steps: what is flagged, what is not, and the metrics of repeated runs."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep import UsageError, verify
from anystep.bench import Report, repeated, runs_of
from anystep.bench.trial import Trial
from anystep.ledger import Cost
from anystep.tasks.chains import chains
from anystep.tasks.consistency import contradictions, steps_of
from anystep.tasks.contradicted import FORMS, contradicted
from anystep.verify.consistency import consistent
from models import chain_engine


def first(question: str, chain: str) -> int | None:
    found = contradictions(question, chain)
    return found[0].step if found else None


@pytest.mark.parametrize(
    ("question", "chain", "step"),
    [
        ("C1 9 4>37?", "9*4=36\n36+1=37.", None),
        ("C1 9 4>37?", "9*4=35\n35+1=36.", 1),  # false, which is another's business, but it is not what was asked
        ("C1 9 4>37?", "9*4=36\n35+1=36\n", 1),
        ("C1 9 4>37?", "9*4=36\n36+4=40\n", 1),
        ("C1 9 4>37?", "9+4=13.", 0),
        ("C1 9 4>37?", "nine", None),
        ("C1 9 4>37?", "nine.", 0),
        ("A48-2-9?", "48-2=46\n46-9=37.", None),
        ("A48-2-9?", "48-2=46\n45-9=36.", 1),
        ("A48-2-9?", "48-9=39\n", 0),
        ("A48-2-9?", "48-2=46.", 0),
        ("38 figs, 2 more plums, 1 nut less", "plums = figs + 2 = 38 + 2 = 40\nnuts = plums - 1 = 41 - 1 = 40", 1),
        ("There are 38 figs.", "plums = figs + 2 = 36 + 2 = 38", 0),
        ("What is x?", "x = 12\nx = 15", 1),
        ("Tom has 3 bags of 4.", "3 * 4 = 12\n12 / 2 = 6", 1),
        ("Tom has 3 bags of 4 and halves: 2.", "3 * 4 = 12\n12 / 2 = 6\nThe answer is 6.", None),
        ("Tom has 3 bags of 4 and halves: 2.", "3 * 4 = 12\n12 / 2 = 6\nThe answer is 12.", 2),
    ],
)
def test_where_a_chain_contradicts_itself(question: str, chain: str, step: int | None) -> None:
    assert first(question, chain) == step
    assert consistent(question, chain) == (1.0 if step is None else step / steps_of(question, chain))


@given(st.text(max_size=80), st.text(alphabet="C19 >?=+-*.\nxA", max_size=80))
def test_no_text_raises(question: str, chain: str) -> None:
    assert 0 <= consistent(question, chain) <= 1
    assert 0 <= consistent("C1 9 4>37?", chain) <= 1 and 0 <= consistent("A4-2?", chain) <= 1


def test_right_chains_have_no_contradiction_and_planted_ones_hold_step_by_step() -> None:
    for task in chains(60, "train", families="CA"):
        assert first(str(task.prompt), task.reference) is None
    told = contradicted(50, split="train")
    gate = verify.step_arithmetic()
    assert all(gate.holds(line) for t in told for line in t.chain.split("\n"))
    for form in FORMS:
        some = [t for t in told if t.form == form]
        assert len(some) == 100 and sum(t.contradicts for t in some) == 50
        assert all(first(t.question, t.chain) is None for t in some if not t.contradicts)
        assert sum(first(t.question, t.chain) is not None for t in some if t.contradicts) >= 42


def test_rewards_say_where_a_chain_stands() -> None:
    from anystep.ledger import Ledger, Limit
    from anystep.solve import process_for
    from anystep.testing import some_keys

    task = chains(1, "train", families="C")[0]
    engine = chain_engine()
    begun = process_for(task, engine).start(some_keys(3), Limit(Ledger(), "x")).states
    good, steps = task.reference, task.reference.split("\n")
    texts = [good, steps[0] + "\n", "1+1=3\n"]
    states = type(begun)(
        tuple((*t, *engine.tokenizer.encode(text)) for t, text in zip(begun.tokens, texts, strict=True)),
        begun.starts,
        begun.tokenizer,
    )
    assert verify.consistency(str(task.prompt))(states, Limit(Ledger(), "c")).values.tolist()[:2] == [1.0, 1.0]
    assert verify.step_arithmetic()(states, Limit(Ledger(), "g")).values.tolist() == [1.0, 1.0, 0.0]
    limit = Limit(Ledger(), "s")
    values = verify.standing_steps(0.5)(states, limit).values
    assert values[2] == 0.0 and limit.used.prompt > 0
    with pytest.raises(UsageError, match="a probability"):
        verify.standing_steps(1.5)


def test_four_readings_of_the_same_runs() -> None:
    read = repeated([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert (read.average.value, read.majority.value, read.all.value, read.any.value) == (0.5, 0.5, 0.25, 0.75)
    silent = repeated([[1, math.nan, math.nan], [1, 0, math.nan]])
    assert (silent.average.value, silent.majority.value, silent.all.value) == (1 / 3, 0.5, 0.0)
    assert "majority@3" in str(read)
    for wrong in ([], [[1], [1, 0]], [[]]):
        with pytest.raises(UsageError, match="as many for each"):
            repeated(wrong)


def test_stored_runs_read_back_problem_by_problem() -> None:
    def trial(item: str, seed: int, score: float, answer: str | None) -> Trial:
        return Trial("loop", 5, "loop()", item, seed, score, Cost(), "finished", answer)

    trials = (trial("a", 0, 1, "x"), trial("b", 0, 0, "y"), trial("a", 1, 0, None), trial("b", 1, 1, "x"))
    report = Report(trials, ("loop",))
    again = Report.from_json(json.dumps(json.loads(report.to_json())))
    for r in (report, again):
        (a, b) = runs_of(r, "loop", 5)
        assert a[0] == 1 and math.isnan(a[1]) and b == [0, 1]
    with pytest.raises(UsageError, match="loop at n=5"):
        runs_of(report, "loop", 1)
