"""One entry of a cache, as it lies in the store and as other threads read it."""

from __future__ import annotations

from typing import Any

__all__ = ["CLEAR_PREFIX", "ENTRY_BYTES", "LOCK_PREFIX", "NEVER", "Entry"]

NEVER = float("inf")
"""When an entry without a time to live expires. Shared, so that it costs eight bytes."""

ENTRY_BYTES = 256
"""What an entry costs beside its key and its value, for ``max_bytes``: measured, rounded up."""

LOCK_PREFIX = b"\x00lock\x00"
"""What the key of a lock begins with, so that locks and values have names of their own."""

CLEAR_PREFIX = b"\x00clear\x00"
"""What the key of a CLEAR begins with; it is never an entry's."""


class Entry:
    """A value under its key. ``key``, ``value``, ``version`` and ``expires`` never change: a write makes a new entry.

    So a thread that finds one in a published table may read it without a lock,
    and sets ``visited`` so that the entry is not the next to be evicted. The
    links belong to the store.
    """

    __slots__ = ("due", "expires", "key", "newer", "older", "value", "version", "visited")

    def __init__(self, key: bytes, value: bytes, version: int, expires: float) -> None:
        self.key = key
        self.value = value
        self.version = version
        self.expires = expires  # monotonic seconds of this node
        self.visited = False
        self.older: Entry | None = None
        self.newer: Entry | None = None
        self.due: Any = None  # where the expiry wheel has it

    @property
    def size(self) -> int:
        """What it counts against ``max_bytes``."""
        return len(self.key) + len(self.value) + ENTRY_BYTES

    @property
    def pinned(self) -> bool:
        """Whether it is a lock, which no bound may take away."""
        return self.key.startswith(LOCK_PREFIX)
