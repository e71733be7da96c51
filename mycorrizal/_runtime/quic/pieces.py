"""What of a stream has arrived ahead of its turn. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["Pieces"]


class Pieces:
    """Ranges of bytes that do not touch, in order; ``len`` is how many there are."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Take in the bytes from `start` to `stop`; what touches becomes one piece."""
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def drop(self, upto: int) -> None:
        """Forget the pieces that begin at `upto` or before: they are not ahead any more."""
        gone = bisect_right(self._starts, upto)
        del self._starts[:gone], self._stops[:gone]
