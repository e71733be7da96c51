"""Batches: more settings and services at once than gossip carries, told to each member directly, a packet at a time.

Nobody passes them on, and a packet may be lost. So each life of a node numbers
its batches from 1, and tells the latest number again as it does that of its
events. Who lacks one compares states with the sender, else with others: a
state says which batches are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from .limits import Limits
from .messages import BATCH_MAX, Batch, Sender

__all__ = ["Batches"]

_BYTES = 1000  # of messages in one batch: with its header and what the owner wraps it in it fits into a packet
_ITEM_BYTES = 3  # that a message takes in it besides its own
_ANNOUNCE = (1.0, 3.0, 9.0)  # seconds after the last batch of ours, when its number is told again
_GAP_SECONDS = 1.0  # how long a batch may be missing before states are compared
_ROUNDS = 4  # so often; then it is left to the push/pulls

Ask = Callable[[str, float, Callable[[float], None]], object]
"""Compares states with a member, and calls back when that is over."""


class _Log:
    """Of one sender: all batches up to ``last`` were seen, and ``ahead`` of later ones, up to ``highest``."""

    __slots__ = ("ahead", "highest", "last", "rounds", "told")

    def __init__(self, last: int) -> None:
        self.last = self.highest = last
        self.ahead: set[int] = set()
        self.rounds = 0
        self.told = (0, 0)


class Batches:
    """Those of all senders, our own too.

    Args:
        is_up: whether a sender is a member now.
        peers: names of the members that can be asked.
        full: whether nobody can be asked just now.

    Attributes:
        ready: whether our join is done; before that, earlier batches are in the state that comes with it.
    """

    def __init__(
        self, own: Sender, limits: Limits, rng: Random, *,
        is_up: Callable[[Sender], bool], peers: Callable[[], list[str]], full: Callable[[], bool], ask: Ask,
        count: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._own = own
        self._limits = limits
        self._rng = rng
        self._is_up = is_up
        self._peers = peers
        self._full = full
        self._ask = ask
        self._count = count
        self._logs: dict[Sender, _Log] = {}
        self._lacking: dict[Sender, float] = {}  # of whom a batch is missing, and when to compare states for it
        self._number = 0
        self._announce: list[tuple[float, int]] = []  # when, and which round
        self._asking = False
        self.ready = False

    # -- our own ------------------------------------------------------------------------

    def packed(self, messages: Iterable[bytes], now: float) -> list[bytes]:
        """Return `messages` as batches, with the next numbers."""
        found = []
        for content in _divided(messages):
            self._number += 1
            found.append(Batch(self._own, self._number, tuple(content)).encode())
        if found:
            self._announce = [(now + seconds, place) for place, seconds in enumerate(_ANNOUNCE, 1)]
        return found

    def to_announce(self, now: float) -> tuple[int, int] | None:
        """Take our latest number and the round of telling it, if that is due."""
        if not self._announce or self._announce[0][0] > now:
            return None
        return self._number, self._announce.pop(0)[1]

    # -- those of others ----------------------------------------------------------------

    def came(self, sender: Sender, number: int, now: float) -> None:
        """A batch came. Of who is no member nothing is remembered: it may be a recording."""
        if sender == self._own or not self._is_up(sender):
            return
        log = self._log(sender, 0 if self.ready else number - 1)
        if number == log.last + 1:
            log.last = number
        elif number > log.last and len(log.ahead) < self._limits.held:
            log.ahead.add(number)
        self._settle(sender, log, number, now)

    def heard(self, sender: Sender, number: int, place: int, now: float) -> bool:
        """`sender` has told so many batches; return whether others are to be told that too, in round `place`."""
        if sender == self._own or not self._is_up(sender):
            return False
        log = self._log(sender, 0 if self.ready else number)
        self._settle(sender, log, number, now)
        news = log.told < (number, place)
        log.told = max(log.told, (number, place))
        return news

    def in_state(self, seen: Iterable[tuple[Sender, int]], now: float) -> None:
        """A state that was taken has all that was in these batches. Its senders may be members only later."""
        for sender, number in seen:
            log = self._logs.get(sender)
            if sender == self._own or (log is None and len(self._logs) >= self._limits.senders):
                continue
            log = self._log(sender, number)
            log.last = max(log.last, number)
            self._settle(sender, log, log.last, now)

    def seen(self) -> tuple[tuple[Sender, int], ...]:
        """Return up to where we have seen the batches of members, our own too."""
        rows = [(self._own, self._number), *((life, log.last) for life, log in self._logs.items() if self._is_up(life))]
        return tuple(row for row in rows if row[1])

    def member_down(self, life: Sender) -> None:
        """It is no member any more: if it comes back, states are exchanged."""
        self._logs.pop(life, None)
        self._lacking.pop(life, None)

    # -- what is missing ----------------------------------------------------------------

    def due(self) -> float | None:
        """Return when ``to_announce`` or ``run`` is wanted."""
        due = self._announce[0][0] if self._announce else None
        if self._lacking and not self._asking and not self._full():
            first = min(self._lacking.values())
            due = first if due is None else min(due, first)
        return due

    def run(self, now: float) -> None:
        """Compare states for what is missing: one comparison after the other, as each may bring all of it."""
        for sender, due in list(self._lacking.items()):
            if self._asking or self._full():
                return
            if due > now:
                continue
            log = self._logs[sender]
            others = [name for name in self._peers() if name != sender.name]
            first = self._is_up(sender) and not log.rounds % 2
            if log.rounds >= _ROUNDS or not (first or others):
                self._count("batches.given_up")
                log.last = log.highest
                self._settle(sender, log, log.last, now)
                continue
            log.rounds += 1
            self._lacking[sender] = now + 2.0**log.rounds
            self._asking = True
            self._count("batches.asked")
            self._ask(sender.name if first else self._rng.choice(others), now, self._asked)

    def _asked(self, now: float) -> None:
        self._asking = False

    def _log(self, sender: Sender, last: int) -> _Log:
        log = self._logs.get(sender)
        if log is None:
            log = self._logs[sender] = _Log(last)
        return log

    def _settle(self, sender: Sender, log: _Log, number: int, now: float) -> None:
        """There are so many: find whether one is missing."""
        log.highest = max(log.highest, number)
        if log.ahead:
            log.ahead = {later for later in log.ahead if later > log.last}
            while log.last + 1 in log.ahead:
                log.last += 1
                log.ahead.discard(log.last)
        if log.highest <= log.last:
            self._lacking.pop(sender, None)
            log.rounds = 0
        elif sender not in self._lacking:
            self._lacking[sender] = now + _GAP_SECONDS * self._rng.uniform(1.0, 1.5)


def _divided(messages: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield `messages` as lists that go as one batch."""
    content: list[bytes] = []
    room = _BYTES
    for message in messages:
        cost = len(message) + _ITEM_BYTES
        if content and (cost > room or len(content) == BATCH_MAX):
            yield content
            content, room = [], _BYTES
        content.append(message)
        room -= cost
    if content:
        yield content
