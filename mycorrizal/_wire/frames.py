"""Frames of the data plane, above QUIC's streams.

Each side of a connection opens one unidirectional stream first, its *lane*. A
lane carries frames: ``u32 length, u8 kind, body``; the length counts kind and
body. What is larger than ``INLINE_MAX`` travels on a unidirectional stream of
its own, which begins with ``u16 length`` and the same ``u8 kind, body`` but
for the value, whose size stands as a ``u64`` at the end; then comes the value.
A bidirectional stream begins alike with an ``OPEN``; then come raw bytes.

All integers are big-endian. ``docs/wire.md`` has the table.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..exceptions import RemoteProtocolError

__all__ = [
    "ALPN",
    "BULK_INITIAL",
    "FRAME_MAX",
    "HANDSHAKE_MAX",
    "INLINE_MAX",
    "NO_PROOF",
    "PIPES_MAX",
    "STREAMS_MAX",
    "STREAM_WINDOW",
    "VALUES_MAX",
    "VALUES_TAKEN",
    "Challenge",
    "Close",
    "Frame",
    "LaneReader",
    "Proof",
    "Status",
    "StreamHead",
    "Welcome",
    "frame",
    "only_frame",
    "stream_head",
]

ALPN = "mycorrizal/1"

INLINE_MAX = 64 << 10
"""Largest value that travels on the lane, in bytes of its wire form."""

FRAME_MAX = INLINE_MAX + 1024
"""Longest frame accepted once the peer is proved."""

HANDSHAKE_MAX = 32 << 10
"""Longest frame accepted before: a challenge, or a proof with a certificate chain."""

BULK_INITIAL = 256 << 10
"""Bytes of a stream that may be sent before the receiver grants more."""

STREAM_WINDOW = 4 << 20
"""Bytes of an open stream that may wait for its reader."""

VALUES_MAX = 64
"""Values that one side sends at a time on streams of their own; the others wait their turn."""

VALUES_TAKEN = 128
"""Values that are taken at a time: more than an honest peer sends, since it may give some up."""

PIPES_MAX = 256
"""Streams that one side opens for its users at a time."""

STREAMS_MAX = 1024
"""Streams of the peer that may be open or unfinished at a time, whatever they are."""

_NAME_MAX = 255
_HEAD = struct.Struct(">IB")
_U16 = struct.Struct(">H")


class Frame(enum.IntEnum):
    """Kinds of frames; numbers are append-only."""

    CHALLENGE = 1
    PROOF = 2
    WELCOME = 3
    MESSAGE = 4  # u64 sequence, value
    ACCEPTED = 5  # u64 sequence: all up to it are in the inbox
    SKIP = 6  # u64 sequence: will not come
    REQUEST = 7  # u32 id, u32 milliseconds left (0: no end), u8 length, name, value
    RESPONSE = 8  # u32 id, u8 status, value
    CANCEL = 9  # u32 id
    GRANT = 10  # u64 stream, u64 bytes in all that may be sent on it
    OPEN = 11  # u8 length, name


class Status(enum.IntEnum):
    """How a request ended."""

    OK = 0
    RAISED = 1  # value: [type, text]
    UNKNOWN = 2
    BUSY = 3
    TOO_LARGE = 4
    CLOSING = 5
    EXPIRED = 6
    TOO_DEEP = 7  # made within so many handlers that no thread may be left
    NOT_YET = 8  # no such handler, of a node that has just started and may register it


NO_PROOF = "no proof in time"
"""Reason of a ``NOT_PROVED`` of which nothing was wrong but the time."""


class Close(enum.IntEnum):
    """Application error codes: why a connection is closed, or a stream reset or stopped.

    Far from the transport's own codes (RFC 9000 §20.1), which end up in the
    same place: a peer whose QUIC failed must not seem to say ``IDLE``.
    """

    SHUTDOWN = 0x6D00
    IDLE = 0x6D01
    PROTOCOL = 0x6D02
    NOT_PROVED = 0x6D03
    TRY_AGAIN = 0x6D04
    NAME_TAKEN = 0x6D05
    KEY_REMOVED = 0x6D06
    WRONG_NAME = 0x6D07
    FULL = 0x6D08
    CANCELLED = 0x6D09
    TOO_LARGE = 0x6D0A
    STALLED = 0x6D0B
    DECLARED_DEAD = 0x6D0C
    UNKNOWN = 0x6D0D
    FLOOD = 0x6D0E
    REPLACED = 0x6D0F
    OTHER_PROCESS = 0x6D10
    WRONG_FORMAT = 0x6D11
    NOT_YET = 0x6D12


# -- building -------------------------------------------------------------------------


def frame(kind: int, body: bytes) -> bytes:
    """Return one lane frame."""
    return _HEAD.pack(len(body) + 1, kind) + body


def stream_head(kind: int, body: bytes, size: int | None = None) -> bytes:
    """Return what a stream begins with; `size` is that of the value that follows, None for an ``OPEN``."""
    if size is not None:
        body += size.to_bytes(8, "big")
    return _U16.pack(len(body) + 1) + bytes((kind,)) + body


message_body = struct.Struct(">Q").pack
response_body = struct.Struct(">IB").pack
grant_body = struct.Struct(">QQ").pack
id_body = struct.Struct(">I").pack

_SEQUENCE = struct.Struct(">Q")
_REQUEST_HEAD = struct.Struct(">IIH")
_REQUEST = struct.Struct(">IIHB")
_RESPONSE = struct.Struct(">IB")
_GRANT = struct.Struct(">QQ")
_ID = struct.Struct(">I")


def parse_sequence(body: bytes) -> int:
    """Return the number that an ``ACCEPTED`` or ``SKIP`` is, or a ``MESSAGE`` begins with."""
    if len(body) < 8:
        raise RemoteProtocolError("a frame without its sequence number")
    return int(_SEQUENCE.unpack_from(body)[0])


def request_body(number: int, left: int, depth: int = 0) -> bytes:
    """Return what a ``REQUEST`` begins with, before the name's field.

    Args:
        left: milliseconds that the caller waits, 0 for ever.
        depth: handlers that wait for it, one within the other.
    """
    return _REQUEST_HEAD.pack(number, left, min(depth, 0xFFFF))


def parse_request(body: bytes) -> tuple[int, int, int, str, int]:
    """Return id, milliseconds left, depth, name and the offset of the value."""
    try:
        number, left, depth, size = _REQUEST.unpack_from(body)
        if len(body) < 11 + size:
            raise RemoteProtocolError("a request cut off in its name")
        return number, left, depth, body[11 : 11 + size].decode(), 11 + size
    except (struct.error, UnicodeDecodeError):
        raise RemoteProtocolError("a request without id, deadline and name") from None


def parse_response(body: bytes) -> tuple[int, int]:
    """Return id and status; the value begins at offset 5."""
    if len(body) < 5:
        raise RemoteProtocolError("a response without id and status")
    number, status = _RESPONSE.unpack_from(body)
    if status > Status.NOT_YET:
        raise RemoteProtocolError(f"a response of unknown status {status}")
    return number, status


def parse_grant(body: bytes) -> tuple[int, int]:
    """Return stream and limit."""
    if len(body) != 16:
        raise RemoteProtocolError("a grant of the wrong size")
    stream, limit = _GRANT.unpack(body)
    return stream, limit


def parse_open(body: bytes) -> str:
    """Return the name in an ``OPEN``."""
    if len(body) < 2 or len(body) != 1 + body[0]:
        raise RemoteProtocolError("an open without a name")
    try:
        return body[1:].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("an open whose name is not UTF-8") from None


def parse_id(body: bytes) -> int:
    """Return the id of a ``CANCEL``."""
    if len(body) != 4:
        raise RemoteProtocolError("a cancel of the wrong size")
    return int(_ID.unpack(body)[0])


def name_field(name: str) -> bytes:
    """Return a handler's or stream's name as ``u8 length, text``.

    Raises:
        ValueError: it is empty or longer than 255 bytes.
    """
    raw = name.encode()
    if not 0 < len(raw) <= _NAME_MAX:
        raise ValueError(f"a name has 1 to {_NAME_MAX} bytes of UTF-8, not {len(raw)}")
    return bytes((len(raw),)) + raw


# -- the three frames that open a connection ---------------------------------------------


FORMAT = 2
"""Version of all that agents tell each other over a connection: frames, values, caches, what they share."""
_FORMAT_OLDEST = 1  # of whoever says none


class Limits(NamedTuple):
    """What one side accepts; the other keeps to it."""

    messages: int
    bytes: int
    requests: int
    value: int


class Challenge(NamedTuple):
    """Server to client, first of all."""

    nonce: bytes
    name: str
    boot: bytes
    offer: bytes
    limits: Limits
    format: int = FORMAT

    def pack(self) -> bytes:
        return frame(
            Frame.CHALLENGE,
            _fields(
                self.nonce, self.name.encode(), self.boot, self.offer, _limits(self.limits), _U16.pack(self.format)
            ),
        )

    @classmethod
    def parse(cls, body: bytes) -> Challenge:
        nonce, name, boot, offer, limits, *more = _split(body, 5)
        if len(nonce) != 32 or len(boot) != 8:
            raise RemoteProtocolError("a challenge whose nonce or boot id has the wrong size")
        return cls(nonce, _name(name), boot, offer, _parse_limits(limits), _format(more))


class Proof(NamedTuple):
    """Client to server, its answer; `accepted` is the last message taken from this server."""

    nonce: bytes
    name: str
    boot: bytes
    proof: bytes
    limits: Limits
    accepted: int
    format: int = FORMAT

    def pack(self) -> bytes:
        return frame(
            Frame.PROOF,
            _fields(
                self.nonce,
                self.name.encode(),
                self.boot,
                self.proof,
                _limits(self.limits),
                self.accepted.to_bytes(8, "big"),
                _U16.pack(self.format),
            ),
        )

    @classmethod
    def parse(cls, body: bytes) -> Proof:
        nonce, name, boot, proof, limits, accepted, *more = _split(body, 6)
        if len(nonce) != 32 or len(boot) != 8 or len(accepted) != 8:
            raise RemoteProtocolError("a proof whose nonce, boot id or sequence has the wrong size")
        taken = int.from_bytes(accepted, "big")
        return cls(nonce, _name(name), boot, proof, _parse_limits(limits), taken, _format(more))


class Welcome(NamedTuple):
    """Server to client: proved; the server's own proof, and the last message taken from this client."""

    answer: bytes
    accepted: int

    def pack(self) -> bytes:
        return frame(Frame.WELCOME, _fields(self.answer, self.accepted.to_bytes(8, "big")))

    @classmethod
    def parse(cls, body: bytes) -> Welcome:
        answer, accepted, *_ = _split(body, 2)
        if len(accepted) != 8:
            raise RemoteProtocolError("a welcome whose sequence has the wrong size")
        return cls(answer, int.from_bytes(accepted, "big"))


