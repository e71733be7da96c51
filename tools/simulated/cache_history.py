"""Clients of the simulated cache: concurrent callers on every node, and the record of what they saw."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from mycorrizal._cache.operations import Batch, Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.reading import held
from mycorrizal._cache.survey import CLEAR_KEYS
from mycorrizal.exceptions import CacheOutcomeUnknown, MycorrizalError

from .cache_cluster import CacheCluster, CacheNode
from .linearizable import FOREVER, Event

__all__ = ["ALL_KINDS", "Clients", "LockEvent", "NearRead"]

ALL_KINDS = ("get", "get", "set", "expiring", "expiring", "delete", "delete", "lease", "clear", "many")
"""What is done where histories need not be linearizable: also what expires, and clearing everything."""

_KINDS = ("get", "get", "get", "set", "set", "delete", "add", "cas", "incr", "incr", "lock", "many")
LEASE = 2.0
TIMEOUT = 3.0


class NearRead(NamedTuple):
    """What a caller read without a call; ``copy``: a near copy."""

    key: bytes
    version: int
    at: float
    client: int
    copy: bool


class LockEvent:
    """A lock that was held: when, by which token."""

    __slots__ = ("asked", "granted", "key", "released", "token")

    def __init__(self, key: bytes, token: int, asked: float, granted: float) -> None:
        self.key = key
        self.token = token
        self.asked = asked
        self.granted = granted
        self.released = asked + LEASE  # the holder counts from when it asked


class Clients:
    """Callers that do one operation after another until they are stopped.

    Attributes:
        events: what was called and answered.
        locks: the locks that were granted.
        near: what was read without a call.
        per_node: how many clients each node has; client ``n`` is on node ``n // per_node``.
    """

    def __init__(
        self,
        cluster: CacheCluster,
        seed: object,
        *,
        per_node: int = 2,
        keys: int = 6,
        think: float = 0.2,
        kinds: Sequence[str] = _KINDS,
    ) -> None:
        self.events: list[Event] = []
        self.locks: list[LockEvent] = []
        self.near: list[NearRead] = []
        self.per_node = per_node
        self.refused = 0
        self.unknown = 0
        self.stopped = False
        self._cluster = cluster
        self._rng = Random(f"{seed}/clients")
        self._batches = Random(f"{seed}/batches")
        self._kinds = kinds
        self._think = think
        self._keys = [b"k%d" % index for index in range(keys)]
        self._values = 0
        for node in cluster.nodes:
            for number_ in range(per_node):
                self._next(node, node.index * per_node + number_)

    def _next(self, node: CacheNode, client: int) -> None:
        if not self.stopped:
            pause = self._rng.expovariate(1.0) * self._think
            self._cluster.at(self._cluster.now + pause, lambda: self._act(node, client))

    def _act(self, node: CacheNode, client: int) -> None:
        if self.stopped:
            return
        rng = self._rng
        kind = self._kinds[int(rng.random() * len(self._kinds))]
        key = self._keys[int(rng.random() * len(self._keys))]
        if node.running:
            self._begin(kind, node, client, key)
        else:
            self._next(node, client)

    def _begin(self, kind: str, node: CacheNode, client: int, key: bytes) -> None:
        """Do one operation, then the next."""
        if kind == "lock":
            self._lock(node, client, b"\x00lock\x00" + key)
        elif kind == "near":
            self._near(node, client, key)
        elif kind == "expiring":
            self._do(node, client, [("set", key, self._value())], ttl=1 + int(self._rng.random() * 3000))
        elif kind == "lease":
            self._lease(node, client, key)
        elif kind == "clear" and self._rng.random() < 0.1:  # 256 operations
            self._clear(node, client)
        elif kind == "many":
            self._many(node, client)
        elif kind == "incr":
            self._do(node, client, [("incr", b"c" + key, int(self._rng.random() * 3) + 1)])
        elif kind == "cas":
            self._cas(node, client, key)
        else:
            kind = "get" if kind == "clear" else kind
            self._do(node, client, [(kind, key, self._value())], ttl=15_000 if "expiring" in self._kinds else 0)

    def _value(self) -> bytes:
        self._values += 1
        return b"v%d" % self._values

    def _many(self, node: CacheNode, client: int) -> None:
        """Do several things at once: the same with all keys, as a batch, or reads and writes in turn."""
        drawn = self._batches.random()
        kind = "set" if drawn < 0.3 else "get" if drawn < 0.5 else "delete" if drawn < 0.6 else None
        steps = [
            (kind or ("set" if index % 2 else "get"), key, self._value()) for index, key in enumerate(self._keys)
        ]
        self._do(node, client, steps, ttl=15_000 if "expiring" in self._kinds else 0, together=kind is not None)

    def _cas(self, node: CacheNode, client: int, key: bytes) -> None:
        """Read, then swap what was read."""
        known = [event for event in self.events[-30:] if event.key == key and event.kind == "get" and event.answer]
        expected = known[-1].answer if known else b"nothing"
        self._do(node, client, [("cas", key, (expected, self._value()))])

    def _near(self, node: CacheNode, client: int, key: bytes) -> None:
        """Read as ``Cache.get`` does: what is held here, else ask the primary."""
        machine, name = node.machine, self._cluster.definition.name
        near = machine.near(name)
        entry = held(machine.readable(name), near, key, self._cluster.now + node.offset)
        if entry is not None:
            copy = entry is near.tables[partition_of(key)].get(key)
            self.near.append(NearRead(key, entry.version, self._cluster.now, client, copy))
            self._next(node, client)
        else:
            self._do(node, client, [("get", key, None)])

    def _lease(self, node: CacheNode, client: int, key: bytes) -> None:
        """Get, or compute, or fail to."""
        takes, dies = self._rng.random() * 0.5, self._rng.random() < 0.2

        def leased(outcomes: list[Result | MycorrizalError] | None) -> None:
            outcome = outcomes[0] if outcomes else None
            if isinstance(outcome, Result) and outcome.status == Status.LEASED and not dies:
                self._cluster.at(self._cluster.now + takes, lambda: computed(outcome.number))
            else:
                self._next(node, client)

        def computed(token: int) -> None:
            if node.running:
                self._do(node, client, [("set", key, self._value())], ttl=2000, token=token)
            else:
                self._next(node, client)

        lease = Op(Kind.LEASE, key, number=300, wait=1000, early=500)
        self._cluster.operate(node, [lease], TIMEOUT, leased)

    def _clear(self, node: CacheNode, client: int) -> None:
        ops = [Op(Kind.CLEAR, key) for key in CLEAR_KEYS]
        self._cluster.operate(node, ops, TIMEOUT, lambda _: self._next(node, client))

    def _do(
        self, node: CacheNode, client: int, steps: list[tuple[str, bytes, Any]], *, ttl: int = 0, token: int = 0,
        together: bool = False,
    ) -> None:  # fmt: skip
        began = self._cluster.now
        ops = [_op(*step) for step in steps]
        batch = Batch(ops[0].kind, [op.key for op in ops], [op.value for op in ops if op.value is not None], ttl)
        if ttl:
            ops = [op._replace(ttl=ttl, number=token) for op in ops]

        def done(outcomes: list[Result | MycorrizalError] | None) -> None:
            now = self._cluster.now
            for place, (kind, key, argument) in enumerate(steps):
                outcome = outcomes[place] if outcomes is not None else None
                if outcome is None or isinstance(outcome, CacheOutcomeUnknown):
                    self.unknown += 1
                    self.events.append(Event(client, key, kind, argument, began, FOREVER))
                elif isinstance(outcome, Result):
                    answer = _answer(kind, outcome)
                    self.events.append(Event(client, key, kind, argument, began, now, answer, outcome.version))
                else:
                    self.refused += 1
            self._next(node, client)

        self._cluster.operate(node, batch if together else ops, TIMEOUT, done)

    def _lock(self, node: CacheNode, client: int, key: bytes) -> None:
        asked = self._cluster.now
        wait = 500 if self._rng.random() < 0.5 else 0
        forgets = self._rng.random() < 0.2
        op = Op(Kind.LOCK, key, value=b"%d" % client, ttl=int(LEASE * 1000), wait=wait)

        def locked(outcomes: list[Result | MycorrizalError] | None) -> None:
            outcome = outcomes[0] if outcomes else None
            if not isinstance(outcome, Result) or outcome.status != Status.OK:
                self._next(node, client)
                return
            held = LockEvent(key, outcome.version, asked, self._cluster.now)
            self.locks.append(held)
            if forgets:
                self._next(node, client)
            else:
                self._cluster.at(self._cluster.now + self._rng.random() * 0.5, lambda: unlock(held))

        def unlock(held: LockEvent) -> None:
            held.released = min(held.released, self._cluster.now)
            if node.running:
                release = Op(Kind.UNLOCK, key, number=held.token)
                self._cluster.operate(node, [release], TIMEOUT, lambda _: self._next(node, client))
            else:
                self._next(node, client)

        self._cluster.operate(node, [op], TIMEOUT, locked)


def _op(kind: str, key: bytes, argument: Any) -> Op:
    if kind == "get":
        return Op(Kind.GET, key)
    if kind == "set":
        return Op(Kind.SET, key, value=argument)
    if kind == "delete":
        return Op(Kind.DELETE, key)
    if kind == "add":
        return Op(Kind.ADD, key, value=argument)
    if kind == "cas":
        return Op(Kind.CAS, key, expected=argument[0], value=argument[1])
    return Op(Kind.INCR, key, number=argument)


def _answer(kind: str, result: Result) -> Any:
    if kind == "get":
        return result.value
    if kind == "incr":
        return result.number
    return result.status == Status.OK


