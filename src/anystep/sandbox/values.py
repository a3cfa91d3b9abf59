"""Values as bytes: literals only, read within bounds, for bytes that a hostile program may have written.

One byte says the kind; text, bytes and whole numbers follow with their length, containers with their count. Unlike
pickle it can name no function, unlike `literal_eval` it has no grammar to exhaust, unlike JSON it keeps tuples, sets,
bytes and floats as they are.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any

DEEPEST = 64  # containers within containers
ALIKE = 64  # keys of one hash in one container: more is an attack on the table, not data
LENGTH = struct.Struct(">I")
DOUBLE = struct.Struct(">d")


class NotLiteral(ValueError):
    """The value has a part that is no literal, or the bytes are no value."""


def dumps(value: Any) -> bytes:
    """A literal as bytes: None, bool, int, float, str, bytes, list, tuple, dict, set, and their subclasses as those.

    Raises NotLiteral for any other type and beyond 64 containers within each other.
    """
    parts: list[bytes] = []
    _write(value, parts.append, 0)
    return b"".join(parts)


def loads(data: bytes) -> Any:
    """The value that `dumps` wrote. Raises NotLiteral for anything else, in time linear in the bytes."""
    value, end = _read(data, 0, 0)
    if end != len(data):
        raise NotLiteral(f"{len(data) - end} bytes after the value")
    return value


def _sized(kind: bytes, data: bytes) -> bytes:
    return kind + LENGTH.pack(len(data)) + data


def _write(value: Any, put: Callable[[bytes], None], depth: int) -> None:
    if value is None or value is True or value is False:
        put(b"N" if value is None else b"T" if value else b"F")
    elif isinstance(value, int):
        put(_sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)))
    elif isinstance(value, float):
        put(b"f" + DOUBLE.pack(value))
    elif isinstance(value, str):
        put(_sized(b"s", value.encode("utf-8", "surrogatepass")))
    elif isinstance(value, (bytes, bytearray)):
        put(_sized(b"b", bytes(value)))
    elif isinstance(value, dict):
        _write_many(b"d", len(value), (x for pair in value.items() for x in pair), put, depth)
    elif isinstance(value, (list, tuple, set, frozenset)):
        kind = b"l" if isinstance(value, list) else b"t" if isinstance(value, tuple) else b"e"
        _write_many(kind, len(value), value, put, depth)
    else:
        raise NotLiteral(f"a {type(value).__name__} is no literal")


def _write_many(kind: bytes, n: int, parts: Iterable[Any], put: Callable[[bytes], None], depth: int) -> None:
    if depth == DEEPEST:
        raise NotLiteral(f"more than {DEEPEST} containers within each other")
    put(kind + LENGTH.pack(n))
    for part in parts:
        _write(part, put, depth + 1)


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that starts at a byte, and where it ends."""
    kind = data[at : at + 1]
    at += 1
    if kind in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[kind], at
    if kind == b"f":
        return DOUBLE.unpack(_slice(data, at, 8))[0], at + 8
    if kind not in (b"i", b"s", b"b", b"l", b"t", b"e", b"d"):
        raise NotLiteral("no such kind of value")
    n, at = LENGTH.unpack(_slice(data, at, 4))[0], at + 4
    if kind in (b"i", b"s", b"b"):
        return _scalar(kind, _slice(data, at, n)), at + n
    if depth == DEEPEST:
        raise NotLiteral(f"more than {DEEPEST} containers within each other")
    parts: list[Any] = []
    for _ in range(2 * n if kind == b"d" else n):
        part, at = _read(data, at, depth + 1)
        parts.append(part)
    return _container(kind, parts), at


def _slice(data: bytes, at: int, n: int) -> bytes:
    if at + n > len(data):
        raise NotLiteral("cut short")
    return data[at : at + n]


def _scalar(kind: bytes, data: bytes) -> int | str | bytes:
    if kind == b"b":
        return data
    if kind == b"i":
        return int.from_bytes(data, "big", signed=True)
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as problem:
        raise NotLiteral("text that is not UTF-8") from problem


def _container(kind: bytes, parts: list[Any]) -> list[Any] | tuple[Any, ...] | set[Any] | dict[Any, Any]:
    if kind == b"l":
        return parts
    if kind == b"t":
        return tuple(parts)
    keys: list[Hashable] = parts if kind == b"e" else parts[::2]
    try:
        hashes = Counter(map(hash, keys))
    except TypeError as problem:
        raise NotLiteral(f"a key that cannot be one: {problem}") from problem
    if hashes and max(hashes.values()) > ALIKE:
        raise NotLiteral(f"more than {ALIKE} keys of one hash")
    return set(keys) if kind == b"e" else dict(zip(keys, parts[1::2], strict=True))
