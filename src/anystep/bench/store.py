"""What was run is kept: a comparison's trials and the rounds of its unfinished runs, in one SQLite file.

Every ended run and every round of one under way is committed at once, so that after any crash a comparison goes on
where it was. A store belongs to one comparison: one model, one way of generating and of scoring. Items, methods, sizes
and seeds may be added; another content under a name that is there is refused. One process may have it open.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from anystep.bench.trial import Trial
from anystep.database import Kind, is_database
from anystep.errors import JournalError, UsageError
from anystep.journal import decode, encode
from anystep.process import Process
from anystep.told import Told

Key = tuple[str, int, str, int]  # label, n, item, seed

_TABLES = """
create table facts (name text primary key, value text not null) without rowid;
create table named (kind text, name text, content text not null, primary key (kind, name)) without rowid;
create table sessions (id integer primary key, request text not null, seconds real not null default 0);
create table trials (label text, n integer, item text, seed integer, session integer not null, record text not null,
  primary key (label, n, item, seed)) without rowid;
create table rounds (label text, n integer, item text, seed integer, round integer, record blob not null,
  primary key (label, n, item, seed, round)) without rowid;
"""
KIND = Kind(
    application=0x616E7973,  # "anys"
    format=1,
    tables=_TABLES,
    called="store",
    without="is no store of a comparison",
    taken="is in use",
    other="another --store",
    example="--store problems.anystep.db",
)
_ENDED = (
    "exists (select 1 from trials t where t.label = rounds.label and t.n = rounds.n and t.item = rounds.item"
    " and t.seed = rounds.seed)"
)
_MINE = "label = ? and n = ? and item = ? and seed = ?"


class Store:
    """An open store; `with Store(path) as store`. Safe in several threads, closed to other processes.

    Raises UsageError for a file that is no store, is damaged, cannot be written, or is open elsewhere.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.session = 0
        self._lock = threading.RLock()
        # Exclusive: the lock is the file's own, held as long as this process lives, and gone with it however it ends.
        # Synchronous normal: a crash of the process loses nothing, one of the machine seconds.
        self._db = KIND.open(
            self.path, ("locking_mode = exclusive", "journal_mode = wal", "synchronous = normal"), timeout=0
        )

    def _refused(self, error: Exception) -> UsageError:
        return KIND.refused(self.path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk afterwards, or nothing."""
        with self._lock:
            try:
                self._db.execute("begin immediate")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("rollback")
                    raise
                self._db.execute("commit")
            except sqlite3.Error as error:
                raise UsageError(f"cannot write to {self.path}: {error}; what was written before is kept.") from None

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._refused(error) from None

    # --- what it belongs to -----------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """A fact that was kept, None where it was not."""
        rows = self._read("select value from facts where name = ?", (name,))
        return json.loads(rows[0][0]) if rows else None

    def keep(self, name: str, value: Any) -> None:
        """Keep a fact, such as the settings that a command was given. Nothing secret belongs here."""
        with self._writing() as db:
            db.execute("insert or replace into facts values (?, ?)", (name, json.dumps(value)))

    def claim(self, same: Mapping[str, str], named: Mapping[str, Mapping[str, str]]) -> None:
        """Make it this comparison's store, or find that it is. same: what must be equal for all of it. named: of each
        kind (item, method), names and contents: new names are added, another content is refused with UsageError; but a
        method of which no run has ended is taken as it is now."""
        before = self.fact("same")
        if before is not None and before != dict(same):
            parts = [k for k in {**before, **same} if before.get(k) != same.get(k)]
            told = "; ".join(f"{k} {_brief(before.get(k))} there, {_brief(same.get(k))} here" for k in parts[:3])
            raise UsageError(f"{self.path} holds another comparison ({told}): give another --store.")
        for kind, contents in named.items():
            held = dict(self._read("select name, content from named where kind = ?", (kind,)))
            for name, content in contents.items():
                if held.get(name, content) != content and not (kind == "method" and self._dropped(name)):
                    raise UsageError(
                        f"{self.path} holds another {kind} called {name[:60]!r}: its content has changed; "
                        "give another --store."
                    )
        with self._writing() as db:
            db.execute("insert or replace into facts values ('same', ?)", (json.dumps(dict(same)),))
            rows = [(kind, name, content) for kind, contents in named.items() for name, content in contents.items()]
            db.executemany("insert or replace into named values (?, ?, ?)", rows)

    def _dropped(self, label: str) -> bool:
        """Forget the rounds of a method, unless one of its runs has ended."""
        if self._read("select 1 from trials where label = ? limit 1", (label,)):
            return False
        with self._writing() as db:
            db.execute("delete from rounds where label = ?", (label,))
        return True

    def begin(self, request: Any) -> None:
        """Go on with the last session if it asked for the same, else begin another: what that one has to run is what
        had not ended before it, however often it is interrupted."""
        text = json.dumps(request, sort_keys=True)
        last = self._read("select id, request from sessions order by id desc limit 1")
        if last and last[0][1] == text:
            self.session = last[0][0]
            return
        with self._writing() as db:
            db.execute(f"delete from rounds where {_ENDED}")
            self.session = (last[0][0] if last else 0) + 1
            db.execute("insert into sessions (id, request) values (?, ?)", (self.session, text))

    # --- what was run -----------------------------------------------------------------------------------------------

    def trials(self) -> dict[Key, tuple[int, Trial]]:
        """Every ended run with the session that it ended in."""
        found = self._read("select label, n, item, seed, session, record from trials")
        try:
            return {(a, b, c, d): (session, Trial.from_record(json.loads(text))) for a, b, c, d, session, text in found}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path} is damaged (a trial: {error}): give another --store.") from None

    def rounds(self, key: Key, process: Process) -> list[Told]:
        """The rounds of a run, in order. UsageError where they cannot be read."""
        rows = self._read(f"select record from rounds where {_MINE} order by round", key)
        try:
            return [decode(json.loads(zlib.decompress(record)), process) for (record,) in rows]
        except (JournalError, ValueError, zlib.error) as error:
            raise UsageError(f"{self.path} is damaged (a round of {key[0]} on {key[2]!r}: {error}).") from None

    def write(
        self,
        rounds: Iterable[tuple[Key, int, bytes]] = (),
        ended: Iterable[Trial] = (),
        drop: Iterable[Key] = (),
        seconds: float = 0.0,
    ) -> None:
        """Some runs' next rounds and the trials of those that ended, in one transaction; `seconds` of work took it.

        drop: runs whose rounds nothing will be replayed from any more.
        """
        rows = [(*key, at, record) for key, at, record in rounds]
        trials = [(t.label, t.n, t.item, t.seed, self.session, json.dumps(t.record(), allow_nan=False)) for t in ended]
        with self._writing() as db:
            db.executemany("insert or replace into rounds values (?, ?, ?, ?, ?, ?)", rows)
            db.executemany("insert or replace into trials values (?, ?, ?, ?, ?, ?)", trials)
            db.executemany(f"delete from rounds where {_MINE}", list(drop))
            db.execute("update sessions set seconds = seconds + ? where id = ?", (seconds, self.session))

    def tidy(self) -> None:
        """Drop the rounds of ended runs."""
        with self._writing() as db:
            db.execute(f"delete from rounds where {_ENDED}")

    def retry(self, reasons: Sequence[str]) -> int:
        """Forget the trials that ended for one of these reasons, so that they run again; how many there were."""
        with self._writing() as db:
            marks = ", ".join("?" * len(reasons))
            where = f"json_extract(record, '$.stopped_because') in ({marks})"
            n = int(db.execute(f"select count(*) from trials where {where}", tuple(reasons)).fetchone()[0])
            db.execute(f"delete from trials where {where}", tuple(reasons))
            return n

    @property
    def seconds(self) -> float:
        """The seconds of work that went into it, over all sessions and interruptions."""
        return float(self._read("select coalesce(sum(seconds), 0) from sessions")[0][0])


def is_store(path: Path) -> bool:
    """Whether the file is an SQLite database, as every store is."""
    try:
        return is_database(path)
    except OSError:
        return False


def packed(told: Told, process: Process) -> bytes:
    """A round as a store keeps it."""
    return zlib.compress(json.dumps(encode(told, process), allow_nan=False).encode(), 1)


def _brief(value: Any) -> str:
    return "none" if value in (None, "") else repr(value)[:60]
