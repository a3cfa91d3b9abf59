"""Files of ours that are databases: what is another's stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from anystep.bench import Store
from anystep.errors import UsageError
from anystep.search.pools import Pools


@pytest.mark.parametrize("opened", [Store, Pools])
def test_a_refused_database_is_not_written_to(tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    path = tmp_path / "another.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table theirs (x)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="give a new file"):
        opened(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]
