"""The numbers of an agent's caches, as ``Agent.metrics`` has them: docs/cache.md lists the names.

The cache is a label, as in Prometheus' text; keys never are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .._cache.operations import Kind, Status
from .._runtime.cache.caching import CacheHost

__all__ = ["cache_metrics"]

_READS = frozenset({Kind.GET, Kind.LEASE})
_DELETES = frozenset({Kind.DELETE, Kind.CLEAR})
_WRITES = frozenset({Kind.SET, Kind.ADD, Kind.CAS, Kind.INCR, Kind.TOUCH})
_GAUGES = ("entries", "bytes", "primary_entries", "partitions")


def cache_metrics(host: CacheHost, hits: Mapping[str, int]) -> dict[str, int]:
    """Return the metrics of all open caches. Never blocks, any thread.

    Args:
        hits: by cache, reads that were answered without asking the loop thread.
    """
    machine = host.machine
    found = {f"cache.{name}": value for name, value in machine.counters().items()}
    for cache, here in hits.items():
        label = cache.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        counted = _operations(machine.counted(cache))
        counted["gets", "local"] += here
        counted["hits", "local"] += here
        for (what, where), value in sorted(counted.items()):
            found[f'cache.{what}{{cache="{label}",at="{where}"}}'] = value
        stats = machine.info(cache)
        for reason, name in (("bound", "evicted"), ("ttl", "expired")):
            found[f'cache.evictions{{cache="{label}",by="{reason}"}}'] = stats[name]
        for name in _GAUGES:
            found[f'cache.{name}{{cache="{label}"}}'] = stats[name]
        found[f'cache.tombstones{{cache="{label}"}}'] = stats["graves"]
        for name in ("gets", "hits", "writes"):
            found[f'cache.served.{name}{{cache="{label}"}}'] = stats[name]
    return found


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
