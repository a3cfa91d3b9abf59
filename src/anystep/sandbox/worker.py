"""Our end of one zygote: it is started, asked, and ended here."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anystep.errors import Unsupported
from anystep.sandbox import values, wire
from anystep.sandbox.limits import Limits, Program
from anystep.sandbox.outcome import Outcome

ZYGOTE = Path(__file__).parent / "inside" / "zygote.py"
PATIENCE = 30.0  # seconds beyond a program's own time before a worker that is silent is given up


class Lost(Exception):
    """The worker has died, or no longer makes sense."""


class Worker:
    """A process that programs are forked from, behind one boundary. Raises Unsupported where that cannot be had."""

    def __init__(self, room: str) -> None:
        ours, theirs = socket.socketpair()
        python = getattr(sys, "_base_executable", None) or sys.executable
        # Isolated by hand: -I would also ignore PYTHONHASHSEED, which makes the order of sets the same every time.
        command = [python, "-S", "-s", "-P", "-B", "-X", "utf8", str(ZYGOTE), str(theirs.fileno()), room]
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
                cwd="/",
            )
        self.line = ours
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

    def forget(self) -> None:
        """Let go of a worker that belongs to the process we were forked from, without ending it."""
        self.line.close()
        self.process.returncode = 0  # so that nobody waits for another process's child

    def _asked(self, data: bytes, limits: Limits) -> dict[str, Any]:
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
