"""Virtual time: a number that only the cluster moves.

Nothing in the simulation reads the time of the machine it runs on, so a run is
a function of its seed and its parameters, and a virtual minute costs whatever
the events in it cost.
"""

from __future__ import annotations

from ..exceptions import LocalProtocolError

__all__ = ["VirtualClock"]


class VirtualClock:
    """Seconds since the start of the simulation; never runs backwards."""

    __slots__ = ("_now",)

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    @property
    def now(self) -> float:
        """The current virtual time in seconds."""
        return self._now

    def advance(self, to: float) -> None:
        """Move to `to`, which must not be in the past."""
        if to < self._now:
            raise LocalProtocolError(f"the virtual clock stands at {self._now}, it cannot go back to {to}")
        self._now = to
