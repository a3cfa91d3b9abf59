"""The boundaries from the inside: how each is entered, and what surrounds one program in it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from anystep.sandbox.inside import chroot, confine, landlock, launch, namespaces, seccomp
from anystep.sandbox.inside import kernel as k
from anystep.sandbox.inside.confine import Confinement
from anystep.sandbox.inside.scratch import glances, wipe
from anystep.sandbox.inside.supervise import Watch


class Room(Protocol):
    """A boundary."""

    keeper: ClassVar[bool]  # whether a process stays outside to clear up

    def enter(self, library: list[str], folder: str) -> None:
        """Put this process, from which all others are forked, behind the boundary. Raises OSError if it cannot.

        library: the folders and files of the standard library. folder: an empty one of its own, if it has a keeper.
        """

    def fork(self) -> int:
        """Fork a supervisor."""

    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Any:
        """A context with the `Watch` of the request's program, which it starts; all of it ends with the context."""


class Namespaces:
    """See `namespaces`."""

    keeper: ClassVar[bool] = False

    def enter(self, library: list[str], folder: str) -> None:
        namespaces.enter(library)
        k.prctl(k.PR_SET_DUMPABLE, 0)  # a supervisor is in its program's pid namespace, and the same user
        seccomp.filter_for(0, 2, True, True)  # made once for all: the program is the second process of its namespace

    def fork(self) -> int:
        return namespaces.fork()

    @contextmanager
    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Iterator[Watch]:
        namespaces.fresh_room(request["limits"]["scratch"])
        launch.furnish(namespaces.SCRATCH, request["files"], request["limits"]["scratch"])
        # The kernel counts the zygote and its parent, the supervisor and the program itself in the user namespace.
        by = Confinement(calls=True, alone=True, ours=4)
        try:
            yield launch.start(request, askers, launch.ring_for_children(), namespaces.SCRATCH, by)
        finally:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)  # all others in the namespace
            reap_all()


class Folder:
    """What the weaker boundaries share: a scratch folder that is watched and wiped, a process group that is killed.

    Linux: a program can leave neither its group nor its parent's sight, since the filter refuses it the calls.
    """

    keeper: ClassVar[bool] = True

    def __init__(self) -> None:
        self.folder = ""
        self.by = Confinement(calls=sys.platform == "linux", alone=False, ours=None, modes=False)

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = folder

    def fork(self) -> int:
        return os.fork()

    @contextmanager
    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Iterator[Watch]:
        confine.adopt_orphans()
        scratch, watch = self.folder, None
        if os.listdir(scratch):
            os._exit(1)  # something of an earlier program is left: no program starts here again
        try:
            launch.furnish(scratch, request["files"], request["limits"]["scratch"])
            by, allowed = self.by, request["limits"]["processes"]
            if by.calls and by.ours is None and allowed:
                tasks = confine.user_s_tasks()
                by = replace(by, ours=0 if tasks is None else tasks + 1)  # with what cannot be counted: none at all
            watch = launch.start(request, askers, launch.ring_for_children(), scratch, by)
            watch.swollen = glances(scratch, request["limits"]["scratch"])
            yield watch
        finally:
            if watch is not None and watch.ended is None:  # we failed: it would be waited for in vain
                watch.end("left")
            reap_all()
            os.chdir("/")
            os.chmod(scratch, 0o700)
            wipe(scratch)


class Bubblewrap(Folder):
    """Namespaces made by `bwrap` around the worker, which then has no rights to make more."""

    keeper: ClassVar[bool] = False

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = folder
        self.by = Confinement(calls=True, alone=False, ours=4)  # bwrap's init, zygote, supervisor, program


class Chroot(Folder):
    """For root without namespaces: a root folder with a copy of the library, and a user that nobody else is."""

    def enter(self, library: list[str], folder: str) -> None:
        known = chroot.enter(library, folder)
        self.folder = namespaces.SCRATCH
        self.by = Confinement(calls=True, alone=False, ours=3 if known else None)  # zygote, supervisor, program


class Landlock(Folder):
    """For a user without namespaces, on a kernel with Landlock: only the library and scratch can be opened."""

    def enter(self, library: list[str], folder: str) -> None:
        landlock.version()  # raises where there is none
        self.folder = confine.private(library, folder)
        self.by = Confinement(True, False, None, False, lambda scratch: landlock.restrict(library, scratch))


class Process(Folder):
    """The least: a process of its own, with what filter and limits the system has."""

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = confine.private(library, folder)


def reap_all() -> None:
    """Wait for what the program has left behind, which was killed with it."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


ROOMS: dict[str, type[Room]] = {
    "namespaces": Namespaces,
    "bubblewrap": Bubblewrap,
    "chroot": Chroot,
    "landlock": Landlock,
    "process": Process,
}