def _fields(*fields: bytes) -> bytes:
    return b"".join(_U16.pack(len(field)) + field for field in fields)


def _split(body: bytes, count: int) -> list[bytes]:
    """Return `count` fields, and what follows of them, from a later version."""
    fields: list[bytes] = []
    at = 0
    while len(fields) < count or at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        field = body[at + 2 : at + 2 + size]
        if len(body) < at + 2 or len(field) != size:
            raise RemoteProtocolError("a handshake frame that is cut off")
        fields.append(field)
        at += 2 + size
    return fields


def _format(more: list[bytes]) -> int:
    return int.from_bytes(more[0][:8], "big") if more else _FORMAT_OLDEST


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a node name that is not UTF-8") from None
    if not 0 < len(raw) <= _NAME_MAX:
        raise RemoteProtocolError(f"a node name of {len(raw)} bytes")
    return name


_LIMITS = struct.Struct(">QQQQ")


def _limits(limits: Limits) -> bytes:
    return _LIMITS.pack(*limits)


def _parse_limits(raw: bytes) -> Limits:
    if len(raw) != _LIMITS.size:
        raise RemoteProtocolError("limits of the wrong size")
    limits = Limits(*_LIMITS.unpack(raw))
    if min(limits) < 1:
        raise RemoteProtocolError("a limit of zero")
    return limits


