"""SIEVE: which entry goes when there is no room.

A queue in order of arrival and a hand that walks from the oldest to the
newest, over and over: what was visited since the hand came by is spared and
its mark wiped off, the first that was not goes. A hit costs one mark and no
move, so a reader in another thread can make it without a lock.

The queue is linked through the entries themselves; an overwritten entry gives
its place to the new one. Locks are spared for ever (``pinned``).

From: Zhang et al., "SIEVE is Simpler than LRU" (NSDI 2024).
"""

from __future__ import annotations

from .entry import Entry

__all__ = ["Sieve"]


class Sieve:
    """The queue and the hand."""

    __slots__ = ("_hand", "_newest", "_oldest")

    def __init__(self) -> None:
        self._oldest: Entry | None = None
        self._newest: Entry | None = None
        self._hand: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Put a new entry at the end."""
        entry.older = self._newest
        if self._newest is None:
            self._oldest = entry
        else:
            self._newest.newer = entry
        self._newest = entry

    def replace(self, old: Entry, new: Entry) -> None:
        """Give the place of `old` to `new`, which counts as a visit."""
        new.older, new.newer, new.visited = old.older, old.newer, True
        if new.older is None:
            self._oldest = new
        else:
            new.older.newer = new
        if new.newer is None:
            self._newest = new
        else:
            new.newer.older = new
        if self._hand is old:
            self._hand = new
        old.older = old.newer = None

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        if self._hand is entry:
            self._hand = entry.newer
        if entry.older is None:
            self._oldest = entry.newer
        else:
            entry.older.newer = entry.newer
        if entry.newer is None:
            self._newest = entry.older
        else:
            entry.newer.older = entry.older
        entry.older = entry.newer = None

    def victim(self, count: int) -> Entry | None:
        """Return the entry that goes next, out of `count`; None if all are pinned. It stays until ``remove``."""
        entry = self._hand
        for _ in range(2 * count + 1):
            if entry is None:
                entry = self._oldest
                if entry is None:
                    return None
            if not entry.visited and not entry.pinned:
                self._hand = entry
                return entry
            entry.visited = False
            entry = entry.newer
        return None
