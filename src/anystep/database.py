"""Opening a file of ours that is an SQLite database: made where it is new, refused where it is another's or damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from anystep.errors import UsageError

HEADER = b"SQLite format 3\0"


@dataclass(frozen=True)
class Kind:
    """What kind of file it is, and how its errors put it.

    application: what tells it from others' databases; format: its version; tables: the statements that make a new one.
    called: the word for it, "store"; without: what is said of a file that holds something else, "is no store of a
    comparison"; taken: of one that another process has, "is in use"; other: what to give in its place, "another
    --store"; example: such as "--store problems.anystep.db".
    """

    application: int
    format: int
    tables: str
    called: str
    without: str
    taken: str
    other: str
    example: str

    def open(self, path: Path, pragmas: Sequence[str], timeout: float, folder: bool = False) -> sqlite3.Connection:
        """A connection without implicit transactions, for any thread. timeout: seconds that a lock is waited for.
        folder: whether its folder is made where there is none.

        Raises UsageError for a file that is something else, of another format, damaged, or cannot be used.
        """
        try:
            if path.is_file() and path.stat().st_size:
                if not is_database(path):
                    raise self.foreign(path)
                with closing(sqlite3.connect(path, timeout=timeout)) as other:
                    self._is_one(path, other)  # first of all: a journal mode would be written into another's file
            if folder:
                path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise self.refused(path, error) from None
        try:
            self._begin(path, db, pragmas)
        except sqlite3.Error as error:
            db.close()
            raise self.refused(path, error) from None
        except BaseException:
            db.close()
            raise
        return db

    def _begin(self, path: Path, db: sqlite3.Connection, pragmas: Sequence[str]) -> None:
        for pragma in pragmas:
            db.execute(f"pragma {pragma}")
        if not self._is_one(path, db):
            db.execute("begin immediate")
            if not self._is_one(path, db):  # nobody else was faster
                for statement in self.tables.split(";"):
                    db.execute(statement)
                db.execute(f"pragma application_id = {self.application}")
                db.execute(f"pragma user_version = {self.format}")
            db.execute("commit")
        found = db.execute("pragma user_version").fetchone()[0]
        if found != self.format:
            raise UsageError(
                f"{path} has {self.called} format {found}; this version reads {self.format}: give {self.other}."
            )
        if (state := db.execute("pragma quick_check(1)").fetchone()[0]) != "ok":
            raise UsageError(f"{path} is damaged ({' '.join(str(state).split())[:80]}): give {self.other}.")

    def _is_one(self, path: Path, db: sqlite3.Connection) -> bool:
        """False for an empty file; UsageError for another's."""
        application = db.execute("pragma application_id").fetchone()[0]
        tables = db.execute("select count(*) from sqlite_master").fetchone()[0]
        if application == self.application:
            return True
        if tables or application:
            raise self.foreign(path)
        return False

    def foreign(self, path: Path) -> UsageError:
        """The error for a file that holds something else."""
        return UsageError(f"{path} {self.without}: give a new file, as in {self.example}.")

    def refused(self, path: Path, error: Exception) -> UsageError:
        """The error for what SQLite or the system refused."""
        said = str(error)
        if "locked" in said or "busy" in said:
            return UsageError(f"{path} {self.taken} by another process: wait for it, or give {self.other}.")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return UsageError(f"{path} is damaged, or {self.without} ({said}): give {self.other}.")
        return UsageError(f"cannot use {path} ({said}): give a file, as in {self.example}.")


def is_database(path: Path) -> bool:
    """Whether the file is an SQLite database."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER
