"""The process that watches one program: it starts it, reads what it says, holds it to its limits, and ends it.

It reads the request itself, so that no program is ever a fork of a process that has seen another program's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from anystep.sandbox import values, wire

PIECE = 1 << 16  # bytes read at once
WAITID = hasattr(os, "waitid")  # macOS has it from Python 3.13 on
FRAME = 4096  # bytes of a reply beside its value


class Watch:
    """A running program, its pipes, and what it has said since it was last asked.

    askers: descriptors that whoever asked for it holds, and the events that say they have gone. bell: one
    that is readable when a child has ended. swollen: whether its scratch is over the limit, where the kernel does not
    see to that.
    """

    def __init__(
        self,
        pid: int,
        pipes: dict[str, int],
        stdin: bytes,
        limits: dict[str, Any],
        askers: dict[int, int],
        bell: int,
        swollen: Callable[[], bool] | None = None,
    ) -> None:
        self.pid, self.pipes, self.limits, self.askers, self.swollen = pid, pipes, limits, askers, swollen
        self.bell = bell
        self.due = {"stdin": memoryview(stdin), "calls": memoryview(b"")}  # what it has yet to be sent
        self.said = {"stdout": bytearray(), "stderr": bytearray(), "reply": bytearray()}
        self.printed = 0  # bytes of stdout and stderr in all
        self.ended: tuple[int, float] | None = None  # wait status and processor time
        self.wall = 0.0
        for fd in pipes.values():
            os.set_blocking(fd, False)
        self.move("stdin")

    def cpu(self) -> float:
        """Seconds of processor that the program has used."""
        if self.ended is None:
            try:
                return time.clock_gettime((~self.pid << 3) | 2)  # the clock of a process, as clock_getcpuclockid has it
            except OSError:
                return 0.0
        return self.ended[1]

    def until(self, answered: bool) -> str | None:
        """Watch until it has ended or, if `answered`, sent a whole reply: None; else the limit it broke, or "left"."""
        began = time.monotonic()
        spent = self.wall
        try:
            while True:
                self.wall = spent + time.monotonic() - began
                self.look()
                if self.ended is not None:
                    self.drain()
                broken = self.broken()
                if broken or self.ended is not None or (answered and self.frame() is not None):
                    return broken
                if self.rest() == "left":
                    return "left"
        finally:
            self.wall = spent + time.monotonic() - began

    def broken(self) -> str | None:
        """The limit that it is over, if any."""
        if self.flooded():
            return "output"
        if self.ended is None and self.wall >= self.limits["wall"]:
            return "timeout"
        if self.cpu() >= self.limits["cpu"]:
            return "cpu"
        return "scratch" if self.swollen is not None and self.swollen() else None

    def flooded(self) -> bool:
        """Whether it has said more than it may."""
        return self.printed > self.limits["output"] or len(self.said["reply"]) > self.limits["output"] + FRAME

    def rest(self) -> str | None:
        """Sleep until something happens, or may: "left" if whoever asked for the program has gone."""
        poller = select.poll()
        for fd, gone in self.askers.items():
            poller.register(fd, gone)
        poller.register(self.bell, select.POLLIN)
        for name, fd in self.pipes.items():
            if name not in self.due:
                poller.register(fd, select.POLLIN)
            elif self.due[name]:
                poller.register(fd, select.POLLOUT)
        least_left = (self.limits["cpu"] - self.cpu()) / (1 + self.limits["processes"])
        pause = min(self.limits["wall"] - self.wall, max(least_left, 0.001), 0.05 if self.swollen else 1.0)
        ready = {fd for fd, _ in poller.poll(max(0.0, pause) * 1000 + 1)}
        if ready.intersection(self.askers):
            return "left"
        if self.bell in ready:
            os.read(self.bell, PIECE)
        for name in [name for name, fd in self.pipes.items() if fd in ready]:
            self.move(name)
        return None

    def move(self, name: str) -> bool:
        """Read or write what a pipe has room for; whether anything moved."""
        fd = self.pipes[name]
        try:
            if name in self.due:
                if self.due[name]:
                    self.due[name] = self.due[name][os.write(fd, self.due[name][:PIECE]) :]
                if self.due[name] or name == "calls":
                    return True
            piece = b"" if name == "stdin" else os.read(fd, PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            os.close(self.pipes.pop(name))
            return False
        if name != "reply":
            self.printed += len(piece)
        self.said[name] += piece
        return True

    def drain(self) -> None:
        """Read what is left in the pipes of a program that has ended, as far as the limits let it be kept."""
        for name in ("stdout", "stderr", "reply"):
            while name in self.pipes and not self.flooded() and self.move(name):
                pass

    def look(self) -> None:
        """See whether it has ended."""
        if self.ended is None:
            over = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if WAITID else True
            if over is not None:
                self.reap(0 if WAITID else os.WNOHANG)

    def reap(self, how: int) -> None:
        """Take note of its end, with all of its group: before its number is free, and can be another's."""
        if WAITID:
            self.kill()
        pid, status, usage = os.wait4(self.pid, how)
        if pid:
            self.ended = status, usage.ru_utime + usage.ru_stime

    def kill(self) -> None:
        """Kill it and its group; it may not have had time to found one."""
        for signal_to in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal_to(self.pid, signal.SIGKILL)

    def frame(self) -> bytes | None:
        """The first whole reply, if it has arrived."""
        data = self.said["reply"]
        if len(data) < wire.HEAD.size:
            return None
        (size,) = wire.HEAD.unpack(data[: wire.HEAD.size])
        end = wire.HEAD.size + size
        return bytes(data[wire.HEAD.size : end]) if len(data) >= end else None

    def ask(self, call: bytes) -> None:
        """Put a call to it. A program that does not read it will run into its time."""
        self.said["reply"].clear()
        self.due["calls"] = memoryview(wire.HEAD.pack(len(call)) + call)

    def take(self) -> dict[str, bytes]:
        """What it has printed since the last call, within the limit, and forget it."""
        left = self.limits["output"]
        taken = {}
        for name in ("stdout", "stderr"):
            taken[name] = bytes(self.said[name][:left])
            left -= len(taken[name])
            self.said[name].clear()
        return taken

    def told(self) -> dict[str, Any]:
        """What it has said of itself in a whole reply."""
        frame = self.frame() or b""
        try:
            word, *rest = values.loads(frame)
            if len(self.said["reply"]) == wire.HEAD.size + len(frame) and word in ("ok", "error", "memory", "value"):
                body = rest[0] if rest else None
                value = body if word == "ok" and isinstance(body, bytes) else None
                return {"status": word, "detail": body if isinstance(body, str) else "", "value": value}
        except (ValueError, TypeError):
            pass
        return {"status": "garbled", "detail": "what it said of itself cannot be read", "value": None}

    def end(self, broken: str | None) -> dict[str, Any]:
        """Kill it if it still runs, and say how it ended."""
        if self.ended is None:
            self.kill()
            self.reap(0)
            self.drain()
        assert self.ended is not None
        code = os.waitstatus_to_exitcode(self.ended[0])
        told = {"status": broken, "detail": "", "value": None} if broken else self.verdict(code)
        return {**told, "exit_code": code}

    def verdict(self, code: int) -> dict[str, Any]:
        """What a program that ended by itself comes to: by its exit, and by what it said before."""
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            tired = name == "SIGXCPU" or (name == "SIGKILL" and self.cpu() >= self.limits["cpu"])
            return {"status": "cpu" if tired else "killed", "detail": name, "value": None}
        if not self.said["reply"]:
            return {"status": "exit", "detail": f"left with code {code} before its end", "value": None}
        return self.told()
