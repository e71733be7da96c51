"""``agent.services``: the services of all nodes, known to every agent.

::

    agent.services.register("api", port=8080, meta={"version": 2}, check=ping_it)
    for service in other.services.find("api"):
        print(service.host, service.port)

A registration vanishes with its node: when it leaves, fails, or its process is
replaced by another one of the same name.

Threads: every method may be called on any thread. ``find`` never blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, overload

from ._endings import named
from ._runtime.shared.checks import Check
from ._runtime.shared.sharing import Sharing
from ._runtime.shared.watching import CallbackWatch, Watching
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import Handle
from ._runtime.threads.subscribers import EventStream
from ._wire.values import Codecs, encode_value
from .config import RESERVED, check_own_text, check_text
from .events import ChangesLost, ServiceChange
from .exceptions import ConfigError, NotRunningError, QueueFull
from .types import Service, as_builtin, html_table, printable

__all__ = ["Registration", "Services"]

_SECONDS = 10.0

ServiceStream = EventStream[ServiceChange | ChangesLost]
ServiceCallback = Callable[[ServiceChange | ChangesLost], object]


class Services(Handle):
    """The cluster's service registry, as this agent knows it. Made by ``Agent``."""

    def __init__(self, sharing: Sharing, watching: Watching, codecs: Codecs, node: str) -> None:
        self._sharing = sharing
        self._watching = watching
        self._codecs = codecs
        self._node = node
        self._registered: dict[str, Registration] = {}
        self._closed = False

    @named("services.register")
    def register(
        self,
        name: str,
        *,
        port: int | None = None,
        host: str = "",
        meta: Any = None,
        service_id: str | None = None,
        check: Callable[[], object] | None = None,
        interval: float = 10.0,
        timeout: float | None = _SECONDS,
    ) -> Registration:
        """Offer a service; when this returns it is known here, and on its way to the others. Blocks for that.

        Args:
            name: the text by which ``find`` and ``watch`` look for it.
            port: where it listens.
            host: where, if that is not this agent's address.
            meta: anything small that CBOR carries.
            service_id: unique among this agent's services; `name` if None. A second registration of one id replaces
                the first.
            check: called every `interval` seconds on a thread of its own; it is healthy as long as that returns
                something else than False and does not raise. It is called once before the service is announced.

        Raises:
            ConfigError: a bad name, host, port or interval.
            ValueEncodeError, ValueTooLarge: `meta` cannot be sent.
            ResourcesExhausted: there is no thread for `check`; nothing is announced.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        name = check_own_text("name", name, "api")
        service_id = name if service_id is None else check_own_text("service_id", service_id, "api-1")
        port, host = as_builtin(port), as_builtin(host)
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536):
            raise ConfigError("port", f"{port!r} is not a port", hint="1 to 65535, or leave it out")
        if host != "":
            check_text("host", host, "10.0.0.5")
        told = encode_value(meta, self._codecs).pack()  # by itself: who cannot read it still finds the service
        records = [encode_value([name, port, told, healthy, host]).pack() for healthy in (False, True)]
        registration = Registration(self, service_id, name, records)
        if check is not None:
            registration.check = Check(check, interval, registration.tell, self._node, self._sharing.counters)
        healthy = registration.healthy = registration.check is None or registration.check.first()
        if registration.check is not None:
            registration.check.start()  # first: what has no thread is not announced
        # Before it is announced, so that the check of the one before has nothing to say any more.
        old, self._registered[service_id] = self._registered.get(service_id), registration
        try:
            self._announce(registration, healthy, Deadline(timeout))
        except BaseException:
            registration.stop_checking()
            self._registered.pop(service_id, None)
            if old is not None:
                self._registered[service_id] = old
                old.tell(old.healthy)  # what it said meanwhile was not heard
            raise
        if old is not None:
            old.stop_checking()
        if registration.check is not None:
            registration.check.begin()
        if self._closed:  # meanwhile
            registration.stop_checking()
        return registration

    def find(self, name: str | None = None, *, healthy: bool | None = True) -> list[Service]:
        """Return the services called `name`, all if None, by node and id. Never blocks.

        Args:
            healthy: only those whose check says so; False: only the others; None: all.
        """
        found = []
        for (node, service_id), record in sorted(self._sharing.replica.services.copy().items()):
            if service_id.startswith(RESERVED):
                continue
            service = self._watching.service(node, service_id, record)
            if service is None or name not in (None, service.name):
                continue
            if healthy is None or service.healthy == healthy:
                found.append(service)
        return found

    @named("services.deregister")
    def deregister(self, service_id: str, timeout: float | None = _SECONDS) -> None:
        """Withdraw this agent's service `service_id`; nothing happens if there is none. Blocks for the gossip thread.

        Raises:
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        registration = self._registered.pop(service_id, None)
        if registration is not None:
            registration.stop_checking()
        replica = self._sharing.replica
        self._sharing.call(lambda now: replica.deregister(service_id, now), Deadline(timeout), "services.deregister")

    @overload
    def watch(self, name: str | None = None) -> ServiceStream: ...

    @overload
    def watch(
        self, name: str | None, callback: ServiceCallback
    ) -> CallbackWatch[ServiceChange | ChangesLost]: ...

    def watch(
        self, name: str | None = None, callback: ServiceCallback | None = None
    ) -> ServiceStream | CallbackWatch[ServiceChange | ChangesLost]:
        """Hear of services called `name`, of all if None, as they come, change and go; also one's own.

        Returns:
            Without `callback` a stream to iterate or ``get`` from. With it, something to ``close()``: `callback` is
            called with each change, in order, on a thread of its own.
        """
        stream = self._watching.watch_services(as_builtin(name))
        return stream if callback is None else self._watching.call(callback, stream)

    def close(self) -> None:
        """End the checks. The agent does it."""
        self._closed = True
        for registration in list(self._registered.values()):
            registration.stop_checking()

    def _announce(self, registration: Registration, healthy: bool, deadline: Deadline) -> None:
        record, replica = registration.records[healthy], self._sharing.replica
        self._sharing.call(
            lambda now: replica.register(registration.id, record, now), deadline, "services.register"
        )

    def _changed(self, registration: Registration, now: float) -> None:
        """Share how a service is now. Gossip thread."""
        registration.waiting = False  # first this, then a look; ``tell`` does it the other way round
        if self._registered.get(registration.id) is registration:
            try:
                self._sharing.replica.register(registration.id, registration.records[registration.healthy], now)
            except QueueFull:
                registration.waiting = True
                self._sharing.counters.add("share.health_put_off")
                self._sharing.later(partial(self._changed, registration), now)

    def __repr__(self) -> str:
        return f"<Services of {printable(self._node)}: {len(self.find(healthy=None))}>"

    def _repr_html_(self) -> str:
        rows = (
            (s.name, s.node, s.host if s.port is None else f"{s.host}:{s.port}", s.healthy, _shown(s), s.id)
            for s in self.find(healthy=None)
        )
        return html_table(("service", "node", "address", "healthy", "meta", "id"), rows)


