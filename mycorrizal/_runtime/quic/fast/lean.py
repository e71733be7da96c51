"""The hot paths of aioquic, written again for packets that hold nothing but streams and acknowledgements.

Once a handshake is confirmed nearly every packet is a short one on the one
validated path; those are read and written here, with a third of the calls and
of the copies. Whatever is unusual about a packet or a connection (another
frame, another path, a key update, an error) goes to aioquic's own code, whose
state this module keeps exactly as it would itself.

From: RFC 9000 §12, §17.3, §19; RFC 9001 §5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aioquic._buffer import Buffer
from aioquic._crypto import CryptoError
from aioquic.quic.connection import QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicPacketType, push_ack_frame
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag

from .guarded import Guarded, TooManyGaps
from .sender import Sender, pull_varint, stream_header, varint_size, with_sender

__all__ = ["LeanConnection"]

Send = Callable[[bytes, Any], object]

_CID = 8
_NUMBER_AT = 1 + _CID
_SAMPLE_AT = _NUMBER_AT + 4
_HEADER = 1 + _CID + 2
_TAG = 16
_OVERHEAD = _HEADER + _TAG
_ONE_RTT = Epoch.ONE_RTT
_STREAM = 0x08
_ACK_ROOM = 1024
_ACK_WITH_DATA = 0.001
"""An acknowledgement this old rides along with data; younger ones would only make every packet dearer."""
_ACK_BYTES = 64 << 10
_ACK_PACKETS = 32
"""So much received is acknowledged at once, however long acknowledgements may wait otherwise."""
_SMALLEST_PART = 1000
_UNHEARD_MAX = 64
"""So many acknowledgements may go unacknowledged before one asks for it; beyond eight times that they are forgotten."""
_KEY_PACKETS = 1 << 22
"""Packets after which keys are renewed; AES-GCM is good for twice as many (RFC 9001 §6.6)."""
_PACKETS_A_TURN = 16
"""Then others have their turn: 0.3 ms."""


class _Sent:
    """A packet under way, with the attributes that aioquic's recovery reads."""

    __slots__ = (
        "delivery_handlers",
        "epoch",
        "in_flight",
        "is_ack_eliciting",
        "is_crypto_packet",
        "packet_number",
        "packet_type",
        "quic_logger_frames",
        "sent_bytes",
        "sent_time",
    )

    def __init__(self, number: int, eliciting: bool, size: int, now: float, handlers: list[Any]) -> None:
        self.epoch = _ONE_RTT
        self.in_flight = self.is_ack_eliciting = eliciting
        self.is_crypto_packet = False
        self.packet_number = number
        self.packet_type = QuicPacketType.ONE_RTT
        self.sent_time = now
        self.sent_bytes = size
        self.delivery_handlers = handlers
        self.quic_logger_frames = ()


class _Ranges(list[range]):
    """Acknowledged packet numbers, ascending."""

    def bounds(self) -> range:
        return range(self[0].start, self[-1].stop)


class _Keys:
    """What protects short packets, taken out of aioquic's objects; valid while they hold the same ciphers."""

    __slots__ = ("aead", "decrypt", "encrypt", "iv", "mask", "pair", "phase", "space")

    def __init__(self, pair: Any, context: Any, space: Any) -> None:
        self.pair = pair
        self.space = space
        self.aead = context.aead
        self.iv = context.aead._iv
        self.phase = context.key_phase
        self.encrypt = context.aead._aead.encrypt
        self.decrypt = context.aead._aead.decrypt
        self.mask = context.hp._encryptor.update


