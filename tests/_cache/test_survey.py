"""Keys, numbers and ``synced``: what is asked of many members."""

from __future__ import annotations

from typing import Any

from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.survey import CLEAR_KEYS, Cursor
from mycorrizal.exceptions import CacheUnavailable
from tests._cache.harness import Caches, ask, make_machine, run_due


def some_keys(caches: Caches, index: int, cursor: Cursor, most: int, timeout: float = 2.0) -> Any:
    found: list[Any] = []
    caches.cluster.ask(
        caches.nodes[index],
        lambda machine, ticket, now: machine.keys("c", cursor, most, ticket, now + timeout, now),
        found.append,
    )
    caches.cluster.run_until(lambda: bool(found), timeout + 1.0)
    return found[0]


def all_keys(caches: Caches, index: int, most: int) -> list[bytes]:
    keys: list[bytes] = []
    cursor, rounds = Cursor(), 0
    while cursor.left:
        some, cursor = some_keys(caches, index, cursor, most)
        assert len(some) <= most
        keys += some
        rounds += 1
        assert rounds < 2000
    return keys


def test_every_key_once_whatever_the_size_of_a_page() -> None:
    caches = Caches(3)
    expected = sorted(b"key%d" % index for index in range(300))
    caches.do(0, *[Op(Kind.SET, key, value=b"v") for key in expected])
    caches.one(0, Op(Kind.LOCK, b"\x00lock\x00x", ttl=60_000))
    for most in (1, 7, 1000):
        assert sorted(all_keys(caches, 1, most)) == expected


def test_what_has_expired_is_no_key_and_is_not_counted() -> None:
    """From the moment that no read finds it; it is taken out within two seconds."""
    machine = make_machine()
    ask(machine, *[Op(Kind.SET, b"key%d" % index, value=b"v", ttl=300) for index in range(20)], now=10.1)
    ask(machine, Op(Kind.SET, b"stays", value=b"v", ttl=60_000), Op(Kind.SET, b"ever", value=b"v"), now=10.1)
    for now, count in ((10.2, 22), (10.5, 2), (12.5, 2)):
        run_due(machine, now)
        machine.keys("c", Cursor(), 100, "keys", now + 1, now)
        machine.stats("c", "stats", now + 1, now)
        found: dict[Any, Any] = dict(machine.completions())
        assert len(found["keys"][0]) == count == found["stats"]["me"]["primary_entries"]
        assert machine.info("c", now)["primary_entries"] == count
        assert machine.info("c")["entries"] == (22 if now < 12 else 2), "they are there still"


def test_keys_of_a_partition_without_primary() -> None:
    caches = Caches(2)
    caches.cluster.links.partition({0}, {1})
    outcomes = [some_keys(caches, 0, Cursor((place,)), 10) for place in range(8)]
    assert any(isinstance(outcome, CacheUnavailable) for outcome in outcomes)
    assert some_keys(caches, 0, Cursor(()), 10) == ([], Cursor(()))


def test_clear_clears_everything_everywhere() -> None:
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v") for index in range(100)])
    caches.do(1, *[Op(Kind.CLEAR, key) for key in CLEAR_KEYS])
    assert all(node.machine.info("c")["entries"] == 0 for node in caches.nodes)
    caches.set(0, b"key1", b"w")
    assert all_keys(caches, 2, 100) == [b"key1"]


def stats(caches: Caches, index: int) -> Any:
    found: list[Any] = []
    caches.cluster.ask(
        caches.nodes[index], lambda machine, ticket, now: machine.stats("c", ticket, now + 2.0, now), found.append
    )
    caches.cluster.run_until(lambda: bool(found), 3.0)
    return found[0]


def test_numbers_of_every_member() -> None:
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v") for index in range(30)])
    caches.get(0, b"key1")
    numbers = stats(caches, 1)
    assert sorted(numbers) == ["n0", "n1", "n2"]
    assert sum(each["primary_entries"] for each in numbers.values()) == 30
    assert sum(each["entries"] for each in numbers.values()) == 60
    assert sum(each["served_hits"] for each in numbers.values()) == 1
    assert sum(each["partitions"] for each in numbers.values()) == 256
    caches.cluster.crash(caches.nodes[2], noticed=False)
    assert stats(caches, 1)["n2"] is None


def test_lone_member_answers_at_once() -> None:
    caches = Caches(1)
    assert caches.synced(0)
    assert list(stats(caches, 0)) == ["n0"]


def test_synced_is_false_while_a_backup_lacks_its_copy() -> None:
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v" * 1000) for index in range(100)])
    assert caches.synced(0, timeout=0.5)
    caches.cluster.crash(caches.nodes[2], noticed=False)
    assert not caches.synced(0, timeout=0.5), "it does not answer"
    caches.cluster.restart(caches.nodes[2])
    assert caches.synced(0, timeout=5.0)
    for index in range(100):
        assert len(caches.holders(b"key%d" % index)) == 2


def test_synced_is_false_while_views_differ() -> None:
    caches = Caches(3)
    caches.cluster.suspect([caches.nodes[1]], caches.nodes[2], 1.0)
    caches.cluster.run(0.5)
    assert not caches.synced(0, timeout=0.2)
    caches.cluster.run(1.0)
    assert caches.synced(0, timeout=2.0)


def test_synced_needs_the_quorum() -> None:
    caches = Caches(2, quorum=3)
    assert not caches.synced(0, timeout=0.5)
