"""What a process gives up before it runs code that is not ours."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anystep.sandbox.inside import kernel as k
from anystep.sandbox.inside import seccomp
from anystep.sandbox.inside.syscalls import machine_numbers


@dataclass(frozen=True)
class Confinement:
    """What a program's process is put under beside its limits.

    calls: a filter on system calls. alone: it has a pid namespace. ours: see `limit`; without it, and without a pid
    namespace, children are counted with all of the user's. modes: see `seccomp.filter_for`. files: what keeps it from
    other files than its scratch.
    """

    calls: bool
    alone: bool
    ours: int | None
    modes: bool = True
    files: Callable[[str], None] = lambda scratch: None


NOBODY = 65534
OPEN_FILES = 64
STACK = 8 << 20  # bytes: a recursion in C ends here, well within the memory


def become_nobody(user: int = NOBODY) -> None:
    """From root to a user without rights. Raises OSError where the process may not."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if sys.platform == "linux":
        k.prctl(k.PR_SET_DUMPABLE, 1)  # its own files in /proc are its own again; programs are made undumpable


def end_with(parent: int) -> None:
    """Be killed when the parent, of this process id, ends.

    A parent of one thread, since it is the thread that the kernel watches. One outside our pid namespace has the id 0.
    """
    if sys.platform == "linux":
        k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (parent, 0):
        os._exit(1)


def adopt_orphans() -> None:
    """Linux: what a child leaves behind becomes our child."""
    if sys.platform == "linux":
        k.prctl(k.PR_SET_CHILD_SUBREAPER, 1)


def private(library: list[str], folder: str) -> str:
    """As root, become nobody; else stay who we are, out of sight of our own programs. Returns a place for scratch.

    Raises OSError where nobody cannot read the library.
    """
    scratch = f"{folder}/scratch"
    os.mkdir(scratch, 0o700)
    if os.geteuid() == 0:
        os.chmod(folder, 0o711)
        os.chown(scratch, NOBODY, NOBODY)
        become_nobody()
    if sys.platform == "linux":
        k.prctl(k.PR_SET_DUMPABLE, 0)  # programs are the same user: without this they could write to our memory
    for path in library:
        if not os.access(path, os.R_OK):
            raise OSError(f"the user of programs cannot read {path}")
    return scratch


def user_s_tasks() -> int | None:
    """How many processes and threads this user has, which is what the kernel's limit counts; None if out of sight."""
    count = 0
    try:
        for name in os.listdir("/proc"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if name.isdecimal() and os.stat(f"/proc/{name}/task").st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
    except OSError:
        return None
    return count


def own_only(keep: int) -> None:
    """Close every descriptor from `keep` on."""
    os.closerange(keep, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def limit(limits: dict[str, Any], ours: int | None) -> None:
    """Set what the kernel holds a process to.

    ours: how many processes the kernel counts besides the program's children, which it counts by user; None where that
    is not known.
    """
    cpu = math.ceil(limits["cpu"])
    caps = {
        "RLIMIT_CPU": (cpu, cpu + 1),
        "RLIMIT_AS": limits["memory"],
        "RLIMIT_FSIZE": limits["scratch"],
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_STACK": STACK,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NICE": 0,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_SIGPENDING": 64,
    }
    if ours is not None:
        caps["RLIMIT_NPROC"] = ours + limits["processes"]
    for name, cap in caps.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue  # not every system has every limit
        soft, hard = cap if isinstance(cap, tuple) else (cap, cap)
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        with contextlib.suppress(OSError, ValueError) if sys.platform != "linux" else contextlib.nullcontext():
            resource.setrlimit(kind, (soft, hard))  # macOS knows RLIMIT_AS and refuses to set it


def forsake(processes: int, alone: bool, modes: bool) -> None:
    """Linux: no capabilities, no new privileges, no look from outside, and the filter on system calls."""
    k.drop_capabilities(machine_numbers()["capset"])
    k.prctl(k.PR_SET_DUMPABLE, 0)
    seccomp.install(seccomp.filter_for(processes, os.getpid(), alone, modes))
