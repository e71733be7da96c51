"""A map in which the last writer wins: of two writes of a key the one with the later stamp stays, whoever comes first.

A deletion is an entry too, a *tombstone*, so that an older value that comes
late stays deleted. Tombstones are forgotten by age and by number; their age
travels with them (see ``machine``), or nodes would teach each other for ever
what each had forgotten in turn.

Entries keep the bytes they came in: a state to send is those bytes, joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from .clock import Stamp

__all__ = ["Entry", "LwwMap"]

K = TypeVar("K", bound=Hashable)
_DIGEST = 1 << 128


class Entry:
    """What is known of one key. Attributes: ``stamp``; ``value``, None if deleted; ``raw``; ``since``, its birth."""

    __slots__ = ("mark", "raw", "since", "stamp", "value")

    def __init__(self, stamp: Stamp, value: bytes | None, raw: bytes, since: float) -> None:
        self.stamp = stamp
        self.value = value
        self.raw = raw
        self.since = since
        self.mark = int.from_bytes(hashlib.blake2b(raw, digest_size=16).digest(), "big")


class LwwMap(Generic[K]):
    """The entries of all keys.

    Args:
        live_max, bytes_max: most live entries, and the bytes of their ``raw``.
        tombstones_max: beyond it the one that was put first is forgotten.
    """

    def __init__(self, live_max: int, bytes_max: int, tombstones_max: int) -> None:
        self._live_max = live_max
        self._bytes_max = bytes_max
        self._tombstones_max = tombstones_max
        self._entries: dict[K, Entry] = {}
        self._tombstones: dict[K, None] = {}
        self._raws: set[bytes] = set()  # only looked up, never walked
        self.bytes = 0
        self.mark = 0
        """Sum of the entries' hashes: equal for equal contents, in whatever order they came."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def live(self) -> int:
        """Number of keys that are not deleted."""
        return len(self._entries) - len(self._tombstones)

    @property
    def tombstones(self) -> int:
        """Number of keys that are."""
        return len(self._tombstones)

    def get(self, key: K) -> Entry | None:
        """Return what is known of `key`."""
        return self._entries.get(key)

    def items(self) -> Iterator[tuple[K, Entry]]:
        """Walk over all, tombstones too; do not change the map meanwhile."""
        return iter(self._entries.items())

    def knows(self, raw: bytes) -> bool:
        """Return whether an entry has exactly these bytes."""
        return raw in self._raws

    def wins(self, key: K, stamp: Stamp, raw: bytes) -> bool:
        """Return whether this write is later than what is known. Forged equal stamps are decided by the bytes."""
        old = self._entries.get(key)
        return old is None or (stamp, raw) > (old.stamp, old.raw)

    def has_room(self, key: K, size: int, slack: float = 1.0) -> bool:
        """Return whether a live entry of `size` bytes fits."""
        old = self._entries.get(key)
        live, used = self.live, self.bytes
        if old is not None and old.value is not None:
            live, used = live - 1, used - len(old.raw)
        return live < self._live_max * slack and used + size <= self._bytes_max * slack

    def put(self, key: K, entry: Entry) -> list[K]:
        """Put an entry in the place of what is known, later or not; return the keys that had to be forgotten for it."""
        self.drop(key)
        self._entries[key] = entry
        self._raws.add(entry.raw)
        self.mark = (self.mark + entry.mark) % _DIGEST
        if entry.value is not None:
            self.bytes += len(entry.raw)
            return []
        self._tombstones[key] = None
        forgotten = []
        while len(self._tombstones) > self._tombstones_max:
            oldest = next(iter(self._tombstones))
            self.drop(oldest)
            forgotten.append(oldest)
        return forgotten

    def drop(self, key: K) -> None:
        """Forget all about `key`."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._raws.discard(entry.raw)
        self.mark = (self.mark - entry.mark) % _DIGEST
        if entry.value is None:
            del self._tombstones[key]
        else:
            self.bytes -= len(entry.raw)

    def expired(self, before: float) -> list[K]:
        """Return the keys of tombstones that are older than `before`."""
        entries = self._entries
        return [key for key in self._tombstones if entries[key].since <= before]
