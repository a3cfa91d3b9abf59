"""Which field is the question, which the answer? By name, by one rule for the whole file, or as the caller says."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anystep.errors import UsageError
from anystep.tasks.data.rows import MEANT, Row

NAMES = {
    "question": ("question", "problem", "prompt", "messages", "query", "instruction", "input", "text"),
    "answer": (
        *("answer", "answers", "final_answer", "target", "expected", "gold", "reference", "label", "solution"),
        *("answerKey", "correct", "output", "completion", "response"),
    ),
    "id": ("id", "uid", "qid", "question_id", "problem_id", "task_id", "idx", "index"),
    "choices": ("choices", "options"),
}
Messages = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Fields:
    """The field names that are read, each a list in order of preference; a row's first that has a value counts."""

    question: tuple[str, ...]
    answer: tuple[str, ...]
    id: tuple[str, ...]
    choices: tuple[str, ...]


def find_fields(rows: Sequence[Row], given: Mapping[str, str | None]) -> Fields:
    """Which fields to read: those `given` (several separated by commas), else the first known name that at least half
    of the rows have, else the known name that most have. Raises UsageError where a given one is in no row."""
    counts = Counter(name for row in rows for name, value in row.values.items() if value is not None)
    found = {}
    for part, known in NAMES.items():
        if (asked := given.get(part)) is not None:
            names = tuple(name.strip() for name in asked.split(","))
            if rows and not any(name in counts for name in names):
                near = difflib.get_close_matches(names[0], counts, n=1, cutoff=0.3) or list(counts)[:1] or [known[0]]
                raise UsageError(f"no row has the field {asked!r}; write --{part}-field {near[0]}.")
            found[part] = names
            continue
        most = max((counts[name] for name in known), default=0)
        common = [name for name in known if counts[name] and 2 * counts[name] >= len(rows)]
        found[part] = tuple(common[:1] or [name for name in known if counts[name] == most > 0][:1])
    return Fields(**found)


def value_of(row: Row, names: Sequence[str]) -> Any:
    """The row's first value under these names that is there, None where there is none."""
    return next((row.values[name] for name in names if row.values.get(name) is not None), None)


def prompt_of(value: Any) -> str | Messages:
    """A question as text or as chat messages, parts such as images as they are; ValueError, in words, for another."""
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the question is empty")
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"the question is neither text nor messages, but {type(value).__name__} {str(value)[:40]!r}")
    for i, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {i} has no role; messages are like [{{'role': 'user', 'content': 'Hello'}}]")
        content = message.get("content")
        parts = isinstance(content, list) and all(
            isinstance(p, dict) and isinstance(p.get("type"), str) for p in content
        )
        if not (isinstance(content, str) or parts):
            raise ValueError(
                f"message {i} has no content; it is text, or parts such as {{'type': 'text', 'text': 'Hello'}}"
            )
    return tuple(value)


def answers_of(value: Any) -> tuple[str, ...]:
    """The answers that count as right, as text: one, several in a list, or none; ValueError, in words, for another."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(text for one in value for text in answers_of(one))
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, (int, float)):
        whole = isinstance(value, float) and abs(value) < 1e15 and value.is_integer()
        return (str(int(value)) if whole else repr(value),)
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    raise ValueError("the answer is an object; give text, a number, or a list of them")


def options_of(value: Any) -> dict[str, str]:
    """Labels and texts of the options to choose from: a list, {"A": ...}, or {"text": [...], "label": [...]}."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts, labels = value["text"], value.get("label")
        if isinstance(labels, list) and len(labels) == len(texts):
            return _told(zip(labels, texts, strict=True))
        return options_of(texts)
    if isinstance(value, dict):
        return _told(value.items())
    if isinstance(value, list) and value:
        return _told((chr(ord("A") + i), text) for i, text in enumerate(value[:26]))
    raise ValueError("the choices are no list")


def _told(pairs: Any) -> dict[str, str]:
    found = [(str(label).strip(), text) for label, text in pairs]
    if not found or len(found) > 26 or any(isinstance(text, (list, dict)) or text is None for _, text in found):
        raise ValueError('the choices are no list of 1 to 26 texts, like ["Paris", "Rome"]')
    return {label: str(text) for label, text in found}


def written(template: str, question: str | Messages, options: Sequence[str], row: Row, hidden: Sequence[str]) -> Any:
    """The question inside `template`: {question}, {choices} and the row's fields are filled in, all but the `hidden`
    ones, which hold the answer; anything else stays as it is. In messages the last text of the last one is wrapped."""
    if not isinstance(question, str):
        *before, last = question
        content = last["content"]
        if isinstance(content, str):
            return (*before, {**last, "content": written(template, content, options, row, hidden)})
        at = max((i for i, p in enumerate(content) if isinstance(p.get("text"), str)), default=None)
        if at is None:
            return question
        part = {**content[at], "text": written(template, content[at]["text"], options, row, hidden)}
        return (*before, {**last, "content": [*content[:at], part, *content[at + 1 :]]})
    known = {name: value for name, value in row.values.items() if isinstance(value, (str, int, float))}
    known = {name: value for name, value in known.items() if name not in hidden}
    known |= {"question": question, "choices": "\n".join(options)}
    return re.sub(r"\{(\w+)\}", lambda m: str(known.get(m[1], m[0])), template)


def check_template(template: str, rows: Sequence[Row]) -> None:
    """UsageError for a template that holds nothing of its row."""
    held = set(re.findall(r"\{(\w+)\}", template))
    if "question" not in held and not any(held & set(row.values) for row in rows[:100]):
        raise UsageError(f"--template {template[:60]!r} has no {{question}}; write '{{question}}\\nAnswer:' ({MEANT}).")
