"""Landlock: a process gives up, for good, opening any file but those it names. landlock(7), since Linux 5.13."""

from __future__ import annotations

import ctypes
import os
import struct

from anystep.sandbox.inside import kernel as k

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same numbers on every machine
VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights over files each version knows
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15  # of those, the ones a file has; truncate, ioctl


def version() -> int:
    """Which version the kernel has. Raises OSError where it has none, or it is switched off."""
    return k.syscall(CREATE, 0, 0, VERSION)


def restrict(library: list[str], scratch: str) -> None:
    """From now on this process, and all it starts, can open the library to read, and scratch; nothing else.

    It must have no way to gain privileges. Files can still be asked for their size and times.
    """
    every = (1 << BITS.get(version(), 16)) - 1
    wanted = ctypes.create_string_buffer(struct.pack("<Q", every))
    rules = k.syscall(CREATE, ctypes.addressof(wanted), 8, 0)
    try:
        for path in library:
            allow(rules, path, READ_FILE | READ_DIR)
        allow(rules, scratch, every & ~EXECUTE)
        k.prctl(k.PR_SET_NO_NEW_PRIVS, 1)
        k.syscall(RESTRICT, rules, 0)
    finally:
        os.close(rules)


def allow(rules: int, path: str, rights: int) -> None:
    """Add a rule: these rights on what lies beneath the path."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= ON_FILES
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, fd))
        k.syscall(ADD_RULE, rules, PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(fd)
