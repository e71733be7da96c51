"""The primary: one write on a key at a time, retries recognised, bounds, and what happens when it resigns."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.definition import Limits
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import Owner, partition_of
from mycorrizal._cache.shard import Pending
from mycorrizal._cache.survey import CLEAR_KEYS
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import CacheOutcomeUnknown
from tests._cache.harness import Caches, ask, make_machine, space_in

SOMEBODY = Owner("x", b"12345678")


def submit(caches: Caches, index: int, op: Op) -> list[Result]:
    """Give an operation to a node as if a peer had sent it."""
    node = caches.nodes[index]
    found: list[Result] = []
    now = caches.cluster.now + node.offset
    caches.space(index).primary.submit(Pending(op, SOMEBODY, lambda result, _: found.append(result), now + 5.0), now)
    caches.space(index).flush(now)
    caches.cluster.pull(node)
    caches.cluster.run(0.1)
    return found


def test_readers_see_what_was_before_until_the_write_is_done() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(0)
    caches.set(0, key, b"before")
    caches.cluster.links.cut(0, 1)
    caches.start(0, Op(Kind.SET, key, value=b"after"))
    assert caches.get(0, key) == b"before"
    caches.cluster.links.heal()
    caches.cluster.run(6.0)
    assert caches.get(0, key) == b"after"


def test_writes_on_one_key_queue_and_all_count() -> None:
    caches = Caches(3)
    found = [caches.start(index % 3, Op(Kind.INCR, b"n", number=1)) for index in range(50)]
    caches.cluster.run(2.0)
    assert sorted(outcome[0][0].number for outcome in found) == list(range(1, 51))


def test_retry_is_answered_alike_and_done_once() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(0)
    first = submit(caches, 0, Op(Kind.INCR, key, 77, number=1))
    caches.one(0, Op(Kind.INCR, key, number=10))
    again = submit(caches, 0, Op(Kind.INCR, key, 77, age=100, number=1))
    assert first[0].number == again[0].number == 1
    assert caches.get(0, key) == encode_value(11).pack()


def test_backup_that_becomes_primary_recognises_a_retry() -> None:
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    submit(caches, 0, Op(Kind.INCR, key, 77, number=1))
    backup = caches.owners(key)[1]
    caches.cluster.crash(caches.nodes[0])
    caches.cluster.run(1.0)
    again = submit(caches, backup, Op(Kind.INCR, key, 77, age=1000, number=1))
    assert again[0].number == 1
    assert caches.nodes[backup].machine.counters()["retries_recognised"] == 1


def test_primary_that_took_over_from_the_living_recognises_a_retry() -> None:
    """Even of a write that left no entry: outcomes are handed over."""
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    caches.set(0, key, b"v")
    caches.cluster.crash(caches.nodes[0])
    caches.cluster.run(1.0)
    primary = caches.owners(key, 1)[0]
    assert submit(caches, primary, Op(Kind.DELETE, key, 78))[0].status == Status.OK
    caches.cluster.restart(caches.nodes[0])
    caches.cluster.run(2.0)
    assert caches.owners(key, 1)[0] == 0
    assert submit(caches, 0, Op(Kind.DELETE, key, 78, age=2500))[0].status == Status.OK


def test_retry_of_what_is_forgotten_is_not_done_again() -> None:
    machine = make_machine(limits=Limits(outcomes=2))
    place = partition_of(b"k")
    keys = [key for key in (b"%d" % index for index in range(5000)) if partition_of(key) == place][:3]
    ask(machine, Op(Kind.INCR, b"k", 5, number=1), now=1.0)
    for key in keys:
        ask(machine, Op(Kind.SET, key, value=b"v"), now=2.0)
    found: list[Result] = []
    retry = Op(Kind.INCR, b"k", 5, age=2000, number=1)
    space_in(machine).primary.submit(Pending(retry, SOMEBODY, lambda result, _: found.append(result), 9.0), 3.0)
    assert found[0].status == Status.FORGOTTEN


def test_outcomes_are_kept_for_a_time_and_a_number() -> None:
    machine = make_machine(limits=Limits(outcomes=10, outcomes_age=60.0))
    shard = space_in(machine).shards[partition_of(b"k")]
    for index in range(30):
        ask(machine, Op(Kind.INCR, b"k", number=1), now=float(index))
    assert len(shard.outcomes) == 10
    ask(machine, Op(Kind.INCR, b"k", number=1), now=200.0)
    assert len(shard.outcomes) == 1


def test_queue_for_one_key_is_bounded() -> None:
    caches = Caches(2, limits=Limits(waiting=3))
    (key,) = caches.owned_by(0)
    caches.cluster.links.cut(0, 1)
    space = caches.space(0)
    statuses: list[int] = []
    for _ in range(6):
        op = Op(Kind.SET, key, value=b"v")
        pending = Pending(op, SOMEBODY, lambda result, _: statuses.append(result.status), 1e9)
        space.primary.submit(pending, caches.cluster.now + caches.nodes[0].offset)
    assert statuses == [Status.BUSY] * 2


def test_writes_under_way_are_bounded() -> None:
    caches = Caches(2, limits=Limits(operations=3))
    keys = caches.owned_by(0, count=5)
    caches.cluster.links.cut(0, 1)
    statuses: list[int] = []
    for key in keys:
        op = Op(Kind.SET, key, value=b"v")
        pending = Pending(op, SOMEBODY, lambda result, _: statuses.append(result.status), 1e9)
        caches.space(0).primary.submit(pending, caches.cluster.now + caches.nodes[0].offset)
    assert statuses == [Status.BUSY] * 2


def test_write_under_way_when_the_primary_resigns_is_done_once() -> None:
    """The backup cannot be reached, then the primary moves: it is handed over, and the caller's retry finds it."""
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    caches.set(0, key, encode_value(5).pack())
    caches.cluster.crash(caches.nodes[0])
    caches.cluster.run(1.0)
    primary = caches.owners(key, 1)[0]
    backup = 3 - primary
    caches.cluster.links.cut(primary, backup)
    found = caches.start(primary, Op(Kind.INCR, key, number=1), timeout=20.0)
    caches.cluster.run(0.5)
    assert not found
    caches.cluster.links.heal()
    caches.cluster.restart(caches.nodes[0])
    caches.cluster.run(10.0)
    assert found[0][0].number == 6
    assert caches.get(backup, key) == encode_value(6).pack()


