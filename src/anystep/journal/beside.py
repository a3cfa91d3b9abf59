"""Large states stand beside a journal, in the folder `<journal>.states`, each in a file named by its own hash.

A file is complete before the line that names it is written, and is checked against its name when it is read. Names
that come from a journal are used only where they are hashes, so that none can lead out of the folder.
"""

from __future__ import annotations

import os
import re
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

from anystep.errors import JournalError
from anystep.journal.codec import Blob, inflated, inline, inlined
from anystep.journal.lines import synced

LARGE = 1 << 16  # bytes of compressed states, from which on they get a file of their own
_HASH = re.compile(r"[0-9a-f]{64}")


class Beside:
    """The states of the journal at `path`: within its lines where they are small, else beside it."""

    def __init__(self, path: Path) -> None:
        self.folder = path.with_name(path.name + ".states")

    def keep(self, data: bytes) -> Blob:
        """What stands for `data` in a record."""
        packed = zlib.compress(data, 1)
        if len(packed) < LARGE:
            return inline(data, packed)
        name = sha256(packed).hexdigest()
        try:
            self._write(name, packed)
        except OSError as error:
            raise JournalError(f"{self.folder}: cannot be written: {error.strerror}.") from None
        return {"bytes": len(data), "sha256": name}

    def _write(self, name: str, packed: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        self._check()
        if (self.folder / name).exists():
            return
        draft = self.folder / f"{name}.part"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.folder / name)
        synced(self.folder)

    def fetch(self, blob: Blob) -> bytes:
        """The inverse of `keep`. Raises JournalError for what is missing, damaged, or no name."""
        name: Any = blob.get("sha256")
        if name is None:
            return inlined(blob)
        if not isinstance(name, str) or not _HASH.fullmatch(name):
            raise JournalError(f"{name!r:.80} names no states")
        try:
            self._check()
            with open(os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                packed = file.read()
        except OSError as error:
            raise JournalError(f"{self.folder / name} is missing: {error.strerror}") from None
        if sha256(packed).hexdigest() != name:
            raise JournalError(f"{self.folder / name} is damaged: it is not what its name says")
        return inflated(packed, blob.get("bytes"))

    def _check(self) -> None:
        if self.folder.is_symlink():
            raise JournalError(f"{self.folder} is a link; states stand in a folder beside their journal")
