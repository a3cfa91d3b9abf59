"""An append-only file of records, a line each, that survives a crash and notices damage.

A line is a checksum, a space, JSON and a newline. The checksum (blake2b, 8 bytes) covers the one before it too, so a
line that is changed, missing or out of place is noticed. A last line without its newline was being written when the
machine stopped: it is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from anystep.errors import JournalError

LONGEST = 1 << 28  # bytes that a line may have
_DIGITS = 16
_BEGUN = re.compile(rb'[0-9a-f]{16} {"kind":"head"')


@dataclass(frozen=True)
class Line:
    """A record, its number in the file from 1, where the next one begins, and its checksum."""

    record: dict[str, Any]
    number: int
    end: int
    sum: str


START = Line({}, 0, 0, "")


def checksum(before: str, payload: bytes) -> str:
    return blake2b(before.encode() + payload, digest_size=_DIGITS // 2).hexdigest()


def lines(file: BinaryIO, path: Path, after: Line = START) -> Iterator[Line]:
    """The whole lines of `file` behind `after`. Raises JournalError for a damaged one, with its number."""
    file.seek(after.end)
    line = after
    while raw := file.readline(LONGEST + 1):
        if len(raw) > LONGEST:
            raise JournalError(f"{path}, line {line.number + 1}: longer than any record; this is no journal.")
        if not raw.endswith(b"\n"):
            return
        line = _read(raw, path, line)
        yield line


def _read(raw: bytes, path: Path, before: Line) -> Line:
    payload, number = raw[_DIGITS + 1 : -1], before.number + 1
    found = checksum(before.sum, payload)
    if raw[: _DIGITS + 1] != found.encode() + b" ":
        raise JournalError(
            f"{path}, line {number}: "
            + ("this is no journal." if number == 1 else "damaged: its checksum does not hold. Restore a copy.")
        )
    try:
        record = json.loads(payload)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise JournalError(f"{path}, line {number}: no record, though its checksum holds.")
    return Line(record, number, before.end + len(raw), found)


class Appender:
    """Appends to the file at `path`, alone: a lock that the system frees when this process ends keeps others out.

    On opening, `seen` is shown every line, and a torn last one is cut off. `last` is the file's last line. Raises
    JournalError for a file that is damaged, is no journal, cannot be opened, or is being written by someone else.
    """

    def __init__(self, path: Path, seen: Callable[[Line], None] = lambda line: None) -> None:
        self.path = path
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644), "r+b", 0)
        except OSError as error:
            raise JournalError(f"{path}: cannot be opened as a journal: {error.strerror}.") from None
        try:
            self._take(seen)
        except BaseException:
            self._file.close()
            raise

    def _take(self, seen: Callable[[Line], None]) -> None:
        number = self._file.fileno()
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise JournalError(f"{self.path}: a journal is a file of its own.")
        if not _locks(number):
            raise JournalError(
                f"{self.path}: another process is writing this journal; wait for it, or look with "
                f"anystep view {self.path}."
            )
        self.last = START
        with self.path.open("rb") as file:
            for line in lines(file, self.path):
                seen(line)
                self.last = Line({}, line.number, line.end, line.sum)
        size = os.fstat(number).st_size
        if size and self.last.number == 0 and not self._begun():
            raise JournalError(f"{self.path}: holds no whole line: no journal, or one cut off at once. Name another.")
        if size > self.last.end:
            os.ftruncate(number, self.last.end)
        if size == 0:
            synced(self.path.parent)  # so that the name survives as well

    def _begun(self) -> bool:
        """Whether a file without a whole line is a journal whose very first was being written: nothing is lost then."""
        with self.path.open("rb") as file:
            return _BEGUN.match(file.read(64)) is not None

    @property
    def closed(self) -> bool:
        return self._file.closed

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on the disk. Raises JournalError where it cannot be written; what was
        written before stays as it was."""
        if self.closed:
            raise JournalError(f"{self.path}: this journal was closed; open it again to go on.")
        payload = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
        found = checksum(self.last.sum, payload)
        data = found.encode() + b" " + payload + b"\n"
        try:
            _write(self._file.fileno(), data)
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self.last.end)
            self.close()
            raise JournalError(f"{self.path}: cannot be written: {error.strerror}; the run can be resumed.") from None
        self.last = Line({}, self.last.number + 1, self.last.end + len(data), found)

    def close(self) -> None:
        self._file.close()


def locked(path: Path) -> bool:
    """Whether a process is writing the journal at `path` now."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _locks(file: int) -> bool:
    """Take the lock; a reader that looks who has it holds it for an instant, so that once is not enough."""
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.005)
    return False


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def synced(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
