"""What must hold of a simulated cache, looked at from outside, where everything can be seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from mycorrizal._cache.near import SILENCE
from mycorrizal._cache.placement import Owner, partition_of
from mycorrizal._cache.space import Space
from mycorrizal.simulation.checkers import CheckFailed

from .cache_cluster import CacheCluster, CacheNode
from .cache_computing import GONE, Computed
from .cache_history import LockEvent, NearRead
from .linearizable import Event, linearizable

__all__ = [
    "check_bounds", "check_computed", "check_converged", "check_copies", "check_linearizable", "check_locks",
    "check_near", "check_newest", "check_no_trace", "check_nothing_old", "check_own_writes",
    "check_withdrawn", "newest_writes", "space_of",
]  # fmt: skip

Fail = Callable[[str, str], CheckFailed]


def space_of(node: CacheNode) -> Space:
    """Return the one cache of a node."""
    return next(iter(node.machine.spaces()))


def check_linearizable(events: Sequence[Event], fail: Fail) -> tuple[int, int]:
    """Each key's history could have happened one operation at a time; return keys checked, and those undecided."""
    by_key: dict[bytes, list[Event]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event)
    undecided = 0
    for key, history in sorted(by_key.items()):
        verdict = linearizable(history)
        if verdict is None:
            undecided += 1
        elif not verdict:
            lines = "\n".join(f"      {event}" for event in sorted(history, key=lambda event: event.began))
            raise fail("linearizable", f"the history of {key!r} is not:\n{lines}")
    return len(by_key), undecided


def check_locks(locks: Sequence[LockEvent], fail: Fail) -> None:
    """Nobody holds a lock that somebody else holds, and tokens only grow."""
    by_key: dict[bytes, list[LockEvent]] = {}
    for lock in locks:
        by_key.setdefault(lock.key, []).append(lock)
    for key, held in sorted(by_key.items()):
        held.sort(key=lambda lock: lock.token)
        for one, other in itertools.pairwise(held):
            if one.token == other.token:
                raise fail("locks", f"{key!r}: token {one.token} was given twice")
            if other.granted < one.asked:
                raise fail("locks", f"{key!r}: token {other.token} was given before {one.token}")
            if other.granted < one.released and one.granted < other.released:
                raise fail("locks", f"{key!r} was held twice, by {one.token} and {other.token}")


def _version_at(space: Space, key: bytes, now: float) -> tuple[int, bytes | None]:
    partition = partition_of(key)
    entry = space.store.get(key, now)
    return space.store.version_of(partition, key), entry.value if entry is not None else None


def _owners(cluster: CacheCluster, key: bytes) -> list[CacheNode]:
    """Return the nodes that should hold `key`, by the truth."""
    members: list[Owner] = [node.owner for node in cluster.running]
    space = space_of(cluster.running[0])
    owners = space.core.placement.owners(members, cluster.definition.replicas)[partition_of(key)]
    return [cluster.nodes[int(owner.name[1:])] for owner in owners]


def newest_writes(events: Sequence[Event]) -> list[Event]:
    """Return, for each key, the acknowledged write with the highest version."""
    newest: dict[bytes, Event] = {}
    for event in events:
        if event.known and event.kind != "get" and event.version and event.answer is not False:
            known = newest.get(event.key)
            if known is None or event.version > known.version:
                newest[event.key] = event
    return [newest[key] for key in sorted(newest)]


def check_newest(cluster: CacheCluster, events: Sequence[Event], fail: Fail) -> None:
    """Every owner has, of every key, the newest acknowledged write or a newer one: none lost, no deleted key back."""
    for event in newest_writes(events):
        for node in _owners(cluster, event.key):
            version, value = _version_at(space_of(node), event.key, cluster.now + node.offset)
            if version < event.version:
                raise fail("newest", f"{node.name} has lost {event}")
            if version == event.version and event.kind in ("set", "add") and value != event.argument:
                raise fail("newest", f"{node.name} has {value!r} for {event}")
            if version == event.version and event.kind == "delete" and value is not None:
                raise fail("newest", f"{node.name} has {value!r} after {event}")


def check_converged(cluster: CacheCluster, fail: Fail) -> None:
    """All owners of a partition hold the same entries, and nobody else holds any."""
    nodes = cluster.running
    spaces = {node.owner: space_of(node) for node in nodes}
    for partition in range(256):
        owners = spaces[nodes[0].owner].shards[partition].owners
        tables = {}
        for owner, space in spaces.items():
            if space.shards[partition].owners != owners:
                raise fail("converged", f"partition {partition} has other owners on {owner.name}")
            table = {key: (entry.value, entry.version) for key, entry in space.store.tables[partition].items()}
            if owner in owners:
                tables[owner.name] = table
            elif table:
                raise fail("converged", f"{owner.name} holds partition {partition} and is no owner")
        if any(table != next(iter(tables.values())) for table in tables.values()):
            raise fail("converged", f"copies of partition {partition} differ: {tables}")


