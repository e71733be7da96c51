"""What every peer of ``tools/bench cache`` has in common: get, set, set_many, and how they are timed.

Calls are timed in rounds over the keys, not one by one: a clock that is read
before and after a read of 300 ns would be a third of the figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from benchmarks.rounds import WARM, at_once

VALUE = bytes(range(64))
KEYS = [f"bench-{number:06}" for number in range(100)]
MANY = {f"many-{number:07}": VALUE for number in range(10_000)}

Get = Callable[[str], Any]
Set = Callable[[str, Any], Any]


class Peer(Protocol):
    """What is read and written, as one client sees it.

    `held` of ``keys`` says where the entries are, for who knows a difference.
    """

    def keys(self, held: str) -> list[str]:
        """Return keys that were set."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any) -> None: ...
    def large(self, size: int) -> Any:
        """Return a value of `size` bytes that the cache takes."""

    def set_large(self, value: Any) -> None: ...
    def get_large(self) -> Any: ...
    def end_large(self) -> None:
        """Let go of the large value."""

    def close(self) -> None: ...


class Cache(Peer, Protocol):
    """A cache: it takes many entries at a time, too."""

    def set_many(self, items: Mapping[str, Any]) -> None: ...


Do = Callable[[int], Callable[[], int]]


def rate(make: Do, callers: int, seconds: float) -> float:
    """Return calls a second, of `callers` threads for `seconds`; ``make(thread)()`` makes some and says how many."""

    def prepare(number: int) -> Callable[[], tuple[int, float, float]]:
        do = make(number)
        _run(do, WARM)
        return lambda: _run(do, seconds)

    found = at_once(callers, prepare)
    return sum(count for count, _, _ in found) / (max(end for _, _, end in found) - min(begin for _, begin, _ in found))


def _run(do: Callable[[], int], seconds: float) -> tuple[int, float, float]:
    clock = time.perf_counter
    count, begin = 0, clock()
    now, end = begin, begin + seconds
    while now < end:
        count += do()
        now = clock()
    return count, begin, now


def _order(keys: list[str], thread: int) -> list[str]:
    """Return `keys` from another one on for each thread, so that they do not all write the same at a time."""
    first = thread * 37 % len(keys)
    return keys[first:] + keys[:first]


def reads(get: Get, keys: list[str]) -> Do:
    """Return what makes what reads every key once, and looks at what it got."""

    def make(thread: int) -> Callable[[], int]:
        mine = _order(keys, thread)

        def do() -> int:
            for key in mine:
                if get(key) != VALUE:
                    raise RuntimeError(f"{key} is not what was set")
            return len(mine)

        return do

    return make


def writes(put: Set, keys: list[str]) -> Do:
    """Return what makes what writes every key once."""

    def make(thread: int) -> Callable[[], int]:
        mine = _order(keys, thread)

        def do() -> int:
            for key in mine:
                put(key, VALUE)
            return len(mine)

        return do

    return make


def timed(do: Callable[[], object]) -> float:
    """Return the seconds that it takes."""
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin
