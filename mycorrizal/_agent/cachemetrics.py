"""The numbers of an agent's caches, as ``Agent.metrics`` has them: docs/cache.md lists the names.

The cache is a label, as in Prometheus' text; keys never are. What ``Cache.local_stats`` calls ``entries`` is
``cache.entries`` here, and so is each of its numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .._cache.operations import Kind, Status
from .._histogram import Histogram
from .._runtime.cache.caching import CacheHost

__all__ = ["cache_metrics", "cache_times", "escaped"]

_READS = frozenset({Kind.GET, Kind.LEASE})
_DELETES = frozenset({Kind.DELETE, Kind.CLEAR})
_WRITES = frozenset({Kind.SET, Kind.ADD, Kind.CAS, Kind.INCR, Kind.TOUCH})


def cache_metrics(host: CacheHost, hits: Mapping[str, int]) -> dict[str, int]:
    """Return the metrics of all open caches. Never blocks, any thread.

    Args:
        hits: by cache, reads that were answered without asking the loop thread.
    """
    machine = host.machine
    found = {f"cache.{name}": value for name, value in machine.counters().items()}
    for cache, here in hits.items():
        label = escaped(cache)
        counted = _operations(machine.counted(cache))
        counted["gets", "local"] += here
        counted["hits", "local"] += here
        for (what, where), value in sorted(counted.items()):
            found[f'cache.{what}{{cache="{label}",at="{where}"}}'] = value
        for name, value in {**machine.info(cache), "local_hits": here}.items():
            found[f'cache.{name}{{cache="{label}"}}'] = value
    return found


def cache_times(host: CacheHost, caches: Iterable[str]) -> dict[str, Histogram]:
    """Return how long operations took that were not answered from the caller's own thread. Any thread."""
    found = {}
    for cache in caches:
        for here, times in host.machine.times(cache).items():
            where = "local" if here else "remote"
            found[f'cache.operation{{cache="{escaped(cache)}",at="{where}"}}'] = times
    return found


def escaped(label: str) -> str:
    """Return the value of a label as it stands between quotes."""
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _operations(ended: Mapping[tuple[int, bool, int], int]) -> Counter[tuple[str, str]]:
    """Return what callers did: how often, by what and where."""
    names = ("gets", "hits", "misses", "sets", "deletes", "errors")
    counted = Counter({(name, where): 0 for name in names for where in ("local", "remote")})
    for (kind, here, status), count in ended.items():
        where = "local" if here else "remote"
        if status < 0:
            counted["errors", where] += count
        elif kind in _READS:
            counted["gets", where] += count
            counted["hits" if status == Status.OK else "misses", where] += count
        elif kind in _WRITES:
            counted["sets", where] += count
        elif kind in _DELETES:
            counted["deletes", where] += count
    return counted
