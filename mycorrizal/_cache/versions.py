"""Versions of writes: a hybrid logical clock in one integer of 60 bits.

40 bits of milliseconds, 8 bits of a counter, 12 bits that differ between
nodes. It follows the wall clock, but never falls, and is above everything it
has seen: who merges a copy before it writes makes a version above the copy's,
whatever the two wall clocks say. More than 256 writes in a millisecond borrow
from the next one. 60 bits, because a Python integer of more takes another 16
bytes, a million times.

From: Kulkarni et al., "Logical Physical Clocks" (2014).
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["AHEAD_MAX", "VERSION_MAX", "VersionClock"]

_EPOCH = 1735689600.0  # 2025-01-01; 40 bits of milliseconds last until 2059
_NODE_BITS = 12
_COUNT_BITS = 8

VERSION_MAX = (1 << 60) - 1

AHEAD_MAX = 24 * 3600.0
"""Seconds that a peer's version may be ahead of our wall clock; one of the year 2059 would stop every clock there."""


class VersionClock:
    """Makes versions. ``set_wall`` says what the wall clock shows when the monotonic one shows `now`."""

    __slots__ = ("_last", "_node", "_offset")

    def __init__(self, name: str, boot: bytes, *, wall: float, now: float) -> None:
        self._node = crc32(name.encode() + boot) & ((1 << _NODE_BITS) - 1)
        self._last = 0
        self._offset = wall - now

    def set_wall(self, wall: float, now: float) -> None:
        """The wall clock was set, or drifted."""
        self._offset = wall - now

    def _physical(self, now: float) -> int:
        milliseconds = int((now + self._offset - _EPOCH) * 1000.0)
        return milliseconds << _COUNT_BITS if milliseconds > 0 else 0

    def tick(self, now: float) -> int:
        """Return a version above everything made or seen here."""
        self._last = max(self._physical(now), self._last + 1)
        return self._last << _NODE_BITS | self._node

    def ticks(self, count: int, now: float) -> list[int]:
        """Return as many versions as that many ``tick`` at once would."""
        first = max(self._physical(now), self._last + 1)
        self._last = max(self._last, first + count - 1)
        return [serial << _NODE_BITS | self._node for serial in range(first, first + count)]

    def peek(self) -> int:
        """Return the highest version made or seen here, without making one."""
        return self._last << _NODE_BITS | ((1 << _NODE_BITS) - 1)

    def observe(self, version: int, now: float) -> bool:
        """Take note of a peer's version; False if it is absurdly far ahead, and then it is not taken."""
        seen = version >> _NODE_BITS
        if seen > self._last:
            if version > VERSION_MAX or seen > self._physical(now) + (int(AHEAD_MAX * 1000) << _COUNT_BITS):
                return False
            self._last = seen
        return True
