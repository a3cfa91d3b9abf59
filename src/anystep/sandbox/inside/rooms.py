"""The boundaries from the inside: how each is entered, and what surrounds one program in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from anystep.sandbox.inside import chroot, confine, landlock, launch, namespaces, seccomp
from anystep.sandbox.inside.confine import Confinement
from anystep.sandbox.inside.supervise import Watch

GLANCE = 0.05  # seconds between two looks at the size of a folder


class Room(Protocol):
    """A boundary."""

    keeper: bool  # whether a process stays outside to clear up

    def enter(self, library: list[str], folder: str) -> None:
        """Put this process, from which all others are forked, behind the boundary. Raises OSError if it cannot.

        library: the folders and files of the standard library. folder: an empty one of its own, outside.
        """

    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Any:
        """A context with the `Watch` of the request's program, which it starts; all of it ends with the context."""


class Namespaces:
    """See `namespaces`."""

    keeper = False

    def enter(self, library: list[str], folder: str) -> None:
        namespaces.enter(library)
        for own in (1, 2):  # what init and the program will be
            seccomp.filter_for(0, own, True)

    @contextmanager
    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Iterator[Watch]:
        namespaces.fresh_room(request["limits"]["scratch"])
        launch.furnish(namespaces.SCRATCH, request["files"])
        bell = launch.ring_for_children()
        init, lifeline = launch.start_init()
        # The kernel counts the zygote, the supervisor, init and the program itself in the user namespace.
        by = Confinement(calls=True, alone=True, ours=4)
        try:
            yield launch.start(request, askers, bell, namespaces.SCRATCH, by)
        finally:
            os.close(lifeline)
            os.waitpid(init, 0)  # the kernel has then killed all that was in its namespace


class Folder:
    """What the weaker boundaries share: a scratch folder that is watched and wiped, a process group that is killed.

    Linux: a program can leave neither its group nor its parent's sight, since the filter refuses it the calls.
    """

    keeper = True

    def __init__(self) -> None:
        self.folder = ""
        self.by = Confinement(calls=sys.platform == "linux", alone=False, ours=None)

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = folder

    @contextmanager
    def program(self, request: dict[str, Any], askers: dict[int, int]) -> Iterator[Watch]:
        confine.adopt_orphans()
        scratch = tempfile.mkdtemp(dir=self.folder)
        try:
            launch.furnish(scratch, request["files"])
            by, allowed = self.by, request["limits"]["processes"]
            if by.calls and by.ours is None and allowed:
                tasks = confine.user_s_tasks()
                by = replace(by, ours=0 if tasks is None else tasks + 1)  # with what cannot be counted: none at all
            watch = launch.start(request, askers, launch.ring_for_children(), scratch, by)
            watch.swollen = glances(scratch, request["limits"]["scratch"])
            yield watch
        finally:
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)  # orphans, which were killed with the program's group
            os.chdir("/")
            wipe(scratch)


class Bubblewrap(Folder):
    """Namespaces made by `bwrap` around the worker, which then has no rights to make more."""

    keeper = False

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = namespaces.SCRATCH
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
        self.by = Confinement(True, False, None, lambda scratch: landlock.restrict(library, scratch))


class Process(Folder):
    """The least: a process of its own, with what filter and limits the system has."""

    def enter(self, library: list[str], folder: str) -> None:
        self.folder = confine.private(library, folder)


ROOMS: dict[str, Callable[[], Room]] = {
    "namespaces": Namespaces,
    "bubblewrap": Bubblewrap,
    "chroot": Chroot,
    "landlock": Landlock,
    "process": Process,
}


def glances(folder: str, most: int) -> Callable[[], bool]:
    """Whether a folder holds more than so many bytes, or too many files; looked at now and then."""
    state = {"at": 0.0, "over": False}

    def swollen() -> bool:
        if time.monotonic() - state["at"] >= GLANCE:
            state["at"], state["over"] = time.monotonic(), over(folder, most)
        return bool(state["over"])

    return swollen


def over(folder: str, most: int) -> bool:
    """Whether a folder holds more than so many bytes, too many files, or a folder that cannot be looked into."""
    size, files, todo = 0, 0, [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
                    if size > most or files > namespaces.FILES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        size -= entry.stat(follow_symlinks=False).st_size
                        todo.append(entry.path)
        except PermissionError:
            return True
        except OSError:
            continue  # it went while we looked
    return False


def wipe(folder: str) -> None:
    """Remove a folder with all in it, whatever its permissions."""

    def unlock(function: Callable[..., Any], path: str, problem: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    shutil.rmtree(folder, onerror=unlock)
