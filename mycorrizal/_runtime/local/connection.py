"""One connection between two processes of a host: streams over a Unix socket. Everything on the loop thread."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..._data.ports import ON_HOST, Waiting
from ..._wire.frames import Close
from ..._wire.pieces import (
    HEAD_SIZE,
    Hello,
    Piece,
    PieceReader,
    code_piece,
    only_data,
    parse_close,
    parse_code,
    piece_head,
)
from ..._wire.text import printable
from ...exceptions import RemoteProtocolError
from ...types import Address
from ..threads.deadline import Deadline
from .loan import LOOP, Loan
from .outlet import Outlet

if TYPE_CHECKING:
    from ..quic.loop import Timer
    from .carrier import HostCarrier

__all__ = ["HostConnection"]

UNPROVEN_BYTES = 64 << 10
"""What who connected may send before it has proved the key."""
_SMALL, _LARGE = 64 << 10, 1 << 20  # bytes read at once, and at most if more of a piece is known to come
_DIRECT = 16 << 10
"""Bytes that are still to come of a piece from which on they are read where they stay, not read and copied."""
_READS_A_TURN = 8


class HostConnection:
    """A socket, and what the data machine needs of a connection: see ``_data.ports.Connection``.

    Args:
        carrier: whose it is.
        sock: connected, not blocking.
        address: of the peer's data plane; of who connected as soon as it is told.
        pids: of this process and of the one at the other end, as the kernel tells it.
        boot: of the process that was dialled; of who connected as soon as it is told.
    """

    way = ON_HOST

    def __init__(
        self, carrier: HostCarrier, sock: socket.socket, address: Address, *, dialled: bool, peer: str,
        pids: tuple[int, int], boot: bytes | None, now: float,
    ) -> None:  # fmt: skip
        self._carrier = carrier
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.dialled = dialled
        self.peer = peer
        self.boot = boot
        self.why = "the same host"
        self.channel: bytes | None = None
        self.created = self.last_received = now
        self.connected = self.closed = self.proved = self.overdue = False
        self.deadline: Timer | None = None
        self.outlet = Outlet(sock, self._left)
        self.loan = Loan(sock, lambda: carrier.watch(self), lambda who: carrier.left(self, who))
        self.events: int | None = None  # what the carrier is told of
        self.watching = threading.Lock()
        self._pids = pids
        self._salt = os.urandom(32)
        self._reader = PieceReader()
        self._next = {True: 2, False: 0} if dialled else {True: 3, False: 1}
        self._writing: set[int] = set()  # streams whose sending half is open
        self._theirs = -1  # the last bidirectional stream of the peer
        self._touched = self._fed = self._heard = self._direct = False
        self._ending: tuple[int, str, bool, str, bool] | None = None
        self._pinged = now
        self._rtt = 0.0
        self._received = self._unproven = 0
        if dialled:
            self._hello()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "connecting"
        return f"<HostConnection {'to' if self.dialled else 'from'} process {self._pids[1]} {state}>"

    # -- what the machine calls ----------------------------------------------------------

    def open_stream(self, *, uni: bool) -> int:
        """Return the id of a new stream."""
        stream = self._next[uni]
        self._next[uni] += 4
        self._writing.add(stream)
        return stream

    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Write to a stream; nothing happens if it, or the connection, is gone."""
        if self.closed or stream not in self._writing:
            return
        head = piece_head(Piece.LAST if fin else Piece.DATA, stream, len(data))
        if fin:
            self._writing.discard(stream)
        if len(data) <= _SMALL:
            self.outlet.put(stream, head + data)
        else:
            self.outlet.put_large(stream, head, data)
        if stream > 3:
            self._fed = True

    def put(self, stream: int, data: bytes) -> None:
        """Write to a stream that is open for as long as the connection. Any thread."""
        if not self.closed:
            self.outlet.put(stream, piece_head(Piece.DATA, stream, len(data)) + data)

    @property
    def full(self) -> bool:
        """Whether something waits that the socket does not take."""
        return self.outlet.waits

    def read(self, who: Waiting, take: Callable[[int, bytes], bool], deadline: Deadline) -> bool:
        """Wait for what comes next, on the calling thread: see ``_data.ports.Connection``. Any thread."""

        def took(data: bytes) -> bool:
            found = only_data(data) if self._reader.between and not self.closed else None
            if found is None or not take(*found):
                return False
            self._received += len(data)
            self.last_received = self._carrier.now()
            return True

        done = self.loan.read(who, took, deadline)
        if self.closed:
            self._carrier.left(self, who)  # who ended it has waited for us
        return done

    def take_back(self, who: object, now: float) -> None:
        """Take what another thread has read and left. Loop thread."""
        for data in self.loan.back(who):
            self._guarded(self._took, data, now)
        self.loan.end(who)

    def backlog(self, stream: int) -> int:
        """Return the bytes of a stream that are written and not yet on their way: nothing gets lost after that."""
        return 0 if self.closed else self.outlet.backlog(stream)

    def reset(self, stream: int, code: int) -> None:
        """Give up sending on a stream."""
        if not self.closed and stream in self._writing:
            self._writing.discard(stream)
            self.outlet.put(stream, code_piece(Piece.RESET, stream, code))

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to send no more on a stream."""
        if not self.closed:
            self.outlet.put(stream, code_piece(Piece.STOP, stream, code))

    def touch(self) -> None:
        """Let the owner feed at the end of the turn."""
        if not self._touched:
            self._touched = True
            self._carrier.touched.append(self)

    def follow(self, address: Address) -> None:
        """A host's other address is nothing to its sockets."""

    def ping(self) -> None:
        """Send something that the peer must answer, so that ``last_received`` moves if it lives."""
        if not self.closed:
            self._pinged = self._carrier.now()
            self.outlet.put(0, piece_head(Piece.PING, 0, 0))

    def mark_proved(self) -> None:
        """The peer proved the key."""
        if not self.proved:
            self.proved = True
            self._carrier.settled(self)

    def close(self, code: int, reason: str, now: float) -> None:
        """Say goodbye at the end of this turn; ``Owner.closed`` follows with kind "local"."""
        self.end(code, reason, by_peer=False, kind="local", tell=True)

    def stats(self) -> dict[str, float | int]:
        """Return figures: seconds and bytes."""
        return {"rtt": self._rtt, "bytes_sent": self.outlet.taken, "bytes_received": self._received}

    # -- driven by the carrier -------------------------------------------------------------

    def _left(self) -> None:
        self._carrier.watch(self)

    def readable(self, now: float) -> None:
        """Take what is there."""
        if not self.loan.begin(LOOP):
            return  # a thread of the user's, or a handler's, does
        for _ in range(_READS_A_TURN):
            if self.closed or not self._guarded(self._read, now):
                break
        self.loan.end(LOOP)

    def _guarded(self, step: Callable[..., object], *args: Any) -> bool:
        """Return whether ``step(*args)`` returned something true; what goes wrong in it ends the connection."""
        try:
            return bool(step(*args))
        except BlockingIOError:
            pass
        except OSError as exc:
            self._gone(exc.strerror or str(exc))
        except RemoteProtocolError as exc:
            self._carrier.count("host.errors")
            self.end(Close.PROTOCOL, str(exc), by_peer=False, kind="closed", tell=True)
        return False

    def _read(self, now: float) -> bool:
        """Read once; return whether there may be more. What a large value consists of goes straight to where it stays.

        Raises:
            OSError, RemoteProtocolError
        """
        stream, pending = self._reader.pending
        room = self._carrier.owner.stream_room(self, stream) if pending >= _DIRECT else None
        if room is None:
            size = HEAD_SIZE if self._direct and not pending else _SMALL if pending <= _SMALL else min(pending, _LARGE)
            data = self.sock.recv(size)
            self._direct = False
            self._took(data, now)
            return len(data) == size
        with room:
            got = self.sock.recv_into(room, min(pending, len(room)))
        self._got(got, now)
        self._direct = True
        if got:
            self._carrier.owner.stream_filled(self, stream, got, self._reader.skip(got), now)
        return True

    def _took(self, data: bytes, now: float) -> None:
        self._got(len(data), now)
        self._take(data, now)

    def _got(self, size: int, now: float) -> None:
        if not size:
            self._gone("its end of the socket is closed")
        self._received += size
        self.last_received = now
        self.touch()

    def _gone(self, text: str) -> None:
        self.end(0, text, by_peer=True, kind="gone", tell=False)

    def _take(self, data: bytes, now: float) -> None:
        for kind, stream, body in self._reader.feed(data):
            if self.closed:
                return
            if not self._heard:
                self._hear(kind, body, now)
                continue
            if not (self.proved or self.dialled):
                self._unproven += len(body)
                if self._unproven > UNPROVEN_BYTES:
                    raise RemoteProtocolError("too much before the proof")
            if not stream & 2 and bool(stream & 1) == self.dialled and stream > self._theirs:
                self._theirs = stream
                self._writing.add(stream)
            if kind in (Piece.DATA, Piece.LAST):
                self._carrier.owner.stream_data(self, stream, body, kind == Piece.LAST, now)
            else:
                self._word(kind, stream, body, now)

    def _word(self, kind: int, stream: int, body: bytes, now: float) -> None:
        owner = self._carrier.owner
        if kind == Piece.RESET:
            owner.stream_reset(self, stream, parse_code(body), now)
        elif kind == Piece.STOP:
            code = parse_code(body)
            self.reset(stream, code)
            owner.stream_stopped(self, stream, code, now)
        elif kind == Piece.PING:
            self.outlet.put(0, piece_head(Piece.PONG, 0, 0))
        elif kind == Piece.PONG:
            self._rtt = max(0.0, now - self._pinged)
        elif kind == Piece.CLOSE:
            code, reason = parse_close(body)
            self.end(code, reason, by_peer=True, kind="closed", tell=False)
        else:
            raise RemoteProtocolError("a second hello")

    def _hello(self) -> None:
        carrier = self._carrier
        self.outlet.put(0, Hello(carrier.mark, carrier.boot, self._salt, *carrier.address).pack())

    def _hear(self, kind: int, body: bytes, now: float) -> None:
        """Take the peer's hello: what both ends have said, and what the kernel says of both, is the channel."""
        if kind != Piece.HELLO:
            raise RemoteProtocolError("something before the hello")
        hello = Hello.parse(body)
        if hello.place != self._carrier.mark:
            raise RemoteProtocolError("a process of another place")
        if self.dialled and hello.boot != self.boot:
            raise RemoteProtocolError("another process than the one in the record")
        self._heard = True
        if not self.dialled:
            self.boot = hello.boot
            self.address = hello.host, hello.port
            self._hello()
        self._rtt = max(0.0, now - self.created)
        self.channel = self._binding(hello)
        self.connected = True
        self._carrier.owner.connected(self, now)

    def _binding(self, hello: Hello) -> bytes:
        """Return what only these two ends of this socket have in common: a relay stands between two other pairs."""
        mine = (self._pids[0].to_bytes(8, "big"), self._carrier.boot, self._salt)
        theirs = (self._pids[1].to_bytes(8, "big"), hello.boot, hello.salt)
        client, server = (mine, theirs) if self.dialled else (theirs, mine)
        return sha256(b"".join((b"mycorrizal host 1", hello.place, *client, *server))).digest()

    def end(self, code: int, reason: str, *, by_peer: bool, kind: str, tell: bool) -> None:
        """Begin the end: nothing goes to the owner any more but ``closed``, at the end of this turn."""
        if not self.closed:
            self.closed = True
            self._ending = (code, reason, by_peer, kind, tell)
            self._carrier.ending(self, code, reason, kind)
            self.loan.stop()
            self.touch()

    def transmit(self, now: float) -> None:
        """Once a turn: let the owner feed, as long as the socket takes it."""
        if self.connected and not self.closed:
            self._fed = False
            self._carrier.owner.before_transmit(self, now)
        self._touched = False
        if self._ending is not None:
            self._finish(now)
        elif self._fed and not self.outlet.waits and not self.closed:
            self._carrier.again(self)  # there may be more

    def room(self, now: float) -> None:
        """The socket takes more."""
        if self.outlet.go_on():
            self._carrier.watch(self)
            if not self.closed:
                self.touch()

    def _finish(self, now: float) -> None:
        assert self._ending is not None
        (code, reason, by_peer, kind, tell), self._ending = self._ending, None
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        if tell:
            self.outlet.cut()
            self.outlet.put(0, code_piece(Piece.CLOSE, 0, code, printable(reason)))
        self._carrier.forget(self, now)
        self._carrier.owner.closed(self, code, reason, by_peer, kind, now)
