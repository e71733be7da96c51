"""ZeroMQ's wire protocol, the side that listens: one connection as bytes in, messages out. Pure.

Only what a control plane on a private Unix socket needs: version 3, no
security mechanism (who may open the socket is the directory's matter), and the
messages of a ROUTER or a PUB. Why not libzmq: it ends the whole process where
a descriptor, a thread or a place in epoll is refused, and bounds neither
connections nor the frames of a message nor what a subscriber subscribes to
(docs/design.md has what was tried).

From: ZeroMQ RFC 23 (ZMTP 3.0), RFC 37 (3.1: PING, SUBSCRIBE and CANCEL are understood).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..exceptions import RemoteProtocolError

__all__ = ["Zmtp", "message"]

GREETING_BYTES = 64
READY_MAX = 4096
"""Bytes of the longest command, the handshake's included."""
CONTEXT_MAX = 16
"""Bytes of a PING that its PONG has to repeat."""
PEERS = {"ROUTER": (b"DEALER", b"REQ", b"ROUTER"), "PUB": (b"SUB", b"XSUB")}
"""Kinds of sockets that may connect to ours."""

_MORE, _LONG, _COMMAND = 1, 2, 4


def message(parts: Sequence[bytes]) -> bytes:
    """Return `parts` as the frames of one message."""
    last = len(parts) - 1
    return b"".join(_frame(part, _MORE if number < last else 0) for number, part in enumerate(parts))


def _frame(data: bytes, flags: int) -> bytes:
    if len(data) < 256:
        return bytes((flags, len(data))) + data
    return bytes((flags | _LONG,)) + len(data).to_bytes(8, "big") + data


def _command(name: bytes, data: bytes) -> bytes:
    return _frame(bytes((len(name),)) + name + data, _COMMAND)


class Zmtp:
    """One connection, from its first byte. Not thread-safe.

    Args:
        kind: what we are, ``"ROUTER"`` or ``"PUB"``.
        largest: bytes of the longest message, all its frames together.
        parts: frames of a message.

    Attributes:
        ready: whether the handshake is over.
    """

    def __init__(self, kind: str, *, largest: int, parts: int) -> None:
        self._kind = kind
        self._largest = largest
        self._most = parts
        self._buffer = bytearray()
        self._greeted = False
        self._parts: list[bytes] = []
        self._size = 0
        self._out = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        self.ready = False

    def outgoing(self) -> bytes:
        """Return what has to be sent now: greeting, handshake, answers to PING."""
        out, self._out = self._out, b""
        return out

    def receive(self, data: bytes) -> list[tuple[bytes, ...]]:
        """Take bytes; return the messages that they complete.

        What a subscriber subscribes to is a message of one frame: 1, or 0 to cancel, and the topic.

        Raises:
            RemoteProtocolError: not ZeroMQ, or beyond a bound; the connection is of no use any more.
        """
        self._buffer += data
        if not self._greeted and not self._greet():
            return []
        found: list[tuple[bytes, ...]] = []
        at = 0
        while (frame := self._next(at)) is not None:
            flags, start, at = frame
            body = bytes(self._buffer[start:at])
            if flags & _COMMAND:
                self._obey(body, found)
            elif not self.ready:
                raise RemoteProtocolError("a message before the handshake")
            else:
                self._collect(body, bool(flags & _MORE), found)
        del self._buffer[:at]
        return found

    def _greet(self) -> bool:
        head = bytes(self._buffer[:GREETING_BYTES])
        if head[:1] not in (b"", b"\xff") or (len(head) > 9 and head[9] != 0x7F):
            raise RemoteProtocolError("not ZeroMQ")
        if len(head) > 10 and head[10] < 3:
            raise RemoteProtocolError("a version of ZeroMQ before 4.0")
        if len(head) < GREETING_BYTES:
            return False
        if head[12:32].rstrip(b"\0") != b"NULL":
            raise RemoteProtocolError("another security mechanism than NULL")
        del self._buffer[:GREETING_BYTES]
        self._greeted = True
        kind = self._kind.encode()
        self._out += _command(b"READY", b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind)
        return True

    def _next(self, at: int) -> tuple[int, int, int] | None:
        """Return flags, begin and end of the frame at `at`; None if it is not all there."""
        buffer = self._buffer
        if len(buffer) < at + 2:
            return None
        flags = buffer[at]
        if flags > (_MORE | _LONG | _COMMAND) or (flags & _COMMAND and flags & _MORE):
            raise RemoteProtocolError(f"a frame with flags {flags:#04x}")
        start = at + (9 if flags & _LONG else 2)
        if len(buffer) < start:
            return None
        size = int.from_bytes(buffer[at + 1 : start], "big")
        if size > (READY_MAX if flags & _COMMAND else self._largest - self._size):
            raise RemoteProtocolError(f"a frame of {size} bytes")
        end = start + size
        return (flags, start, end) if len(buffer) >= end else None

    def _collect(self, body: bytes, more: bool, found: list[tuple[bytes, ...]]) -> None:
        self._parts.append(body)
        self._size += len(body)
        if len(self._parts) > self._most:
            raise RemoteProtocolError(f"a message of more than {self._most} frames")
        if not more:
            found.append(tuple(self._parts))
            self._parts, self._size = [], 0

    def _obey(self, body: bytes, found: list[tuple[bytes, ...]]) -> None:
        """Carry out a command; one that is not known is left alone, as the RFC wants it."""
        length = body[0] if body else 0
        name, rest = body[1 : 1 + length], body[1 + length :]
        if not self.ready:
            if name != b"READY":
                raise RemoteProtocolError(f"the command {name[:16]!r} instead of a handshake")
            kind = _properties(rest).get(b"socket-type", b"")
            if kind not in PEERS[self._kind]:
                raise RemoteProtocolError(f"a {kind[:16].decode('ascii', 'replace')} socket at a {self._kind}")
            self.ready = True
        elif name == b"PING":
            self._out += _command(b"PONG", rest[2 : 2 + CONTEXT_MAX])
        elif name in (b"SUBSCRIBE", b"CANCEL") and self._kind == "PUB":
            found.append((bytes((name == b"SUBSCRIBE",)) + rest,))


def _properties(data: bytes) -> dict[bytes, bytes]:
    """Return the properties of a READY, names in lower case."""
    found = {}
    at = 0
    while at < len(data):
        value = at + 1 + data[at]
        end = value + 4 + int.from_bytes(data[value : value + 4], "big")
        if end > len(data) or value + 4 > len(data):
            raise RemoteProtocolError("a handshake that ends too early")
        found[data[at + 1 : value].lower()] = data[value + 4 : end]
        at = end
    return found
