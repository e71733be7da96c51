"""``Replica``: settings, services and events of a cluster, as one node sees them. Pure, like ``Swim`` beside it.

Feed it what arrives and the time; after every input pull what it wants sent
and said, until there is nothing::

    replica.receive(data, now)
    for push in replica.pushes_to_send(): ...        # one message each, best effort, over QUIC
    messages, members = replica.direct_to_send(now)  # beside gossip, to each of these, best effort
    for fetch in replica.fetches_to_start(): ...     # a question; report with fetched() or fetch_failed()
    while (event := replica.next_event()) is not None: ...
    wake_me_at = replica.get_timer()

What is to be gossiped is asked for with ``get_broadcasts``, whole states with
``local_state``. The owner tells who is a member (``member_up``,
``member_down``), with the boot id its metadata announce, and calls ``joined``
when its join is done or there was nobody to join.

One thread owns a replica; others may only read ``settings`` and ``services``
with ``get`` or ``copy``. Nothing that a peer sends raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from ..exceptions import LocalProtocolError, MycorrizalError, QueueFull, RemoteProtocolError, ValueTooLarge
from . import messages
from .batches import Batches
from .clock import HybridClock, Stamp
from .events import Events
from .fetches import Fetches
from .freshness import MARGIN, Via, outlived
from .limits import BOOT_BYTES, Limits
from .lww import Entry, LwwMap
from .messages import Batch, Event, Highest, LastBatch, Message, Sender, Service, State, Want
from .outputs import (
    DeletionChanged,
    EventReceived,
    Fetch,
    Kept,
    MessageRejected,
    Output,
    Push,
    Setting,
    SettingChanged,
    SyncDone,
)
from .repair import Repairs
from .schedule import SyncSchedule
from .services import Services
from .spread import BroadcastQueue, Spread

__all__ = ["Replica"]

_ANNOUNCE = (1.0, 3.0, 9.0)  # seconds after the last event of ours, when its number is told again
_SWEEP = 10.0
_FRESH = 60.0  # services of a node that is gone for longer are not gossiped


class Replica:
    """One node's share of the replicated state.

    Args:
        name, boot: this node's name, and the random 8 bytes of this life of it.
        rng: all randomness.
        queue: what is to be gossiped waits here; nobody else uses it.
        wall: the wall clock in seconds since 1970, minus `now`.
        gossip: whether messages ride gossip and states memberlist's push/pull. If not, because of Go peers,
            everything goes as pushes and fetches, and whole states are compared every ``sync_interval``.
        limits: bounds.
        now: the time.

    Attributes:
        settings, services: views, changed in place by the owner's thread only.
    """

    def __init__(
        self,
        name: str,
        boot: bytes,
        *,
        rng: Random,
        queue: BroadcastQueue,
        wall: float,
        now: float,
        gossip: bool = True,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        if len(boot) != BOOT_BYTES:
            raise LocalProtocolError(f"a boot id has {BOOT_BYTES} bytes, not {len(boot)}")
        messages.check_text(name, "name")
        self.name = name
        self.boot = boot
        self.gossip = gossip
        self._own = Sender(name, boot)
        self._limits = limits
        self._rng = rng
        self._members: dict[str, bytes | None] = {}
        self._others: list[str] | None = None  # members that have a share in this, as soon as somebody asks
        self._outputs: deque[Output] = deque()
        self._counters: dict[str, int] = {}
        self._clock = HybridClock(name, boot, wall)
        self._table: LwwMap[str] = LwwMap(limits.settings, limits.setting_bytes, limits.tombstones)
        self._services = Services(limits, self._is_up, self.note, self._outputs.append)
        self._events = Events(self._own, limits, self._is_up, self.note, self._outputs.append)
        self._fetches = Fetches(limits.fetches, limits.fetch_seconds, limits.state_seconds)
        self._repairs = Repairs(
            self._events, self._fetches, limits, rng,
            is_up=self._is_up, peers=self._peers, count=self.note, rejected=self.reject,
        )  # fmt: skip
        self._batches = Batches(
            self._own, limits, rng, is_up=self._is_up, peers=self._peers, full=lambda: self._fetches.full,
            ask=self._compare, count=self.note,
        )  # fmt: skip
        self._spread = Spread(queue if gossip else None, limits, self._peers, self.note)
        self._announce: list[tuple[float, int]] = []  # when, and which round
        self._sweep_at = now + _SWEEP
        self._schedule = SyncSchedule(limits.sync_interval, rng, now, on=not gossip)
        self._items_max = int(
            limits.slack * (limits.settings + limits.services) + limits.tombstones + limits.service_tombstones
        )
        self.settings: dict[str, Setting] = {}
        self.services = self._services.view

    # -- calls --------------------------------------------------------------------------

    def set_wall(self, offset: float) -> None:
        """Take note of the wall clock: seconds since 1970 minus ``now``. Stamps never go back with it."""
        self._clock.offset = offset

    def set_setting(self, key: str, value: bytes | None, now: float) -> None:
        """Write a setting, or delete it with None.

        Raises:
            ConfigError: the key is empty, or not UTF-8.
            ValueTooLarge: key or value.
            QueueFull: there are too many settings, or too many messages are waiting.
        """
        messages.check_text(key, "key")
        if value is not None and len(value) > self._limits.value:
            raise ValueTooLarge(f"a setting of {len(value)} bytes; the limit is {self._limits.value}")
        message = messages.Setting(key, value, self._clock.tick(now))
        raw = message.encode()
        if value is not None and not self._table.has_room(key, len(raw)):
            text = f"no room for another setting beside {self._table.live}"
            raise QueueFull(text, hint="delete some", retriable=False)
        self._spread.check(len(raw), now)
        self._put_setting(message, raw, now)
        self._spread.out(raw, f"s/{key}", now)

    def register(self, service_id: str, record: bytes, now: float) -> None:
        """Say that this node offers a service, or change what is said of it.

        Raises:
            ConfigError: the id is empty, or not UTF-8.
            ValueTooLarge: id or record.
            QueueFull: there are too many services, or too many messages are waiting.
        """
        messages.check_text(service_id, "service")
        if len(record) > self._limits.record:
            raise ValueTooLarge(f"a service's record of {len(record)} bytes; the limit is {self._limits.record}")
        self._write_service(service_id, record, now)

    def deregister(self, service_id: str, now: float) -> None:
        """Take a service back; nothing happens if there is none.

        Raises:
            QueueFull: too many messages are waiting.
        """
        if (self.name, service_id) in self.services:
            self._write_service(service_id, None, now)

    def publish(self, topic: str, value: bytes, now: float) -> int:
        """Tell an event to all, ourselves first; return its number.

        Raises:
            ConfigError: the topic is empty, or not UTF-8.
            ValueTooLarge: topic or value.
            QueueFull: too many messages are waiting.
        """
        messages.check_text(topic, "topic")
        if len(value) > self._limits.event:
            raise ValueTooLarge(f"an event of {len(value)} bytes; the limit is {self._limits.event}")
        self._spread.check(len(value) + len(topic) + len(self.name) + 32)
        one = self._events.publish(topic, value)
        number = one.event.number
        self._spread.out(one.raw, f"e/{self.name}/{self.boot.hex()}/{number}")
        self._announce = [(now + seconds, place) for place, seconds in enumerate(_ANNOUNCE, 1)]
        return number

    def sync(self, member: str, now: float) -> int:
        """Exchange whole states with a member; ends with ``SyncDone`` of the returned id.

        Raises:
            QueueFull: too many fetches are under way.
        """
        if self._fetches.full:
            raise QueueFull(f"{len(self._fetches)} fetches are under way", operation="sync", hint="try again")
        return self._compare(member, now, lambda then: None)

    def _compare(self, member: str, now: float, ended: Callable[[float], None]) -> int:
        sync_id = 0

        def end(data: bytes | None, then: float) -> None:
            error = "no answer" if data is None else self._merge(data, then, Via.ASKED)
            self.note("syncs_failed" if error else "syncs_done")
            self._schedule.ended(bool(error), then)
            self._outputs.append(SyncDone(sync_id, error))
            ended(then)

        sync_id = self._fetches.start(member, self.local_state(False), now, end, whole=True)
        return sync_id

    def joined(self, now: float) -> None:
        """Our join is done, or there was nobody to join: from here on events of others are handed on."""
        self._events.joined(now)
        self._batches.ready = True

    def restore(self, entries: Iterable[tuple[bytes, float]], now: float) -> None:
        """Take settings out of a file, as ``kept`` gave them; nothing is said of it. Before joining."""
        for raw, age in entries:
            try:
                message = messages.decode(raw)
                if not isinstance(message, messages.Setting):
                    raise RemoteProtocolError("something else than a setting was stored")
            except RemoteProtocolError as error:
                self.reject(error)
                continue
            self._take_setting(message, raw, max(age, 0.0), now, Via.ASKED, news=False)

    def settings_entries(self) -> list[Kept]:
        """Return settings and tombstones for a file. The owner adds to `age` how long the file lay about."""
        return [Kept(entry.raw, self._age(entry)) for _, entry in self._table.items()]

    def kept(self, keys: Iterable[str]) -> dict[str, Kept]:
        """Return what a file should hold of `keys`; of what is forgotten there is nothing."""
        found = {key: entry for key in keys if (entry := self._table.get(key)) is not None}
        return {key: Kept(entry.raw, self._age(entry)) for key, entry in found.items()}

    def service_message(self, service_id: str) -> bytes:
        """Return what ``receive`` takes of a service that we registered."""
        entry = self._services.table.get((self.name, self.boot, service_id))
        if entry is None:
            raise LocalProtocolError(f"the service {service_id!r} is not registered")
        return entry.raw

    # -- inputs -------------------------------------------------------------------------

    def member_up(self, name: str, boot: bytes | None, now: float) -> None:
        """A node is a member, with another boot id perhaps. None: it has no share in this (Go, Serf)."""
        if name == self.name:
            return
        old = self._members.get(name)
        if old is not None and old != boot:
            self.member_down(name, now)
        self._members[name] = boot
        self._others = None
        if boot is not None and old != boot:
            self._services.member_up(Sender(name, boot))
            self._repairs.member_up(Sender(name, boot), now)
            self._schedule.hasten(now, name)  # it may have heard something, or we

    def member_down(self, name: str, now: float) -> None:
        """A node is no member any more: it left, failed, or was taken for failed."""
        boot = self._members.pop(name, None)
        self._others = None
        if boot is not None:
            self._services.member_down(Sender(name, boot), now)
            self._batches.member_down(Sender(name, boot))

    def receive(self, data: bytes, now: float, *, pushed: bool = False) -> None:
        """Take one message, out of gossip or a push; what was `pushed` to everybody is not passed on."""
        self.note("messages")
        if self._knows(data):
            return
        self._spread.muted = pushed
        try:
            message = messages.decode(data)
            if isinstance(message, Batch):
                self._take_batch(message, now)
            else:
                self._handle(message, data, 0.0, now, Via.ASKED if pushed else Via.GOSSIP)
        except RemoteProtocolError as error:
            self.reject(error)
        finally:
            self._spread.muted = False

    def local_state(self, join: bool) -> bytes:
        """Return our state for a push/pull."""
        services = self._services
        content = [(entry.raw, self._age(entry)) for _, entry in self._table.items()]
        content += [(entry.raw, services.age(entry, self._sweep_at)) for _, entry in services.table.items()]
        return messages.pack(self._header(), content)

    def merge_state(self, data: bytes, join: bool, now: float, *, answer: bool = False) -> None:
        """Take a peer's state out of a push/pull; `answer`: we dialled, and it is what the peer said."""
        self._merge(data, now, Via.ASKED if answer else Via.OFFERED)

    def fetched(self, fetch_id: int, data: bytes, now: float) -> None:
        """The answer to a fetch."""
        self._fetches.ended(fetch_id, data, now)

    def fetch_failed(self, fetch_id: int, now: float) -> None:
        """A fetch found nobody, or no answer."""
        self._fetches.ended(fetch_id, None, now)

    def answer_fetch(self, data: bytes, now: float) -> bytes:
        """Return the answer to somebody's fetch; empty if it was none."""
        self.note("fetches_answered")
        try:
            header, _ = messages.decode_header(data)
            if isinstance(header, Want):
                return self._events.have(header)
            if not isinstance(header, State):
                raise RemoteProtocolError("a fetch that asks nothing")
        except RemoteProtocolError as error:
            self.reject(error)
            return b""
        same = header.digest == self._digest()
        answer = messages.pack(self._header(), ()) if same else b""
        answer = answer or self.local_state(False)
        self._merge(data, now, Via.ASKED)
        return answer

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        self._fetches.expire(now)
        self._repairs.run(now)
        while self._announce and self._announce[0][0] <= now:
            self._tell_highest(self._announce.pop(0)[1])
        self._batches.run(now)
        while (told := self._batches.to_announce(now)) is not None:
            self._spread.ride(LastBatch(self._own, *told).encode(), f"b/{self.name}/{self.boot.hex()}")
        if self._sweep_at <= now:
            self._sweep_at = now + _SWEEP
            for key in self._table.expired(now - self._limits.tombstone_seconds):
                self._table.drop(key)
                self._outputs.append(DeletionChanged(key))
            self._services.expire(now)
        if self._schedule.at is not None and self._schedule.at <= now:
            self._schedule.done(now)
            peers = self._peers()
            if peers and not self._fetches.full:
                self.sync(self._schedule.peer(peers), now)

    # -- outputs ------------------------------------------------------------------------

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Take messages for one packet of gossip; each costs its length plus `overhead`, together at most `limit`."""
        return self._spread.get_broadcasts(overhead, limit)

    def pushes_to_send(self) -> list[Push]:
        """Take what is to be pushed."""
        taken, self._spread.pushes, self._spread.push_bytes = self._spread.pushes, [], 0
        return taken

    @property
    def push_bytes(self) -> int:
        """Bytes that ``pushes_to_send`` has; 0 if there is none."""
        return self._spread.push_bytes

    def direct_to_send(self, now: float) -> tuple[list[bytes], list[str]]:
        """Take messages of our own, and whom to tell them at once: gossip may leave some out, or has no room."""
        taken, self._spread.direct = self._spread.direct, []
        batch, self._spread.batch = self._spread.batch, []
        taken += self._batches.packed(batch, now)
        return taken, self._peers() if taken else []

    @property
    def direct_waiting(self) -> bool:
        """Whether ``direct_to_send`` has something."""
        return bool(self._spread.direct or self._spread.batch)

    @property
    def batch_waiting(self) -> bool:
        """Whether more is told than gossip carries."""
        return bool(self._spread.batch)

    def fetches_to_start(self) -> list[Fetch]:
        """Take the questions to ask."""
        taken, self._fetches.waiting = self._fetches.waiting, []
        return taken

    def next_event(self) -> Output | None:
        """Take the next thing to say, or ``None``."""
        return self._outputs.popleft() if self._outputs else None

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is wanted."""
        times = [self._sweep_at, self._repairs.due(), self._fetches.due(), self._schedule.at, self._batches.due()]
        if self._announce:
            times.append(self._announce[0][0])
        return min([when for when in times if when is not None])

    # -- views --------------------------------------------------------------------------

    def history(self, topic: str | None, last: int) -> list[EventReceived]:
        """Return the last events (of a topic) that were handed on here and are remembered, oldest first."""
        found = self._events.memory.latest(topic, last)
        return [EventReceived(one.topic, one.value, one.sender.name, one.number) for one in found]

    @property
    def counters(self) -> dict[str, int]:
        """A copy of the counters."""
        return dict(self._counters)

    @property
    def gauges(self) -> dict[str, int]:
        """Present sizes of the bounded tables."""
        return {
            "settings": self._table.live,
            "settings.bytes": self._table.bytes,
            "settings.tombstones": self._table.tombstones,
            "services": self._services.table.live,
            "services.bytes": self._services.table.bytes,
            "services.orphans": self._services.orphans,
            "events.holes": len(self._repairs),
            "fetches": len(self._fetches),
            "queue": len(self._spread),
            **self._events.gauges,
        }

    # -- private ------------------------------------------------------------------------

    def note(self, name: str) -> None:
        self._counters[name] = self._counters.get(name, 0) + 1

    def reject(self, error: Exception) -> None:
        self.note("rejected")
        self._outputs.append(MessageRejected(str(error)))

    def _is_up(self, life: Sender) -> bool:
        return self._members.get(life.name) == life.boot or life == self._own

    def _peers(self) -> list[str]:
        if self._others is None:
            self._others = [name for name, boot in self._members.items() if boot is not None]
        return self._others

    def _digest(self) -> bytes:
        return ((self._table.mark + self._services.table.mark) % (1 << 128)).to_bytes(16, "big")

    def _header(self) -> State:
        return State(self._digest(), tuple(self._events.seen()), self._batches.seen())

    def _knows(self, raw: bytes) -> bool:
        """Return whether this very message is what we hold: most of gossip is, and is not decoded."""
        if self._table.knows(raw) or self._services.table.knows(raw):
            self.note("duplicates")
            return True
        return False

    def _handle(self, message: Message, raw: bytes, age: float, now: float, via: Via) -> None:
        if isinstance(message, messages.Setting):
            self._take_setting(message, raw, age, now, via)
        elif isinstance(message, Service):
            self._take_service(message, raw, age, now, via)
        elif isinstance(message, Event):
            if len(message.value) > self._limits.event:
                raise RemoteProtocolError(f"an event of {len(message.value)} bytes")
            if self._events.take(message, raw, now, via):
                sender, boot = message.sender
                self._spread.again(raw, f"e/{sender}/{boot.hex()}/{message.number}")
        elif isinstance(message, LastBatch):
            sender, boot = message.sender
            if self._batches.heard(message.sender, message.number, message.round, now):
                self._spread.again(raw, f"b/{sender}/{boot.hex()}")
        elif isinstance(message, Highest):
            self._take_highest(message, raw, now)
        else:
            raise RemoteProtocolError("a batch within another message")

    def _take_batch(self, batch: Batch, now: float) -> None:
        """Take what somebody told everybody: nobody passes it on. One message that is refused spoils no other."""
        self.note("batches")
        self._spread.muted = True
        self._batches.came(batch.sender, batch.number, now)
        for raw in batch.content:
            if self._knows(raw):
                continue
            try:
                message = messages.decode(raw)
                if not isinstance(message, (messages.Setting, Service)):
                    raise RemoteProtocolError("a batch with something else in it")
                self._handle(message, raw, 0.0, now, Via.GOSSIP)
            except RemoteProtocolError as error:
                self.reject(error)

    # -- private: settings ----------------------------------------------------------------

    def _outlived(self, stamp: Stamp, now: float) -> bool:
        return outlived(stamp, self._clock, now, self._limits.tombstone_seconds)

    def _take_setting(
        self, message: messages.Setting, raw: bytes, age: float, now: float, via: Via, news: bool = True
    ) -> None:
        key, value, stamp = message
        if value is not None and len(value) > self._limits.value:
            raise RemoteProtocolError(f"a setting of {len(value)} bytes")
        if not self._table.wins(key, stamp, raw):
            return
        old = self._outlived(stamp, now)
        if old and via is not Via.ASKED and self._table.get(key) is None:
            self.note("settings.old")
            return
        self._clock.witness(stamp)
        if value is not None:
            age = 0.0
            if not self._table.has_room(key, len(raw), self._limits.slack):
                self.note("settings.refused")
                return
        elif age >= self._limits.tombstone_seconds - MARGIN and self._table.get(key) is None:
            self.note("settings.old_tombstones")
            return
        self._put_setting(message, raw, now - age, news=news)
        if news and self._events.ready and age < MARGIN and not old:
            self._spread.again(raw, f"s/{key}")

    def _put_setting(self, message: messages.Setting, raw: bytes, since: float, *, news: bool = True) -> None:
        key, value, stamp = message
        for forgotten in self._table.put(key, Entry(stamp, value, raw, since)):
            self.note("settings.tombstones_forgotten")
            self._outputs.append(DeletionChanged(forgotten))
        seen = value is not None or key in self.settings
        if value is not None:
            self.settings[key] = Setting(value, stamp.writer)
        else:
            self.settings.pop(key, None)
        if news:
            self._outputs.append(SettingChanged(key, value, stamp.writer, stamp) if seen else DeletionChanged(key))

    def _age(self, entry: Entry) -> float:
        """Return the age of a tombstone as it will be at the next sweep: too old rather than too young."""
        return self._sweep_at - entry.since if entry.value is None else 0.0

    # -- private: services ----------------------------------------------------------------

    def _write_service(self, service_id: str, record: bytes | None, now: float) -> None:
        service = Service(service_id, record, self._clock.tick(now))
        raw = service.encode()
        if record is not None and not self._services.make_room(service, len(raw)):
            hint = "deregister some, or shorten their records"
            raise QueueFull("no room for another service", hint=hint, retriable=False)
        self._spread.check(len(raw), now)
        self._services.put(service, raw, now)
        self._spread.out(raw, f"v/{self.name}/{self.boot.hex()}/{service_id}", now)

    def _take_service(self, service: Service, raw: bytes, age: float, now: float, via: Via) -> None:
        services, life = self._services, service.life
        if service.record is not None and len(service.record) > self._limits.record:
            raise RemoteProtocolError(f"a service's record of {len(service.record)} bytes")
        if not services.table.wins(service.key, service.stamp, raw):
            return
        if life == self._own:
            self._contradict(service, now)
            return
        known, old = services.table.get(service.key) is not None, self._outlived(service.stamp, now)
        if old and via is Via.GOSSIP and not known:  # a state may bring it: its life says so if it withdrew it
            self.note("services.old")
            return
        self._clock.witness(service.stamp)
        if service.record is not None and not services.make_room(service, len(raw), self._limits.slack):
            self.note("services.refused")
            return
        if not known and not self._is_up(life) and age >= self._limits.orphan_seconds / 2:
            self.note("services.old_orphans")
            return
        if not known and service.record is None and age >= self._limits.tombstone_seconds - MARGIN:
            self.note("services.old_tombstones")
            return
        services.put(service, raw, now, age)
        if self._events.ready and age < _FRESH and not old:
            self._spread.again(raw, f"v/{life.name}/{life.boot.hex()}/{service.id}")

    def _contradict(self, service: Service, now: float) -> None:
        """Somebody holds something for ours that is not, or not any more: say how it is, later than that."""
        self._clock.witness(service.stamp)
        self.note("services.contradicted")
        try:
            self._write_service(service.id, self.services.get((self.name, service.id)), now)
        except MycorrizalError as error:
            self.reject(error)

    # -- private: events -------------------------------------------------------------------

    def _tell_highest(self, place: int) -> None:
        log = self._events.log(self._own)
        if log is not None and log.last:
            raw = Highest(self._own, log.last, place).encode()
            self._spread.out(raw, f"h/{self.name}/{self.boot.hex()}")

    def _take_highest(self, message: Highest, raw: bytes, now: float) -> None:
        self._events.heard(message.sender, message.number, now)
        log = self._events.log(message.sender)
        if log is not None and message.sender != self._own and log.told < (message.number, message.round):
            log.told = (message.number, message.round)
            self._spread.again(raw, f"h/{message.sender.name}/{message.sender.boot.hex()}")

    # -- private: states --------------------------------------------------------------------

    def _merge(self, data: bytes, now: float, via: Via) -> str | None:
        """Take a state; return what was wrong with it."""
        self.note("states")
        try:
            header, at = messages.decode_header(data)
            if not isinstance(header, State):
                raise RemoteProtocolError("something else where a state should be")
            for sender, number in header.seen:
                if self._events.seen_elsewhere(sender, number, now):
                    highest = Highest(sender, number, 0)
                    self._take_highest(highest, highest.encode(), now)
                    self._schedule.hasten(now)
            before = self._digest()
            if header.digest == before:
                self.note("states.same")
            else:
                self._take_items(data, at, now, via)
            self._batches.in_state(header.batches, now)
            if self._digest() != before:
                self._schedule.hasten(now)  # others may not know it either
        except RemoteProtocolError as error:
            self.reject(error)
            return str(error)
        return None

    def _take_items(self, data: bytes, at: int, now: float, via: Via) -> None:
        """Take the entries of a state; one that is refused (a later version's, perhaps) spoils no other."""
        refused: RemoteProtocolError | None = None
        for raw, age in messages.items(data, at, self._items_max):
            if self._table.knows(raw) or self._services.table.knows(raw):
                continue
            try:
                message = messages.decode(raw)
                if not isinstance(message, (messages.Setting, Service)):
                    raise RemoteProtocolError("a state with something else in it")
                self._handle(message, raw, age, now, via)
            except RemoteProtocolError as error:
                self.note("states.items_refused")
                refused = error
        if refused is not None:
            raise refused

