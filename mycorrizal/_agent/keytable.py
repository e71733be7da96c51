"""What one agent knows of its cluster's keys: a value that merges with another agent's, in any order, to the same.

Each key has the stamp of the change that last added or removed it, and the
key in use that of the change that chose it; of two changes the later counts.
The key in use is installed whatever else was said of it at the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from ..exceptions import ConfigError

__all__ = ["KEYS_MAX", "KeyTable", "Stamp"]

KEYS_MAX = 16
"""Keys installed at a time; a rotation needs two."""
_REMOVED_MAX = 64
"""Removed keys remembered: an agent that missed more removals than these has no key left that the others have."""
_TIME_MAX = 1 << 62

Stamp = tuple[int, str]
"""Milliseconds since 1970, or one more than the latest known if that is more; and the name of the agent."""
_START: Stamp = (0, "")
_FOUND: Stamp = (1, "")  # what was there at the first change comes before it, and before what a newcomer has
_Entry = tuple[Stamp, bytes]  # the key, empty if it is removed


def _digest(key: bytes) -> bytes:
    return sha256(b"mycorrizal key table" + key).digest()[:16]


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Immutable. ``repr`` shows no key."""

    entries: dict[bytes, _Entry]
    used: _Entry

    @classmethod
    def start(cls, key: bytes, *others: bytes) -> KeyTable:
        """Return what an agent knows that was started with `key`, which is in use, and has `others` beside it."""
        return cls({_digest(each): (_START, each) for each in (key, *others)}, (_START, key))

    @property
    def latest(self) -> int:
        """The time of the last change, 0 if there was none."""
        return max(self.used[0][0], *(stamp[0] for stamp, _ in self.entries.values()))

    def keys(self) -> tuple[bytes, ...]:
        """Return the installed keys, the one in use first."""
        there = [key for _, key in sorted(self.entries.values()) if key and key != self.used[1]]
        return (self.used[1], *there)

    def changed(self, operation: str, key: bytes, stamp: Stamp) -> KeyTable:
        """Return the table after ``add``, ``use`` or ``remove``.

        Raises:
            ConfigError: there is no such operation, `key` is not installed, or is the one in use.
        """
        base = self
        if not self.latest:
            found = {digest: (_FOUND, known) for digest, (_, known) in self.entries.items()}
            base = KeyTable(found, (_FOUND, self.used[1]))
        if operation == "use":
            if key not in self.keys():
                raise ConfigError("keyring", "this key is not installed", hint="add it on every node before you use it")
            return replace(base, used=(stamp, key))
        if operation not in ("add", "remove"):
            raise ConfigError("operation", f"{operation!r} is none", hint="add, use or remove")
        if operation == "remove" and key == self.used[1]:
            raise ConfigError("keyring", "the primary key cannot be removed", hint="use another key first")
        entry = (stamp, key if operation == "add" else b"")
        return replace(base, entries={**base.entries, _digest(key): entry})._bounded()

    def merged(self, other: KeyTable) -> KeyTable:
        """Return what both know together.

        Raises:
            ConfigError: these are too many keys.
        """
        entries = dict(self.entries)
        for digest, entry in other.entries.items():
            entries[digest] = max(entry, entries.get(digest, entry))
        return KeyTable(entries, max(self.used, other.used))._bounded()

    def _bounded(self) -> KeyTable:
        if len(self.keys()) > KEYS_MAX:
            raise ConfigError("key", f"more than {KEYS_MAX} keys at a time", hint="remove one that is not needed")
        removed = sorted((stamp, digest) for digest, (stamp, key) in self.entries.items() if not key)
        dropped = {digest for _, digest in removed[:-_REMOVED_MAX]}
        return replace(self, entries={digest: self.entries[digest] for digest in sorted(self.entries.keys() - dropped)})

    def did(self, operation: str, key: bytes) -> bool:
        """Return whether the table is as after `operation`."""
        if operation == "use":
            return self.used[1] == key
        return (key in self.keys()) == (operation == "add")

    def pack(self) -> list[Any]:
        """Return it as it travels, over connections that were proved."""
        rows = [[digest, *stamp, key] for digest, (stamp, key) in self.entries.items()]
        return [rows, [*self.used[0], self.used[1]]]

    @classmethod
    def unpack(cls, value: Any) -> KeyTable:
        """Return what another agent packed.

        Raises:
            ConfigError: it is none.
        """
        try:
            rows, used = value
            entries = {}
            for digest, time, name, key in rows[: KEYS_MAX + _REMOVED_MAX + 1]:
                if (key and _digest(key) != digest) or len(digest) != len(_digest(b"")):
                    raise ValueError
                entries[bytes(digest)] = _entry(time, name, key)
            if len(rows) != len(entries) or not entries or not used[2]:
                raise ValueError
            return cls(entries, _entry(*used))._bounded()
        except (TypeError, ValueError, IndexError):
            raise ConfigError("keys", "a table of keys is expected, of an agent of this version") from None

    def __repr__(self) -> str:
        return f"<KeyTable of {len(self.keys())}>"  # never a key


def _entry(time: Any, name: Any, key: Any) -> _Entry:
    if type(time) is not int or not 0 <= time < _TIME_MAX or type(name) is not str or type(key) is not bytes:
        raise ValueError
    return (time, name), key
