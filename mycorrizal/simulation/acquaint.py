"""Introduces members to each other at once, as if a join had happened long ago.

Going through joins would cost n² merges, n² events and a gossip storm that
every experiment had to wait out. This is the one place that reaches into the
machine; it writes what a join leaves behind, no more. What all know alike
stands in one record that all tables hold, until one of them changes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from .._swim.members import Member as Record
from ..exceptions import LocalProtocolError
from ..types import NodeState
from .members import PORT, Member

__all__ = ["acquaint", "bury"]


class _Shared(Record):
    """A record in many tables: who changes it without ``MemberTable.own`` would change it for all."""

    __slots__ = ()
    shared = True

    def __setattr__(self, name: str, value: object) -> None:
        raise LocalProtocolError(f"the shared record of {self.name} was not copied before its {name} was set")


def acquaint(members: Sequence[Member], now: float) -> None:
    """Give every member an alive record of every other; nothing is queued, nobody is told."""
    records: dict[str, Record] = {}
    for member in members:
        node = member.machine.local_node
        record = Record(node.name, node.addr, node.port, node.meta or None, member.machine._core.vsn)
        record.incarnation = node.incarnation
        record.state = NodeState.ALIVE
        record.changed = now
        record.node_cache = node
        record.__class__ = _Shared
        records[node.name] = record
    for member in members:
        core = member.machine._core
        core.table.share(records)
        core.queue.reset()  # its own announcement: everybody has it already


def bury(members: Sequence[Member], now: float, name: str) -> None:
    """Let every member remember somebody who was declared dead just now, and whose host is gone."""
    host = zlib.crc32(name.encode()).to_bytes(4, "big")
    for member in members:
        record = Record(name, b"\x7f" + host[1:], PORT, None, member.machine._core.vsn)
        member.machine._sync.saw_death(record, now)
