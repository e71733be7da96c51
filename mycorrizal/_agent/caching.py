"""The caches of one agent: opened once for each name, announced to the others, handed over when the agent leaves.

An agent announces a cache as a hidden service, so that the announcement goes
with its process and a new life of the same name is another member. Who
announces what is told to the machine on the data plane's loop thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .._cache.definition import Definition, differ
from .._histogram import Histogram
from .._runtime.cache.caching import CacheHost
from .._runtime.shared.sharing import Sharing
from .._runtime.threads import clock
from .._runtime.threads.deadline import Deadline
from .._runtime.threads.waits import pause
from .._wire.text import logger
from .._wire.values import Codecs, decode_packed, encode_value
from ..cache import Cache
from ..config import RESERVED, check_text
from ..events import CacheRedefined
from ..exceptions import CacheConflict, ConfigError, MycorrizalError, UnknownCache, ValueEncodeError
from .cachemetrics import cache_metrics, cache_times

__all__ = ["ANNOUNCED", "Caches"]

log = logger("mycorrizal.cache")

ANNOUNCED = RESERVED + "cache/"
"""What the ids of hidden services begin with that announce caches."""

_NOTHING: dict[str, Definition] = {}
_TOLD_MAX = 256  # warnings that are not logged again
_LOOK_SECONDS = 0.05
_TELLING_SECONDS = 3.0  # an announcement waits for nobody any longer


class Caches:
    """Any thread, but for ``view_changed``."""

    def __init__(self, host: CacheHost, sharing: Sharing, codecs: Codecs) -> None:
        self._host = host
        self._sharing = sharing
        self._codecs = codecs
        self._open: dict[str, Cache] = {}
        self._told: set[str] = set()  # warnings that were logged
        self._last: dict[str, Definition] = {}  # how the caches were defined when that was last told
        self._announced: dict[str, dict[str, Definition]] = {}  # by node; each is replaced, never changed
        self._news: dict[str, None] = {}  # caches that somebody announces otherwise, not yet followed
        self._up: dict[str, bytes] | None = None  # the members that the machine was told of last
        sharing.on_view = self.view_changed

    def open(self, definition: Definition, timeout: float | None, redefine: bool = False) -> Cache:
        """Return the cache of this name, as it runs or, to `redefine` it, as `definition` says. Blocks.

        Raises:
            CacheUnavailable: it has a quorum, which is not here to redefine it.
            CacheConflict: it was redefined elsewhere at the same moment, and that holds.
            ConfigError: others cannot be told of it.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        name, known = definition.name, self._open.get(definition.name)
        if known is not None and (definition == known.definition or not redefine):
            self._warn_of(definition, known.definition)
            return known
        definition = _as_told(definition)
        if not definition.born:
            definition = replace(definition, born=int((clock.now() + clock.wall_offset()) * 1000))
        deadline, machine = Deadline(timeout), self._host.machine
        held: Definition = self._host.do(
            lambda now: machine.define(definition, now, redefine, _TELLING_SECONDS), deadline, "cache"
        )
        self._warn_of(definition, held)
        self._last.setdefault(name, held if known is None else known.definition)
        self._sharing.announce(ANNOUNCED + name, _pack(held), deadline)
        self._host.was_told(name)
        if redefine:
            held = self._host.do(lambda now: machine.define(held, now), deadline, "cache")
        cache = self._open.setdefault(name, Cache(self._host, held, self._codecs))
        self._sharing.call(lambda now: self._taken(cache, held), deadline, "cache")
        if redefine:
            self._refuse_other(definition, held)
        return cache

    def _taken(self, cache: Cache, definition: Definition) -> None:
        """`cache` has these settings, unless it has later ones already: who opens it may come late. Gossip thread."""
        if definition.rank >= cache.definition.rank:
            cache.defined(definition)

    def _refuse_other(self, mine: Definition, held: Definition) -> None:
        """Raise ``CacheConflict`` if somebody else has redefined the cache at the same moment, and that holds."""
        if held != mine:
            ours, theirs = mine.apart(held), held.apart(mine)
            raise CacheConflict(
                f"{mine.name!r} was to have {ours}, and was given {theirs} elsewhere at the same moment",
                hint="that holds; agree, and redefine it again",
            )

    def _warn_of(self, asked: Definition, held: Definition) -> None:
        """Tell, once, that a cache is not as somebody wants to open it."""
        if asked != held:
            theirs, ours = held.apart(asked), asked.apart(held)
            text = f"cache {held.name!r} runs with {theirs}, not with {ours} as is asked; redefine=True changes it"
            if text not in self._told:
                if len(self._told) >= _TOLD_MAX:
                    self._told.clear()
                self._told.add(text)
                log.warning("%s", text)

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

    def times(self) -> dict[str, Histogram]:
        """Return how long operations of all open caches took. Any thread."""
        return cache_times(self._host, list(self._open))

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
        known = {name: boot for name, boot in up.items() if boot is not None}
        changed = known != self._up
        for node, service_id in services:
            if service_id.startswith(ANNOUNCED):
                changed = self._look(node, service_id) or changed
        self._up = known
        if changed or self._news:
            view = {name: (boot, self._announced.get(name, _NOTHING)) for name, boot in known.items()}
            self._follow(view)
            if changed:
                self._host.members_changed(view)

    def _look(self, node: str, service_id: str) -> bool:
        """Return whether `node` announces this cache otherwise than before."""
        name = service_id.removeprefix(ANNOUNCED)
        record = self._sharing.replica.services.get((node, service_id))
        definition = None if record is None else _unpack(name, record)
        before = self._announced.get(node, _NOTHING)
        caches = {key: value for key, value in before.items() if key != name}
        if definition is not None:
            caches[name] = definition
        if caches:
            self._announced[node] = caches
        else:
            self._announced.pop(node, None)
        if not differ(before.get(name), definition):
            return False
        self._news[name] = None
        return True

    def _follow(self, announced: dict[str, tuple[bytes, dict[str, Definition]]]) -> None:
        """Take the newest definition of each of our caches, announce it too, and tell of it."""
        for name in [name for name in self._news if name in self._open]:
            del self._news[name]
            cache = self._open[name]
            before = self._last.get(name, cache.definition)
            known = [(caches[name].rank, node) for node, (_, caches) in announced.items() if name in caches]
            _, node = max(known, default=(None, ""))
            new = announced[node][1][name] if node else before
            if not new.replaces(before):
                continue
            try:
                self._sharing.replica.register(ANNOUNCED + name, _pack(new), clock.now())
            except MycorrizalError as error:  # too many messages wait: the next view finds it again
                log.debug("cache %r is not announced anew yet: %s", name, error)
                self._news[name] = None
                continue
            self._last[name] = new
            self._taken(cache, new)
            if new != before:
                log.info("cache %r has %s now, as %s says", name, new.apart(before), node)
                self._sharing.on_event(CacheRedefined(name, node, before.settings(new), new.settings(before)))


def _pack(definition: Definition) -> bytes:
    d = definition
    settings = [d.ttl, d.max_entries, d.max_bytes, d.replicas, d.near, d.read_backups, d.sync_backups, d.quorum]
    return encode_value([*settings, d.edition, d.born]).pack()


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
                bool(near), bool(backups), bool(waits), int(quorum), int(edition), int(born), *_,
            ]:  # fmt: skip
                return Definition(
                    name, ttl, entries, size, replicas, near, backups, waits, quorum, edition, born
                )
    except MycorrizalError as error:
        log.debug("a cache that cannot be: %s: %s", name, error)
    return None
