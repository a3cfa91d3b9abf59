"""What became of a program, as seen from outside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal[
    "ok", "error", "exit", "timeout", "cpu", "memory", "output", "scratch", "value", "killed", "garbled", "closed"
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program, or one call of a session, ended and what it printed.

    status: "ok" ran to its end; "error" raised, `detail` says what; "exit" left before its end by itself, by sys.exit
    or os._exit, whatever code it gave; "timeout", "cpu", "memory", "output", "scratch" went over that limit; "value"
    returned what is no literal; "killed" ended by a signal; "garbled" said something about itself that cannot be read;
    "closed" belongs to a session whose program had already ended.

    The status is measured from outside, save that "ok", "error", "memory" and `value` rest on what the program's own
    process said: code that means to can say so falsely. Whoever judges it compares `value` or `stdout` with what the
    program was never told.

    stdout, stderr: what it printed, cut at the limit; in a session, since the last call. exit_code: 0..255, minus the
    signal where one ended it, None while it lives. cpu, wall: seconds, of this call. value: what a session's call
    returned.
    """

    status: Status
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    cpu: float = 0.0
    wall: float = 0.0
    detail: str = ""
    value: Any = None

    @property
    def ok(self) -> bool:
        """Whether it ran to its end, or the call returned."""
        return self.status == "ok"

    @property
    def lost(self) -> bool:
        """Whether its worker died with it, of the machine's want or by hand: that tells nothing of the program."""
        return self.status == "killed" and self.exit_code is None
