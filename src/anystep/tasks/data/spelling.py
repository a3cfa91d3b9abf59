"""One spelling for what a scorer calls equal: numbers, expressions, options; and what a text states as its answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction

from anystep.tasks.equivalence import extract_boxed, extract_choice
from anystep.tasks.numbers import MAX_TEXT, parse_number

_MARKED = re.compile(r"(?:^|\n)[*_#\s]*(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:|####)[*_]*", re.IGNORECASE)
_SAID = re.compile(r"\bthe\s+(?:final\s+)?answer\s+is:?\s", re.IGNORECASE)


def whole(text: str) -> str | None:
    """The text without white space around it, None where nothing is left."""
    return text.strip() or None


def stated(text: str) -> str | None:
    """What the text states as its answer: boxed, else after its last `Answer:`, `####` or `the answer is` up to the end
    of that line, else the whole text."""
    tail = text[-MAX_TEXT:]
    boxed = extract_boxed(tail)
    if boxed:
        return boxed
    for pattern in (_MARKED, _SAID):
        for match in reversed(list(pattern.finditer(tail))):
            said = tail[match.end() :].strip().split("\n", 1)[0].strip("*_` ")
            if said:
                return said.removesuffix(".") if pattern is _SAID else said
    return whole(text)


def plain(number: Fraction) -> str:
    """A number as people write it, the same for equal ones: 42, -0.5, 1/3."""
    bottom = number.denominator
    twos = (bottom & -bottom).bit_length() - 1
    rest, fives = bottom >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest > 1:
        return f"{number.numerator}/{bottom}"
    places = max(twos, fives)
    if not places:
        return str(number.numerator)
    digits = str(abs(number.numerator) * 10**places // bottom).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def expression(text: str) -> str:
    """A mathematical answer with its spelling evened out: numbers as numbers, no layout commands, no idle spaces."""
    plainer = re.sub(r"\\(?:left|right|displaystyle|[,;!: ])(?![A-Za-z])|\$", " ", text).strip(" ").rstrip(". \t\n")
    plainer = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", plainer)
    plainer = re.sub(r"(?<![A-Za-z\d])\s+|\s+(?![A-Za-z\d])", "", plainer)
    number = parse_number(plainer) if not re.search(r"[A-Za-z%]", plainer) else None
    return plainer if number is None else plain(number)


def chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names by letter or says in full; None for one that is not there."""
    labels = list(options)
    letter = extract_choice(answer)
    if letter is not None and ord(letter) - ord("A") < len(labels):
        return letter
    said = _folded(stated(answer) or "")
    found = [i for i, text in enumerate(options.values()) if _folded(text) == said]
    return chr(ord("A") + found[0]) if len(found) == 1 else None


def right_option(answer: str, options: Mapping[str, str], index: bool) -> str:
    """The letter of the right option: its text, its label, or, where it is a whole number, its place from 0."""
    labels = list(options)
    if not options:
        letter = extract_choice(answer)
        if letter is None:
            raise ValueError(f"the answer {answer[:40]!r} names no option, and there are no choices to find it in")
        return letter
    same = [i for i, text in enumerate(options.values()) if _folded(text) == _folded(answer)]
    place = same[0] if len(same) == 1 else labels.index(answer.strip()) if answer.strip() in labels else None
    if place is None and index and 0 <= int(answer) < len(labels):
        place = int(answer)
    letter = extract_choice(answer) if place is None else None
    if letter is not None and ord(letter) - ord("A") < len(labels):
        return letter
    if place is None:
        raise ValueError(f"the answer {answer[:40]!r} is none of the {len(labels)} choices")
    return chr(ord("A") + place)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).removesuffix(".")
