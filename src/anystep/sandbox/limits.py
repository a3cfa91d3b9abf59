"""What a program may use, and what a program is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath

from anystep.errors import UsageError

LEAST = 48 << 20  # bytes of address space that an idle interpreter already takes
MOST = 1 << 62, 1e9  # whole numbers, and seconds: what the kernel can be told


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use, all its calls together.

    cpu: seconds of processor, for each of its processes. wall: seconds of clock while it runs; the time between two
    calls of a session is free. memory: bytes of address space, for each process. output: bytes of standard output and
    error together, and of one returned value. scratch: bytes of files, and as large as one file may be. processes:
    child processes and threads beside the first. Raises UsageError for a figure that leaves nothing to run with.
    """

    cpu: float = 2.0
    wall: float = 5.0
    memory: int = 256 << 20
    output: int = 64 << 10
    scratch: int = 16 << 20
    processes: int = 0

    def __post_init__(self) -> None:
        least = {"memory": LEAST, "output": 0, "scratch": 0, "processes": 0}
        for name in (f.name for f in fields(self)):
            value, whole = getattr(self, name), name in least
            wanted = int if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, wanted):
                kind = "a whole number" if whole else "a number of seconds"
                raise UsageError(f"Limits({name}={value!r}): give {kind}, as in Limits(wall=5.0, memory=256 << 20).")
            if not math.isfinite(value) or value < least.get(name, 0) or (not whole and value <= 0):
                bound = f"{least[name]} or more" if whole else "more than 0"
                raise UsageError(f"Limits({name}={value!r}): {bound} is needed, as in Limits(wall=5.0).")
            if value > MOST[not whole]:
                raise UsageError(f"Limits({name}={value!r:.30}): at most {MOST[not whole]}, as in Limits(wall=5.0).")


@dataclass(frozen=True, slots=True)
class Program:
    """Python source with what it reads. `Program("print(input())", stdin="hello")`.

    files: what lies in its scratch folder, the working directory, when it starts: relative names to bytes. limits: its
    own, else the sandbox's. Raises UsageError for a name that leads out of the folder.
    """

    code: str
    stdin: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or not isinstance(self.stdin, str):
            raise UsageError('Program(code, stdin) takes text, as in Program("print(input())", stdin="hello").')
        for name, content in self.files.items():
            parts = PurePosixPath(name).parts if isinstance(name, str) else ()
            if not parts or ".." in parts or name.startswith("/") or "\0" in name:
                raise UsageError(
                    f'files={{{name!r}: ...}} leads out of scratch; call Program(code, files={{"a.txt": b""}}).'
                )
            if not isinstance(content, (bytes, bytearray)):
                raise UsageError(
                    f'files={{{name!r}: ...}} is not bytes; call Program(code, files={{"a.txt": b"text"}}).'
                )
