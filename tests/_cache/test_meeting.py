"""Members that served a partition apart meet again: nothing acknowledged on a side is dropped unheard."""

from __future__ import annotations

from random import Random

import pytest

from mycorrizal._cache.operations import Kind, Op, Result, Status
from tests._cache.harness import Caches


class Writers:
    """On every node one that sets and deletes keys that only it writes, one after another, from a start to an end."""

    def __init__(self, caches: Caches, seed: int) -> None:
        self.expected: dict[bytes, bytes | None] = {}
        self.stopped = False
        self._caches = caches
        self._rng = Random(f"{seed}/writers")
        self._numbers = [0] * len(caches.nodes)
        for index in range(len(caches.nodes)):
            self._next(index)

    def _next(self, index: int) -> None:
        cluster = self._caches.cluster
        if not self.stopped:
            cluster.at(cluster.now + self._rng.expovariate(1.0) * 0.02, lambda: self._write(index))

    def _write(self, index: int) -> None:
        """Mostly a key that nobody has seen yet, sometimes one of before."""
        number = self._numbers[index]
        if number and self._rng.random() < 0.3:
            number = self._rng.randrange(number)
        else:
            self._numbers[index] += 1
        key = b"%d/%d" % (index, number)
        gone = self._rng.random() < 0.2
        value = None if gone else b"%d" % self._rng.getrandbits(32)
        op = Op(Kind.DELETE, key) if gone else Op(Kind.SET, key, value=value)

        def done(outcomes: list[object] | None) -> None:
            outcome = outcomes[0] if outcomes else None
            if isinstance(outcome, Result) and outcome.status in (Status.OK, Status.MISSING):
                self.expected[key] = value
            else:
                self.expected.pop(key, None)  # nobody knows
            self._next(index)

        cluster = self._caches.cluster
        cluster.ask(
            self._caches.nodes[index],
            lambda machine, ticket, now: machine.operate("c", [op], ticket, now + 5.0, now),
            done,
        )


@pytest.mark.parametrize("seed", range(6))
def test_all_that_was_written_apart_is_there_when_views_meet(seed: int) -> None:
    """Views grow from one's own side to everybody at different moments, and the writers never stop."""
    size = 2 + seed % 4
    caches = Caches(size, seed=seed, spread=(0.02, 0.3, 1.5)[seed % 3])
    sides: list[set[int]] = [{index} for index in range(size)] if seed % 2 else [{0}, set(range(1, size))]
    caches.cluster.split(*sides)
    caches.cluster.run(3.5)
    writers = Writers(caches, seed)
    caches.cluster.run(1.0)
    apart = len(writers.expected)
    caches.cluster.heal()
    caches.cluster.run(3.5)
    writers.stopped = True
    caches.cluster.run(6.0)
    assert apart > 20 * size and len(writers.expected) > apart
    assert all(caches.synced(index) for index in range(size))
    lost = {key: value for key, value in writers.expected.items() if caches.get(0, key) != value}
    assert not lost, f"{len(lost)} of {len(writers.expected)}: {list(lost)[:5]}"
    for key, value in writers.expected.items():
        assert sorted(caches.holders(key)) == (sorted(caches.owners(key)) if value is not None else [])
