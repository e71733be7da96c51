"""Bytes on streams of their own: large values, and the streams a user opens.

A sender may send ``BULK_INITIAL`` bytes at once and then what the receiver
grants: QUIC's own windows do not help, aioquic widens them whether or not
anyone reads. A receiver grants a whole value as soon as its memory budget has
room for it, and an open stream as its reader reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .._wire.frames import BULK_INITIAL, STREAM_WINDOW
from .._wire.values import ValueReader
from ..exceptions import RemoteProtocolError
from .ports import Connection, Received, Sink

__all__ = ["Budget", "InPipe", "InValue", "Outflow", "feed"]

SEND_AHEAD = 2 << 20
"""Bytes of all flows of a connection that wait inside QUIC; more is slower, since it copies them as they grow."""

_PIECE = 256 << 10


class Outflow:
    """What is still to be sent on one stream.

    Attributes:
        limit: bytes the receiver has granted in all.
        sent: bytes given to QUIC.
        fin: whether the stream ends after what is queued.
    """

    __slots__ = ("_parts", "_taken", "fin", "limit", "sent", "stream")

    def __init__(
        self, stream: int, parts: list[memoryview], *, fin: bool, taken: Callable[[int], None] | None = None
    ) -> None:
        self.stream = stream
        self._parts = deque(part for part in parts if len(part))
        self._taken = taken
        self.fin = fin
        self.limit = BULK_INITIAL
        self.sent = 0

    def append(self, data: memoryview) -> None:
        """Queue more."""
        if len(data):
            self._parts.append(data)

    @property
    def idle(self) -> bool:
        """Whether nothing can be sent now."""
        return self.sent >= self.limit if self._parts else not self.fin

    def push(self, conn: Connection, room: int) -> int:
        """Give up to `room` bytes to `conn`; return how many. After the last ones ``finished`` is true."""
        if not self._parts:
            conn.send(self.stream, b"", fin=True)
            self.fin = False
            self.limit = -1
            return 0
        part = self._parts[0]
        size = min(len(part), room, _PIECE, self.limit - self.sent)
        if size == len(part):
            self._parts.popleft()
        else:
            self._parts[0] = part[size:]
        last = self.fin and not self._parts
        conn.send(self.stream, part[:size], fin=last)
        if last:
            self.fin = False
            self.limit = -1
        self.sent += size
        if self._taken is not None:
            self._taken(size)
        return size

    @property
    def finished(self) -> bool:
        """Whether all was given to QUIC, the end too."""
        return self.limit < 0


def feed(conn: Connection, flows: dict[int, Outflow]) -> None:
    """Give QUIC what it should have, a piece of each flow in turn."""
    room = SEND_AHEAD - sum(conn.backlog(stream) for stream in flows)
    while room > 0:
        moved = False
        for flow in [flow for flow in flows.values() if not flow.idle]:
            room -= flow.push(conn, max(room, 1))
            moved = True
            if flow.finished:
                del flows[flow.stream]
            if room <= 0:
                break
        if not moved:
            return


class InValue:
    """A large value that is arriving."""

    __slots__ = ("body", "granted", "kind", "last", "limit", "reader", "size")

    def __init__(self, kind: int, body: bytes, size: int, now: float) -> None:
        self.kind = kind
        self.body = body
        self.size = size
        self.reader = ValueReader(size)
        self.limit = min(size, BULK_INITIAL)
        self.granted = False
        self.last = now

    def feed(self, data: bytes, fin: bool, now: float) -> Received | None:
        """Take bytes; return the value once it is whole.

        Raises:
            RemoteProtocolError: more bytes than granted, or an end before the end.
        """
        reader = self.reader
        if reader.received + len(data) > self.limit:
            raise RemoteProtocolError("more bytes of a value than granted")
        if data:
            self.last = now
            reader.feed(data)
        if not fin:
            return None
        if not reader.done:
            raise RemoteProtocolError("a value that ends before its end")
        header, buffers = reader.parts()
        return Received(b"", header, buffers)


class InPipe:
    """The receiving half of an open stream."""

    __slots__ = ("_consumed", "_received", "limit", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.limit = BULK_INITIAL
        self._received = 0
        self._consumed = 0

    def feed(self, data: bytes, fin: bool) -> None:
        """Hand bytes to the reader.

        Raises:
            RemoteProtocolError: more than granted.
        """
        self._received += len(data)
        if self._received > self.limit:
            raise RemoteProtocolError("more bytes of a stream than granted")
        self.sink.feed(data, fin)

    def consumed(self, size: int) -> int | None:
        """The reader has read `size` bytes; return a new limit if it is time to tell the sender."""
        self._consumed += size
        wanted = self._consumed + STREAM_WINDOW
        if wanted - self.limit < STREAM_WINDOW // 4:
            return None
        self.limit = wanted
        return wanted


class Budget:
    """Memory for large values that are arriving, from all peers together; first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, Callable[[], bool]]] = deque()

    def ask(self, size: int, grant: Callable[[], bool]) -> None:
        """Call `grant` now or once there is room; it returns False if nobody wants it any more."""
        self._waiting.append((size, grant))
        self._serve()

    def free(self, size: int) -> None:
        """`size` bytes are no longer needed."""
        self.used -= size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, grant = self._waiting[0]
            if self.used and self.used + size > self.limit:
                return
            self._waiting.popleft()
            self.used += size
            if not grant():
                self.used -= size
