"""One QUIC connection: streams in, streams out, and one word about its end. Everything on the loop thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from ..._data.ports import BY_QUIC
from ..._wire.frames import Close
from ..._wire.text import logger, printable
from ...types import Address
from ..net.sockets import from_sockaddr
from . import path
from .loop import Timer
from .path import SMALLEST, Sockaddr
from .transport import PROVEN_WINDOW, UNPROVEN_BYTES, Transport

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Connection", "Owner"]

log = logger("mycorrizal.quic")

_APPLICATION_ERROR = 0xC
"""What a close says in handshake packets, where its own code is not for everybody's eyes (RFC 9000 §10.2.3)."""


class Owner(Protocol):
    """Who the connections belong to. Every call comes on the loop thread; none may block or raise."""

    def connected(self, conn: Connection, now: float) -> None:
        """TLS is done: a client has verified the server; to a server the client has proved nothing yet."""

    def stream_data(self, conn: Connection, stream: int, data: bytes, fin: bool, now: float) -> None:
        """Bytes of a stream, in order; `fin` with the last, which may be empty."""

    def stream_reset(self, conn: Connection, stream: int, code: int, now: float) -> None:
        """The peer gave up sending on a stream."""

    def stream_stopped(self, conn: Connection, stream: int, code: int, now: float) -> None:
        """The peer wants no more of a stream; our side of it is reset already."""

    def before_transmit(self, conn: Connection, now: float) -> None:
        """Once a turn per connection with anything to do, before packets are built: the moment to feed bulk."""

    def closed(self, conn: Connection, code: int, reason: str, by_peer: bool, kind: str, now: float) -> None:
        """The end, exactly once per connection.

        `kind` is "closed" (by a CLOSE frame, or for an error on an open connection), "local" (``close``),
        "idle" (nothing came for the idle timeout), "silent" (a dial that nobody answered), "refused"
        (ICMP, or our own system), "handshake" (TLS or the transport said no; text in `reason`), "reset"
        (a stateless reset: the peer has forgotten us).
        """


