"""What stands in the file: its rows as objects, and what is wrong with it by line. Total on any bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystep.errors import UsageError

MEANT = '{"question": "What is 2 + 2?", "answer": "4"}'
LARGEST = 1 << 26  # bytes of one line; a longer one is no problem that a model could read
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Flaw:
    """Something wrong with a line (from 1; 0 for the whole file), said in words."""

    line: int
    text: str


@dataclass(frozen=True)
class Row:
    """One object of the file, by the line it begins on; in a JSON list, by its place from 1."""

    line: int
    values: dict[str, Any]


def read_rows(path: Path) -> tuple[list[Row], list[Flaw]]:
    """The rows of a .jsonl, .json (a list) or .csv/.tsv file, and what could not be read.

    Lines end at a line feed alone. A lone surrogate, which no model can be sent, becomes U+FFFD and is told. Raises
    UsageError where the file cannot be opened or is no UTF-8 text at all.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise UsageError(f"{path.name} is UTF-16; save it as UTF-8, one object a line, like {MEANT}.")
            file.seek(3 if head[:3] == b"\xef\xbb\xbf" else 0)
            if path.suffix.lower() in (".csv", ".tsv"):
                found = list(_csv(file.read(), "\t" if path.suffix.lower() == ".tsv" else ","))
            else:
                found = _listed(file.read()) if _is_list(file) else list(_lines(file))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a file of lines like {MEANT}.") from None
    rows, flaws = [r for r in found if isinstance(r, Row)], [f for f in found if isinstance(f, Flaw)]
    return [_encodable(row, flaws) for row in rows], flaws


def _is_list(file: io.BufferedReader) -> bool:
    """Whether the file is one JSON list over several objects, as its first character says."""
    at = file.tell()
    first = file.read(1 << 16).lstrip()[:1]
    file.seek(at)
    return first == b"["


def _lines(file: io.BufferedReader) -> Iterator[Row | Flaw]:
    line, blank = 0, []
    while raw := file.readline(LARGEST + 1):
        line += 1
        if len(raw) > LARGEST:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LARGEST)
            yield Flaw(line, f"longer than {LARGEST >> 20} MB: left out")
            continue
        if not raw.strip():
            blank.append(line)
            continue
        yield from (Flaw(number, "a blank line") for number in blank)  # those at the end of a file are no flaw
        blank = []
        yield _object(line, raw)


def _object(line: int, raw: bytes) -> Row | Flaw:
    value = _json(raw)
    if isinstance(value, ValueError):
        return Flaw(line, str(value))
    return Row(line, value) if isinstance(value, dict) else Flaw(line, f"not an object but {_kind(value)}: left out")


def _listed(raw: bytes) -> list[Row | Flaw]:
    value = _json(raw)
    if isinstance(value, ValueError):
        lines = list(_lines(io.BufferedReader(io.BytesIO(raw))))
        return lines if any(isinstance(line, Row) for line in lines) else [Flaw(0, str(value))]
    if not isinstance(value, list):
        return [Flaw(0, f"not a list but {_kind(value)}")]
    return [
        Row(i, v) if isinstance(v, dict) else Flaw(i, f"not an object but {_kind(v)}: left out")
        for i, v in enumerate(value, 1)
    ]


def _json(raw: bytes) -> Any:
    """The value, or a ValueError that says why there is none."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 at byte {error.start}: left out")
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg} at column {error.pos + 1}: left out")
    except RecursionError:
        return ValueError("not readable: nested too deep: left out")
    except ValueError as error:  # NaN, and whole numbers of thousands of digits
        return ValueError(f"not JSON: {str(error).partition(';')[0]}: left out")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON value")


def _csv(raw: bytes, delimiter: str) -> Iterator[Row | Flaw]:
    text = raw.decode(errors="surrogateescape")
    before = csv.field_size_limit(LARGEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        head: list[str] | None = None
        begins = 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Flaw(begins, f"not CSV: {error}: left out")
                return
            if head is None:
                head = [cell.strip() for cell in cells]
            elif any(cells):
                yield _record(begins, head, cells)
            begins = reader.line_num + 1
    finally:
        csv.field_size_limit(before)


def _record(line: int, head: list[str], cells: list[str]) -> Row | Flaw:
    if len(cells) > len(head):
        return Flaw(line, f"{len(cells)} cells under {len(head)} headings: left out")
    if any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
        return Flaw(line, "not UTF-8: left out")
    return Row(line, dict(zip(head, cells, strict=False)))


def _encodable(row: Row, flaws: list[Flaw]) -> Row:
    found = 0

    def mended(value: Any) -> Any:
        nonlocal found
        if isinstance(value, str):
            text, n = _SURROGATE.subn("\ufffd", value)
            found += n
            return text
        if isinstance(value, list):
            return [mended(v) for v in value]
        if isinstance(value, dict):
            return {mended(k): mended(v) for k, v in value.items()}
        return value

    values = mended(row.values)
    if found:
        flaws.append(Flaw(row.line, f"{found} lone surrogate{'s' if found > 1 else ''}, read as U+FFFD"))
    return Row(row.line, values)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]
