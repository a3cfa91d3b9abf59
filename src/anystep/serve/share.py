"""Requests that share an engine share its passes: whoever comes joins at the next token, who is done leaves at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anystep.keys import Keys
from anystep.language.engine.engine import Engine
from anystep.language.joined import Joined
from anystep.language.member import Member
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Stepped, Until

MOST_ROWS = 512  # rows that go on together; others wait
CHUNK = 256  # positions of prompts in a pass, so that none that comes holds up the others for long


@dataclass(eq=False)
class Asked:
    """Work of one request: a step, whose rows share passes with others, or an errand, which has a turn of its own."""

    member: Member | None = None
    errand: Callable[[], Stepped] | None = None
    found: Stepped | None = None
    error: BaseException | None = None
    done: bool = False

    def reply(self) -> Stepped:
        if self.error is not None or self.found is None:
            raise self.error or RuntimeError("work that was not done has no reply")
        return self.found


class Desk:
    """Where the steps of one engine's requests meet. The thread of one of them leads: it goes from pass to pass until
    its own step is done, and hands over. Errands are done between passes, all that wait at once."""

    def __init__(self) -> None:
        self.waiting: list[Asked] = []
        self._under_way: dict[Member, Asked] = {}
        self._joined: Joined | None = None
        self._leading = False
        self._changed = threading.Condition()

    def perform(self, asked: Asked, engine: Engine) -> Stepped:
        """Performs a step, together with those of other requests, or an errand in its turn."""
        with self._changed:
            self.waiting.append(asked)
            self._changed.wait_for(lambda: asked.done or not self._leading)
            if asked.done:
                return asked.reply()
            self._leading = True
        try:
            while not asked.done:
                with engine.lock:
                    self._turn(engine)
        finally:
            with self._changed:
                self._leading = False
                self._changed.notify_all()
        return asked.reply()

    def _turn(self, engine: Engine) -> None:
        """The errands that wait, then one pass for all steps that are there."""
        with self._changed:
            come, self.waiting[:] = list(self.waiting), []
        for asked in come:
            if asked.errand is not None:
                self._errand(asked, asked.errand)
        try:
            joined = self._joined = self._joined or Joined(engine, CHUNK, MOST_ROWS)
            for asked in come:
                if asked.member is not None:
                    self._under_way[asked.member] = asked
                    joined.add(asked.member)
            done = joined.round()
        except BaseException as error:  # everyone's who was in the pass, or about to be
            self._fail([asked for asked in come if asked.errand is None], error)
            return
        for member in done:
            asked = self._under_way.pop(member)
            asked.found = member.reply()
            self._end(asked)

    def _errand(self, asked: Asked, errand: Callable[[], Stepped]) -> None:
        try:
            asked.found = errand()
        except BaseException as error:
            asked.error = error
        self._end(asked)

    def _fail(self, come: list[Asked], error: BaseException) -> None:
        """The session is lost, and with it the steps of all who were in it."""
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.close(keep=False)
        for asked in {*come, *self._under_way.values()}:
            asked.error = error
            self._end(asked)
        self._under_way = {}

    def _end(self, asked: Asked) -> None:
        with self._changed:
            asked.done = True
            self._changed.notify_all()


class Shared(LanguageProcess):
    """A language process whose steps share passes with those of other requests at the same desk."""

    def __init__(self, desk: Desk, engine: Any, prompt: str, **options: Any) -> None:
        super().__init__(engine, prompt, **options)
        self.desk = desk

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        return self.desk.perform(Asked(Member(self, states, keys, limit, until)), self.engine)

    def expand(self, states: Sequences, k: int, keys: Keys, limit: Limit) -> Stepped:
        inner = super().expand
        return self.desk.perform(Asked(errand=lambda: inner(states, k, keys, limit)), self.engine)
