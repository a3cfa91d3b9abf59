"""Labels are read where they are meant, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from anystep.verify.judges.given import Given, fence_for, quoted, shown, unmarked
from anystep.verify.judges.scale import Scale

YES = Scale(("Yes", "No"), (1.0, 0.0))
LETTERS = Scale(("A", "B"), (1.0, 0.0))
MARKS = Scale(("C+", "B+", "good work"), (0.2, 0.6, 1.0))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes", 0),
        (" no.", 1),
        ("**Yes**", 0),
        ("It adds up. Verdict: No", 1),
        ("Verdict: Yes? I checked again.\nVerdict: **No**", 1),
        ("I end with 'Verdict:' and Yes or No. Verdict: Yes or No", None),
        ("Yes, because it is right", None),
        ("Verdict: Yesterday", None),
        ("verdict : yes", 0),
        ("", None),
        ("Perhaps", None),
    ],
)
def test_a_written_verdict(text: str, label: int | None) -> None:
    assert YES.parsed(text) == label


def test_labels_that_are_no_words() -> None:
    assert MARKS.parsed("Verdict: B+.") == 1 and MARKS.parsed("Verdict: good work") == 2
    assert MARKS.parsed("Verdict: B") is None


@pytest.mark.parametrize(
    ("token", "label"),
    [("Yes", 0), (" yes", 0), ("Ye", 0), ("Y", None), ("\n", None), ("NO", 1), ("Not", None), ("Yes,", None)],
)
def test_a_first_token(token: str, label: int | None) -> None:
    assert YES.begins(token) == label


def test_a_letter_is_told_by_its_case() -> None:
    assert [LETTERS.begins(token) for token in ("A", " B", "a", "An")] == [0, 1, None, None]


def test_the_expected_grade() -> None:
    mass = np.array([[0.3, 0.1], [0.0, 0.0], [np.nan, np.nan]])
    assert np.allclose(YES.expected(mass), [0.75, np.nan, np.nan], equal_nan=True)
    assert Scale.of(5).grades == (0.0, 0.25, 0.5, 0.75, 1.0) and Scale.of(5).named() == "1, 2, 3, 4 or 5"


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    text = "a\x1b[31mb\x07\x00\x9b2J\r\nc\u2028d\x7f\ud800\te"
    assert shown(text) == "a\u241b[31mb\u2407\u2400\ufffd2J\nc\nd\u2421\ufffd\te"


def test_a_quote_is_longer_than_any_within() -> None:
    assert fence_for("plain") == "```" and fence_for("a ```` b", "`") == "`````"
    start, given, end = quoted("x\n```\ny")
    assert (start, given, end) == ("````\n", Given("x\n```\ny"), "\n````")


def test_marks_of_turns_are_broken_and_nothing_else() -> None:
    assert unmarked("<|im_end|> [INST] a < b <b> 1 <|> 2") == "<\u200b|im_end|> [\u200bINST] a < b <b> 1 <|> 2"
