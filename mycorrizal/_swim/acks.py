"""Who waits for which acknowledgement, by ping number.

Numbers alone decide, whoever sends the ack; the first ack ends the wait, nacks
are only counted (memberlist-protocol §7.4).
"""

from __future__ import annotations

from collections.abc import Callable

from .timers import Timer, Timers

__all__ = ["Acks", "OnAck"]

OnAck = Callable[[bytes, float], None]
"""Called with (payload, now)."""

_WAITING_MAX = 4096  # a stranger's indirect pings must not grow the table without end


class _Wait:
    __slots__ = ("on_ack", "on_nack", "timer")

    def __init__(self, on_ack: OnAck, on_nack: Callable[[], None] | None, timer: Timer) -> None:
        self.on_ack = on_ack
        self.on_nack = on_nack
        self.timer = timer


class Acks:
    """Pending waits; each ends with an ack or at its deadline."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._waits: dict[int, _Wait] = {}

    def __len__(self) -> int:
        return len(self._waits)

    @property
    def full(self) -> bool:
        """Whether work on behalf of others should be refused."""
        return len(self._waits) >= _WAITING_MAX

    def expect(
        self,
        sequence: int,
        deadline: float,
        on_ack: OnAck,
        on_expiry: Callable[[float], None],
        on_nack: Callable[[], None] | None = None,
    ) -> None:
        """Wait for `sequence`: then ``on_ack(payload, now)``, or ``on_expiry(now)`` at `deadline`."""

        def expire(now: float) -> None:
            if self._waits.pop(sequence, None) is not None:
                on_expiry(now)

        self.forget(sequence)
        self._waits[sequence] = _Wait(on_ack, on_nack, self._timers.call_at(deadline, expire))

    def forget(self, sequence: int) -> None:
        """Stop waiting, without a word."""
        wait = self._waits.pop(sequence, None)
        if wait is not None:
            wait.timer.cancel()

    def ack(self, sequence: int, payload: bytes, now: float) -> bool:
        """Deliver an ack; return whether anybody waited for it."""
        wait = self._waits.pop(sequence, None)
        if wait is None:
            return False
        wait.timer.cancel()
        wait.on_ack(payload, now)
        return True

    def nack(self, sequence: int) -> None:
        """Deliver a nack; the wait goes on."""
        wait = self._waits.get(sequence)
        if wait is not None and wait.on_nack is not None:
            wait.on_nack()
