"""Holes in the events of a sender: fetched from the sender, else from others, and given up when nobody has them.

A hole is given up once the sender has said that it does not have it and others
have said so too. A member that cannot be reached says nothing, and one that did
not have an event may have it later; so they are asked again, at longer and
longer intervals. After ``give_up_seconds``, counted anew when the sender comes
back, the hole is skipped if later events wait behind it; if none do, nobody is
asked any more until somebody comes back.

Numbers that somebody merely claimed lead to a few questions and no further:
nothing is skipped but up to an event that is at hand, or that the sender knows of.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..exceptions import RemoteProtocolError
from .events import Events, Log
from .fetches import Fetches
from .freshness import Via
from .limits import Limits
from .messages import Event, Have, Sender, Want, decode, decode_header, items, pack

__all__ = ["Repairs"]

_BACKOFF_MAX = 8.0


class _Repair:
    """One hole. ``lacking``: who answered and did not help; ``failed``: who did not answer this time round."""

    __slots__ = ("asking", "due", "evidence", "failed", "lacking", "log", "rounds", "sender_asked", "since")

    def __init__(self, log: Log, since: float, due: float) -> None:
        self.log = log
        self.since = since
        self.due = due
        self.asking = False
        self.lacking: dict[str, None] = {}
        self.failed: dict[str, None] = {}
        self.sender_asked = False
        self.evidence = 0
        self.rounds = 0


class Repairs:
    """The holes of all senders.

    Args:
        peers: names of the members that can be asked.
    """

    def __init__(
        self,
        events: Events,
        fetches: Fetches,
        limits: Limits,
        rng: Random,
        *,
        is_up: Callable[[Sender], bool],
        peers: Callable[[], list[str]],
        count: Callable[[str], None],
        rejected: Callable[[Exception], None],
    ) -> None:
        self._events = events
        self._fetches = fetches
        self._limits = limits
        self._rng = rng
        self._is_up = is_up
        self._peers = peers
        self._count = count
        self._rejected = rejected
        self._open: dict[Sender, _Repair] = {}
        self._asleep: dict[Sender, Log] = {}  # holes that hold nothing up, and that nobody could fill so far
        events.hole = self._look

    def __len__(self) -> int:
        return len(self._open)

    def due(self) -> float | None:
        """Return when the next question is due."""
        if not self._open or self._fetches.full:
            return None  # or the end of one of them wakes us
        return min([repair.due for repair in self._open.values() if not repair.asking], default=None)

    def run(self, now: float) -> None:
        """Ask what is due."""
        for repair in [one for one in self._open.values() if not one.asking and one.due <= now]:
            if self._fetches.full:
                return
            self._ask(repair, now)

    def member_up(self, life: Sender, now: float) -> None:
        """A member came, or came back: it can be asked now, and if it is the sender there is new hope."""
        for log in list(self._asleep.values()):
            self._look(log, now)
        for repair in self._open.values():
            repair.lacking.pop(life.name, None)
            repair.failed.pop(life.name, None)
            repair.due = min(repair.due, now + self._limits.gap_seconds)
            if repair.log.sender == life:
                repair.since, repair.rounds, repair.sender_asked = now, 0, False

    # -- private ------------------------------------------------------------------------

    def _look(self, log: Log, now: float) -> None:
        if not self._events.ready or log.highest <= log.last:
            self._open.pop(log.sender, None)
            self._asleep.pop(log.sender, None)
        elif log.sender not in self._open:
            self._asleep.pop(log.sender, None)
            # Not all at once: the sender is one, and those who wait for it are many.
            self._open[log.sender] = _Repair(log, now, now + self._limits.gap_seconds * self._rng.uniform(1.0, 1.5))

    def _ask(self, repair: _Repair, now: float) -> None:
        peer = self._choose(repair)
        if peer is None:
            self._nobody_left(repair, now)
            return
        sender = repair.log.sender
        want = Want(sender, self._events.missing(repair.log))
        repair.asking = True
        self._count("events.fetches")
        self._fetches.start(peer, pack(want, ()), now, lambda data, then: self._answered(repair, peer, data, then))

    def _choose(self, repair: _Repair) -> str | None:
        sender = repair.log.sender
        tried = repair.lacking.keys() | repair.failed.keys()
        if sender.name not in tried and self._is_up(sender):
            return sender.name
        if len(repair.lacking) >= self._limits.peers_asked:
            return None
        others = [name for name in self._peers() if name not in tried and name != sender.name]
        return self._rng.choice(others) if others else None

    def _nobody_left(self, repair: _Repair, now: float) -> None:
        log, late = repair.log, now - repair.since >= self._limits.give_up_seconds
        if late or (repair.sender_asked and not repair.failed):
            del self._open[log.sender]
            if repair.sender_asked or log.held:
                self._events.give_up(log, repair.evidence, now)
            else:
                self._asleep[log.sender] = log
            return
        repair.failed.clear()
        if repair.lacking:  # it may have it by now
            del repair.lacking[next(iter(repair.lacking))]
        repair.due = now + min(2.0**repair.rounds, _BACKOFF_MAX) * self._rng.uniform(0.5, 1.0)
        repair.rounds += 1

    def _answered(self, repair: _Repair, peer: str, data: bytes | None, now: float) -> None:
        repair.asking = False
        repair.due = now
        log = repair.log
        before = log.last
        last = None if data is None else self._take(data, log.sender, now)
        if self._open.get(log.sender) is not repair:
            return
        if log.last > before:  # it helped: go on in the same way
            repair.since, repair.rounds = now, 0
            repair.lacking.clear()
            repair.failed.clear()
            repair.sender_asked = False
            return
        if last is None:
            repair.failed[peer] = None
            return
        repair.lacking[peer] = None
        if peer == log.sender.name and self._is_up(log.sender):  # it knows best: what others claim beyond is not true
            repair.sender_asked = True
            repair.evidence = last
            log.highest = max([last, log.last, *log.held])
            self._look(log, now)

    def _take(self, data: bytes, sender: Sender, now: float) -> int | None:
        """Take the events in an answer; return up to where its sender has seen them, None if it is none."""
        try:
            header, at = decode_header(data)
            if not isinstance(header, Have) or header.sender != sender:
                raise RemoteProtocolError("an answer to something else")
            for raw, _ in items(data, at, self._limits.held):
                event = decode(raw)
                if not isinstance(event, Event) or event.sender != sender:
                    raise RemoteProtocolError("an answer with something else in it")
                self._events.take(event, raw, now, Via.ASKED)
        except RemoteProtocolError as error:
            self._rejected(error)
            return None
        return header.last
