"""Get, set and delete on several nodes: acknowledged writes have their copies, and survive a crash."""

from __future__ import annotations

from mycorrizal._cache.operations import Kind, Op, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal.exceptions import CacheOutcomeUnknown, CacheUnavailable
from tests._cache.harness import Caches


def test_every_node_reads_what_one_wrote() -> None:
    caches = Caches(4)
    for index in range(40):
        assert caches.set(index % 4, b"key%d" % index, b"value%d" % index).status == Status.OK
    for index in range(40):
        assert caches.get((index + 1) % 4, b"key%d" % index) == b"value%d" % index


def test_acknowledged_write_is_on_all_owners() -> None:
    caches = Caches(5, replicas=3)
    for index in range(20):
        key = b"key%d" % index
        caches.set(0, key, b"x")
        assert sorted(caches.holders(key)) == sorted(caches.owners(key))
        assert len(caches.owners(key)) == 3


def test_fewer_members_than_replicas_hold_one_copy_each() -> None:
    caches = Caches(2, replicas=3)
    caches.set(0, b"k", b"v")
    assert sorted(caches.holders(b"k")) == [0, 1]


def test_write_without_sync_backups_is_answered_before_the_backup_has_it() -> None:
    caches = Caches(2, sync_backups=False)
    (key,) = caches.owned_by(0)
    caches.cluster.links.partition({0}, {1})
    assert caches.set(0, key, b"v").status == Status.OK
    assert caches.holders(key) == [0]
    caches.cluster.links.heal()
    caches.cluster.run(6.0)
    assert sorted(caches.holders(key)) == [0, 1]


def test_backup_is_read_where_the_cache_says_so() -> None:
    for allowed in (False, True):
        caches = Caches(2, read_backups=allowed)
        (key,) = caches.owned_by(0)
        caches.set(0, key, b"v")
        place = partition_of(key)
        assert key in caches.space(0).readable[place]
        assert (key in caches.space(1).readable[place]) is allowed


def test_entry_whose_owners_die_together_is_gone() -> None:
    caches = Caches(4)
    caches.set(0, b"k", b"v")
    owners = caches.owners(b"k")
    for index in owners:
        caches.cluster.crash(caches.nodes[index])
    caches.cluster.run(2.0)
    (left, _) = {0, 1, 2, 3} - set(owners)
    assert caches.get(left, b"k") is None


def test_delete_leaves_a_tombstone_on_all_owners() -> None:
    caches = Caches(3)
    caches.set(0, b"k", b"v")
    assert caches.one(1, Op(Kind.DELETE, b"k")).status == Status.OK
    assert caches.one(2, Op(Kind.DELETE, b"k")).status == Status.MISSING
    assert caches.get(0, b"k") is None
    assert caches.holders(b"k") == []


def test_write_survives_the_crash_of_its_primary() -> None:
    caches = Caches(4)
    keys = caches.owned_by(1, count=10)
    for key in keys:
        caches.set(0, key, key)
    caches.cluster.crash(caches.nodes[1])
    for key in keys:
        assert caches.get(0, key) == key


def test_write_survives_a_restart_that_nobody_noticed() -> None:
    """The new process has the old name and none of its entries."""
    caches = Caches(3)
    keys = [key for node in range(3) for key in caches.owned_by(node, count=5)]
    for key in keys:
        caches.set(0, key, key)
    for node in range(3):
        caches.cluster.crash(caches.nodes[node], noticed=False)
        caches.cluster.restart(caches.nodes[node])
        caches.cluster.run(0.5)
        assert caches.synced((node + 1) % 3)
    for key in keys:
        assert caches.get(0, key) == key
        assert sorted(caches.holders(key)) == sorted(caches.owners(key))


def test_write_that_cannot_reach_its_backup_is_of_unknown_outcome() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(0)
    caches.cluster.links.partition({0}, {1})
    (outcome,) = caches.do(0, Op(Kind.SET, key, value=b"v"))
    assert isinstance(outcome, CacheOutcomeUnknown) and outcome.indeterminate


def test_read_that_cannot_reach_its_primary_is_unavailable_not_unknown() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(1)
    caches.cluster.links.partition({0}, {1})
    (outcome,) = caches.do(0, Op(Kind.GET, key))
    assert isinstance(outcome, CacheUnavailable) and not outcome.indeterminate


def test_quorum_refuses_the_smaller_side() -> None:
    caches = Caches(3, quorum=2)
    caches.set(0, b"k", b"v")
    caches.cluster.split({0}, {1, 2})
    caches.cluster.run(1.0)
    (outcome,) = caches.do(0, Op(Kind.GET, b"k"))
    assert isinstance(outcome, CacheUnavailable) and "fewer than 2" in str(outcome)
    assert not any(caches.space(0).readable)  # nor does another thread read past the machine
    assert any(caches.space(1).readable) or any(caches.space(2).readable)
    assert caches.one(1, Op(Kind.SET, b"k2", value=b"w")).status == Status.OK


def test_newest_write_wins_when_the_halves_meet() -> None:
    caches = Caches(4)
    caches.set(0, b"k", b"before")
    caches.set(0, b"gone", b"before")
    caches.cluster.split({0, 1}, {2, 3})
    caches.cluster.run(1.0)
    caches.set(0, b"k", b"older")
    caches.cluster.run(0.1)
    caches.set(2, b"k", b"newer")
    caches.one(1, Op(Kind.DELETE, b"gone"))
    caches.cluster.heal()
    caches.cluster.run(1.0)
    assert caches.synced(0)
    assert [caches.get(node, b"k") for node in range(4)] == [b"newer"] * 4
    assert [caches.get(node, b"gone") for node in range(4)] == [None] * 4


def test_copies_that_are_not_owned_any_more_are_dropped() -> None:
    caches = Caches(3)
    for index in range(60):
        caches.set(0, b"key%d" % index, b"v")
    caches.cluster.crash(caches.nodes[2])
    caches.cluster.run(1.0)
    caches.cluster.restart(caches.nodes[2])
    caches.cluster.run(4.0)
    for index in range(60):
        key = b"key%d" % index
        assert sorted(caches.holders(key)) == sorted(caches.owners(key))


def test_member_that_retires_hands_over_even_the_only_copies() -> None:
    caches = Caches(3, replicas=1)
    keys = caches.owned_by(1, count=20)
    for key in keys:
        caches.set(0, key, key)
    node = caches.nodes[1]
    for other in caches.nodes:
        view = {
            member.name: (member.boot, {} if member is node else {"c": caches.cluster.definition})
            for member in caches.nodes
        }
        if other is node:
            other.machine.retire("c", caches.cluster.now + other.offset)
        other.machine.members_changed(view, caches.cluster.now + other.offset)
        caches.cluster.pull(other)
    assert caches.cluster.run_until(lambda: node.machine.retired("c"), 10.0)
    caches.cluster.crash(node)
    for key in keys:
        assert caches.get(0, key) == key