class Registration(Handle):
    """One service that this agent offers; also a context manager that withdraws it.

    Attributes:
        id: unique among the agent's services.
        name: the text by which ``find`` and ``watch`` look for it.
    """

    def __init__(self, services: Services, service_id: str, name: str, records: list[bytes]) -> None:
        self._services = services
        self.id = service_id
        self.name = name
        self.records = records  # as it is shared: the first while it is not well, the second while it is
        self.healthy = True  # what was told last
        self.waiting = False  # to be shared
        self.check: Check | None = None

    def deregister(self, timeout: float | None = _SECONDS) -> None:
        """Withdraw it. Raises: as ``Services.deregister``."""
        self._services.deregister(self.id, timeout)

    def tell(self, healthy: bool) -> None:
        """Say how it is, if not a check does. Does not block; what was said last is shared, however busy we are."""
        self.healthy = bool(healthy)
        if not self.waiting:
            self.waiting = True
            self._services._sharing.note(partial(self._services._changed, self))

    def stop_checking(self) -> None:
        """End its check, if there is one."""
        if self.check is not None:
            self.check.close()

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.deregister()
        except NotRunningError:
            pass  # the agent is gone, and the service with it

    def __repr__(self) -> str:
        return f"<Registration {printable(self.id)}>"


def _shown(service: Service) -> str:
    if service.error is not None:
        return "(cannot be read)"
    return "" if service.meta is None else repr(service.meta)
