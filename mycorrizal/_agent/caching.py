"""The caches of one agent: opened once for each name, announced to the others, handed over when the agent leaves.

An agent announces a cache as a hidden service, so that the announcement goes
with its process and a new life of the same name is another member. Who
announces what is told to the machine on the data plane's loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._cache.definition import Definition
from .._cache.machine import CacheMachine
from .._runtime.caching import CacheHost
from .._runtime.deadline import Deadline
from .._runtime.sharing import Sharing
from .._runtime.waits import pause
from .._wire.text import logger
from .._wire.values import Codecs, decode_packed, encode_value
from ..cache import Cache
from ..config import RESERVED, check_text
from ..exceptions import CacheConflict, ConfigError, MycorrizalError, UnknownCache, ValueEncodeError
from .cachemetrics import cache_metrics

__all__ = ["ANNOUNCED", "Caches"]

log = logger("mycorrizal.cache")

ANNOUNCED = RESERVED + "cache/"
"""What the ids of hidden services begin with that announce caches."""

_NOTHING: dict[str, Definition] = {}
_TOLD_MAX = 256  # conflicts that are not logged again
_LOOK_SECONDS = 0.05


class Caches:
    """Any thread, but for ``view_changed``."""

    def __init__(self, host: CacheHost, sharing: Sharing, codecs: Codecs) -> None:
        self._host = host
        self._sharing = sharing
        self._codecs = codecs
        self._open: dict[str, Cache] = {}
        self._told: set[str] = set()  # conflicts that were logged
        self._announced: dict[str, dict[str, Definition]] = {}  # by node; each is replaced, never changed
        self._view: dict[str, tuple[bytes, dict[str, Definition]]] | None = None  # what the machine was told last
        sharing.on_view = self.view_changed

    def open(self, definition: Definition, timeout: float | None) -> Cache:
        """Return the cache of this definition; the same object for the same name. Blocks.

        Raises:
            CacheConflict: another agent, or this one, has defined the name differently.
            ConfigError: others cannot be told of it.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        known = self._open.get(definition.name)
        if known is not None:
            definition.refuse_conflict(known.definition, "this agent before")
            return known
        definition = _as_told(definition)
        deadline = Deadline(timeout)
        machine = self._host.machine
        self._host.do(lambda now: machine.define(definition, now), deadline, "cache")
        self._sharing.announce(ANNOUNCED + definition.name, _pack(definition), deadline)
        return self._open.setdefault(definition.name, Cache(self._host, definition, self._codecs))

    def open_known(self, name: str, timeout: float | None) -> Cache:
        """Return the cache of this name, opened with the settings that an agent in sight gave it. Blocks.

        Raises:
            UnknownCache: none did. Otherwise as ``open``.
        """
        cache = self._open.get(name)
        if cache is not None:
            return cache
        known = self.known()
        if name not in known:
            there = ", ".join(sorted(known)) or "none at all"
            raise UnknownCache(
                f"no agent in sight has opened a cache {name!r}; there are: {there}",
                hint="open it with agent.cache(name, ...) in a program first",
            )
        return self.open(known[name], timeout)

    def known(self) -> dict[str, Definition]:
        """Return the caches that agents announce, ours included, as the first of each defined it. Never blocks."""
        found = {name: cache.definition for name, cache in self._open.items()}
        for (_, service_id), record in sorted(dict(self._sharing.replica.services).items()):
            if service_id.startswith(ANNOUNCED):
                definition = _unpack(service_id.removeprefix(ANNOUNCED), record)
                if definition is not None:
                    found.setdefault(definition.name, definition)
        return found

    def metrics(self) -> dict[str, int]:
        """Return the numbers of all open caches. Never blocks."""
        return cache_metrics(self._host, {name: cache.local_hits for name, cache in list(self._open.items())})

    def __iter__(self) -> Any:
        return iter(list(self._open.values()))

    def hand_over(self, deadline: Deadline) -> bool:
        """Give what is here to the others, as far as there is time; return whether all went. Blocks."""
        machine, replica = self._host.machine, self._sharing.replica
        names = list(self._open)

        def retire(now: float) -> None:
            for name in names:
                machine.retire(name, now)

        def withdraw(now: float) -> None:
            for name in names:
                replica.deregister(ANNOUNCED + name, now)

        def done(now: float) -> bool:
            return all(machine.retired(name) for name in names)

        if not names:
            return True
        self._host.do(retire, deadline, "leave")
        self._sharing.call(withdraw, deadline, "leave")
        while not self._host.do(done, deadline, "leave"):
            if deadline.passed:
                return False
            pause(deadline.capped(_LOOK_SECONDS))
        return True

    # -- the gossip thread ------------------------------------------------------------------

    def view_changed(self, up: dict[str, bytes | None], services: Iterable[tuple[str, str]]) -> None:
        """Members, or these `services` of theirs, are others than before. Nothing else is looked at."""
        for node, service_id in services:
            if service_id.startswith(ANNOUNCED):
                self._look(node, service_id)
        view = {name: (boot, self._announced.get(name, _NOTHING)) for name, boot in up.items() if boot is not None}
        if view != self._view:
            self._view = view
            self._host.members_changed(view, self._conflict)

    def _look(self, node: str, service_id: str) -> None:
        """What `node` announces of one cache is another than before."""
        name = service_id.removeprefix(ANNOUNCED)
        record = self._sharing.replica.services.get((node, service_id))
        definition = None if record is None else _unpack(name, record)
        caches = {**self._announced.get(node, _NOTHING)}
        caches.pop(name, None)
        if definition is not None:
            caches[name] = definition
        if caches:
            self._announced[node] = caches
        else:
            self._announced.pop(node, None)

    def _conflict(self, machine: CacheMachine) -> None:
        """Tell of members that define one of our caches differently, once each. Loop thread."""
        for conflict in machine.conflicts():
            if str(conflict) not in self._told:
                if len(self._told) >= _TOLD_MAX:
                    self._told.clear()
                self._told.add(str(conflict))
                log.warning("! %s", conflict)

    @property
    def conflicts(self) -> list[CacheConflict]:
        """Members that define one of our caches differently, and so take no part in it."""
        return self._host.machine.conflicts()


def _pack(definition: Definition) -> bytes:
    d = definition
    fields = [d.ttl, d.max_entries, d.max_bytes, d.replicas, d.near, d.read_backups, d.sync_backups, d.quorum]
    return encode_value(fields).pack()


def _as_told(definition: Definition) -> Definition:
    """Return `definition` as the others read it. Who they cannot read would hold a cache of its own."""
    check_text("name", ANNOUNCED + definition.name, "features")
    try:
        told = _unpack(definition.name, _pack(definition))
    except ValueEncodeError:
        told = None
    if told != definition:
        raise ConfigError(
            "cache", f"{definition} cannot be told to other agents", hint="use plain numbers, True and False"
        )
    return told


def _unpack(name: str, record: bytes) -> Definition | None:
    try:
        match decode_packed(record):
            case [
                int() | float() | None as ttl, int() | None as entries, int() | None as size, int(replicas),
                bool(near), bool(backups), bool(waits), int(quorum), *_,
            ]:  # fmt: skip
                return Definition(name, ttl, entries, size, replicas, near, backups, waits, quorum)
    except MycorrizalError as error:
        log.debug("= a cache that cannot be: %s: %s", name, error)
    return None
