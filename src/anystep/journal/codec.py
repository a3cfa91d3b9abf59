"""A round as plain data that JSON can hold, and back: exact in every float, and nothing in it is ever executed.

`encode` and `decode` are inverse. What `decode` is given may come from anywhere: whatever is wrong with it is a
JournalError.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from anystep.calls import Asked, Reply, Verb
from anystep.errors import JournalError
from anystep.ledger import Cost
from anystep.process import Process, Scored, Status, Stepped
from anystep.told import Told

Blob = dict[str, Any]
MOST = 1 << 30  # bytes that one dump of states may hold
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_COST = {f.name: f.type for f in fields(Cost)}


def inline(data: bytes, packed: bytes | None = None) -> Blob:
    """Bytes within the record: compressed (packed, where that is done already), as text."""
    return {"bytes": len(data), "zlib": base64.b64encode(packed or zlib.compress(data, 1)).decode()}


def inlined(blob: Blob) -> bytes:
    """The inverse of `inline`."""
    try:
        return inflated(base64.b64decode(blob["zlib"], validate=True), blob["bytes"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise JournalError(f"states are unreadable: {error}") from None


def inflated(data: bytes, size: Any) -> bytes:
    """zlib's inverse, for data that must come to exactly `size` bytes: no more is ever made of it."""
    if not _whole(size) or not 0 <= size <= MOST:
        raise JournalError(f"states of {size!r} bytes are not credible")
    try:
        found = zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as error:
        raise JournalError(f"states are unreadable: {error}") from None
    if len(found) != size:
        raise JournalError(f"states are not the {size:,} bytes that were written")
    return found


def encode(told: Told, process: Process, keep: Callable[[bytes], Blob] = inline) -> dict[str, Any]:
    """`told` as a record of lists, texts and numbers; `decode(record, process)` gives it back, equal to the bit.

    process: the run's own, whose `dump` writes the states down, whoever made them (editors work on the same states).
    keep: where the dump's bytes go, and what stands for them in the record. Finished states bring what they say
    (`says`, row to answer and text), for readers that have no model; `decode` does not read it. Raises Unsupported for
    a process without `dump`.
    """
    replies = []
    for i, reply in enumerate(told.replies):
        replies.append(_scored(reply) if isinstance(reply, Scored) else _stepped(reply, process, keep))
        if told.asked:
            asked = told.asked[i]
            replies[-1] |= {"verb": asked.verb, "by": asked.by, "ids": list(asked.ids)}
    record: dict[str, Any] = {"replies": replies, "refused": told.refused, "seconds": number(told.seconds)}
    if told.costs is not None:
        record["costs"] = {by: cost_record(cost) for by, cost in told.costs.items()}
    return record | {"again": True} if told.again else record


def decode(record: Mapping[str, Any], process: Process, fetch: Callable[[Blob], bytes] = inlined) -> Told:
    """The round that `encode` wrote. fetch: the inverse of its `keep`. Raises JournalError for what it did not."""
    return parsed(record, lambda blob: loaded(process, fetch(blob)))


def parsed(record: Mapping[str, Any], load: Callable[[Blob], Any] | None = None) -> Told:
    """As `decode`, with states from `load`; without it a round without states (None), for readers without a model."""
    replies = _of(record, "replies", list)
    refused = record.get("refused")
    if refused is not None and not isinstance(refused, str):
        raise JournalError(f"refused is {refused!r:.60}, no text")
    asked = tuple(_asked(reply) for reply in replies if isinstance(reply, dict) and "verb" in reply)
    if asked and len(asked) != len(replies):
        raise JournalError("some replies do not say what they answer")
    seconds = float(floats([record.get("seconds")], 1)[0])
    found = tuple(_reply(reply, load) for reply in replies)
    costs = None if record.get("costs") is None else {by: cost_of(c) for by, c in _of(record, "costs", dict).items()}
    return Told(found, refused, seconds, asked, record.get("again") is True, costs)


def said(reply: Mapping[str, Any]) -> dict[int, tuple[str | None, str]]:
    """What the finished states of an encoded reply say: row to answer and text."""
    found = reply.get("says", {})
    if not isinstance(found, dict) or not isinstance(reply.get("status", []), list):
        raise JournalError("what its states say is no record")
    rows = _errors(dict.fromkeys(found, ""), len(reply.get("status", [])))
    for says in found.values():
        whole = isinstance(says, list) and len(says) == 2 and isinstance(says[1], str)
        if not whole or not (says[0] is None or isinstance(says[0], str)):
            raise JournalError("a state says something else than an answer and a text")
    return {row: (says[0], says[1]) for row, says in zip(rows, found.values(), strict=True)}


def _scored(reply: Scored) -> dict[str, Any]:
    return {"values": numbers(reply.values), "cost": cost_record(reply.cost)}


