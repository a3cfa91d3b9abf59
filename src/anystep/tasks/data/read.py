"""From a file to tasks: read its rows, find its fields, grade its answers, tell its flaws."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anystep.errors import UsageError
from anystep.tasks.data.fields import (
    Fields,
    answers_of,
    check_template,
    find_fields,
    options_of,
    prompt_of,
    value_of,
    written,
)
from anystep.tasks.data.rows import MEANT, Flaw, Row, read_rows
from anystep.tasks.data.scorers import Grader, grader
from anystep.tasks.task import Task

MOST_TOLD = 20
NO_ANSWER = "no answer: it runs unscored"
CHOOSING = "{question}\n\n{choices}\n\nAnswer with the letter of one option."


@dataclass(frozen=True)
class Data:
    """The problems of a file. unanswered: how many have no answer that the scorer could read; they stay unscored."""

    name: str
    tasks: tuple[Task, ...]
    flaws: tuple[Flaw, ...]
    fields: Fields
    grader: Grader = field(repr=False)
    unanswered: int = 0

    def told(self, most: int = MOST_TOLD) -> list[str]:
        """The flaws as `problems.jsonl:17: not JSON: ...`, at most so many, and how many more there are."""
        lines = [f"{self.name}:{f.line}: {f.text}" if f.line else f"{self.name}: {f.text}" for f in self.flaws]
        return (
            lines if len(lines) <= most else [*lines[:most], f"{self.name}: and {len(lines) - most:,} more like these"]
        )


def load_data(
    path: str | Path,
    scorer: str = "exact",
    *,
    question: str | None = None,
    answer: str | None = None,
    id: str | None = None,
    choices: str | None = None,
    template: str | None = None,
    extract: str | None = None,
    most: int | None = None,
) -> Data:
    """The problems of a .jsonl, .json (a list), .csv or .tsv file: `load_data("problems.jsonl", "numeric")`.

    scorer: exact, numeric, choice, math, or `python:module.function`, called with a model's text and the row. question,
    answer, id, choices: the fields to read where their names are not found, several separated by commas. template: what
    the question is wrapped in, such as "{question}\\nAnswer:". extract: how the answer is found in a text: answer,
    text, last-line, boxed, number, choice, math, `re:PATTERN` or `python:...`. most: only the first so many.

    A line that cannot be read is left out and told; a problem without an answer is kept and scores NaN. Ids are the
    id field's, else the line number. Raises UsageError where not one problem can be used.
    """
    path = Path(path).expanduser()
    marks = grader(scorer, extract)
    rows, flaws = read_rows(path)
    given = {"question": question, "answer": answer, "id": id, "choices": choices}
    fields = find_fields(rows, given)
    if template is not None:
        check_template(template, rows)
    tasks: list[Task] = []
    ids: dict[str, int] = {}
    for row in rows:
        if most is not None and len(tasks) == most:
            flaws = [f for f in flaws if f.line < row.line]
            break
        try:
            tasks.append(_task(row, fields, marks, template, ids, flaws))
        except ValueError as error:
            flaws.append(Flaw(row.line, f"{error}: left out"))
    flaws.sort(key=lambda f: f.line)
    if not tasks:
        found = Data(path.name, (), tuple(flaws), fields, marks).told(1)
        first = f"; {found[0]}" if found else ", it is empty"
        raise UsageError(f"nothing in {path.name} can be used{first}; a line is meant like {MEANT}.")
    unanswered = sum(not t.meta["references"] for t in tasks) if marks.own is None else 0
    return Data(
        path.name, tuple(tasks), tuple(_gathered(flaws, unanswered, len(tasks), fields)), fields, marks, unanswered
    )


def _gathered(flaws: Sequence[Flaw], unanswered: int, n: int, fields: Fields) -> list[Flaw]:
    """The flaws, with one line instead of thousands where no problem at all has an answer."""
    if unanswered == 0 or sum(f.text == NO_ANSWER for f in flaws) < n:
        return list(flaws)
    looked = f"in {', '.join(fields.answer)}" if fields.answer else "under the names that are known"
    told = Flaw(0, f"no problem has an answer ({looked}); all run unscored. Name its field with --answer-field")
    return [told, *(f for f in flaws if f.text != NO_ANSWER)]


def _task(
    row: Row, fields: Fields, marks: Grader, template: str | None, ids: dict[str, int], flaws: list[Flaw]
) -> Task:
    """One row as a task; ValueError, in words, where it has no question."""
    asked = value_of(row, fields.question)
    if asked is None:
        has = ", ".join(str(name) for name in list(row.values)[:6]) or "nothing"
        raise ValueError(f"no {' or '.join(fields.question) or 'question'} (it has {has})")
    prompt = prompt_of(asked)
    target = value_of(row, fields.answer)
    if target is None and not isinstance(prompt, str) and len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        prompt, target = prompt[:-1], prompt[-1]["content"]  # a recorded conversation: its last turn is the answer
    options = _options(row, fields, flaws)
    references = _references(row, target, options, marks, flaws)
    lettered = [f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(options.values())]
    wrap = template or (CHOOSING if options and marks.name == "choice" else None)
    if wrap is not None:
        prompt = written(wrap, prompt, lettered, row, (*fields.answer, "answer"))
    record = dict(row.values)
    own = value_of(row, fields.id)
    named = isinstance(own, (str, int, float)) and str(own).strip()
    name = _unique(str(own).strip()[:200] if named else str(row.line), row.line, ids, flaws)
    return Task(
        id=name,
        family="data",
        prompt=prompt,
        reference=" | ".join(references),
        extract=lambda text: marks.extract(text, options),
        score=lambda text: marks.score(text, references, options, record),
        meta={
            "question": _plain(asked),
            "references": references,
            "line": row.line,
            "digest": digest(prompt, record if marks.own is not None else references),
        },
    )


def digest(*content: Any) -> str:
    """A short name for what a problem says: another content, another name."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _options(row: Row, fields: Fields, flaws: list[Flaw]) -> dict[str, str]:
    found = value_of(row, fields.choices)
    if found is None:
        return {}
    try:
        return options_of(found)
    except ValueError as error:
        flaws.append(Flaw(row.line, str(error)))
        return {}


def _references(row: Row, target: Any, options: Mapping[str, str], marks: Grader, flaws: list[Flaw]) -> tuple[str, ...]:
    """The answers that count as right; none, and a flaw, where there is none that the scorer can read."""
    try:
        found = answers_of(target)
        if marks.own is not None:
            return found
        index = isinstance(target, int) and not isinstance(target, bool)
        read = tuple(dict.fromkeys(marks.reference(one, options, index) for one in found))
    except ValueError as error:
        flaws.append(Flaw(row.line, f"no answer to score by: {error}: it runs unscored"))
        return ()
    if not read:
        flaws.append(Flaw(row.line, NO_ANSWER))
    return read


def _unique(name: str, line: int, ids: dict[str, int], flaws: list[Flaw]) -> str:
    if name in ids:
        flaws.append(
            Flaw(line, f"its id {name[:40]!r} is that of line {ids[name]} too: called {name[:40]}:{line} here")
        )
        name = f"{name}:{line}"
        while name in ids:
            name += "'"
    ids[name] = line
    return name


def _plain(question: Any) -> str:
    """The question as text, for people and for rewards that read it: of messages, the last one's."""
    if isinstance(question, str):
        return question
    content = question[-1].get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(p.get("text", f"[{p.get('type')}]")) for p in content or ())