def check_copies(cluster: CacheCluster, asked: CacheNode, events: Sequence[Event], fail: Fail) -> None:
    """`asked` has just said ``synced``: of every acknowledged write there must be enough copies.

    The view that it speaks of need not be the newest: who has just come need not have its copies yet.
    """
    least = min(cluster.definition.replicas, len(space_of(asked).members))
    for event in newest_writes(events):
        holders = []
        for node in cluster.running:
            version, _ = _version_at(space_of(node), event.key, cluster.now + node.offset)
            if version >= event.version:
                holders.append(node.name)
        if len(holders) < least:
            raise fail("synced", f"said {asked.name}, and only {holders} have {event}")


def check_nothing_old(cluster: CacheCluster, events: Sequence[Event], fail: Fail) -> None:
    """Nobody holds an entry that is older than an acknowledged write: whatever is gone stays gone."""
    for event in newest_writes(events):
        for node in cluster.running:
            entry = space_of(node).store.get(event.key, cluster.now + node.offset)
            if entry is not None and entry.version < event.version:
                raise fail("old", f"{node.name} has {entry.value!r} of version {entry.version} after {event}")


def _changes(event: Event) -> bool:
    """Whether `event` may have changed its key, if only by a record that nothing is there."""
    if event.kind in ("get", "expire"):
        return False
    return not event.known or event.kind in ("delete", "clear") or event.answer is not False


def check_computed(computed: Sequence[Computed], events: Sequence[Event], still: bool, fail: Fail) -> None:
    """What was stored under a token had nothing decided before it since that; `still`: and what was not, had.

    Only a primary that is one no more throws results away without a reason.
    """
    by_key: dict[bytes, list[Event]] = {}
    for event in events:
        if _changes(event):
            by_key.setdefault(event.key, []).append(event)
    for result in computed:
        meanwhile = [
            event for event in by_key.get(result.key, ())
            if event.ended > (result.granted if result.version else result.asked) and event.began < result.ended
        ]  # fmt: skip
        if result.version:
            for event in meanwhile:
                if event.known and result.token < event.version < result.version:
                    raise fail("computed", f"{result} was stored after {event}")
        elif still and not any(event.version > result.token or not event.known for event in meanwhile):
            raise fail("computed", f"{result} was not stored, and nothing else was written")


def check_withdrawn(cluster: CacheCluster, fail: Fail) -> None:
    """Nobody came or went, so nothing is held for a caller who has withdrawn."""
    for node in cluster.running:
        space = space_of(node)
        for entry in space.store.walk():
            if entry.pinned and entry.value[8:] == GONE:
                raise fail("withdrawn", f"{node.name} holds {entry.key!r} for nobody")
        now = cluster.now + node.offset
        held = [key for key, leases in space.primary.leases.tokens() if any(until > now for until in leases)]
        if held:
            raise fail("withdrawn", f"{node.name} has leases out for {held}")


def check_near(cluster: CacheCluster, reads: Sequence[NearRead], events: Sequence[Event], fail: Fail) -> float:
    """Nothing that is held was read later after it was overwritten than is promised; return the greatest age seen."""
    limits, faults = cluster.limits, cluster.faults
    bound = SILENCE * limits.near_interval + faults.delay + faults.jitter
    writes: dict[bytes, list[Event]] = {}
    for event in events:
        if event.known and event.version and event.kind != "get":
            writes.setdefault(event.key, []).append(event)
    oldest = 0.0
    for read in reads:
        ends = [event.ended for event in writes.get(read.key, ()) if event.version > read.version]
        age = read.at - min(ends, default=read.at)
        oldest = max(oldest, age)
        if age > bound:
            raise fail("near", f"{read} was read {age:.3f} s after it was overwritten; the bound is {bound:.3f} s")
    return oldest


def check_own_writes(
    reads: Sequence[NearRead], events: Sequence[Event], per_node: int, fail: Fail
) -> None:
    """Nobody read, without a call, what is older than a write that was acknowledged on the same node before."""
    writes: dict[tuple[int, bytes], list[Event]] = {}
    for event in events:
        if event.known and event.version and event.kind != "get":
            writes.setdefault((event.client // per_node, event.key), []).append(event)
    for read in reads:
        for event in writes.get((read.client // per_node, read.key), ()):
            if event.ended < read.at and event.version > read.version:
                raise fail("own", f"{read} is older than what was written on the same node: {event}")


def check_no_trace(cluster: CacheCluster, fail: Fail) -> None:
    """All entries had a time to live, and that is over: there is nothing left of them."""
    for node in cluster.running:
        store = space_of(node).store
        if store.entries or store.bytes or any(store.digests) or any(store.tables):
            raise fail("trace", f"{node.name} still has {store.entries} entries, {store.bytes} bytes")


def check_bounds(cluster: CacheCluster, fail: Fail) -> None:
    """No node holds more than the definition says, and it counts right."""
    definition = cluster.definition
    for node in cluster.running:
        store = space_of(node).store
        entries = list(store.walk())
        size = sum(entry.size for entry in entries)
        if len(entries) != store.entries or size != store.bytes:
            raise fail("bounds", f"{node.name} counts {store.entries}, {store.bytes}; has {len(entries)}, {size}")
        if definition.max_entries is not None and store.entries > definition.max_entries:
            raise fail("bounds", f"{node.name} holds {store.entries} entries")
        if definition.max_bytes is not None and store.bytes > definition.max_bytes:
            raise fail("bounds", f"{node.name} holds {store.bytes} bytes")
