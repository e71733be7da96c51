"""One member that takes tasks: how many it can take, and whether it is heard of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Attempt

__all__ = ["Worker"]

AHEAD_SECONDS, AHEAD_MAX = 0.05, 15
"""Work that a worker has beside what it runs, so that no place is empty while the next task travels; and how many times
its places at the most. Of tasks that take longer it has none: they had better wait for whoever is free first."""
_SHARE = 0.2  # of the last answer in what a task takes as a rule
_PAUSE_FIRST, _PAUSE_MAX = 0.1, 2.0  # for one that was busy, or could not be reached
_ASK_FIRST, _ASK_MAX = 0.25, 2.0  # until one that has no such handler is asked again


class Worker:
    """A member, in one of its lives.

    Its window is what it says that it can run at a time (``slots``: its handlers' threads, or the processes of this
    handler). Others may ask it too, so where it says that it is busy, the window is halved, and grows by one for
    each window that was answered, as in TCP.

    Attributes:
        boot: of its life; another one is another worker.
        slots: 0 as long as it is not known to have the handler.
        out: what is under way there.
        asked: since when it has owed an answer to a question; None if it owes none.
        silent: it owes one for too long.
    """

    __slots__ = (
        "_ask_pause", "_cap", "_pause", "_seconds", "ask_at", "asked", "boot", "given", "heard", "name", "out",
        "question", "silent", "slots", "until",
    )  # fmt: skip

    def __init__(self, name: str, boot: bytes, now: float) -> None:
        self.name = name
        self.boot = boot
        self.slots = 0
        self.out: dict[int, Attempt] = {}
        self.asked: float | None = None
        self.question = 0
        self.ask_at = self.heard = self.until = now
        self.silent = False
        self.given = 0  # the number of the last attempt: of two that are as busy, who waits longer is next
        self._cap = math.inf
        self._pause, self._ask_pause = _PAUSE_FIRST, _ASK_FIRST
        self._seconds = math.inf  # that a task takes there, as a rule

    @property
    def window(self) -> int:
        """How many tasks may be under way there."""
        return int(min(self.slots * (1 + self._ahead), self._cap))

    @property
    def _ahead(self) -> int:
        return AHEAD_MAX if self._seconds * AHEAD_MAX <= AHEAD_SECONDS else int(AHEAD_SECONDS / self._seconds)

    def ready(self, now: float) -> bool:
        """Whether it may have another task."""
        return not self.silent and now >= self.until and len(self.out) < self.window

    @property
    def load(self) -> tuple[float, int]:
        """The least of these is the least busy; only of one that has slots."""
        return len(self.out) / self.slots, self.given

    def answered(self, attempt: Attempt, now: float) -> None:
        """It has run a task, which is not ``out`` any more."""
        self.heard, self.until, self._pause = now, now, _PAUSE_FIRST
        beside = max(1.0, (attempt.beside + 1) / max(1, self.slots))  # it waited its turn behind them
        seconds = (now - attempt.sent) / beside
        self._seconds = seconds if self._seconds == math.inf else self._seconds + _SHARE * (seconds - self._seconds)
        self._cap += 1 / self._cap
        if self._cap >= self.slots * (1 + self._ahead):
            self._cap = math.inf

    def busy(self, now: float) -> None:
        """It has no room."""
        self.heard = now
        self._cap = max(1.0, len(self.out) / 2)
        self.rest(now)

    def rest(self, now: float) -> None:
        """Give it nothing for a moment, and longer each time."""
        self.until = now + self._pause
        self._pause = min(2 * self._pause, _PAUSE_MAX)

    def told(self, slots: int, now: float) -> None:
        """It can run so many at a time."""
        self.heard = now
        self.slots = slots
        if slots:
            self._ask_pause = _ASK_FIRST
        else:
            self.ask_later(now)

    def ask_later(self, now: float) -> None:
        """It has no such handler, or does not answer: ask again, but not at once."""
        self.ask_at = now + self._ask_pause
        self._ask_pause = min(2 * self._ask_pause, _ASK_MAX)
