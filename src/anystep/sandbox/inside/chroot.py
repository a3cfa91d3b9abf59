"""A root folder for a root user whom the kernel refuses namespaces, as in most containers.

The standard library is linked or copied into it, and the process becomes a user that no other process is: the kernel
then counts its children apart, and nothing outside belongs to it. What chroot(2) lacks, the filter on system calls and
the want of any capability make up for: no second chroot, no mount, no socket, no signal to others.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from anystep.sandbox.inside import kernel as k
from anystep.sandbox.inside.confine import NOBODY, become_nobody
from anystep.sandbox.inside.namespaces import HIDDEN, SCRATCH

USERS = 0x70000000  # from here on: beyond what systems give to people, services and containers
LEFT_OUT = shutil.ignore_patterns(*HIDDEN, "test", "tests", "idlelib", "tkinter", "ensurepip", "config-*")


def enter(library: list[str], folder: str) -> bool:
    """Move this process into the folder for good, and give up root; whether its user is one that nobody else is.

    Raises OSError for whoever is not root, or may not do this.
    """
    user = USERS + os.getpid()
    os.chmod(folder, 0o755)
    for path in library:
        place = Path(folder + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(path):
            if not place.exists():  # one folder of the library lies within another
                shutil.copytree(path, place, ignore=LEFT_OUT, copy_function=link)
        else:
            link(path, str(place))
    device = f"{folder}/dev/null"
    os.mkdir(f"{folder}/dev", 0o755)
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chmod(device, 0o666)
    except OSError:
        pass  # programs do without
    os.chroot(folder)
    os.chdir("/")
    os.mkdir(SCRATCH, 0o700)  # the one place its user can write: the root above it stays root's
    try:
        os.chown(SCRATCH, user, user)
        become_nobody(user)
    except OSError:  # a user namespace around us has few users
        user = NOBODY
        os.chown(SCRATCH, user, user)
        become_nobody(user)
    k.prctl(k.PR_SET_DUMPABLE, 0)
    return user != NOBODY


def link(source: str, target: str) -> None:
    """The same file under a second name where that works, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