def test_backups_that_change_while_a_write_is_under_way_get_it_too() -> None:
    caches = Caches(4)
    (key,) = caches.owned_by(0)
    old = caches.owners(key)[1]
    caches.cluster.links.cut(0, old)
    found = caches.start(0, Op(Kind.SET, key, value=b"v"), timeout=10.0)
    caches.cluster.run(0.3)
    assert not found
    caches.cluster.crash(caches.nodes[old])
    caches.cluster.run(0.5)
    assert isinstance(found[0][0], Result)
    assert sorted(caches.holders(key)) == sorted(caches.owners(key))


def test_read_repair_fetches_what_a_reader_has_seen_elsewhere() -> None:
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    version = caches.set(1, key, b"v").version
    caches.space(0).store.discard(partition_of(key), key)  # lost, by whatever fault
    assert caches.get(1, key) is None
    assert caches.one(1, Op(Kind.GET, key, number=version)).value == b"v"
    assert caches.get(1, key) == b"v"
    assert caches.nodes[0].machine.counters()["read_repairs"] == 1


def test_reader_that_lies_about_versions_is_repaired_once_a_second_at_most() -> None:
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    for _ in range(20):
        assert caches.one(1, Op(Kind.GET, key, number=(1 << 60) - 1)).status == Status.MISSING
    assert caches.nodes[0].machine.counters()["read_repairs"] <= 2


def test_outcome_that_stays_unknown_says_who_had_it() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(1)
    caches.cluster.links.cut(1, 0)
    found: Any = caches.do(0, Op(Kind.SET, key, value=b"v"), timeout=1.0)
    assert isinstance(found[0], CacheOutcomeUnknown) and found[0].node in ("n1", None)


@pytest.mark.parametrize("kind", [Kind.GET, Kind.LEASE])
def test_read_by_another_node_keeps_an_entry_from_being_evicted(kind: Kind) -> None:
    caches = Caches(2, replicas=1, max_entries=3)
    keys = caches.owned_by(1, count=8)
    kept = keys[0]
    for key in (*keys[1:3], kept):
        caches.set(1, key, b"v")
    entry = caches.space(1).store.get(kept, caches.cluster.now + caches.nodes[1].offset)
    assert entry is not None
    entry.visited = False
    assert caches.one(0, Op(kind, kept, number=1000)).value == b"v"
    assert entry.visited
    for key in keys[3:]:
        caches.set(1, key, b"v")
        assert caches.one(0, Op(kind, kept, number=1000)).value == b"v", "what is asked for stays"


@pytest.mark.parametrize("late", [1, 2])
def test_write_with_two_backups_is_done_when_both_have_it(late: int) -> None:
    """Whichever is the slower one."""
    caches = Caches(3, replicas=3)
    (key,) = caches.owned_by(0)
    slow, quick = caches.owners(key)[late], caches.owners(key)[3 - late]
    caches.set(0, key, b"before")
    caches.cluster.links.cut(0, slow)
    found = caches.start(0, Op(Kind.SET, key, value=b"after"), timeout=30.0)
    behind = caches.start(0, Op(Kind.INCR, b"n" + key, number=1), timeout=30.0)
    caches.cluster.run(0.5)
    now = caches.cluster.now + caches.nodes[quick].offset
    copy = caches.space(quick).store.get(key, now)
    assert copy is not None and copy.value == b"after"
    assert not found and caches.get(0, key) == b"before"
    caches.cluster.links.heal()
    caches.cluster.run(8.0)
    assert found[0][0].status == Status.OK and behind
    assert caches.holders(key) == [0, 1, 2] and caches.get(0, key) == b"after"
    assert caches.space(0).primary.flights == 0


