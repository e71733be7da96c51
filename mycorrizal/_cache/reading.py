"""Keys as callers write them, and reads of what is held on this node, past the machine and its thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..exceptions import ConfigError
from ..types import as_builtin
from .entry import Entry
from .placement import partition_of

if TYPE_CHECKING:
    from .near import Near

__all__ = ["held", "raw_key"]


def raw_key(key: str) -> bytes:
    """Return `key` as it travels.

    Raises:
        ConfigError: it is no text, empty, or not to be written as UTF-8.
    """
    key = as_builtin(key)
    if type(key) is not str:
        raise ConfigError("key", f"must be text, not {type(key).__name__}", hint="e.g. str(key), or f'{a}/{b}'")
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise ConfigError("key", f"{key!a:.80} cannot be written as UTF-8", hint="use plain text") from None
    if not raw or raw[0] == 0:
        raise ConfigError("key", f"{key!r:.80} is empty or begins with a NUL", hint="use plain text")
    return raw


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
