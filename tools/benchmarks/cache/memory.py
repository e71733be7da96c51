"""``tools/bench cache --memory``: what a million entries of 100 B weigh, expired ones leave, and bounds allow.

Every figure is of a fresh process: its resident memory after a collection,
above what it had before. The cache is one agent with one copy; the dict has the
same ``str`` keys of 12 characters and the same ``bytes``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.cache.ours import Node
from benchmarks.data.pair import Worker
from benchmarks.data.peer import memory
from benchmarks.data.worker import obey

SIZE = 100
BATCH = 10_000
WRITERS = 8
_TARGET = 2.5
_BOUND = 0.05
_LEFT = 0.05  # of what they took, that expired entries may leave: the allocator's, not ours


_REMEMBERED = 80.0  # seconds that the outcomes of writes are kept for retries, and some


def key(number: int) -> str:
    return f"key-{number:08}"


def value(number: int) -> bytes:
    return number.to_bytes(8, "big") * (SIZE // 8) + bytes(SIZE % 8)


def settled() -> int:
    """Return the resident bytes once what is free has gone back to the system, as far as it goes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory()["now"]


class Scales:
    """Obeys orders by the name in their ``do``; one is enough for a process."""

    def plain(self, entries: int) -> dict[str, int]:
        before = settled()
        held = {key(number): value(number) for number in range(entries)}
        return {"bytes": settled() - before, "entries": len(held)}

    def cache(self, entries: int) -> dict[str, float]:
        """Fill a cache without a bound."""
        node = Node(f"solo-{os.getpid()}", None)
        cache = node.caches["sole"]
        cache.synced(20)
        before, began = settled(), time.monotonic()
        for first in range(0, entries, BATCH):
            cache.set_many({key(n): value(n) for n in range(first, min(first + BATCH, entries))}, timeout=60)
        took, held = time.monotonic() - began, cache.local_stats()["entries"]
        return {"bytes": settled() - before, "entries": held, "seconds": took, "stalls": node.agent.health().stalls}

    def expired(self, entries: int, ttl: float) -> dict[str, float]:
        """Fill a cache with what expires at one moment; look what is left when writes are not remembered any more."""
        node = Node(f"solo-{os.getpid()}", None)
        cache = node.caches["sole"]
        cache.synced(20)
        before, objects = settled(), len(gc.get_objects())
        end = time.monotonic() + ttl
        for first in range(0, entries, BATCH):
            left = max(1.0, end - time.monotonic())
            cache.set_many({key(n): value(n) for n in range(first, min(first + BATCH, entries))}, left, timeout=60)
        full, most = memory()["now"], cache.local_stats()["entries"]
        while cache.local_stats()["entries"] and time.monotonic() < end + 120:
            time.sleep(0.1)
        took = time.monotonic() - end
        time.sleep(_REMEMBERED)
        stats = cache.local_stats()
        return {
            "full": full - before, "bytes": settled() - before, "objects": len(gc.get_objects()) - objects,
            "most": most, "entries": stats["entries"], "tombstones": stats["tombstones"], "seconds": took,
            "stalls": node.agent.health().stalls,
        }  # fmt: skip

    def bounded(self, most: int, seconds: float) -> dict[str, float]:
        """Write from several threads into a bounded cache; the most that is seen of entries and of bytes."""
        node = Node(f"solo-{os.getpid()}", None)
        seen: dict[str, float] = {}
        room = most * 400
        bounded = {
            "entries": node.agent.cache("bounded-entries", replicas=1, max_entries=most),
            "bytes": node.agent.cache("bounded-bytes", replicas=1, max_bytes=room),
        }
        for name, cache in bounded.items():
            cache.synced(20)
            end = time.monotonic() + seconds
            threads = [threading.Thread(target=_fill, args=(cache, number, end)) for number in range(WRITERS)]
            for thread in threads:
                thread.start()
            worst = 0
            while any(thread.is_alive() for thread in threads):
                worst = max(worst, cache.local_stats()[name])
                time.sleep(0.005)
            stats = cache.local_stats()
            seen |= {f"most_{name}": worst / (most if name == "entries" else room), f"evicted_{name}": stats["evicted"],
                     f"full_{name}": stats[name] / (most if name == "entries" else room)}  # fmt: skip
        return {**seen, "stalls": node.agent.health().stalls}


def _fill(cache: Any, writer: int, end: float) -> None:
    number = 0
    while time.monotonic() < end:
        cache.set_many({f"{writer}-{n:08}": value(n) for n in range(number, number + 500)}, timeout=60)
        number += 500


def weigh(do: str, **order: Any) -> dict[str, float]:
    """Have a fresh process do something; return its figures."""
    worker = Worker([], "benchmarks.cache.memory")
    try:
        found: dict[str, float] = worker.tell(do, timeout=1200, **order)
        return found
    finally:
        worker.end()


def measure(entries: int, out: Path) -> int:
    """Weigh, print, and keep the figures; return the exit code."""
    plain, cache = weigh("plain", entries=entries), weigh("cache", entries=entries)
    expired = weigh("expired", entries=entries, ttl=5 + 2 * cache["seconds"])  # so that all are there at a time
    bounded = weigh("bounded", most=max(1000, entries // 20), seconds=10)
    ratio, left = cache["bytes"] / plain["bytes"], expired["bytes"] / expired["full"]
    evicted = bounded["evicted_entries"] + bounded["evicted_bytes"]
    met = {
        "small": cache["entries"] == entries and ratio <= _TARGET,
        "gone": expired["most"] == entries and not expired["entries"] and not expired["tombstones"] and left <= _LEFT,
        "bounded": evicted > 0 and max(bounded["most_entries"], bounded["most_bytes"]) <= 1 + _BOUND,
    }
    told = {name: "yes" if held else "NO" for name, held in met.items()}
    rows = [
        ("a dict", f"{plain['bytes'] / 1e6:.0f} MB, {plain['bytes'] / entries:.0f} B an entry"),
        ("a cache, one copy", f"{cache['bytes'] / 1e6:.0f} MB, {cache['bytes'] / entries:.0f} B an entry"),
        ("  of the dict", f"{ratio:.2f} (<= {_TARGET}: {told['small']})"),
        ("entries that expire", f"{expired['full'] / 1e6:.0f} MB with {expired['most']:,.0f} of them"),
        ("  all gone after", f"{expired['seconds']:.1f} s"),
        ("  what is left", f"{expired['bytes'] / 1e6:.1f} MB ({100 * left:.1f} %), {expired['objects']:+,.0f} objects"),
        ("", f"{expired['entries']:.0f} entries, {expired['tombstones']:.0f} tombstones ({told['gone']})"),
        (f"bounds, {WRITERS} writers", f"<= 105 %: {told['bounded']}; at most seen"),
        ("  of max_entries", f"{100 * bounded['most_entries']:.1f} %"),
        ("  of max_bytes", f"{100 * bounded['most_bytes']:.1f} %"),
        ("  evicted meanwhile", f"{evicted:,.0f}"),
        ("stalls", f"{cache['stalls'] + expired['stalls'] + bounded['stalls']:.0f}"),
    ]
    lines = [f"{entries:,} entries of {SIZE} B, {len(key(0))} characters of key"]
    lines += [f"  {name:22}{text}" for name, text in rows]
    print("\n".join(lines))
    store = {"plain": plain, "cache": cache, "expired": expired, "bounded": bounded}
    (out / "cache_memory.json").write_text(json.dumps(store, indent=1))
    (out / "cache_memory.txt").write_text("\n".join(lines) + "\n")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    obey(Scales())