def test_write_waits_for_a_backup_that_came_meanwhile() -> None:
    """Both that were there die; who takes their place must have the write before it is said to be done."""
    caches = Caches(4, replicas=2)
    (key,) = caches.owned_by(0)
    backup = caches.owners(key)[1]
    caches.cluster.links.cut(0, backup)
    found = caches.start(0, Op(Kind.SET, key, value=b"v"), timeout=30.0)
    caches.cluster.run(0.3)
    assert not found
    caches.cluster.crash(caches.nodes[backup])
    caches.cluster.run(1.0)
    assert found[0][0].status == Status.OK
    following = caches.owners(key)[1]
    assert following != backup and following in caches.holders(key)


def test_a_primary_that_resigns_gives_back_the_places_of_what_was_under_way() -> None:
    caches = Caches(3, replicas=2)
    (key,) = caches.owned_by(0)
    caches.cluster.links.cut(0, caches.owners(key)[1])
    found = [caches.start(0, Op(Kind.SET, key, value=value), timeout=30.0) for value in (b"v", b"w")]
    caches.cluster.run(0.3)
    space = caches.space(0)
    assert not any(found) and space.primary.flights == 1
    node = caches.nodes[0]
    space.primary.resign(space.shards[partition_of(key)], caches.cluster.now + node.offset)
    assert space.primary.flights == 0


def test_places_of_writes_are_given_back_however_they_end() -> None:
    """Done, refused, resigned, or superseded: as many are counted as are under way, and in the end none."""
    caches = Caches(4, replicas=3, limits=Limits(operations=64))
    keys = caches.owned_by(0, count=15)

    def counted() -> int:
        found = 0
        for node in caches.cluster.running:
            space = caches.space(node.index)
            under_way = sum(len(shard.flights) for shard in space.shards)
            assert space.primary.flights == under_way, node.name
            assert space.client.open >= 0
            found += under_way
        return found

    seen = 0
    for step in range(8):
        for key in keys:
            caches.start(step % 4 if caches.nodes[step % 4].running else 0, Op(Kind.INCR, key, number=1), timeout=2.0)
        if step == 2:
            caches.cluster.links.cut(0, caches.owners(keys[0])[1])
        elif step == 4:
            caches.cluster.links.heal()
        elif step == 5:
            caches.cluster.crash(caches.nodes[0])
        elif step == 6:
            caches.cluster.restart(caches.nodes[0])
        for _ in range(20):
            caches.cluster.run(0.01)
            seen = max(seen, counted())
    caches.cluster.run(10.0)
    assert counted() == 0 and seen >= 10
    assert all(caches.space(index).client.open == 0 for index in range(4))


def test_clear_waits_for_writes_under_way_and_later_ones_wait_for_it() -> None:
    """Else what was decided by an entry that the clear takes away would outlive it."""
    caches = Caches(2)
    primary = caches.owners(b"k")[0]
    caches.set(primary, b"k", b"old")
    first = caches.start(primary, Op(Kind.CAS, b"k", expected=b"old", value=b"first"))
    clearing = caches.start(primary, Op(Kind.CLEAR, CLEAR_KEYS[partition_of(b"k")]))
    second = caches.start(primary, Op(Kind.CAS, b"k", expected=b"first", value=b"second"))
    again = caches.start(primary, Op(Kind.CLEAR, CLEAR_KEYS[partition_of(b"k")]))
    last = caches.start(primary, Op(Kind.ADD, b"k", value=b"last"))
    assert caches.get(primary, b"k") == b"old" and not any([first, clearing, second, again, last])
    caches.cluster.run(0.5)
    found = [outcomes[0][0].status for outcomes in (first, clearing, second, again, last)]
    assert found == [Status.OK, Status.OK, Status.FAILED, Status.OK, Status.OK]
    assert caches.get(primary, b"k") == b"last"
    assert caches.space(primary).shards[partition_of(b"k")].behind is None


def test_what_waits_for_a_clear_asks_the_next_primary() -> None:
    caches = Caches(2)
    primary = caches.owners(b"k")[0]
    caches.cluster.links.cut(0, 1)
    writing = submit(caches, primary, Op(Kind.SET, b"k", id=1, value=b"v"))
    clearing = submit(caches, primary, Op(Kind.CLEAR, CLEAR_KEYS[partition_of(b"k")], id=2))
    waiting = submit(caches, primary, Op(Kind.ADD, b"k", id=3, value=b"new"))
    assert not writing and not clearing and not waiting
    space, now = caches.space(primary), caches.cluster.now + caches.nodes[primary].offset
    space.stop_serving(space.shards[partition_of(b"k")], now)
    assert [found[0].status for found in (writing, clearing, waiting)] == [Status.UNSURE, Status.MOVED, Status.MOVED]
