"""Row 158's experiment, small: its converter, its recipe, and checks that measure what they name."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from anystep import UsageError
from anystep.experiments import Result, infty_think
from anystep.language import load
from anystep.language.train import rounds
from anystep.language.train.rounds import Counted, RoundsRecipe, converted, packed, pairs_of, paragraphs
from anystep.tasks import iterate

TINY = RoundsRecipe(traces=4, tokens=1_000, counted=4, more=500)


def test_a_segment_never_overshoots() -> None:
    parts = ["a" * 5, "b" * 4, "c" * 9, "d", "e" * 20, "f"]
    segments = packed(parts, 10)
    assert segments == [["a" * 5, "b" * 4], ["c" * 9, "d"], ["e" * 20], ["f"]]
    assert all(len("".join(s)) <= 10 or len(s) == 1 for s in segments)
    with pytest.raises(UsageError, match="most=4096"):
        packed([], 10)


def test_prose_is_cut_where_a_paragraph_begins_anew() -> None:
    assert paragraphs("We add.\n\n3 + 4 = 7\n\nso it is.\n\nThen we stop.") == [
        "We add.\n\n3 + 4 = 7\n\nso it is.",
        "Then we stop.",
    ]


def test_a_summary_is_made_of_the_one_before_and_the_segment_alone() -> None:
    told: list[tuple[str | None, list[str]]] = []

    def summary(before: str | None, segment: object) -> str:
        told.append((before, list(segment)))  # type: ignore[call-overload]
        return f"{before or ''}{len(told)}"

    pairs = converted("Q", ["aa", "bb", "cc", "dd", "ee"], 4, summary)
    assert pairs == [("Q", "aabb<1>"), ("Q<1>", "ccdd<12>"), ("Q<12>", "ee")]
    assert told == [(None, ["aa", "bb"]), ("1", ["cc", "dd"])]
    assert converted("Q", ["aa"], 4, summary) == [("Q", "aa")]


def test_rounds_of_a_chain_are_the_chain_and_fit_the_window() -> None:
    rng = Random(3)
    for problem, _ in zip(iterate.problems("train", rng, every=7), range(30), strict=False):
        pairs = pairs_of(problem, "summary", 91)
        assert all(len(prompt + output) <= 117 for prompt, output in pairs)
        said = "".join(output.partition("<")[0] for _, output in pairs)
        assert said.rstrip("\n") + "." == problem.chain()
        form = Counted()
        assert [form.concluded(output) for _, output in pairs] == [False] * (len(pairs) - 1) + [True]
        for (_, output), (prompt, _) in zip(pairs, pairs[1:], strict=False):
            assert prompt == form.prompt(str(problem), form.summary("", output))
        assert iterate.scored(problem, pairs[-1][1]) == 1.0
        assert all(len(prompt + output) <= 128 for prompt, output in pairs_of(problem, "window", 91))


def test_no_rule_from_one_start_is_in_two_splits() -> None:
    keys = [
        {iterate.read(str(t.prompt)).key for t in iterate.iterated(100, split)} for split in ("train", "dev", "test")
    ]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    task = iterate.iterated(1, "train", least=5, most=5)[0]
    assert task.score(task.reference) == 1.0 and task.steps is not None and all(task.steps(task.reference))
    wrong = task.reference.replace("\n", "\n0", 1)
    assert not all(task.steps(wrong)) and task.score(task.reference[:-1]) == 0.0
    for call in (lambda: iterate.iterated(1, least=8, most=9, every=7), lambda: iterate.read("V*3+7")):
        with pytest.raises(UsageError):
            call()


def test_a_recipe_trains_once_and_its_experiment_checks_every_clause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    card = rounds.trained(TINY, say=lambda line: None)
    monkeypatch.setattr(rounds, "tune", None)
    assert rounds.trained(TINY) == card
    engine = load(card)
    monkeypatch.setattr(infty_think, "ROUNDS", 2)
    small = infty_think.run(
        progress=lambda line: None,
        engines={"summary": engine, "window": engine},
        long=iterate.iterated(2, "train", least=7, most=7),
        lengths=(7, 14),
        each=1,
        lines=2,
    )
    assert small.row == 158 and Result.from_json(small.to_json()).name == "infty_think"
    exact = [c for c in small.checks if c.op == "=="]
    assert len(exact) == 3
    for words in (
        "in rounds",
        "the twin's accuracy",
        "sliding",
        "vote",
        "teeth",
        "attended",
        "last segment",
        "truncation",
    ):
        assert any(words in c.clause for c in small.checks), words
    grown = {c.clause: c.value for c in small.checks}
    assert grown["the same in one piece"] == pytest.approx(1.9, abs=0.2)
