"""Cache machines in virtual time for tests: a simulated cluster, and calls that wait for their completion."""

from __future__ import annotations

from random import Random
from typing import Any

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine, Later
from mycorrizal._cache.messages import Payload, Reply, Request, decode_reply, encode
from mycorrizal._cache.operations import Kind, Op, Result
from mycorrizal._cache.placement import Owner, partition_of
from mycorrizal._cache.space import Space
from mycorrizal._wire.values import Codecs, Encoded, decode_packed
from mycorrizal.exceptions import CacheError
from mycorrizal.simulation.faults import Faults
from simulated.cache_cluster import CacheCluster, CacheNode


class Bytes:
    """A payload as it arrives from a peer."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def decode(self, codecs: Codecs) -> object:
        return decode_packed(self.data, codecs)


def arrived(message: Encoded | Request | Reply) -> Payload:
    """Return a message as its receiver gets it."""
    return Bytes((message if isinstance(message, Encoded) else encode(message)).pack())


def make_machine(name: str = "me", *, now: float = 0.0, limits: Limits | None = None, **settings: Any) -> CacheMachine:
    """Return a machine that knows nobody, with one cache ``c``."""
    machine = CacheMachine(name, name.encode().ljust(8), rng=Random(1), wall=1.8e9, now=now, limits=limits)
    machine.define(Definition("c", **settings), now)
    return machine


def space_in(machine: CacheMachine) -> Space:
    """Return the one cache of a machine."""
    return next(iter(machine.spaces()))


def run_due(machine: CacheMachine, now: float) -> None:
    """Have a machine do what it put off to its next turn."""
    while (due := machine.get_timer()) is not None and due <= now:
        machine.handle_timer(now)


def ask(machine: CacheMachine, *ops: Op, now: float = 0.0, deadline: float | None = None) -> Any:
    """Run operations on a machine that needs nobody; return the outcomes, None while there are none."""
    machine.operate("c", ops, "ticket", now + 5.0 if deadline is None else deadline, now)
    run_due(machine, now)
    return next((outcome for ticket, outcome in machine.completions() if ticket == "ticket"), None)


def reply_of(answer: Encoded | Later) -> Reply:
    """Return what a machine answered to a request."""
    assert isinstance(answer, Encoded)
    return decode_reply(arrived(answer))


class Unopened(CacheMachine):
    """What the cluster defines at the start is not opened yet."""

    asked = False

    def define(self, cache: Definition, now: float, redefine: bool = False, telling: float = 0.0) -> Definition:
        if not self.asked:
            self.asked = True
            return cache
        return super().define(cache, now, redefine, telling)


class Caches:
    """A quiet simulated cluster with a cache ``c``."""

    def __init__(self, size: int = 3, *, seed: object = 1, limits: Limits | None = None, **settings: Any) -> None:
        spread = settings.pop("spread", 0.05)
        self.cluster = CacheCluster(
            size, seed=seed, definition=Definition("c", **settings), limits=limits,
            faults=Faults(delay=0.001, jitter=0.0), spread=spread,
        )  # fmt: skip
        self.cluster.run(1.0)

    @property
    def nodes(self) -> list[CacheNode]:
        return self.cluster.nodes

    def space(self, index: int) -> Space:
        return space_in(self.nodes[index].machine)

    def start(self, index: int, *ops: Op, timeout: float = 3.0) -> list[Any]:
        """Begin operations on a node; the list returned gets the completion."""
        found: list[Any] = []
        self.cluster.ask(
            self.nodes[index], lambda machine, ticket, now: machine.operate("c", ops, ticket, now + timeout, now),
            found.append,
        )  # fmt: skip
        return found

    def do(self, index: int, *ops: Op, timeout: float = 3.0) -> list[Result | CacheError]:
        """Run operations on a node and wait."""
        found = self.start(index, *ops, timeout=timeout)
        assert self.cluster.run_until(lambda: bool(found), timeout + 1.0), "no completion"
        outcomes: list[Result | CacheError] = found[0]
        return outcomes

    def one(self, index: int, op: Op, timeout: float = 3.0) -> Result:
        """Run one operation that must have a result."""
        (outcome,) = self.do(index, op, timeout=timeout)
        assert isinstance(outcome, Result), outcome
        return outcome

    def get(self, index: int, key: bytes) -> bytes | None:
        return self.one(index, Op(Kind.GET, key)).value

    def set(self, index: int, key: bytes, value: bytes, **more: Any) -> Result:
        return self.one(index, Op(Kind.SET, key, value=value, **more))

    def synced(self, index: int, timeout: float = 20.0) -> bool:
        found: list[bool] = []
        self.cluster.ask(
            self.nodes[index],
            lambda machine, ticket, now: machine.synced("c", ticket, now + timeout, now),
            found.append,
        )
        self.cluster.run_until(lambda: bool(found), timeout + 1.0)
        return found == [True]

    def owners(self, key: bytes, by: int = 0) -> list[int]:
        """Return the nodes that own `key`, by the view of one."""
        return [int(owner.name[1:]) for owner in self.space(by).shards[partition_of(key)].owners]

    def holders(self, key: bytes) -> list[int]:
        """Return the nodes that have `key`."""
        found = []
        for node in self.cluster.running:
            entry = space_in(node.machine).store.get(key, self.cluster.now + node.offset)
            if entry is not None:
                found.append(node.index)
        return found

    def owned_by(self, index: int, *, count: int = 1, by: int | None = None) -> list[bytes]:
        """Return keys that `index` is primary of."""
        keys = (b"key%d" % number for number in range(10_000))
        found = [key for key in keys if self.owners(key, index if by is None else by)[0] == index]
        return found[:count]


__all__ = ["Bytes", "Caches", "Owner", "Unopened", "arrived", "ask", "make_machine", "reply_of", "space_in"]
