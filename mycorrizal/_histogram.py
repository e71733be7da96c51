"""How long something took: counts in fixed buckets, as Prometheus has them.

One thread observes, any thread reads. An observation is a bisect and two
additions (0.15 us), so that the thread which owns what is measured can afford
one for each request.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

__all__ = ["SECONDS", "Histogram"]

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets; a last one takes what is longer. From a request on one host to a call's usual end."""


class Histogram:
    """Durations in seconds. A negative one, by a clock that was set back, counts as none.

    Attributes:
        bounds: of the buckets, rising; each includes its own.
        total: seconds of all observations together.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one. The owner's thread only: an addition to a list is several steps."""
        if seconds > 0.0:
            self._counts[bisect_left(self.bounds, seconds)] += 1
            self.total += seconds
        else:
            self._counts[0] += 1

    def cumulated(self) -> list[int]:
        """Return how many were at most as long as each bound; the last is the count of all. Any thread.

        The copy of the list is one step (of the GIL, or of the list's own lock), so the numbers agree with each
        other; ``total`` may be an observation ahead of them.
        """
        return list(accumulate(self._counts[:]))
