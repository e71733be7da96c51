"""Events in the order of their numbers, each once: what was handed on, what waits for an earlier one, what is missing.

Each life of a node (name and boot id) numbers its events from 1. For each such
*sender* there is a ``Log``. An event that comes too early is held; the hole
before it, or before a number that somebody says there is, is filled by
``repair`` or given up there, and then what was held goes on.

Which number a sender's events begin with here is decided when the owner says
``joined``: until then nothing of others is handed on, and what a state says was
seen elsewhere is old news. A sender met later begins at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .freshness import Via
from .limits import Limits
from .memory import Memory, Remembered
from .messages import RANGES_MAX, Event, Have, Sender, Want, pack
from .outputs import EventReceived, EventsMissed, Output

__all__ = ["Events", "Log"]


class Log:
    """How far the events of one sender have come.

    Attributes:
        last: all up to it are settled: handed on, old when we came, or given up.
        delivered: the latest that was handed on or old; below ``last`` only if some were given up.
        highest: the greatest number that anybody has told of.
        held: events after a hole.
        told: the latest ``Highest`` that was passed on: number and round.
    """

    __slots__ = ("delivered", "held", "held_bytes", "highest", "last", "sender", "told")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.last = 0
        self.delivered = 0
        self.highest = 0
        self.held: dict[int, Remembered] = {}
        self.held_bytes = 0
        self.told = (0, 0)


class Events:
    """The logs of all senders.

    Args:
        own: this life of this node.
        limits: bounds.
        is_up: whether a sender is a member now.
        count: counts by name.
        emit: takes ``EventReceived`` and ``EventsMissed``.

    Attributes:
        memory: what is remembered.
        ready: whether events of others are handed on.
        hole: called with a log that may have a hole now, or may have none any more; whoever repairs holes sets it.
    """

    def __init__(
        self,
        own: Sender,
        limits: Limits,
        is_up: Callable[[Sender], bool],
        count: Callable[[str], None],
        emit: Callable[[Output], None],
    ) -> None:
        self._own = own
        self._limits = limits
        self._is_up = is_up
        self._count = count
        self._emit = emit
        self._logs: dict[Sender, Log] = {own: Log(own)}
        self._held_bytes = 0
        self.memory = Memory(limits.remembered, limits.remembered_bytes)
        self.ready = False
        self.hole: Callable[[Log, float], None] = lambda log, now: None

    # -- inputs -----------------------------------------------------------------------

    def publish(self, topic: str, value: bytes) -> Remembered:
        """Number an event of our own and hand it on here."""
        log = self._logs[self._own]
        event = Event(self._own, log.last + 1, topic, value)
        one = Remembered(event, event.encode())
        log.last = log.highest = event.number
        self._deliver(log, one)
        return one

    def take(self, event: Event, raw: bytes, now: float, via: Via) -> bool:
        """Take an event of somebody's; return whether it is new and kept.

        Gossip of a sender that is no member, and of which nothing is settled here, may be a recording from before
        our time. It only tells that there is something to ask for: members that remember it answer over QUIC.
        """
        log = None if event.sender == self._own else self._log(event.sender)
        if log is None:
            return False
        number = event.number
        if via is not Via.ASKED and not (log.last or log.held or self._is_up(event.sender)):
            self._count("events.unvouched")
            self.heard(event.sender, number, now)
            return False
        if number <= log.delivered or number in log.held:
            self._count("events.duplicate")
            return False
        log.highest = max(log.highest, number)
        one = Remembered(event, raw)
        if not self.ready or number > log.last + 1:
            kept = self._hold(log, one)
        else:
            if number <= log.last:  # given up, and here it is: so the number that made us give up was wrong
                self._count("events.late")
                log.highest = max([number, *log.held])
            log.last = number
            self._deliver(log, one)
            self._settle(log)
            kept = True
        self.hole(log, now)
        return kept

    def heard(self, sender: Sender, number: int, now: float) -> bool:
        """Somebody says that the events of `sender` go up to `number`; return whether that is news."""
        log = None if sender == self._own else self._log(sender)
        if log is None or number <= log.highest:
            return False
        log.highest = number
        if not self.ready:
            return False
        self.hole(log, now)
        return True

    def seen_elsewhere(self, sender: Sender, number: int, now: float) -> bool:
        """A state says so. Before we are ready it is old news, later as ``heard``."""
        if self.ready:
            return self.heard(sender, number, now)
        log = None if sender == self._own else self._log(sender)
        if log is not None and number > log.last:
            log.last = log.delivered = number
            log.highest = max(log.highest, number)
            for old in [held for held in log.held if held <= number]:
                self._release(log, old)
        return False

    def joined(self, now: float) -> None:
        """Begin to hand on what others say."""
        if self.ready:
            return
        self.ready = True
        for log in list(self._logs.values()):
            self._settle(log)
            self.hole(log, now)

    def give_up(self, log: Log, evidence: int, now: float) -> None:
        """The hole cannot be filled: skip it; `evidence` is how many the sender says there are, 0 if unknown."""
        upto = min(log.held) - 1 if log.held else evidence
        if upto > log.last:
            self._emit(EventsMissed(log.sender.name, upto - log.last))
            self._count("events.missed")
            log.last = upto
        if not log.held:
            log.highest = log.last
        self._settle(log)
        self.hole(log, now)

    # -- views ------------------------------------------------------------------------

    @property
    def gauges(self) -> dict[str, int]:
        """Present sizes."""
        return {
            "events.senders": len(self._logs),
            "events.held_bytes": self._held_bytes,
            "events.remembered": len(self.memory),
            "events.remembered_bytes": self.memory.bytes,
        }

    def log(self, sender: Sender) -> Log | None:
        """Return what is known of a sender."""
        return self._logs.get(sender)

    def seen(self) -> list[tuple[Sender, int]]:
        """Return up to where we have seen the events of those who are members or are remembered."""
        return [
            (sender, log.last)
            for sender, log in self._logs.items()
            if log.last and (sender == self._own or self._is_up(sender) or self.memory.has_any(sender))
        ]

    def missing(self, log: Log) -> tuple[tuple[int, int], ...]:
        """Return the holes, as ranges of numbers."""
        ranges: list[tuple[int, int]] = []
        first, end = log.last + 1, min(log.highest, log.last + self._limits.held)
        for number in sorted(log.held):
            if number > end or len(ranges) == RANGES_MAX:
                break
            if number > first:
                ranges.append((first, number - 1))
            first = number + 1
        if first <= end and len(ranges) < RANGES_MAX:
            ranges.append((first, end))
        return tuple(ranges)

    def have(self, want: Want) -> bytes:
        """Return the answer to a question for events: those we remember, in order, as much as an answer may hold."""
        log = self._logs.get(want.sender)
        found = [(raw, 0.0) for raw in self._found(want.sender, want.ranges)]
        return pack(Have(want.sender, 0 if log is None else log.last), found)

    # -- private ------------------------------------------------------------------------

    def _found(self, sender: Sender, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        found: list[bytes] = []
        room, numbers = self._limits.answer_bytes, self._limits.held
        for first, end in ranges:
            asked = range(first, min(end, first + numbers - 1) + 1)
            numbers -= len(asked)
            for number in asked:
                one = self.memory.get(sender, number)
                if one is not None:
                    room -= len(one.raw)
                    if room < 0 and found:
                        return found
                    found.append(one.raw)
        return found

    def _log(self, sender: Sender) -> Log | None:
        log = self._logs.get(sender)
        if log is None:
            if len(self._logs) >= self._limits.senders and not self._forget_one():
                self._count("events.sender_refused")
                return None
            log = self._logs[sender] = Log(sender)
        return log

    def _forget_one(self) -> bool:
        for sender, log in self._logs.items():
            if sender != self._own and not self._is_up(sender):
                for number in list(log.held):
                    self._release(log, number)
                log.highest = log.last
                self.hole(log, 0.0)
                del self._logs[sender]
                self._count("events.sender_forgotten")
                return True
        return False

    def _hold(self, log: Log, one: Remembered) -> bool:
        size = len(one.raw)
        if (
            len(log.held) >= self._limits.held
            or one.event.number > log.last + 2 * self._limits.held
            or self._held_bytes + size > self._limits.held_bytes
        ):
            self._count("events.not_held")
            return False
        log.held[one.event.number] = one
        log.held_bytes += size
        self._held_bytes += size
        self.memory.add(one)
        return True

    def _release(self, log: Log, number: int) -> Remembered:
        one = log.held.pop(number)
        log.held_bytes -= len(one.raw)
        self._held_bytes -= len(one.raw)
        return one

    def _settle(self, log: Log) -> None:
        while log.last + 1 in log.held:
            log.last += 1
            self._deliver(log, self._release(log, log.last))

    def _deliver(self, log: Log, one: Remembered) -> None:
        event = one.event
        log.delivered = event.number
        one.delivered = True
        self.memory.add(one)
        self._emit(EventReceived(event.topic, event.value, event.sender.name, event.number))
