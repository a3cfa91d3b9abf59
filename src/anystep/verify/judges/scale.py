"""The grades a judge may give: labels, what each is worth, and how they are read from text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.process import Floats

EXAMPLE = "scale={'Yes': 1.0, 'No': 0.0}"


@dataclass(frozen=True)
class Scale:
    """Labels and their grades in [0, 1]; no label is the beginning of another, in either case of letters."""

    labels: tuple[str, ...]
    grades: tuple[float, ...]

    @classmethod
    def of(cls, given: Scale | Mapping[str, float] | int) -> Scale:
        """From labels with grades, or a number n of grades: "1" (0.0) to "n" (1.0). UsageError for what is no scale."""
        if isinstance(given, Scale):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            if not 2 <= given <= 9:
                raise UsageError(f"scale={given!r}: grades '1' to 'n', n from 2 to 9 (one digit each), or {EXAMPLE}.")
            return cls(tuple(str(i + 1) for i in range(given)), tuple(i / (given - 1) for i in range(given)))
        if not isinstance(given, Mapping) or len(given) < 2:
            raise UsageError(
                f"scale={given!r:.60}: two labels or more with their grades, {EXAMPLE}, or a number of them."
            )
        return cls(tuple(given), tuple(given.values()))

    def __post_init__(self) -> None:
        for label, grade in zip(self.labels, self.grades, strict=True):
            number = isinstance(grade, (int, float)) and not isinstance(grade, bool) and math.isfinite(grade)
            if not number or not 0 <= grade <= 1:
                raise UsageError(f"scale: {label!r} is graded {grade!r}; a grade is a number from 0 to 1, {EXAMPLE}.")
            if not isinstance(label, str) or not label.strip() or label != label.strip():
                raise UsageError(f"scale: {label!r} is no label; a label is a word, {EXAMPLE}.")
        for one in self.labels:
            for other in self.labels:
                if one is not other and other.casefold().startswith(one.casefold()):
                    raise UsageError(f"scale: {one!r} begins {other!r}, so they cannot be told apart; {EXAMPLE}.")

    def named(self) -> str:
        """The labels as an instruction names them: `Yes or No`, `1, 2 or 3`."""
        return f"{', '.join(self.labels[:-1])} or {self.labels[-1]}"

    def begins(self, text: str) -> int | None:
        """Which label a first token's text is, or begins by two letters at least ("I" begins too much else), and no
        other; None where it begins none, or several."""
        said = text.strip()
        some = [i for i, label in enumerate(self.labels) if len(said) >= min(2, len(label))]
        found = [i for i in some if _cased(self.labels[i]).startswith(_cased(said, self.labels[i]))]
        return found[0] if len(found) == 1 else None

    def expected(self, mass: Floats) -> Floats:
        """The mean grade (n,) under the labels' shares of mass (n, labels); NaN where a row has none."""
        total = mass.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(total > 0, np.clip(mass @ np.array(self.grades) / total, 0.0, 1.0), np.nan))

    def means(
        self, asked: Sequence[Any], replies: Sequence[tuple[str, ...] | None], errors: Mapping[int, str]
    ) -> tuple[dict[Any, tuple[float, int]], dict[int, str]]:
        """For each thing asked about the mean grade of its replies, and how many could not be read; and why others have
        none. None for replies: some of them are missing."""
        read, lines = dict[Any, tuple[float, int]](), dict(errors)
        for row, (what, texts) in enumerate(zip(asked, replies, strict=True)):
            labels = [self.parsed(text) for text in texts or ()]
            grades = [self.grades[label] for label in labels if label is not None]
            if grades:
                read[what] = float(np.mean(grades)), len(labels) - len(grades)
            elif texts is not None:
                lines[row] = f"none of {len(labels)} replies ends with a verdict: {self.named()}"
        return read, lines

    def parsed(self, text: str) -> int | None:
        """The label of a written verdict: the last one behind `Verdict:`, else the text if it is a label and nothing
        more. None where there is none: it is not guessed from words in between."""
        labels = "|".join(map(re.escape, self.labels))
        behind = re.findall(rf"verdict[\s*_:\"'`(]*({labels})(?!\w)(?!\s*(?:or\b|,|/))", text, re.IGNORECASE)
        said = (behind[-1] if behind else text).strip(" \t\n*_.!\"'`()").casefold()
        return next((i for i, label in enumerate(self.labels) if label.casefold() == said), None)


def _cased(text: str, label: str | None = None) -> str:
    """A label of one letter is told by its case too, for "a" begins many replies."""
    return text if len(text if label is None else label) == 1 else text.casefold()


def forms(label: str) -> Sequence[str]:
    """How a reply may write a label: in its own case or others, after a space or not."""
    cases = dict.fromkeys((label, label.capitalize(), label.lower(), label.upper()) if len(label) > 1 else (label,))
    return [space + case for case in cases for space in ("", " ")]


TRUE_FALSE = Scale(("True", "False"), (1.0, 0.0))
