"""Questions under way: who was asked, until when, and what is to be done with the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .outputs import Fetch

__all__ = ["Fetches"]

FetchEnd = Callable[[bytes | None, float], None]
"""Called once with the answer, or None, and the time."""


@dataclass(slots=True)
class _Open:
    deadline: float
    end: FetchEnd


class Fetches:
    """Bounded in number; one that the owner never reports on has failed after a while."""

    def __init__(self, most: int, seconds: float, whole_seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._whole_seconds = whole_seconds
        self._open: dict[int, _Open] = {}
        self._last_id = 0
        self.waiting: list[Fetch] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether no further one may be started."""
        return len(self._open) >= self._most

    def start(self, member: str, payload: bytes, now: float, end: FetchEnd, *, whole: bool = False) -> int:
        """Ask `member`; the caller has looked at ``full``."""
        self._last_id += 1
        self._open[self._last_id] = _Open(now + (self._whole_seconds if whole else self._seconds), end)
        self.waiting.append(Fetch(self._last_id, member, payload, whole))
        return self._last_id

    def ended(self, fetch_id: int, data: bytes | None, now: float) -> None:
        """The owner reports; what is not open any more is ignored."""
        fetch = self._open.pop(fetch_id, None)
        if fetch is not None:
            fetch.end(data, now)

    def due(self) -> float | None:
        """Return when the first one has waited too long."""
        return min([fetch.deadline for fetch in self._open.values()], default=None)

    def expire(self, now: float) -> None:
        """End those that have waited too long."""
        for fetch_id in [i for i, fetch in self._open.items() if fetch.deadline <= now]:
            self.waiting = [fetch for fetch in self.waiting if fetch.fetch_id != fetch_id]
            self.ended(fetch_id, None, now)
