"""Which boundary holds on this machine: found by trying, and believed only once a hostile program has failed at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from anystep.errors import Unsupported, UsageError
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.worker import ZYGOTE, Lost, Worker

NAMES = ("namespaces",)  # the strongest first
PROBE = """
import os, sys
broken = []
def refused(what, attack):
    try:
        attack()
    except (OSError, RuntimeError):
        return
    broken.append(what)
def talk():
    import socket
    socket.socket()
refused("network", talk)
refused("processes", os.fork)
refused("signals", lambda: os.kill(os.getppid() or 1, 0))
for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/sys/kernel", "/var/log", OURS):
    refused("files", lambda: os.stat(path))
refused("writing", lambda: open("/probe", "w"))
refused("environment", lambda: os.environ["PATH"] and 1 or open("/nowhere"))
sys.exit(",".join(sorted(set(broken))) or 0)
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


CALLS = "a filter on system calls: no sockets, no signals to others, no tracing, no mounts"
LIMITS = "limits on processor, clock, memory, output and files"
BLANK = "an empty environment and no inherited descriptors"
BOUNDARIES = {
    "namespaces": Boundary(
        "namespaces",
        (
            "a root with Python's library and the program's own scratch, nothing else",
            "no network device",
            "a process namespace that ends with the program",
            CALLS,
            "no capabilities, an unprivileged user",
            LIMITS,
            BLANK,
        ),
        ("a kernel of its own: a program that can break the kernel gets out",),
    ),
}


def tried(name: str) -> str:
    """Why a boundary does not hold here; empty where it does."""
    try:
        worker = Worker(name)
    except Unsupported as problem:
        return str(problem)
    try:
        told = worker.start(Program(f"OURS = {str(ZYGOTE)!r}\n{PROBE}"), Limits(), session=False)
    except Lost as problem:
        return f"the {name} boundary cannot be had here: {problem}"
    finally:
        worker.end()
    if told["status"] == "exit" and told["exit_code"] == 0:
        return ""
    return f"the {name} boundary leaks here: {told['stderr'].decode('utf-8', 'replace').strip() or told['status']}"


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
            return BOUNDARIES[name]
        reasons.append(why)
    advice = "" if weakest == "process" else ' Sandbox(demand="process") runs with less, if you trust the programs.'
    raise Unsupported(f"nothing on this machine contains a program: {'; '.join(reasons)}.{advice}")


@cache
def boundary() -> Boundary:
    """The boundary that `Sandbox()` uses here, found once a process. Raises Unsupported where there is none."""
    return choose(None)
