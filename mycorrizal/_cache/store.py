"""What one node holds of one cache: entries and tombstones by partition, newest version wins.

One dict a partition, which is also what other threads read. A write applies
only above the version that is there, be it an entry's, a tombstone's or the
partition's ``cleared``, so copies may arrive in any order and twice.

A tombstone is kept for an hour and within a number; its going raises the
partition's *floor*. Where two complete copies meet, an entry below the floor
of one that is missing there was deleted, so it goes; that is how a delete
stays a delete after its tombstone has gone. An expired entry leaves nothing,
unless a member is missing that may come back with an older copy of it
(``grieve``): then it leaves a tombstone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from zlib import crc32

from .definition import Definition, Limits
from .entry import ENTRY_BYTES, NEVER, Entry
from .eviction import Sieve
from .expiry import Wheel
from .placement import PARTITIONS

__all__ = ["Store", "StoreCounters"]

_MASK = (1 << 64) - 1


def _mix(crc: int, version: int) -> int:
    """Return what an entry adds to its partition's digest."""
    return ((crc * 0x9E3779B97F4A7C15) ^ (version * 0xC2B2AE3D27D4EB4F)) & _MASK


class StoreCounters:
    """What became of entries."""

    __slots__ = ("buried", "evicted", "expired", "graves_dropped", "outdated")

    def __init__(self) -> None:
        self.evicted = 0
        self.expired = 0
        self.buried = 0
        self.graves_dropped = 0
        self.outdated = 0


