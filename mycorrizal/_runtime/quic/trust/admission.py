"""Who may begin a handshake: the answer to each first datagram. Pure; takes the time.

A handshake costs milliseconds of TLS, so strangers must not be able to buy
many: they are counted, asked to show that their address is theirs (Retry,
RFC 9000 §8.1.2), and rationed per address and in all. Who knocks with a token
that only key holders can make passes ahead of them, up to the number of
unproven connections.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Generic, TypeVar

from ....types import is_loopback
from ...net.addresses import source_of

__all__ = ["Admission", "Bucket", "Verdict", "WaitingRoom"]

T = TypeVar("T")

_SOURCES_MAX = 4096
_KNOCKS_MAX = 8192
_KNOCK_USES = 16
"""How often one knock passes: a member's first packet is sent again until it is answered, and a knock that was
overheard must not be good for a flood."""
_KNOCK_SECONDS = 200.0  # longer than a knock is good for on any clock within ±90 s


class Verdict(Enum):
    """What to do with a first datagram; the values of refusals are names of counters."""

    ACCEPT = "quic.accepted"
    RETRY = "quic.retried"
    FULL = "quic.refused_full"
    STRANGERS = "quic.refused_strangers"
    SOURCE = "quic.refused_source"
    RATE = "quic.refused_rate"


class Bucket:
    """A token bucket: `rate` per second, at most `burst` saved up."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Return what is saved up now."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def take(self, now: float) -> bool:
        """Take one; False if there is none."""
        if self.level(now) < 1.0:
            return False
        self._level -= 1.0
        return True


class Admission:
    """Counts unproven connections and decides on new ones. Loop thread; bounded memory.

    Args:
        most: unproven connections at a time.
        retry_above: from this number of them on, and beyond `rate_free` first
            datagrams a second, a stranger must answer a Retry first.
        knocking: whether key holders can tell themselves from strangers. If
            not, everyone is a stranger, and strangers get more.
    """

    def __init__(self, most: int, retry_above: int, *, knocking: bool, now: float) -> None:
        self._most = most
        self._retry_above = retry_above
        self._knocking = knocking
        self._strangers_most = max(1, most // 2) if knocking else most
        rate = 10.0 if knocking else 100.0
        self._strangers_rate = Bucket(rate, 2 * rate, now)
        self._unasked = Bucket(rate, rate, now)  # handshakes for strangers whose address is not known to be theirs
        self._sources: OrderedDict[bytes, Bucket] = OrderedDict()
        self._source_rate = rate / 2
        self._knocks: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self.members = 0
        self.strangers = 0

    @property
    def unproven(self) -> int:
        """Connections that have not proved the key."""
        return self.members + self.strangers

    def decide(self, host: str, *, knock: bytes | None, validated: bool, now: float) -> Verdict:
        """Return what to do with a first datagram from `host`; ACCEPT must be followed by ``opened``.

        Args:
            knock: a knock that was found genuine, which passes a few times; None without.
            validated: it carries the token of a Retry, so the address is the sender's.
        """
        if self.unproven >= self._most:
            return Verdict.FULL
        if knock is not None and self._fresh(knock, now):
            return Verdict.ACCEPT
        if not self._knocking and is_loopback(host):
            return Verdict.ACCEPT  # nobody can forge it from outside, and there are no members to protect
        if not validated and (self.strangers >= self._retry_above or not self._unasked.take(now)):
            return Verdict.RETRY
        if self.strangers >= self._strangers_most:
            return Verdict.STRANGERS
        # A source that cannot be forged any more is charged first, so that it cannot eat what is for all.
        if not self._source(host, now).take(now):
            return Verdict.SOURCE
        if not self._strangers_rate.take(now):
            return Verdict.RATE
        return Verdict.ACCEPT

    def opened(self, *, member: bool) -> None:
        """A connection was accepted."""
        if member:
            self.members += 1
        else:
            self.strangers += 1

    def settled(self, *, member: bool) -> None:
        """An unproven connection was proved, or has ended."""
        if member:
            self.members -= 1
        else:
            self.strangers -= 1

    def _fresh(self, knock: bytes, now: float) -> bool:
        """Whether this knock was not used too often before."""
        knocks = self._knocks
        while knocks and next(iter(knocks.values()))[0] < now:
            knocks.popitem(last=False)
        until, uses = knocks.get(knock, (now + _KNOCK_SECONDS, 0))
        if uses >= _KNOCK_USES:
            return False
        if not uses and len(knocks) >= _KNOCKS_MAX:
            knocks.popitem(last=False)
        knocks[knock] = (until, uses + 1)
        return True

    def _source(self, host: str, now: float) -> Bucket:
        sources = self._sources
        key = source_of(host)
        bucket = sources.get(key)
        if bucket is None:
            if len(sources) >= _SOURCES_MAX:
                sources.popitem(last=False)
            bucket = sources[key] = Bucket(self._source_rate, 2 * self._source_rate, now)
        else:
            sources.move_to_end(key)
        return bucket


class WaitingRoom(Generic[T]):
    """Members that came while all places were taken: the first ones are called as soon as one is free.

    They would come back by themselves, but after ever longer pauses, in which places stay empty.
    """

    def __init__(self, most: int = 256, seconds: float = 3.0) -> None:
        self._most = most
        self._seconds = seconds
        self._items: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, key: bytes, item: T, now: float) -> None:
        """Let `item` wait; a later one with the same key takes its place. Nothing if the room is full."""
        if key in self._items or len(self._items) < self._most:
            self._items[key] = (item, now)

    def take(self, now: float) -> T | None:
        """Return who waits longest and has not given up; None if nobody does."""
        while self._items:
            _, (item, since) = self._items.popitem(last=False)
            if now - since <= self._seconds:
                return item
        return None
