"""Many agents open one cache at once: how many messages that takes, and how long."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from mycorrizal._cache import machine as machine_module
from mycorrizal._cache.core import Call
from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.entry import NEVER
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import Answer, Message, Request, decode_request
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.shard import Outcome, Shard
from mycorrizal._cache.space import Space
from mycorrizal._cache.store import Store
from mycorrizal.simulation.faults import Faults
from simulated.cache_cluster import CacheCluster, CacheNode
from tests._cache.harness import Caches, Unopened, arrived, ask, make_machine, reply_of, run_due, space_in


class Opening(CacheCluster):
    """Nodes that know each other, and open a cache within `within` seconds; each hears of that within `spread`."""

    def __init__(self, size: int, *, within: float, spread: float) -> None:
        self.heard: list[dict[str, Definition]] = [{} for _ in range(size)]
        self.kinds: Counter[Message] = Counter()
        self.ended: list[bool] = []
        faults = Faults(delay=0.001, jitter=0.001)
        super().__init__(size, seed=1, definition=Definition("c"), faults=faults, spread=spread, machine=Unopened)
        for node in self.nodes:
            self.at(self.random.random() * within, lambda node=node: self._open_at(node))

    def _open_at(self, node: CacheNode) -> None:
        now = self.now + node.offset
        node.machine.define(self.definition, now)
        self.pull(node)
        self.ask(node, lambda machine, ticket, now: machine.synced("c", ticket, now + 60.0, now), self.ended.append)
        for other in self.nodes:
            if other is not node:
                at = self.now + self.random.random() * self.spread
                self.at(at, lambda other=other: self._hear(other, node))

    def _hear(self, node: CacheNode, other: CacheNode) -> None:
        self.heard[node.index][other.name] = self.definition
        self._show(node)

    def _show(self, node: CacheNode) -> None:
        heard = self.heard[node.index]
        names = {other.name: {"c": heard[other.name]} if other.name in heard else {} for other in self.nodes}
        view = {other.name: (other.boot, names[other.name]) for other in self.nodes}
        node.machine.members_changed(view, self.now + node.offset)
        self.pull(node)

    def _start(self, source: CacheNode, call: Call) -> None:
        self.kinds[Message(decode_request(arrived(call.payload)).kind)] += 1
        super()._start(source, call)


def opened(size: int, *, within: float = 0.05, spread: float = 0.3) -> Opening:
    """Return a cluster in which everybody has opened the cache and waited for ``synced``, half a second too long."""
    cluster = Opening(size, within=within, spread=spread)
    assert cluster.run_until(lambda: len(cluster.ended) == size, within + spread + 0.5), cluster.ended
    assert all(cluster.ended)
    assert all(len(space.members) == size for node in cluster.nodes for space in node.machine.spaces())
    return cluster


def test_synced_does_not_reach_everybody_from_everywhere() -> None:
    """One round brought 870 messages, and each pair of 30 a connection; there were 3 and more rounds."""
    kinds = opened(30).kinds
    assert kinds[Message.SYNCED] + kinds[Message.ALL_SYNCED] < 20 * 30


def test_copies_in_which_nothing_ever_was_are_not_offered() -> None:
    kinds = opened(30).kinds
    assert not kinds[Message.OFFER] and not kinds[Message.PUSH]


def synced(caches: Caches, index: int, timeout: float) -> list[Any]:
    found: list[Any] = []
    caches.cluster.ask(
        caches.nodes[index], lambda machine, ticket, now: machine.synced("c", ticket, now + timeout, now), found.append
    )
    return found


def test_synced_shares_the_round_that_begins_after_it_was_asked_for() -> None:
    """Not the one under way: what was not in place then may have been asked already."""
    caches = Caches(3)
    calls = caches.cluster.counters["calls"]
    found = [synced(caches, index, 5.0) for index in (0, 1, 2) for _ in range(20)]
    caches.cluster.run(0.1)
    assert found == [[True]] * 60, found
    assert caches.cluster.counters["calls"] - calls <= 40 + 4 * 2


def test_synced_of_who_asks_a_member_that_does_not_answer_asks_another_one() -> None:
    caches = Caches(4)
    caches.cluster.links.cut(3, 0)
    found = synced(caches, 3, 10.0)
    caches.cluster.run(9.0)
    assert found == [True]


def test_a_copy_whose_entries_are_gone_is_not_one_in_which_nothing_ever_was() -> None:
    """A backup may have them still."""
    store = Store(Definition("c", max_entries=1), Limits())
    place = partition_of(b"first")
    assert store.pristine(place)
    store.put(b"first", b"v", 1, NEVER)
    store.put(b"second", b"v", 2, NEVER)
    assert not store.holds(place) and not store.pristine(place)
    store.forget(place)
    assert store.pristine(place)


def test_what_is_in_a_forced_takeover_reaches_the_backups_once_it_is_heard() -> None:
    """It serves nothing when it begins to; the copies come with the member that was waited for."""
    caches = Caches(4, limits=Limits(takeover_patience=1.0), replicas=2)
    keys = caches.owned_by(3, count=20)
    caches.do(3, *[Op(Kind.SET, key, value=key) for key in keys])
    caches.cluster.split({3}, {0, 1, 2})
    caches.cluster.run(3.0)
    caches.cluster.heal()
    caches.cluster.run(6.0)
    assert caches.synced(0)
    assert all(sorted(caches.holders(key)) == sorted(caches.owners(key)) for key in keys)


def opening(names: list[str]) -> tuple[CacheMachine, list[Space]]:
    """Return a machine that opens "c" and hears meanwhile, one by one, that others do; and what was placed."""
    placed: list[Space] = []

    class Noted(Space):
        def _place(self, *args: Any) -> None:
            placed.append(self)
            super()._place(*args)

    machine = CacheMachine("me", b"me      ", rng=Random(1), wall=1.8e9, now=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_module, "Space", Noted)
        machine.define(Definition("c"), 1.0, telling=2.0)
    for number in range(len(names)):
        heard = {name: (name.encode().ljust(8), {"c": Definition("c")}) for name in names[: number + 1]}
        machine.members_changed(heard, 1.1)
    return machine, placed


def test_partitions_are_placed_once_for_all_who_open_a_cache_meanwhile() -> None:
    machine, placed = opening(["bob", "eve", "joe"])
    assert not placed and not any(shard.owners for space in machine.spaces() for shard in space.shards)
    machine.told("c", 1.2)
    run_due(machine, 1.7)
    (space,) = placed
    assert [owner.name for owner in space.members] == ["bob", "eve", "joe", "me"]


def test_they_are_placed_for_who_asks_before_everybody_was_told_and_at_the_end_of_that_time() -> None:
    machine, placed = opening(["bob"])
    request = Request(Message.CLAIM, b"me      ", b"bob     ", 0, "c", [bytes([255] * 32)])
    claimed = reply_of(machine.receive("bob", arrived(request), 1.2))
    assert claimed.status == Answer.OK and any(claimed.body[1]) and len(placed) == 1, "bob has what it may ask for"
    for begin in (lambda machine: ask(machine, Op(Kind.GET, b"k"), now=1.2), lambda machine: run_due(machine, 3.2)):
        machine, placed = opening(["bob"])
        begin(machine)
        assert len(placed) == 1
    machine, placed = opening(["bob"])
    machine.members_changed({}, 1.3)
    machine.told("c", 1.4)
    run_due(machine, 1.9)
    assert [len(space.members) for space in placed] == [1], "who came and went was never a member"


def test_an_empty_cache_is_not_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine()
    space = space_in(machine)
    assert space.is_empty
    held: list[Shard] = []

    def holds(space: Space, shard: Shard) -> bool:
        held.append(shard)
        return False

    monkeypatch.setattr(Space, "holds", holds)
    machine.members_changed({"bob": (b"bob     ", {"c": Definition("c")})}, 1.0)
    held.clear()
    run_due(machine, 1.5)
    assert held == []
    monkeypatch.undo()
    space.store.put(b"k", b"v", 1, NEVER)
    assert not space.is_empty
    space.store.forget(partition_of(b"k"))
    assert space.is_empty
    space.shards[7].outcomes[1] = Outcome(0, 0, 0, 0.0)
    assert not space.is_empty


def test_nobody_is_asked_before_it_has_heard_of_us() -> None:
    """It would refuse. Of 50 caches that 9 agents opened at once, most claims were refused."""
    machine = CacheMachine("me", b"me      ", rng=Random(1), wall=1.8e9, now=0.0)
    machine.members_changed({"other": (b"otherboo", {"c": Definition("c"), "d": Definition("d")})}, 0.0)
    machine.define(Definition("c"), 1.0, telling=1.0)
    machine.define(Definition("d"), 1.0, telling=1.0)
    run_due(machine, 1.9)
    assert not machine.calls_to_start()
    machine.told("c", 1.9)
    run_due(machine, 2.7)
    assert not machine.calls_to_start(), "others may be as late"
    run_due(machine, 2.9)
    (call,) = machine.calls_to_start()
    many = decode_request(arrived(call.payload))
    assert [row[1] for row in many.body] == ["c", "d"], "nobody said that it was told"
    assert not any(shard.serving for space in machine.spaces() for shard in space.shards if shard.claim is not None)
