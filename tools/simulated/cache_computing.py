"""Callers of the simulated cache who compute under leases, beside all that voids what they compute.

Their histories are judged like others; what vanishes by itself at the end of
its time is an operation of its own in them, of nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.survey import CLEAR_KEYS
from mycorrizal.exceptions import CacheOutcomeUnknown, MycorrizalError

from .cache_cluster import CacheCluster, CacheNode
from .cache_history import TIMEOUT, Clients
from .linearizable import FOREVER, Event

__all__ = ["GONE", "Computed", "ComputingClients", "lasting"]

_KINDS = (
    "get", "get", "set", "expiring", "expiring", "delete", "pop", "clear", "add", "cas", "lock", "many", "gone",
    "incr", "incr", "incr",
    "compute", "compute", "compute", "compute", "refresh", "refresh",
)  # fmt: skip
_LEASE = 300  # milliseconds; every other computation takes longer, or more while processes come and go
_EXPIRING = b"e"
GONE = b"gone"
"""Whose locks those are that were withdrawn."""
_LATE = 4.0
"""Seconds that an entry may live too long once it has moved: each copy counts what is left from when it hears of it."""

Outcomes = list[Result | MycorrizalError] | None


class Computed(NamedTuple):
    """What somebody computed: under which token, and what became of it; ``version`` 0: it was not stored."""

    key: bytes
    token: int
    asked: float
    granted: float
    ended: float
    version: int


def lasting(events: Sequence[Event]) -> list[Event]:
    """Return the events of keys that are there until somebody deletes them."""
    return [event for event in events if not event.key.startswith(_EXPIRING)]


class ComputingClients(Clients):
    """``Clients`` that compute, too; half of the keys expire.

    Attributes:
        computed: what was computed, and whether it was stored.
    """

    def __init__(self, cluster: CacheCluster, seed: object, *, still: bool) -> None:
        self.computed: list[Computed] = []
        self._late = 0.0 if still else _LATE
        self._takes = 2 if still else 6  # leases at most
        super().__init__(cluster, seed, kinds=_KINDS)
        self._keys = [b"k0", b"k1", b"k2", b"e0", b"e1", b"e2"]

    def _begin(self, kind: str, node: CacheNode, client: int, key: bytes) -> None:
        if kind in ("compute", "refresh"):
            self._compute(node, client, key, early=500 if kind == "refresh" else 0)
        elif kind == "pop":
            self._pop(node, client, key)
        elif kind == "gone":
            self._ask_and_go(node, client, key)
        elif kind == "clear":
            self._clear(node, client)
        elif kind == "expiring":
            self._store(node, client, b"e" + key[1:], 1 + int(self._rng.random() * 1500), 0, lambda _: None)
        elif kind in ("set", "cas", "add", "get", "many"):
            super()._begin(kind, node, client, b"k" + key[1:] if kind != "get" else key)
        else:
            super()._begin(kind, node, client, key)

    def _many(self, node: CacheNode, client: int) -> None:
        keys = [key for key in self._keys if not key.startswith(_EXPIRING)]
        self._do(node, client, [("set" if place % 2 else "get", key, self._value()) for place, key in enumerate(keys)])

    def _record(
        self, client: int, kind: str, key: bytes, argument: Any, began: float, outcome: Result | MycorrizalError | None,
        answer: Callable[[Result], Any] = lambda result: result.status == Status.OK,
    ) -> None:  # fmt: skip
        if outcome is None or isinstance(outcome, CacheOutcomeUnknown):
            self.unknown += 1
            self.events.append(Event(client, key, kind, argument, began, FOREVER))
        elif isinstance(outcome, Result):
            now = self._cluster.now
            self.events.append(Event(client, key, kind, argument, began, now, answer(outcome), outcome.version))
        else:
            self.refused += 1

    def _store(
        self, node: CacheNode, client: int, key: bytes, ttl: int, token: int, then: Callable[[Any], None]
    ) -> None:
        """Write a value that lives `ttl` milliseconds, under `token` if there is one."""
        began, value = self._cluster.now, self._value()

        def done(outcomes: Outcomes) -> None:
            outcome = outcomes[0] if outcomes else None
            then(outcome)
            if not (token and isinstance(outcome, Result) and outcome.status == Status.FAILED):
                self._record(client, "set", key, value, began, outcome)
                if ttl and (outcome is None or isinstance(outcome, (Result, CacheOutcomeUnknown))):
                    last = self._cluster.now + self._late if isinstance(outcome, Result) else FOREVER
                    first = began - (0.05 if self._late else 0.0)
                    self.events.append(Event(-1, key, "expire", value, first + ttl / 1000, last + ttl / 1000, True))
            self._next(node, client)

        op = Op(Kind.SET, key, value=value, ttl=ttl, number=token)
        self._cluster.operate(node, [op], TIMEOUT, done)

    def _compute(self, node: CacheNode, client: int, key: bytes, early: int) -> None:
        """Get, or compute: some are done in time, some are not, some give their lease back, some are never done."""
        asked, takes, end = self._cluster.now, self._rng.random() * self._takes * _LEASE / 1000, self._rng.random()
        wait = 800 if self._rng.random() < 0.5 else 0
        lives = 200 + int(self._rng.random() * 1500) if key.startswith(_EXPIRING) else 0

        def leased(outcomes: Outcomes) -> None:
            outcome = outcomes[0] if outcomes else None
            if isinstance(outcome, Result) and outcome.status in (Status.OK, Status.LEASED):
                self._record(client, "get", key, None, asked, outcome, lambda result: result.value)
                if outcome.status == Status.LEASED and end > 0.1:
                    granted = self._cluster.now
                    self._cluster.at(granted + takes, lambda: computed(outcome.number, granted))
                    return
            self._next(node, client)

        def computed(token: int, granted: float) -> None:
            if not node.running:
                self._next(node, client)
            elif end < 0.2:
                back = Op(Kind.RETURN, key, number=token)
                self._cluster.operate(node, [back], TIMEOUT, lambda _: self._next(node, client))
            else:

                def then(outcome: Any) -> None:
                    if isinstance(outcome, Result):
                        version = outcome.version if outcome.status == Status.OK else 0
                        self.computed.append(Computed(key, token, asked, granted, self._cluster.now, version))

                self._store(node, client, key, lives, token, then)

        lease = Op(Kind.LEASE, key, number=_LEASE, wait=wait, early=early)
        self._cluster.operate(node, [lease], TIMEOUT, leased)

    def _ask_and_go(self, node: CacheNode, client: int, key: bytes) -> None:
        """Ask for a lease or a lock, and be interrupted meanwhile."""
        name, ident, life = self._cluster.definition.name, self._rng.getrandbits(62) | 1, node.lives
        lease = Op(Kind.LEASE, key, ident, number=600_000, wait=1000)
        lock = Op(Kind.LOCK, b"\x00lock\x00" + key, ident, value=GONE, ttl=600_000, wait=1000)
        op = lease if self._rng.random() < 0.5 else lock

        def go() -> None:
            if node.running and node.lives == life:
                self._cluster.ask(node, lambda machine, _, now: machine.withdraw(name, op, now), lambda _: None)
            self._next(node, client)

        def ask(machine: CacheMachine, ticket: Any, now: float) -> None:
            machine.operate(name, [op], ticket, now + TIMEOUT, now)

        self._cluster.ask(node, ask, lambda _: None)
        self._cluster.at(self._cluster.now + self._rng.random() * 0.2, go)

    def _pop(self, node: CacheNode, client: int, key: bytes) -> None:
        """As ``Cache.take`` does."""
        began = self._cluster.now

        def found(outcomes: Outcomes) -> None:
            outcome = outcomes[0] if outcomes else None
            if not isinstance(outcome, Result) or not node.running:
                self._next(node, client)
                return
            self._record(client, "get", key, None, began, outcome, lambda result: result.value)
            asked, value = self._cluster.now, outcome.value

            def gone(outcomes: Outcomes) -> None:
                self._record(client, "cas", key, (value, None), asked, outcomes[0] if outcomes else None)
                self._next(node, client)

            take = Op(Kind.CAS, key, number=outcome.version)
            self._cluster.operate(node, [take], TIMEOUT, gone)

        self._cluster.operate(node, [Op(Kind.GET, key)], TIMEOUT, found)

    def _clear(self, node: CacheNode, client: int) -> None:
        """Clear the partitions that our keys are in."""
        began = self._cluster.now
        kept = [*self._keys, *(b"c" + key for key in self._keys)]
        keys = [*kept, *(b"\x00lock\x00" + key for key in self._keys)]
        places = list(dict.fromkeys(partition_of(key) for key in kept))

        def done(outcomes: Outcomes) -> None:
            for index, place in enumerate(places):
                outcome = outcomes[index] if outcomes else None
                for key in keys:
                    if partition_of(key) == place:
                        self._record(client, "clear", key, None, began, outcome, lambda _: True)
            self._next(node, client)

        self._cluster.operate(node, [Op(Kind.CLEAR, CLEAR_KEYS[place]) for place in places], TIMEOUT, done)
