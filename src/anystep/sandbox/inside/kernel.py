"""The few calls of the Linux kernel that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import os
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
PR_CAP_AMBIENT, CLEAR_ALL = 47, 4
CAPABILITY_VERSION = 0x20080522

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def prctl(option: int, argument: int = 0, third: int = 0) -> None:
    words = [ctypes.c_ulong(x) for x in (argument, third, 0, 0)]
    _checked(_libc.prctl(ctypes.c_int(option), *words), f"prctl({option})")


def syscall(number: int, *arguments: int) -> int:
    """A system call that libc has no function for; its arguments are numbers and addresses."""
    words = [ctypes.c_long(x) for x in (number, *arguments)]
    return _checked(_libc.syscall(*words), f"system call {number}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, flags: int) -> None:
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), f"setns({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [x.encode() if x is not None else None for x in (source, target, kind)]
    result = _libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data is not None else None)
    _checked(result, f"mount {source} on {target}")


def detach(target: str) -> None:
    _checked(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def pivot_root(number: int, new: str, old: str) -> None:
    """number: that of the system call, which libc has no function for."""
    names = [ctypes.create_string_buffer(x.encode()) for x in (new, old)]
    syscall(number, *map(ctypes.addressof, names))


def drop_capabilities(number: int) -> None:
    """Give up every capability for good: effective, permitted, inheritable, ambient and bounding.

    number: that of the system call capset.
    """
    prctl(PR_CAP_AMBIENT, CLEAR_ALL)
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the last one this kernel has, or none held to drop with: then capset is what counts
            break
    head = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION, 0))
    none = ctypes.create_string_buffer(bytes(24))
    syscall(number, ctypes.addressof(head), ctypes.addressof(none))
