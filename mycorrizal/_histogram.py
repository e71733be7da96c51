"""How long something took: counts in fixed buckets, as Prometheus has them.

One thread observes, any thread reads; or any thread notes, and one settles. An observation is a bisect and two
additions (0.15 us), so that the thread which owns what is measured can afford
one for each request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate

__all__ = ["SECONDS", "Histogram"]

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets; a last one takes what is longer. From a request on one host to a call's usual end."""

_NOTED_MAX = 1 << 16
"""Durations that were noted and not counted yet; the oldest go first."""


class Histogram:
    """Durations in seconds. A negative one, by a clock that was set back, counts as none.

    Attributes:
        bounds: of the buckets, rising; each includes its own.
        total: seconds of all observations together.
    """

    __slots__ = ("_counts", "_noted", "bounds", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)
        self._noted: deque[float] = deque(maxlen=_NOTED_MAX)

    def observe(self, seconds: float) -> None:
        """Count one. The owner's thread only: an addition to a list is several steps."""
        if seconds > 0.0:
            self._counts[bisect_left(self.bounds, seconds)] += 1
            self.total += seconds
        else:
            self._counts[0] += 1

    def note(self, seconds: float) -> None:
        """Have one counted by the next ``settle``. Any thread."""
        self._noted.append(seconds)

    def settle(self) -> None:
        """Count what was noted. In place of ``observe``, one thread at a time."""
        noted = self._noted
        while noted:
            self.observe(noted.popleft())

    def plus(self, other: Histogram) -> Histogram:
        """Return what this one and `other`, of the same buckets, have counted together. Any thread."""
        both = Histogram(self.bounds)
        both.total = self.total + other.total
        both._counts = [one + two for one, two in zip(self._counts[:], other._counts[:], strict=True)]
        return both

    def cumulated(self) -> list[int]:
        """Return how many were at most as long as each bound; the last is the count of all. Any thread.

        The copy of the list is one step (of the GIL, or of the list's own lock), so the numbers agree with each
        other; ``total`` may be an observation ahead of them.
        """
        return list(accumulate(self._counts[:]))
