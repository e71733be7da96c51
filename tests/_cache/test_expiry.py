"""The wheel: in order, exact, a bounded number at a time."""

from __future__ import annotations

from random import Random

from mycorrizal._cache.entry import NEVER, Entry
from mycorrizal._cache.expiry import Wheel
from tests._cache.harness import Caches


def test_against_a_sorted_list() -> None:
    rng = Random(4)
    wheel = Wheel()
    held: dict[bytes, Entry] = {}
    now = 0.0
    for step in range(3000):
        now += rng.random() * 0.2
        entry = Entry(b"%d" % step, b"", 1, now + rng.random() * 20 if rng.random() < 0.9 else NEVER)
        wheel.add(entry)
        held[entry.key] = entry
        if rng.random() < 0.3:
            victim = held.pop(rng.choice(list(held)))
            wheel.remove(victim)
        while True:
            gone = wheel.due(now, 5)
            assert len(gone) <= 5
            for entry in gone:
                assert entry.expires <= now
                wheel.remove(entry)
                del held[entry.key]
            if not gone:
                break
        assert all(entry.expires > now - 1.0 for entry in held.values())


def test_empty_wheel_has_no_timer() -> None:
    wheel = Wheel()
    assert wheel.next() is None and wheel.due(100.0, 5) == []
    entry = Entry(b"k", b"", 1, 5.5)
    wheel.add(entry)
    assert wheel.next() == 6.0 and wheel.due(5.9, 5) == []
    wheel.remove(entry)
    wheel.remove(entry)
    assert wheel.next() is None


def test_what_expires_later_is_taken_out_too_though_nobody_comes_meanwhile() -> None:
    caches = Caches(1)
    machine = caches.nodes[0].machine
    keys = caches.owned_by(0, count=3)
    for seconds, key in enumerate(keys, start=1):
        caches.set(0, key, b"v", ttl=1000 * seconds)
    held = []
    for _ in keys:
        held.append(machine.info("c", caches.cluster.now)["entries"])
        caches.cluster.run(2.0)
    assert held[0] == 3 and machine.info("c", caches.cluster.now)["entries"] == 0
