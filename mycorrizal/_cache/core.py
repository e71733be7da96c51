"""What all parts of a cache machine share: who we are, the clock of versions, calls to peers, timers, counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from .._wire.lent import Lent
from .._wire.values import Encoded
from ..exceptions import RemoteProtocolError
from .definition import Limits
from .lull import Lull
from .messages import QUESTIONS_MAX, Answer, Message, Reply, encode, parse_replies
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

_AT_LEISURE = 4  # members that are asked at a time where nobody waits for it: each may be a handshake


class _Question(NamedTuple):
    """What a member is to be asked as soon as it has answered what it was asked before."""

    kind: Message
    space: Space
    body: Callable[[], list[Any]]
    done: Done


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
        self.lull = Lull(self.timers, limits.lull_calm, limits.lull_most)
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
        self.questions: dict[Owner, list[_Question]] = {}
        self._asked: dict[Owner, None] = {}  # members that have not answered their questions yet
        self._phase = crc32(me.boot) / 2**32

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

    def ask(self, member: Owner, kind: Message, space: Space, body: Callable[[], list[Any]], done: Done) -> None:
        """Ask `member` one of ``QUESTIONS`` at the end of the turn, or as soon as it has answered those before.

        All that wait then, of whatever cache, travel together: there may be many caches and many members, and all want
        to know something when a member comes or goes. What nobody waits for goes to a few members at a time, and to
        the next by name first: so two seldom make a connection to each other at once, nor all to the same one.
        """
        self.questions.setdefault(member, []).append(_Question(kind, space, body, done))

    def send_questions(self, now: float) -> None:
        """The end of a turn: ask who can be asked."""
        for member in sorted(self.questions, key=lambda member: (member < self.me, member)):
            questions = self.questions[member]
            leisure = len(self._asked) < _AT_LEISURE
            if member in self._asked or not (leisure or any(question.space.used for question in questions)):
                continue
            del self.questions[member]
            if len(questions) > QUESTIONS_MAX:
                self.questions[member] = questions[QUESTIONS_MAX:]
                del questions[QUESTIONS_MAX:]
            self._asked[member] = None
            done = partial(self._replied, member, questions)
            if len(questions) == 1:
                ((kind, space, body, _),) = questions
                self.call(member, kind, space.name, body(), done, now)
            else:
                many = [[kind, space.name, *body()] for kind, space, body, _ in questions]
                self.call(member, Message.MANY, "", many, done, now)

    def _replied(self, member: Owner, questions: list[_Question], outcome: Reply | Failure, now: float) -> None:
        outcomes: list[Reply] | list[Reply | Failure] = [outcome] * len(questions)
        if len(questions) > 1 and not isinstance(outcome, Failure) and outcome.status == Answer.OK:
            outcomes = parse_replies(outcome, len(questions))
        self._asked.pop(member, None)
        for question, reply in zip(questions, outcomes, strict=True):
            self._end(question.done, reply, now)

    def notify(self, member: Owner, kind: Message, cache: str, body: list[Any]) -> None:
        """Tell `member`; it may get lost."""
        request = [kind, member.boot, self.me.boot, self.clock.peek(), cache, body]
        self.notices.append((member, encode(request)))

    def end_call(self, number: int, outcome: Reply | Failure, now: float) -> None:
        """A call is over."""
        call = self._calls.pop(number, None)
        if call is None:
            return
        self._end(call[1], outcome, now)

    def _end(self, done: Done, outcome: Reply | Failure, now: float) -> None:
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
        for member in [member for member in self.questions if member not in self.alive]:
            for question in self.questions.pop(member):
                self._end(question.done, Failure(indeterminate=False), now)

    def backoff(self, attempt: int, longer: int = 1) -> float:
        """Return how long to wait before the next attempt: doubling, with jitter, up to `longer` times the longest."""
        return self._pause(attempt, longer) * (0.5 + self.rng.random() / 2)

    def _pause(self, attempt: int, longer: int) -> float:
        return min(self.limits.retry_max * longer, self.limits.retry_min * (1 << min(attempt, 10)))

    def next_try(self, attempt: int, now: float, longer: int = 1) -> float:
        """Return when to ask a member again, after ``backoff``: at one of few moments, so that caches share messages.

        Those of another node are other ones.
        """
        step = self._pause(attempt, longer) / 2
        return (ceil((now + self.backoff(attempt, longer)) / step + self._phase) - self._phase) * step
