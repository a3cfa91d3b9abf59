"""A scratch folder that no mount of its own bounds: how full it is, and how it is emptied."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable

GLANCE = 0.05  # seconds between two looks at the size of a folder
FILES = 4096  # files and folders in one scratch


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
        except PermissionError:
            return True
        except OSError:
            continue  # it went while we looked
    return False


def wipe(folder: str) -> None:
    """Remove all that is in a folder, whatever its permissions and however deep. Whoever wrote it must have ended.

    What lies in a folder within is moved up before that is removed, so no path grows long and nothing recurses.
    """
    numbers = itertools.count()
    while names := os.listdir(folder):
        for path in (os.path.join(folder, name) for name in names):
            if not _is_folder(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in (os.path.join(path, name) for name in os.listdir(path)):
                if _is_folder(inner):
                    os.chmod(inner, 0o700)  # to be moved, a folder must be writable itself
                above = next(p for n in numbers if not os.path.lexists(p := os.path.join(folder, f"{n}")))
                os.rename(inner, above)
            os.rmdir(path)


def clear(folder: str) -> None:
    """Remove a folder with all in it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        wipe(folder)
        os.rmdir(folder)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
