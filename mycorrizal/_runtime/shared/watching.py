"""Streams of what an agent's replica reports, and callbacks that run on a thread of their own.

The gossip thread publishes what happened as it is, values still encoded; each
reader decodes on its own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..._endings import unreadable
from ..._replica import outputs as replica
from ..._wire.text import logger, text_of
from ..._wire.values import Codecs, decode_packed
from ...events import (
    AgentEvent,
    CacheRedefined,
    ChangesLost,
    EventsLost,
    MemberStalled,
    ServiceChange,
    SettingChange,
    UserEvent,
    UserEventsMissed,
)
from ...exceptions import MycorrizalError, RemoteProtocolError, ValueDecodeError
from ...types import Node, Service
from ..swim.membership import Membership
from ..threads.counters import Counters, QuietLog
from ..threads.service import Service as Thread
from ..threads.starting import ours
from ..threads.subscribers import EventStream, Subscribers
from .sharing import STALLED, Sharing

__all__ = ["CallbackWatch", "Watching", "merged"]

log = logger("mycorrizal.agent")

DEPTH = 4096
"""Changes that wait for a watcher before it loses the oldest."""

S = TypeVar("S")


class Watching:
    """Who hears what of one agent. ``publish`` is the gossip thread's, the rest any thread's."""

    def __init__(self, membership: Membership, sharing: Sharing, codecs: Codecs) -> None:
        self._membership = membership
        self._sharing = sharing
        self._codecs = codecs
        self._quiet = QuietLog(log, membership.config.name)
        self._events = membership.subscribers
        self._topics: Subscribers[Any] = Subscribers(lambda: self.subscribe(None, DEPTH))
        self._services: Subscribers[Any] = Subscribers(lambda: self.watch_services(None))
        self._settings: Subscribers[Any] = Subscribers(lambda: self.watch_settings(None))

    # -- the gossip thread ------------------------------------------------------------------

    def publish(self, event: replica.Output | CacheRedefined) -> None:
        """Give out one event of the replica, or of the caches."""
        match event:
            case replica.EventReceived(topic=topic):
                self._events.publish(event)
                if topic != STALLED:
                    self._topics.publish(event)
            case CacheRedefined():
                self._events.publish(event)
            case replica.EventsMissed():
                self._events.publish(event)
                self._topics.publish(event)
            case replica.ServiceChanged():
                self._services.publish(event)
            case replica.SettingChanged():
                self._settings.publish(event)

    def end(self) -> None:
        """Let every reader finish."""
        for all_ in (self._topics, self._services, self._settings):
            all_.end()

    # -- any thread ----------------------------------------------------------------------------

    def events(self, depth: int, operation: str = "events") -> EventStream[AgentEvent]:
        """Return a stream of everything; `operation` is what its errors say was called."""

        def lost(count: int) -> AgentEvent:
            return EventsLost(count, self._membership.view().members)

        stream: EventStream[AgentEvent] = self._stream(depth, lost, operation, None, self._open_event)
        self._events.add(stream)  # type: ignore[arg-type]  # a stream of more kinds than membership's own
        return stream

    def subscribe(self, topic: str | None, depth: int) -> EventStream[UserEvent | UserEventsMissed | ChangesLost]:
        """Return a stream of user events of `topic`, None for all. It is fed from ``begin`` on."""

        def wanted(event: replica.Output) -> bool:
            return topic is None or not isinstance(event, replica.EventReceived) or event.topic == topic

        return self._stream(depth, ChangesLost, "subscribe", wanted, self._open_user)

    def begin(
        self, stream: EventStream[Any], topic: str | None, last: int, before: list[replica.EventReceived]
    ) -> None:
        """Feed `stream` from now on, after up to `last` events: `before`, and what came since. Gossip thread."""
        if last:
            stream.prefill(merged(before, self._sharing.replica.history(topic, last), last))
        self._topics.add(stream)

    def watch_services(self, name: str | None) -> EventStream[ServiceChange | ChangesLost]:
        """Return a stream of changes of services called `name`, None for all."""

        def opened(event: replica.ServiceChanged) -> ServiceChange | None:
            service = self.service(event.node, event.service_id, event.record)
            if service is None or name not in (None, service.name):
                return None
            return ServiceChange(event.kind, service)

        stream: EventStream[ServiceChange | ChangesLost]
        stream = self._stream(DEPTH, ChangesLost, "watch", None, opened)
        return self._services.add(stream)

    def watch_settings(self, key: str | None) -> EventStream[SettingChange | ChangesLost]:
        """Return a stream of changes of the setting `key`, None for all."""

        def wanted(event: replica.SettingChanged) -> bool:
            return key in (None, event.key)

        def opened(event: replica.SettingChanged) -> SettingChange | None:
            if event.value is None:
                return SettingChange(event.key, None, True, event.writer)
            try:
                value = self.decode(event.value, event.writer, f"the setting {event.key!r}")
                return SettingChange(event.key, value, False, event.writer)
            except ValueDecodeError as error:
                return SettingChange.unreadable(error, key=event.key, deleted=False, writer=event.writer)
            except RemoteProtocolError:
                return None

        stream: EventStream[SettingChange | ChangesLost]
        stream = self._stream(DEPTH, ChangesLost, "watch", wanted, opened)
        return self._settings.add(stream)

    def call(self, callback: Callable[[S], object], stream: EventStream[S]) -> CallbackWatch[S]:
        """Call `callback` with each event of `stream`."""
        return CallbackWatch(stream, callback, self._membership.config.name, self._membership.counters)

    def decode(self, value: bytes, sender: str, what: str) -> Any:
        """Return a value as `sender` told it, `what` of its; one that cannot be read is counted.

        Raises:
            RemoteProtocolError: it is none that we accept.
            ValueDecodeError: it cannot be read here.
        """
        try:
            return decode_packed(value, self._codecs)
        except ValueDecodeError as error:
            raise self._unreadable(error, sender, what) from error.__cause__
        except RemoteProtocolError:
            self._sharing.counters.add("share.values_bad")
            raise
        except BaseException as exc:  # a codec that would end the thread of a watcher, or of the control plane
            if not ours():
                raise
            found = ValueDecodeError(f"a codec raised {type(exc).__name__}: {text_of(exc)}")
            raise self._unreadable(found, sender, what) from exc

    def _unreadable(self, error: ValueDecodeError, sender: str, what: str) -> ValueDecodeError:
        mine = unreadable(error, f"{what} of {sender}", node=sender)
        self._sharing.counters.add("share.values_unreadable")
        self._quiet.warning("unreadable", "not to be read here: %s", mine)
        return mine

    def service(self, node: str, service_id: str, record: bytes) -> Service | None:
        """Return the service that `record` describes; None if it cannot be read, which is counted."""
        try:
            match decode_packed(record):
                case [str(name), int() | None as port, bytes(meta), bool(healthy), str(host)]:
                    more: dict[str, Any] = {"name": name, "node": node, "host": host or self._host(node), "port": port}
                    more |= {"healthy": healthy, "id": service_id}
                    try:
                        return Service(meta=self.decode(meta, node, f"the meta of service {service_id!r}"), **more)
                    except ValueDecodeError as error:
                        return Service.unreadable(error, **more)
        except RemoteProtocolError:
            pass
        self._sharing.counters.add("share.values_bad")
        return None

    def _host(self, name: str) -> str:
        return next((node.host for node in self._nodes() if node.name == name), "")

    def _nodes(self) -> tuple[Node, ...]:
        return self._membership.view().members

    def _stream(
        self,
        depth: int,
        lost: Callable[[int], S],
        operation: str,
        wanted: Callable[[Any], bool] | None,
        opened: Callable[[Any], S | None],
    ) -> EventStream[S]:
        membership = self._membership
        return EventStream(
            depth, lost, membership.guard, membership.gossip.service.refusal, membership.counters,
            operation=operation, wanted=wanted, opened=opened,
        )  # fmt: skip

    def _open_user(self, event: Any) -> UserEvent | UserEventsMissed | None:
        match event:
            case replica.EventReceived(topic=topic, value=value, sender=sender, number=number):
                try:
                    return UserEvent(topic, self.decode(value, sender, f"an event {topic!r}"), sender, number)
                except ValueDecodeError as error:
                    return UserEvent.unreadable(error, topic=topic, sender=sender, number=number)
                except RemoteProtocolError:
                    return None
            case replica.EventsMissed(sender=sender, count=count):
                return UserEventsMissed(sender, count)
        return None

    def _open_event(self, event: Any) -> AgentEvent | None:
        match event:
            case replica.EventReceived(topic=topic, value=value, sender=sender) if topic == STALLED:
                try:
                    seconds = decode_packed(value)
                except RemoteProtocolError:
                    return None
                return MemberStalled(sender, float(seconds)) if isinstance(seconds, float) else None
            case replica.EventReceived() | replica.EventsMissed():
                return self._open_user(event)
        known: AgentEvent = event
        return known


def merged(
    older: list[replica.EventReceived], newer: list[replica.EventReceived], last: int
) -> list[replica.EventReceived]:
    """Return the `last` events of both lists, those in both once."""
    known = {(event.sender, event.number, event.value) for event in newer}
    return [*(e for e in older if (e.sender, e.number, e.value) not in known), *newer][-last:]


class CallbackWatch(Generic[S]):
    """Calls `callback` with each event of `stream`, on a thread of its own, until ``close`` or the agent's end.

    An exception is logged, counted (``watchers.faults``), and the next event follows.
    """

    def __init__(
        self, stream: EventStream[S], callback: Callable[[S], object], node: str, counters: Counters
    ) -> None:
        self._stream = stream
        self._callback = callback
        self._node = node
        self._counters = counters
        self._thread = Thread("mycorrizal-watch", node, self._run, lambda: None)
        try:
            self._thread.start()
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """End it; a callback that runs may finish. Idempotent, any thread."""
        self._stream.close()

    def __enter__(self) -> CallbackWatch[S]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for event in self._stream:
                try:
                    self._callback(event)
                except BaseException as exc:
                    self._counters.add("watchers.faults")
                    log.exception("%s: a watcher raised %r", self._node, exc)
        except MycorrizalError as error:
            log.debug("%s: a watcher ends: %s", self._node, error)
