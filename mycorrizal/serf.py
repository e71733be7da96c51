"""``SerfDelegate``: makes a node of a msgpack ``Memberlist`` a member of a Serf cluster.

It is an ordinary delegate. Serf's rules are in ``_serf``; this module owns
them, feeds them what memberlist's delegates bring and gossips what they say::

    serf = SerfDelegate(tags={"role": "worker"}, on_event=print)
    with Memberlist(Config.lan(name="py1"), delegate=serf) as members:
        members.join(["10.0.0.7"])
        serf.user_event("deploy", b"v1.2")
        serf.leave(members)

Serf refuses a node that does not announce its delegate versions, and speaks
msgpack only: both are set where the ``Config`` says nothing else.

Queries are passed on, acknowledged and answered as among agents::

    @serf.on_query("load")
    def load(query):
        return b"0.5"

    serf.query("load", tags={"role": "web"})  # answers by node name

Not there: network coordinates (acknowledgements carry no payload, so
``serf rtt`` knows no distance to this node).

Threads: every method may be called from any thread. One lock guards the
machine; it is held for single short calls only, never while a callback runs.
What memberlist brings is taken in on the gossip thread, callbacks of the user
run on the delegate thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ._runtime.host.keyringfile import KeyringFile
from ._runtime.serf.asking import INTERNAL, PING, Asking, Handler, SerfQuery
from ._runtime.serf.core import News, SerfCore
from ._runtime.serf.desk import Desk
from ._runtime.serf.keys import KeyDesk
from ._runtime.swim.layer import Ground, Layer
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import Handle
from ._serf import Received, SerfStatus, decode_state, decode_tags, encode_tags
from ._swim import events as swim
from ._wire.text import logger
from .config import META_MAX_SIZE, Config, check_function
from .delegates import BaseDelegate, BaseEventDelegate, BasePingDelegate
from .exceptions import (
    ConfigError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    RemoteProtocolError,
)
from .types import Node, as_builtin

if TYPE_CHECKING:
    from .dataplane import Results

__all__ = ["SerfDelegate", "SerfEvent", "SerfMember", "SerfQuery", "SerfStatus"]

log = logger("mycorrizal.serf")

PROTOCOL_MIN, PROTOCOL_MAX, PROTOCOL = 2, 5, 5
"""What Serf announces as its delegate versions."""
_ACCEPTED: dict[str, Any] = {
    "delegate_protocol_min": PROTOCOL_MIN,
    "delegate_protocol_max": PROTOCOL_MAX,
    "delegate_protocol_version": PROTOCOL,
}
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
        since: when it came or, if it is gone, went, in seconds since 1970; None without a ``Memberlist``.
    """

    name: str
    status: SerfStatus
    tags: Mapping[str, str]
    node: Node | None
    since: float | None = None


class _Members(Protocol):
    """What ``leave`` needs of a ``Memberlist``."""

    def members(self) -> Iterable[Node]: ...
    def send_best_effort(self, node: Node, data: bytes, /) -> object: ...
    def leave(self, timeout: float | None = ...) -> object: ...


