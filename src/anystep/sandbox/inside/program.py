"""The process that runs one program: it becomes the program's `__main__`, and answers calls where there are any."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import io
import linecache
import os
import random
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from anystep.sandbox import values, wire

CALLS, REPLIES = 3, 4  # descriptors: what is asked of a session, and what the program says of itself
NAME = "<program>"
LONGEST = 500  # characters of what is said about an error
_hidden: list[types.ModuleType] = []  # modules of ours that programs cannot import, kept because they still run
_ballast: list[bytes] = []
BALLAST = 4 << 20  # bytes set aside, so that a program out of memory can still say so


def become(request: dict[str, Any]) -> NoReturn:
    """Run the request's code in this process, which must already be confined, and end."""
    code, session = request["code"], request["session"]
    _tidy(code)
    _ballast.append(bytes(BALLAST))  # by calloc: pages that nobody touches cost nothing
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main

    def run() -> None:
        exec(compile(code, NAME, "exec", dont_inherit=True), main.__dict__)
        if not session:
            _finish()

    told = _attempt(run)
    _say(told)
    while session and told[0] == "ok":
        try:
            name, args = values.loads(wire.receive(CALLS))
        except (wire.Closed, OSError):
            break
        told = _attempt(partial(_called, main, name, args))
        _say(told)
        told = ("ok",)  # a call that failed leaves the session open
    _flush()
    os._exit(0 if told[0] == "ok" else 1)


def _tidy(code: str) -> None:
    """A start that is the same for every program: signals, random numbers, streams, and no trace of ours in sight."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed(0)
    _hidden.extend(sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "anystep")
    sys.argv = ["program"]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", False)), "utf-8", "surrogateescape")
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(io.FileIO(fd, "w", False))
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=fd == 2)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010 - typed as final
    linecache.cache[NAME] = (len(code), None, code.splitlines(True), NAME)  # so that a traceback shows its lines
    gc.enable()


def _attempt(work: Callable[[], Any]) -> tuple[Any, ...]:
    """Do it, and say how it went: ("ok", value bytes), ("exit", code), or a word and what happened."""
    try:
        return ("ok", work())
    except SystemExit as left:
        _finish_quietly()
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        if left.code is not None and not isinstance(left.code, int):
            print(left.code, file=sys.stderr)
        _flush()
        os._exit(code & 0xFF)  # nothing is said: it left before its end
    except MemoryError:
        _ballast.clear()
        return ("memory", "MemoryError")
    except values.NotLiteral as problem:
        return ("value", str(problem)[:LONGEST])
    except BaseException as problem:
        return ("error", _told(problem))


def _called(main: types.ModuleType, name: str, args: tuple[Any, ...]) -> bytes:
    if name not in main.__dict__:
        raise NameError(f"name {name!r} is not defined")
    result = values.dumps(main.__dict__[name](*args))
    _flush()
    return result


def _told(problem: BaseException) -> str:
    """Print the error as Python would, without our frames, and return its last line."""
    with contextlib.suppress(BaseException):
        trace = problem.__traceback__
        while trace is not None and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        if sys.excepthook is sys.__excepthook__:
            traceback.print_exception(problem.with_traceback(trace))  # it finds the lines; the hook looks for a file
        else:
            sys.excepthook(type(problem), problem.with_traceback(trace), trace)
    try:
        return f"{type(problem).__name__}: {problem}"[:LONGEST]
    except BaseException:
        return type(problem).__name__[:LONGEST]


def _finish() -> None:
    """What Python does when a program has run off its end."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _finish_quietly() -> None:
    with contextlib.suppress(BaseException):
        _finish()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def _say(told: tuple[Any, ...]) -> None:
    _flush()
    try:
        wire.send(REPLIES, values.dumps(told))
    except MemoryError:
        _ballast.clear()
        wire.send(REPLIES, values.dumps(("memory", "MemoryError")))
    except (wire.Closed, OSError):
        os._exit(1)
