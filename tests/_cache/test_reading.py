"""What any thread may read of what is held here: entries of a primary, and near copies that are believed."""

from __future__ import annotations

from typing import Any

from mycorrizal._cache.entry import Entry
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.reading import held
from tests._cache.harness import Caches


class Reader:
    """A thread of one node."""

    def __init__(self, caches: Caches, index: int) -> None:
        self._caches = caches
        self._node = caches.nodes[index]

    def read(self, key: bytes, after: float = 0.0) -> Entry | None:
        """Read `after` seconds from now."""
        machine = self._node.machine
        now = self._caches.cluster.now + self._node.offset + after
        return held(machine.readable("c"), machine.near("c"), key, now)

    def value(self, key: bytes, after: float = 0.0) -> bytes | None:
        entry = self.read(key, after)
        return None if entry is None else entry.value


def prepared(**more: Any) -> tuple[Caches, Reader, Reader, bytes]:
    """Return a cluster with a key of node 1, read there, and from node 0 as a near copy."""
    caches = Caches(3, near=True, replicas=1)
    (key,) = caches.owned_by(1)
    caches.set(1, key, b"v", **more)
    assert caches.get(0, key) == b"v"
    return caches, Reader(caches, 0), Reader(caches, 1), key


def test_primary_and_the_holder_of_a_near_copy_read_without_a_call() -> None:
    caches, holder, primary, key = prepared()
    assert holder.value(key) == primary.value(key) == b"v"
    assert Reader(caches, 2).read(key) is None


def test_expired_entries_are_not_read_though_no_timer_has_taken_them_out() -> None:
    _, holder, primary, key = prepared(ttl=500)
    for reader in (holder, primary):
        assert reader.value(key, 0.4) == b"v"
        assert reader.read(key, 0.6) is None


def test_near_copies_of_a_silent_primary_are_not_read() -> None:
    caches, holder, _, key = prepared()
    until = caches.nodes[0].machine.near("c").until
    assert holder.value(key, 1.9) == b"v"
    assert holder.read(key, 2.1) is None
    assert max(until) < float("inf")


def test_without_near_copies_only_a_primary_reads() -> None:
    caches, _, _, key = prepared()
    for index, found in ((0, None), (1, b"v")):
        node = caches.nodes[index]
        entry = held(node.machine.readable("c"), None, key, caches.cluster.now + node.offset)
        assert (entry and entry.value) == found


def test_own_writes_are_seen_at_once_whoever_reads_next() -> None:
    caches, holder, primary, key = prepared()
    for kind, value in ((Kind.SET, b"w"), (Kind.DELETE, None), (Kind.ADD, b"x")):
        caches.one(0, Op(kind, key, value=value))
        assert holder.read(key) is None, "not until it is asked for again"
        assert primary.value(key) == value
        assert caches.get(0, key) == value


def test_a_read_here_keeps_an_entry_from_being_evicted() -> None:
    _, _, primary, key = prepared()
    entry = primary.read(key)
    assert entry is not None
    entry.visited = False
    assert primary.read(key) is entry and entry.visited