# -- reading ---------------------------------------------------------------------------


class LaneReader:
    """Cuts a lane's bytes into frames; holds at most one incomplete frame."""

    __slots__ = ("_rest", "limit")

    def __init__(self, limit: int = HANDSHAKE_MAX) -> None:
        self.limit = limit
        self._rest = b""

    @property
    def between(self) -> bool:
        """Whether no frame has begun."""
        return not self._rest

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield ``(kind, body)`` of each frame that is complete; exhaust it before the next ``feed``.

        Raises:
            RemoteProtocolError: a frame longer than ``limit``, or of no length.
        """
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= 5:
                size, kind = _HEAD.unpack_from(data, at)
                if not 0 < size <= self.limit:
                    raise RemoteProtocolError(f"a frame of {size} bytes where at most {self.limit} may be")
                stop = at + 4 + size
                if stop > end:
                    break
                start, at = at + 5, stop
                yield kind, data[start:stop]
        finally:
            self._rest = data[at:] if at < end else b""


def only_frame(data: bytes) -> tuple[int, bytes] | None:
    """Return ``(kind, body)`` of the one frame that `data` is; None if it is less, or more."""
    if len(data) < 5:
        return None
    size, kind = _HEAD.unpack_from(data)
    return (kind, data[5:]) if size == len(data) - 4 else None


class StreamHead:
    """Collects what a stream begins with; `since` is when it began."""

    __slots__ = ("_data", "since")

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        self._data = b""

    def feed(self, data: bytes) -> tuple[int, bytes, bytes] | None:
        """Return ``(kind, body, the rest of the data)`` once the head is complete.

        Raises:
            RemoteProtocolError: it is longer than any head, or empty.
        """
        self._data += data
        if len(self._data) < 2:
            return None
        size = int.from_bytes(self._data[:2], "big")
        if not 0 < size <= 512:
            raise RemoteProtocolError(f"a stream that begins with a head of {size} bytes")
        if len(self._data) < 2 + size:
            return None
        data, self._data = self._data, b""
        return data[2], data[3 : 2 + size], data[2 + size :]
