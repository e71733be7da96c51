"""What an entry costs: at most 2.5 times what it costs in a plain dict."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import pytest

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.entry import ENTRY_BYTES, NEVER
from mycorrizal._cache.store import Store

COUNT = 50_000


def cost(build: Callable[[], object]) -> float:
    """Return the bytes that stay allocated for each entry."""
    tracemalloc.start()
    try:
        kept = build()
        used, _ = tracemalloc.get_traced_memory()
        assert kept is not None
    finally:
        tracemalloc.stop()
    return used / COUNT


def plain() -> dict[str, bytes]:
    return {f"key-{number}": number.to_bytes(100, "big") for number in range(COUNT)}


@pytest.mark.parametrize("ttl", [False, True])
def test_entry_costs_at_most_two_and_a_half_times_one_in_a_dict(ttl: bool) -> None:
    def stored() -> Store:
        store = Store(Definition("c"), Limits())
        for number in range(COUNT):
            expires = 1000.0 + number % 3600 if ttl else NEVER
            store.put(b"key-%d" % number, number.to_bytes(100, "big"), (1 << 58) + number * 4096, expires)
        return store

    ours, theirs = cost(stored), cost(plain)
    print(f"{ours:.0f} bytes an entry, {theirs:.0f} in a dict")
    assert ours <= 2.5 * theirs
    assert ours - 100 - 12 <= ENTRY_BYTES * 1.3, "max_bytes counts about what is used"


def test_expired_entries_leave_no_trace() -> None:
    """Fifty thousand pass through; the wheel, the queue and the tables are empty afterwards."""
    store = Store(Definition("c"), Limits())
    most = 0
    for number in range(COUNT):
        now = number / 1000.0
        store.put(b"key-%d" % number, b"v", number + 1, now + 1.0)
        if number % 1000 == 0:
            while (timer := store.next_timer()) is not None and timer <= now:
                store.tick(now)
            most = max(most, store.entries)
    assert most < 4000
    while store.next_timer() is not None:
        store.tick(1e9)
    assert store.entries == store.bytes == 0 and store.counters.expired == COUNT
    assert {sys.getsizeof(table) for table in store.tables} == {sys.getsizeof({})}, "nor the room that they took"
    assert not any(store.tables) and not any(store.graves) and not any(store.digests)
    assert not store._wheel._buckets and not store._wheel._order
    assert store._sieve._oldest is store._sieve._newest is store._sieve._hand is None
