"""Our end of one zygote: it is started, asked, and ended here."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anystep.errors import Unsupported
from anystep.sandbox import values, wire
from anystep.sandbox.inside.rooms import ROOMS
from anystep.sandbox.inside.scratch import clear
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.outcome import Outcome

HERE = Path(__file__).parent
NEEDED = ("inside", "values.py", "wire.py")  # of our own files, what a worker runs
OURS = "/box/anystep/sandbox"  # where they are in bwrap's root
SCRATCH = "/scratch"  # in bwrap's root, where /tmp may hold the library or this package
ZYGOTE = HERE / "inside" / "zygote.py"
PATIENCE = 60.0  # seconds beyond a program's own time before a worker that is silent is given up


class Lost(Exception):
    """The worker has died, or no longer makes sense."""


class Worker:
    """A process that programs are forked from, behind one boundary. Raises Unsupported where that cannot be had."""

    def __init__(self, room: str) -> None:
        # Where scratch lies on a disk a folder of ours, which the worker's keeper clears, or we do.
        self.folder = tempfile.mkdtemp("", "anystep-sandbox-", place(room)) if ROOMS[room].keeper else None
        ours, theirs = socket.socketpair()
        myself = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else -1
        passed = [fd for fd in (theirs.fileno(), myself) if fd >= 0]
        try:
            self.process = subprocess.Popen(
                command(room, [str(theirs.fileno()), str(myself), room, self.folder or SCRATCH]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=passed,
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,  # a signal to our process group must not end those who clear up
            )
        except OSError as problem:
            ours.close()
            self._clear()
            raise Unsupported(f"the {room} boundary cannot be had here: {problem}") from problem
        finally:
            theirs.close()
            if myself >= 0:
                os.close(myself)
        self.line, self.owner = ours, os.getpid()
        try:
            why = values.loads(self._receive(PATIENCE))
        except Lost:
            why = "its process ended as it started"
        if why:
            self.end()
            raise Unsupported(f"the {room} boundary cannot be had here: {why}")

    def start(self, program: Program, limits: Limits, session: bool) -> dict[str, Any]:
        """Run a program to its end, or a session's to where it can be called; what the supervisor says of it."""
        request = {
            "code": program.code,
            "stdin": program.stdin,
            "files": dict(program.files),
            "limits": asdict(limits),
            "session": session,
        }
        return self._asked(values.dumps(request), limits)

    def call(self, name: str, args: tuple[Any, ...], limits: Limits) -> dict[str, Any]:
        """Put a call to the session that was started."""
        return self._asked(values.dumps((name, args)), limits)

    def close_session(self) -> None:
        """End the session; the worker is then free for another program."""
        self._send(b"")

    def end(self) -> None:
        """End the worker with all that runs in it. It may be called twice."""
        self.line.close()  # the zygote sees this, and so does a supervisor
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2.0)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._clear()

    def forget(self) -> None:
        """Let go of a worker that belongs to the process we were forked from, without ending it."""
        self.line.close()
        self.process.returncode = 0  # so that nobody waits for another process's child

    def _clear(self) -> None:
        if self.folder is not None:
            clear(self.folder)

    def _asked(self, data: bytes, limits: Limits) -> dict[str, Any]:
        if os.getpid() != self.owner:
            raise Lost("it belongs to the process that this one was forked from")
        self._send(data)
        try:
            return dict(values.loads(self._receive(limits.wall + PATIENCE)))
        except (ValueError, TypeError) as problem:
            raise Lost("its answer cannot be read") from problem

    def _send(self, data: bytes) -> None:
        try:
            self.line.settimeout(PATIENCE)
            self.line.sendall(wire.HEAD.pack(len(data)) + data)
        except OSError as problem:
            raise Lost("it no longer listens") from problem

    def _receive(self, patience: float) -> bytes:
        try:
            self.line.settimeout(patience)
            (size,) = wire.HEAD.unpack(self._exactly(wire.HEAD.size))
            return self._exactly(size)
        except OSError as problem:
            raise Lost("it no longer answers") from problem

    def _exactly(self, n: int) -> bytes:
        data = bytearray()
        while len(data) < n:
            piece = self.line.recv(min(n - len(data), 1 << 20))
            if not piece:
                raise Lost("it has ended")
            data += piece
        return bytes(data)


def place(room: str) -> str | None:
    """Where a worker's folder is made: in memory if it can be; a root folder on a disk, to link the library into it."""
    memory = "/dev/shm"
    return memory if room != "chroot" and os.access(memory, os.W_OK | os.X_OK) else None


def command(room: str, arguments: list[str]) -> list[str]:
    """The command that starts a worker. Raises OSError where a program that it needs is not there."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    # Isolated by hand: -I would also ignore PYTHONHASHSEED, which makes the order of sets the same every time.
    plain = [python, "-S", "-s", "-P", "-B", "-X", "utf8", str(ZYGOTE), *arguments]
    return bubblewrapped(plain) if room == "bubblewrap" else plain


def bubblewrapped(plain: list[str]) -> list[str]:
    """The command within bwrap: a root with the system's libraries, Python's and ours, all to be read only."""
    if os.geteuid() == 0:
        raise OSError("as root it would run programs as root's user; Bubblewrap is for other users")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise OSError("bwrap is not installed")
    shown = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", plain[0], *system_paths()]
    places = {path: path for path in shown} | {str(HERE / name): f"{OURS}/{name}" for name in NEEDED}
    binds = [word for path, place in places.items() for word in ("--ro-bind-try", path, place)]
    moved = [f"{OURS}/inside/zygote.py" if word == str(ZYGOTE) else word for word in plain]
    alone = ["--unshare-all", "--unshare-user", "--new-session", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    files = [*binds, "--tmpfs", SCRATCH, "--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/"]
    return [bwrap, *alone, *files, "--", *moved]


def system_paths() -> list[str]:
    """Where the standard library lies."""
    return [path for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")) if path]


def outcome(told: dict[str, Any]) -> Outcome:
    """What a supervisor said, as an Outcome; a value that is none becomes "garbled"."""
    status, detail, value = told["status"], told["detail"], None
    if told["value"] is not None:
        try:
            value = values.loads(told["value"])
        except values.NotLiteral as problem:
            status, detail = "garbled", f"the value cannot be read: {problem}"
    return Outcome(
        status=status,
        stdout=told["stdout"].decode("utf-8", "replace"),
        stderr=told["stderr"].decode("utf-8", "replace"),
        exit_code=told["exit_code"],
        cpu=told["cpu"],
        wall=told["wall"],
        detail=detail,
        value=value,
    )


def lost(problem: Lost) -> Outcome:
    """The outcome of a program whose worker died with it: the machine ran out of memory, or it was killed by hand."""
    return Outcome("killed", detail=f"its worker was lost: {problem}", exit_code=None)