def _stepped(reply: Stepped, process: Process, keep: Callable[[bytes], Blob]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "states": keep(process.dump(reply.states)),
        "status": np.asarray(reply.status).tolist(),
        "logp": numbers(reply.logp),
        "logw": numbers(reply.logw),
        "cost": cost_record(reply.cost),
        "cut": None if reply.cut is None else np.asarray(reply.cut, dtype=bool).tolist(),
        "errors": {str(row): str(text) for row, text in reply.errors.items()},
        "parent": None if reply.parent is None else np.asarray(reply.parent).tolist(),
    }
    done = np.flatnonzero(np.asarray(reply.status) == Status.DONE)
    if len(done):
        finished = reply.states.take(done)
        answers, texts = process.answers(finished), process.texts(finished)
        record["says"] = {
            str(row): [None if answer is None else str(answer), text]
            for row, answer, text in zip(done.tolist(), answers, texts, strict=True)
        }
    return record


def _asked(reply: dict[str, Any]) -> Asked:
    verb, by, ids = reply["verb"], reply.get("by"), reply.get("ids")
    if verb not in get_args(Verb) or not isinstance(by, str):
        raise JournalError(f"a reply answers {verb!r:.40} of {by!r:.40}")
    return Asked(cast(Verb, verb), by, tuple(_whole_numbers(ids, None, "ids").tolist()))


def _reply(record: Any, load: Callable[[Blob], Any] | None) -> Reply:
    if not isinstance(record, dict):
        raise JournalError("a reply is no record")
    cost = cost_of(record.get("cost"))
    if "values" in record:
        return Scored(floats(record["values"], None), cost)
    blob = _of(record, "states", dict)
    states = None if load is None else load(blob)
    n = len(_of(record, "status", list)) if states is None else len(states)
    status = _whole_numbers(record.get("status"), n, "status")
    if n and status.max() > max(Status):
        raise JournalError("a status is none of live, done and failed")
    parent = record.get("parent")
    return Stepped(
        states,
        status.astype(np.int8),
        floats(record.get("logp"), n),
        floats(record.get("logw"), n),
        cost,
        _flags(record.get("cut"), n),
        _errors(record.get("errors"), n),
        None if parent is None else _whole_numbers(parent, n, "parent"),
    )


def loaded(process: Process, data: bytes) -> Any:
    """States from their dump. The bytes are not trusted: whatever reading them raises is a JournalError."""
    try:
        states = process.load(data)
        len(states)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise JournalError(f"{process.name} cannot read these states: {type(error).__name__}: {said}") from None
    return states


def cost_record(cost: Cost) -> dict[str, Any]:
    """A cost without its zeros."""
    found = {}
    for name, value in asdict(cost).items():
        if value:
            kind = _COST[name]
            found[name] = bool(value) if kind == "bool" else int(value) if kind == "int" else number(value)
    return found


def cost_of(record: Any) -> Cost:
    """The inverse of `cost_record`."""
    if not isinstance(record, dict):
        raise JournalError("a cost is no record")
    found: dict[str, Any] = {}
    for name, value in record.items():
        kind = _COST.get(name)
        if kind == "bool" and isinstance(value, bool) or kind == "int" and _whole(value):
            found[name] = value
        elif kind == "float":
            found[name] = float(floats([value], 1)[0])
        else:
            raise JournalError(f"a cost says {name!r:.40}: {value!r:.40}")
    return Cost(**found)


def number(x: Any) -> float | str:
    """A float as JSON has it; "nan", "inf" and "-inf" as words, for JSON has none."""
    x = float(x)
    return x if math.isfinite(x) else str(x)


def numbers(xs: Sequence[float] | NDArray[np.float64]) -> list[float | str]:
    return [number(x) for x in np.asarray(xs, dtype=np.float64).tolist()]


def floats(found: Any, n: int | None) -> NDArray[np.float64]:
    """The inverse of `numbers`, of length n where that is known."""
    if not isinstance(found, list) or (n is not None and len(found) != n):
        raise JournalError(f"{'some' if n is None else n} numbers are due, not {found!r:.60}")
    return np.array([_float(x) for x in found], dtype=np.float64)


def _float(x: Any) -> float:
    if isinstance(x, str) and x in _WORDS:
        return _WORDS[x]
    if isinstance(x, bool) or not isinstance(x, (int, float)) or abs(x) > sys.float_info.max:
        raise JournalError(f"{x!r:.40} is no number")
    return float(x)


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _whole_numbers(found: Any, n: int | None, what: str) -> NDArray[np.int64]:
    if not isinstance(found, list) or (n is not None and len(found) != n):
        raise JournalError(f"{what} is {found!r:.60}, not {'some' if n is None else n} whole numbers")
    if not all(_whole(x) and 0 <= x < 1 << 62 for x in found):
        raise JournalError(f"{what} holds something else than whole numbers")
    return np.array(found, dtype=np.int64)


def _flags(found: Any, n: int) -> NDArray[np.bool_] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != n or not all(isinstance(x, bool) for x in found):
        raise JournalError(f"cut is {found!r:.60}, not {n} times true or false")
    return np.array(found, dtype=bool)


def _errors(found: Any, n: int) -> dict[int, str]:
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise JournalError("errors are no texts by row")
    if not all(row.isascii() and row.isdigit() and len(row) < 19 and int(row) < n for row in found):
        raise JournalError("an error belongs to no row")
    return {int(row): text for row, text in found.items()}


def _of(record: Mapping[str, Any], name: str, kind: type) -> Any:
    found = record.get(name)
    if not isinstance(found, kind):
        raise JournalError(f"{name} is missing")
    return found
