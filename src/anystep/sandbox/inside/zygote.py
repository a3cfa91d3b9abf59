"""The process that programs are forked from: a Python that has started already, inside the boundary.

It never reads a request. When one arrives it forks a supervisor, which reads it, starts the program and answers; so
every program starts from the same state, and finds nothing of those before it.

Run as a script, by path: the package is then its folder alone, without `anystep/__init__.py` and what that imports.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

WARM = (  # what most programs import; and those with shared libraries, which no program will find in its root
    "_hashlib _sqlite3 _uuid abc array ast base64 binascii bisect bz2 calendar cmath collections contextlib copy "
    "ctypes dataclasses datetime decimal enum fractions functools hashlib heapq inspect io itertools json keyword "
    "lzma math numbers operator os pathlib pickle queue random re select signal socket statistics string struct "
    "sys tempfile textwrap threading time traceback types typing unicodedata uuid warnings weakref zlib"
)


def package() -> None:
    """Make `anystep.sandbox` importable as bare folders."""
    here = Path(__file__).resolve().parent.parent
    for name, folder in (("anystep", here.parent), ("anystep.sandbox", here)):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


def library() -> list[str]:
    """The folders and files of the standard library: all there is on the path of a Python that imports no site."""
    return [path for path in sys.path if os.path.exists(path)]


def warm() -> None:
    for name in WARM.split():
        with contextlib.suppress(ImportError):  # left out of this build of Python
            importlib.import_module(name)
    atexit._clear()  # what the library registered is not for programs to run
    gc.collect()
    gc.freeze()  # forks share what is never looked at again


def serve(control: int, parent: int, fork: Callable[[], int], attend: Callable[[], NoReturn]) -> NoReturn:
    """Fork a supervisor for each request until whoever asks has gone."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    if parent >= 0:
        poller.register(parent, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if parent in ready or ready[control] & (select.POLLHUP | select.POLLERR):
            os._exit(0)
        pid = fork()
        if pid == 0:
            attend()
        _, status = os.waitpid(pid, 0)
        if status:  # the supervisor was killed, or failed: the stream may hold half an answer
            end_orphans()
            os._exit(1)


def end_orphans() -> None:
    """End what a supervisor that was killed leaves behind: its program dies with it, but not the program's children.

    They have come to us, if we adopt orphans, and none of them can leave the program's group.
    """
    with contextlib.suppress(ChildProcessError):
        while hasattr(os, "waitid"):
            over = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if over is not None:  # not reaped yet, so that its number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(over.si_pid, signal.SIGKILL)
                os.waitpid(over.si_pid, 0)


def keep(folder: str) -> None:
    """Stay outside while a child goes on as the zygote, and clear its folder when it has ended."""
    from anystep.sandbox.inside.confine import end_with
    from anystep.sandbox.inside.scratch import clear

    own = os.getpid()
    child = os.fork()
    if child == 0:
        end_with(own)
        return
    os.closerange(0, 1024)  # whoever asks must see the zygote's end, not ours
    os.waitpid(child, 0)
    clear(folder)
    os._exit(0)


def main() -> NoReturn:
    """Arguments: the line to whoever asks, their process (a descriptor or -1), the boundary, and a folder for it."""
    package()
    from anystep.sandbox import values, wire
    from anystep.sandbox.inside.attend import attend  # all of ours before the boundary, behind which no file is ours
    from anystep.sandbox.inside.confine import adopt_orphans, end_with
    from anystep.sandbox.inside.rooms import ROOMS

    control, parent, room, folder = int(sys.argv[1]), int(sys.argv[2]), ROOMS[sys.argv[3]](), sys.argv[4]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us; they will close the stream
    os.umask(0o022)
    if room.keeper:
        keep(folder)
    above = os.getppid()
    try:
        warm()
        room.enter(library(), folder)
        if room.keeper:
            end_with(above)  # once more: becoming another user undoes it
            adopt_orphans()
    except OSError as problem:
        wire.send(control, values.dumps(str(problem)))
        os._exit(0)
    wire.send(control, values.dumps(""))
    own = os.getpid()
    serve(control, parent, room.fork, lambda: attend(control, parent, own, room))


if __name__ == "__main__":
    main()
