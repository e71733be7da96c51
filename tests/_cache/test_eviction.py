"""SIEVE: against a slow model written from the paper, and better than FIFO where it should be."""

from __future__ import annotations

from random import Random

from mycorrizal._cache.entry import LOCK_PREFIX, NEVER, Entry
from mycorrizal._cache.eviction import Sieve


class Model:
    """SIEVE over a plain list, oldest first."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.visited: set[str] = set()
        self.hand = 0

    def victim(self) -> str:
        while True:
            if self.hand >= len(self.queue):
                self.hand = 0
            name = self.queue[self.hand]
            if name not in self.visited:
                return name
            self.visited.discard(name)
            self.hand += 1

    def remove(self, name: str) -> None:
        place = self.queue.index(name)
        del self.queue[place]
        self.visited.discard(name)
        if place < self.hand:
            self.hand -= 1
        if self.hand >= len(self.queue):
            self.hand = 0


def entry(name: str) -> Entry:
    return Entry(name.encode(), b"", 1, NEVER)


def test_agrees_with_the_model() -> None:
    rng = Random(5)
    sieve, model = Sieve(), Model()
    held: dict[str, Entry] = {}
    evicted = 0
    for step in range(5000):
        name = f"k{rng.randrange(60)}"
        dice = rng.random()
        if name in held and dice < 0.5:
            held[name].visited = True
            model.visited.add(name)
        elif name in held and dice < 0.6:
            sieve.remove(held.pop(name))
            model.remove(name)
        elif name in held and dice < 0.8:
            again = entry(name)
            sieve.replace(held[name], again)
            held[name] = again
            model.visited.add(name)
        elif name not in held:
            held[name] = entry(name)
            sieve.add(held[name])
            model.queue.append(name)
        if len(held) > 30:
            victim = sieve.victim(len(held))
            assert victim is not None and victim.key.decode() == model.victim(), step
            sieve.remove(held.pop(victim.key.decode()))
            model.remove(victim.key.decode())
            evicted += 1
    assert evicted > 500


def test_scan_does_not_flush_what_is_popular() -> None:
    """The reason for SIEVE: keys that are asked for once leave soon."""
    rng = Random(2)
    sieve = Sieve()
    held: dict[str, Entry] = {}
    hits = asked = 0
    for step in range(20_000):
        name = f"hot{rng.randrange(50)}" if rng.random() < 0.5 else f"scan{step}"
        asked += name.startswith("hot")
        if name in held:
            held[name].visited = True
            hits += 1
            continue
        held[name] = entry(name)
        sieve.add(held[name])
        if len(held) > 100:
            victim = sieve.victim(len(held))
            assert victim is not None
            sieve.remove(held.pop(victim.key.decode()))
    assert hits / asked > 0.95  # FIFO: about 0.6


def test_nothing_to_evict() -> None:
    sieve = Sieve()
    assert sieve.victim(0) is None
    lock = Entry(LOCK_PREFIX + b"x", b"", 1, NEVER)
    sieve.add(lock)
    assert sieve.victim(1) is None
