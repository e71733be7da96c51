"""One suspicion: a deadline that confirmations from different nodes bring nearer (Lifeguard LHA-Suspicion).

Plain data; it schedules nothing. From memberlist ``suspicion.go`` (memberlist-protocol §7.6).
"""

from __future__ import annotations

from .scaling import remaining_suspicion_ms

__all__ = ["Suspicion"]


class Suspicion:
    """The window between suspecting a node and declaring it dead.

    Args:
        originator: who suspected; its own word never counts as a confirmation.
        expected: confirmations that shrink the window to `minimum` (k).
        minimum, maximum: the window in seconds.
        floor: seconds that the window lasts at least, whatever the other figures say; may be changed.
        certain: whether there is evidence as good as all confirmations; may be changed.
    """

    __slots__ = (
        "_from", "certain", "confirmations", "expected", "floor", "maximum", "minimum", "not_before", "started",
    )  # fmt: skip

    def __init__(
        self,
        originator: str,
        expected: int,
        minimum: float,
        maximum: float,
        now: float,
        *,
        floor: float = 0.0,
        certain: bool = False,
    ) -> None:
        self._from = {originator}
        self.confirmations = 0
        self.expected = expected
        self.minimum = minimum
        self.maximum = maximum
        self.floor = floor
        self.certain = certain
        self.started = now
        self.not_before = now  # no verdict before this, whatever is confirmed (module appeals)

    def confirm(self, sender: str) -> bool:
        """Count `sender`'s word; return whether it was new and still wanted."""
        if self.confirmations >= self.expected or sender in self._from:
            return False
        self._from.add(sender)
        self.confirmations += 1
        return True

    @property
    def deadline(self) -> float:
        """When the node is to be declared dead."""
        return max(self.not_before, self.started + max(self.floor, self._window()))

    @property
    def shortest(self) -> float:
        """The window with all confirmations that are wanted."""
        return max(self.floor, self.minimum)

    def _window(self) -> float:
        if self.expected < 1 or self.certain:
            return self.minimum
        if self.confirmations == 0:
            return self.maximum
        return (
            remaining_suspicion_ms(self.confirmations, self.expected, self.minimum * 1000, self.maximum * 1000) / 1000
        )
