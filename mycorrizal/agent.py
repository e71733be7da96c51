"""``Agent``: a process's whole place in a cluster, for plain, blocking Python.

::

    with mycorrizal.Agent("alice") as agent:           # finds this user's other agents on this host
        agent.wait_for(3)
        agent.send("bob", {"step": 1})                  # bob's inbox has it when this returns
        agent.request("bob", "score", [1, 2, 3])        # what bob's handler returns
        agent.broadcast("epoch", 7)                     # everybody's subscribe("epoch") gets it once
        agent.settings["rate"] = 0.1                    # a dict that all agents share
        agent.services.register("api", port=8080)       # known to all, gone with this process

Membership, the data plane and what is shared between agents are put together
in ``_agent``; this module is the door.

*Threads.* Every method may be called on any thread, also inside handlers and
delegates of the observing kind. Calls that block take ``timeout`` in seconds,
where None waits; Ctrl-C ends them and the agent stays usable.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._agent.assembly import Assembly
from ._agent.exposition import merged, metrics_page
from ._agent.goodbye import leave_on
from ._agent.health import health
from ._agent.joining import join, join_through
from ._agent.keys import Keys
from ._agent.notebook import Former, current_cell, residents, show
from ._agent.talking import Talking
from ._agent.web import METRICS_PORT, serve_metrics
from ._cache.definition import Definition
from ._endings import named
from ._runtime.host import settings_sources
from ._runtime.host.filepaths import FilePath
from ._runtime.swim.layer import Layer
from ._runtime.threads.deadline import Deadline, Seconds
from ._runtime.threads.lifecycle import Handle
from ._runtime.threads.shortage import as_ours
from ._wire.meta import read_meta
from ._wire.text import logger
from ._wire.values import DEFAULT, Codecs, encode_value
from .cache import Cache
from .config import Config, check_own_text
from .dataconfig import DataConfig
from .delegates import Delegate, EventDelegate
from .events import AgentEvent, ChangesLost, UserEvent, UserEventsMissed
from .exceptions import (
    CacheError,
    ConfigError,
    MetaTooLarge,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    QueueFull,
)
from .leadership import LEADERS, Term, lead
from .leases import seconds_of
from .services import Services
from .settings import Settings
from .types import Address, Figures, Health, Member, Members, Node, html_text

if TYPE_CHECKING:
    from typing import Literal

    from ._runtime.data.core import Handler
    from ._runtime.data.streams import StreamHandler
    from ._runtime.threads.subscribers import EventStream

__all__ = ["Agent"]

log = logger("mycorrizal.agent")

_EXIT_LEAVE_SECONDS = 3.0
_CLOSE_SECONDS = 5.0
_OPEN_SECONDS = 10.0
_EVENT_DEPTH = 4096
_SETTLE_MAX = 2.0  # half of it, or of a shorter time to leave, is for what was told and has not arrived
_SHOW_MIN = 0.1
_HAND_OVER_MAX, _HAND_OVER_SHARE = 60.0, 0.6  # of the time to leave, for giving away what the caches hold


class Agent(Handle, Talking):
    """One member of a cluster: listening and joined from construction to ``close``.

    As a context manager it says goodbye (for at most 3 s) and closes at the end of the block. Arguments that are
    not given are looked for in the environment and in a TOML file (docs/agent-settings.md).

    Args:
        name: unique in the cluster; ``<host>-<pid>`` if None.
        cluster: agents of different clusters do not see each other, even with one key.
        join: seeds, ``host``, ``host:port``, ``dns://name`` and what else docs/agent-settings.md lists. At least
            one must answer within `join_timeout`. Without seeds this user's agents on this host are found, if any.
        key: 16, 24 or 32 random bytes, or their base64, that all agents have: gossip is encrypted with it and
            connections prove it. Without it this user's agents on this host share one, and keep to loopback; with
            ``wire="msgpack"`` they share none, and every user of the host gets in.
        certificates: paths of PEM files, ``(certificate, private key, CA)``: connections are proved with them instead
            of with the key, so that names are bound; gossip needs the key all the same.
        bind, port: where to listen; port None takes 7946 if that is free, and any other one if not.
        quic_port: of the data plane (UDP); 0 picks a free one.
        advertise: ``host`` or ``host:port`` that others should dial.
        tags: what this agent says of itself: text to text, about 400 bytes in all.
        wire: ``"msgpack"`` where Go's memberlist, Serf or Consul are members too; a ``SerfDelegate`` says so itself.
        label: Go's label, with ``wire="msgpack"`` only; otherwise the cluster's name is the label.
        config, data_config: further settings of membership and data plane. Name, wire, label and keys of `config`
            are replaced by the agent's.
        delegate: memberlist's delegate of your own; its five methods are yours. A ``SerfDelegate`` joins Serf; its
            tags are replaced by `tags`.
        event_delegate: joins, leaves, updates, on the delegate thread.
        insecure: listen beyond loopback without a key; everybody who reaches the port can then do anything.
        discover: look for this host's agents when there are no seeds.
        seed_port: of seeds that name no port; 7946 if None.
        join_timeout: seconds in which a seed must answer, unless this agent's own address is among them: then it
            starts alone.
        join_retry: seconds to go on asking after that, alone, instead of a ``JoinError``; ``math.inf``: for ever.
        expect: refuse to write or lock in a cache before so many members have been seen at one time: parts of a
            cluster that began apart have their own.
        settings_file: path of a SQLite file that keeps ``settings`` over a restart of the whole cluster.
        control: answer the command line and other programs of this user on this host.
        metrics_port: serve metrics and health there, as ``serve_metrics`` does.
        config_file: path of a TOML file with settings; False reads none, None the usual one.
        codecs: for values of types that CBOR does not have.
        handlers, streams: functions by name, as ``on_request`` and ``on_stream`` register them. The agent has them
            before another one can know of it.

    Raises:
        NameInUse: another live agent of the cluster has the name.
        BindError: the address or port cannot be listened on.
        ResourcesExhausted: no descriptor, thread, memory or room on a disk is left.
        JoinError: no seed could be joined; ``failures`` says why, seed by seed.
        ConfigError: a bad setting, or another address than loopback without a key.
    """

    _parts: Assembly | None = None  # until it has been put together

    def __init__(  # noqa: PLR0913 - each is a setting that people look for here
        self,
        name: str | None = None,
        *,
        cluster: str | None = None,
        join: Iterable[str] | str | None = None,
        key: bytes | str | None = None,
        certificates: Sequence[FilePath] | None = None,
        bind: str | None = None,
        port: int | None = None,
        quic_port: int | None = None,
        advertise: str | None = None,
        tags: Mapping[str, str] | None = None,
        wire: Literal["cbor", "msgpack"] | None = None,
        label: str | None = None,
        config: Config | None = None,
        data_config: DataConfig | None = None,
        delegate: Delegate | None = None,
        event_delegate: EventDelegate | None = None,
        insecure: bool | None = None,
        discover: bool | None = None,
        seed_port: int | None = None,
        join_timeout: float | None = None,
        join_retry: float | None = None,
        expect: int | None = None,
        settings_file: str | None = None,
        control: bool | None = None,
        metrics_port: int | None = None,
        config_file: str | Literal[False] | None = None,
        codecs: Codecs = DEFAULT,
        handlers: Mapping[str, Handler] | None = None,
        streams: Mapping[str, StreamHandler] | None = None,
    ) -> None:
        if wire is None and isinstance(delegate, Layer):
            wire = delegate.wire
        given = {
            "name": name, "cluster": cluster, "join": join, "key": key, "certificates": certificates, "bind": bind,
            "port": port,
            "quic_port": quic_port, "advertise": advertise, "tags": tags, "wire": wire, "label": label,
            "config": config, "data_config": data_config, "insecure": insecure, "discover": discover,
            "seed_port": seed_port, "join_timeout": join_timeout, "join_retry": join_retry, "expect": expect,
            "settings_file": settings_file, "control": control, "metrics_port": metrics_port,
            "config_file": config_file,
        }  # fmt: skip
        with as_ours("the agent cannot start", node=name, operation="Agent"):
            found = settings_sources.load(given)
            self._start(Assembly(found, delegate, event_delegate, codecs, _make_way, handlers or {}, streams or {}))

    def _start(self, parts: Assembly) -> None:
        self._parts = parts
        self.settings = Settings(parts.sharing, parts.watching, parts.codecs, parts.name)
        self.services = Services(parts.sharing, parts.watching, parts.codecs, parts.name)
        ask = partial(parts.ask_all, "mycorrizal.keys")  # not ours: `del` shall end us at once
        self.keys = Keys(parts.rings, ask, parts.data._blocking, parts.name)
        try:
            parts.serve(self)
            if parts.settings.metrics_port is not None:
                serve_metrics(parts, parts.settings.metrics_port)
            join(parts)
            parts.data._started.started()
        except BaseException:
            parts.close(Deadline(1.0))
            raise
        residents.add(self, parts.settings.cluster, parts.name, current_cell())

    # -- who is there -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """This agent's name."""
        return self._running.name

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self._running.settings.cluster

    @property
    def boot(self) -> bytes:
        """The random id of this agent's life; a restart has another one."""
        return self._running.identity.boot

    @property
    def local_node(self) -> Node:
        """Membership's record of this agent."""
        return self._running.members.local_node

    @property
    def address(self) -> Address:
        """Where it gossips: what another agent's ``join=`` may be."""
        return self.local_node.address

    @property
    def quic_port(self) -> int:
        """The UDP port of its data plane."""
        return self._running.data.port

    @property
    def tags(self) -> dict[str, str]:
        """What this agent says of itself; ``update_tags`` changes it."""
        return dict(self._running.identity.tags)

    def members(self, *, all: bool = False) -> Members:  # noqa: A002
        """Return the members, alive and suspect, this agent included, by name. Never blocks.

        Args:
            all: also those that left or failed (``state``, ``since``) within a day, the last 4,096 of them.

        Raises:
            ServiceCrashed: the gossip thread died, so the list would be stale.
        """
        membership = self._running.members._running
        found = [_member(node) for node in membership.view().members]
        if all:
            here = {member.name for member in found}
            found += [_member(node, since) for node, since in membership.gone() if node.name not in here]
            found.sort(key=lambda member: member.name)
        return Members(found)

    @named("join")
    def join(self, seeds: Iterable[str] | str, timeout: float | None = 10.0) -> None:
        """Join through further seeds, as ``join=`` takes them, and return when what their side shares is here. Blocks.

        Raises:
            JoinError: none of them was reached; ``failures`` says why.
            ConfigError: an entry is wrong.
            LocalProtocolError: this agent has left.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts = self._running
        join_through(parts, [seeds] if isinstance(seeds, str) else list(seeds), Deadline(timeout))

    @named("wait_for")
    def wait_for(self, n: int, timeout: float | None = 30.0) -> Members:
        """Wait until there are at least `n` members, this one included, and return them. Blocks.

        Raises:
            OperationTimeout: there were fewer all the time.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts, deadline = self._running, Deadline(timeout)
        with parts.watching.events(_EVENT_DEPTH, "wait_for") as news:
            while len(members := self.members()) < n:
                try:
                    news.get(deadline.remaining())
                except OperationTimeout:
                    text = f"{len(members)} of {n} members after {timeout} s: {', '.join(members.names)}"
                    raise OperationTimeout(
                        text, operation="wait_for", hint="do the others have the same cluster=, key= and seeds?"
                    ) from None
        return members

    def events(self) -> EventStream[AgentEvent]:
        """Return a new iterator of what happens from now on: joins, leaves, failures, stalls, user events.

        It ends when this agent closes. A reader that falls 4,096 events behind loses the oldest and gets one
        ``EventsLost``. ``get(timeout=)`` waits for one event, ``close()`` ends it. Any thread.
        """
        return self._running.watching.events(_EVENT_DEPTH)

    @named("update_tags")
    def update_tags(self, tags: Mapping[str, str], timeout: float | None = 10.0) -> None:
        """Replace this agent's tags, and wait until the others were told. Blocks.

        Raises:
            MetaTooLarge: they take too many bytes; the old ones stay.
            QueueFull: too many calls waited, all the time; the old ones stay.
            ConfigError: they are not text.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts = self._running
        parts.members._blocking("update_tags")
        before = parts.identity.tags
        parts.identity.change(dict(tags))
        try:
            parts.members._update(timeout, "update_tags")
        except (MetaTooLarge, QueueFull):  # together with what a delegate says; or nobody was told
            parts.identity.change(before)
            raise

    # -- events of our own -----------------------------------------------------------------------

    @named("broadcast")
    def broadcast(self, topic: str, value: Any = None, *, timeout: float | None = 10.0) -> int:
        """Tell all agents, this one included; return the number of the event. Blocks for the gossip thread only.

        Each ``subscribe(topic)`` anywhere gets it once, and the events of one sender in the order they were
        broadcast; what is lost on the way is fetched again. Small values ride gossip, larger ones go over QUIC.

        Raises:
            ConfigError: `topic` is no text of 1 to 255 bytes, or reserved.
            ValueEncodeError, ValueTooLarge: `value` cannot be sent, or takes more than 1 MiB.
            QueueFull: too many events waited to be told, all the time.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts = self._running
        topic = check_own_text("topic", topic, "epoch")
        encoded = encode_value(value, parts.codecs).pack()
        publish = parts.sharing.publish
        return parts.sharing.call(lambda now: publish(topic, encoded, now), Deadline(timeout), "broadcast")

    @named("subscribe")
    def subscribe(
        self, topic: str | None = None, *, last: int = 0, depth: int = 1024, timeout: float | None = 10.0
    ) -> EventStream[UserEvent | UserEventsMissed | ChangesLost]:
        """Return a new iterator of the events of `topic`, of all if None. Blocks for the gossip thread.

        Args:
            last: begin with up to so many events from before, as far as the agents remember them (about 1,000).
            depth: events that wait unread; a reader that is slower loses the oldest and gets one ``ChangesLost``.
            timeout: for asking another agent about `last`, if this one is new.

        Raises:
            ConfigError, OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts, deadline = self._running, Deadline(timeout)
        if topic is not None:
            topic = check_own_text("topic", topic, "epoch")
        if depth < 1 or last < 0:
            raise ConfigError("depth", f"depth={depth}, last={last}", hint="depth is at least 1, last at least 0")
        stream = parts.watching.subscribe(topic, depth)
        before = parts.history(topic, last, deadline) if last else []
        parts.sharing.call(
            lambda now: parts.watching.begin(stream, topic, last, before), deadline, "subscribe"
        )
        return stream

    # -- caches ------------------------------------------------------------------------------------------

    @named("cache")
    def cache(  # noqa: PLR0913 - each is a setting that people look for here
        self,
        name: str,
        *,
        ttl: Seconds | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        replicas: int = 2,
        near: bool = False,
        read_backups: bool = False,
        sync_backups: bool = True,
        quorum: int = 0,
        redefine: bool = False,
        timeout: float | None = 10.0,
    ) -> Cache[Any]:
        """Open the cache `name`, and hold a part of it; the same object each time. Blocks.

        The first agent that opens it says what it is like. Where it runs with other settings than are given here,
        those hold, and a warning names both; unless it is to be redefined.

        Args:
            ttl: seconds that an entry lives unless its write says otherwise; None: for ever.
            max_entries, max_bytes: bounds of what *each agent* holds; the entry used least lately goes (SIEVE).
            replicas: copies of each entry. 2 survive any one crash at a time.
            near: whether to keep near copies of what was read from other agents, and send invalidations for them.
            read_backups: whether to read from a copy held as backup, which may be behind by a write under way.
            sync_backups: whether a write waits for its backups; False is faster, and a write that was acknowledged
                is lost if its primary dies within the next milliseconds.
            quorum: agents that must hold the cache for it to be used: keeps the smaller side of a partition out.
            redefine: these settings hold from now on, on every agent (``CacheRedefined`` tells of it). `ttl` is for
                what is written from then on; bounds hold at once; `replicas` are made, or dropped, behind it.

        Raises:
            CacheUnavailable: it is to be redefined, and its quorum is not here; nothing happened.
            CacheConflict: it was redefined elsewhere at the same moment, and that holds; the text names both.
            ConfigError: a setting is wrong.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        lives = None if ttl is None else seconds_of("ttl", ttl)
        definition = Definition(
            name, lives, max_entries, max_bytes, replicas, near, read_backups, sync_backups, quorum
        )
        return self._running.caches.open(definition, timeout, redefine)

    @named("open_cache")
    def open_cache(self, name: str, timeout: float | None = 10.0) -> Cache[Any]:
        """Open the cache `name` with the settings that another agent has opened it with, and hold a part of it. Blocks.

        Raises:
            UnknownCache: no agent in sight has opened it; the text tells which there are.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts = self._running
        parts.data._blocking("open_cache")  # or what nobody announces any more were unknown
        return parts.caches.open_known(name, timeout)

    def caches(self) -> dict[str, Definition]:
        """Return how the caches that agents in sight have open are defined, by name. Never blocks, any thread.

        Of members with different definitions, as while one is redefined, it is this agent's or else any one's.
        """
        return self._running.caches.known()

    @named("lead", "cache", "lock", "get", "set")
    def lead(
        self,
        name: str,
        *,
        every: Seconds | None = None,
        lease: Seconds = 10.0,
        wait: bool = True,
        timeout: Seconds | None = None,
        cache: Cache[Any] | None = None,
    ) -> Term:
        """Return when it is this agent's turn to lead `name`: ``with agent.lead("nightly") as term:``. Blocks.

        A lock that is renewed from a thread of its own while the block runs, and given up at its end. At most one
        agent leads while membership is stable; docs/leadership.md says when that is not enough.

        Args:
            every: also wait until so many seconds have passed since the last run began. A run counts when its block
                ends without an error. That is kept in `cache`, not on a disk: if all agents stop, it is due again.
            lease: seconds after which another one may lead if this one is not heard of.
            wait: or raise ``NotLeader`` at once if it is not this agent's turn.
            timeout: seconds to wait, None for ever; with ``wait=False`` for an answer, 10 if None.
            cache: where the lock is held; None: in one that all agents open for it, of 3 replicas and no quorum.

        Raises:
            NotLeader: it was not this agent's turn in time; ``node`` leads, or the period is over in ``due`` seconds.
            ReentrantCallError: the caller is inside the block that leads this very name.
            LockLost: at the end of the block: it did not lead any more. An error of the block's own goes first.
            OperationTimeout, CacheUnavailable, CacheOutcomeUnknown, ConfigError, NotRunningError, ServiceCrashed,
            ReentrantCallError, ForkedProcessError
        """
        caches, deadline = self._running.caches, Deadline(timeout)
        if cache is None:
            cache = caches.open(caches.known().get(LEADERS.name, LEADERS), deadline.capped(_OPEN_SECONDS))
        return lead(cache, name, lease, every, wait, deadline.remaining())

    # -- how it is -----------------------------------------------------------------------------------

    def health(self) -> Health:
        """Return how this agent is, with a sentence for each thing that is not well. Never blocks."""
        return health(self._running)

    def metrics(self) -> dict[str, int]:
        """Return the counters and gauges of all parts, which docs/metrics.md lists. Never blocks, any thread."""
        return Figures(merged(self._running))

    def metrics_text(self) -> str:
        """Return these, and how long requests, cache operations and gossip took, as text for Prometheus.

        Version 0.0.4 of its text format; docs/metrics.md lists the names. Never blocks, any thread.
        """
        return metrics_page(self._running)[2].decode()

    @named("serve_metrics")
    def serve_metrics(self, port: int = METRICS_PORT) -> Address:
        """Serve ``/metrics`` and ``/healthz`` over HTTP on 127.0.0.1 until this agent closes; return the address.

        ``/healthz`` answers 200, or 503 with the problems of ``health``. Every user of this host can read both; they
        hold names of members and caches, no keys and no values. The argument ``metrics_port`` does the same. Any
        thread.

        Args:
            port: 0 picks a free one.

        Raises:
            BindError: the port cannot be listened on.
            LocalProtocolError: they are served already.
            ResourcesExhausted, NotRunningError, ForkedProcessError
        """
        parts = self._running
        parts.data._started.check_running("serve_metrics")
        return serve_metrics(parts, port)

    # -- the end ----------------------------------------------------------------------------------

    @named("leave")
    def leave(self, timeout: float | None = 10.0) -> None:
        """Say goodbye, and wait until the others were told. Blocks; idempotent. ``close`` must follow.

        What its caches hold is given away first, for 60 % of `timeout` and 36 s at the most.

        Raises:
            OperationTimeout: not told in time; this agent counts as gone all the same.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        parts = self._running
        deadline = Deadline(timeout)
        self.services.close()
        try:
            parts.caches.hand_over(Deadline(deadline.capped(_HAND_OVER_MAX) * _HAND_OVER_SHARE))
        except (CacheError, OperationTimeout, QueueFull) as error:
            log.warning("%s: leaves before all that its caches hold was handed over: %s", parts.name, error)
        try:  # the others close their connections as soon as they hear that it leaves
            parts.sharing.settle(Deadline(deadline.capped(_SETTLE_MAX) / 2))
        except (OperationTimeout, QueueFull) as error:
            log.info("%s: leaves before all it told had arrived: %s", parts.name, error)
        parts.leave(deadline.remaining())

    def leave_on_signal(self, *numbers: int, timeout: float | None = 10.0) -> None:
        """Have SIGTERM, or these signals, say goodbye and close first; then it does what it did before. Main thread.

        Meanwhile the program goes on, and calls of this agent end with ``NotRunningError``. A second one acts at once.

        Raises:
            LocalProtocolError: on another thread. ValueError, OSError: there is no such signal to catch.
        """
        leave_on(self, numbers, timeout)

    def close(self, timeout: float | None = _CLOSE_SECONDS) -> None:
        """Stop without a word to the others, who will find this agent failed; ``leave`` first to say goodbye.

        Idempotent, any thread; in a callback or handler it does not wait for that. Each call in flight ends with a
        clear error. Afterwards calls raise ``NotRunningError``.
        """
        parts = self._parts
        if parts is None or parts.forked:
            return
        self.services.close()
        parts.close(Deadline(timeout))
        residents.remove(self, parts.settings.cluster, parts.name)  # last: who was interrupted can be closed again

    @property
    def closed(self) -> bool:
        """Whether it was closed, or belongs to another process."""
        parts = self._parts
        return parts is None or parts.stopped or parts.forked

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.closed:  # nor is a child of fork that runs out of the parent's block
                self.leave(_EXIT_LEAVE_SECONDS)
        except MycorrizalError as exc:
            log.debug("%s: left without a goodbye: %s", self._running.name, exc)
        finally:
            self.close()

    def __repr__(self) -> str:
        parts = self._parts
        if parts is None:
            return "<Agent (not started)>"
        if self.closed:
            return f"<Agent {parts.name!r} of {parts.settings.cluster!r}, closed>"
        try:
            host, port = self.address
            count = parts.members.num_members()
        except MycorrizalError as error:
            return f"<Agent {parts.name!r} of {parts.settings.cluster!r}: {error}>"
        seen = "1 member" if count == 1 else f"{count} members"
        return f"<Agent {parts.name!r} of {parts.settings.cluster!r} on {host} port {port}, {seen}>"

    def _repr_html_(self) -> str:
        try:
            members = "" if self.closed else self.members(all=True)._repr_html_()
        except MycorrizalError:
            members = ""  # the text says why
        return f"<div>{html_text(repr(self)[1:-1])}{members}</div>"

    def show(self, interval: Seconds = 1.0) -> None:
        """Show this agent in the output of a notebook's cell, and keep what is shown up to date until it is closed.

        The cell ends at once; a thread looks every `interval` seconds and changes the output when something else is to
        be seen. A second call, as when the cell is run again, ends the one before.

        Raises:
            ConfigError: there is no notebook here, or `interval` is less than 0.1 s.
            ResourcesExhausted: there is no thread to be had.
        """
        seconds = seconds_of("interval", interval)
        if seconds < _SHOW_MIN:
            raise ConfigError("interval", f"{seconds:g} s is too often", hint=f"{_SHOW_MIN:g} s is the least")
        parts = self._running
        before, parts.showing = parts.showing, show(self, parts.name, seconds)
        if before is not None:
            before.stop()

    def __del__(self) -> None:
        parts = self._parts
        if parts is not None and not parts.stopped and not parts.forked:
            text = f"unclosed {self!r}; call close(), or use `with`"
            self.services.close()
            parts.stop()
            residents.remove(self, parts.settings.cluster, parts.name)
            residents.dropped(*parts.ending)
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)  # last: it may be made an exception

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _running(self) -> Assembly:
        if self._parts is None:
            raise NotRunningError("this Agent was never started")
        return self._parts


def _member(node: Node, since: float | None = None) -> Member:
    meta = read_meta(node.meta)
    return Member(node.name, node.host, node.port, meta.quic_port, meta.tags, node.state, meta.boot, node, since)


def _make_way(cluster: str, name: str, chosen: bool) -> Former | None:
    """Close the agent of a cell that is run again and return what it had; wait for agents that were dropped."""
    residents.settle(Deadline(_EXIT_LEAVE_SECONDS))
    old = residents.replaced(cluster, name, chosen=chosen)
    if old is not None:
        log.info("%s: replaced by the cell's new run", name)
        former = old._running.former_of()
        old.__exit__(None, None, None)
        return former
    return None