class LeanConnection(Guarded):
    """A QuicConnection with short ways. Loop thread only.

    Attributes:
        arrived: ``(stream, data, fin)`` in order, to be taken before ``next_event``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.arrived: list[tuple[int, bytes, bool]] = []
        self._renew_at = _KEY_PACKETS
        self._unacked_bytes = 0
        self._unacked_packets = 0
        self._for_receiving: _Keys | None = None
        self._for_sending: _Keys | None = None

    # -- streams get our Sender ------------------------------------------------------------

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        known = len(self._streams_queue)
        stream = super()._get_or_create_stream(frame_type, stream_id)
        for made in self._streams_queue[known:]:  # one, and all before it that the peer has skipped
            with_sender(made)
        return stream

    def _get_or_create_stream_for_send(self, stream_id: int) -> QuicStream:
        return with_sender(super()._get_or_create_stream_for_send(stream_id))

    def write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Do what ``send_stream_data`` does; nothing if the stream has ended, or is not ours to write to."""
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._stream_is_discarded(stream_id) or not self._stream_can_send(stream_id):
                return
            stream = self._get_or_create_stream_for_send(stream_id)
        sender = stream.sender
        if sender._buffer_fin is None and sender._reset_error_code is None and not sender.is_finished:
            sender.write(data, fin)

    def _keys(self, sending: bool) -> _Keys | None:
        pair = self._cryptos[_ONE_RTT]
        context = pair.send if sending else pair.recv
        if context.aead is None or context.hp is None or context.hp._is_chacha20:
            return None
        keys = _Keys(pair, context, self._spaces[_ONE_RTT])
        if sending:
            self._for_sending = keys
        else:
            self._for_receiving = keys
        return keys

    # -- receiving --------------------------------------------------------------------------

    def take_datagram(self, data: bytes, sockaddr: Any, now: float) -> bool:
        """Do what ``receive_datagram`` does; stream data is put into ``arrived``.

        True: it was the peer's, and not forged.
        """
        idle_at = self._close_at
        if (
            data[0] & 0xC0 == 0x40
            and self._handshake_confirmed
            and self._close_event is None
            and len(data) >= _SAMPLE_AT + 16
        ):
            paths = self._network_paths
            if (
                len(paths) == 1
                and paths[0].is_validated
                and paths[0].addr == sockaddr
                and data[1:_NUMBER_AT] == self.host_cid
            ):
                keys = self._for_receiving
                if keys is None or keys.aead is not keys.pair.recv.aead:
                    keys = self._keys(False)
                if keys is not None and self._take_short(data, keys, now):
                    return self._close_at != idle_at
        self.receive_datagram(data, sockaddr, now)
        paths = self._network_paths
        if len(paths) > 1 and paths[0].addr == sockaddr and paths[0].is_validated:
            del paths[1:]  # a client that has shown where it is now is nowhere else
        return self._close_at != idle_at

    def _take_short(self, data: bytes, keys: _Keys, now: float) -> bool:
        """Read a short packet; False if aioquic has to, and nothing was done."""
        mask = keys.mask(data[_SAMPLE_AT : _SAMPLE_AT + 16])
        first = data[0] ^ (mask[0] & 0x1F)
        if first & 0x18 or (first >> 2) & 1 != keys.phase:
            return False
        space = keys.space
        width = (first & 3) + 1
        body = _NUMBER_AT + width
        truncated = int.from_bytes(data[_NUMBER_AT:body], "big") ^ int.from_bytes(mask[1 : 1 + width], "big")
        expected = space.expected_packet_number
        window = 1 << (8 * width)
        number = (expected & -window) | truncated
        if number <= expected - (window >> 1):
            number += window
        elif number > expected + (window >> 1) and number >= window:
            number -= window
        header = bytes((first,)) + data[1:_NUMBER_AT] + truncated.to_bytes(width, "big")
        try:
            payload = keys.decrypt((keys.iv ^ number).to_bytes(12, "big"), memoryview(data)[body:], header)
        except (InvalidTag, CryptoError):
            return True  # forged, or damaged: dropped
        if number in space.received_packets:
            return True
        if number >= expected:
            space.expected_packet_number = number + 1
        try:
            eliciting = self._frames(payload, now)
        except QuicConnectionError as exc:
            self.close(error_code=exc.error_code, frame_type=exc.frame_type, reason_phrase=exc.reason_phrase)
            return True
        except TooManyGaps:
            return True
        if self._close_event is not None:
            return True
        self._close_at = now + self._quiet_time()
        self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > 64:
            space.ack_queue.shift()
        if eliciting:
            if space.ack_at is None:
                space.ack_at = now + self._ack_delay
                self._unacked_bytes = self._unacked_packets = 0
            self._unacked_packets += 1
            self._unacked_bytes += len(data)
            if self._unacked_bytes >= _ACK_BYTES or self._unacked_packets >= _ACK_PACKETS:
                space.ack_at = now
        return True

    def _quiet_time(self) -> float:
        """Return the idle timeout; three probe timeouts only matter to very short ones."""
        own = self._configuration.idle_timeout
        other = self._remote_max_idle_timeout
        shorter = own if other is None or own < other else other
        return shorter if shorter > 15.0 else self._idle_timeout()

    def _frames(self, payload: bytes, now: float) -> bool:
        """Handle the frames of a packet; return whether it wants an acknowledgement."""
        at = 0
        end = len(payload)
        eliciting = False
        streams = self._streams
        while at < end:
            kind = payload[at]
            start = at
            at += 1
            if kind & 0xF8 == _STREAM:
                stream_id = payload[at]
                at += 1
                if stream_id > 63:
                    stream_id, at = pull_varint(payload, at - 1)
                offset = 0
                if kind & 4:
                    offset, at = pull_varint(payload, at)
                if kind & 2:
                    length, at = pull_varint(payload, at)
                else:
                    length = end - at
                stream = streams.get(stream_id)
                stop = at + length
                if stream is None or stop > end or not self._in_order(stream, offset, length, kind & 1):
                    return self._rest(payload, start, now) or eliciting
                self.arrived.append((stream_id, payload[at:stop], bool(kind & 1)))
                at = stop
                eliciting = True
            elif kind == 0x02:
                at = self._ack(payload, at, now)
                if not at:
                    return self._rest(payload, start, now) or eliciting
            elif kind == 0x01:
                eliciting = True
            elif kind:  # neither PADDING nor any of the above
                return self._rest(payload, start, now) or eliciting
        return eliciting

    def _rest(self, payload: bytes, start: int, now: float) -> bool:
        """Let aioquic handle the frames from `start` on."""
        context = QuicReceiveContext(
            epoch=_ONE_RTT,
            host_cid=self.host_cid,
            network_path=self._network_paths[0],
            quic_logger_frames=None,
            time=now,
            version=None,
        )
        return bool(self._payload_received(context, payload[start:])[0])

    def _in_order(self, stream: QuicStream, offset: int, length: int, fin: int) -> bool:
        """Take note of a STREAM frame if it is just the next one; False if there is more to it."""
        receiver = stream.receiver
        if (
            offset != receiver._buffer_start
            or not length
            or receiver._buffer
            or receiver._final_size is not None
            or receiver.is_finished
        ):
            return False
        stop = offset + length
        limit = self._local_max_data
        fresh = stop - receiver.highest_offset
        if fresh < 0 or stop > stream.max_stream_data_local or limit.used + fresh > limit.value:
            return False
        limit.used += fresh
        receiver.highest_offset = receiver._buffer_start = stop
        if fin:
            receiver._final_size = stop
            receiver.is_finished = True
        return True

    def _ack(self, payload: bytes, at: int, now: float) -> int:
        """Handle an ACK frame; return where it ends, 0 if aioquic has to look at it."""
        largest, at = pull_varint(payload, at)
        delay, at = pull_varint(payload, at)
        count, at = pull_varint(payload, at)
        first, at = pull_varint(payload, at)
        low = largest - first
        ranges = _Ranges((range(low, largest + 1),))
        if count > 64:
            return 0
        for _ in range(count):
            gap, at = pull_varint(payload, at)
            length, at = pull_varint(payload, at)
            high = low - gap - 2
            low = high - length
            ranges.append(range(low, high + 1))
        if low < 0 or at > len(payload):
            return 0
        ranges.reverse()
        keys = self._for_receiving
        assert keys is not None
        self._loss.on_ack_received(
            ack_rangeset=ranges,  # type: ignore[arg-type]
            ack_delay=(delay << self._remote_ack_delay_exponent) / 1000000,
            now=now,
            space=keys.space,
        )
        return at

    # -- sending ----------------------------------------------------------------------------

    def give_datagrams(self, send: Send, now: float) -> bool:
        """Do what ``datagrams_to_send`` does, and hand each datagram to `send` as soon as it is made.

        True: there is more, which was held back only to let others have their turn.
        """
        if not self._network_paths:
            return False
        if self._packet_number >= self._renew_at:
            self._renew_at = self._packet_number + _KEY_PACKETS
            self.request_key_update()
        if self._is_plain():
            keys = self._for_sending
            if keys is None or keys.aead is not keys.pair.send.aead:
                keys = self._keys(True)
            if keys is not None:
                return self._give(keys, send, now)
        for data, address in self.datagrams_to_send(now):
            send(data, address)
        return False

    def _is_plain(self) -> bool:
        """Whether there is nothing to send but stream data and acknowledgements."""
        paths = self._network_paths
        if (
            not self._handshake_confirmed
            or self._close_event is not None
            or len(paths) != 1
            or not paths[0].is_validated
            or paths[0].remote_challenges
            or self._handshake_done_pending
            or self._probe_pending
            or self._ping_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._datagrams_pending
            or self._cryptos[_ONE_RTT]._update_key_requested
            or not self._crypto_streams[_ONE_RTT].sender.buffer_is_empty
            or self._limits_wait()
        ):
            return False
        for cid in self._host_cids:
            if not cid.was_sent:
                return False
        for stream in self._streams_queue:
            receiver = stream.receiver
            sender = stream.sender
            if (
                ((receiver.stop_pending or sender.reset_pending) and not stream.is_blocked)
                or (receiver.is_finished and sender.is_finished)
                or stream.max_stream_data_local_sent != stream.max_stream_data_local
                or receiver.highest_offset * 2 > stream.max_stream_data_local > 0
                or (type(sender) is not Sender and not sender.buffer_is_empty)
            ):
                return False
        return True

    def _give(self, keys: _Keys, send: Send, now: float) -> bool:
        self._pacing_at = None
        space = keys.space
        ready = [s for s in self._streams_queue if not s.sender.buffer_is_empty and not s.is_blocked]
        ack = space.ack_at is not None and (
            space.ack_at <= now or (ready and space.ack_at - self._ack_delay + _ACK_WITH_DATA <= now)
        )
        address = self._network_paths[0].addr
        loss = self._loss
        pacer = loss._pacer
        control = loss._cc
        for _ in range(_PACKETS_A_TURN):
            if not ack:
                if not ready:
                    return False
                if pacer.packet_time is not None:
                    self._pacing_at = pacer.next_send_time(now)
                    if self._pacing_at is not None:
                        return False
            parts: list[bytes | memoryview] = []
            handlers: list[Any] = []
            size = self._max_datagram_size
            room = size - _OVERHEAD
            eliciting = False
            if ack:
                ack = False
                frame, eliciting = self._ack_frame(space, now)
                parts.append(frame)
                handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
                room -= len(frame)
            if ready:
                allowed = control.congestion_window - control.bytes_in_flight
                if allowed < size:
                    room -= size - allowed
                    if control.bytes_in_flight and room < _SMALLEST_PART:
                        ready = []  # a fragment now would cost as much as a whole packet a moment later
                if ready:
                    ready = self._stream_frames(ready, room, parts, handlers)
            if not parts:
                return False
            eliciting = eliciting or len(parts) > 1 or parts[0][0] != 0x02
            datagram = self._protect(keys, b"".join(parts))
            packet: Any = _Sent(self._packet_number, eliciting, len(datagram), now, handlers)
            self._packet_number += 1
            if eliciting or len(space.sent_packets) - space.ack_eliciting_in_flight < 8 * _UNHEARD_MAX:
                loss.on_packet_sent(packet=packet, space=space)
            if pacer.packet_time is not None:
                pacer.update_after_send(now)
            if eliciting and not self._ack_eliciting_sent_since_receipt:
                self._close_at = now + self._quiet_time()
                self._ack_eliciting_sent_since_receipt = True
            send(datagram, address)
        return bool(ready)

    def _protect(self, keys: _Keys, plain: bytes) -> bytes:
        """Return the datagram with `plain` as its packet's payload (RFC 9001 §5.3, §5.4)."""
        number = self._packet_number
        if len(plain) < 2:
            plain += b"\0"  # header protection takes its sample 2 bytes into the payload
        low = number & 0xFFFF
        header = bytes((0x41 | self._spin_bit << 5 | keys.phase << 2,)) + self._peer_cid.cid + low.to_bytes(2, "big")
        sealed = keys.encrypt((keys.iv ^ number).to_bytes(12, "big"), plain, header)
        mask = keys.mask(sealed[2:18])
        return b"".join(
            (
                bytes((header[0] ^ (mask[0] & 0x1F),)),
                self._peer_cid.cid,
                (low ^ (mask[1] << 8 | mask[2])).to_bytes(2, "big"),
                sealed,
            )
        )

    def _ack_frame(self, space: Any, now: float) -> tuple[bytes, bool]:
        """Return an ACK frame, and whether a PING was added so that the peer acknowledges it in turn."""
        buf = Buffer(capacity=_ACK_ROOM)
        buf.push_uint_var(0x02)
        delay = int((now - space.largest_received_time) * 1000000) >> self._local_ack_delay_exponent
        ranges = push_ack_frame(buf, space.ack_queue, max(0, delay), _ACK_ROOM - 2)
        space.ack_at = None
        if (ranges > 1 and self._packet_number % 8 == 0) or (
            not space.ack_eliciting_in_flight and len(space.sent_packets) >= _UNHEARD_MAX
        ):
            return buf.data + b"\x01", True
        return buf.data, False

    def _stream_frames(
        self, ready: list[QuicStream], room: int, parts: list[bytes | memoryview], handlers: list[Any]
    ) -> list[QuicStream]:
        """Add frames of the streams that are ready; return those that still are, the served ones last."""
        waiting = []
        served = []
        for index, stream in enumerate(ready):
            sender: Any = stream.sender
            at = sender.next_offset
            head = 3 + varint_size(stream.stream_id or 0) + (varint_size(at) if at else 0)
            if room <= head:
                waiting = ready[index:]
                break
            before = sender.highest_offset
            limit = min(before + self._remote_max_data - self._remote_max_data_used, stream.max_stream_data_remote)
            taken = sender.take(room - head, limit)
            if taken is None:
                continue  # flow control holds it
            offset, data, fin = taken
            self._remote_max_data_used += sender.highest_offset - before
            kind = 0x0A | (4 if offset else 0) | fin
            length = len(data)
            parts.append(stream_header(kind, stream.stream_id or 0, offset, length))
            parts.append(data)
            handlers.append((sender.on_data_delivery, (offset, offset + length, fin)))
            room -= head + length
            if not sender.buffer_is_empty:
                served.append(stream)
            if len(ready) > 1:  # who was served goes to the end
                self._streams_queue.remove(stream)
                self._streams_queue.append(stream)
        return waiting + served

    # -- timers -------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Do what ``get_timer`` does."""
        keys = self._for_sending
        paths = self._network_paths
        if not self._handshake_confirmed or keys is None or self._close_event is not None or not paths[0].is_validated:
            return self.get_timer()
        space = keys.space
        when: float = self._close_at or 0.0
        if space.ack_at is not None and space.ack_at < when:
            when = space.ack_at
        loss = self._loss
        due: float | None = space.loss_time
        if due is None and space.ack_eliciting_in_flight:
            wait = loss._rtt_smoothed + max(4 * loss._rtt_variance, 0.001) + loss.max_ack_delay
            if not loss._rtt_initialized:
                wait = 2 * loss._rtt_initial
            due = loss._time_of_last_sent_ack_eliciting_packet + wait * (1 << loss._pto_count)
        self._loss_at = due
        if due is not None and due < when:
            when = due
        if self._pacing_at is not None and self._pacing_at < when:
            when = self._pacing_at
        return when
