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

from anystep.errors import UsageError

APPLICATION, FORMAT = 0x616E7970, 1  # "anyp"
HEADER = b"SQLite format 3\0"

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


class File:
    """An open file of pools. Raises UsageError for one that is something else, is damaged, or cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            if self.path.is_file() and self.path.stat().st_size and not _is_database(self.path):
                raise self._foreign()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from None
        try:
            self._open()
        except sqlite3.Error as error:
            self._db.close()
            raise self._refused(error) from None
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        if not self._look():
            self._db.execute("begin immediate")
            if not self._look():  # nobody else was faster
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"pragma application_id = {APPLICATION}")
                self._db.execute(f"pragma user_version = {FORMAT}")
            self._db.execute("commit")
        found = self._db.execute("pragma user_version").fetchone()[0]
        if found != FORMAT:
            raise UsageError(f"{self.path} has pool format {found}; this version reads {FORMAT}: give another file.")
        if (state := self._db.execute("pragma quick_check(1)").fetchone()[0]) != "ok":
            raise UsageError(f"{self.path} is damaged ({' '.join(str(state).split())[:80]}): give another file.")

    def _look(self) -> bool:
        """Whether there is a file of pools, False for an empty one; UsageError for another's."""
        application = self._db.execute("pragma application_id").fetchone()[0]
        tables = self._db.execute("select count(*) from sqlite_master").fetchone()[0]
        if application == APPLICATION:
            return True
        if tables or application:
            raise self._foreign()
        return False

    def _foreign(self) -> UsageError:
        return UsageError(f"{self.path} holds no recorded pools: give a new file, as in Pools('samples.pools.db').")

    def _refused(self, error: Exception) -> UsageError:
        said = str(error)
        if "locked" in said or "busy" in said:
            return UsageError(f"{self.path} is being written by another process: wait for it, or give another file.")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return UsageError(f"{self.path} is damaged or holds no pools ({said}): give another file.")
        return UsageError(f"cannot use {self.path} ({said}): give a file, as in Pools('samples.pools.db').")

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
        try:
            self._db.execute("pragma busy_timeout = 0")
            self._db.execute("begin immediate")
            try:
                yield
            finally:
                self._db.execute("rollback")
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


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER
