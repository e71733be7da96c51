"""What all parts of a cache machine share: who we are, the clock of versions, calls to peers, timers, counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from .._wire.lent import Lent
from .._wire.values import Encoded
from ..exceptions import RemoteProtocolError
from .definition import Limits
from .messages import Message, Reply, encode
from .placement import Owner, Placement
from .timers import Timers
from .versions import VersionClock

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Call", "Core", "Done", "Failure", "Pace"]


class Call(NamedTuple):
    """One request to be carried to a peer. Answer with ``answered`` or ``failed``, exactly once, by the deadline."""

    id: int
    member: Owner
    payload: Encoded
    deadline: float


class Failure(NamedTuple):
    """A call that got no answer. Not ``indeterminate``: the peer did not read it."""

    indeterminate: bool


Done = Callable[[Reply | Failure, float], None]


class Pace:
    """Bytes a second, with a second's worth in hand."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    def take(self, size: int, now: float) -> float:
        """Spend `size` bytes; return when the next may be spent."""
        self._free_at = max(self._free_at, now - 0.1) + size / self._rate
        return max(now, self._free_at)


class Core:
    """Shared by the spaces of one machine."""

    def __init__(self, me: Owner, clock: VersionClock, rng: Random, limits: Limits) -> None:
        self.me = me
        self.clock = clock
        self.rng = rng
        self.limits = limits
        self.timers = Timers()
        self.counters: Counter[str] = Counter()
        self.placement = Placement()
        self.pace = Pace(limits.rebalance_rate)
        self.alive: dict[Owner, None] = {}  # all processes in our view
        self.touched: dict[Space, None] = {}  # caches with something to send at the end of the turn
        self.stirred: dict[Space, None] = {}  # caches that may have something to take out earlier than before
        self.outgoing: list[Call] = []
        self.cancelled: list[int] = []  # calls with lent values that were ended here
        self.notices: list[tuple[Owner, Encoded]] = []
        self.completions: list[tuple[Any, Any]] = []
        self._calls: dict[int, tuple[Owner, Done, bool]] = {}
        self._next_call = 0

    def call(
        self, member: Owner, kind: Message, cache: str, body: list[Any], done: Done, now: float,
        deadline: float | None = None, patience: float = 0.0, size: int = 0, lent: Lent | None = None,
    ) -> int:  # fmt: skip
        """Ask `member`, which may take `patience` seconds longer; ``done`` gets the answer or the failure.

        `size`: bytes of the largest value in `body`, or of all. `lent`: as in ``messages.encode``.
        Return the call's number.
        """
        latest = now + self.limits.call_timeout + patience
        deadline = latest if deadline is None else min(deadline, latest)
        self._next_call = number = self._next_call + 1
        self._calls[number] = member, done, lent is not None
        request = [kind, member.boot, self.me.boot, self.clock.peek(), cache, body]
        self.outgoing.append(Call(number, member, encode(request, size, lent), deadline))
        return number

    def notify(self, member: Owner, kind: Message, cache: str, body: list[Any]) -> None:
        """Tell `member`; it may get lost."""
        request = [kind, member.boot, self.me.boot, self.clock.peek(), cache, body]
        self.notices.append((member, encode(request)))

    def end_call(self, number: int, outcome: Reply | Failure, now: float) -> None:
        """A call is over."""
        call = self._calls.pop(number, None)
        if call is None:
            return
        done = call[1]
        try:
            done(outcome, now)
        except RemoteProtocolError:  # raised before anything was changed
            self.counters["bad_answers"] += 1
            done(Failure(indeterminate=True), now)

    def cancel(self, number: int) -> None:
        """What a call sends is not lent any more: if it is not over it ends, and nobody hears of it."""
        if self._calls.pop(number, None) is not None:
            self.cancelled.append(number)

    def bury(self, now: float) -> None:
        """End the calls to processes that are not in our view any more: nobody would answer."""
        gone = [(number, lent) for number, (member, _, lent) in self._calls.items() if member not in self.alive]
        for number, lent in gone:
            self.counters["calls_ended"] += 1
            if lent:
                self.cancelled.append(number)
            self.end_call(number, Failure(indeterminate=True), now)

    def backoff(self, attempt: int) -> float:
        """Return how long to wait before the next attempt: doubling, with jitter."""
        most = min(self.limits.retry_max, self.limits.retry_min * (1 << min(attempt, 10)))
        return most * (0.5 + self.rng.random() / 2)
