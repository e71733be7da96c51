"""How something came here, and whether what is as old as that may be taken from there.

Gossip and memberlist's streams are sealed with the cluster's key and with
nothing that changes, so whoever recorded them can send them again for as long
as the key is installed. What nobody here knows any more cannot be told from
news by its stamp alone: a tombstone is forgotten after ``tombstone_seconds``.
So a write that is about as old as that, of a key that is unknown here, waits
for a carrier that cannot be recorded.
"""

from __future__ import annotations

import enum

from .clock import HybridClock, Stamp

__all__ = ["MARGIN", "Via", "outlived"]

MARGIN = 3600.0
"""A tombstone that is forgotten within the hour is not learnt; clocks may differ by as much again."""


class Via(enum.Enum):
    """What carried a message."""

    GOSSIP = "alone, in a packet or a stream that can be sent again"
    OFFERED = "in the state of somebody who dialled us, which can be sent again"
    ASKED = "over QUIC, or in the state that somebody we dialled answered with"


def outlived(stamp: Stamp, clock: HybridClock, now: float, tombstone_seconds: float) -> bool:
    """Return whether a deletion later than `stamp` may be forgotten here, or may never have been learnt."""
    return clock.age(stamp, now) >= tombstone_seconds - 2 * MARGIN