class SerfDelegate(Handle, Layer, BaseDelegate, BaseEventDelegate, BasePingDelegate):
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
        query_size_limit: most bytes of a query that we send, and of an answer, as encoded.
        resolve_conflicts: ask the others when another node claims our name and,
            as ``serf agent`` does, end this node if most have the other one.
        change_keys: let ``serf keys`` list and change this node's keys, as it
            does everybody's; otherwise it is told that this node does not.
        keyring_file: where the keys are kept, as ``serf agent -keyring-file``
            does. If it is there, its keys count and not those of the settings.

    Raises:
        ConfigError: the tags are not text, ``event_queue_depth`` is not
            positive, or ``keyring_file`` cannot be read.
        MetaTooLarge: the tags take more than 512 bytes.
    """

    wire: ClassVar[Literal["cbor", "msgpack"] | None] = "msgpack"

    def __init__(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        on_event: Callable[[SerfEvent], object] | None = None,
        replay_events: bool = False,
        event_size_limit: int = 512,
        event_queue_depth: int = 1024,
        query_size_limit: int = 1024,
        resolve_conflicts: bool = True,
        change_keys: bool = True,
        keyring_file: str | None = None,
    ) -> None:
        if event_queue_depth < 1:
            raise ConfigError("event_queue_depth", f"{event_queue_depth} is not positive")
        self._meta = encode_tags(tags or {}, META_MAX_SIZE)
        self._on_event = on_event
        self._event_size_limit = event_size_limit
        self._resolve = resolve_conflicts
        self._waiting: deque[SerfEvent] = deque(maxlen=event_queue_depth)
        self._core = SerfCore(replay_events, lambda: self.tags)
        self._changed = self._core.changed
        self._asking = Asking(self._core, query_size_limit)
        file = None if keyring_file is None else KeyringFile(keyring_file)
        self._stored = () if file is None else file.load()
        self._keys = KeyDesk(change_keys, file, query_size_limit)
        self._desk = Desk(self._core, self._asking, self._keys)

    # -- settings ---------------------------------------------------------------------

    def config(self, base: Config | None = None, **overrides: Any) -> Config:
        """Return `base` (``Config.lan()``) changed so that Serf accepts the node: wire, and delegate versions.

        A ``Memberlist`` with this delegate does it by itself, unless versions are set.

        Raises:
            ConfigError: a setting is wrong.
        """
        return self.starting((base or Config.lan()).replace(**{**_ACCEPTED, **overrides}))

    def starting(self, config: Config) -> Config:
        """Learn the node's settings, and return what they are with Serf; a ``Memberlist`` calls it before it starts.

        Raises:
            ConfigError: Serf would refuse a node with these settings.
        """
        versions = (config.delegate_protocol_min, config.delegate_protocol_version, config.delegate_protocol_max)
        if not any(versions):
            config, versions = config.replace(**_ACCEPTED), (PROTOCOL_MIN, PROTOCOL, PROTOCOL_MAX)
        config = config.replace(wire="msgpack")
        hint = "leave it at its default, or build the Config with SerfDelegate.config()"
        # Each node's current version must lie within the range of every other one.
        if not versions[0] <= PROTOCOL <= versions[2] or not PROTOCOL_MIN <= versions[1] <= PROTOCOL_MAX:
            text = "/".join(map(str, versions))
            raise ConfigError("delegate_protocol_version", f"Serf refuses min/current/max {text}", hint=hint)
        if self._stored:
            if config.secret_key and config.secret_key not in self._stored:
                log.warning("%s: keyring_file holds other keys than secret_key; the file counts", config.name)
            config = config.replace(secret_key=self._stored[0], keys=self._stored[1:])
        with self._changed:
            self._core.start(config)
        return config

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
        name = as_builtin(name)
        if not isinstance(name, str) or not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"a user event is a text and bytes, not {type(name).__name__} and {type(payload).__name__}")
        with self._changed:
            event = self._core.machine.user_event(name, bytes(payload), coalesce, self._event_size_limit)
            self._core.pull()
        self._tell([event])

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

    # -- queries ------------------------------------------------------------------------

    def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        nodes: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        relay_factor: int = 0,
    ) -> Results:
        """Ask the cluster, this node included, and return the answers by node name. Blocks.

        It returns as soon as every member that the query is for has answered,
        or when the time is over: a member without a handler says nothing. ``errors``
        names these members, and whether they acknowledged the query.
        ``_serf_ping`` asks for acknowledgements alone.

        Args:
            nodes: only these are asked; all if there are none.
            tags: only nodes whose tags match these expressions, in Go's syntax.
            timeout: seconds; by default Serf's own, which grows with the cluster.
            relay_factor: so many other members pass each answer on too, against loss.

        Raises:
            ConfigError: too large, or an expression is wrong, or the name is one of Serf's own.
            TypeError: the name is not text, or the payload not bytes.
            QueueFull: hundreds of queries are under way.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        if not isinstance(name, str) or not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"a query is a text and bytes, not {type(name).__name__} and {type(payload).__name__}")
        if name.startswith(INTERNAL) and name != PING:
            raise ConfigError("name", f"{name!r:.40} is one of Serf's own", hint=f"choose one without {INTERNAL}")
        if not 0 <= relay_factor <= 255:
            raise ConfigError("relay_factor", f"{relay_factor} is not in 0..255")
        from .dataplane import Results  # not needed by those who ask nothing

        asked = (nodes,) if isinstance(nodes, str) else nodes
        outcome = self._asking.ask(name, bytes(payload), asked, tags, timeout, relay_factor)
        results = Results()
        results.update(dict.fromkeys(outcome.acks, b"") if name == PING else outcome.responses)
        for node in outcome.missing:
            has = "has the query, and did not answer" if node in outcome.acks else "did not acknowledge the query"
            results.errors[node] = OperationTimeout(f"{node} {has} in time", node=node, operation="query")
        return results

    def on_query(self, name: str) -> Callable[[Handler], Handler]:
        """Have the decorated function answer queries of that name; what it returns is the answer, None is none.

        It is called with a ``SerfQuery`` on the delegate thread, one at a time;
        for a query of our own on the thread that called ``query``. The latest
        function for a name counts. An exception is logged and counted.
        """
        if not isinstance(name, str) or name.startswith(INTERNAL):
            raise ConfigError("name", f"{name!r:.40} is no name for a query", hint=f"a text without {INTERNAL}")

        def keep(handler: Handler) -> Handler:
            check_function("handler", handler)
            self._asking.handlers[name] = handler
            return handler

        return keep

    # -- leaving --------------------------------------------------------------------------

    def leave(self, memberlist: _Members, timeout: float | None = 10.0) -> None:
        """Gossip the leave intent and say it to members directly, then leave: the others show this node as ``left``.

        ``Memberlist.leave()`` alone sends intent and leave at once; agents that
        see the leave first then report a failure for a moment. Blocks.
        """
        deadline = Deadline(timeout)
        with self._changed:
            intent = self._core.machine.leave()
            if intent is not None:
                self._say(INTENT_SECONDS if timeout is None else min(timeout / 2, INTENT_SECONDS))
        if intent is not None:
            self._farewell(memberlist, intent)
        memberlist.leave(timeout=deadline.remaining())

    def force_leave(self, name: str, *, prune: bool = False, timeout: float | None = INTENT_SECONDS) -> None:
        """Have all members show `name`, which failed, as ``left``, as ``serf force-leave`` does. Blocks.

        Returns when that was gossiped out. A member that is alive refutes it.
        One that is not known here may be to others.

        Args:
            prune: also forget it, at once or when it is gone.

        Raises:
            ConfigError: it is this node.
            OperationTimeout: not gossiped out in time; it counts all the same.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        if self._core.ground is not None:
            self._core.ground.guard("force_leave")
        with self._changed:
            self._core.machine.force_leave(name, prune, self._core.now())
            if not self._say(timeout):
                text = f"the removal of {name!a:.80} was not gossiped out in time"
                raise OperationTimeout(text, operation="force_leave", indeterminate=True)

    def _say(self, timeout: float | None) -> bool:
        """Gossip what the machine has to say, and wait until it is out; False if it is not in time. Under the lock."""
        sent: list[bool] = []

        def finished() -> None:  # called by the queue, hence inside the monitor
            sent.append(True)
            self._changed.notify()

        self._core.pull(finished)
        return self._core.size() <= 1 or self._changed.wait_for(lambda: bool(sent), Deadline(timeout))

    def _farewell(self, memberlist: _Members, intent: bytes) -> None:
        """Send the intent to members directly, as ``leave_fanout`` does with the leave itself.

        Differs from Serf: there it is gossiped a few times only, and memberlist's
        members that are not Serf's take it without passing it on: if it went to
        none but those, or to a node that was just killed, Serf reports a failure.
        In a large cluster those told are the next by name, so that not all who
        leave tell the same few.
        """
        name = self._core.machine.name
        others = [node for node in memberlist.members() if node.name != name]
        for node in sorted(others, key=lambda node: (node.name < name, node.name))[: self._core.fanout]:
            try:
                memberlist.send_best_effort(node, intent)
            except (PeerUnreachable, QueueFull):  # gone meanwhile, or more is to be said than goes out: gossip has it
                self._core.counters["farewells_unsent"] += 1

    def leaving(self) -> bytes | None:
        """``Memberlist.leave()`` calls this first: the intent goes out with its own messages, gossiped and direct."""
        with self._changed:
            if not self._core.started:
                return None
            intent = self._core.machine.leave()
            self._core.pull()
            return intent

    # -- views ----------------------------------------------------------------------------

    def members(self) -> tuple[SerfMember, ...]:
        """Return all members, those that left or failed within a day too, as ``serf members`` does."""
        core = self._core
        with self._changed:
            known = core.members()
            nodes = dict(core.nodes)
            since = {m.name: core.wall(m.since) for m in known}
        return tuple(
            SerfMember(m.name, m.status, tags, node, since[m.name])
            for m in known
            for node in (nodes.get(m.name),)
            for tags in ({} if node is None else decode_tags(node.meta),)
        )

    def metrics(self) -> dict[str, int]:
        """Return counters, clocks and queue lengths."""
        with self._changed:
            if not self._core.started:
                return dict(self._core.counters)
            member, event, query = self._core.machine.clocks
            return {
                **self._core.machine.counters,
                **self._core.counters,
                "clock_member": member,
                "clock_event": event,
                "clock_query": query,
                **self._core.waiting(),
            }

    # -- memberlist's delegates: gossip thread ------------------------------------------------

    def node_meta(self, limit: int) -> bytes:
        self._core.used = True
        return self._meta

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        with self._changed:
            return self._core.broadcasts(overhead, limit)

    def local_state(self, join: bool) -> bytes:
        with self._changed:
            return self._core.machine.local_state() if self._core.started else b""

    # -- memberlist's delegates: inline, on the gossip thread -----------------------------------

    def attached(self, ground: Ground) -> None:
        """Know the node that it is a delegate of; ``Memberlist`` calls it, and then ``observe``."""
        self._core.ground = ground
        self._keys.attached(ground, self._core.machine.name)

    def observe(self, event: swim.Event, now: float) -> None:
        """Take what memberlist has to tell."""
        match event:
            case swim.UserMessage(data=data):
                self.notify_msg(data)
            case swim.RemoteState(data=data, join=join):
                self.merge_remote_state(data, join)
            case swim.NodeJoined(node=node):
                self.notify_join(node)
            case swim.NodeLeft(node=node):
                self.notify_leave(node)
            case swim.NodeUpdated(node=node):
                self.notify_update(node)
            case swim.NodeConflict(existing=existing, other=other):
                self.notify_conflict(existing, other)

    def notify_msg(self, data: bytes) -> None:
        with self._changed:
            self._core.machine.receive_message(data, self._core.now())
            news = self._core.pull()
            self._changed.notify()
        self._deliver(news)

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        try:
            state = decode_state(buf)  # may be large: not under the lock
        except RemoteProtocolError:
            with self._changed:
                self._core.counters["bad_states"] += 1
            return
        with self._changed:
            self._core.machine.merge_state(state, join, self._core.now())
            news = self._core.pull()
        self._deliver(news)

    def notify_conflict(self, existing: Node, other: Node) -> None:
        """Another node claims a name; if it is ours, find out whose it is."""
        if self._resolve and self._core.started and existing.name == self._core.machine.name:
            self._desk.conflict(existing)

    def notify_join(self, node: Node) -> None:
        with self._changed:
            self._core.nodes[node.name] = node
            self._core.machine.node_joined(node.name, self._core.now())

    def notify_leave(self, node: Node) -> None:
        with self._changed:
            self._core.departed(node)

    def notify_update(self, node: Node) -> None:
        with self._changed:
            self._core.nodes[node.name] = node

    # -- private ------------------------------------------------------------------------------

    def _deliver(self, news: News) -> None:
        """Hand `news` to the user's functions: on the delegate thread, if there is one."""
        ground = self._core.ground
        for asked in news.asked:
            if asked.query.name.startswith(INTERNAL):
                self._desk.take(asked)
            elif ground is not None:
                ground.later("on_query", self._asking.answer, asked, size=len(asked.query.payload))
        if self._on_event is None:
            self._keep(news.events)
        elif ground is None:
            self._tell(news.events)
        else:
            for event in news.events:
                ground.later("on_event", self._on_event, event, size=len(event.payload))

    def _tell(self, events: list[SerfEvent]) -> None:
        """Give events to the user on this thread."""
        if self._on_event is None:
            self._keep(events)
            return
        errors: list[BaseException] = []
        for event in events:
            try:
                self._on_event(event)
            except BaseException as error:  # the other events are still to be delivered
                errors.append(error)
        if errors:
            raise errors[0]

    def _keep(self, events: list[SerfEvent]) -> None:
        if events:
            with self._changed:
                room = (self._waiting.maxlen or 0) - len(self._waiting)
                self._core.counters["events_unread"] += max(0, len(events) - room)
                self._waiting.extend(events)
                self._changed.notify()
