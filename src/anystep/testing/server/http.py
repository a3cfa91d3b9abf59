"""HTTP/1.1 on raw streams: every byte is the caller's, and a peer that leaves is noticed while it is being served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

MOST = 1 << 26  # bytes of a head or a body that are taken in; more is an error, not memory


class Left(Exception):
    """The other end closed or reset the connection."""


@dataclass(frozen=True)
class Head:
    """The first line and the headers, by lower-case name, of a request or a response."""

    first: str
    headers: dict[str, str]

    @property
    def stays(self) -> bool:
        """Whether the connection is kept after this message."""
        wanted = self.headers.get("connection", "").lower()
        return wanted != "close" and ("HTTP/1.1" in self.first or wanted == "keep-alive")


class Peer:
    """One connection seen from this end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self._ahead = reader, writer, bytearray()

    async def _more(self) -> None:
        try:
            data = await self.reader.read(1 << 16)
        except (ConnectionError, OSError) as error:
            raise Left(str(error)) from None
        if not data:
            raise Left("end of stream")
        self._ahead += data
        if len(self._ahead) > MOST:
            raise Left(f"more than {MOST} bytes")

    async def gone(self) -> None:
        """Returns once the other end has left; what it sends meanwhile is kept for the next message."""
        with contextlib.suppress(Left):
            while True:
                await self._more()

    async def until(self, mark: bytes) -> bytes:
        while (at := self._ahead.find(mark)) < 0:
            await self._more()
        return self._cut(at + len(mark))

    async def exactly(self, size: int) -> bytes:
        if size > MOST:
            raise Left(f"{size} bytes announced")
        while len(self._ahead) < size:
            await self._more()
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return data

    async def head(self) -> Head:
        """Raises Left where the other end closes, or says what is not HTTP."""
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = (line.partition(":") for line in lines[1:])
        return Head(lines[0], {name.strip().lower(): value.strip() for name, _, value in pairs})

    async def pieces(self, head: Head, closes: bool = False) -> AsyncIterator[bytes]:
        """The body as it arrives. closes: a body without a length goes on until the connection ends (a response's)."""
        try:
            if head.headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
                    yield await self.exactly(size)
                    await self.until(b"\r\n")
                while await self.until(b"\r\n") != b"\r\n":
                    pass
                return
            left = int(head.headers["content-length"]) if "content-length" in head.headers else (-1 if closes else 0)
        except ValueError as error:
            raise Left(f"not HTTP: {error}") from None
        while left:
            try:
                if not self._ahead:
                    await self._more()
            except Left:
                if left < 0:
                    return
                raise
            piece = self._cut(min(len(self._ahead), left) if left > 0 else len(self._ahead))
            left -= len(piece) if left > 0 else 0
            yield piece

    async def body(self, head: Head) -> bytes:
        return b"".join([piece async for piece in self.pieces(head)])

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (ConnectionError, OSError) as error:
            raise Left(str(error)) from None

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection by an RST instead of a FIN: the other end reads "connection reset by peer"."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def head_of(status: int, reason: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
