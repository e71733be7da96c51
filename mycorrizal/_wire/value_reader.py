"""The wire form of a value, read in pieces as they arrive."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from ..exceptions import RemoteProtocolError
from .value_guard import BUFFER_MIN, BUFFERS_MAX, BYTES_FLAG, HEADER_MAX, MANY

__all__ = ["ValueReader", "split"]

SIZE_MIN = 6
"""Bytes of the shortest value: the length of a header of one byte, and that."""


class ValueReader:
    """Takes the wire form of one value in pieces, as they come, and puts each byte where it stays.

    For the loop thread: only copies. A buffer is a ``BytesIO`` over zeros of
    its exact length, which the system gives only as they are written: a peer
    that announces much and sends little costs nothing. ``getvalue`` hands the
    bytes over without a copy, ``getbuffer`` the memory for an array. (A
    ``bytearray`` would be filled when made, or hold a quarter too much after
    it grew.)

    Attributes:
        received: bytes so far.
        done: whether that is all of them.
    """

    __slots__ = (
        "_at", "_begin", "_buffers", "_head", "_header", "_lengths", "_need", "_open", "_size", "done", "received",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        """`size`: bytes of the whole wire form, as announced; the caller has checked it against its limit.

        Raises:
            RemoteProtocolError: no value is that short.
        """
        if size < SIZE_MIN:
            raise RemoteProtocolError(f"a value of {size} bytes")
        self._size = size
        self._begin: bytearray | None = bytearray()  # what came before the lengths are known
        self._need = 1  # bytes of the preamble, as far as is known
        self._lengths: tuple[int, ...] = ()
        self._head = 0  # length of the header
        self._header = bytearray()
        self._buffers: list[BytesIO] = []
        self._at = 0  # bytes in the last buffer
        self._open = False  # the last buffer takes more
        self.received = 0
        self.done = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            RemoteProtocolError: more than announced, or a preamble that does not fit; the value is lost.
        """
        self.received += len(chunk)
        if self.received > self._size:
            raise RemoteProtocolError(f"more than the {self._size} bytes announced for a value")
        view = memoryview(chunk)
        if self._begin is not None:
            rest = self._preamble(view)
            if rest is None:
                return
            view = rest
        missing = self._head - len(self._header)
        if missing:
            self._header += view[:missing]
            view = view[missing:]
        if view:
            self._fill(view)
        self.done = self.received == self._size

    def room(self) -> memoryview | None:
        """Return the memory that the next bytes belong in, None if that is not known, or not worth it.

        Who writes there tells ``filled``, and lets go of it first.
        """
        if self._begin is not None or len(self._header) < self._head or self.received >= self._size:
            return None
        return self._buffer().getbuffer()[self._at :]

    def filled(self, size: int) -> None:
        """The next `size` bytes were written where ``room`` said."""
        self.received += size
        self._at = (self._at + size) % self._length()
        self._open = self._at > 0
        if self._open:
            self._buffers[-1].seek(self._at)
        self.done = self.received == self._size

    def parts(self) -> tuple[bytes, list[Any]]:
        """Return the header and the buffers, once ``done``; the reader is empty after that. Any thread.

        A buffer is ``bytes``, or a writable ``memoryview`` for an array.
        """
        buffers, self._buffers = self._buffers, []
        return bytes(self._header), [
            buffer.getvalue() if length & BYTES_FLAG else buffer.getbuffer()
            for buffer, length in zip(buffers, self._lengths, strict=True)
        ]

    def _preamble(self, view: memoryview) -> memoryview | None:
        """Take bytes until the lengths are known; return what is left of `view` then."""
        begin = self._begin
        assert begin is not None
        while True:
            missing = self._need - len(begin)
            begin += view[:missing]
            view = view[missing:]
            if len(begin) < self._need:
                return None
            need = self._needed(begin)
            if need == self._need:
                break
            self._need = need
        count = begin[0] if begin[0] < MANY else int.from_bytes(begin[1:5], "big")
        *lengths, self._head = struct.unpack_from(f">{count}QI", begin, len(begin) - 8 * count - 4)
        total = len(begin) + self._head
        for length in lengths:
            if length & ~BYTES_FLAG < BUFFER_MIN:
                raise RemoteProtocolError("a value with a buffer too short to be one")
            total += length & ~BYTES_FLAG
        if total != self._size or not 0 < self._head <= HEADER_MAX:
            raise RemoteProtocolError("a value whose parts are not as long as it is, or with too long a header")
        self._lengths = tuple(lengths)
        self._begin = None
        return view

    def _needed(self, begin: bytearray) -> int:
        """Return the length of the preamble, as far as `begin` tells it."""
        count, fixed = begin[0], 5
        if count == MANY:
            if len(begin) < 5:
                return 5
            count, fixed = int.from_bytes(begin[1:5], "big"), 9
            if count < MANY:
                raise RemoteProtocolError("a value with a strange number of buffers")
        if count * (8 + BUFFER_MIN) > self._size or count > BUFFERS_MAX:
            raise RemoteProtocolError(f"{count} buffers in a value of {self._size} bytes")
        return fixed + 8 * count

    def _fill(self, view: memoryview) -> None:
        """Write bytes into the buffers, one after the other."""
        while view:
            buffer = self._buffer()
            length = self._length()
            piece = view[: length - self._at]
            buffer.write(piece)
            self._at = (self._at + len(piece)) % length
            self._open = self._at > 0
            view = view[len(piece) :]

    def _buffer(self) -> BytesIO:
        """Return the buffer that the next byte goes to."""
        if not self._open:
            self._buffers.append(BytesIO(bytes(self._lengths[len(self._buffers)] & ~BYTES_FLAG)))
            self._open = True
        return self._buffers[-1]

    def _length(self) -> int:
        return self._lengths[len(self._buffers) - 1] & ~BYTES_FLAG


def split(data: bytes) -> tuple[bytes, list[Any]]:
    """Return header and buffers of a whole wire form. Any thread.

    A buffer is ``bytes``, or a read-only ``memoryview`` of `data` for an array: that is not copied.

    Raises:
        RemoteProtocolError: its parts are not as long as it is.
    """
    reader = ValueReader(len(data))
    rest = reader._preamble(memoryview(data).toreadonly())
    if rest is None:
        raise RemoteProtocolError("a value that ends too early")
    at = reader._head
    buffers: list[Any] = []
    for length in reader._lengths:
        piece = rest[at : at + (length & ~BYTES_FLAG)]
        buffers.append(bytes(piece) if length & BYTES_FLAG else piece)
        at += len(piece)
    return bytes(rest[: reader._head]), buffers
