"""Every bound of the replicated state, by name. What does not fit is refused or dropped, and counted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOOT_BYTES", "NAME_MAX", "NUMBER_MAX", "Limits"]

BOOT_BYTES = 8
"""Length of the random id that a process has besides its node's name."""

NAME_MAX = 255
"""Bytes of UTF-8 of a node's name, a key, a topic or a service's id."""

NUMBER_MAX = 1 << 53
"""Largest number of an event that is taken from a peer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ``Replica``.

    Own writes are refused at ``settings``, ``setting_bytes``, ``services_per_node`` and ``service_bytes``; what
    others wrote is taken up to ``slack`` times as much, since two halves of a partition may have filled up apart.
    """

    settings: int = 10_000
    setting_bytes: int = 8 << 20
    """Of keys and values with all that belongs to them, on the wire."""
    value: int = 64 << 10
    """Bytes of one setting."""
    tombstones: int = 10_000
    """Deleted settings that are remembered; the longest known is forgotten first."""
    tombstone_seconds: float = 86_400.0
    services_per_node: int = 512
    services: int = 8_192
    service_bytes: int = 2 << 20
    record: int = 16 << 10
    """Bytes of one service's record."""
    service_tombstones: int = 2_048
    orphan_seconds: float = 600.0
    """How long services are kept whose node is gone, should it come back."""
    slack: float = 1.25
    event: int = 1 << 20
    """Bytes of one event's value."""
    remembered: int = 1_024
    """Events of all senders that are kept for those who missed one."""
    remembered_bytes: int = 4 << 20
    held: int = 1_024
    """Events of one sender that wait for an earlier one; further ones are fetched again later."""
    held_bytes: int = 8 << 20
    """Of all senders together."""
    senders: int = 4_096
    """Lives of nodes whose events we count; one that is gone makes room for a new one."""
    fetches: int = 16
    """Fetches under way."""
    fetch_seconds: float = 30.0
    """After this a fetch that nobody reported on has failed."""
    state_seconds: float = 120.0
    """The same for a whole state: 10 MiB take a minute where one packet in fifty is lost."""
    answer_bytes: int = 1 << 20
    """Events in one answer; one event is always given."""
    gap_seconds: float = 0.3
    """How long a hole may be there before it is fetched."""
    give_up_seconds: float = 60.0
    """After this a hole that holds up later events is skipped, even if the sender could not be asked.

    Longer than a partition of half a minute and the time that it takes to find each other again.
    """
    peers_asked: int = 8
    """Members that say they do not have an event, before it is believed."""
    queue: int = 2_048
    """Messages waiting to be gossiped; when three quarters of it are taken, others' are not passed on any more."""
    gossip_backlog: int = 128
    """Messages waiting to be gossiped beyond which own ones are pushed: gossip carries a few hundred a second."""
    gossip_backlog_bytes: int = 8 << 10
    """The same in bytes: between two nodes gossip carries one packet an interval, each message several times."""
    direct_peers: int = 64
    """Up to so many others each is told directly too, of what rides gossip: gossip alone leaves some out for long."""
    direct: int = 256
    """Messages waiting to be told directly; further ones ride gossip alone."""
    batch_bytes: int = 256 << 10
    """Of settings and services for which gossip has no room, told directly in batches; beyond it they are pushed."""
    batch_seconds: float = 2.0
    """In so many seconds there is room for as many again: a receive buffer takes what a few tell at once."""
    pushes: int = 1_024
    """Messages waiting to be pushed; the owner takes them after each call."""
    gossip_bytes: int = 900
    """Longest message that rides gossip; it must fit into a packet with whatever the owner wraps it in."""
    sync_interval: float = 30.0
    """Seconds between exchanges of whole states, where they do not ride memberlist's push/pull."""
