"""Who computes a value, and who waits: leases at the primary, and everything that waits for a key.

The first who asks for a key that is not there is given a lease and computes;
the others wait here until the value is written, the lease runs out, or the
computing node is seen dead, and then the next one is given a lease. An entry
with less than ``early`` milliseconds to live counts as one to compute by one
caller, while all others get it as it is.

One rule says what may be stored: a SET under a token is done if, and only if,
nothing was decided for the key since the token was given, be it a write, a
delete (of nothing, too), a clear, or the result under another token. So a token
outlives its lease, and whoever is done first is; what was decided and has gone
again, expired or evicted, counts all the same.

Leases and tokens are the primary's alone: when it is one no more, they are void,
and a value may be computed once more. Locks are entries like others and
survive; who waits for one waits here too.

From: Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), leases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .entry import NEVER, Entry
from .operations import Kind, Op, Result, Status, decide, found
from .placement import Owner, partition_of
from .shard import Pending

if TYPE_CHECKING:
    from .primary import Primary
    from .space import Space

__all__ = ["Leases"]


class _Lease:
    __slots__ = ("holder", "op", "token", "until")

    def __init__(self, holder: Owner, op: int, token: int, until: float) -> None:
        self.holder = holder
        self.op = op
        self.token = token
        self.until = until


class _Queue:
    """What waits for one key, and when it is looked at next."""

    __slots__ = ("look_at", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Pending] = deque()
        self.look_at = NEVER


class Leases:
    """Leases and waiters of one cache on one node."""

    def __init__(self, space: Space, primary: Primary) -> None:
        self._space = space
        self._core = space.core
        self._primary = primary
        self._tokens: dict[bytes, dict[int, _Lease]] = {}  # of each key, the newest last
        self._count = 0  # tokens out
        self._queues: dict[bytes, _Queue] = {}
        self._parked = 0

    # -- leases -------------------------------------------------------------------------

    def get(self, pending: Pending, entry: Entry | None, now: float) -> None:
        """Answer a LEASE."""
        op = pending.op
        shard = self._space.shards[partition_of(op.key)]
        self._space.counters.gets += 1
        lease = self._live(op.key, now)
        if lease is not None and lease.op == op.id and op.id:  # the answer was lost: it is still theirs
            lease.until = now + op.number / 1000.0
            value, version = (entry.value, entry.version) if entry is not None else (None, 0)
            pending.done(Result(Status.LEASED, value, version, number=lease.token), now)
            return
        if entry is not None:
            entry.visited = True
            self._space.counters.hits += 1
            fresh = entry.expires == NEVER or (entry.expires - now) * 1000 >= op.early
            if fresh or lease is not None:
                pending.done(found(entry, now, shard.seq), now)
                return
        elif lease is not None:
            if op.wait and pending.until > now:
                self.park(pending, lease.until, now)
            else:
                pending.done(Result(Status.FAILED, ttl=max(1, int((lease.until - now) * 1000))), now)
            return
        if self._count >= self._core.limits.leases:
            self._sweep(now)
        if self._count >= self._core.limits.leases:
            self._core.counters["leases_refused"] += 1
            pending.done(Result(Status.BUSY), now)
            return
        token = self._core.clock.tick(now)
        tokens = self._tokens.setdefault(op.key, {})
        if tokens:
            self._core.counters["leases_lapsed"] += 1
        tokens[token] = _Lease(pending.who, op.id, token, now + op.number / 1000.0)
        self._count += 1
        self._core.counters["leases"] += 1
        value, version = (entry.value, entry.version) if entry is not None else (None, 0)
        pending.done(Result(Status.LEASED, value, version, number=token), now)

    def _live(self, key: bytes, now: float) -> _Lease | None:
        """Return the lease that others wait for: the newest, if it has not run out."""
        tokens = self._tokens.get(key)
        if not tokens:
            return None
        lease = next(reversed(tokens.values()))
        return lease if lease.until > now else None

    def holds(self, op: Op) -> bool:
        """Return whether a SET under the token ``op.number`` may be done."""
        return op.number in self._tokens.get(op.key, ())

    @property
    def out(self) -> int:
        """How many tokens are out."""
        return self._count

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for any key."""
        return bool(self._queues)

    def decided(self, op: Op) -> None:
        """A change was decided: whatever is computed under a token of before is not stored."""
        if op.kind == Kind.CLEAR:
            partition = partition_of(op.key)
            for key in [key for key in self._tokens if partition_of(key) == partition]:
                self._void(key)
        elif op.key in self._tokens:
            self._void(op.key)

    def _void(self, key: bytes) -> None:
        self._count -= len(self._tokens.pop(key))

    def _drop(self, key: bytes, token: int) -> bool:
        """Forget a token; return whether it was out."""
        tokens = self._tokens.get(key, {})
        if tokens.pop(token, None) is None:
            return False
        self._count -= 1
        if not tokens:
            del self._tokens[key]
        return True

    def give_back(self, op: Op, now: float) -> None:
        """Whoever has the token ``op.number``, or has asked by that id, does not compute, and waits no more."""
        asked = [token for token, lease in self._tokens.get(op.key, {}).items() if lease.op == op.number]
        queue = self._queues.get(op.key)
        if queue is not None:
            for pending in [pending for pending in queue.waiting if pending.op.id == op.number]:
                queue.waiting.remove(pending)
                self._parked -= 1
                pending.done(Result(Status.FAILED), now)
        if self._drop(op.key, asked[0] if asked else op.number):
            self._wake(op.key, now)

    def _sweep(self, now: float) -> None:
        """Make room: whoever has not been done in the time of its lease is not waited for any more."""
        lapsed = [
            (key, token) for key, tokens in self._tokens.items() for token, it in tokens.items() if it.until <= now
        ]
        for key, token in lapsed:
            self._drop(key, token)
        self._core.counters["leases_dropped"] += len(lapsed)

    def members_changed(self, members: dict[Owner, None], now: float) -> None:
        """Leases of the dead run out at once, and none of them waits any more: it would be given the next."""
        for queue in list(self._queues.values()):
            gone = [pending for pending in queue.waiting if pending.who not in members]
            if gone:
                queue.waiting = deque(pending for pending in queue.waiting if pending.who in members)
                self._parked -= len(gone)
                for pending in gone:
                    pending.done(Result(Status.MOVED), now)  # if we are wrong, it asks again
        for key, tokens in list(self._tokens.items()):
            lease = next(reversed(tokens.values()))
            if lease.until > now and lease.holder not in members:
                lease.until = now  # if we are wrong, what it computes still counts
                self._wake(key, now)

    def tokens(self) -> Iterator[tuple[bytes, list[float]]]:
        """Yield each key with a token out, and when their leases end, for tests."""
        for key, tokens in self._tokens.items():
            yield key, [lease.until for lease in tokens.values()]

    # -- waiting ------------------------------------------------------------------------

    def park(self, pending: Pending, look_at: float, now: float) -> None:
        """Let an operation wait until its key changes, at the latest `look_at` or its own end."""
        op = pending.op
        until = min(pending.until, now + op.wait / 1000.0)
        if self._parked >= 4 * self._core.limits.waiting:
            self._core.counters["busy"] += 1
            pending.done(Result(Status.BUSY), now)
            return
        queue = self._queues.setdefault(op.key, _Queue())
        # the wait that is left when it is run again
        queue.waiting.append(pending._replace(until=until))
        self._parked += 1
        look_at = min(look_at, until)
        if look_at < queue.look_at:
            queue.look_at = look_at
            key = op.key
            self._core.timers.call_at(look_at, lambda now: self._wake(key, now))

    def changed(self, key: bytes, now: float) -> None:
        """The key was written."""
        if key in self._queues:
            self._wake(key, now)

    def expired(self, key: bytes, now: float) -> None:
        """The entry under the key ran out."""
        if key in self._queues:
            self._wake(key, now)

    def cleared(self, partition: int, now: float) -> None:
        """Everything in a partition was cleared."""
        for key in [key for key in self._queues if partition_of(key) == partition]:
            self._wake(key, now)

    def _wake(self, key: bytes, now: float) -> None:
        """Run everything again that waits for `key`; what still cannot be done parks again."""
        queue = self._queues.pop(key, None)
        if queue is None:
            return
        self._parked -= len(queue.waiting)
        for pending in queue.waiting:
            if pending.until <= now:
                pending.done(self._refusal(pending.op, now), now)
                continue
            left = max(1, int((pending.until - now) * 1000))
            self._primary.submit(pending._replace(op=pending.op._replace(wait=left)), now)

    def _refusal(self, op: Op, now: float) -> Result:
        """Return the answer to what waited in vain: of a lock, who holds it."""
        entry = self._space.store.get(op.key, now) if op.kind == Kind.LOCK else None
        return Result(Status.FAILED) if entry is None else decide(op, entry, 0, now)[0]

    def resign(self, partition: int, now: float) -> None:
        """We are not primary of `partition` any more."""
        for key in [key for key in self._tokens if partition_of(key) == partition]:
            self._void(key)
        for key in [key for key in self._queues if partition_of(key) == partition]:
            queue = self._queues.pop(key)
            self._parked -= len(queue.waiting)
            for pending in queue.waiting:
                pending.done(Result(Status.MOVED), now)

