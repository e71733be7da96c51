"""Whether the threads of an agent still turn: what a watchdog is fed for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._runtime.threads import clock
from ..exceptions import MycorrizalError

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["Pulse", "Watchdog"]


class Pulse:
    """Asks the gossip thread and the loop thread for a sign of life. One thread.

    A thread that runs and is stuck gives none: each has to carry out a command of ours.
    """

    def __init__(self, parts: Assembly) -> None:
        self._parts = parts
        self._asked = 0
        self._heard = {"gossip": 0, "loop": 0}

    def beat(self) -> bool:
        """Return whether both have answered what the last call asked, and ask again if so. Never blocks."""
        if any(heard != self._asked for heard in self._heard.values()):
            return False
        number = self._asked + 1

        def hear(who: str) -> None:
            self._heard[who] = number

        try:
            if not self._parts.members._running.mailbox.tell(lambda now: hear("gossip")):
                return False
            self._parts.data._started.loop.submit(lambda now: hear("loop"))
        except MycorrizalError:
            return False  # it has ended, as the other one will
        self._asked = number
        return True


class Watchdog:
    """Tells when the service manager is to be told that an agent lives: every third of the time that it gives.

    Args:
        seconds: as ``Notifier.watchdog``; None: never.
    """

    def __init__(self, pulse: Pulse, seconds: float | None) -> None:
        self._pulse = pulse
        self._every = None if seconds is None else seconds / 3
        self._next = clock.now()

    def due(self) -> bool:
        """Return whether it is to be told now. Never blocks."""
        if self._every is None or clock.now() < self._next or not self._pulse.beat():
            return False
        self._next = clock.now() + self._every
        return True
