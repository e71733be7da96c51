"""Reads of what is held on this node, past the machine and its thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .entry import Entry
from .placement import partition_of

if TYPE_CHECKING:
    from .near import Near

__all__ = ["held"]


def held(readable: Sequence[dict[bytes, Entry]], near: Near | None, key: bytes, now: float) -> Entry | None:
    """Return the entry of `key` if it is here and may be read at `now`, as that of a primary or a near copy; else None.

    Any thread; the owner of the tables changes them meanwhile.
    """
    place = partition_of(key)
    entry = readable[place].get(key)
    if entry is not None and entry.expires > now:
        entry.visited = True
        return entry
    if near is not None and now < near.until[place]:
        entry = near.tables[place].get(key)
        if entry is not None and entry.expires > now:
            return entry
    return None
