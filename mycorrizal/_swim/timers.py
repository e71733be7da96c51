"""Deadlines of the machine: a heap that fires equal times in insertion order, with cheap cancelling."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

_SWEEP_AT = 1024  # timers in the heap, from where the cancelled ones are thrown out now and then


class Timer:
    """One deadline. ``cancel()`` is O(1); the heap forgets it lazily."""

    __slots__ = ("callback", "deadline", "sequence")

    def __init__(self, deadline: float, sequence: int, callback: Callable[[float], None]) -> None:
        self.deadline = deadline
        self.sequence = sequence
        self.callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Make sure the callback never runs."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline, self.sequence) < (other.deadline, other.sequence)


class Timers:
    """The heap of pending timers.

    Attributes:
        now: the time of the present input; a deadline before it is taken for it.
    """

    def __init__(self) -> None:
        self.now = float("-inf")
        self._heap: list[Timer] = []
        self._sequence = 0
        self._sweep_at = _SWEEP_AT

    def call_at(self, deadline: float, callback: Callable[[float], None]) -> Timer:
        """Arrange ``callback(now)`` at `deadline`."""
        if len(self._heap) >= self._sweep_at:
            self._heap[:] = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._heap))
        self._sequence += 1
        timer = Timer(max(deadline, self.now), self._sequence, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, or ``None``."""
        heap = self._heap
        while heap and heap[0].callback is None:
            heapq.heappop(heap)
        return heap[0].deadline if heap else None

    def fire(self, now: float) -> None:
        """Run everything due at `now`, each with `now`; what they add for `now` waits for the next call."""
        last = self._sequence
        later: list[Timer] = []
        heap = self._heap
        while heap and heap[0].deadline <= now:
            timer = heapq.heappop(heap)
            if timer.callback is None:
                continue
            if timer.sequence > last:
                later.append(timer)
                continue
            callback, timer.callback = timer.callback, None
            callback(now)
        for timer in later:
            heapq.heappush(heap, timer)

    def __len__(self) -> int:
        return len(self._heap)
