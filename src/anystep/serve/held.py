"""A text on its way out: nothing leaves that may turn out to be the beginning of a stop text."""

from __future__ import annotations

from collections.abc import Sequence


class Held:
    """One choice's text while it grows. What `push` and `rest` return, joined, is the text without its stop."""

    def __init__(self, stops: Sequence[str], keep: bool = False) -> None:
        """keep: the stop text belongs to the text, and only what is behind it does not."""
        self.stops, self.keep, self.text, self.sent = tuple(stops), keep, "", 0

    def push(self, piece: str) -> str:
        """What may leave now that `piece` has come."""
        self.text += piece
        return self._until(self._safe())

    def rest(self, final: str) -> str:
        """What is left of the final text."""
        self.text = final
        return self._until(len(final))

    def _until(self, end: int) -> str:
        piece = self.text[self.sent : end]
        self.sent = max(self.sent, end)
        return piece

    def _safe(self) -> int:
        found = [self.text.index(stop) + (len(stop) if self.keep else 0) for stop in self.stops if stop in self.text]
        if found:
            return min(found)
        if self.keep:
            return len(self.text)
        return len(self.text) - max((_overlap(self.text, stop) for stop in self.stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters are a beginning of `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
