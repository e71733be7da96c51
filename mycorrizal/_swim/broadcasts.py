"""The transmit-limited queue: what is still to be gossiped, freshest and largest first.

An entry leaves the queue when it was sent ``retransmit_limit`` times or when a
newer one replaces it; either way its ``finished`` callback runs once. From
memberlist ``queue.go`` (memberlist-protocol §8.1). Also used by layers above,
such as ``SerfDelegate``.

Differs from memberlist: ids never restart, so that an entry cannot silently
replace another one (its quirk (b)).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from .scaling import retransmit_limit

__all__ = ["Broadcast", "TransmitLimitedQueue"]


class Broadcast:
    """One queued message. ``name``, ``unique`` and ``tag`` are as they were queued."""

    __slots__ = ("finished", "key", "message", "name", "tag", "transmits", "unique")

    def __init__(
        self, message: bytes, name: str | None, unique: bool, tag: object, finished: Callable[[], None] | None
    ) -> None:
        self.message = message
        self.name = name
        self.unique = unique
        self.tag = tag
        self.finished = finished
        self.transmits = 0
        self.key = (0, 0)

    def _finish(self) -> None:
        callback, self.finished = self.finished, None
        if callback is not None:
            callback()

    def __lt__(self, other: Broadcast) -> bool:
        return self.key < other.key


class TransmitLimitedQueue:
    """Broadcasts ordered by transmits, then longer first, then newer first.

    Args:
        retransmit_mult: factor of the retransmit limit.
        num_nodes: returns the present size of the cluster.

    Attributes:
        backlog: bytes of all that waits, each message counted once.
    """

    def __init__(self, retransmit_mult: int, num_nodes: Callable[[], int]) -> None:
        self._mult = retransmit_mult
        self._num_nodes = num_nodes
        self._tiers: dict[int, list[Broadcast]] = {}  # by transmits; each sorted by (-length, -id)
        self._named: dict[str, Broadcast] = {}
        self._last_id = 0
        self._size = 0
        self.backlog = 0

    def queue_broadcast(
        self,
        message: bytes,
        *,
        name: str | None = None,
        unique: bool = False,
        tag: object = None,
        invalidates: Callable[[Broadcast], bool] | None = None,
        finished: Callable[[], None] | None = None,
        halved: bool = False,
    ) -> None:
        """Queue `message`.

        Args:
            name: a queued broadcast of the same non-empty name is replaced.
            unique: replaces nothing.
            tag: anything, for `invalidates` to look at.
            invalidates: without name and not unique, tells which plain broadcasts this one replaces.
            finished: called once when the message is sent out or dropped.
            halved: most have it already: it is sent half as often, and after what is new.
        """
        replaced: list[Broadcast] = []
        if name:
            replaced = [self._named[name]] if name in self._named else []
        elif not unique and invalidates is not None:
            replaced = [b for b in self.broadcasts() if b.name is None and not b.unique and invalidates(b)]
        for old in replaced:
            self._remove(old)
        self._last_id += 1
        entry = Broadcast(message, name or None, unique, tag, finished)
        entry.key = (-len(message), -self._last_id)
        if halved:
            entry.transmits = retransmit_limit(self._mult, self._num_nodes()) // 2
        self._insert(entry)
        for old in replaced:
            old._finish()  # last, for it may queue something itself

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Take messages for one packet; each costs its length plus `overhead`, together at most `limit` bytes."""
        if not self._size:
            return []
        transmit_limit = retransmit_limit(self._mult, self._num_nodes())
        taken: list[bytes] = []
        again: list[Broadcast] = []
        used = 0
        for transmits in sorted(self._tiers):
            tier = self._tiers.get(transmits, [])  # a callback may have emptied it
            while tier:
                free = limit - used - overhead
                if free <= 0:
                    break
                # The first whose length is at most `free`: keys are (-length, -id), ids are positive.
                index = 0
                if len(tier[0].message) > free:
                    index = bisect_left(tier, (-free, -self._last_id - 1), key=_key)
                if index == len(tier):
                    break
                entry = tier[index]
                self._remove(entry, index)
                used += overhead + len(entry.message)
                taken.append(entry.message)
                entry.transmits += 1
                if entry.transmits >= transmit_limit:
                    entry._finish()
                else:
                    again.append(entry)
            if limit - used - overhead <= 0:
                break
        for entry in again:
            # A callback may have queued a newer one of the same name meanwhile.
            if entry.name is not None and entry.name in self._named:
                entry._finish()
            else:
                self._insert(entry)
        return taken

    def prune(self, keep: int) -> None:
        """Drop broadcasts, the most transmitted first, until at most `keep` are left."""
        while self._size > keep:
            entry = self._tiers[max(self._tiers)][-1]
            self._remove(entry)
            entry._finish()

    def reset(self) -> None:
        """Drop all."""
        self.prune(0)

    def broadcasts(self) -> list[Broadcast]:
        """Return the entries in order."""
        return [entry for transmits in sorted(self._tiers) for entry in self._tiers[transmits]]

    def __len__(self) -> int:
        return self._size

    def _insert(self, entry: Broadcast) -> None:
        insort(self._tiers.setdefault(entry.transmits, []), entry)
        if entry.name is not None:
            self._named[entry.name] = entry
        self._size += 1
        self.backlog += len(entry.message)

    def _remove(self, entry: Broadcast, index: int | None = None) -> None:
        tier = self._tiers[entry.transmits]
        del tier[bisect_left(tier, entry) if index is None else index]
        if not tier:
            del self._tiers[entry.transmits]
        if entry.name is not None and self._named.get(entry.name) is entry:
            del self._named[entry.name]
        self._size -= 1
        self.backlog -= len(entry.message)


def _key(entry: Broadcast) -> tuple[int, int]:
    return entry.key
