"""A program's process: how it is forked, and what it gives up on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

from anystep.sandbox.inside import confine, program
from anystep.sandbox.inside.confine import Confinement
from anystep.sandbox.inside.supervise import Watch

PIPES = ("stdin", "stdout", "stderr", "calls", "reply")  # in the order of the program's descriptors
TO_PROGRAM = ("stdin", "calls")


class NoRoom(Exception):
    """A program's files do not fit into its scratch."""


def furnish(folder: str, files: dict[str, bytes], most: int) -> None:
    """Write a program's files, of so many bytes at most, into its scratch. Raises NoRoom."""
    if sum(map(len, files.values())) > most:
        raise NoRoom(f"its files have more than the {most} bytes of scratch")
    os.chdir(folder)
    try:
        for name, content in files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)
    except (OSError, UnicodeError) as problem:
        raise NoRoom(f"its files cannot be written: {problem}") from problem


def ring_for_children() -> int:
    """A descriptor that becomes readable when a child ends."""
    bell, ring = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    return bell


def start(request: dict[str, Any], askers: dict[int, int], bell: int, scratch: str, by: Confinement) -> Watch:
    """Fork the program's process, confined, and watch it."""
    ends = {name: os.pipe() for name in PIPES}
    far = {name: pair[0] if name in TO_PROGRAM else pair[1] for name, pair in ends.items()}
    near = {name: pair[1] if name in TO_PROGRAM else pair[0] for name, pair in ends.items()}
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            take_places([far[name] for name in PIPES])
            confine.end_with(supervisor)
            become(request, scratch, by)
        except BaseException as problem:
            os.write(2, f"the program could not be started: {type(problem).__name__}: {problem}\n".encode())
        finally:
            os._exit(70)  # never back into the supervisor's code
    for fd in far.values():
        os.close(fd)
    stdin = request["stdin"].encode("utf-8", "surrogatepass")
    return Watch(pid, near, stdin, request["limits"], askers, bell)


def take_places(pipes: list[int]) -> None:
    """Have these descriptors as 0, 1, 2 and so on, and no others."""
    high = [os.dup2(fd, 100 + i, False) for i, fd in enumerate(pipes)]  # out of the way of the places
    for place, fd in enumerate(high):
        os.dup2(fd, place)
    confine.own_only(len(high))


def become(request: dict[str, Any], scratch: str, by: Confinement) -> NoReturn:
    """Give everything up, then run the program."""
    os.chdir(scratch)
    os.environ.clear()
    os.environ.update(HOME=scratch, TMPDIR=scratch, LANG="C.UTF-8", PATH="")
    confine.limit(request["limits"], by.ours)
    by.files(scratch)
    if by.calls:
        confine.forsake(request["limits"]["processes"], by.alone, by.modes)
    program.become(request)
