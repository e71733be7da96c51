"""Introduces members to each other at once, as if a join had happened long ago.

Going through joins would cost n² merges, n² events and a gossip storm that
every experiment had to wait out. This is the one place that reaches into the
machine; it writes what a join leaves behind, no more.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._swim.members import Member as Record
from ..types import NodeState
from .members import PORT, Member

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ["acquaint", "bury"]


def acquaint(members: Sequence[Member], now: float) -> None:
    """Give every member an alive record of every other; nothing is queued, nobody is told."""
    own = [member.machine.local_node for member in members]
    vsn = [member.machine._core.vsn for member in members]
    for member in members:
        core = member.machine._core
        for node, versions in zip(own, vsn, strict=True):
            if node.name == member.name:
                continue
            record = Record(node.name, node.addr, node.port, node.meta or None, versions)
            record.incarnation = node.incarnation
            record.state = NodeState.ALIVE
            record.changed = now
            record.node_cache = node  # one shared value for all observers
            core.table.add(record)
        core.queue.reset()  # its own announcement: everybody has it already


def bury(cluster: Cluster, name: str) -> None:
    """Let every member remember somebody who was declared dead just now, and whose host is gone."""
    now = cluster.clock.now
    host = zlib.crc32(name.encode()).to_bytes(4, "big")
    for member in cluster.members:
        record = Record(name, b"\x7f" + host[1:], PORT, None, member.machine._core.vsn)
        member.machine._sync.saw_death(record, now)
