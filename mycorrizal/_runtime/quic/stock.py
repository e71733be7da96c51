"""The stock packet path: a connection on what aioquic documents, and nothing else.

Slower than ``fast``, and there for the day when an aioquic has other private
parts. What aioquic has no call for, its log tells, which it documents too
(qlog): which bytes were acknowledged, whether a packet was genuine, that the
peer has closed, and in how many pieces a stream arrives.

What ``fast`` bounds by withholding credit can only be bounded here by ending
the connection; docs/security.md says what is left open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..._wire.frames import Close
from .path import SMALLEST, PathInfo, Sockaddr
from .pieces import Pieces
from .qlog import Log, hush
from .transport import Setup, settings
from .trust.certificates import ClientTls, ServerTls
from .trust.proof import SecretsTap

__all__ = ["StockPath", "StockTransport"]

_GAPS_MAX = 1024
"""Pieces in which a stream may arrive."""
_GAPS_EARLY = 64
"""The same before the proof, and in the handshake, where anyone may send."""
_UNHEARD_PING, _UNHEARD_MAX = 64, 20_000
"""Packets of ours without an acknowledgement after which we ask for one, and give the peer up: aioquic keeps each."""
_KEY_PACKETS = 1 << 22
"""Packets after which keys are renewed (RFC 9001 §6.6)."""
_STREAMS_AT_FIRST = 128
"""Streams that a peer allows as long as its log entry has not been read; aioquic's own number."""
_STREAMS_AT_ONCE = 4096
"""Streams that one frame may open; no peer is allowed so many."""
_CLOSING_SECONDS = 1.0
"""As long as no round trip was measured."""
_ACK_DELAY = 0.025
_SHORT = "1RTT"


class StockPath:
    """Makes connections of the stock kind."""

    name = "stock"

    def __init__(self) -> None:
        self._server: tuple[ServerTls, QuicConfiguration] | None = None
        hush()

    def datagram_size(self, info: PathInfo) -> int:
        """Return what every path carries, outside this host: the size cannot be lowered later."""
        return info.mtu if info.local else SMALLEST

    def client(self, setup: Setup, tls: ClientTls, token: bytes) -> StockTransport:
        """Return a connection that is to dial; aioquic's clients verify the server unless told otherwise."""
        configuration = settings(setup, is_client=True, congestion="reno")
        configuration.load_verify_locations(cadata=tls.cadata)
        configuration.server_name = tls.server_name
        configuration.token = token
        return StockTransport(configuration)

    def server(self, setup: Setup, tls: ServerTls, original: bytes, retried: bytes | None) -> StockTransport:
        """Return a connection for a client that has not proved itself.

        Raises:
            OSError: no descriptor is left to hand the certificate over by.
        """
        if self._server is None or self._server[0] is not tls:
            template = settings(setup, is_client=False, congestion="reno")
            with _as_file(tls) as name:
                template.load_cert_chain(name)
            self._server = (tls, template)
        own = SecretsTap()
        configuration = dataclasses.replace(
            self._server[1],
            max_datagram_size=setup.size,
            idle_timeout=setup.idle,
            secrets_log_file=own,  # type: ignore[arg-type]
        )
        return StockTransport(configuration, original, retried)


@contextlib.contextmanager
def _as_file(tls: ServerTls) -> Any:
    """Give a certificate with its key a file name for a moment: aioquic documents no other way. In memory on Linux."""
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (tls.certificate, *tls.chain))
    pem += tls.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    opened = os.fdopen(os.memfd_create("certificate"), "w+b") if hasattr(os, "memfd_create") else None
    with opened or tempfile.TemporaryFile() as file:
        file.write(pem)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


