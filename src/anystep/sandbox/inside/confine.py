"""What a process gives up before it runs code that is not ours."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys
from typing import Any

from anystep.sandbox.inside import kernel as k
from anystep.sandbox.inside import seccomp
from anystep.sandbox.inside.syscalls import machine_numbers

NOBODY = 65534
OPEN_FILES = 64
STACK = 8 << 20  # bytes: a recursion in C ends here, well within the memory


def become_nobody() -> None:
    """From root to the user without rights. Raises OSError where the process may not."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if sys.platform == "linux":
        k.prctl(k.PR_SET_DUMPABLE, 1)  # its own files in /proc are its own again; programs are made undumpable


def end_with(parent: int) -> None:
    """Be killed when the parent, of this process id, ends; a parent of one thread, for that is what the kernel sees."""
    if sys.platform == "linux":
        k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def own_only(keep: int) -> None:
    """Close every descriptor from `keep` on."""
    os.closerange(keep, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def limit(limits: dict[str, Any], others: int) -> None:
    """Set what the kernel holds a process to.

    others: processes of the same user in its user namespace that are not the program's, which the kernel counts too.
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
        "RLIMIT_NPROC": others + limits["processes"],
    }
    for name, cap in caps.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue  # not every system has every limit
        soft, hard = cap if isinstance(cap, tuple) else (cap, cap)
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        with contextlib.suppress(OSError) if sys.platform == "darwin" else contextlib.nullcontext():
            resource.setrlimit(kind, (soft, hard))  # macOS knows RLIMIT_AS and refuses to set it


def forsake(processes: int, alone: bool) -> None:
    """Linux: no capabilities, no new privileges, no look from outside, and the filter on system calls."""
    k.drop_capabilities(machine_numbers()["capset"])
    k.prctl(k.PR_SET_DUMPABLE, 0)
    seccomp.install(seccomp.filter_for(processes, os.getpid(), alone))
