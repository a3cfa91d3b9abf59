"""How is an answer read and compared? Extraction, one spelling for what the scorer calls equal, and the verdict.

A vote counts spellings, so an extracted answer is written in one way: two answers that a scorer calls equal are one
vote wherever that can be had (a tolerance and symbolic equality cannot be: they join what no single spelling does).
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anystep.errors import UsageError
from anystep.tasks import symbolic
from anystep.tasks.data.own import PREFIX, own_function, source_digest
from anystep.tasks.data.spelling import chosen, expression, plain, right_option, stated, whole
from anystep.tasks.equivalence import (
    extract_boxed,
    extract_choice,
    extract_math,
    extract_number,
    last_line,
    scorer,
)
from anystep.tasks.numbers import parse_number

SCORERS = ("exact", "numeric", "choice", "math")


class Unscored(float):
    """NaN that says why."""

    why: str

    def __new__(cls, why: str) -> Unscored:
        made = super().__new__(cls, math.nan)
        made.why = why
        return made


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "answer": stated,
    "text": whole,
    "last-line": last_line,
    "boxed": extract_boxed,
    "number": extract_number,
    "choice": extract_choice,
    "math": extract_math,
}
_USUAL = {"exact": "answer", "numeric": "number", "choice": "choice", "math": "math", PREFIX: "answer"}


def extractor(name: str) -> Callable[[str], str | None]:
    """The extractor called so; `re:PATTERN` takes the last match's first group, `python:...` a function of the text."""
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    if name.startswith(PREFIX):
        return _tolerant(own_function(name))
    if name.startswith("re:"):
        try:
            pattern = re.compile(name.removeprefix("re:"))
        except re.error as error:
            raise UsageError(f"--extract {name!r}: {error}; write --extract 're:Answer: (.*)'.") from None
        return lambda text: next(
            (m[1] if pattern.groups else m[0] for m in reversed(list(pattern.finditer(text)))), None
        )
    raise UsageError(f"no extractor {name!r}; write one of {', '.join(EXTRACTORS)}, re:PATTERN or {PREFIX}my.function.")


def _tolerant(function: Callable[[str], Any]) -> Callable[[str], str | None]:
    def extract(text: str) -> str | None:
        try:
            found = function(text)
        except Exception:  # the user's function on a model's text: no answer could be read
            return None
        return None if found is None else str(found)

    return extract


@dataclass(frozen=True)
class Grader:
    """One scorer with its extractor: `extract` for votes, `reference` for the data's answers, `score` for both.

    key: what tells two graders apart: the names, and the source of a function of the user's own.
    """

    name: str
    reads: Callable[[str], str | None] = field(repr=False)
    key: str
    own: Callable[[str, dict[str, Any]], Any] | None = field(default=None, repr=False)
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    def extract(self, text: str, options: Mapping[str, str]) -> str | None:
        """The answer that the text gives, in its one spelling; None where it gives none."""
        found = self.reads(text)
        if self.name == "choice" and options:
            return chosen(text if found is None else found, options)
        return None if found is None else self.spelled(found)

    def spelled(self, answer: str) -> str | None:
        """The one spelling of an answer that was read out of a text."""
        if self.name == "numeric":
            number = parse_number(answer)
            if number is None and (within := extract_number(answer)) is not None:
                number = parse_number(within)
            return None if number is None else plain(number)
        if self.name == "choice":
            return extract_choice(answer)
        return expression(answer) if self.name == "math" else " ".join(unicodedata.normalize("NFC", answer).split())

    def reference(self, answer: str, options: Mapping[str, str], index: bool = False) -> str:
        """The data's answer in its one spelling; ValueError, in words, where the scorer cannot read it.

        index: it was a whole number, which counts the options from 0.
        """
        if self.name == "choice":
            return right_option(answer, options, index)
        if self.name == "math":
            return expression(extract_boxed(answer) or answer.rpartition("####")[2])
        found = self.spelled(answer)
        if found is None:
            raise ValueError(f"the answer {answer[:40]!r} is no number")
        return found

    def score(self, text: str, references: Sequence[str], options: Mapping[str, str], row: dict[str, Any]) -> float:
        """1.0 where the text's answer is one of `references`, else 0.0; NaN with its reason where none can be said."""
        if self.own is not None:
            with self.lock:  # items may be scored from several threads, which a user's function need not expect
                return _own_score(self.own, text, row)
        if not references:
            return Unscored("the data has no answer")
        answer, equal = self.extract(text, options), scorer(self.name).equal
        verdicts: list[float] = []
        for reference in references:
            try:
                verdicts.append(equal(answer, reference) if self.name != "choice" else float(answer == reference))
            except UsageError as error:
                verdicts.append(Unscored(str(error)))
        best = max((v for v in verdicts if not math.isnan(v)), default=math.nan)
        undecided = [v for v in verdicts if math.isnan(v)]
        if best == 1.0 or not undecided:
            return best
        return undecided[0] if isinstance(undecided[0], Unscored) else Unscored("the comparison could not be decided")


def grader(name: str, extract: str | None = None) -> Grader:
    """A scorer by name: exact, numeric, choice, math, or `python:module.function`; UsageError for another."""
    own = own_function(name) if name.startswith(PREFIX) else None
    if own is None and name not in SCORERS:
        raise UsageError(f"no scorer {name!r}; write --scorer {'|'.join(SCORERS)}|python:module.function.")
    if name == "math":
        symbolic.backend()  # said before any work where no algebra system is installed
    reads = extract or _USUAL[PREFIX if own is not None else name]
    read = extractor(reads)
    key = "/".join([name, reads, *(source_digest(f) for f in (own,) if f is not None)])
    if reads.startswith(PREFIX):
        key += "/" + source_digest(own_function(reads))
    return Grader(name, read, key, own)


def _own_score(function: Callable[[str, dict[str, Any]], Any], text: str, row: dict[str, Any]) -> float:
    try:
        found = function(text, dict(row))
        value = math.nan if found is None else float(found)
    except Exception as error:
        return Unscored(f"the scorer failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    if math.isnan(value):
        return Unscored("the scorer gave no score")
    return value if 0 <= value <= 1 else Unscored(f"the scorer gave {value:g}; a score is in [0, 1]")
