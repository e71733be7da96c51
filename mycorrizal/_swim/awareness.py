"""The local health score: how far this node trusts its own observations (Lifeguard LHA-Probe)."""

from __future__ import annotations

__all__ = ["Awareness"]


class Awareness:
    """A saturating counter from 0 (healthy) to ``max_multiplier - 1`` (memberlist ``awareness.go``)."""

    __slots__ = ("_max", "score")

    def __init__(self, max_multiplier: int) -> None:
        self._max = max_multiplier
        self.score = 0

    def apply(self, delta: int) -> None:
        """Add `delta`, clamped."""
        self.score = min(max(self.score + delta, 0), self._max - 1)

    def scale(self, interval: float) -> float:
        """Return `interval` (seconds) stretched by the score."""
        return interval * (self.score + 1)
