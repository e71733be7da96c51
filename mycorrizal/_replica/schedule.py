"""When whole states are compared, where memberlist's push/pull does not do it: at intervals, and early if it helps."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["SyncSchedule"]

_SOON = (0.5, 1.5)  # seconds until an early comparison
_EARLY = 5  # early ones in an interval: whoever learnt something tells it on, but a large state is not sent without end
_BACK_SECONDS = 5.0  # who came back may know what nobody here does: no later than this, whatever was early before
_BACK_MAX = 64


class SyncSchedule:
    """The time of the next comparison, ``at``; None if there is never one."""

    def __init__(self, interval: float, rng: Random, now: float, *, on: bool) -> None:
        self._interval = interval
        self._rng = rng
        self._tokens = float(_EARLY)
        self._tokens_at = now
        self._back: dict[str, None] = {}  # who came and was not compared with yet
        self.at = now + interval * rng.uniform(0.5, 1.0) if on else None

    def done(self, now: float) -> None:
        """One begins now: file the next."""
        if self.at is not None:
            self.at = now + self._interval * self._rng.uniform(0.75, 1.25)

    def peer(self, peers: Sequence[str]) -> str:
        """Return whom of `peers`, at least one, to compare with: who came, before anybody else."""
        back, self._back = self._back, {}
        came = [name for name in peers if name in back]
        chosen = self._rng.choice(came or peers)
        self._back = dict.fromkeys(name for name in came if name != chosen)
        return chosen

    def ended(self, failed: bool, now: float) -> None:
        """One is over; if it came to nothing the next is soon, with whomever."""
        if failed and self.at is not None:
            self.at = min(self.at, now + _BACK_SECONDS)

    def hasten(self, now: float, came: str | None = None) -> None:
        """Something was learnt, or somebody `came`: compare soon, if not too often."""
        if self.at is None:
            return
        if came is not None:
            if len(self._back) < _BACK_MAX:
                self._back[came] = None
            self.at = min(self.at, now + _BACK_SECONDS)
        self._tokens = min(float(_EARLY), self._tokens + (now - self._tokens_at) * _EARLY / self._interval)
        self._tokens_at = now
        soon = now + self._rng.uniform(*_SOON)
        if self._tokens >= 1.0 and soon < self.at - _SOON[1]:
            self._tokens -= 1.0
            self.at = soon
