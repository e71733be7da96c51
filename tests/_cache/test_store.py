"""The store: newest version wins, deletes stay, bounds hold, what expired leaves nothing."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.entry import ENTRY_BYTES, LOCK_PREFIX, NEVER
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.store import Store


def store(limits: Limits | None = None, **settings: Any) -> Store:
    return Store(Definition("c", **settings), limits or Limits())


def value(held: Store, key: bytes, now: float = 0.0) -> bytes | None:
    entry = held.get(key, now)
    return entry.value if entry is not None else None


def test_newer_wins_in_any_order() -> None:
    held = store()
    assert held.put(b"k", b"2", 20, NEVER)
    assert not held.put(b"k", b"1", 10, NEVER)
    assert held.put(b"k", b"3", 30, NEVER)
    assert value(held, b"k") == b"3"
    assert held.counters.outdated == 1


def test_equal_versions_are_decided_by_the_value() -> None:
    one, other = store(), store()
    for held, order in ((one, (b"a", b"b")), (other, (b"b", b"a"))):
        for data in order:
            held.put(b"k", data, 10, NEVER)
    assert value(one, b"k") == value(other, b"k") == b"b"


def test_old_copy_does_not_undo_a_delete() -> None:
    held = store()
    held.put(b"k", b"1", 10, NEVER)
    assert held.bury(b"k", 20, 0.0)
    assert not held.put(b"k", b"1", 10, NEVER) and not held.put(b"k", b"x", 20, NEVER)
    assert value(held, b"k") is None
    assert held.put(b"k", b"new", 30, NEVER)
    assert not held.graves[partition_of(b"k")]


def test_old_delete_does_not_undo_a_newer_write() -> None:
    held = store()
    held.put(b"k", b"2", 20, NEVER)
    assert not held.bury(b"k", 10, 0.0)
    assert value(held, b"k") == b"2"


def test_tombstones_go_after_their_time_and_raise_the_floor() -> None:
    held = store(Limits(graves_age=10.0))
    held.bury(b"k", 20, 0.0)
    assert held.next_timer() == 10.0
    held.tick(9.0)
    assert held.version_of(partition_of(b"k"), b"k") == 20
    held.tick(10.0)
    assert held.version_of(partition_of(b"k"), b"k") == 0
    assert held.floors[partition_of(b"k")] == 20
    assert held.next_timer() is None


def test_tombstones_are_bounded() -> None:
    held = store(Limits(graves=5))
    for number in range(20):
        held.bury(b"k%d" % number, 100 + number, 0.0)
    assert sum(map(len, held.graves)) == 5
    assert held.counters.graves_dropped == 15
    assert not any(digest for place, digest in enumerate(held.grave_digests) if not held.graves[place])


def test_deleting_and_writing_one_key_over_and_over_is_bounded() -> None:
    held = store(Limits(graves=5))
    for number in range(0, 1000, 2):
        held.bury(b"k", number + 1, 0.0)
        held.put(b"k", b"v", number + 2, NEVER)
    assert len(held._buried) <= 11


def test_clear_drops_what_is_older_for_good() -> None:
    held = store()
    place = partition_of(b"k")
    held.put(b"k", b"1", 10, NEVER)
    held.clear(place, 20)
    assert value(held, b"k") is None and not held.put(b"k", b"x", 20, NEVER)
    assert held.put(b"k", b"2", 21, NEVER)
    held.clear(place, 15)
    assert value(held, b"k") == b"2"


def test_expired_entry_is_invisible_at_once_and_then_gone() -> None:
    held = store()
    held.put(b"k", b"v", 10, 5.0)
    assert value(held, b"k", 4.9) == b"v" and value(held, b"k", 5.0) is None
    assert held.tick(6.0)[0].key == b"k"
    assert held.entries == held.bytes == 0 and not any(held.digests) and held.next_timer() is None


def test_overwritten_and_deleted_entries_leave_the_wheel() -> None:
    held = store()
    for number in range(100):
        held.put(b"k", b"v", number, 1000.0 + number)
    held.bury(b"k", 1000, 0.0)
    assert sum(map(len, held._wheel._buckets.values())) == 0


def test_expiring_many_is_done_a_bounded_number_a_turn() -> None:
    held = store(Limits(work=100))
    for number in range(1000):
        held.put(b"k%d" % number, b"v", 10, 1.0)
    turns = 0
    while held.next_timer() is not None:
        assert len(held.tick(3.0)) <= 100
        turns += 1
    assert turns == 10 and held.entries == 0 and held.counters.expired == 1000


def test_expired_entry_leaves_a_tombstone_while_a_member_is_missing() -> None:
    """It may come back with an older copy, which must not undo the newer write that expired."""
    held = store()
    held.grieve(100.0)
    held.put(b"k", b"newer", 20, 5.0)
    held.tick(6.0)
    assert not held.put(b"k", b"older", 10, NEVER)


def test_forgotten_partition_leaves_nothing() -> None:
    held = store()
    held.put(b"k", b"v", 10, 50.0)
    held.bury(b"k", 20, 0.0)
    held.put(b"k", b"w", 30, 50.0)
    held.forget(partition_of(b"k"))
    assert held.entries == held.bytes == 0 and not held.holds(partition_of(b"k")) and not any(held.digests)


def test_digest_is_the_same_however_a_copy_came_to_be() -> None:
    rng = Random(3)
    writes = [(b"k%d" % rng.randrange(50), version) for version in range(1, 500)]
    copies = []
    for _ in range(3):
        rng.shuffle(writes)
        held = store()
        for key, version in writes:
            if version % 5:
                held.put(key, b"%d" % version, version, NEVER)
            else:
                held.bury(key, version, 0.0)
        copies.append((held.digests, held.grave_digests, held.entries, held.bytes))
    assert copies[0] == copies[1] == copies[2]
    assert any(copies[0][0]) and any(copies[0][1])


@pytest.mark.parametrize("bound", [{"max_entries": 100}, {"max_bytes": 100 * (ENTRY_BYTES + 10)}])
def test_bounds_hold_after_every_write(bound: dict[str, int]) -> None:
    held = store(None, **bound)
    rng = Random(1)
    for version in range(1, 3000):
        held.put(b"k%d" % rng.randrange(400), b"x" * rng.randrange(20), version, NEVER)
        assert held.entries <= bound.get("max_entries", 10**9)
        assert held.bytes <= bound.get("max_bytes", 10**9)
    assert held.counters.evicted > 100
    assert held.entries == sum(1 for _ in held.walk()) and held.bytes == sum(entry.size for entry in held.walk())
    assert held.entries > 90


def test_locks_are_not_evicted() -> None:
    held = store(max_entries=10)
    held.put(LOCK_PREFIX + b"x", b"token", 1, NEVER)
    for version in range(2, 200):
        held.put(b"k%d" % version, b"v", version, NEVER)
    assert held.get(LOCK_PREFIX + b"x", 0.0) is not None
    assert held.entries == 10
