"""What a connection of one host puts on its socket: streams, cut into pieces.

A piece is ``u32 length, u8 kind, u64 stream, body``, where the length is that
of the body. The first one each way is a ``HELLO``. Streams are numbered as
QUIC's are. All integers are big-endian.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..exceptions import RemoteProtocolError

__all__ = [
    "HEAD_SIZE", "Hello", "Piece", "PieceReader", "code_piece", "only_data", "parse_close", "parse_code", "piece_head",
]  # fmt: skip

BODY_MAX = 1024
"""Longest body of a piece that carries no bytes of a stream: it is kept until it is whole."""

_HEAD = struct.Struct(">IBQ")
HEAD_SIZE = _HEAD.size
_CODE = struct.Struct(">I")
_HELLO = struct.Struct(">8s32s8s32sH")
_MAGIC = b"myc host"
_REASON_MAX = 256


class Piece(enum.IntEnum):
    """Kinds of pieces; numbers are append-only."""

    HELLO = 1
    DATA = 2  # bytes of a stream
    LAST = 3  # the same, and its end
    RESET = 4  # u32 code: the sender gave the stream up
    STOP = 5  # u32 code: the sender wants no more of the stream
    PING = 6
    PONG = 7
    CLOSE = 8  # u32 code, reason: nothing follows


def piece_head(kind: int, stream: int, size: int) -> bytes:
    """Return what stands before a body of `size` bytes."""
    return _HEAD.pack(size, kind, stream)


def only_data(data: bytes) -> tuple[int, bytes] | None:
    """Return ``(stream, body)`` of the one piece of a stream that `data` is; None if it is anything else."""
    if len(data) < HEAD_SIZE:
        return None
    size, kind, stream = _HEAD.unpack_from(data)
    return (stream, data[HEAD_SIZE:]) if kind == Piece.DATA and size == len(data) - HEAD_SIZE else None


def code_piece(kind: Piece, stream: int, code: int, reason: str = "") -> bytes:
    """Return a piece that says why."""
    body = _CODE.pack(code) + reason.encode("utf-8", "replace")[:_REASON_MAX]
    return _HEAD.pack(len(body), kind, stream) + body


def parse_code(body: bytes) -> int:
    """Return the code of a ``RESET`` or ``STOP``."""
    if len(body) != 4:
        raise RemoteProtocolError("a piece without its code")
    return int(_CODE.unpack(body)[0])


def parse_close(body: bytes) -> tuple[int, str]:
    """Return code and reason of a ``CLOSE``."""
    return parse_code(body[:4]), body[4 : 4 + _REASON_MAX].decode("utf-8", "replace")


class Hello(NamedTuple):
    """Who speaks: where its process is (a hash), which run of it, a salt, and the address of its data plane."""

    place: bytes
    boot: bytes
    salt: bytes
    host: str
    port: int

    def pack(self) -> bytes:
        body = _HELLO.pack(_MAGIC, self.place, self.boot, self.salt, self.port) + self.host.encode()
        return _HEAD.pack(len(body), Piece.HELLO, 0) + body

    @classmethod
    def parse(cls, body: bytes) -> Hello:
        try:
            magic, place, boot, salt, port = _HELLO.unpack_from(body)
            host = body[_HELLO.size :].decode()
        except (struct.error, UnicodeDecodeError):
            raise RemoteProtocolError("a hello that cannot be read") from None
        if magic != _MAGIC:
            raise RemoteProtocolError("a hello of something else")
        return cls(place, boot, salt, host, port)


class PieceReader:
    """Cuts what comes into pieces. Bytes of streams are handed on as they come, of anything else one piece is held."""

    __slots__ = ("_kind", "_left", "_rest", "_stream")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes that are still to come of a piece that has begun
        self._kind = self._stream = 0

    @property
    def pending(self) -> tuple[int, int]:
        """The stream of a piece that has begun, and how many of its bytes are still to come."""
        return self._stream, self._left

    @property
    def between(self) -> bool:
        """Whether no piece has begun."""
        return not (self._left or self._rest)

    def skip(self, size: int) -> bool:
        """Take `size` of the ``pending`` bytes as read; return whether the stream ends with them."""
        self._left -= size
        return not self._left and self._kind == Piece.LAST

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield ``(kind, stream, body)``; of a piece of a stream that is not whole, what is there as ``DATA``.

        Exhaust it before the next ``feed``.

        Raises:
            RemoteProtocolError: an unknown kind, or a body that is too long.
        """
        at = 0
        if self._left:
            body = data if len(data) <= self._left else data[: self._left]
            at = len(body)
            self._left -= at
            yield (Piece.DATA if self._left else self._kind), self._stream, body
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        end = len(data)
        while end - at >= _HEAD.size:
            size, kind, stream = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            at = start + size
            if kind in (Piece.DATA, Piece.LAST):
                if at > end:
                    self._left, self._kind, self._stream = at - end, kind, stream
                    if start < end:
                        yield Piece.DATA, stream, data[start:]
                    return
            elif not Piece.HELLO <= kind <= Piece.CLOSE:
                raise RemoteProtocolError(f"a piece of kind {kind}")
            elif size > BODY_MAX:
                raise RemoteProtocolError(f"a piece of {size} bytes where at most {BODY_MAX} may be")
            elif at > end:
                at = start - _HEAD.size
                break
            yield kind, stream, data[start:at]
        self._rest = data[at:]
