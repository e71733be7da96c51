"""Hybrid logical clocks: stamps that order all writes of a cluster, and go with the wall clock where it can be trusted.

A stamp is (wall clock in ms, counter, writer); no two writes have the same. A
node that has seen a stamp gives later ones to its own writes, whatever its wall
clock says. So a clock that is an hour ahead wins against writes that did not
know of it, and freezes nothing: the next write by anybody who has seen it wins.

What a peer's stamp may be is bounded by the calendar alone, not by our own
clock, so that all nodes take or refuse the same ones.

From: Kulkarni et al., "Logical Physical Clocks" (2014).
"""

from __future__ import annotations

from typing import NamedTuple

from ..exceptions import LocalProtocolError

__all__ = ["COUNTER_MAX", "WALL_MAX", "HybridClock", "Stamp"]

WALL_MAX = 16_725_225_600_000
"""Milliseconds from 1970 to the year 2500: no stamp is that late."""

COUNTER_MAX = 1 << 32
"""Stamps of one millisecond; then the next millisecond begins."""


class Stamp(NamedTuple):
    """When something was written, and by which life of which node. Ordered by all of it."""

    wall: int
    counter: int
    writer: str
    boot: bytes


class HybridClock:
    """Gives out stamps, each greater than all it gave or saw.

    Args:
        writer, boot: who writes.
        offset: the wall clock in seconds since 1970, minus the owner's ``now``.
    """

    def __init__(self, writer: str, boot: bytes, offset: float) -> None:
        self._writer = writer
        self._boot = boot
        self._last = (0, 0)
        self.offset = offset

    def witness(self, stamp: Stamp) -> None:
        """Take note of a stamp of somebody's."""
        self._last = max(self._last, stamp[:2])

    def age(self, stamp: Stamp, now: float) -> float:
        """Return how many seconds ago a stamp was given, by our wall clock; below 0 if that is behind the writer's."""
        return now + self.offset - stamp.wall / 1000

    def tick(self, now: float) -> Stamp:
        """Return a new stamp.

        Raises:
            LocalProtocolError: there is no later one, since somebody used up the calendar.
        """
        wall, counter = self._last
        physical = min(max(int((now + self.offset) * 1000), 0), WALL_MAX - 1)
        if physical > wall:
            wall, counter = physical, 0
        elif counter + 1 < COUNTER_MAX:
            counter += 1
        elif wall + 1 < WALL_MAX:
            wall, counter = wall + 1, 0
        else:
            raise LocalProtocolError("the clock of the settings is at its end; some node forged a stamp of 2500")
        self._last = (wall, counter)
        return Stamp(wall, counter, self._writer, self._boot)
