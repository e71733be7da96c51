"""When whole states are compared, where memberlist's push/pull does not do it: at intervals, and early if it helps."""

from __future__ import annotations

from random import Random

__all__ = ["SyncSchedule"]

_SOON = (0.5, 1.5)  # seconds until an early comparison
_EARLY = 5  # early ones in an interval: whoever learnt something tells it on, but a large state is not sent without end


class SyncSchedule:
    """The time of the next comparison, ``at``; None if there is never one."""

    def __init__(self, interval: float, rng: Random, now: float, *, on: bool) -> None:
        self._interval = interval
        self._rng = rng
        self._tokens = float(_EARLY)
        self._tokens_at = now
        self.at = now + interval * rng.uniform(0.5, 1.0) if on else None

    def done(self, now: float) -> None:
        """One begins now: file the next."""
        if self.at is not None:
            self.at = now + self._interval * self._rng.uniform(0.75, 1.25)

    def hasten(self, now: float) -> None:
        """Something was learnt, or somebody came: compare soon, if not too often."""
        if self.at is None:
            return
        self._tokens = min(float(_EARLY), self._tokens + (now - self._tokens_at) * _EARLY / self._interval)
        self._tokens_at = now
        soon = now + self._rng.uniform(*_SOON)
        if self._tokens >= 1.0 and soon < self.at - _SOON[1]:
            self._tokens -= 1.0
            self.at = soon
