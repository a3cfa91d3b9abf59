"""The file of recorded pools: SQLite, every block of samples committed whole, so that a crash loses one block at most.

Many processes may read it while one writes.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anystep.database import Kind
from anystep.errors import UsageError

_TABLES = """
create table pools (id integer primary key, model text not null, item text not null, settings text not null,
  seed text not null, about text not null, bill text not null, unique (model, item, settings, seed));
create table blocks (pool integer, first integer, count integer not null, record blob not null, states blob,
  primary key (pool, first)) without rowid;
create table rewards (pool integer, label text, about text not null, alone text not null default '{}',
  primary key (pool, label));
create table values_ (pool integer, label text, first integer, count integer not null, record blob not null,
  primary key (pool, label, first)) without rowid;
"""


KIND = Kind(
    application=0x616E7970,  # "anyp"
    format=1,
    tables=_TABLES,
    called="pool",
    without="holds no recorded pools",
    taken="is being written",
    other="another file",
    example="Pools('samples.pools.db')",
)
PATIENCE = 10  # seconds that a reader waits for whoever writes


class File:
    """An open file of pools. Raises UsageError for one that is something else, is damaged, or cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._db = KIND.open(self.path, ("journal_mode = wal", "synchronous = normal"), PATIENCE, folder=True)

    def _refused(self, error: Exception) -> UsageError:
        return KIND.refused(self.path, error)

    def close(self) -> None:
        self._db.close()

    def run(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; one that writes needs the right to, see `writing`."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._refused(error) from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, which one process has at a time; `commit` keeps it. What was not committed is undone."""
        if self._db.in_transaction:
            raise UsageError(f"{self.path} is being recorded into already: open it once more, as in {KIND.example}.")
        try:
            self._db.execute("pragma busy_timeout = 0")
            try:
                self._db.execute("begin immediate")
                yield
            finally:
                if self._db.in_transaction:  # SQLite itself undoes what a full disk did not take
                    self._db.execute("rollback")
                self._db.execute(f"pragma busy_timeout = {1000 * PATIENCE}")
        except sqlite3.Error as error:
            raise self._refused(error) from None

    def commit(self) -> None:
        """All that was written is on disk afterwards; the right to write goes on."""
        self._db.execute("commit")
        self._db.execute("begin immediate")


def packed(record: Any) -> bytes:
    return zlib.compress(json.dumps(record, allow_nan=False, separators=(",", ":")).encode(), 6)


def unpacked(record: bytes, where: str) -> Any:
    """What `packed` packed; UsageError where it is damaged."""
    try:
        return json.loads(zlib.decompress(record))
    except (ValueError, zlib.error) as error:
        raise UsageError(f"{where} is damaged ({error}): record it in another file.") from None
