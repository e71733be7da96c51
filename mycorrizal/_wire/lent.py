"""A value ready to be sent; a large one out of the memory of the caller, who may change it when the call is over.

The loop's thread reads that memory while the caller waits. However the call
ends, by an answer, a deadline or Ctrl-C, and whatever the loop's thread is in
the middle of then: nothing that was read after the caller went on may ever
arrive as a part of the value. So the caller sets ``over`` before it goes on,
and who reads first copies and then looks at ``over``: a copy that was made too
late is thrown away. No lock, and nobody waits for anybody.

*This rests on the GIL*, which keeps what one thread does in order for the
other. Without it, on a processor that reorders reads (not x86-64), the copy
could be seen later than ``over``. So nothing is lent there: values are copied.
"""

from __future__ import annotations

import struct
import sys

from .value_guard import BYTES_FLAG

__all__ = ["LEND_MIN", "Encoded", "Lending", "Lent"]

LEND_MIN = 256 << 10 if getattr(sys, "_is_gil_enabled", lambda: True)() else sys.maxsize
"""Bytes of a value from which a copy costs more than lending it does. Above ``INLINE_MAX``: it has its own stream."""


class Encoded:
    """A value ready to be sent. Do not change it, nor the memory it was made from, until it has been.

    Attributes:
        header: CBOR, with references in place of large memory.
        buffers: that memory, as views of bytes; not copied.
        preamble: what stands before the header in the wire form.
        size: bytes of the wire form.
        lent: who has a say in how long ``buffers`` may be read; None: nobody.
    """

    __slots__ = ("buffers", "header", "preamble", "size")

    lent: Lent | None = None  # of the class: only ``Lending`` has another

    def __init__(self, header: bytes, buffers: tuple[memoryview, ...], preamble: bytes, size: int) -> None:
        self.header = header
        self.buffers = buffers
        self.preamble = preamble
        self.size = size

    def pack(self) -> bytes:
        """Return the wire form in one piece; copies the buffers, so it is for small values."""
        if not self.buffers:
            return self.preamble + self.header
        return b"".join((self.preamble, self.header, *self.buffers))

    def parts(self) -> list[bytes | memoryview]:
        """Return the wire form in pieces, without a copy of the buffers."""
        return [self.preamble + self.header, *self.buffers]


_GONE = Encoded(b"", (), b"", 0)


class Lent:
    """A value that stays where it is.

    Attributes:
        size: bytes of its wire form.
        over: the caller has its memory back: what is read now does not count. Set by the caller, once.
    """

    __slots__ = ("_encoded", "over", "size")

    def __init__(self, encoded: Encoded) -> None:
        self._encoded = encoded
        self.size = encoded.size
        self.over = False

    def let_go(self) -> None:
        """Nobody reads it any more: keep nothing of that memory, which errors and their frames may keep us with."""
        self._encoded = _GONE

    def pack(self) -> bytes | None:
        """Return the wire form in one piece, a copy; None if it is too late for that. Any thread."""
        packed = self._encoded.pack()
        return None if self.over else packed

    def within(self, header: bytes) -> Lending:
        """Return a value whose header refers to one buffer: a byte string, the wire form of this value, not copied."""
        preamble = struct.pack(">BQI", 1, self.size | BYTES_FLAG, len(header))
        parts = tuple([memoryview(part) for part in self._encoded.parts()])
        return Lending(self, header, parts, preamble)


class Lending(Encoded):
    """A value whose buffers, together one, are lent."""

    __slots__ = ("lent",)

    def __init__(self, lent: Lent, header: bytes, buffers: tuple[memoryview, ...], preamble: bytes) -> None:
        super().__init__(header, buffers, preamble, len(preamble) + len(header) + lent.size)
        self.lent = lent
