"""A filter on system calls, written by hand: what is not allowed is refused.

A refusal is an error, EPERM, and not the end of the program: Python's own library tries calls and copes with refusals,
and a refused call has done nothing. Ended at once is what speaks another machine's dialect (32-bit, x32), whose
numbers mean other calls.

Kept in /usr/include/linux: filter.h, seccomp.h, audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from functools import cache

from anystep.sandbox.inside.kernel import PR_SET_NO_NEW_PRIVS, prctl
from anystep.sandbox.inside.syscalls import NATIVE, X86_64, allowed, numbers

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NR, ARCH, ARGS = 0, 4, 16  # bytes into struct seccomp_data
X32 = 0x40000000
NEW_NAMESPACES = 0x7E020080  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET and TIME
AF_UNIX, SOCK_STREAM, SOCK_KIND = 1, 1, 0xF
PR_SET_NAME, PR_GET_NAME = 15, 16
TERMINAL_QUESTIONS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
FILE_QUESTIONS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)  # fcntl without F_SETOWN and F_SETSIG: they signal
# By name, on files that need not be open: what Landlock does not see, truncate before its third version among it.
MODES = ("chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat", "futimesat", "truncate")

Instruction = tuple[int, int, int, int]  # code, steps to jump where true, where false, operand


def _return(verdict: int) -> Instruction:
    return (RETURN, 0, 0, verdict)


def _refuse(code: int = errno.EPERM) -> Instruction:
    return _return(ERRNO | code)


def _load(argument: int, high: bool = False) -> Instruction:
    return (LOAD, 0, 0, ARGS + 8 * argument + 4 * high)  # both machines are little-endian


def _one_of(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    """Allow where the low half of an argument, all that an int has, is one of these."""
    tests: list[Instruction] = []
    for value in values:
        tests += [(EQUAL, 0, 1, value), _return(ALLOW)]
    return [_load(argument), *tests, _refuse()]


def _judged(processes: int, own: int, alone: bool, modes: bool) -> dict[str, list[Instruction]]:
    """What to do with the calls whose arguments matter; each list ends in a verdict on every path."""
    fork = [_return(ALLOW)] if processes else [_refuse(errno.EAGAIN)]
    clone = [_load(0), (ANY_BIT, 0, 1, NEW_NAMESPACES), _refuse(), _return(ALLOW)] if processes else fork
    signal = [_return(ALLOW)] if processes and alone else _one_of(0, (own,))
    kept = {} if modes else dict.fromkeys(MODES, [_refuse()])
    return kept | {
        "clone": clone,
        "clone3": [_refuse(errno.ENOSYS)],  # its flags lie in memory, where no filter sees them: libc then uses clone
        "fork": fork,
        "vfork": fork,
        "kill": signal,
        "tgkill": signal,
        "tkill": signal,
        "ioctl": _one_of(1, TERMINAL_QUESTIONS),
        "fcntl": _one_of(1, FILE_QUESTIONS),
        "prctl": _one_of(0, (PR_SET_NAME, PR_GET_NAME)),
        "prlimit64": _one_of(0, (0, own)),
        # What asyncio wakes itself with: a pair of streams joined to each other, never to an address.
        "socketpair": [
            *[_load(0), (EQUAL, 1, 0, AF_UNIX), _refuse()],
            *[_load(1), (0x54, 0, 0, SOCK_KIND), (EQUAL, 1, 0, SOCK_STREAM), _refuse(), _return(ALLOW)],
        ],
        "sendto": [
            *[_load(4), (EQUAL, 1, 0, 0), _refuse()],
            *[_load(4, high=True), (EQUAL, 1, 0, 0), _refuse(), _return(ALLOW)],
        ],
    }


@cache
def filter_for(processes: int, own: int, alone: bool, modes: bool) -> bytes:
    """The filter's instructions for this machine.

    processes: children and threads allowed; none means that no call which makes one is let through. own: the program's
    process id, the only one it may signal, unless it is `alone` with its children in a pid namespace. modes: whether it
    may change the permissions and times of files, and cut them short by name: not where it can reach files of its
    user's, Python's own for one.
    """
    arch = NATIVE[platform.machine().lower()]
    known = numbers(arch)
    code: list[Instruction] = [(LOAD, 0, 0, ARCH), (EQUAL, 1, 0, arch), _return(KILL), (LOAD, 0, 0, NR)]
    if arch == X86_64:
        code += [(AT_LEAST, 0, 1, X32), _return(KILL)]
    judged = _judged(processes, own, alone, modes)
    for name, number in allowed(arch).items():
        if name not in judged:
            code += [(EQUAL, 0, 1, number), _return(ALLOW)]
    for name, block in judged.items():
        if name in known:
            code += [(EQUAL, 0, len(block), known[name]), *block]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in [*code, _refuse()])


def install(code: bytes) -> None:
    """Put this thread, and all it starts, under the filter for good. Raises OSError where the kernel has no seccomp."""
    lines = ctypes.create_string_buffer(code, len(code))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]

    whole = Filter(len(code) // 8, ctypes.addressof(lines))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(whole))


def available() -> bool:
    """Whether this machine is one whose calls are known here."""
    return os.uname().sysname == "Linux" and platform.machine().lower() in NATIVE
