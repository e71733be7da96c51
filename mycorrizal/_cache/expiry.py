"""When entries expire: a wheel of one-second buckets, exact about what is in it.

An entry leaves its bucket when it is overwritten or deleted, so the wheel
never holds what the store does not. What expired is invisible at once, since
every read looks at ``expires``; the wheel only takes it out, a bounded number
in one turn.
"""

from __future__ import annotations

import heapq
from itertools import islice

from .entry import NEVER, Entry

__all__ = ["Wheel"]


class Wheel:
    """Buckets of entries by the second in which they expire."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, Entry]] = {}
        self._order: list[int] = []  # a heap of the buckets' seconds

    def add(self, entry: Entry) -> None:
        """Note when `entry` expires, if it does."""
        if entry.expires == NEVER:
            return
        second = int(entry.expires) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = {}
            heapq.heappush(self._order, second)
        bucket[entry.key] = entry
        entry.due = bucket

    def remove(self, entry: Entry) -> None:
        """Forget `entry`."""
        if entry.due is not None:
            del entry.due[entry.key]
            entry.due = None

    def next(self) -> float | None:
        """Return when something is to be taken out."""
        while self._order and not self._buckets[self._order[0]]:
            del self._buckets[heapq.heappop(self._order)]
        return float(self._order[0]) if self._order else None

    def over(self, now: float) -> list[bytes]:
        """Return the keys that are here and have expired. Any thread: of what changes meanwhile it looks at a copy."""
        buckets = [bucket for second, bucket in list(self._buckets.items()) if second <= now + 1]
        return [entry.key for bucket in buckets for entry in list(bucket.values()) if entry.expires <= now]

    def due(self, now: float, most: int) -> list[Entry]:
        """Return up to `most` expired entries, of one second; the caller removes each, and asks again."""
        second = self.next()
        if second is None or second > now:
            return []
        return list(islice(self._buckets[int(second)].values(), most))
