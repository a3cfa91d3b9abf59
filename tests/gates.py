"""Hold an engine between two passes, and wait for what other threads do, without sleeping."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from anystep.language.engine.engine import Engine

WAIT = 60  # seconds until a test that hangs says so


class Gate:
    """Lets the engine's passes through one by one, and counts them."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allowed, self.waiting, self.passes = threading.Semaphore(0), threading.Semaphore(0), 0
        self.open = False
        inner = engine.run

        def gated(*args: Any) -> Any:
            self.passes += 1
            if not self.open:
                self.waiting.release()
                assert self.allowed.acquire(timeout=WAIT)
            return inner(*args)

        monkeypatch.setattr(engine, "run", gated)

    def let(self, passes: int) -> None:
        """Waits until a pass is at the gate, and lets it through; that many times."""
        for _ in range(passes):
            self.arrived()
            self.allowed.release()

    def arrived(self) -> None:
        """Waits until a pass is at the gate, which stays shut."""
        assert self.waiting.acquire(timeout=WAIT)

    def free(self) -> None:
        """Opens the gate for good, and for the one pass that waits at it."""
        self.open = True
        self.allowed.release()


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> threading.Semaphore:
    """Released after each call of a function; for a coroutine, once it has been made."""
    calls, inner = threading.Semaphore(0), getattr(owner, name)

    def call(*args: Any) -> Any:
        result = inner(*args)
        calls.release()
        return result

    monkeypatch.setattr(owner, name, call)
    return calls
