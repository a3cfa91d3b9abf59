"""Where a program runs: how each boundary is entered, and what surrounds one program in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

from anystep.sandbox.inside import confine, namespaces, program, seccomp
from anystep.sandbox.inside.supervise import Watch


class Room(Protocol):
    """A boundary from the inside."""

    def enter(self, library: list[str]) -> None:
        """Put this process, from which all others are forked, behind the boundary. Raises OSError if it cannot."""

    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Any:
        """A context with the `Watch` of the request's program, which it starts; all of it ends with the context."""


class Namespaces:
    """See `namespaces`."""

    ours = 4  # processes in the user namespace that the kernel counts: zygote, supervisor, init, and the program

    def enter(self, library: list[str]) -> None:
        namespaces.enter(library)
        for own in (1, 2):  # what init and the program will be
            seccomp.filter_for(0, own, True)

    @contextmanager
    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Iterator[Watch]:
        limits = request["limits"]
        namespaces.fresh_room(limits["scratch"])
        furnish(namespaces.SCRATCH, request["files"])
        bell = ring_for_children()
        init, lifeline = start_init()
        try:
            yield start(request, askers, bell, namespaces.SCRATCH, self.ours, alone=True)
        finally:
            os.close(lifeline)
            os.waitpid(init, 0)  # the kernel has then killed all that was in its namespace


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
        os.dup2(hold, 0)
        confine.own_only(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        confine.forsake(0, True)
        os.read(0, 1)
        os._exit(0)
    os.close(hold)
    return pid, lifeline


def start(request: dict[str, Any], askers: dict[int, int], bell: int, scratch: str, ours: int, alone: bool) -> Watch:
    """Fork the program's process, confined, and watch it."""
    ends = {name: os.pipe() for name in ("stdin", "stdout", "stderr", "calls", "reply")}
    far = {name: pair[0] if name in ("stdin", "calls") else pair[1] for name, pair in ends.items()}
    near = {name: pair[1] if name in ("stdin", "calls") else pair[0] for name, pair in ends.items()}
    pid = os.fork()
    if pid == 0:
        try:
            confined(request, list(far.values()), scratch, ours, alone)
        except BaseException as problem:
            os.write(2, f"the program could not be started: {type(problem).__name__}: {problem}".encode())
        finally:
            os._exit(70)  # never back into the supervisor's code
    for fd in far.values():
        os.close(fd)
    stdin = request["stdin"].encode("utf-8", "surrogateescape")
    return Watch(pid, near, stdin, request["limits"], askers, bell)


def confined(request: dict[str, Any], pipes: list[int], scratch: str, ours: int, alone: bool) -> NoReturn:
    """In the program's own process: give everything up, then run it."""
    os.setsid()
    high = [os.dup2(fd, 100 + i, False) for i, fd in enumerate(pipes)]  # out of the way of their places
    for place, fd in enumerate(high):
        os.dup2(fd, place)
    confine.own_only(len(high))
    os.chdir(scratch)
    os.environ.clear()
    os.environ.update(HOME=scratch, TMPDIR=scratch, LANG="C.UTF-8", PATH="")
    confine.limit(request["limits"], ours)
    confine.forsake(request["limits"]["processes"], alone)
    program.become(request)


ROOMS: dict[str, Room] = {"namespaces": Namespaces()}