class Store:
    """The entries of one cache on one node. The loop thread writes; others read ``tables``.

    Attributes:
        entries, bytes: what is held, as the bounds count it.
        digests, grave_digests: for each partition a sum over keys and versions of its entries, and of its tombstones;
            equal copies have equal ones.
    """

    def __init__(self, definition: Definition, limits: Limits) -> None:
        self.tables: list[dict[bytes, Entry]] = [{} for _ in range(PARTITIONS)]
        self.graves: list[dict[bytes, int]] = [{} for _ in range(PARTITIONS)]
        self.digests = [0] * PARTITIONS
        self.grave_digests = [0] * PARTITIONS
        self.floors = [0] * PARTITIONS
        self.cleared = [0] * PARTITIONS
        self._written = [False] * PARTITIONS
        self.counters = StoreCounters()
        self.entries = 0
        self.bytes = 0
        self.grieving = 0.0
        self._limits = limits
        self._sieve = Sieve()
        self._wheel = Wheel()
        self._buried: deque[tuple[float, bytes, int]] = deque()  # (until, key, version), oldest first
        self._graves = 0
        self.bound(definition)

    # -- reading ------------------------------------------------------------------------

    def get(self, key: bytes, now: float) -> Entry | None:
        """Return the live entry under `key`."""
        entry = self.tables[crc32(key) & 0xFF].get(key)
        if entry is None or entry.expires <= now:
            return None
        return entry

    def version_of(self, partition: int, key: bytes) -> int:
        """Return the version that a write has to be above."""
        entry = self.tables[partition].get(key)
        version = entry.version if entry is not None else self.graves[partition].get(key, 0)
        return max(version, self.cleared[partition])

    def holds(self, partition: int) -> bool:
        """Return whether there is anything of a partition here; knowing of old deletes is something too."""
        return bool(
            self.tables[partition] or self.graves[partition] or self.cleared[partition] or self.floors[partition]
        )

    @property
    def is_empty(self) -> bool:
        """Return whether no partition ``holds`` anything."""
        return not (any(self.tables) or any(self.graves) or any(self.cleared) or any(self.floors))

    def pristine(self, partition: int) -> bool:
        """Return whether nothing of a partition was ever here: not even what was evicted since, or has expired."""
        return not (self._written[partition] or self.holds(partition))

    # -- writing ------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, version: int, expires: float) -> bool:
        """Write an entry, unless something newer is there."""
        crc = crc32(key)
        partition = crc & 0xFF
        table = self.tables[partition]
        old = table.get(key)
        if old is not None:
            if version < old.version or (version == old.version and value <= old.value):
                self.counters.outdated += 1
                return False
        elif version <= self.graves[partition].get(key, 0):
            self.counters.outdated += 1
            return False
        if version <= self.cleared[partition]:
            self.counters.outdated += 1
            return False
        entry = Entry(key, value, version, expires)
        if old is not None:
            self._sieve.replace(old, entry)
            if old.due is not None:
                self._wheel.remove(old)
            self.digests[partition] ^= _mix(crc, old.version)
            self.bytes += len(value) - len(old.value)
        else:
            if self._graves:
                self._unbury(partition, key)
            self._sieve.add(entry)
            self.entries += 1
            self.bytes += len(key) + len(value) + ENTRY_BYTES
        table[key] = entry
        self._written[partition] = True
        if expires != NEVER:
            self._wheel.add(entry)
        self.digests[partition] ^= _mix(crc, version)
        if self.entries > self._max_entries or self.bytes > self._max_bytes:
            self._evict()
        return True

    def bury(self, key: bytes, version: int, now: float) -> bool:
        """Write a tombstone, unless something newer is there."""
        partition = crc32(key) & 0xFF
        if version <= self.version_of(partition, key):
            self.counters.outdated += 1
            return False
        entry = self.tables[partition].get(key)
        if entry is not None:
            self._remove(partition, entry)
        self._unbury(partition, key)
        self._graves += 1
        self.graves[partition][key] = version
        self.grave_digests[partition] ^= _mix(crc32(key), ~version)
        self.counters.buried += 1
        self._buried.append((now + self._limits.graves_age, key, version))
        while self._graves > self._limits.graves or len(self._buried) > 2 * self._limits.graves:
            self.counters.graves_dropped += 1
            self._drop_grave()
        return True

    def clear(self, partition: int, version: int) -> None:
        """Drop everything of a partition up to `version`, for good."""
        if version <= self.cleared[partition]:
            return
        self.cleared[partition] = version
        for entry in list(self.tables[partition].values()):
            if entry.version <= version:
                self._remove(partition, entry)
        graves = self.graves[partition]
        for key in [key for key, buried in graves.items() if buried <= version]:
            self._unbury(partition, key)

    def forget(self, partition: int) -> None:
        """The partition has moved away: keep nothing of it."""
        for entry in list(self.tables[partition].values()):
            self._remove(partition, entry)
        for key in list(self.graves[partition]):
            self._unbury(partition, key)
        self.floors[partition] = self.cleared[partition] = 0
        self._written[partition] = False

    def discard(self, partition: int, key: bytes) -> None:
        """Drop an entry that another copy knows to be gone."""
        entry = self.tables[partition].get(key)
        if entry is not None:
            self._remove(partition, entry)

    def grieve(self, until: float) -> None:
        """Until then a member may come back with old copies: what expires leaves a tombstone."""
        self.grieving = max(self.grieving, until)

    # -- time -----------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when ``tick`` has work."""
        due = self._wheel.next()
        if self._buried and (due is None or self._buried[0][0] < due):
            due = self._buried[0][0]
        return due

    def tick(self, now: float) -> list[Entry]:
        """Take out what expired, a bounded number; return it."""
        gone = self._wheel.due(now, self._limits.work)
        for entry in gone:
            partition = crc32(entry.key) & 0xFF
            if now < self.grieving:
                self.bury(entry.key, entry.version + 1, now)
            else:
                self._remove(partition, entry)
            self.counters.expired += 1
        for _ in range(self._limits.work):
            if not self._buried or self._buried[0][0] > now:
                break
            self._drop_grave()
        return gone

    def expired(self, now: float) -> list[bytes]:
        """Return the keys whose time is over, and that are not taken out yet. Any thread."""
        return self._wheel.over(now)

    def _drop_grave(self) -> None:
        """Forget the oldest tombstone; its partition's floor says that there was one."""
        _, key, version = self._buried.popleft()
        partition = crc32(key) & 0xFF
        if self.graves[partition].get(key) == version:
            self._unbury(partition, key)
            self.floors[partition] = max(self.floors[partition], version)

    def _unbury(self, partition: int, key: bytes) -> None:
        version = self.graves[partition].pop(key, None)
        if version is not None:
            self._graves -= 1
            self.grave_digests[partition] ^= _mix(crc32(key), ~version)

    # -- bounds ---------------------------------------------------------------------------

    def bound(self, definition: Definition) -> None:
        """Hold no more than `definition` says."""
        self._max_entries = definition.max_entries or NEVER
        self._max_bytes = definition.max_bytes or NEVER
        self._evict()

    def _evict(self) -> None:
        while self.entries > self._max_entries or self.bytes > self._max_bytes:
            victim = self._sieve.victim(self.entries)
            if victim is None:
                return
            self._remove(crc32(victim.key) & 0xFF, victim)
            self.counters.evicted += 1

    def _remove(self, partition: int, entry: Entry) -> None:
        table = self.tables[partition]
        del table[entry.key]
        if not table:
            table.clear()  # a dict whose last entry was deleted keeps room for all it ever had
        self._sieve.remove(entry)
        self._wheel.remove(entry)
        self.digests[partition] ^= _mix(crc32(entry.key), entry.version)
        self.entries -= 1
        self.bytes -= entry.size

    def walk(self) -> Iterator[Entry]:
        """Yield every entry, for tests and statistics."""
        for table in self.tables:
            yield from table.values()
