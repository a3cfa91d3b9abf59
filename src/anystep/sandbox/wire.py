"""Frames over a stream: four bytes of length, then so many bytes."""

from __future__ import annotations

import os
import struct

HEAD = struct.Struct(">I")
LONGEST = 256 << 20  # bytes of one frame


class Closed(EOFError):
    """The other end is gone, or spoke out of turn."""


def send(fd: int, data: bytes) -> None:
    """Write one frame to a blocking descriptor. Raises Closed where nobody reads."""
    view = memoryview(HEAD.pack(len(data)) + data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except (BrokenPipeError, ConnectionResetError) as problem:
        raise Closed("nobody reads") from problem


def receive(fd: int, longest: int = LONGEST) -> bytes:
    """Read one frame of at most `longest` bytes from a blocking descriptor. Raises Closed at the end of the stream."""
    (size,) = HEAD.unpack(_exactly(fd, HEAD.size))
    if size > longest:
        raise Closed(f"a frame of {size} bytes, where {longest} are allowed")
    return _exactly(fd, size)


def _exactly(fd: int, n: int) -> bytes:
    parts = bytearray()
    while len(parts) < n:
        try:
            piece = os.read(fd, min(n - len(parts), 1 << 20))
        except ConnectionResetError as problem:
            raise Closed("the stream was cut") from problem
        if not piece:
            raise Closed("the stream ended")
        parts += piece
    return bytes(parts)
