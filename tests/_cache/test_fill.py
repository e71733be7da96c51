"""Backups get whole copies, equal to the primary's, and are compared from time to time."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.definition import Limits
from mycorrizal._cache.entry import NEVER
from mycorrizal._cache.handover import copy_of
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.placement import Owner, partition_of
from mycorrizal.exceptions import RemoteProtocolError
from tests._cache.harness import Caches, make_machine, space_in


def pair(**limits: float) -> tuple[Caches, bytes]:
    caches = Caches(2, limits=Limits(**limits))  # type: ignore[arg-type]
    (key,) = caches.owned_by(0)
    caches.set(0, key, b"v")
    return caches, key


def test_equal_copies_are_not_pushed() -> None:
    caches, _ = pair()
    pushed = sum(node.machine.counters().get("fill_bytes", 0) for node in caches.nodes)
    caches.cluster.suspect([caches.nodes[0]], caches.nodes[1], 0.2)
    caches.cluster.run(3.0)
    assert sum(node.machine.counters().get("fill_bytes", 0) for node in caches.nodes) == pushed
    assert caches.synced(0)


def test_audit_gives_a_backup_what_it_lost() -> None:
    caches, key = pair(audit_interval=2.0)
    caches.space(1).store.discard(partition_of(key), key)
    assert caches.holders(key) == [0]
    caches.cluster.run(4.0)
    assert caches.holders(key) == [0, 1]


def test_audit_takes_from_a_backup_what_the_primary_dropped() -> None:
    """As by eviction: copies are equal afterwards."""
    caches, key = pair(audit_interval=2.0)
    caches.cluster.run(0.1)
    caches.space(0).store.discard(partition_of(key), key)
    caches.cluster.run(4.0)
    assert caches.holders(key) == []


def test_backup_with_something_newer_makes_the_primary_ask_everybody() -> None:
    caches, key = pair(audit_interval=2.0)
    newer = caches.space(0).core.clock.peek() + 1
    caches.space(1).store.put(key, b"newer", newer, NEVER)
    caches.cluster.run(0.1)
    caches.space(0).core.clock.observe(newer, caches.cluster.now + caches.nodes[0].offset)
    caches.cluster.run(5.0)
    assert caches.get(0, key) == b"newer"
    assert caches.nodes[0].machine.counters()["deposed"] == 1


def test_write_during_a_fill_is_not_taken_for_surplus() -> None:
    caches = Caches(2, limits=Limits(batch_records=1, rebalance_rate=2000.0))
    place = partition_of(b"k")
    keys = [key for key in (b"%d" % index for index in range(20_000)) if partition_of(key) == place][:30]
    primary = caches.owners(b"k")[0]
    for key in keys:
        caches.set(primary, key, b"x" * 50)
    other = caches.nodes[1 - primary]
    caches.cluster.crash(other, noticed=False)
    caches.cluster.restart(other)
    caches.cluster.run(0.5)
    assert not caches.synced(primary, timeout=0.1)
    caches.set(primary, b"k", b"meanwhile")
    caches.one(primary, Op(Kind.DELETE, keys[-1]))
    assert caches.synced(primary)
    assert caches.holders(b"k") == [0, 1]
    assert caches.holders(keys[-1]) == []
    for index in range(2):
        assert len(caches.space(index).store.tables[place]) == 30


def test_copies_are_equal_after_a_fill() -> None:
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v") for index in range(300)])
    caches.do(0, *[Op(Kind.DELETE, b"key%d" % index) for index in range(0, 300, 7)])
    caches.cluster.crash(caches.nodes[1])
    caches.cluster.run(1.0)
    caches.cluster.restart(caches.nodes[1])
    assert caches.synced(0)
    caches.cluster.run(3.0)
    assert caches.synced(1)
    for place in range(256):
        owners = [int(owner.name[1:]) for owner in caches.space(0).shards[place].owners]
        copies = [copy_of(caches.space(index), caches.space(index).shards[place]) for index in owners]
        assert copies[0].size == copies[1].size and copies[0].digest == copies[1].digest


def test_backlog_that_nobody_waits_for_is_bounded_and_filled_instead() -> None:
    caches = Caches(2, sync_backups=False, limits=Limits(backlog_records=20))
    keys = caches.owned_by(0, count=200)
    caches.cluster.links.cut(0, 1)
    for key in keys:
        caches.set(0, key, b"v")
    assert caches.nodes[0].machine.counters()["replication_dropped"] > 0
    assert not caches.synced(0, timeout=0.3)
    caches.cluster.links.heal()
    assert caches.synced(0)
    assert all(caches.holders(key) == [0, 1] for key in keys)


def test_many_partitions_are_pushed_in_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = Caches(2)
    caches.cluster.crash(caches.nodes[1])
    caches.cluster.run(2.0)
    keys = [b"%d" % index for index in range(2000)]
    for start in range(0, 2000, 500):
        caches.do(0, *[Op(Kind.SET, key, value=b"v%s" % key) for key in keys[start : start + 500]])
    caches.cluster.restart(caches.nodes[1])
    taken: list[int] = []
    pushed = caches.space(1).fill.pushed

    def seen(sender: Owner, body: list[Any], now: float) -> list[Any] | None:
        taken.append(len(body[0]))
        return pushed(sender, body, now)

    monkeypatch.setattr(caches.space(1).fill, "pushed", seen)
    caches.cluster.run(3.0)
    assert caches.synced(0) and caches.synced(1)
    assert all(caches.holders(key) == [0, 1] for key in keys)
    assert sum(taken) > 100 and len(taken) <= 6, "partitions, and messages"


def test_a_large_partition_is_pushed_in_pieces_beside_others() -> None:
    caches = Caches(2, limits=Limits(batch_records=7))
    caches.cluster.crash(caches.nodes[1])
    caches.cluster.run(2.0)
    place = partition_of(b"k")
    large = [key for key in (b"%d" % index for index in range(9000)) if partition_of(key) == place][:30]
    keys = [*large, *[b"other%d" % index for index in range(60)]]
    for key in keys:
        caches.set(0, key, b"v")
    caches.cluster.restart(caches.nodes[1])
    caches.cluster.run(4.0)
    assert caches.synced(0) and all(caches.holders(key) == [0, 1] for key in keys)


def test_a_record_of_another_partition_than_the_pieces_is_refused() -> None:
    machine = make_machine()
    space, peer = space_in(machine), Owner("peer", b"peerboot")
    piece = [0, 1, True, True, [0, 0, 0], []]
    other = next(key for key in (b"%d" % index for index in range(99)) if partition_of(key))
    for body in ([[piece], [[other, b"v", 5]]], [[[*piece[:5]]], []], [[[256, *piece[1:]]], []], [7, []]):
        with pytest.raises(RemoteProtocolError):
            space.fill.pushed(peer, body, 0.0)
    assert space.fill.pushed(peer, [[piece, piece], []], 0.0) is None and space.store.entries == 0


def test_who_does_not_take_what_it_is_sent_is_behind() -> None:
    caches = Caches(2, sync_backups=False)
    keys = caches.owned_by(0, count=3)
    caches.cluster.links.cut(0, 1)
    caches.set(0, keys[0], b"v")
    caches.cluster.run(6.0)
    caches.set(0, keys[1], b"v")
    assert caches.space(0).replication.behind and not caches.space(0).synced
    caches.cluster.links.heal()
    assert caches.synced(0) and caches.holders(keys[1]) == [0, 1]
