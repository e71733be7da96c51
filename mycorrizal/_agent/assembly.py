"""Puts an agent together from a name, a data plane, a membership and what they share, and takes it apart."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._replica.outputs import EventReceived, Kept
from .._runtime.cache.caching import CacheHost
from .._runtime.data.carrier import Carrier
from .._runtime.data.core import RESERVED
from .._runtime.host.agentrecord import AgentRecord
from .._runtime.host.rundir import Claim, RuntimeDir, Unclaimed
from .._runtime.local.sharing import share_host
from .._runtime.net.addresses import choose_bind
from .._runtime.quic.trust import identity
from .._runtime.shared.sharing import Sharing
from .._runtime.shared.watching import Watching, merged
from .._runtime.swim.layer import Layer
from .._runtime.swim.seeking import Seeking
from .._runtime.tasks.dispatcher import TaskHost
from .._runtime.threads import clock, platform
from .._runtime.threads.deadline import Deadline
from .._wire.meta import BOOT_TAG, SERF_TAG, AgentMeta, agent_meta, read_meta
from .._wire.security import Keyring
from .._wire.text import logger
from .._wire.values import Codecs
from ..agentconfig import AgentSettings
from ..config import META_MAX_SIZE, Config
from ..dataplane import DataPlane, Results
from ..delegates import Delegate, EventDelegate
from ..discovery import Discovery
from ..events import MemberJoined
from ..exceptions import BindError, ConfigError, MycorrizalError, NameInUse
from ..memberlist import Memberlist
from ..types import Request, is_loopback
from ..worker import processes_of
from .caching import Caches
from .keys import Rings, derivation
from .keytable import KeyTable
from .notebook import Former
from .words import MEMBERLIST, PLANE, in_words

if TYPE_CHECKING:
    from .._runtime.control.server import ControlService
    from .._runtime.data.core import Handler
    from .._runtime.data.streams import StreamHandler
    from .._runtime.shared.settingsfile import SettingsFile
    from .._runtime.threads.counters import Counters
    from .._runtime.threads.repeating import Repeater
    from .._runtime.web.server import WebServer
    from ..agent import Agent
    from ..serf import SerfDelegate
    from .notebook import Ending

__all__ = ["Assembly", "Identity"]

log = logger("mycorrizal.agent")

DEFAULT_PORT = 7946
SUSPICION_SECONDS = 12.0
"""Least suspicion window of an agent in a cluster of two to five: a process may hold its GIL for about 10 s."""
_HISTORY_TRIES, _HISTORY_MAX, _HISTORY_SECONDS = 3, 4096, 3.0
_TELLERS, _TELL_SECONDS, _TELL_DEPTH = 4, 10.0, 1024  # agents that tell the keys to one that comes
_USER_OVERHEAD = 5  # bytes of metadata around those of the user's delegate
_RESOLVER_SECONDS = 0.5  # one may hang, and is left behind
_NAMES_TRIED = 100  # agents without a name in one process


@dataclass(slots=True)
class Identity:
    """What this agent says of itself in its metadata. Tags are replaced as a whole; asked on the gossip thread."""

    boot: bytes
    quic_port: int
    tags: dict[str, str]
    serf: SerfDelegate | None

    def meta(self, limit: int, user: Delegate | None) -> bytes:
        """Return the metadata, with what `user` has to say in them; the machine refuses them if they are too long."""
        if self.serf is not None:
            return b"" if user is None else user.node_meta(limit)  # Serf's tags, ours among them
        ours = AgentMeta(self.quic_port, self.boot, self.tags)
        if user is None:
            return agent_meta(ours, None)
        room = limit - len(agent_meta(ours, None)) - _USER_OVERHEAD
        return agent_meta(replace(ours, user=user.node_meta(max(0, room))), None)

    def change(self, tags: dict[str, str]) -> None:
        """Take `tags` from now on.

        Raises:
            MetaTooLarge, ConfigError: they do not fit, or are no text; the old ones stay.
        """
        for key, value in tags.items():
            for text in (key, value):
                if not isinstance(text, str) or not _is_utf8(text):
                    raise ConfigError("tags", f"{text!a:.80} is no text", hint="tags are a dict of text to text")
        if self.serf is not None:
            self.serf.tags = {**tags, SERF_TAG: str(self.quic_port), BOOT_TAG: self.boot.hex()}
        else:
            agent_meta(AgentMeta(self.quic_port, self.boot, tags), META_MAX_SIZE)
        self.tags = dict(tags)


class Assembly:
    """The parts of one agent, running. Any thread.

    Raises: as ``Agent``. Whatever was begun by then is closed again.
    """

    _former: Former | None = None  # whose place this one takes
    web: WebServer | None = None  # from ``serve_metrics`` on
    web_counters: Counters | None = None

    def __init__(
        self,
        settings: AgentSettings,
        delegate: Delegate | None,
        event_delegate: EventDelegate | None,
        codecs: Codecs,
        make_way: Callable[[str, str, bool], Former | None],
        handlers: Mapping[str, Handler] = MappingProxyType({}),
        streams: Mapping[str, StreamHandler] = MappingProxyType({}),
    ) -> None:
        self.settings = settings
        self.delegate = delegate
        self.event_delegate = event_delegate or _as_serf(delegate)  # Serf's rules need the joins and leaves too
        self.codecs = codecs
        self.stopped = False
        self._make_way = make_way
        self._handlers, self._streams = handlers, streams
        self.claim: Claim | Unclaimed | None = None
        self.discovery: Discovery | None = None
        self.plane: DataPlane | None = None
        self.memberlist: Memberlist | None = None
        self.rings: Rings | None = None
        self.file: SettingsFile | None = None
        self.control: ControlService | None = None
        self.seeking: Seeking | None = None
        self.showing: Repeater | None = None
        try:
            self._build()
        except BaseException:
            self.close(Deadline(1.0))
            raise

    def _build(self) -> None:
        settings = self.settings
        self.rundir = self._rundir()
        self.discovery = Discovery(settings.cluster, settings.join, rundir=self.rundir, port=settings.seed_port)
        self.claim = self._claim()
        self.name = self.claim.name
        serf = _as_serf(self.delegate)
        stored: tuple[bytes, ...] = () if serf is None else serf._stored  # a keyring file, which counts
        if serf is not None and settings.wire != serf.wire:
            raise ConfigError("wire", f"Serf does not understand {settings.wire!r}", hint="leave wire= out")
        bind, key = self._trust(stored[0] if stored else None)
        ring = Keyring(stored[1:], key, allow_weak=settings.wire == "msgpack") if key is not None else None
        made = partial(
            DataPlane, self.name, bind=bind, key=None if settings.certificates else ring, cluster=settings.cluster,
            certificates=settings.certificates, insecure=settings.insecure, config=settings.data_config,
            codecs=self.codecs,
        )  # fmt: skip
        with in_words(PLANE):
            self.plane = self._on_its_port(made)
        self._register(self.plane)
        core = self.plane._started
        self.tasks = TaskHost(core, lambda: self.members._running.view().members)
        self.place = share_host(core, self.rundir, self.claim)
        self.identity = Identity(core.boot, self.plane.port, {}, serf)
        tags = {} if serf is None else {key: serf.tags[key] for key in serf.tags if key not in (SERF_TAG, BOOT_TAG)}
        self.identity.change({**tags, **settings.tags})
        config = self._config(bind, key)
        self.sharing = Sharing(
            self.name, core.boot, self.identity.meta, gossip=settings.wire == "cbor",
            retransmit_mult=config.retransmit_mult,
        )  # fmt: skip
        entries: list[Kept] = []
        if settings.settings_file is not None:
            from .._runtime.shared.settingsfile import SettingsFile  # late: SQLite

            self.file = SettingsFile(settings.settings_file, self.name, self.sharing.kept)
            entries = self.file.load()
            self.sharing.on_setting = self.file.changed  # before anybody can send us a setting
        with in_words(MEMBERLIST):
            self.memberlist = self._listen(config)
        self.watching = Watching(self.memberlist._running, self.sharing, self.codecs)
        self.sharing.on_event, self.sharing.on_end = self.watching.publish, self.watching.end
        if self.file is not None:
            self.sharing.call(lambda now: self.sharing.replica.restore(entries, now), Deadline(None), "settings_file")
            self.file.start()
        self.plane.follow(self.memberlist)
        core.process_ended = self.memberlist._running.process_ended
        self.sharing.carry(Carrier(core, "share", self.sharing.serve))
        self.caches = Caches(CacheHost(core, settings.expect, self.members.num_members), self.sharing, self.codecs)
        if ring is not None:
            derive = derivation(settings.wire, settings.cluster)
            keep = None
            if settings.key is None and not stored and self.rundir is not None:
                keep = partial(self.rundir.keep_key, settings.cluster)
            self.rings = Rings(
                ring, self.memberlist.keyring, derive, keep, name=self.name,
                now=lambda: clock.now() + clock.wall_offset(), on_change=self._tell_keys,
            )  # fmt: skip
            if serf is not None:
                serf._keys.manage(self.rings)

    def _on_its_port(self, made: Callable[..., DataPlane]) -> DataPlane:
        """Return the data plane, where a cell is run again on the port of the one before if that is free."""
        if self._former is not None and not self.settings.quic_port:
            try:
                return made(port=self._former.quic_port)
            except BindError:
                pass
        return made(port=self.settings.quic_port)

    def former_of(self) -> Former:
        """Return what another agent needs to take this one's place."""
        core = self.data._started
        names = tuple(name for name in (*core.handlers, *core.remotes) if not name.startswith(RESERVED))
        return Former(self.members.local_node.port, self.data.port, names, tuple(core.streams.handlers))

    def _register(self, plane: DataPlane) -> None:
        """Have the handlers that were given, before membership tells anybody where the plane listens."""
        for name, handler in self._handlers.items():
            plane.on_request(name, processes=processes_of(handler))(handler)
        for name, served in self._streams.items():
            plane.on_stream(name)(served)
        former = self._former
        if former is not None:
            for name in {*former.handlers} - {*self._handlers}:
                plane.on_request(name)(partial(_not_run_again, f"@agent.on_request({name!r})"))
            for name in {*former.streams} - {*self._streams}:
                plane.on_stream(name)(partial(_not_run_again, f"@agent.on_stream({name!r})"))

    def _rundir(self) -> RuntimeDir | None:
        """Return this user's directory on this host; None if there is none, and the agent can do without.

        Raises:
            ConfigError: it cannot.
        """
        settings = self.settings
        shares_key = settings.key is None and not settings.insecure and settings.wire != "msgpack"
        seeks = (settings.discover and not settings.join) or any(seed.startswith("local:") for seed in settings.join)
        try:
            return RuntimeDir()
        except ConfigError as exc:
            if shares_key or seeks or settings.control:
                raise
            log.info("an agent starts without a runtime directory, and nobody finds it there: %s", exc)
            return None

    def _claim(self) -> Claim | Unclaimed:
        settings, name = self.settings, self.settings.name
        if self.rundir is None:
            return Unclaimed(settings.cluster, name or identity.default_name())
        if name is not None:
            self._former = self._make_way(settings.cluster, name, True)
            return self.rundir.claim(settings.cluster, name)
        base = identity.default_name()
        for number in range(1, _NAMES_TRIED + 1):
            name = base if number == 1 else f"{base}-{number}"
            self._former = self._make_way(settings.cluster, name, False)
            try:
                return self.rundir.claim(settings.cluster, name)
            except NameInUse:
                if number == _NAMES_TRIED:
                    raise
        raise AssertionError("unreachable")

    def _trust(self, stored: bytes | None = None) -> tuple[str, bytes | None]:
        """Return where to listen, and the key: without one this host's agents share one, and keep to it.

        Go nodes could not share it: beside them loopback is open to every user of the host, and so it is by request.
        """
        settings = self.settings
        key = stored or settings.key
        bind = settings.bind or (settings.config.bind_addr if settings.config is not None else None)
        if bind is None:
            told = settings.advertised[0] if settings.advertised is not None else None
            bind = "127.0.0.1" if key is None and not settings.insecure else choose_bind(told)
        if key is not None:
            return bind, key
        local = is_loopback(bind)
        if not local and not settings.insecure:
            raise ConfigError(
                "key", f"none is given, and {bind} is not loopback",
                hint="make one with `mycorrizal keygen` and give it to every agent; or insecure=True",
            )  # fmt: skip
        if not settings.insecure and settings.wire != "msgpack":
            assert self.rundir is not None
            return bind, self.rundir.shared_key(settings.cluster)
        if local:
            log.warning(
                "%s: listening on %s without a key: every user of this host can join, read and forge; give key=, with"
                " wire='msgpack' the key of the Go cluster; docs/mixed-clusters.md has other ways", self.name, bind,
            )  # fmt: skip
        return bind, None

    def _config(self, bind: str, key: bytes | None) -> Config:
        settings = self.settings
        base = settings.config
        if base is None:
            make = Config.local if is_loopback(bind) else Config.lan
            base = make(**{"suspicion_min_timeout": SUSPICION_SECONDS, **settings.config_fields})
        label = settings.cluster
        if settings.wire == "msgpack":
            label = base.label if settings.label is None else settings.label
        elif settings.label:
            raise ConfigError("label", "is the cluster's name with wire='cbor'", hint="give cluster= instead")
        gossip = derivation(settings.wire, settings.cluster)(key) if key is not None else None
        changes: dict[str, Any] = {"wire": settings.wire, "label": label, "secret_key": gossip}
        if settings.advertised is not None:
            changes |= dict(zip(("advertise_addr", "advertise_port"), settings.advertised, strict=True))
        config = base.replace(name=self.name, bind_addr=bind, **changes)
        serf = _as_serf(self.delegate)
        return config if serf is None else serf.config(config)

    def _listen(self, config: Config) -> Memberlist:
        """Take the port that was asked for, or memberlist's if it is free, or any."""
        settings = self.settings
        ports = [DEFAULT_PORT, 0] if settings.port is None else [settings.port]
        if settings.port is None and settings.config is not None:
            ports = [settings.config.bind_port, 0] if settings.config.bind_port == DEFAULT_PORT else [config.bind_port]
        usual = [ports[0]]
        if self._former is not None and settings.port is None:
            usual.append(self._former.port)
            ports = [self._former.port, *(port for port in ports if port != self._former.port)]
        for port in ports:
            try:
                found = Memberlist(
                    replace(config, bind_port=port), delegate=self.delegate, events=self.event_delegate,
                    _companion=self.sharing,
                )  # fmt: skip
            except BindError:
                if port == ports[-1]:
                    raise
                continue
            if port not in usual and not is_loopback(config.bind_addr):
                log.warning(
                    "%s: port %d is taken, listening on %d: others need that in join=, and firewalls have to let it"
                    " through; port= chooses one", self.name, usual[0], found.local_node.port,
                )  # fmt: skip
            return found
        raise AssertionError("unreachable")

    def serve(self, agent: Agent) -> None:
        """Answer what other agents, and this host's programs, ask."""
        handlers = self.data._started.handlers
        handlers["mycorrizal.history"] = self._tell_history
        handlers["mycorrizal.keys"] = self._change_keys
        node = self.members.local_node
        assert self.claim is not None
        commands = events = None
        if self.settings.control and not platform.UNIX_SOCKETS:
            log.warning("%s: no command reaches it: this system has no Unix sockets", self.name)
        elif self.settings.control:
            from .._runtime.control.server import ControlService  # late: who answers nobody does without

            assert isinstance(self.claim, Claim)
            commands, events = (f"ipc://{self.claim.socket_path(kind)}" for kind in ("control", "events"))
            # A proxy: an agent that its owner has dropped is closed, whatever the control plane has of it.
            self.control = ControlService(weakref.proxy(agent), commands=commands, events=events)
        record = AgentRecord(
            self.name, self.settings.cluster, identity.process(), node.host, node.port, self.data.port, commands,
            events, self.identity.boot.hex(), clock.now() + clock.wall_offset(), self.place,
        )  # fmt: skip
        self.members._running.gossip.roaming.on_moved = lambda node: self._publish(replace(record, host=node.host))
        self._publish(replace(record, host=self.members.local_node.host))  # it may have moved just now

    def _publish(self, record: AgentRecord) -> None:
        """Show where this agent is to the other programs of the host, and where its seeds say it."""
        assert self.claim is not None
        self.claim.publish(record)
        self.seeds.advertise(record)
        for seed, failure in self.seeds.failures.items():
            log.warning("%s: %s does not tell of this agent: %s", self.name, seed, failure)

    # -- any thread -------------------------------------------------------------------------------

    @property
    def data(self) -> DataPlane:
        """The data plane."""
        assert self.plane is not None
        return self.plane

    @property
    def seeds(self) -> Discovery:
        """Where to look for others."""
        assert self.discovery is not None
        return self.discovery

    @property
    def members(self) -> Memberlist:
        """The membership."""
        assert self.memberlist is not None
        return self.memberlist

    @property
    def forked(self) -> bool:
        """Whether this process inherited the agent through ``fork``."""
        return self.members._running.forked

    def others(self) -> list[str]:
        """Return the names of the other agents that are members."""
        found = [(node.name, read_meta(node.meta).boot) for node in self.members.members()]
        return [name for name, boot in found if boot is not None and name != self.name]

    def ask_all(self, name: str, value: Any, timeout: float | None) -> Results:
        """Ask all other agents what this one has done already; it is in the results too. Blocks."""
        results = self.data.request_all(self.others(), name, value, timeout=timeout)
        results[self.name] = True
        return results

    def history(self, topic: str | None, last: int, deadline: Deadline) -> list[EventReceived]:
        """Return up to `last` events from before, asked of another agent if this one remembers fewer. Blocks.

        Raises:
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        replica = self.sharing.replica
        known = self.sharing.call(lambda now: replica.history(topic, last), deadline, "subscribe")
        others = self.others() if len(known) < last else []
        for name in others[:_HISTORY_TRIES]:
            try:
                left = deadline.capped(_HISTORY_SECONDS)
                found = self.data.request(name, "mycorrizal.history", [topic, last], timeout=left)
                return merged([EventReceived(*event) for event in found], known, last)
            except (MycorrizalError, TypeError) as error:
                log.info("%s: no events of before from %s: %s", self.name, name, error)
        return known

    def _tell_history(self, request: Request) -> list[list[Any]]:
        match request.value:
            case [str() | None as topic, int(last)] if 0 < last <= _HISTORY_MAX:
                replica = self.sharing.replica
                found = self.sharing.call(
                    lambda now: replica.history(topic, last), Deadline(_HISTORY_SECONDS), "history"
                )
                return [[event.topic, event.value, event.sender, event.number] for event in found]
        raise ConfigError("history", "is asked for by topic and number")

    def _change_keys(self, request: Request) -> list[Any]:
        if self.rings is None:
            raise ConfigError("keys", "this cluster has no keys")
        self.rings.take(KeyTable.unpack(request.value))
        log.info("%s: %s tells of keys", self.name, request.sender)
        return self.rings.table.pack()

    def _tell_keys(self) -> None:
        """From the first change on: exchange the keys with each member that joins or comes back."""

        def joined(event: object) -> None:
            rings = self.rings
            if not isinstance(event, MemberJoined) or rings is None or self.stopped:
                return
            new = event.node.name
            others = [*(name for name in self.others() if name != new), self.name]
            if self.name not in sorted(others, key=lambda name: sha256(f"{new}/{name}".encode()).digest())[:_TELLERS]:
                return
            try:
                reply = self.data.request(new, "mycorrizal.keys", rings.table.pack(), timeout=_TELL_SECONDS)
                rings.take(KeyTable.unpack(reply))
            except MycorrizalError as error:
                log.warning("%s: %s was not told of the keys: %s", self.name, new, error)

        self.watching.call(joined, self.watching.events(_TELL_DEPTH))

    @property
    def ending(self) -> list[Ending]:
        """What goes on for a moment after ``stop``, of an agent that had begun."""
        more: list[Ending] = [part for part in (self.control, self.file, self.web) if part is not None]
        return [*more, self.data._started, self.members._running]

    def leave(self, timeout: float | None) -> None:
        """Say goodbye; to Serf first by its own message, or it would report a failure. Blocks. See ``Agent.leave``."""
        serf = _as_serf(self.delegate)
        if serf is not None:
            serf.leave(self.members, timeout)
        else:
            self.members.leave(timeout)

    def stop(self) -> None:
        """Begin to stop everything; does not wait."""
        self.stopped = True
        if self.web is not None:
            self.web.stop()
        if self.control is not None:
            self.control.stop()
        if self.seeking is not None:
            self.seeking.stop()
        if self.plane is not None:
            self.plane._started.stop()
        if self.memberlist is not None:
            self.memberlist._running.stop()
        if self.file is not None:
            self.file.stop()
        if self.claim is not None:
            self.claim.release()

    def close(self, deadline: Deadline) -> None:
        """End all parts, the data plane first: its calls end with clear errors while membership still answers."""
        self.stopped = True
        if self.web is not None:
            self.web.close(deadline.remaining())
        if self.control is not None:
            self.control.close(deadline.remaining())
        if self.seeking is not None:
            self.seeking.close(Deadline(deadline.capped(_RESOLVER_SECONDS)))
        if self.plane is not None:
            self.plane.close(deadline.remaining())
        if self.file is not None:
            self.file.close(deadline)
        if self.memberlist is not None:
            self.sharing.on_end()
            self.memberlist.shutdown(deadline.remaining())
        if self.discovery is not None:
            self.discovery.close(deadline.remaining())
            for seed, failure in self.discovery.failures.items():
                log.warning("%s: %s may still tell of this agent: %s", self.name, seed, failure)
        if self.claim is not None:
            self.claim.release()


def _not_run_again(call: str, asked: object) -> None:
    """Stand where a handler was before a notebook's cell was run again; `call` had registered it."""
    raise LookupError(f"the cell of this agent was run again, and the one with {call!a} was not: run that cell too")


def _as_serf(delegate: Delegate | None) -> SerfDelegate | None:
    if not isinstance(delegate, Layer):  # asked first: it costs nothing, and no Serf is imported for it
        return None
    from ..serf import SerfDelegate

    return delegate if isinstance(delegate, SerfDelegate) else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False  # lone surrogates
    return True
