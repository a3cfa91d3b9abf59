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
    heard: tokens counted in what the present attempt brought, begun: whether it brought anything. clamped: it was
    asked for fewer tokens than it may have in all. hold: a text at which it is to be held up, as before an answer.
    mute: tokens, and their log-probability, since the last one that added text: the end token, or bytes that are no
    character yet. likely: the likeliest tokens in place of the first one that was added to its text, as the server told
    them."""

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
    asked: dict[int, tuple[str, str, str]] = field(init=False)
    logp: float = 0.0
    status: Status = Status.LIVE
    cut: bool = False
    error: str | None = None
    attempts: int = 0
    finish: str | None = None
    stopped: str | None = None
    unscored: bool = False
    heard: int = 0
    begun: bool = False
    clamped: bool = False
    hold: str | None = None
    mute: tuple[int, float] = (0, 0.0)
    likely: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        self._was(self.began)

    def _was(self, state: Transcript) -> None:
        self.text, self.thought, self.generated = state.text, state.thought, state.generated
        self.waited, self.closed, self.asked = state.waited, state.closed, dict(enumerate(state.asked))
        self._from = self._scan = 0
        self.opened()

    def again(self) -> None:
        """From the beginning, where the server cannot go on with a reply that was cut."""
        self._was(Transcript(self.began.prompt))

    def lost(self) -> None:
        """Back to where it stood: its reply may have ended, but after the race was over."""
        self._was(self.began)
        self.logp, self.unscored, self.cut = 0.0, False, True

    def opened(self) -> None:
        """A new request goes out for what is missing."""
        self.finish, self.stopped, self.heard, self.begun, self.mute = None, None, 0, False, (0, 0.0)
        self._from = len(self.text)
        self._scan = 0
        if self.stop:
            while (at := self.text.find(self.stop, self._scan)) >= 0:
                self._scan = at + len(self.stop)

    @property
    def state(self) -> Transcript:
        asked = tuple(self.asked[index] for index in sorted(self.asked))
        return Transcript(self.began.prompt, self.text, self.thought, self.generated, self.waited, self.closed, asked)

    @property
    def stops(self) -> tuple[str, ...]:
        return ((self.stop,) if self.stop else ()) + self.ends + ((self.hold,) if self.hold else ())

    def hear(self, delta: Delta, answering: bool) -> str:
        """Takes a delta in, and returns what it adds for whoever watches.

        answering: thinking that is delivered apart counts as text, because it was ended from outside.
        """
        text, thought = (delta.text or delta.thought, "") if answering else (delta.text, delta.thought)
        tokens = delta.tokens if delta.tokens is not None else int(bool(text or thought or delta.asked))
        self.heard += tokens
        self.generated += tokens
        self.logp += delta.logp
        for part in delta.asked:
            call, name, arguments = self.asked.get(part.index, ("", "", ""))
            self.asked[part.index] = call or part.id, name or part.name, arguments + part.arguments
        if len(self.text) == self._from and not thought:
            self.likely = self.likely or delta.likely
        self.unscored |= delta.tokens is None and bool(text or thought)
        self.begun |= bool(text or thought or delta.asked)
        added = bool(text or thought or delta.asked)
        self.mute = (0, 0.0) if added else (self.mute[0] + tokens, self.mute[1] + delta.logp)
        shown = thought
        if self.stopped is None:
            self.thought += thought
            before = len(self.text)
            if self.hold and self.thought and text:
                self.stopped = self.hold  # thinking that is delivered apart has ended
                return shown
            self.text += text
            self._watch()
            if delta.stopped in self.stops and self.stopped is None:
                self.text += str(delta.stopped)  # the server took it off
                self._watch()
            shown += self.text[before:]
        if delta.finish is not None:
            self.finish = delta.finish
        return shown

    def broken(self) -> None:
        """The request ended before its reply: tokens that added no text will be generated once more."""
        self.generated -= self.mute[0]
        self.logp -= self.mute[1]
        self.mute = (0, 0.0)

    @property
    def started(self) -> bool:
        """Whether there is the beginning of a reply."""
        return bool(self.text or self.thought or self.asked)

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
