"""Bytes on streams of their own, one stream at a time: what is being sent, and a value that is arriving.

A sender may send ``BULK_INITIAL`` bytes at once and then what the receiver
grants: QUIC's own windows do not help, aioquic widens them whether or not
anyone reads. A receiver grants a whole value as soon as its memory budget has
room for it, and an open stream (``pipes``) as its reader reads.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from .._wire.frames import BULK_INITIAL
from .._wire.values import ValueReader
from ..exceptions import RemoteProtocolError
from .ports import Connection, Lender, Received

__all__ = ["SEND_AHEAD", "Budget", "InValue", "Outflow", "feed"]

SEND_AHEAD = 2 << 20
"""Bytes of all flows of a connection that wait inside QUIC; more is slower, since it copies them as they grow."""

_PIECE = 256 << 10


class Outflow:
    """What is still to be sent on one stream.

    Attributes:
        stream: its id, -1 before it has one.
        head: what the stream begins with.
        limit: bytes the receiver has granted in all.
        sent: bytes given to QUIC.
        fin: whether the stream ends after what is queued.
        refused: called with a code if the peer does not want it; None once nobody has to hear of that.
        lent: who may take back the memory that is sent; then nothing more is, and the peer never gets it whole.
    """

    __slots__ = ("_parts", "_taken", "fin", "head", "lent", "limit", "refused", "sent", "stream")

    def __init__(
        self,
        stream: int,
        parts: list[memoryview],
        *,
        fin: bool,
        taken: Callable[[int], None] | None = None,
        head: bytes = b"",
        refused: Callable[[int], None] | None = None,
        lent: Lender | None = None,
    ) -> None:
        self.stream = stream
        self.head = head
        self.lent = lent
        self._parts = deque(part for part in parts if len(part))
        self._taken = taken
        self.fin = fin
        self.limit = BULK_INITIAL
        self.sent = 0
        self.refused = refused

    def append(self, data: memoryview) -> None:
        """Queue more."""
        if len(data):
            self._parts.append(data)

    @property
    def idle(self) -> bool:
        """Whether nothing can be sent now."""
        if self.lent is not None and self.lent.over:
            return True
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
        data: bytes | memoryview = part[:size]
        looked = self.lent is None
        if self.lent is not None and not conn.way.reads:
            data, looked = bytes(data), True
            if self.lent.over:  # after the copy: see there
                return 0
        if size == len(part):
            self._parts.popleft()
        else:
            self._parts[0] = part[size:]
        last = looked and self.fin and not self._parts  # else the end goes alone, after a last look at ``over``
        conn.send(self.stream, data, fin=last)
        self.sent += size
        if self._taken is not None:
            self._taken(size)
        if last:
            self.limit = -1
            refused = self.refused
            self.drop()
            self.refused = refused
        return size

    def drop(self) -> None:
        """Nothing more is sent: let go of whose memory it is, and of who was to hear of it."""
        self._parts.clear()
        self.fin = False
        self._taken = self.refused = self.lent = None

    @property
    def finished(self) -> bool:
        """Whether all was given to QUIC, the end too."""
        return self.limit < 0


def feed(conn: Connection, flows: dict[int, Outflow], room: int) -> list[Outflow]:
    """Give QUIC up to `room` bytes, a piece of each flow in turn; take out of `flows` and return what is finished."""
    finished = []
    while room > 0 and not conn.full:
        moved = False
        for flow in [flow for flow in flows.values() if not flow.idle]:
            room -= flow.push(conn, max(room, 1))
            moved = True
            if flow.finished:
                del flows[flow.stream]
                finished.append(flow)
            if room <= 0 or conn.full:
                break
        if not moved:
            break
    return finished


class InValue:
    """A large value that is arriving.

    Attributes:
        last: when the last bytes came, or more was granted.
        since: when it began, or was granted.
        granted: whether it counts in the budget.
    """

    __slots__ = ("body", "granted", "host", "kind", "last", "limit", "on_grant", "owner", "reader", "since", "size")

    def __init__(self, kind: int, body: bytes, size: int, now: float) -> None:
        self.kind = kind
        self.body = body
        self.size = size
        self.reader = ValueReader(size)
        self.limit = min(size, BULK_INITIAL)
        self.granted = False
        self.owner: object = None  # of the budget: the peer
        self.host = ""  # of the budget: the address that the peer sends from
        self.last = self.since = now
        self.on_grant: Callable[[], None] = _nothing

    @property
    def expected(self) -> bool:
        """Whether it is the sender's turn."""
        return self.reader.received < self.limit

    def grant(self, now: float) -> None:
        """All of it may come."""
        self.limit = self.size
        self.last = self.since = now

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
        return self._ended() if fin else None

    def room(self) -> memoryview | None:
        """Return the memory that its next bytes belong in, as far as they are granted: see ``ValueReader.room``."""
        left = self.limit - self.reader.received
        room = self.reader.room() if left > 0 else None
        return None if room is None else room[:left]

    def filled(self, size: int, fin: bool, now: float) -> Received | None:
        """As ``feed``, for `size` bytes that are where ``room`` said."""
        self.last = now
        self.reader.filled(size)
        return self._ended() if fin else None

    def _ended(self) -> Received:
        if not self.reader.done:
            raise RemoteProtocolError("a value that ends before its end")
        header, buffers = self.reader.parts()
        return Received(b"", header, buffers)


