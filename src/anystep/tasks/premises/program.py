"""Numbered statements and what they cite, read from text: `#7. (by #1 #2-4) Bob has 12 + 4 = 16 apples.`

One parser for premises and steps, for text that a program wrote (`#7(#1#2)b=12+4=16`) and for text that a model wrote:
lists (`#1, #3 and #4`), ranges (`#2-5`, `#2 to #5`), other brackets, `from` or `using` for `by`, a `Step 3:` before the
statement, citations behind it or in the sentence. Total: no text raises.

Source of the format: Ling et al., "Deductive Verification of Chain-of-Thought Reasoning" (NeurIPS 2023).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from anystep.tasks.numbers import MAX_TEXT, ascii_digits

MAX_RANGE = 64  # of a longer range only the ends are cited: nobody numbers so many statements

_TO = r"[ \t]*(?:-+|\.\.+|to|through)[ \t]*"
_AND = r"[ \t]*(?:,|;|&|\+|and)?[ \t]*(?:and[ \t]+)?"
_LEAD = r"(?:by|from|using|via|per|see|cf\.?|given|based[ \t]+on|because[ \t]+of)"
_WHAT = r"(?:(?:premises?|steps?|statements?|facts?)[ \t]*)?"


def _list(mark: str) -> str:
    """A list of numbers and ranges, each beginning with `mark`."""
    item = rf"{mark}[ \t]*\d{{1,6}}(?:{_TO}#?[ \t]*\d{{1,6}})?"
    return rf"(?P<list>{item}(?:{_AND}{item})*)"


_BRACKET = re.compile(
    rf"[(\[][ \t]*(?:(?P<lead>{_LEAD})\b[ \t]*:?[ \t]*)?{_WHAT}{_list('#?')}?[ \t]*[.:]?[ \t]*[)\]]", re.IGNORECASE
)
_PLAIN = re.compile(rf"\b(?P<lead>{_LEAD})[ \t]*:?[ \t]*{_WHAT}{_list('#')}[ \t]*,?", re.IGNORECASE)
_ITEMS = re.compile(rf"(\d{{1,6}})(?:{_TO}#?[ \t]*(\d{{1,6}}))?", re.IGNORECASE)
_LABEL = re.compile(r"#[ \t]*(\d{1,6})[ \t]*(?:\.(?!\d)|:|\))?[ \t]*")
_STEP = re.compile(r"step[ \t]+\d+[ \t]*[:.)][ \t]*", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One numbered statement: `text` without its label and citations, `raw` as it was written. A text without a label
    has number None."""

    number: int | None
    cites: tuple[int, ...]
    text: str
    raw: str = field(default="", compare=False)


def statements(text: str) -> tuple[Statement, ...]:
    """Every numbered statement of `text`, in order; what stands before the first label is one without a number.

    A statement begins with `#` and its number at the start of a line, after a semicolon or after a sentence, outside
    brackets, and runs to the next. Citations are in the order written, each once. The last 20,000 characters are read.
    """
    text = ascii_digits(text[-MAX_TEXT:])
    starts = [match.start() for match in _labels(text)]
    found = []
    for start, end in zip([0, *starts], [*starts, len(text)], strict=True):
        block = text[start:end].strip().rstrip(";").rstrip()
        if block:
            found.append(_statement(block))
    return tuple(found)


def _labels(text: str) -> Iterator[re.Match[str]]:
    """Labels that begin a statement."""
    listed = [match.span() for match in _PLAIN.finditer(text)]
    at, depth = 0, 0
    for match in _LABEL.finditer(text):
        for character in text[at : match.start()]:
            depth = 0 if character == "\n" else max(0, depth + (character in "([") - (character in ")]"))
        at = match.start()
        line = text[text.rfind("\n", 0, at) + 1 : at]
        before = line.rstrip(" \t*->")
        begins = not before or before[-1] == ";" or (before[-1] in ".!?" and line[-1] in " \t" and before[-2:] != "..")
        if begins and depth == 0 and not any(low <= at < high for low, high in listed):
            yield match


def _statement(block: str) -> Statement:
    label = _LABEL.match(block)
    rest = block[label.end() :] if label else block
    cited: list[int] = []

    def take(match: re.Match[str]) -> str:
        listed = match["list"] or ""
        if listed and "#" not in listed and match["lead"] is None:
            return match[0]  # a number in brackets is no citation
        cited.extend(_numbers(listed))
        return " "

    rest = _PLAIN.sub(take, _BRACKET.sub(take, rest))
    rest = _STEP.sub("", rest.strip(), count=1) if _STEP.match(rest.strip()) else rest
    text = re.sub(r"[ \t]+", " ", rest).strip(" \t\n:")
    text = re.sub(r" (?=[.,!?])", "", text)
    return Statement(int(label[1]) if label else None, tuple(dict.fromkeys(cited)), text, block)


def _numbers(listed: str) -> Iterator[int]:
    for match in _ITEMS.finditer(listed):
        low, high = int(match[1]), int(match[2] or match[1])
        low, high = min(low, high), max(low, high)
        yield from range(low, high + 1) if high - low <= MAX_RANGE else (low, high)


def premises(prompt: str) -> dict[int, Statement]:
    """The numbered premises of a prompt, a line each: its last run of them that begins with #1, so that worked examples
    before it are no premises. Empty where there is none; a number given twice keeps its first statement."""
    found: dict[int, Statement] = {}
    for one in statements(prompt):
        if one.number == 1:
            found = {}
        if one.number is not None:
            text, raw = one.text.partition("\n")[0], one.raw.partition("\n")[0]  # what follows is a chat template's
            found.setdefault(one.number, replace(one, text=text, raw=raw))
    return found
