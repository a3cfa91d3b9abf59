"""One row of a step, while its reply comes in: the text so far, and whether one of the stop texts has ended it."""

from __future__ import annotations

from dataclasses import dataclass, field

from anystep.language.endpoint.deltas import Delta
from anystep.language.endpoint.states import Transcript
from anystep.process import Status


@dataclass(eq=False)
class Row:
    """place: in the batch. stop: the text that ends a step, None where the step is the whole reply. ends: texts that
    end the reply. finish: why its present request ended, None while it goes on. stopped: the stop text that did it.
    heard: what the present attempt brought: tokens counted, and whether there was anything at all."""

    place: int
    key: int
    began: Transcript
    stop: str | None
    ends: tuple[str, ...]
    text: str = field(init=False)
    thought: str = field(init=False)
    generated: int = field(init=False)
    waited: int = field(init=False)
    closed: bool = field(init=False)
    logp: float = 0.0
    status: Status = Status.LIVE
    cut: bool = False
    error: str | None = None
    attempts: int = 0
    finish: str | None = None
    stopped: str | None = None
    tools: bool = False
    unscored: bool = False
    heard: int = 0
    begun: bool = False

    def __post_init__(self) -> None:
        self._was(self.began)

    def _was(self, state: Transcript) -> None:
        self.text, self.thought, self.generated = state.text, state.thought, state.generated
        self.waited, self.closed = state.waited, state.closed
        self._from = self._scan = 0
        self.opened()

    def again(self) -> None:
        """From the beginning, where the server cannot go on with a reply that was cut."""
        self._was(Transcript(self.began.prompt))

    def opened(self) -> None:
        """A new request goes out for what is missing."""
        self.finish, self.stopped, self.heard, self.begun = None, None, 0, False
        self._from = len(self.text)
        self._scan = 0
        if self.stop:
            while (at := self.text.find(self.stop, self._scan)) >= 0:
                self._scan = at + len(self.stop)

    @property
    def state(self) -> Transcript:
        return Transcript(self.began.prompt, self.text, self.thought, self.generated, self.waited, self.closed)

    @property
    def stops(self) -> tuple[str, ...]:
        return ((self.stop,) if self.stop else ()) + self.ends

    def hear(self, delta: Delta, answering: bool) -> str:
        """Takes a delta in, and returns what it adds for whoever watches.

        answering: thinking that is delivered apart counts as text, because it was ended from outside.
        """
        text, thought = (delta.text or delta.thought, "") if answering else (delta.text, delta.thought)
        tokens = delta.tokens if delta.tokens is not None else int(bool(text or thought))
        self.heard += tokens
        self.generated += tokens
        self.logp += delta.logp
        self.tools |= delta.tools
        self.unscored |= delta.tokens is None and bool(text or thought)
        self.begun |= bool(text or thought)
        shown = thought
        if self.stopped is None:
            self.thought += thought
            before = len(self.text)
            self.text += text
            self._watch()
            if delta.stopped in self.stops and self.stopped is None:
                self.text += str(delta.stopped)  # the server took it off
                self._watch()
            shown += self.text[before:]
        if delta.finish is not None:
            self.finish = delta.finish
        return shown

    def _watch(self) -> None:
        """Ends the text with the first stop text that is complete in what was added; an end of the reply goes before
        the end of a step at the same place."""
        found = []
        for stop in self.stops:
            least = self._scan if stop == self.stop else 0
            at = self.text.find(stop, max(least, self._from - len(stop) + 1))
            if at >= 0:
                found.append((at + len(stop), stop not in self.ends, stop))
        if found:
            end, _, self.stopped = min(found)
            self.text = self.text[:end]

    @property
    def over(self) -> bool:
        return self.status != Status.LIVE
