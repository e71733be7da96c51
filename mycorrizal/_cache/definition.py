"""What a cache is defined as, and what bounds a machine.

Members may have defined a cache differently, for a moment: of all definitions
that are announced each of them takes the one of the highest ``rank``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..config import builtin_fields, check_text
from ..exceptions import ConfigError

__all__ = ["Definition", "Limits", "check_seconds", "differ"]

_NO_BOUND = float("inf")

SECONDS_MAX = 1e12
"""Longest time to live, or to hold something: milliseconds of it fit into 53 bits."""


def check_seconds(field: str, seconds: float, *, zero: bool = False) -> None:
    """Raise ``ConfigError`` unless `seconds` is a time that travels: above 0, or 0 if `zero`, and not endless."""
    try:
        good = 0 < seconds <= SECONDS_MAX or (zero and seconds == 0)
    except TypeError:
        good = False
    if not good:
        above = "from 0 on" if zero else "above 0"
        hint = f"at most {SECONDS_MAX:.0e}; a ttl of None is for ever"
        raise ConfigError(field, f"{seconds!r:.80} is not a number of seconds {above}", hint=hint)


@dataclass(frozen=True, slots=True)
class Definition:
    """A cache, as its members agree on it.

    Attributes:
        name: up to 255 bytes of UTF-8.
        ttl: seconds that an entry lives unless its write says otherwise; None: for ever.
        max_entries, max_bytes: bounds of what *each node* holds of it, primaries' and backups' copies alike.
            Bytes count keys, values and ``ENTRY_BYTES`` an entry.
        replicas: copies of each entry, the primary's included.
        near: whether members may keep near copies, and are sent invalidations for them.
        read_backups: whether a node reads from a copy that it holds as backup (it may be behind by a write under way).
        sync_backups: whether a write waits for its backups. False: a write that was acknowledged is lost if its
            primary dies before the backups have it, some milliseconds as a rule.
        quorum: members that must announce the cache for it to be used; 0: none.
        edition: how often it was redefined.
        born: milliseconds since 1970 when it was first defined so, by the clock of who did.
    """

    name: str
    ttl: float | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    replicas: int = 2
    near: bool = False
    read_backups: bool = False
    sync_backups: bool = True
    quorum: int = 0
    edition: int = field(default=0, compare=False)
    born: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        builtin_fields(self)
        check_text("name", self.name, "features")
        if not isinstance(self.replicas, int) or not 1 <= self.replicas <= 16:
            raise ConfigError("replicas", f"{self.replicas!r} copies; from 1 to 16 are possible")
        if self.ttl is not None:
            check_seconds("ttl", self.ttl)
        for name in ("max_entries", "max_bytes"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value > 0):
                raise ConfigError(name, f"{value!r} is no number above zero", hint="None is without a bound")
        if not isinstance(self.quorum, int) or self.quorum < 0:
            raise ConfigError("quorum", f"{self.quorum!r} members")

    @property
    def rank(self) -> tuple[float, ...]:
        """Of all definitions of one cache the greatest holds: the latest edition, and of one edition the first."""
        ttl, entries, size = [_NO_BOUND if it is None else it for it in (self.ttl, self.max_entries, self.max_bytes)]
        switches = self.near, self.read_backups, self.sync_backups
        return self.edition, -self.born, ttl, entries, size, self.replicas, *switches, self.quorum

    def replaces(self, other: Definition) -> bool:
        """Return whether this one holds where `other` was taken for it: of one edition of the same settings any may.

        Who opens a cache at the same moment as others need not tell them who was first.
        """
        return (self != other or self.edition != other.edition) and self.rank > other.rank

    def settings(self, other: Definition) -> dict[str, Any]:
        """Return those settings that are others in `other`."""
        mine, theirs = asdict(self), asdict(other)
        return {it.name: mine[it.name] for it in fields(self) if it.compare and mine[it.name] != theirs[it.name]}

    def apart(self, other: Definition) -> str:
        """Return the settings that are others in `other`, as text."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings(other).items())


def differ(one: Definition | None, other: Definition | None) -> bool:
    """Return whether two members' definitions of a cache are not the same one, though their settings may be."""
    if one is None or other is None:
        return one is not other
    return one != other or (one.edition, one.born) != (other.edition, other.born)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one machine. Each overflow is counted."""

    key_bytes: int = 1024
    """Longest key."""
    value_bytes: int = 1 << 30
    """Longest value."""
    operations: int = 1 << 16
    """Operations of local callers under way; more are refused."""
    waiting: int = 4096
    """Operations that wait at the primary for the same key; more are told to come again."""
    batch_bytes: int = 256 << 10
    """Bytes of records in one message, unless a single one is larger."""
    batch_records: int = 1024
    """Records in one message."""
    backlog_records: int = 1 << 16
    """Records that wait for one backup that need not be waited for; more, and it is filled anew instead."""
    outcomes: int = 512
    """Outcomes remembered for each partition, so that a retry is recognised; the oldest go first."""
    outcomes_age: float = 60.0
    """Seconds they are remembered for, and so the longest that an operation is retried."""
    graves: int = 1 << 17
    """Tombstones of one cache; the oldest go first."""
    graves_age: float = 3600.0
    """Seconds that a tombstone is kept: longer partitions may lose writes to old deletes, never undo a delete."""
    rebalance_rate: float = 64e6
    """Bytes a second that this node moves when copies change place."""
    takeover_patience: float = 10.0
    """Seconds that a new primary waits for a member that does not agree, before it serves without it."""
    retry_min: float = 0.02
    retry_max: float = 0.4
    """Seconds between attempts, doubling."""
    call_timeout: float = 5.0
    """Seconds for one call between members; a caller's own deadline may be sooner."""
    leases: int = 1 << 14
    """Leases to compute that one node gives out for a cache at a time."""
    lull_calm: float = 0.5
    lull_most: float = 10.0
    """Seconds without news that are a lull, and the longest that an unused cache waits for one; see ``lull``."""
    audit_interval: float = 60.0
    """Seconds between two comparisons of a partition with its backups."""
    near_entries: int = 1 << 16
    """Near copies of one cache."""
    near_interval: float = 0.5
    """Seconds between two heartbeats of the invalidations."""
    work: int = 1000
    """Entries expired or looked at in one turn."""
