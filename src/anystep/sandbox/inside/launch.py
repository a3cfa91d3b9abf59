"""A program's process: how it is forked, what it gives up on the way, and the first process of its namespace."""

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


def furnish(folder: str, files: dict[str, bytes]) -> None:
    """Write a program's files into its scratch."""
    os.chdir(folder)
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def ring_for_children() -> int:
    """A descriptor that becomes readable when a child ends."""
    bell, ring = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    return bell


def start_init() -> tuple[int, int]:
    """The first process of the new pid namespace, which reaps orphans and ends with us, and the pipe it hangs on.

    When it ends the kernel kills every process in its namespace, whatever they did to get away.
    """
    hold, lifeline = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(hold, 0)
            confine.own_only(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            confine.forsake(0, alone=True, modes=True)
            os.read(0, 1)
        finally:
            os._exit(0)
    os.close(hold)
    return pid, lifeline


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
            if not by.alone:  # else the first process of its namespace sees to that
                confine.end_with(supervisor)
            become(request, scratch, by)
        except BaseException as problem:
            os.write(2, f"the program could not be started: {type(problem).__name__}: {problem}\n".encode())
        finally:
            os._exit(70)  # never back into the supervisor's code
    for fd in far.values():
        os.close(fd)
    stdin = request["stdin"].encode("utf-8", "surrogateescape")
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
