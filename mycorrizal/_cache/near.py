"""Near copies: what another node is primary of, kept here to be read without a call, and how they are invalidated.

The primary of a partition numbers its invalidations and tells every member that
announces the cache; each notice carries the number it follows, and the last
numbers are repeated once an interval. So a lost one is noticed by the next
notice or repetition, and then all near copies of the partition are dropped. A
primary that was not heard of for four intervals is not believed any more. Hence
the bound: a near copy is read for at most ``4 * near_interval`` and the time a
notice travels after it was overwritten; as a rule for that time alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .entry import NEVER, Entry
from .messages import Message, parse_keys, partition, parts, rows, version
from .operations import Result
from .placement import PARTITIONS, Owner, partition_of
from .shard import Shard

if TYPE_CHECKING:
    from .space import Space

__all__ = ["SILENCE", "Near"]

SILENCE = 4
"""Intervals without a word from a primary after which its near copies are not read any more."""


class Near:
    """Both ends of it, for one cache on one node.

    Attributes:
        enabled: whether there are any.
        tables: near copies by partition. Other threads read them, as long as ``until`` of the partition is ahead.
        until: monotonic seconds up to which a partition's near copies are believed.
    """

    def __init__(self, space: Space, now: float) -> None:
        self._space = space
        self._core = space.core
        self.enabled = False
        self._interval = space.core.limits.near_interval
        self.tables: list[dict[bytes, Entry]] = [{} for _ in range(PARTITIONS)]
        self.until = [float("-inf")] * PARTITIONS
        self._count = 0
        self._known: dict[int, tuple[Owner, int]] = {}  # partition: whose, and the last number
        self._wrote: dict[int, float] = {}  # partition: when a caller here last wrote to it
        self._dirty: dict[int, tuple[int, list[bytes]]] = {}  # partition: number before, keys since
        self._beating = False
        self.enable(space.definition.near, now)

    def enable(self, enabled: bool, now: float) -> None:
        """Keep near copies from now on, and tell of what was written; or do neither."""
        self.enabled = enabled
        if enabled and not self._beating:
            self._beating = True
            self._core.timers.call_at(now + self._interval, self._beat)
        for place in range(0 if enabled else PARTITIONS):
            self.drop(place)

    # -- the primary --------------------------------------------------------------------

    def invalidate(self, shard: Shard, key: bytes) -> None:
        """A key of a partition of ours was written."""
        if self.enabled:
            self._space.touch()
            _, keys = self._dirty.setdefault(shard.partition, (shard.seq, []))
            shard.seq += 1
            keys.append(key)

    def invalidate_all(self, shard: Shard) -> None:
        """Anything in a partition of ours may be another: leave a gap, which everybody notices."""
        if self.enabled:
            self._space.touch()
            self._dirty[shard.partition] = (shard.seq + 1, [])
            shard.seq += 2

    def flush(self) -> None:
        """Tell everybody: at the end of every turn."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            shards = self._space.shards
            self._tell([[place, before, shards[place].seq, keys] for place, (before, keys) in dirty.items()])

    def _tell(self, changes: list[list[Any]]) -> None:
        for member in self._space.members:
            if member != self._core.me:
                self._core.notify(member, Message.INVALIDATE, self._space.name, [changes])

    def _beat(self, now: float) -> None:
        self._beating = self.enabled
        if not self.enabled:
            return
        self._core.timers.call_at(now + self._interval, self._beat)
        served = [shard for shard in self._space.shards if shard.serving and shard.seq]
        if served:
            self._tell([[shard.partition, shard.seq, shard.seq, []] for shard in served])

    # -- the holder ---------------------------------------------------------------------

    def keep(self, key: bytes, result: Result, owner: Owner, asked_at: float) -> None:
        """Keep what a GET brought from `owner`, unless it was overwritten meanwhile."""
        place = partition_of(key)
        if not self.enabled or result.value is None or self._space.shards[place].primary != owner:
            return
        if self._wrote.get(place, asked_at) > asked_at:  # it may be of before our own write
            self._core.counters["near_outrun"] += 1
            return
        known = self._known.get(place)
        if known is None or known[0] != owner or known[1] < result.seq:
            self.drop(place)
            self._known[place] = (owner, result.seq)
        elif known[1] > result.seq:
            self._core.counters["near_outrun"] += 1
            return
        if self._count >= self._core.limits.near_entries:
            self._core.counters["near_full"] += 1
            for other in range(PARTITIONS):
                if other != place:
                    self.drop(other)
        self.until[place] = max(self.until[place], asked_at + SILENCE * self._interval)
        table = self.tables[place]
        self._count += key not in table
        expires = NEVER if not result.ttl else asked_at + result.ttl / 1000.0
        table[key] = Entry(key, result.value, result.version, expires)
        self._core.counters["near_kept"] += 1

    def wrote(self, key: bytes, now: float) -> None:
        """A caller here wrote `key`: it must not read what was before."""
        if self.enabled:
            place = partition_of(key)
            self._wrote[place] = now
            if self.tables[place].pop(key, None) is not None:
                self._count -= 1

    def drop(self, place: int) -> None:
        """Drop the near copies of a partition."""
        self.until[place] = float("-inf")
        self._known.pop(place, None)
        if self.tables[place]:
            self._count -= len(self.tables[place])
            self.tables[place] = {}

    def heard(self, sender: Owner, body: list[Any], now: float) -> None:
        """Take invalidations."""
        for row in rows(parts(body, 1)[0], 4):
            place, before, seq, keys = partition(row[0]), version(row[1]), version(row[2]), parse_keys(row[3])
            known = self._known.get(place)
            if known is None or known[0] != sender or seq < known[1]:
                continue
            if before > known[1]:
                self._core.counters["near_gaps"] += 1
                self.drop(place)
                continue
            table = self.tables[place]
            for key in keys:
                if table.pop(key, None) is not None:
                    self._count -= 1
            self._known[place] = (sender, seq)
            if self.until[place] <= now:  # nobody was heard of for too long: what is here may be of before
                self.drop(place)
            else:
                self.until[place] = now + SILENCE * self._interval
