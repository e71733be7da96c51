"""The moment until which a blocking call may wait; all timeout arithmetic is here."""

from __future__ import annotations

import math
from datetime import timedelta

from . import clock

__all__ = ["Deadline", "Seconds", "as_seconds"]

_LONGEST = 3600.0 * 24 * 365  # threads and sockets refuse timeouts of centuries


Seconds = float | timedelta
"""How a user may say how long: a number of seconds, or a ``timedelta``."""


def as_seconds(time: Seconds) -> float:
    """Return a time as a number of seconds; what is none as it is."""
    return time.total_seconds() if isinstance(time, timedelta) else time


class Deadline:
    """A point in time `timeout` ahead, seconds or a ``timedelta``; now if negative; None never. Immutable, any thread.

    Raises:
        TypeError, ValueError: `timeout` is neither a number nor None.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: Seconds | None) -> None:
        timeout = None if timeout is None else as_seconds(timeout)
        if timeout is not None:
            try:
                nan = math.isnan(timeout)
            except TypeError:
                raise TypeError(f"timeout: must be a number of seconds or None, not {timeout!r}") from None
            if nan:
                raise ValueError("timeout: must be a number of seconds or None, not nan")
        self._at = None if timeout is None or timeout > _LONGEST else clock.now() + max(0.0, float(timeout))

    @classmethod
    def at(cls, moment: float) -> Deadline:
        """Return the deadline at clock time `moment`."""
        deadline = cls(None)
        deadline._at = moment
        return deadline

    def remaining(self) -> float | None:
        """Return the seconds left, never below 0; None if there is no end."""
        return None if self._at is None else max(0.0, self._at - clock.now())

    def capped(self, seconds: float) -> float:
        """Return the seconds left, at most `seconds`."""
        left = self.remaining()
        return seconds if left is None else min(left, seconds)

    @property
    def moment(self) -> float | None:
        """Clock time of the end; None if there is none."""
        return self._at

    @property
    def passed(self) -> bool:
        """Whether the moment has come."""
        return self._at is not None and clock.now() >= self._at
