"""Deadlines of the cache machine: a heap that fires equal times in insertion order, with cheap cancelling."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

_SWEEP_AT = 1024


class Timer:
    """One deadline."""

    __slots__ = ("callback", "deadline", "number")

    def __init__(self, deadline: float, number: int, callback: Callable[[float], None]) -> None:
        self.deadline = deadline
        self.number = number
        self.callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Make sure that it never fires; the heap forgets it lazily."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class Timers:
    """All deadlines of a machine."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._number = 0
        self._sweep_at = _SWEEP_AT

    def call_at(self, deadline: float, callback: Callable[[float], None]) -> Timer:
        """Arrange ``callback(now)`` at `deadline`."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._heap))
        self._number += 1
        timer = Timer(deadline, self._number, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def next(self) -> float | None:
        """Return the earliest deadline."""
        heap = self._heap
        while heap and heap[0].callback is None:
            heapq.heappop(heap)
        return heap[0].deadline if heap else None

    def fire(self, now: float) -> None:
        """Run what is due; what is added meanwhile waits for the next call."""
        last = self._number
        later = []
        while self._heap and self._heap[0].deadline <= now:
            timer = heapq.heappop(self._heap)
            if timer.callback is None:
                continue
            if timer.number > last:
                later.append(timer)
                continue
            callback, timer.callback = timer.callback, None
            callback(now)
        for timer in later:
            heapq.heappush(self._heap, timer)
