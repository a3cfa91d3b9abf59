"""Server-sent events: from bytes, in whatever packets they come, to the data of each event."""

from __future__ import annotations

import codecs

MOST = 4 << 20  # characters of one event that are taken in; a server that sends more is broken, not obeyed


class TooLong(Exception):
    """One event is larger than any that makes sense."""


class Events:
    """Reads a stream of server-sent events, as the HTML standard frames them.

    Characters, lines and events may be split between packets; a line ends with LF, CR or CRLF; comments and fields
    other than `data` are passed over, and several `data` lines of an event are joined by a line feed. Bytes that are no
    UTF-8 become U+FFFD. Source: WHATWG HTML, section 9.2.6.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line, self._data, self._size = list[str](), list[str](), 0  # the line that is not over, in its packets
        self._held, self._first = "", True

    def feed(self, packet: bytes) -> list[str]:
        """The data of the events that `packet` completes. Raises TooLong."""
        text = self._decoder.decode(packet)
        if self._first and text:
            text, self._first = text.removeprefix("\ufeff"), False
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""  # may be half of a CRLF
        text = text.removesuffix(self._held).replace("\r\n", "\n").replace("\r", "\n")
        first, *more = text.split("\n")
        self._line.append(first)
        self._size += len(first)
        found = []
        for rest in more:
            line = "".join(self._line)
            self._line = [rest]
            self._size += len(rest)
            if line:
                self._field(line)
            elif self._data:
                found.append(self._event())
        if self._size > MOST:
            raise TooLong(f"an event of more than {MOST:,} characters")
        return found

    def end(self) -> list[str]:
        """The data of an event that the end of the stream completes: servers forget its blank line."""
        return self.feed(b"\n\n")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif line.startswith("{") and not self._data:
            self._data.append(line)  # a bare object: an error that a gateway writes without framing it

    def _event(self) -> str:
        found = "\n".join(self._data)
        self._data, self._size = [], sum(map(len, self._line))
        return found
