"""Which boundary holds on this machine: found by trying, and believed only once a hostile program has failed at it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache

from anystep.errors import Unsupported, UsageError
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.worker import ZYGOTE, Lost, Worker

NAMES = ("namespaces", "bubblewrap", "chroot", "landlock", "process")  # the strongest first
# What a program tries on every worker's first day: each name that it gets through is printed.
PROBE = """
import os, sys
broken = set()
def attempt(what, attack):
    try:
        attack()
    except (OSError, RuntimeError):
        return
    broken.add(what)
def talk():
    import socket
    socket.socket()
attempt("network", talk)
attempt("signals", lambda: os.kill(os.getppid() or 1, 0))
for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", "/proc/version", "/sys/kernel/notes", SECRET):
    attempt("files", lambda: open(path, "rb").read(1))
attempt("files", lambda: open("/probe", "w"))
attempt("files", lambda: open(SECRET + "x", "w"))
if len(os.environ) > 5:
    broken.add("environment")
try:
    pid = os.fork()
except OSError:
    pid = -1
if pid == 0:
    os._exit(0)
if pid > 0:
    broken.add("processes")
print(",".join(sorted(broken)))
"""


@dataclass(frozen=True, slots=True)
class Boundary:
    """What keeps programs in on this machine: its name, what it holds, and what it lacks, in words."""

    name: str
    holds: tuple[str, ...]
    lacks: tuple[str, ...]

    def __str__(self) -> str:
        lacks = f"; lacks: {', '.join(self.lacks)}" if self.lacks else ""
        return f"{self.name}: holds {', '.join(self.holds)}{lacks}"


CALLS = "a filter on system calls: no sockets, no signals to others, no tracing, no mounts, no new programs"
RIGHTS = "no capabilities and no new ones"
LIMITS = "limits on processor, clock, memory, output and files"
BLANK = "an empty environment and no inherited descriptors"
KERNEL = "a kernel of its own: a program that can break the kernel gets out"
GLANCED = "an exact limit on files: scratch is measured every 50 ms, open files without a name are not"
SHARED = "a process namespace: it is the filter alone that keeps its signals in"


def known() -> dict[str, Boundary]:
    """What each boundary holds, once its probe has failed."""
    folder = "a root folder with a copy of Python's library and scratch, nothing else"
    system = sys.platform == "linux"
    return {
        b.name: b
        for b in (
            Boundary(
                "namespaces",
                (
                    "a root with Python's library, read-only, and a scratch of the program's own, nothing else",
                    "no network device",
                    "a process namespace that ends with the program",
                    CALLS,
                    RIGHTS,
                    LIMITS,
                    BLANK,
                ),
                (KERNEL,),
            ),
            Boundary(
                "bubblewrap",
                ("a root with the system's and Python's libraries, read-only, and scratch", "no network device")
                + (CALLS, RIGHTS, LIMITS, BLANK),
                ("a process namespace for each program: it is one for each worker", GLANCED, KERNEL),
            ),
            Boundary(
                "chroot",
                (folder, "a user that nobody else is", CALLS, RIGHTS, LIMITS, BLANK),
                (SHARED, GLANCED, KERNEL),
            ),
            Boundary(
                "landlock",
                ("only Python's library, read-only, and scratch can be opened", CALLS, RIGHTS, LIMITS, BLANK),
                ("names and sizes of files elsewhere: they can be asked for", SHARED, GLANCED, KERNEL),
            ),
            Boundary(
                "process",
                (CALLS, RIGHTS, LIMITS, BLANK) if system else (LIMITS, BLANK),
                ("files: it can open what its user can, other processes' memory among it", SHARED, GLANCED, KERNEL)
                if system
                else ("files, network, processes, signals: it can do what its user can",),
            ),
        )
    }


def tolerated(name: str) -> set[str]:
    """What the probe may get through without belying the boundary."""
    if name != "process":
        return set()
    return {"files"} if sys.platform == "linux" else {"files", "network", "signals", "processes"}


def tried(name: str) -> str:
    """Why a boundary does not hold here; empty where it does."""
    try:
        worker = Worker(name)
    except Unsupported as problem:
        return str(problem)
    try:
        told = worker.start(
            Program(f"SECRET = {str(ZYGOTE.parents[1] / 'pool.py')!r}\n{PROBE}"), Limits(), session=False
        )
    except Lost as problem:
        return f"the {name} boundary cannot be had here: {problem}"
    finally:
        worker.end()
    if told["status"] != "ok":
        return f"the {name} boundary cannot be had here: its probe ended with {told['status']!r}, {told['detail']}"
    got_through = set(filter(None, told["stdout"].decode().strip().split(","))) - tolerated(name)
    return f"the {name} boundary leaks {', '.join(sorted(got_through))} here" if got_through else ""


@cache
def _why_not(name: str) -> str:
    return tried(name)


def choose(demand: str | None, only: str | None = None) -> Boundary:
    """The strongest boundary that holds here. Raises Unsupported where none is strong enough.

    demand: the weakest that is accepted; None accepts all that keep the program from the files of this machine. only:
    this one and no other.
    """
    for name in (demand, only):
        if name is not None and name not in NAMES:
            raise UsageError(
                f"there is no boundary {name!r}; the names are {', '.join(NAMES)}: Sandbox(demand={NAMES[0]!r})."
            )
    weakest = demand or next(name for name in reversed(NAMES) if name != "process")
    reasons = []
    for name in (only,) if only else NAMES[: NAMES.index(weakest) + 1]:
        why = _why_not(name)
        if not why:
            return known()[name]
        reasons.append(why)
    advice = "" if weakest == "process" else ' Sandbox(demand="process") runs with less, if you trust the programs.'
    raise Unsupported(f"nothing on this machine contains a program: {'; '.join(reasons)}.{advice}")


@cache
def boundary() -> Boundary:
    """The boundary that `Sandbox()` uses here, found once a process. Raises Unsupported where there is none."""
    return choose(None)
