"""The strongest boundary: namespaces of our own, and a root that holds Python's library and nothing else.

Around a worker: user, mount, pid, network, IPC, host-name and cgroup namespaces, and a root on a tmpfs with the
standard library bound into it, read-only. Around each program: a pid namespace whose first process is its supervisor,
an IPC namespace, and a scratch folder on a tmpfs, all gone with the supervisor: when the first process of a pid
namespace ends, the kernel kills the others, whatever they did to get away. user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from anystep.sandbox.inside import kernel as k
from anystep.sandbox.inside.confine import become_nobody, end_with
from anystep.sandbox.inside.scratch import FILES
from anystep.sandbox.inside.syscalls import machine_numbers

INSIDE = 1000  # the user and group that programs are, of no power in- or outside
SCRATCH = "/tmp"
HIDDEN = ("site-packages", "dist-packages")  # what others installed into the library's folder
DEVICES = ("null", "zero", "urandom")
PRIVATE = k.NEWUSER | k.NEWNS | k.NEWPID | k.NEWNET | k.NEWIPC | k.NEWUTS | k.NEWCGROUP


def enter(library: list[str]) -> None:
    """Go on, in namespaces of our own, as a child of this process, of one thread; as root, become nobody first.

    The process itself waits for the child and ends with it: nobody can move to another pid namespace, only its children
    can. library: the folders and files of the standard library. Raises OSError where the kernel or its settings refuse.
    """
    myself = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)  # /proc will be out of sight when it is needed
    try:
        if os.geteuid() == 0:  # as root while the library is looked up: it may lie in root's own home
            k.unshare(k.NEWNS)
            build_root(library)
            become_nobody()
            k.unshare(PRIVATE)
            map_user(myself)
        else:
            outside = os.geteuid(), os.getegid()
            k.unshare(PRIVATE)
            map_user(myself, *outside)
            build_root(library)
    finally:
        os.close(myself)
    go_on_in_child()
    with contextlib.suppress(OSError):  # a matter of taste, not of safety
        socket.sethostname("sandbox")


def go_on_in_child() -> None:
    """Return in a child, the first process of the new pid namespace; this process ends when it has ended."""
    outside = os.getpid()
    child = os.fork()
    if child:
        os.closerange(0, 1024)  # whoever asks must see the child's end, not ours
        os.waitpid(child, 0)
        os._exit(0)
    end_with(outside)


def fork() -> int:
    """Fork a child into a pid namespace of its own; the next one will be in another."""
    here = os.pidfd_open(os.getpid())
    k.unshare(k.NEWPID)
    child = os.fork()
    if child:
        k.setns(here, k.NEWPID)
    os.close(here)
    return child


def map_user(myself: int, user: int | None = None, group: int | None = None) -> None:
    """Be user and group 1000 in the new namespace: the one id there is."""
    user, group = os.geteuid() if user is None else user, os.getegid() if group is None else group
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE} {user} 1"),
        ("gid_map", f"{INSIDE} {group} 1"),
    ):
        fd = os.open(name, os.O_WRONLY, dir_fd=myself)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def build_root(library: list[str]) -> None:
    """Make a root of its own for this mount namespace and leave the old one behind.

    The new root is a tmpfs over /tmp; the old root hangs in it until its parts are bound, then it is let go.
    """
    k.mount("none", "/", None, k.MS_REC | k.MS_PRIVATE)
    k.mount("tmpfs", "/tmp", "tmpfs", k.MS_NOSUID | k.MS_NODEV, "size=1m,mode=755")
    os.mkdir("/tmp/old", 0o700)
    k.pivot_root(machine_numbers()["pivot_root"], "/tmp", "/tmp/old")
    os.chdir("/")
    for path in library:
        bind(f"/old{path}", path, k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV)
        for name in HIDDEN:
            if os.path.isdir(f"{path}/{name}"):
                k.mount("tmpfs", f"{path}/{name}", "tmpfs", k.MS_RDONLY, "size=4k,mode=755")
    for name in DEVICES:
        bind(f"/old/dev/{name}", f"/dev/{name}", k.MS_NOSUID | k.MS_NOEXEC)
    os.mkdir(SCRATCH, 0o755)
    k.detach("/old")
    os.rmdir("/old")
    k.mount("none", "/", None, k.MS_REMOUNT | k.MS_BIND | k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV)


def bind(source: str, target: str, flags: int) -> None:
    """Show a file or folder at a second place, with these restrictions beside those it has."""
    place = Path(target)
    if os.path.isdir(source):
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    k.mount(source, target, None, k.MS_BIND | k.MS_REC)
    had = os.statvfs(target).f_flag & (k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC)
    k.mount("none", target, None, k.MS_REMOUNT | k.MS_BIND | had | flags | _times(target))


def _times(target: str) -> int:
    """The mount's way with access times, which a user namespace may not change: relatime, noatime, nodiratime."""
    flags = os.statvfs(target).f_flag
    return (flags & 0x400) | (flags & 0x800) | (0x200000 if flags & 0x1000 else 0)


def fresh_room(scratch: int) -> None:
    """Give the program that this process is about to start a scratch folder of its own."""
    k.unshare(k.NEWNS | k.NEWIPC)
    size = f"size={max(scratch, 4096)},nr_inodes={FILES},mode=700,uid={INSIDE},gid={INSIDE}"
    k.mount("tmpfs", SCRATCH, "tmpfs", k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC, size)
