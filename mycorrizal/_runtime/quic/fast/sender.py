"""The sending half of a stream, and the integers of QUIC.

From: RFC 9000 §3.1, §16, §19.8.
"""

from __future__ import annotations

from collections import deque

from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.stream import QuicStream, QuicStreamSender

__all__ = ["Sender", "pull_varint", "push_varint", "stream_header", "varint_size", "with_sender"]

_ACKED = QuicDeliveryState.ACKED


class Sender(QuicStreamSender):
    """The sending half of a stream that keeps what it is given as it is, instead of copying it together.

    Bytes are sliced once, into the packet. A chunk is let go when its last
    byte is acknowledged.
    """

    def __init__(self, stream_id: int | None) -> None:
        super().__init__(stream_id, True)
        self._unsent: deque[bytes] = deque()
        self._cut = 0  # bytes of the first unsent chunk that were sent
        self._kept: deque[tuple[int, bytes]] = deque()  # (offset, chunk): sent, not acknowledged
        self._lost: deque[tuple[int, int]] = deque()

    @property
    def next_offset(self) -> int:
        """Where the next frame will begin."""
        return self._lost[0][0] if self._lost else self.highest_offset

    def write(self, data: bytes, end_stream: bool = False) -> None:
        """Append `data`; anything but bytes is copied."""
        if self._buffer_fin is not None or self._reset_error_code is not None:
            raise RuntimeError("cannot write to a stream that has ended")
        if data:
            if type(data) is not bytes:
                data = bytes(data)
            self.buffer_is_empty = False
            self._unsent.append(data)
            self._buffer_stop += len(data)
        if end_stream:
            self.buffer_is_empty = False
            self._buffer_fin = self._buffer_stop
            self._pending_eof = True

    def take(self, most: int, max_offset: int) -> tuple[int, bytes | memoryview, bool] | None:
        """Return ``(offset, data, fin)`` of the next frame, at most `most` bytes up to `max_offset`; None if none."""
        if most < 0:
            return None
        data: bytes | memoryview = b""
        if self._lost:
            start, stop = self._lost.popleft()
            if stop - start > most:
                if not most:
                    self._lost.appendleft((start, stop))
                    return None
                self._lost.appendleft((start + most, stop))
                stop = start + most
            data = self._read(start, stop)
        elif self._unsent:
            start = self.highest_offset
            room = min(most, max_offset - start)
            if room <= 0:
                return None
            data = self._cut_off(room)
            stop = self.highest_offset = start + len(data)
        elif self._pending_eof:
            start = stop = self._buffer_stop
        else:
            self.buffer_is_empty = True
            return None
        fin = stop == self._buffer_fin
        if fin:
            self._pending_eof = False
        if not self._unsent and not self._lost and not self._pending_eof:
            self.buffer_is_empty = True
        return start, data, fin

    def _cut_off(self, room: int) -> bytes | memoryview:
        unsent = self._unsent
        chunk = unsent[0]
        cut = self._cut
        left = len(chunk) - cut
        if left > room:
            self._cut = cut + room
            return memoryview(chunk)[cut : cut + room]
        self._cut = 0
        at = self.highest_offset
        self._kept.append((at - cut, chunk))
        unsent.popleft()
        if left == room or not unsent:
            return chunk if not cut else memoryview(chunk)[cut:]
        parts: list[bytes | memoryview] = [memoryview(chunk)[cut:] if cut else chunk]
        room -= left
        at += left
        while unsent and room:
            chunk = unsent[0]
            if len(chunk) > room:
                parts.append(memoryview(chunk)[:room])
                self._cut = room
                break
            parts.append(chunk)
            self._kept.append((at, chunk))
            unsent.popleft()
            room -= len(chunk)
            at += len(chunk)
        return b"".join(parts)

    def _read(self, start: int, stop: int) -> bytes:
        """Return bytes that were sent before."""
        parts = []
        for offset, chunk in self._kept:
            if offset >= stop:
                break
            if offset + len(chunk) > start:
                parts.append(memoryview(chunk)[max(0, start - offset) : stop - offset])
        if self._cut:
            offset = self.highest_offset - self._cut
            if offset < stop:
                parts.append(memoryview(self._unsent[0])[max(0, start - offset) : stop - offset])
        return b"".join(parts)

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        """Do what ``take`` does, for aioquic."""
        taken = self.take(max_size, self._buffer_stop if max_offset is None else max_offset)
        if taken is None:
            return None
        return QuicStreamFrame(offset=taken[0], data=bytes(taken[1]), fin=taken[2])

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        """A frame arrived, or was lost."""
        if self._reset_error_code is not None:
            return
        if delivery is not _ACKED:
            self.buffer_is_empty = False
            if stop > start:
                self._lost.append((start, stop))
            if fin:
                self._pending_eof = True
            return
        if stop > start:
            if start == self._buffer_start and not len(self._acked):
                self._buffer_start = stop
            else:
                self._acked.add(start, stop)
                if self._acked[0].start == self._buffer_start:
                    self._buffer_start = self._acked.shift().stop
            kept = self._kept
            while kept and kept[0][0] + len(kept[0][1]) <= self._buffer_start:
                kept.popleft()
        if fin:
            self._acked_fin = True
        if self._acked_fin and self._buffer_start == self._buffer_fin:
            self.is_finished = True

    def reset(self, error_code: int) -> None:
        """Give up, and let go of the data."""
        super().reset(error_code)
        if self._reset_error_code is not None:
            self._unsent.clear()
            self._kept.clear()
            self._lost.clear()
            self._cut = 0


def with_sender(stream: QuicStream) -> QuicStream:
    """Return `stream`, which is new, with our sender in place of aioquic's if it may send.

    Later is too late: frames under way tell the sender they came from what became of them.
    """
    if type(stream.sender) is QuicStreamSender and not stream.sender.is_finished:
        stream.sender = Sender(stream.stream_id)
    return stream


def pull_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length integer and where it ends (RFC 9000 §16)."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    size = 1 << (first >> 6)
    end = at + size
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * size - 2)) - 1), end


def varint_size(value: int) -> int:
    """Return the bytes of the shortest form."""
    return 1 if value < 0x40 else 2 if value < 0x4000 else 4 if value < 0x40000000 else 8


def stream_header(kind: int, stream_id: int, offset: int, length: int) -> bytes:
    """Return the head of a STREAM frame with a length of two bytes."""
    if stream_id < 0x40:
        head = bytes((kind, stream_id))
    else:
        head = bytes((kind,)) + push_varint(stream_id)
    if offset:
        head += push_varint(offset)
    return head + (0x4000 | length).to_bytes(2, "big")


def push_varint(value: int) -> bytes:
    """Return the shortest form."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (0x4000 | value).to_bytes(2, "big")
    if value < 0x40000000:
        return (0x80000000 | value).to_bytes(4, "big")
    return (0xC000000000000000 | value).to_bytes(8, "big")