class Connection:
    """One connection. Loop thread only.

    Attributes:
        dialled: whether we opened it.
        address: the peer, ``(host, port)``.
        connected: the handshake is done and the connection has not ended.
        closed: it has ended, or ends in this turn.
        channel: bytes that only the two ends of this TLS session have; None before ``connected``.
        proved: the peer has proved the key; the owner says so through ``mark_proved``.
        local: the peer is on this host.
        created, last_received: clock times.
        context: free for the owner.
        way, boot, why: see ``_data.ports.Connection``.
    """

    __slots__ = (
        "_armed",
        "_ending",
        "_endpoint",
        "_errors_since",
        "_quic",
        "_timer",
        "_touched",
        "bytes_received",
        "bytes_sent",
        "channel",
        "cids",
        "closed",
        "connected",
        "context",
        "counted",
        "created",
        "datagrams_received",
        "datagrams_sent",
        "deadline",
        "dialled",
        "knocked",
        "last_received",
        "local",
        "proved",
        "remake",
        "reset_token",
        "second_try",
        "sockaddr",
        "stream_bytes",
        "why",
    )
    way = BY_QUIC
    full = False
    boot = None

    def __init__(
        self, endpoint: Endpoint, quic: Transport, sockaddr: Sockaddr, *, dialled: bool, local: bool, now: float
    ) -> None:
        self._endpoint = endpoint
        self._quic = quic
        self.sockaddr = sockaddr
        self.dialled = dialled
        self.local = local
        self.why = "" if dialled else "the peer dialled it"
        self.created = self.last_received = now
        self.connected = self.closed = self.proved = False
        self.knocked = self.counted = False  # for admission: as a key holder, as unproven
        self.remake: Callable[[int], Transport] | None = None
        self.channel: bytes | None = None
        self.cids: list[bytes] = []
        self.reset_token: bytes | None = None
        self.datagrams_sent = self.datagrams_received = self.bytes_sent = self.bytes_received = self.stream_bytes = 0
        self._touched = False
        self._timer: Timer | None = None
        self.deadline: Timer | None = None  # for the handshake, or the proof
        self.second_try: Timer | None = None
        self._armed = 0.0
        self._ending: tuple[int, str, bool, str] | None = None
        self._errors_since: float | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "connecting"
        return f"<Connection {'to' if self.dialled else 'from'} {self.address[0]}:{self.address[1]} {state}>"

    @property
    def address(self) -> Address:
        """The peer's address."""
        return from_sockaddr(self.sockaddr)

    @property
    def mtu(self) -> int:
        """Bytes in the largest datagram we send; 0 once closed."""
        return 0 if self.closed else self._quic.datagram_size

    # -- streams ------------------------------------------------------------------------

    def open_stream(self, *, uni: bool) -> int:
        """Return the id of a new stream. Never blocks: beyond about 100 at once the peer's limit holds data back."""
        return self._quic.open_stream(uni)

    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Write to a stream; nothing happens if it, or the connection, is gone."""
        if self.closed:
            return
        self._quic.write(stream, data, fin)  # type: ignore[arg-type]
        if not self._touched:
            self.touch()

    def put(self, stream: int, data: bytes) -> None:
        """Raise: aioquic belongs to one thread."""
        raise NotImplementedError

    def read(self, who: object, take: Callable[[int, bytes], bool], deadline: object) -> bool:
        """Raise, for the same reason."""
        raise NotImplementedError

    def backlog(self, stream: int) -> int:
        """Return the bytes of a stream that are written and not yet acknowledged."""
        return 0 if self.closed else self._quic.backlog(stream)

    def reset(self, stream: int, code: int) -> None:
        """Give up sending on a stream."""
        if not self.closed and self._quic.writable(stream):
            self._quic.reset_stream(stream, code)
            self.touch()

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to send no more on a stream."""
        if not self.closed:
            self._quic.halt(stream, code)
            self.touch()

    # -- the connection -------------------------------------------------------------------

    def ping(self) -> None:
        """Send something that the peer must acknowledge, so that ``last_received`` moves if it lives."""
        if not self.closed:
            self._quic.send_ping(0)
            self.touch()

    def follow(self, address: Address) -> None:
        """Send to another address of the same peer from now on, and take what comes from there. Of a client only.

        In QUIC (RFC 9000 §9) a server never moves, since its client could not know where to; ours does, from a
        membership. Whoever is there, its packets count only if they are of this connection.
        """
        if self.closed or not self.dialled or not self.connected:
            return
        try:
            self.sockaddr = path.sockaddr_of(self._endpoint._sock, address)
        except OSError:  # of the other family: it will be silent, and dialled again
            return
        self._quic.follow(self.sockaddr)
        self.ping()

    def mark_proved(self) -> None:
        """The peer proved the key: lift the limits on strangers."""
        if self.proved:
            return
        self.proved = True
        if not self.dialled and not self.closed:
            self._endpoint.settled(self)
            self._quic.raise_limit(PROVEN_WINDOW)
            self.touch()

    def close(self, code: int, reason: str, now: float) -> None:
        """Say goodbye at the end of this turn; ``Owner.closed`` follows with kind "local"."""
        self.end(code, reason, by_peer=False, kind="local", now=now, tell=True)

    def stats(self) -> dict[str, float | int]:
        """Return figures: seconds, bytes, counts."""
        counts: dict[str, float | int] = {
            "datagrams_sent": self.datagrams_sent,
            "datagrams_received": self.datagrams_received,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
        }
        return counts if self.closed else {**self._quic.figures(), **counts}

    # -- driven by the endpoint --------------------------------------------------------------

    def touch(self) -> None:
        """Let this connection transmit at the end of the turn."""
        if not self._touched:
            self._touched = True
            self._endpoint.touched.append(self)

    def touch_again(self) -> None:
        """Let this connection transmit in the next turn, which comes without a sleep."""
        self._touched = True
        self._endpoint.again(self)

    def receive(self, data: bytes, sockaddr: Sockaddr, now: float) -> None:
        """Take a datagram that carries an id of ours."""
        if self.closed:
            return
        self.datagrams_received += 1
        self.bytes_received += len(data)
        if not self._touched:
            self.touch()
        try:
            if self._quic.take_datagram(data, sockaddr, now):
                self.last_received = now
                if sockaddr != self.sockaddr and self._quic.moved_to(sockaddr):
                    self.sockaddr = sockaddr  # a client's host has another address
        except Exception as exc:
            self._failed(exc, now)
            return
        self.pump(now)

    def pump(self, now: float) -> None:
        """Hand on what happened, and notice the end."""
        quic = self._quic
        owner = self._endpoint.owner
        if quic.arrived:
            arrived, quic.arrived = quic.arrived, []
            for stream, data, fin in arrived:
                if self.closed or not (self.proved or self.dialled or self._within_allowance(data, now)):
                    return
                owner.stream_data(self, stream, data, fin, now)
        events = quic.events
        while events and not self.closed:
            event: Any = events.popleft()
            kind = type(event)
            if kind is StreamDataReceived:
                if not (self.proved or self.dialled or self._within_allowance(event.data, now)):
                    return
                owner.stream_data(self, event.stream_id, event.data, event.end_stream, now)
            elif kind is StreamReset:
                owner.stream_reset(self, event.stream_id, event.error_code, now)
            elif kind is StopSendingReceived:
                owner.stream_stopped(self, event.stream_id, event.error_code, now)
            elif kind is ConnectionIdIssued:
                self._endpoint.issued(self, event.connection_id)
            elif kind is ConnectionIdRetired:
                self._endpoint.retired(self, event.connection_id)
            elif kind is HandshakeCompleted:
                self._handshake_done(now)
        if not self.closed and quic.ended:
            self._ended_by_quic(now)

    def _within_allowance(self, data: bytes, now: float) -> bool:
        """Count what a client sends before its proof; False ends the connection."""
        self.stream_bytes += len(data)
        if self.stream_bytes <= UNPROVEN_BYTES:
            return True
        self.end(Close.PROTOCOL, "too much before the proof", by_peer=False, kind="closed", now=now, tell=True)
        return False

    def _handshake_done(self, now: float) -> None:
        self.channel = self._quic.binding()
        self.connected = True
        self._endpoint.established(self)
        self._endpoint.owner.connected(self, now)

    def _ended_by_quic(self, now: float) -> None:
        code, reason = self._quic.close_reason
        by_peer = self._quic.draining
        if reason == "Idle timeout" and not by_peer:
            kind = "idle" if self.connected else "silent"
        elif self.connected or (by_peer and code == _APPLICATION_ERROR):
            kind = "closed"
        else:
            kind = "handshake"
        self.end(code, reason, by_peer=by_peer, kind=kind, now=now, tell=not by_peer)

    def _failed(self, exc: Exception, now: float) -> None:
        self._endpoint.count("quic.errors")
        log.debug("%r: %r", self, exc, exc_info=exc)
        kind = "closed" if self.connected else "handshake"
        reason = f"{type(exc).__name__}: {exc}"
        self.end(1, reason, by_peer=False, kind=kind, now=now, tell=True)

    def end(self, code: int, reason: str, *, by_peer: bool, kind: str, now: float, tell: bool) -> None:
        """Begin the end: nothing goes to the owner any more but ``closed``, at the end of this turn."""
        if self.closed:
            return
        self.closed = True
        self._ending = (code, reason, by_peer, kind)
        if tell and not self._quic.ended:
            self._quic.close(error_code=code, reason_phrase=printable(reason))
        self.touch()

    def transmit(self, now: float) -> None:
        """Once a turn: let the owner feed, then send what there is."""
        if self.connected and not self.closed:
            self._endpoint.owner.before_transmit(self, now)
        self._touched = False
        if not self.closed or self._ending is not None:
            self._send_datagrams(now)
        if self.closed and self._ending is not None:
            self._finish(now)
        elif not self.closed:
            self._arm(now)

    def _send_datagrams(self, now: float) -> None:
        quic = self._quic
        try:
            more = quic.give_datagrams(self._emit, now)
        except Exception as exc:
            if not self.closed:
                self._failed(exc, now)
            return
        if quic is not self._quic:
            return  # a datagram was too large, and the dial began over
        if quic.events:
            self.pump(now)
        if more and not self._touched:
            self.touch_again()

    def _emit(self, data: bytes, sockaddr: Sockaddr) -> None:
        if self._endpoint.send_datagram(self, data, sockaddr):
            self.datagrams_sent += 1
            self.bytes_sent += len(data)
        if self.closed:
            self._endpoint.farewell(self, data)

    def _finish(self, now: float) -> None:
        ending, self._ending = self._ending, None
        assert ending is not None
        code, reason, by_peer, kind = ending
        was_connected, self.connected = self.connected, False
        for timer in (self._timer, self.deadline, self.second_try):
            if timer is not None:
                timer.cancel()
        self._timer = self.deadline = self.second_try = None
        self._endpoint.forget(self, self._quic.closing_time() if was_connected else 1.0, now)
        self._quic.free()
        if kind == "handshake":
            self._endpoint.count("quic.handshake_failed")
        self._endpoint.owner.closed(self, code, reason, by_peer, kind, now)

    # -- timers -----------------------------------------------------------------------------

    def _arm(self, now: float) -> None:
        when = self._quic.next_timer()
        if when is None:
            return
        if self._timer is None or when < self._timer.when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._endpoint.loop.call_at(when, self._due)
        self._armed = when

    def _due(self, now: float) -> None:
        self._timer = None
        if self.closed:
            return
        if self._armed > now:  # it moved on meanwhile, as it does with every packet
            self._timer = self._endpoint.loop.call_at(self._armed, self._due)
            return
        try:
            self._quic.handle_timer(now)
        except Exception as exc:
            self._failed(exc, now)
            return
        if self._quic.in_a_hole:
            self._endpoint.count("quic.black_holes")
            self._quic.lower(SMALLEST)
        self.touch()
        self.pump(now)

    def start(self, now: float) -> None:
        """Dial: the first packet goes out at the end of this turn."""
        try:
            self._quic.connect(self.sockaddr, now)
        except Exception as exc:
            self._failed(exc, now)
        self.touch()

    def replace(self, quic: Transport) -> None:
        """Take another transport for the handshake: the path did not carry the first one's datagrams."""
        self._quic.free()
        self._quic = quic

    @property
    def host_cid(self) -> bytes:
        """The id that the peer's packets carry at first."""
        return bytes(self._quic.host_cid)

    @property
    def peer_cid(self) -> bytes:
        """The id that our packets carry."""
        return self._quic.peer_cid

    def refused(self, reason: str, now: float) -> None:
        """The system said that nobody is there: at once for a dial, at the second look otherwise."""
        if self.closed:
            return
        if not self.connected:
            if self.dialled:
                self.end(0, reason, by_peer=False, kind="refused", now=now, tell=False)
            return
        since = self._errors_since
        if since is None or now - since > 5.0 or self.last_received > since:
            self._errors_since = now
            self.ping()
        elif now - since >= max(0.05, self._quic.closing_time()):  # anyone can forge an ICMP message
            self.end(0, reason, by_peer=False, kind="refused", now=now, tell=False)

    def oversize(self, size: int, now: float) -> None:
        """A datagram did not fit; send none above `size` from now on."""
        if self.closed:
            return
        if self.dialled and not self.connected:
            self._endpoint.redial(self, size, now)
        else:
            self._quic.lower(size)
            self.touch()
