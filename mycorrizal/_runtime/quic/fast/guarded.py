"""aioquic, told to trust a peer less: bounds on what it keeps, and a rule it forgets.

From: RFC 9000 §4.1, §4.6, §21.6.
"""

from __future__ import annotations

import contextlib
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection, QuicReceiveContext
from aioquic.quic.stream import QuicStream

__all__ = ["Guarded", "TooManyGaps"]

_GAPS_MAX = 1024
"""Pieces in which a stream may arrive. aioquic looks at all of them for each frame that comes out of order."""
_GAPS_EARLY = 64
"""The same while the limits are held, and in the handshake, where anyone may send."""


class TooManyGaps(Exception):
    """A packet is dropped before it is acknowledged: its sender will send it again."""


class Guarded(QuicConnection):
    """A QuicConnection with more bounds.

    Attributes:
        limits_held: while true the peer's flow control limits stay as they began.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.limits_held = False
        self._window = self._local_max_data.value

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Do what aioquic does."""
        with contextlib.suppress(TooManyGaps):
            super().receive_datagram(data, addr, now)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        at = buf.tell()
        stream = self._streams.get(buf.pull_uint_var())
        if stream is not None and frame_type & 4:
            _check_gaps(stream, buf.pull_uint_var(), _GAPS_EARLY if self.limits_held else _GAPS_MAX)
        buf.seek(at)
        super()._handle_stream_frame(context, frame_type, buf)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        at = buf.tell()
        _check_gaps(self._crypto_streams[context.epoch], buf.pull_uint_var(), _GAPS_EARLY)
        buf.seek(at)
        super()._handle_crypto_frame(context, frame_type, buf)

    def _write_reset_stream_frame(self, builder: Any, stream: QuicStream) -> None:
        if not stream.is_blocked:  # the peer does not allow a stream of this number yet, not even its end
            super()._write_reset_stream_frame(builder, stream)

    def _write_stop_sending_frame(self, builder: Any, stream: QuicStream) -> None:
        if not stream.is_blocked:
            super()._write_stop_sending_frame(builder, stream)

    def _limits_wait(self) -> bool:
        """Whether MAX_DATA or MAX_STREAMS has to be sent."""
        if self.limits_held:
            return False
        data = self._local_max_data
        if 2 * (data.value - data.used) < self._window:
            self._slide()
        if data.value != data.sent:
            return True
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            if limit.value != limit.sent and limit.sent - limit.used < limit.value - limit.sent:
                return True
        return False

    def _slide(self) -> None:
        """Raise MAX_DATA to one window beyond what has arrived in order.

        aioquic doubles it for ever, and then a peer that leaves gaps in its
        streams can make us hold any number of bytes.
        """
        data = self._local_max_data
        held = 0
        for stream in self._streams.values():
            receiver = stream.receiver
            if receiver.is_finished:
                receiver._buffer.clear()  # nobody reads what was there when it was reset
            held += len(receiver._buffer)
        value = data.used - held + self._window
        if 4 * (value - data.value) >= self._window:
            data.value = value

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        if not self._limits_wait():
            return
        data = self._local_max_data
        used, data.used = data.used, 0  # else aioquic would double it
        try:
            super()._write_connection_limits(builder, space)
        finally:
            data.used = used


def _check_gaps(stream: QuicStream, offset: int, most: int) -> None:
    """Raise if a stream has arrived in too many pieces, and what is at `offset` would not be its next one."""
    if len(stream.receiver._ranges) >= most and offset > stream.receiver._buffer_start:
        raise TooManyGaps
