"""A scratch folder that no mount of its own bounds: how full it is, and how it is emptied."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable

GLANCE = 0.05  # seconds between two looks at the size of a folder
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FILES = 1024  # files and folders in one scratch


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
                    if size > most or files > FILES:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        size -= entry.stat(follow_symlinks=False).st_size
                        todo.append(entry.path)
        except FileNotFoundError:
            continue  # it went while we looked
        except OSError:
            return True  # no permission, or its path is too long
    return False


def wipe(folder: str) -> None:
    """Remove all that is in a folder, whatever its permissions and however deep. Whoever wrote it must have ended.

    It goes down and up by descriptors, since paths have a greatest length, and keeps one open, since so do tables.
    """
    here = os.open(folder, FOLDER)
    above: list[tuple[str, list[str]]] = []  # the folders we are in, and what is left to remove beside each
    left = os.listdir(here)
    while left or above:
        if left:
            name = left.pop()
            if not stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=here)
                continue
            os.chmod(name, 0o700, dir_fd=here)
            above.append((name, left))
            here = _instead(here, name)
            left = os.listdir(here)
        else:
            name, left = above.pop()
            here = _instead(here, "..")
            os.rmdir(name, dir_fd=here)
    os.close(here)


def _instead(fd: int, name: str) -> int:
    """Open a folder by its name in another, and close that."""
    try:
        return os.open(name, FOLDER, dir_fd=fd)
    finally:
        os.close(fd)


def clear(folder: str) -> None:
    """Remove a folder with all in it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        wipe(folder)
        os.rmdir(folder)
