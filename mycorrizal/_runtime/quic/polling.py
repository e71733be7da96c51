"""When a loop may poll its descriptors instead of sleeping. Pure: it takes ``now`` and counts.

To wake a sleeping thread costs about what it costs to answer a small request,
on a virtual machine more. A loop that is awake when the next datagram comes
saves that, and holds a core meanwhile. If the core is not free, whom it waits
for may be waiting for that core: beside another busy process a loop that
always polls makes a third of the requests of one that sleeps. So by itself a
loop polls only amid many calls, and only while it pays: polls that found
nothing, or in whose midst somebody else took the core, make it pause, each
time for twice as long.
"""

from __future__ import annotations

__all__ = ["Polling"]

WINDOW = 0.001
"""How long a loop that was told nothing else polls at a time."""
CROWD = 2
"""Calls of one turn from which on they are several. A single caller, however fast, never makes more than one."""
LATELY = 0.005
"""How long that counts."""
STOLEN = 0.001
"""Between two looks, a few microseconds apart: beyond it the core or the interpreter was somebody else's."""
CREDIT_MAX, PRICE = 32, 2
"""A poll that found something earns 1, another one costs PRICE: polling goes on while four of five find something."""
PAUSE_FIRST, PAUSE_MAX = 0.01, 1.0
"""How long a poll in vain forbids the next one, at first and at most."""


class Polling:
    """The policy of one loop. Loop thread only.

    Args:
        spin: poll this long whenever the owner has work, whatever comes of it; 0 never polls; None decides by itself.
        cores: how many processors this process may use. On one, a loop never polls by itself.

    Attributes:
        window: seconds of one poll; 0 if it never polls.
        vain: how many polls found nothing or were interrupted; counted if it decides by itself.
    """

    def __init__(self, spin: float | None, cores: int) -> None:
        self._asked = spin is not None
        self.window = spin if spin is not None else WINDOW if cores > 1 else 0.0
        self.vain = 0
        self._crowded = float("-inf")  # when there were many calls last
        self._resume = float("-inf")
        self._pause = 0.0
        self._credit = 0
        self._looked = 0.0
        self._stolen = False

    def turn(self, calls: int, now: float) -> None:
        """A turn has ended `calls` calls of waiting callers, or begun so many for the handlers."""
        if calls >= CROWD:
            self._crowded = now

    def begin(self, now: float) -> bool:
        """Return whether to poll from `now` on, for ``window`` seconds at most."""
        if not self.window:
            return False
        if self._asked:
            return True
        self._looked = now
        self._stolen = False
        return now >= self._resume and now - self._crowded <= LATELY

    def looked(self, now: float) -> None:
        """It has looked, found nothing, and is about to look again."""
        if now - self._looked > STOLEN:
            self._stolen = True
        self._looked = now

    def end(self, now: float, found: bool) -> None:
        """The poll is over; `found` if there was something to do before the window had passed."""
        if self._asked:
            return
        self.looked(now)
        if found and not self._stolen:
            self._credit += 1
            if self._credit >= CREDIT_MAX:
                self._credit = CREDIT_MAX
                self._pause = 0.0
            return
        self.vain += 1
        self._credit -= PRICE
        if self._credit < 0:
            self._credit = 0
            self._pause = min(PAUSE_MAX, max(PAUSE_FIRST, 2 * self._pause))
            self._resume = now + self._pause
