"""Server-sent events: from bytes, in whatever packets they come, to the data of each event."""

from __future__ import annotations

import codecs

MOST = 16 << 20  # characters of one event that are taken in; a server that sends more is broken, not obeyed


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
        self._rest, self._data, self._size = "", list[str](), 0
        self._first = True

    def feed(self, packet: bytes) -> list[str]:
        """The data of the events that `packet` completes. Raises TooLong."""
        text = self._decoder.decode(packet)
        if self._first and text:
            text, self._first = text.removeprefix("\ufeff"), False
        text = self._rest + text
        held = "\r" if text.endswith("\r") else ""  # may be half of a CRLF
        lines = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + held
        found = []
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                found.append(self._event())
        if self._size + len(self._rest) > MOST:
            raise TooLong(f"an event of more than {MOST:,} characters")
        return found

    def end(self) -> list[str]:
        """The data of an event that the end of the stream completes: servers forget its blank line."""
        found = self.feed(b"\n\n") if self._rest or self._data else []
        return found

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
            self._size += len(value)
        elif line.startswith("{") and not self._data:
            self._data.append(line)  # a bare object: an error that a gateway writes without framing it
            self._size += len(line)

    def _event(self) -> str:
        found = "\n".join(self._data)
        self._data, self._size = [], 0
        return found
