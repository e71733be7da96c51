"""``SerfDelegate``: makes a node of a msgpack ``Memberlist`` a member of a Serf cluster.

It is an ordinary delegate. Serf's rules are in ``_serf``; this module owns
them, feeds them what memberlist's delegates bring and gossips what they say::

    serf = SerfDelegate(tags={"role": "worker"}, on_event=print)
    config = serf.config(Config.lan(name="py1"))
    with Memberlist(config, delegate=serf, events=serf) as members:
        members.join(["10.0.0.7"])
        serf.user_event("deploy", b"v1.2")
        serf.leave(members)

Serf refuses a node that does not announce its delegate versions and speaks
msgpack only, hence ``config()``. Pass the object as ``events=`` too: by these
it knows the members that its state and ``members()`` tell about.

Not there: queries (``serf query``, ``serf reachability`` get no answer from
this node; they are counted) and network coordinates (acknowledgements carry
no payload, so ``serf rtt`` knows no distance to it).

Threads: every method may be called from any thread. One lock guards the
machine; it is held for single short calls only, never while a callback runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ._runtime.deadline import Deadline
from ._runtime.lifecycle import Handle
from ._runtime.monitor import Monitor
from ._serf import Received, SerfMachine, SerfStatus, decode_state, decode_tags, encode_tags
from ._swim.broadcasts import TransmitLimitedQueue
from .config import META_MAX_SIZE, Config
from .delegates import BaseDelegate, BaseEventDelegate, BasePingDelegate
from .exceptions import ConfigError, NotRunningError, OperationTimeout, PeerUnreachable, QueueFull, RemoteProtocolError
from .types import Node

__all__ = ["SerfDelegate", "SerfEvent", "SerfMember", "SerfStatus"]

PROTOCOL_MIN, PROTOCOL_MAX, PROTOCOL = 2, 5, 5
"""What Serf announces as its delegate versions."""
MAX_QUEUED = 4096
"""Messages waiting to be gossiped, intents and user events each (Serf's ``MaxQueueDepth``)."""
PACKET_RESERVE = 64
"""Bytes of a packet that a gossiped message leaves for headers and encryption."""
INTENT_SECONDS = 5.0
"""How long ``leave`` waits at most for its intent to go out (Serf's ``BroadcastTimeout``)."""

SerfEvent = Received
"""A user event: its Lamport time, name, payload, and whether later ones of the name may replace it."""


@dataclass(frozen=True, slots=True)
class SerfMember:
    """A member as Serf sees it.

    Attributes:
        name: the node's name.
        status: alive, leaving, left (it said so, or was made to) or failed.
        tags: its tags; none are known of a node that left before we came.
        node: its last record, or None if there was none.
    """

    name: str
    status: SerfStatus
    tags: Mapping[str, str]
    node: Node | None


class _Members(Protocol):
    """What ``leave`` needs of a ``Memberlist``."""

    def members(self) -> Iterable[Node]: ...
    def send_best_effort(self, node: Node, data: bytes, /) -> object: ...
    def leave(self, timeout: float | None = ...) -> object: ...


class SerfDelegate(Handle, BaseDelegate, BaseEventDelegate, BasePingDelegate):
    """Serf on top of one ``Memberlist``. Methods may be called from any thread.

    Args:
        tags: this node's tags, at most 512 bytes encoded.
        on_event: called with each new user event: on the delegate thread, or
            for an event of our own on the thread that called ``user_event``.
            Without it events wait for ``next_event``.
        replay_events: also deliver the events that the cluster remembers from
            before this node joined.
        event_size_limit: most bytes of a user event that we send, as encoded.
        event_queue_depth: events that wait for ``next_event``; the oldest are
            dropped first, and counted.

    Raises:
        ConfigError: the tags are not text, or ``event_queue_depth`` is not positive.
        MetaTooLarge: the tags take more than 512 bytes.
    """

    def __init__(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        on_event: Callable[[SerfEvent], object] | None = None,
        replay_events: bool = False,
        event_size_limit: int = 512,
        event_queue_depth: int = 1024,
    ) -> None:
        if event_queue_depth < 1:
            raise ConfigError("event_queue_depth", f"{event_queue_depth} is not positive")
        self._changed = Monitor()  # guards all that follows
        self._meta = encode_tags(tags or {}, META_MAX_SIZE)
        self._on_event = on_event
        self._replay = replay_events
        self._event_size_limit = event_size_limit
        self._waiting: deque[SerfEvent] = deque(maxlen=event_queue_depth)
        self._dropped = dict.fromkeys(
            ("events_unread", "queue_full", "too_large_to_gossip", "bad_states", "farewells_unsent"), 0
        )
        self._machine: SerfMachine | None = None
        self._nodes: dict[str, Node] = {}
        self._intents = TransmitLimitedQueue(4, self._size)
        self._events = TransmitLimitedQueue(4, self._size)
        self._packet = 0
        self._fanout = 0
        self._used = False  # by a Memberlist; the next one starts afresh

    # -- settings ---------------------------------------------------------------------

    def config(self, base: Config | None = None, **overrides: Any) -> Config:
        """Return `base` (``Config.lan()``) changed so that Serf accepts the node; pass it to ``Memberlist``.

        Raises:
            ConfigError: a setting is wrong.
        """
        config = (base or Config.lan()).replace(
            **{
                "wire": "msgpack",
                "delegate_protocol_min": PROTOCOL_MIN,
                "delegate_protocol_max": PROTOCOL_MAX,
                "delegate_protocol_version": PROTOCOL,
                **overrides,
            }
        )
        self.starting(config)
        return config

    def starting(self, config: Config) -> None:
        """Learn the node's settings. ``config()`` does it, and so does a ``Memberlist`` before it starts.

        Raises:
            ConfigError: Serf would refuse a node with these settings.
        """
        hint = "build the Config with SerfDelegate.config()"
        if config.wire != "msgpack":
            raise ConfigError("wire", f"Serf does not understand {config.wire!r}", hint=hint)
        versions = (config.delegate_protocol_min, config.delegate_protocol_version, config.delegate_protocol_max)
        # Each node's current version must lie within the range of every other one.
        if not versions[0] <= PROTOCOL <= versions[2] or not PROTOCOL_MIN <= versions[1] <= PROTOCOL_MAX:
            text = "/".join(map(str, versions))
            raise ConfigError("delegate_protocol_version", f"Serf refuses min/current/max {text}", hint=hint)
        with self._changed:
            if self._machine is None or self._machine.name != config.name or self._used:
                self._used = False
                self._machine = SerfMachine(config.name, replay=self._replay)
                self._nodes.clear()
                self._intents = TransmitLimitedQueue(config.retransmit_mult, self._size)
                self._events = TransmitLimitedQueue(config.retransmit_mult, self._size)
            self._fanout = config.leave_fanout
            self._packet = (
                config.udp_buffer_size - PACKET_RESERVE - len(config.label.encode("utf-8", "surrogateescape"))
            )

    # -- tags -------------------------------------------------------------------------

    @property
    def tags(self) -> dict[str, str]:
        """This node's tags. After setting them call ``Memberlist.update_node()``.

        Raises:
            ConfigError: the tags are not text.
            MetaTooLarge: they take more than 512 bytes; the old ones stay.
        """
        return decode_tags(self._meta)

    @tags.setter
    def tags(self, tags: Mapping[str, str]) -> None:
        self._meta = encode_tags(tags, META_MAX_SIZE)

    @staticmethod
    def tags_of(node: Node) -> dict[str, str]:
        """Return another node's tags. Metadata that is no tag map is the tag ``role``; a broken map gives none."""
        return decode_tags(node.meta)

    # -- user events --------------------------------------------------------------------

    def user_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        """Send a user event to the whole cluster; this node gets it too, at once.

        Args:
            coalesce: a receiver may deliver only the latest of several events
                of this name (``serf agent`` does). We deliver every one.

        Raises:
            ConfigError: it takes more than ``event_size_limit`` bytes.
            NotRunningError: no ``Memberlist`` was given this delegate yet.
            TypeError: the name is not text, or the payload not bytes.
        """
        if not isinstance(name, str) or not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"a user event is a text and bytes, not {type(name).__name__} and {type(payload).__name__}")
        with self._changed:
            event = self._running().user_event(name, bytes(payload), coalesce, self._event_size_limit)
            self._pull()
        self._deliver([event])

    def next_event(self, timeout: float | None = None) -> SerfEvent:
        """Wait for the next user event, in order. Not for use together with ``on_event``.

        Raises:
            OperationTimeout: none came in time.
        """
        deadline = Deadline(timeout)
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._waiting), deadline):
                raise OperationTimeout("no user event arrived in time", operation="next_event")
            return self._waiting.popleft()

    # -- leaving --------------------------------------------------------------------------

    def leave(self, memberlist: _Members, timeout: float | None = 10.0) -> None:
        """Gossip the leave intent and say it to members directly, then leave: the others show this node as ``left``.

        ``Memberlist.leave()`` alone sends intent and leave at once; agents that
        see the leave first then report a failure for a moment. Blocks.
        """
        deadline = Deadline(timeout)
        sent: list[bool] = []

        def finished() -> None:  # called by the queue, hence inside the monitor
            sent.append(True)
            self._changed.notify()

        with self._changed:
            intent = self._running().leave()
            if intent is not None and self._size() > 1:
                self._pull(finished)
                self._changed.wait_for(
                    lambda: bool(sent),
                    Deadline(INTENT_SECONDS if timeout is None else min(timeout / 2, INTENT_SECONDS)),
                )
            self._pull()
        if intent is not None:
            self._farewell(memberlist, intent)
        memberlist.leave(timeout=deadline.remaining())

    def _farewell(self, memberlist: _Members, intent: bytes) -> None:
        """Send the intent to members directly, as ``leave_fanout`` does with the leave itself.

        Differs from Serf: there it is gossiped a few times only, and memberlist's
        members that are not Serf's take it without passing it on: if it went to
        none but those, or to a node that was just killed, Serf reports a failure.
        In a large cluster those told are the next by name, so that not all who
        leave tell the same few.
        """
        name = self._running().name
        others = [node for node in memberlist.members() if node.name != name]
        for node in sorted(others, key=lambda node: (node.name < name, node.name))[: self._fanout]:
            try:
                memberlist.send_best_effort(node, intent)
            except (PeerUnreachable, QueueFull):  # gone meanwhile, or more is to be said than goes out: gossip has it
                self._dropped["farewells_unsent"] += 1

    def leaving(self) -> bytes | None:
        """``Memberlist.leave()`` calls this first: the intent goes out with its own messages, gossiped and direct."""
        with self._changed:
            if self._machine is None:
                return None
            intent = self._machine.leave()
            self._pull()
            return intent

    # -- views ----------------------------------------------------------------------------

    def members(self) -> tuple[SerfMember, ...]:
        """Return all members, those that left or failed too, as ``serf members`` does."""
        with self._changed:
            known = () if self._machine is None else self._machine.members()
            nodes = dict(self._nodes)
        return tuple(
            SerfMember(m.name, m.status, decode_tags(nodes[m.name].meta) if m.name in nodes else {}, nodes.get(m.name))
            for m in known
        )

    def metrics(self) -> dict[str, int]:
        """Return counters, clocks and queue lengths."""
        with self._changed:
            if self._machine is None:
                return dict(self._dropped)
            member, event, query = self._machine.clocks
            return {
                **self._machine.counters,
                **self._dropped,
                "clock_member": member,
                "clock_event": event,
                "clock_query": query,
                "queued_intents": len(self._intents),
                "queued_events": len(self._events),
            }

    # -- memberlist's delegates: gossip thread ------------------------------------------------

    def node_meta(self, limit: int) -> bytes:
        self._used = True
        return self._meta

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        with self._changed:
            messages = self._intents.get_broadcasts(overhead, limit)
            used = sum(len(message) + overhead for message in messages)
            return messages + self._events.get_broadcasts(overhead, limit - used)

    def local_state(self, join: bool) -> bytes:
        with self._changed:
            return b"" if self._machine is None else self._machine.local_state()

    # -- memberlist's delegates: delegate thread ------------------------------------------------

    def notify_msg(self, data: bytes) -> None:
        with self._changed:
            self._running().receive_message(data)
            events = self._pull()
        self._deliver(events)

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        try:
            state = decode_state(buf)  # may be large: not under the lock
        except RemoteProtocolError:
            with self._changed:
                self._dropped["bad_states"] += 1
            return
        with self._changed:
            self._running().merge_state(state, join)
            events = self._pull()
        self._deliver(events)

    def notify_join(self, node: Node) -> None:
        with self._changed:
            self._nodes[node.name] = node
            self._running().node_joined(node.name)

    def notify_leave(self, node: Node) -> None:
        with self._changed:
            self._nodes[node.name] = node
            machine = self._running()
            machine.node_left(node.name)
            known = {member.name for member in machine.members()}
            self._nodes = {name: kept for name, kept in self._nodes.items() if name in known}

    def notify_update(self, node: Node) -> None:
        with self._changed:
            self._nodes[node.name] = node

    # -- private ------------------------------------------------------------------------------

    def _running(self) -> SerfMachine:
        if self._machine is None:
            raise NotRunningError("this SerfDelegate does not know its node", hint="use a Config from its config()")
        return self._machine

    def _size(self) -> int:
        return 1 if self._machine is None else self._machine.size

    def _pull(self, finished: Callable[[], None] | None = None) -> list[SerfEvent]:
        """Queue what the machine wants gossiped; return its user events. Under the lock."""
        machine = self._running()
        for outgoing in machine.messages_to_send():
            queue = self._events if outgoing.is_event else self._intents
            if len(outgoing.message) > self._packet:
                self._dropped["too_large_to_gossip"] += 1  # it would stay queued for ever
                if finished is not None:
                    finished()
                continue
            queue.queue_broadcast(outgoing.message, unique=True, finished=finished)
            if len(queue) > MAX_QUEUED:
                self._dropped["queue_full"] += len(queue) - MAX_QUEUED
                queue.prune(MAX_QUEUED)
        events = []
        while (event := machine.next_event()) is not None:
            events.append(event)
        return events

    def _deliver(self, events: list[SerfEvent]) -> None:
        if self._on_event is not None:
            errors: list[BaseException] = []
            for event in events:
                try:
                    self._on_event(event)
                except BaseException as error:  # the other events are still to be delivered
                    errors.append(error)
            if errors:
                raise errors[0]
        elif events:
            with self._changed:
                room = (self._waiting.maxlen or 0) - len(self._waiting)
                self._dropped["events_unread"] += max(0, len(events) - room)
                self._waiting.extend(events)
                self._changed.notify()
