"""Near copies: read without a call, dropped when overwritten, and when an invalidation may be missing."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.entry import Entry
from mycorrizal._cache.near import SILENCE
from mycorrizal._cache.operations import Kind, Op, Result
from mycorrizal._cache.placement import partition_of
from tests._cache.harness import Caches

BOUND = SILENCE * 0.5


def near(caches: Caches, index: int, key: bytes) -> Entry | None:
    """Read as another thread does."""
    node = caches.nodes[index]
    now = caches.cluster.now + node.offset
    copies, place = node.machine.near("c"), partition_of(key)
    entry = copies.tables[place].get(key)
    return entry if entry is not None and copies.until[place] > now and entry.expires > now else None


def prepared(**settings: Any) -> tuple[Caches, bytes]:
    """Return a cluster in which node 0 has a near copy of a key of node 1."""
    caches = Caches(3, near=True, replicas=1, **settings)
    (key,) = caches.owned_by(1)
    caches.set(1, key, b"v")
    assert caches.get(0, key) == b"v"
    return caches, key


def test_what_was_read_is_kept_and_stays_while_the_primary_is_heard() -> None:
    caches, key = prepared()
    for _ in range(10):
        entry = near(caches, 0, key)
        assert entry is not None and entry.value == b"v"
        caches.cluster.run(1.0)
    assert near(caches, 2, key) is None


def test_write_anywhere_drops_it() -> None:
    caches, key = prepared()
    for kind in (Kind.SET, Kind.DELETE):
        caches.one(2, Op(kind, key, value=b"w"))
        caches.cluster.run(0.01)
        assert near(caches, 0, key) is None
        caches.get(0, key)
    caches.set(2, key, b"v")
    assert caches.get(0, key) == b"v" and near(caches, 0, key) is not None


def test_own_write_is_seen_at_once() -> None:
    caches, key = prepared()
    caches.cluster.faults = caches.cluster.faults.__class__(delay=0.001, jitter=0.0, loss=0.0)
    caches.set(0, key, b"mine")
    assert near(caches, 0, key) is None
    assert caches.get(0, key) == b"mine"


def test_answer_that_left_before_our_own_write_is_not_kept() -> None:
    caches, key = prepared()
    copies = caches.nodes[0].machine.near("c")
    asked = caches.cluster.now + caches.nodes[0].offset
    result = caches.one(0, Op(Kind.GET, key))
    caches.cluster.run(0.1)
    caches.set(0, key, b"mine")
    copies.keep(key, result, caches.nodes[1].owner, asked)
    assert near(caches, 0, key) is None
    assert caches.nodes[0].machine.counters()["near_outrun"] == 1


def test_lost_invalidation_is_noticed_at_the_next_beat() -> None:
    caches, key = prepared()
    caches.cluster.faults = caches.cluster.faults.__class__(delay=0.001, jitter=0.0, loss=1.0)
    node = caches.nodes[1]
    node.machine.operate("c", [Op(Kind.SET, key, value=b"w")], "t", 1e9, caches.cluster.now + node.offset)
    caches.cluster.pull(node)
    caches.cluster.run(0.01)
    assert near(caches, 0, key) is not None, "nobody told"
    caches.cluster.faults = caches.cluster.faults.__class__(delay=0.001, jitter=0.0)
    caches.cluster.run(0.6)
    assert near(caches, 0, key) is None
    assert caches.nodes[0].machine.counters()["near_gaps"] == 1


def test_silent_primary_is_not_believed_for_long() -> None:
    assert BOUND == 2.0
    caches, key = prepared()
    caches.cluster.links.cut(1, 0)
    caches.cluster.run(BOUND + 0.1)
    assert near(caches, 0, key) is None
    caches.cluster.links.heal()
    caches.cluster.run(2.0)
    assert near(caches, 0, key) is None, "it may have been overwritten meanwhile"


def test_primary_that_changes_takes_its_near_copies_along() -> None:
    caches, key = prepared()
    caches.cluster.crash(caches.nodes[1])
    caches.cluster.run(0.5)
    assert near(caches, 0, key) is None


def test_near_copy_ends_with_the_entry() -> None:
    caches, key = prepared()
    caches.set(1, key, b"short", ttl=700)
    caches.get(0, key)
    assert near(caches, 0, key) is not None
    caches.cluster.run(0.8)
    assert near(caches, 0, key) is None


def test_near_copies_are_bounded() -> None:
    from mycorrizal._cache.definition import Limits

    caches = Caches(2, near=True, replicas=1, limits=Limits(near_entries=10))
    for key in caches.owned_by(1, count=50):
        caches.set(1, key, b"v")
        caches.get(0, key)
        copies = caches.nodes[0].machine.near("c")
        assert sum(map(len, copies.tables)) == copies._count <= 10
    assert caches.nodes[0].machine.counters()["near_full"] > 1


def test_clear_is_noticed() -> None:
    from mycorrizal._cache.survey import CLEAR_KEYS

    caches, key = prepared()
    caches.do(2, *[Op(Kind.CLEAR, each) for each in CLEAR_KEYS])
    caches.cluster.run(0.01)
    assert near(caches, 0, key) is None
    assert caches.get(0, key) is None


def test_cache_without_near_copies_sends_no_notices() -> None:
    caches = Caches(3)
    caches.set(0, b"k", b"v")
    caches.cluster.run(3.0)
    assert all(not node.machine.notices_to_send() for node in caches.nodes)
    assert not any(any(node.machine.near("c").tables) for node in caches.nodes)


def test_answer_from_before_our_own_write_is_not_kept_though_its_notice_is_lost() -> None:
    """The order of invalidations says nothing then: only when the read was asked for does."""
    caches, key = prepared()
    node = caches.nodes[0]
    copies = node.machine.near("c")
    asked = caches.cluster.now + node.offset
    before = caches.one(0, Op(Kind.GET, key))
    copies.wrote(key, asked + 1.0)
    copies.keep(key, before, caches.nodes[1].owner, asked)
    assert near(caches, 0, key) is None
    assert node.machine.counters()["near_outrun"] == 1
    copies.keep(key, before, caches.nodes[1].owner, asked + 1.5)
    assert near(caches, 0, key) is not None, "what was asked for after the write is of after it"


def test_write_whose_outcome_is_unknown_hides_what_was_before() -> None:
    caches, key = prepared()
    caches.cluster.links.cut(0, 1)
    (outcome,) = caches.do(0, Op(Kind.SET, key, value=b"mine"), timeout=0.5)
    assert not isinstance(outcome, Result)
    assert near(caches, 0, key) is None


def test_answer_that_a_notice_has_overtaken_is_not_kept() -> None:
    caches, key = prepared()
    node = caches.nodes[0]
    asked = caches.cluster.now + node.offset
    before = caches.one(0, Op(Kind.GET, key))
    caches.set(2, key, b"w")
    caches.cluster.run(0.01)
    node.machine.near("c").keep(key, before, caches.nodes[1].owner, asked)
    assert near(caches, 0, key) is None
    assert node.machine.counters()["near_outrun"] == 1


def test_what_goes_is_not_counted_any_more_whatever_made_it_go() -> None:
    caches, key = prepared()
    copies = caches.nodes[0].machine.near("c")
    for end in (
        lambda: copies.wrote(key, caches.cluster.now),
        lambda: caches.set(2, key, b"w"),
        lambda: copies.drop(partition_of(key)),
        lambda: caches.cluster.run(BOUND),
    ):
        caches.cluster.run(0.1)
        assert caches.get(0, key) is not None and copies._count == 1
        end()
        caches.cluster.run(0.01)
        assert sum(map(len, copies.tables)) == copies._count


def test_only_the_primary_that_a_copy_is_from_says_that_it_is_of_before() -> None:
    caches, key = prepared()
    node, place = caches.nodes[0], partition_of(key)
    copies = node.machine.near("c")
    owner, seq = copies._known[place]
    other = caches.nodes[2].owner
    copies.heard(other, [[[place, seq, seq + 5, [key]]]], caches.cluster.now + node.offset)
    assert copies._known[place] == (owner, seq) and near(caches, 0, key) is not None
    caches.set(2, key, b"w")
    caches.cluster.run(0.01)
    assert near(caches, 0, key) is None


def test_who_writes_tells_all_the_others_and_not_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    caches, key = prepared()
    copies, told = caches.nodes[1].machine.near("c"), []
    monkeypatch.setattr(copies._core, "notify", lambda member, *_: told.append(member))
    caches.set(1, key, b"w")
    assert sorted(told) == sorted([caches.nodes[0].owner, caches.nodes[2].owner])
