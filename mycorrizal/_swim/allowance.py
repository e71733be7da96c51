"""What one received datagram may make a node send.

Differs from memberlist, switched off by ``limit_answers=False``. A datagram says of itself where it comes from and whom
to answer, and without a key anybody writes one; with a key anybody plays a recorded one again. There 255 pings in one
packet are 255 acknowledgements, each filled up with broadcasts, to an address of the sender's choice. Here all that is
sent on account of one datagram, at once or later, is at most 4 datagrams and less than 5 times its bytes. What a node
sends at its own pace, to members only, is no answer and is not counted: probes, the last pings of a suspect, gossip.
"""

from __future__ import annotations

__all__ = ["Allowance"]

_DATAGRAMS = 4
_FACTOR = 5


class Allowance:
    """How much may still be sent on account of a datagram of `received` bytes."""

    __slots__ = ("_bytes", "_datagrams")

    def __init__(self, received: int) -> None:
        self._datagrams = _DATAGRAMS
        self._bytes = _FACTOR * received - 1

    @property
    def room(self) -> int:
        """Bytes that the next datagram may have."""
        return self._bytes if self._datagrams else 0

    def take(self, size: int, datagrams: int = 1) -> bool:
        """Use up `datagrams` of `size` bytes each, if they are allowed."""
        if datagrams > self._datagrams or datagrams * size > self._bytes:
            return False
        self._datagrams -= datagrams
        self._bytes -= datagrams * size
        return True

    def aside(self, size: int, datagrams: int = 1) -> Allowance | None:
        """Put `datagrams` of `size` bytes each aside for later, None if they are not allowed."""
        if not self.take(size, datagrams):
            return None
        kept = Allowance(0)
        kept._datagrams, kept._bytes = datagrams, datagrams * size
        return kept