class Budget:
    """Memory for large values that are arriving, from all peers together. Who holds least is served first.

    One peer gets half of it, or a single value, so that one that is slow, or means to be, does not have it all. Nor
    do several, or one under several names: of the last eighth each that holds nothing gets a quarter of what is free,
    and the last sixteenth is for addresses that hold nothing, since names cost nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[object, int] = {}  # by owner
        self._at: dict[str, int] = {}  # held by those at an address
        self._waiting: dict[object, OrderedDict[InValue, None]] = {}  # by owner, none of them empty

    @property
    def wanted(self) -> bool:
        """Whether values wait for room."""
        return bool(self._waiting)

    def ask(self, value: InValue, owner: object, host: str) -> None:
        """Call ``value.on_grant`` now or once there is room; `owner` is the peer that sends it, from `host`."""
        value.owner, value.host = owner, host
        self._waiting.setdefault(owner, OrderedDict())[value] = None
        self._serve()

    def drop(self, value: InValue) -> None:
        """`value` needs nothing any more."""
        value.on_grant = _nothing
        if value.granted:
            value.granted = False
            self._count(value, -value.size)
        else:
            self._leave(value)
        self._serve()

    def _leave(self, value: InValue) -> None:
        waiting = self._waiting.get(value.owner)
        if waiting is not None:
            waiting.pop(value, None)
            if not waiting:
                del self._waiting[value.owner]

    def _serve(self) -> None:
        while (value := self._next()) is not None:
            self._leave(value)
            value.granted = True
            self._count(value, value.size)
            value.on_grant()

    def _count(self, value: InValue, size: int) -> None:
        self.used += size
        held = self._held.pop(value.owner, 0) + size
        if held:
            self._held[value.owner] = held
        at = self._at.pop(value.host, 0) + size
        if at:
            self._at[value.host] = at

    def _next(self) -> InValue | None:
        """Return what there is room for. Who has his share holds up nobody; who waits for others is not passed by."""
        room = self.limit - self.used
        left = room - self.limit // 8
        first = [next(iter(values)) for values in self._waiting.values()]
        for value in sorted(first, key=self._holds):
            at, held = self._holds(value)
            few = 0 if held else (room - self.limit // 16 if at else room) // 4
            if not self.used or value.size <= few:
                return value
            if held and held + value.size > self.limit // 2:
                continue
            if value.size <= left:
                return value
            left = 0
        return None

    def _holds(self, value: InValue) -> tuple[int, int]:
        """Return how much is held by those at the address that `value` comes from, and by its owner."""
        return self._at.get(value.host, 0), self._held.get(value.owner, 0)


def _nothing() -> None:
    """Nobody is to be told."""
