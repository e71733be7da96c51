"""What aioquic's public interface lacks.

``missing`` names every one of them that an aioquic lacks, so that such a one
is met with the stock path and not by a wrong answer later. Written against
aioquic 1.7.2.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import QuicConnection, QuicConnectionId, QuicConnectionState
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from ...._wire.text import Log, logger
from ..path import PathInfo
from ..transport import Setup, settings
from ..trust.certificates import ClientTls, ServerTls
from .lean import LeanConnection

__all__ = ["LOCAL", "PATH", "FastPath", "Quic", "missing"]

LOCAL = "mycorrizal-local"
"""Name of the congestion control for peers on this host."""
PATH = "mycorrizal-path"
"""Name of the congestion control for all others."""
_LOSSES_OF_A_HOLE = 4
_CRYPTO_ROOM = 2048
_LOCAL_ACK_DELAY = 0.008
"""Most acknowledgements ride along with data or follow 64 KiB; a timer for the rest costs a packet each way."""

_PRIVATE = {
    "QuicConnection": """_ack_delay _ack_eliciting_sent_since_receipt _close_at _close_event _configuration
        _confirm_handshake _crypto_buffers _crypto_streams _cryptos _datagrams_pending _events
        _get_or_create_stream _get_or_create_stream_for_send _handle_crypto_frame _handle_stream_frame _logger
        _handshake_confirmed
        _handshake_done_pending _host_cid_seq _host_cids _idle_timeout _is_client
        _local_ack_delay_exponent _local_active_connection_id_limit _local_initial_source_connection_id
        _local_max_data _local_max_streams_bidi _local_max_streams_uni _loss _loss_at _max_datagram_size
        _network_paths _on_ack_delivery _pacing_at _packet_number _payload_received _peer_cid _ping_pending
        _probe_pending _remote_ack_delay_exponent _remote_active_connection_id_limit _remote_max_data
        _remote_max_data_used _remote_max_idle_timeout _replenish_connection_ids _retire_connection_ids _spaces
        _spin_bit _state _stream_can_receive _stream_can_send _stream_is_discarded _streams _streams_blocked_pending
        _streams_queue _write_connection_limits _write_reset_stream_frame _write_stop_sending_frame host_cid""",
    "QuicPacketRecovery": """_cc _logger _pacer _pto_count _rtt_initial _rtt_initialized _rtt_min _rtt_smoothed
        _rtt_variance _time_of_last_sent_ack_eliciting_packet max_ack_delay on_ack_received on_packet_sent""",
    "QuicPacketPacer": "_max_datagram_size next_send_time packet_time update_after_send",
    "QuicCongestionControl": "_max_datagram_size bytes_in_flight congestion_window",
    "QuicPacketSpace": """ack_at ack_eliciting_in_flight ack_queue expected_packet_number largest_received_packet
        largest_received_time loss_time received_packets sent_packets""",
    "QuicNetworkPath": "addr is_validated remote_challenges",
    "QuicStream": """is_blocked max_stream_data_local max_stream_data_local_sent max_stream_data_remote receiver
        sender""",
    "QuicStreamReceiver": "_buffer _buffer_start _final_size _ranges highest_offset is_finished stop stop_pending",
    "QuicStreamSender": """_acked _acked_fin _buffer_fin _buffer_start _buffer_stop _pending_eof _reset_error_code
        buffer_is_empty highest_offset is_finished reset_pending""",
    "CryptoPair": "_update_key_requested recv send",
    "CryptoContext": "aead hp key_phase",
    "AEAD": "_aead _iv",
    "HeaderProtection": "_encryptor _is_chacha20",
}


class LocalCongestion(QuicCongestionControl):
    """For peers on this host: a window as large as the receiving socket bears, halved on loss and soon back.

    Nothing is shared with others there but the receiver's socket buffer, and
    probing for its size, as for a path, costs a third of the speed.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.most = 1 << 20
        self.least = 8 * max_datagram_size
        self.congestion_window = self.most
        self._reduced_at = -1.0

    def limit(self, most: int) -> None:
        """Set the largest window."""
        self.most = max(most, self.least)
        self.congestion_window = min(self.congestion_window, self.most)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self.bytes_in_flight -= packet.sent_bytes
        if self.congestion_window < self.most:
            self.congestion_window = min(self.most, self.congestion_window + packet.sent_bytes // 2)

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        self.bytes_in_flight += packet.sent_bytes

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        sent = 0.0
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            sent = packet.sent_time or 0.0
        if sent > self._reduced_at:  # once for all that was under way together
            self._reduced_at = now
            self.congestion_window = max(self.least, self.congestion_window // 2)

    def on_persistent_congestion(self) -> None:
        self.congestion_window = self.least

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        pass


class PathCongestion(RenoCongestionControl):
    """New Reno for everyone else; notices a path that carries small packets only.

    A path that shrinks may say so, and the socket then returns EMSGSIZE. Or it
    is silent: then large packets are lost again and again and none arrives
    (RFC 8899 §4.3).
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.losses = 0
        """Losses of packets above 1,200 bytes in a row, with none acknowledged in between."""

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if packet.sent_bytes > 1200:
            self.losses = 0
        super().on_packet_acked(now=now, packet=packet)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self.losses += any(packet.sent_bytes > 1200 for packet in packets)
        super().on_packets_lost(now=now, packets=packets)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self.losses += any(packet.sent_bytes > 1200 for packet in packets)
        super().on_packets_expired(packets=packets)


class _Quiet(logging.LoggerAdapter[Log]):
    """aioquic warns of every stranger's mistake; that is for who debugs, and must not fill anybody's log."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if level > logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug(msg, *args)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Say nothing: aioquic debugs every packet."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Return whether anything would be written."""
        return self.logger.isEnabledFor(logging.DEBUG)


_QUIET: Any = _Quiet(logger("mycorrizal.quic.aioquic"), {})


class _NoPacer:
    """Lets every packet go at once: on this host pacing only adds timers."""

    packet_time = None

    def next_send_time(self, now: float) -> None:
        return None

    def update_after_send(self, now: float) -> None:
        pass

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        pass


def missing() -> Iterable[str]:
    """Yield the names that this aioquic lacks: of a connection that dials, and of its parts."""
    quic: Any = QuicConnection(configuration=QuicConfiguration(server_name="n", cadata=b""))
    found: dict[str, Any] = {"QuicConnection": quic}

    def part(kind: str, make: Callable[[], Any]) -> None:
        try:
            found[kind] = make()
        except (AttributeError, KeyError, IndexError, TypeError):
            found[kind] = None

    part("QuicPacketRecovery", lambda: quic._loss)
    part("QuicPacketPacer", lambda: quic._loss._pacer)
    part("QuicCongestionControl", lambda: quic._loss._cc)
    part("QuicStream", lambda: quic._get_or_create_stream_for_send(0))
    part("QuicStreamReceiver", lambda: found["QuicStream"].receiver)
    part("QuicStreamSender", lambda: found["QuicStream"].sender)
    part("connected", lambda: quic.connect(("192.0.2.1", 9), 0.0))
    part("QuicPacketSpace", lambda: quic._spaces[Epoch.ONE_RTT])
    part("QuicNetworkPath", lambda: quic._network_paths[0])
    part("CryptoPair", lambda: quic._cryptos[Epoch.INITIAL])
    part("CryptoContext", lambda: found["CryptoPair"].send)
    part("AEAD", lambda: found["CryptoContext"].aead)
    part("HeaderProtection", lambda: found["CryptoContext"].hp)
    for kind, names in _PRIVATE.items():
        yield from (f"{kind}.{name}" for name in names.split() if not hasattr(found[kind], name))
    quic.__dict__.clear()


class FastPath:
    """Makes connections of the fast kind."""

    name = "fast"

    def datagram_size(self, info: PathInfo) -> int:
        """Return what the path is thought to carry; it is lowered if it does not."""
        return info.mtu

    def client(self, setup: Setup, tls: ClientTls, token: bytes) -> Quic:
        """Return a connection that is to dial."""
        configuration = _settings(setup, is_client=True)
        configuration.cadata = tls.cadata
        configuration.server_name = tls.server_name
        configuration.verify_mode = ssl.CERT_REQUIRED
        configuration.token = token
        return self._made(Quic(configuration, setup.make_cid, setup.reset_token), setup)

    def server(self, setup: Setup, tls: ServerTls, original: bytes, retried: bytes | None) -> Quic:
        """Return a connection for a client that has not proved itself."""
        configuration = _settings(setup, is_client=False)
        configuration.certificate = tls.certificate
        configuration.private_key = tls.private_key
        configuration.certificate_chain = list(tls.chain)
        quic = Quic(
            configuration,
            setup.make_cid,
            setup.reset_token,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        quic.limits_held = True
        return self._made(quic, setup)

    def _made(self, quic: Quic, setup: Setup) -> Quic:
        if setup.local:
            quic.be_local(setup.window)
        return quic


def _settings(setup: Setup, *, is_client: bool) -> QuicConfiguration:
    configuration = settings(setup, is_client=is_client, congestion=LOCAL if setup.local else PATH)
    configuration.initial_rtt = 0.025 if setup.local else 0.1
    return configuration


class Quic(LeanConnection):
    """A QuicConnection with what its public interface lacks. Loop thread only.

    `make_cid` gives connection ids that this node recognises later, `token`
    the stateless reset token of one, None for none.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        make_cid: Callable[[], bytes],
        token: Callable[[bytes], bytes | None],
        *,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._logger = self._loss._logger = _QUIET
        self.events = self._events
        self._make_cid = make_cid
        self._make_token = token
        own = self._host_cids[0]
        own.cid = self.host_cid = self._local_initial_source_connection_id = make_cid()
        if not self._is_client:
            own.stateless_reset_token = token(own.cid) or own.stateless_reset_token
        # We never migrate, so one spare id is enough; each costs a frame in the handshake.
        self._local_active_connection_id_limit = 2

    def be_local(self, window: int) -> None:
        """Adapt to a peer on this host: no pacing, and at most `window` bytes in flight (with LOCAL congestion)."""
        self._ack_delay = _LOCAL_ACK_DELAY
        loss: Any = self._loss
        loss._pacer = _NoPacer()
        loss._cc.limit(window)

    # -- what happened ----------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it closes, or has closed."""
        return self._close_event is not None

    @property
    def draining(self) -> bool:
        """Whether the peer closed it."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def close_reason(self) -> tuple[int, str]:
        """Code and text of the end, once ``ended``."""
        event = self._close_event
        return (0, "") if event is None else (int(event.error_code), str(event.reason_phrase))

    @property
    def peer_cid(self) -> bytes:
        """The id that our packets carry."""
        return bytes(self._peer_cid.cid)

    def closing_time(self) -> float:
        """Return three probe timeouts in seconds: how long late packets may still come (RFC 9000 §10.2)."""
        return 3 * float(self._loss.get_probe_timeout())

    def binding(self) -> bytes | None:
        """Return what only the two ends of this TLS session have."""
        tap: Any = self._configuration.secrets_log_file
        binding: bytes | None = tap.binding()
        return binding

    # -- streams -----------------------------------------------------------------------

    def open_stream(self, uni: bool) -> int:
        """Return the id of a new stream."""
        stream = self.get_next_available_stream_id(is_unidirectional=uni)
        self.send_stream_data(stream, b"")  # takes the number
        return stream

    def backlog(self, stream_id: int) -> int:
        """Return the bytes written to a stream and not yet acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender._buffer_start

    def writable(self, stream_id: int) -> bool:
        """Return whether bytes written to this stream would still be sent."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return not self._stream_is_discarded(stream_id) and self._stream_can_send(stream_id)
        sender = stream.sender
        return sender._buffer_fin is None and sender._reset_error_code is None and not sender.is_finished

    def halt(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending; nothing for a stream that is gone."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished and self._stream_can_receive(stream_id):
            stream.receiver.stop(code)

    # -- addresses ------------------------------------------------------------------------

    def follow(self, sockaddr: Any) -> None:
        """Have the server at another address."""
        self._network_paths = [type(self._network_paths[0])(sockaddr, is_validated=True)]

    def moved_to(self, sockaddr: Any) -> bool:
        """Return whether the client is at `sockaddr` now."""
        return bool(self._network_paths[0].addr == sockaddr)

    # -- limits and sizes ---------------------------------------------------------------

    def raise_limit(self, max_data: int) -> None:
        """Let the peer send `max_data` bytes ahead of what has arrived in order."""
        self.limits_held = False
        self._window = max_data
        self._local_max_data.value = max(self._local_max_data.value, max_data)

    @property
    def datagram_size(self) -> int:
        """Largest datagram it sends."""
        return int(self._max_datagram_size)

    def lower(self, size: int) -> None:
        """Send no larger datagrams than `size` from now on."""
        size = max(1200, size)
        if size >= self._max_datagram_size:
            return
        self._max_datagram_size = size
        loss = self._loss
        for part in (loss._cc, loss._pacer):
            if hasattr(part, "_max_datagram_size"):
                part._max_datagram_size = size

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        # 48 KiB for a handshake that is over; no ticket follows it.
        self._crypto_buffers = {Epoch.ONE_RTT: Buffer(capacity=_CRYPTO_ROOM)}

    @property
    def in_a_hole(self) -> bool:
        """Whether the path seems to carry small packets only."""
        return self._max_datagram_size > 1200 and getattr(self._loss._cc, "losses", 0) >= _LOSSES_OF_A_HOLE

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(2, self._remote_active_connection_id_limit):
            cid = self._make_cid()
            self._host_cids.append(
                QuicConnectionId(
                    cid=cid,
                    sequence_number=self._host_cid_seq,
                    stateless_reset_token=self._make_token(cid) or self._make_cid() + self._make_cid(),
                )
            )
            self._host_cid_seq += 1

    # -- figures, and the end --------------------------------------------------------------

    def figures(self) -> dict[str, float | int]:
        """Return round-trip time (s), window and bytes in flight, and how often a probe timeout is running."""
        loss = self._loss
        return {
            "rtt": loss._rtt_smoothed,
            "rtt_min": loss._rtt_min if loss._rtt_initialized else 0.0,
            "mtu": self._max_datagram_size,
            "cwnd": loss.congestion_window,
            "in_flight": loss.bytes_in_flight,
            "pto": loss._pto_count,
        }

    def free(self) -> None:
        """Take it apart: it is full of reference cycles, which would wait for the collector."""
        for space in self._spaces.values():
            space.sent_packets.clear()
        tls = self.__dict__.get("tls")
        if tls is not None:
            tls.__dict__.clear()
        self.__dict__.clear()


register_congestion_control(LOCAL, LocalCongestion)
register_congestion_control(PATH, PathCongestion)
