"""What a ``SerfDelegate`` stands on: Serf's machine, the records of its members, and what waits to be gossiped.

One lock, ``changed``, guards all of it; whoever calls in holds it. It is held
for single short calls only, never while a callback runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..._serf import (
    Asked,
    Direct,
    Kind,
    Member,
    Query,
    Received,
    SerfMachine,
    SerfStatus,
    decode_tags,
    passes,
)
from ..._swim.broadcasts import TransmitLimitedQueue
from ...config import Config
from ...exceptions import NotRunningError, QueueFull
from ...types import Node, host_of
from ..swim.layer import Ground, random_source
from ..threads.monitor import Monitor

__all__ = ["News", "SerfCore"]

MAX_QUEUED = 4096
"""Messages waiting to be gossiped, intents, queries and user events each (Serf's ``MaxQueueDepth``)."""
PACKET_RESERVE = 64
"""Bytes of a packet that a gossiped message leaves for headers and encryption."""

_COUNTERS = (
    "events_unread", "queue_full", "too_large_to_gossip", "bad_states", "farewells_unsent", "directs_unsent",
    "queries_unhandled", "queries_late",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class News:
    """What is for the user."""

    events: list[Received]
    asked: list[Asked]


class SerfCore:
    """The state of one ``SerfDelegate``.

    Args:
        replay: deliver the events of before the first join.
        tags: returns this node's tags.
    """

    def __init__(self, replay: bool, tags: Callable[[], Mapping[str, str]]) -> None:
        self.changed = Monitor()
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self.ground: Ground | None = None
        self.nodes: dict[str, Node] = {}
        self.used = False  # by a Memberlist; the next one starts afresh
        self.fanout = 0
        self.packet = 0
        self._replay = replay
        self._tags = tags
        self._machine: SerfMachine | None = None
        self._queues = self._new_queues(4)

    def start(self, config: Config) -> None:
        """Be the state of a node of these settings."""
        if self._machine is None or self._machine.name != config.name or self.used:
            self.used = False
            self.ground = None
            self._machine = SerfMachine(
                config.name, replay=self._replay, rng=random_source(), fanout=config.leave_fanout, known=self._knows,
                tags=self._tags,
            )  # fmt: skip
            self.nodes.clear()
            self._queues = self._new_queues(config.retransmit_mult)
        self.fanout = config.leave_fanout
        self.packet = config.udp_buffer_size - PACKET_RESERVE - len(config.label.encode("utf-8", "surrogateescape"))

    @property
    def started(self) -> bool:
        """Whether there is a node."""
        return self._machine is not None

    @property
    def machine(self) -> SerfMachine:
        """The rules.

        Raises:
            NotRunningError: there is no node yet.
        """
        if self._machine is None:
            raise NotRunningError("this SerfDelegate does not know its node", hint="use a Config from its config()")
        return self._machine

    def size(self) -> int:
        """Return how many members there are to gossip to."""
        return 1 if self._machine is None else self._machine.size

    def now(self) -> float:
        """Return the time in seconds; 0 without a ``Memberlist``."""
        return 0.0 if self.ground is None else self.ground.now()

    def departed(self, node: Node) -> None:
        """memberlist has `node` left or dead."""
        self.machine.node_left(node.name, self.now())
        if self.machine.status(node.name) is not None:
            self.nodes[node.name] = node
        self._forget()

    def members(self) -> tuple[Member, ...]:
        """Return all members, those that are gone and not forgotten too."""
        if not self.started:
            return ()
        self.machine.reap(self.now())
        self._forget()
        return self.machine.members()

    def wall(self, since: float) -> float | None:
        """Return a time of ``now`` in seconds since 1970; None without a ``Memberlist``."""
        return None if self.ground is None else self.ground.wall(since)

    def expected(self, query: Query) -> set[str]:
        """Return the members that `query` is for, as far as is known."""
        alive = [m.name for m in self.machine.members() if m.status is SerfStatus.ALIVE and m.name in self.nodes]
        return {name for name in alive if passes(query, name, decode_tags(self.nodes[name].meta))}

    def waiting(self) -> dict[str, int]:
        """Return the lengths of the queues."""
        names = {Kind.INTENT: "queued_intents", Kind.QUERY: "queued_queries", Kind.EVENT: "queued_events"}
        return {name: len(self._queues[kind]) for kind, name in names.items()}

    # -- outputs --------------------------------------------------------------------------------

    def broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Return what goes out with the next packet: intents, then queries, then events."""
        messages: list[bytes] = []
        for kind in Kind:
            used = sum(len(message) + overhead for message in messages)
            messages += self._queues[kind].get_broadcasts(overhead, limit - used)
        return messages

    def pull(self, finished: Callable[[], None] | None = None) -> News:
        """Queue or send what the machine wants sent; return what is for the user."""
        machine = self.machine
        for outgoing in machine.messages_to_send():
            queue = self._queues[outgoing.kind]
            if len(outgoing.message) > self.packet:
                self.counters["too_large_to_gossip"] += 1  # it would stay queued for ever
                if finished is not None:
                    finished()
                continue
            queue.queue_broadcast(outgoing.message, unique=True, finished=finished)
            if len(queue) > MAX_QUEUED:
                self.counters["queue_full"] += len(queue) - MAX_QUEUED
                queue.prune(MAX_QUEUED)
        self._forget()
        for direct in machine.queries.to_send():
            self._send(direct)
        events = []
        while (event := machine.next_event()) is not None:
            events.append(event)
        return News(events, machine.queries.asked())

    def _send(self, direct: Direct) -> None:
        node = self.nodes.get(direct.name)
        if direct.address is not None:
            address = (host_of(direct.address[0]), direct.address[1])
        elif node is not None:
            address = node.address
        else:
            return  # gone meanwhile
        try:
            if self.ground is not None and self.ground.send(address, direct.message, direct.name):
                return
        except QueueFull:
            pass
        self.counters["directs_unsent"] += 1

    def _forget(self) -> None:
        for name in self.machine.forgotten():
            self.nodes.pop(name, None)

    # -- private ----------------------------------------------------------------------------------

    def _knows(self, name: str, address: tuple[bytes, int]) -> bool:
        node = self.nodes.get(name)
        return node is not None and node.address == (host_of(address[0]), address[1])

    def _new_queues(self, mult: int) -> dict[Kind, TransmitLimitedQueue]:
        return {kind: TransmitLimitedQueue(mult, self.size) for kind in Kind}