class _Stream:
    """What is known of one stream."""

    __slots__ = (
        "acked",
        "delivered",
        "done_receiving",
        "done_sending",
        "fin",
        "fin_acked",
        "highest",
        "pieces",
        "written",
    )

    def __init__(self, *, sends: bool, receives: bool) -> None:
        self.written = self.acked = 0
        self.delivered = self.highest = 0  # where the next byte lies, and where the last that has arrived ends
        self.fin = self.fin_acked = False  # whether our end was given to aioquic, and is known to the peer
        self.done_sending = not sends
        self.done_receiving = not receives
        self.pieces = Pieces()


class StockTransport:
    """One connection.

    Attributes:
        quic: aioquic's.
    """

    def __init__(
        self, configuration: QuicConfiguration, original: bytes | None = None, retried: bytes | None = None
    ) -> None:
        self.arrived: list[tuple[int, bytes, bool]] = []
        self.events: deque[QuicEvent] = deque()
        self.host_cid = b""  # until the first packet is made
        self.peer_cid = b""
        self.draining = False
        self.in_a_hole = False
        self.datagram_size = configuration.max_datagram_size
        self._end: tuple[int, str] | None = None
        self._freed = False
        self._is_client = configuration.is_client
        self._dialled: Any = None  # where the server was, which aioquic goes on believing
        self._sent_to: Any = None
        self._tap = configuration.secrets_log_file
        self._heard = False
        self._made: list[tuple[bytes, Any]] = []
        self._unread: list[tuple[str, list[dict[str, Any]]]] = []
        self._under_way: dict[int, list[tuple[int, int, bool]]] = {}
        self._figures: dict[str, float | int] = {}
        self._of_streams: dict[int, _Stream] = {}
        self._next = [0, 1, 2, 3]  # the first stream that is not open yet, of each of the four kinds
        self._crypto: dict[str, Pieces] = {}
        self._held = 0
        self._gaps = _GAPS_MAX if configuration.is_client else _GAPS_EARLY  # TLS has shown who the server is
        self._held_max = configuration.max_data
        self._unheard = self._packets = 0
        self._streams_allowed = {"bidirectional": _STREAMS_AT_FIRST, "unidirectional": _STREAMS_AT_FIRST}
        self._too_early: list[tuple[int, Callable[[], None]]] = []
        configuration.quic_logger = self._log = Log(self.logged)
        self.quic = QuicConnection(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )

    # -- what happened ----------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it closes, or has closed."""
        return self._end is not None

    @property
    def close_reason(self) -> tuple[int, str]:
        """Code and text of the end, once ``ended``."""
        return self._end or (0, "")

    def closing_time(self) -> float:
        """Return three probe timeouts in seconds."""
        rtt, variance = self._figures.get("rtt"), self._figures.get("rtt_variance", 0.0)
        return _CLOSING_SECONDS if rtt is None else 3 * (rtt + max(4 * variance, 0.001) + _ACK_DELAY)

    def binding(self) -> bytes | None:
        """Return what only the two ends of this TLS session have."""
        tap: Any = self._tap
        binding: bytes | None = tap.binding()
        return binding

    def figures(self) -> dict[str, float | int]:
        """Return what aioquic's log has told last."""
        known = {"rtt": 0.0, "rtt_min": 0.0, "cwnd": 0, "in_flight": 0, **self._figures}
        known.pop("rtt_variance", None)
        return {**known, "mtu": self.datagram_size, "pto": 0}

    # -- datagrams and time -------------------------------------------------------------------

    def connect(self, addr: Any, now: float) -> None:
        """Dial."""
        self._dialled = self._sent_to = addr
        self.quic.connect(addr, now)
        self._make_first(now)

    def take_datagram(self, data: bytes, sockaddr: Sockaddr, now: float) -> bool:
        """Read a datagram; return whether it was the peer's."""
        self._heard = False
        if self._is_client and sockaddr == self._sent_to:
            sockaddr = self._dialled
        self.quic.receive_datagram(data, sockaddr, now)
        self._take_events()
        if not self.host_cid:
            self._make_first(now)
        if self._unread:
            unread, self._unread = self._unread, []
            for kind, frames in unread:
                self._look_at(kind, frames)
        return self._heard

    def _make_first(self, now: float) -> None:
        """Make the first packet at once: only it tells which id we have."""
        if self.quic.get_peer_address() is not None:
            self._made.extend(self.quic.datagrams_to_send(now))

    def give_datagrams(self, send: Callable[[bytes, Any], object], now: float) -> bool:
        """Hand over what is due, all of it."""
        if self.quic.get_peer_address() is not None:
            if self._packets >= _KEY_PACKETS:
                self._packets = 0
                self.quic.request_key_update()
            made, self._made = self._made, []
            for data, address in made + self.quic.datagrams_to_send(now):
                if not self._is_client:
                    self._sent_to = address
                send(data, self._sent_to)
            if not self._freed:  # by `send`, where the path does not carry so much
                self._take_events()
        return False

    def follow(self, sockaddr: Sockaddr) -> None:
        """Have the server at another address."""
        self._sent_to = sockaddr

    def moved_to(self, sockaddr: Sockaddr) -> bool:
        """Return whether the client is at `sockaddr` now, as far as aioquic's answers tell."""
        return bool(self._sent_to == sockaddr)

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due."""
        return self.quic.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.quic.handle_timer(now)
        self._take_events()

    def _take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case StreamDataReceived():
                    stream = self._stream(event.stream_id)
                    stream.delivered += len(event.data)
                    self._held -= len(event.data)
                    if event.end_stream:
                        self._received_all(event.stream_id, stream)
                case StreamReset():
                    self._received_all(event.stream_id, self._stream(event.stream_id))
                case StopSendingReceived():
                    self._give_up(event.stream_id)
                case ConnectionTerminated():
                    self._ends(int(event.error_code), event.reason_phrase)
            self.events.append(event)

    def _ends(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = (code, reason)
            # aioquic tells three probe timeouts later; whoever takes events is to look now.
            self.events.append(ConnectionTerminated(error_code=code, frame_type=None, reason_phrase=reason))

    # -- streams --------------------------------------------------------------------------------

    def open_stream(self, uni: bool) -> int:
        """Return the id of a new stream."""
        number = self.quic.get_next_available_stream_id(is_unidirectional=uni)
        self.quic.send_stream_data(number, b"")  # takes the number
        self._stream(number)
        return number

    def write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Send on a stream; nothing if it has ended, or is not ours to write to."""
        stream = self._of_streams.get(stream_id)
        if stream is None or stream.fin or stream.done_sending:
            return
        self.quic.send_stream_data(stream_id, data, fin)
        stream.written += len(data)
        stream.fin = fin

    def backlog(self, stream_id: int) -> int:
        """Return the bytes written to a stream and not yet acknowledged."""
        stream = self._of_streams.get(stream_id)
        return 0 if stream is None or stream.done_sending else stream.written - stream.acked

    def writable(self, stream_id: int) -> bool:
        """Return whether bytes written to this stream would still be sent."""
        stream = self._of_streams.get(stream_id)
        return stream is not None and not stream.fin and not stream.done_sending

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending."""
        self._once_allowed(stream_id, lambda: self.quic.reset_stream(stream_id, error_code))
        self._give_up(stream_id)

    def halt(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending."""
        stream = self._of_streams.get(stream_id)
        if stream is not None and not stream.done_receiving:
            self._once_allowed(stream_id, lambda: self.quic.stop_stream(stream_id, code))

    def _once_allowed(self, number: int, call: Callable[[], None]) -> None:
        """Call it, but not before the peer allows a stream of this number: even of its end it must not hear sooner."""
        if not self._is_allowed(number):
            self._too_early.append((number, call))
            return
        with contextlib.suppress(ValueError):  # it has ended meanwhile
            call()

    def _is_allowed(self, number: int) -> bool:
        mine = bool(number & 1) != self._is_client
        return not mine or number // 4 < self._streams_allowed["unidirectional" if number & 2 else "bidirectional"]

    def _allowed_more(self, kind: str, most: int) -> None:
        self._streams_allowed[kind] = max(self._streams_allowed[kind], most)
        waiting, self._too_early = self._too_early, []
        for number, call in waiting:
            self._once_allowed(number, call)

    def _stream(self, number: int) -> _Stream:
        """Return the state of a stream that aioquic has; a finished one is not kept."""
        known = self._of_streams.get(number)
        if known is not None:
            return known
        mine = bool(number & 1) != self._is_client
        for opened in range(self._next[number & 3], number + 4, 4):  # a stream opens those before it (RFC 9000 §2.1)
            self._of_streams[opened] = _Stream(sends=mine or not number & 2, receives=not mine or not number & 2)
        self._next[number & 3] = max(self._next[number & 3], number + 4)
        return self._of_streams.get(number) or _Stream(sends=False, receives=False)

    def _give_up(self, number: int) -> None:
        stream = self._stream(number)
        stream.done_sending = True
        self._drop(number, stream)

    def _received_all(self, number: int, stream: _Stream) -> None:
        stream.done_receiving = True
        self._drop(number, stream)

    def _drop(self, number: int, stream: _Stream) -> None:
        if stream.done_sending and stream.done_receiving and self._of_streams.pop(number, None) is not None:
            self._held -= stream.highest - stream.delivered  # of one that was reset aioquic keeps it until now

    # -- the connection -------------------------------------------------------------------------

    def send_ping(self, uid: int) -> None:
        """Send something that the peer has to acknowledge."""
        self.quic.send_ping(uid)

    def raise_limit(self, max_data: int) -> None:
        """Allow the peer more gaps; aioquic has raised what it may send by itself."""
        self._gaps = _GAPS_MAX
        self._held_max = max_data

    def lower(self, size: int) -> None:
        """End it if it sends larger datagrams: the next dial finds out what the path carries."""
        if size < self.datagram_size:
            self._cut("the path carries smaller packets only", Close.TRY_AGAIN)

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """Say goodbye with the next datagram."""
        self.quic.close(error_code=error_code, frame_type=frame_type, reason_phrase=reason_phrase)
        if self._end is None:
            self._end = (error_code, reason_phrase)

    def _cut(self, reason: str, code: int = Close.PROTOCOL) -> None:
        if self._end is None:
            self.quic.close(error_code=code, reason_phrase=reason)
            self._ends(code, reason)

    def free(self) -> None:
        """Take it apart: aioquic's objects are full of cycles, which would wait for the collector."""
        self._freed = True
        self._log.forget()
        for part in (getattr(self.quic, "tls", None), self.quic):
            if part is not None:
                vars(part).clear()
        self._under_way.clear()
        self._of_streams.clear()

    # -- what aioquic's log tells ---------------------------------------------------------------

    def logged(self, event: str, data: dict[str, Any]) -> None:
        """Take an entry of the log."""
        match event:
            case "packet_sent":
                self._sent(data)
            case "packet_received":
                self._heard = True
                head = data.get("header", {})
                if head.get("packet_type") != _SHORT and head.get("scid"):
                    self.peer_cid = bytes.fromhex(head["scid"])
                # Its frames are filled in while the packet is read.
                self._unread.append((head.get("packet_type", ""), data.get("frames", [])))
            case "packet_lost":
                if data.get("type") == _SHORT:
                    self._under_way.pop(data.get("packet_number", -1), None)
            case "parameters_set" if data.get("owner") == "remote":
                for kind, name in (("bidirectional", "bidi"), ("unidirectional", "uni")):
                    self._streams_allowed[kind] = data.get(f"initial_max_streams_{name}", _STREAMS_AT_FIRST)
            case "metrics_updated":
                self._measured(data)

    def _measured(self, data: dict[str, Any]) -> None:
        for ours, theirs, scale in _FIGURES:
            if theirs in data:
                self._figures[ours] = data[theirs] * scale

    def _sent(self, data: dict[str, Any]) -> None:
        self._unheard += 1
        self._packets += 1
        if self._unheard % _UNHEARD_PING == 0:
            self.quic.send_ping(0)
        if self._unheard >= _UNHEARD_MAX:
            self._cut("nothing is acknowledged")
        head = data.get("header", {})
        if not self.host_cid:
            self.host_cid = bytes.fromhex(head.get("scid", ""))
        parts = []
        for frame in data.get("frames", ()):
            match frame:
                case {"frame_type": "stream", "stream_id": number, "length": length, "fin": fin}:
                    parts.append((number, length, fin))
                case {"frame_type": "connection_close"}:
                    self._ends(int(frame.get("error_code", 0)), str(frame.get("reason", "")))
        if parts and head.get("packet_type") == _SHORT:
            self._under_way[head["packet_number"]] = parts

    def _look_at(self, kind: str, frames: list[dict[str, Any]]) -> None:
        """Read what a packet of the peer's consisted of."""
        for frame in frames:
            match frame:
                case {"frame_type": "ack", "acked_ranges": ranges} if kind == _SHORT:
                    self._unheard = 0
                    self._acknowledged(ranges)
                case {"frame_type": "max_streams", "stream_type": which, "maximum": most}:
                    self._allowed_more(which, most)
                case {"frame_type": "stream", "stream_id": number, "offset": offset, "length": length}:
                    if number >= self._next[number & 3] + 4 * _STREAMS_AT_ONCE:
                        self._cut("too many streams")  # aioquic has refused it already
                    elif not (stream := self._stream(number)).done_receiving:
                        self._arrived(stream, offset, length)
                case {"frame_type": "crypto", "offset": offset, "length": length}:
                    self._handshake_arrived(kind, offset, length)
                case {"frame_type": "connection_close"}:
                    self.draining = self.draining or self._end is None
                    self._ends(int(frame.get("error_code", 0)), str(frame.get("reason", "")))

    def _arrived(self, stream: _Stream, offset: int, length: int) -> None:
        """Count what a peer makes aioquic keep, the gaps too, and end a connection that goes too far."""
        before = stream.highest
        stream.highest = max(before, offset + length)
        self._held += stream.highest - before
        if length and offset + length > stream.delivered:
            stream.pieces.add(offset, offset + length)
        if stream.pieces:
            stream.pieces.drop(stream.delivered)
        if len(stream.pieces) > self._gaps or self._held > self._held_max:
            self._cut("a stream in too many pieces, or too far ahead")

    def _handshake_arrived(self, kind: str, offset: int, length: int) -> None:
        pieces = self._crypto.setdefault(kind, Pieces())
        pieces.add(offset, offset + length)
        if len(pieces) > _GAPS_EARLY:
            self._cut("a handshake in too many pieces")

    def _acknowledged(self, ranges: list[list[int]]) -> None:
        under_way = self._under_way
        for first, last in ranges:
            if last - first < len(under_way):
                numbers = [number for number in range(first, last + 1) if number in under_way]
            else:
                numbers = [number for number in under_way if first <= number <= last]
            for number in numbers:
                for stream_id, length, fin in under_way.pop(number):
                    stream = self._of_streams.get(stream_id)
                    if stream is None:
                        continue
                    stream.acked += length
                    stream.fin_acked = stream.fin_acked or fin
                    if stream.fin_acked and stream.acked >= stream.written:
                        stream.done_sending = True
                        self._drop(stream_id, stream)


_FIGURES = (
    # ours, in the log, and the scale: it counts time in milliseconds
    ("rtt", "smoothed_rtt", 0.001),
    ("rtt_min", "min_rtt", 0.001),
    ("rtt_variance", "rtt_variance", 0.001),
    ("cwnd", "cwnd", 1),
    ("in_flight", "bytes_in_flight", 1),
)
