"""One request from start to end, in the supervisor's process."""

from __future__ import annotations

import os
import select
from typing import Any, NoReturn

from anystep.sandbox import values, wire
from anystep.sandbox.inside import confine, launch, rooms
from anystep.sandbox.inside.scratch import GLANCE
from anystep.sandbox.inside.supervise import Watch


def attend(control: int, parent: int, zygote: int, room: rooms.Room) -> NoReturn:
    """Read a request, run its program, answer, and end; the exit status is 0 unless the stream may be out of step.

    control: the line to whoever asks. parent: a descriptor of their process, or -1. zygote: our parent's process id.
    """
    confine.end_with(zygote)
    try:
        Attending(control, parent, room).run(values.loads(wire.receive(control)))
    except launch.NoRoom as problem:
        told = {"status": "scratch", "detail": str(problem), "value": None, "exit_code": None, "alive": False}
        wire.send(control, values.dumps({**told, "stdout": b"", "stderr": b"", "cpu": 0.0, "wall": 0.0}))
    except wire.Closed:
        os._exit(1)
    os._exit(0)


class Attending:
    """A supervisor at work: its line to whoever asks, and what it has accounted for so far."""

    def __init__(self, control: int, parent: int, room: rooms.Room) -> None:
        self.control, self.room = control, room
        self.askers = {control: select.POLLHUP | select.POLLERR}
        if parent >= 0:
            self.askers[parent] = select.POLLIN  # how a process descriptor says that its process has ended
        self.cpu = self.wall = 0.0

    def run(self, request: dict[str, Any]) -> None:
        """Run a program, or a session call by call, and answer each."""
        with self.room.program(request, self.askers) as watch:
            broken = watch.until(answered=request["session"])
            if request["session"]:
                broken = self.calls(watch, broken)
            told = watch.end(broken)
        if broken not in ("left", "closed"):
            self.report(watch, told, alive=False)

    def calls(self, watch: Watch, broken: str | None) -> str | None:
        """Answer one call after another until the session is over, and why it is."""
        opened = False
        while not broken and watch.frame() is not None:
            told = watch.told()
            if told["status"] == "garbled":
                return "garbled"
            if not opened and told["status"] != "ok":  # definitions that failed leave nothing to call
                return watch.until(answered=False)
            opened = True
            self.report(watch, {**told, "exit_code": None}, alive=True)
            call = self.next_call(watch)
            if call is None:
                return "left"
            if not call:
                return "closed"
            watch.ask(call)
            broken = watch.until(answered=True)
        return broken

    def next_call(self, watch: Watch) -> bytes | None:
        """The next frame from whoever asks; None if they have gone."""
        poller = select.poll()
        for fd in self.askers:
            poller.register(fd, select.POLLIN)
        while not (ready := {fd for fd, _ in poller.poll(GLANCE * 1000 if watch.swollen else None)}):
            if watch.broken():  # a signal handler or a thread of its own may go on filling scratch
                watch.kill()
        try:
            return wire.receive(self.control) if self.control in ready else None
        except wire.Closed:
            return None

    def report(self, watch: Watch, told: dict[str, Any], alive: bool) -> None:
        """Send what is to be told, with what it printed and what it took."""
        cpu, wall = watch.cpu(), watch.wall
        spent = {"cpu": max(0.0, cpu - self.cpu), "wall": wall - self.wall}
        frame = {**told, **watch.take(), **spent, "alive": alive}
        self.cpu, self.wall = cpu, wall
        wire.send(self.control, values.dumps(frame))
