"""Operations at their primary: one write on a key at a time, done when its backups have it.

A clear is a write on all keys of its partition: it waits for those under way, and
what comes later waits for it.
Until then readers see what was before. A write that is under way when the
partition moves on is kept, as if it had been done, and its caller is told to
ask again: whether the new primary got it from us or from a backup, it knows the
operation by its id.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

from .entry import CLEAR_PREFIX, NEVER, Entry
from .leases import Leases
from .messages import Record, make_record
from .operations import READS, Batch, Kind, Op, Result, Status, decide, found, make_result
from .placement import Owner, partition_of
from .shard import Flight, Pending, Shard

if TYPE_CHECKING:
    from .batches import Tally
    from .space import Space

__all__ = ["Primary"]

# An enum's member takes 150 ns to look up in Python 3.11.
_GET, _SET, _LEASE, _LOCK, _RETURN, _CLEAR = Kind.GET, Kind.SET, Kind.LEASE, Kind.LOCK, Kind.RETURN, Kind.CLEAR
_DONE, _MISSING = int(Status.OK), int(Status.MISSING)
_REPAIRS = 1.0  # seconds between two read repairs of a partition: a reader may be wrong, or lie


class Primary:
    """The operations of one cache on one node."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._core = space.core
        self.leases = Leases(space, self)
        self.flights = 0

    def submit(self, pending: Pending, now: float) -> None:
        """Run an operation here, or refuse it; ``pending.done`` is called exactly once, now or later."""
        op = pending.op
        shard = self._space.shards[partition_of(op.key)]
        if not shard.serving:
            moved = shard.primary != self._core.me
            pending.done(Result(Status.MOVED if moved else Status.NOT_READY), now)
        elif not self._space.has_quorum:
            self._core.counters["no_quorum"] += 1
            pending.done(Result(Status.NO_QUORUM), now)
        else:
            queue = shard.behind
            if queue is None and (flight := shard.flights.get(op.key)) is not None:
                queue = flight.queue
            if op.kind == _GET or (queue is None and not (op.kind == _CLEAR and shard.flights)):
                self._run(shard, pending, now)
            elif queue is None:
                shard.behind = deque([pending])
            elif len(queue) < self._core.limits.waiting:
                queue.append(pending)
            else:
                self._core.counters["busy"] += 1
                pending.done(Result(Status.BUSY), now)

    def run_many(self, batch: Batch, who: Owner, until: float, tally: Tally, now: float) -> None:
        """Run operations here, each as ``submit`` would with what the others have made of it, or refuse it."""
        (self._read_many if batch.kind == _GET else self._write_many)(batch, who, until, tally, now)

    def _read_many(self, batch: Batch, who: Owner, until: float, tally: Tally, now: float) -> None:
        space, settle = self._space, tally.settle
        shards, tables, good = space.shards, space.store.tables, space.has_quorum
        asked = hits = 0
        for index, key in enumerate(batch.keys):
            shard = shards[place := crc32(key) & 0xFF]
            if not (good and shard.serving):
                self.submit(Pending(batch.op(index), who, partial(settle, index), until), now)
                continue
            asked += 1
            entry = tables[place].get(key)
            if entry is None or entry.expires <= now:
                settle(index, make_result((_MISSING, None, 0, 0, 0, shard.seq)), now)
            else:
                hits += 1
                entry.visited = True
                settle(index, found(entry, now, shard.seq), now)
        space.counters.gets += asked
        space.counters.hits += hits

    def _write_many(self, batch: Batch, who: Owner, until: float, tally: Tally, now: float) -> None:
        space, kind, values, limits = self._space, batch.kind, batch.values, self._core.limits
        shards, good, waits = space.shards, space.has_quorum, space.definition.sync_backups
        expires = now + batch.ttl / 1000.0 if batch.ttl else NEVER
        leases, value, value_max = self.leases, None, space.value_max
        versions = self._core.clock.ticks(len(batch.keys), now)
        copies: dict[Owner, list[tuple[Record, Flight | None]]] = {}
        done, results, gone = list[tuple[Shard, Record]](), list[tuple[int, Result]](), dict[bytes, None]()
        for index, (key, ident, version) in enumerate(zip(batch.keys, batch.ids, versions, strict=True)):
            shard = shards[crc32(key) & 0xFF]
            if values:
                value = values[index]
            if (
                not (good and shard.serving) or shard.behind is not None or key in shard.flights
                or self.flights >= limits.operations or (value is not None and len(value) > value_max)
            ):  # fmt: skip
                self.submit(Pending(batch.op(index), who, partial(tally.settle, index), until), now)
                continue
            status = _DONE
            if kind != _SET:
                status = _MISSING if key in gone or space.store.get(key, now) is None else _DONE
                gone[key] = None
            result = make_result((status, None, version, 0, 0, 0))
            if leases.out:
                leases.decided(batch.op(index))
            record = make_record((key, value, version, expires, ident, status, 0))
            backups = shard.owners[1:]
            flight = None
            if backups and waits:
                flight = shard.flights[key] = Flight(partial(tally.settle, index), record, result)
                self.flights += 1
            for backup in backups:
                if flight is not None:
                    flight.waiting[backup] = None
                copies.setdefault(backup, []).append((record, flight))
            if flight is None:
                done.append((shard, record))
                results.append((index, result))
        self._done_many(done, now)
        for backup, records in copies.items():
            space.replication.send_many(backup, records)
        tally.settle_all(results, now)

    def waits(self, op: Op) -> bool:
        """Whether an operation would wait behind a write on its key, or a clear."""
        shard = self._space.shards[partition_of(op.key)]
        return op.kind != _GET and (op.key in shard.flights or shard.behind is not None)

    def _run(self, shard: Shard, pending: Pending, now: float) -> None:
        op = pending.op
        space = self._space
        if op.age and op.kind not in READS:
            known = self._remembered(shard, op, now)
            if known is not None:
                pending.done(known, now)
                return
        entry = space.store.get(op.key, now)
        if op.kind == _GET:
            if op.number and self._behind(shard, op, now):
                pending.done(Result(Status.NOT_READY), now)
                return
            space.counters.gets += 1
            if entry is not None:
                space.counters.hits += 1
                entry.visited = True
                pending.done(found(entry, now, shard.seq), now)
            else:
                pending.done(Result(Status.MISSING, seq=shard.seq), now)
            return
        if op.kind == _LEASE:
            self.leases.get(pending, entry, now)
            return
        if op.kind == _RETURN:
            self.leases.give_back(op, now)
            taken = shard.outcomes.get(op.number) if entry is not None and entry.pinned else None
            if taken is None:
                pending.done(Result(Status.OK), now)
                return
            op = op._replace(kind=Kind.UNLOCK, number=taken.version)
            pending = pending._replace(op=op)
        if op.value is not None and len(op.value) > space.value_max:
            pending.done(Result(Status.TOO_LARGE), now)
            return
        if op.kind == _SET and op.number and not self.leases.holds(op):
            self._core.counters["results_refused"] += 1
            pending.done(Result(Status.FAILED, version=entry.version if entry else 0), now)
            return
        self._write(shard, pending, entry, now)

    def _behind(self, shard: Shard, op: Op, now: float) -> bool:
        """Read repair: a reader has seen a newer version than ours, so ask everybody what they have."""
        if op.number <= self._space.store.version_of(shard.partition, op.key) or now - shard.repaired < _REPAIRS:
            return False
        shard.repaired = now
        self._core.counters["read_repairs"] += 1
        self._space.handover.reclaim(shard.partition, now)
        return True

    def _write(self, shard: Shard, pending: Pending, entry: Entry | None, now: float) -> None:
        op = pending.op
        version = self._core.clock.tick(now)
        result, change = decide(op, entry, version, now)
        if change is not None and self.flights >= self._core.limits.operations:
            self._core.counters["busy"] += 1
            result, change = Result(Status.BUSY), None
        if change is None:
            if op.kind == _LOCK and op.wait and entry is not None and result.status == Status.FAILED:
                self.leases.park(pending, entry.expires, now)
            else:
                pending.done(result, now)
            return
        self.leases.decided(op)
        record = Record(op.key, change.value, version, change.expires, op.id, result.status, result.number)
        backups = shard.owners[1:]
        if not backups or not self._space.definition.sync_backups:
            for backup in backups:
                self._space.replication.send(backup, record, None)
            self._done(shard, record, now)
            pending.done(result, now)
            return
        flight = shard.flights[op.key] = Flight(pending.done, record, result)
        self.flights += 1
        if op.kind == _CLEAR:
            shard.behind = deque()
        for backup in backups:
            flight.waiting[backup] = None
            self._space.replication.send(backup, record, flight)

    def _remembered(self, shard: Shard, op: Op, now: float) -> Result | None:
        """Return the answer to an operation that is tried again; None if it surely was not done, and may be now."""
        outcome = shard.outcomes.get(op.id)
        if outcome is not None:
            self._core.counters["retries_recognised"] += 1
            return Result(outcome.status, version=outcome.version, number=outcome.number)
        began = now - op.age / 1000.0
        if began < max(shard.complete_since, now - self._core.limits.outcomes_age):
            self._core.counters["retries_forgotten"] += 1
            return Result(Status.FORGOTTEN)
        if not all(self._space.handover.heard(shard, owner, began, now) for owner in op.doubts or ()):
            return Result(Status.NOT_READY)
        return None

    # -- writes under way -----------------------------------------------------------------

    def acknowledged(self, flights: list[Flight], backup: Owner, now: float) -> None:
        """`backup` has the writes."""
        shards = self._space.shards
        landed, done, others = list[Flight](), list[tuple[Shard, Record]](), list[Flight]()
        for flight in flights:
            flight.waiting.pop(backup, None)
            if flight.waiting:
                continue
            key = flight.record.key
            shard = shards[crc32(key) & 0xFF]
            if flight.queue or shard.behind is not None or shard.flights.get(key) is not flight:
                others.append(flight)
                continue
            del shard.flights[key]
            landed.append(flight)
            done.append((shard, flight.record))
        self.flights -= len(landed)
        self._done_many(done, now)
        for flight in landed:
            flight.done(flight.result, now)
        for flight in others:
            self.land(flight, now)

    def land(self, flight: Flight, now: float) -> None:
        """If nothing is waited for any more, the write is done; then what waited behind it has its turn."""
        key = flight.record.key
        shard = self._space.shards[partition_of(key)]
        if flight.waiting or shard.flights.get(key) is not flight:
            return
        del shard.flights[key]
        self.flights -= 1
        self._done(shard, flight.record, now)
        flight.done(flight.result, now)
        queue = flight.queue
        while queue:
            self._have_turn(queue.popleft(), now)
            following = shard.flights.get(key)
            if following is not None:
                queue.extend(following.queue)
                following.queue = queue
                return
        if not shard.flights and shard.behind is not None:
            behind, shard.behind = shard.behind, None
            for pending in behind:  # a clear may come first, and then the others are behind it again
                self._have_turn(pending, now)

    def _have_turn(self, pending: Pending, now: float) -> None:
        """What has waited runs now, or waits again; unless its caller does not any more."""
        if pending.until <= now:
            pending.done(Result(Status.BUSY), now)
        else:
            self.submit(pending, now)

    def _done(self, shard: Shard, record: Record, now: float) -> None:
        self._space.apply(record, now)
        self._space.remember(shard, record, now)
        shard.wrote = True
        self._space.counters.writes += 1
        if record.key.startswith(CLEAR_PREFIX):
            self._space.near.invalidate_all(shard)
            self.leases.cleared(shard.partition, now)
        else:
            self._space.near.invalidate(shard, record.key)
            self.leases.changed(record.key, now)

    def _done_many(self, writes: list[tuple[Shard, Record]], now: float) -> None:
        """As ``_done`` for each of `writes`, none of which is a clear."""
        near, leases = self._space.near, self.leases
        self._space.write_all(writes, now)
        self._space.counters.writes += len(writes)
        for shard in dict(writes):
            shard.wrote = True
        for shard, record in writes if near.enabled or leases.waited_for else ():
            if near.enabled:
                near.invalidate(shard, record.key)
            if leases.waited_for:
                leases.changed(record.key, now)

    def owners_changed(self, shard: Shard, before: tuple[Owner, ...], now: float) -> None:
        """The backups of a partition that we serve are others: writes under way wait for those."""
        backups = dict.fromkeys(shard.owners[1:])
        flights = list(shard.flights.values())
        for flight in flights:
            for backup in [backup for backup in flight.waiting if backup not in backups]:
                del flight.waiting[backup]
            for backup in backups:
                if backup not in before:
                    flight.waiting[backup] = None
                    self._space.replication.send(backup, flight.record, flight)
        for flight in flights:
            self.land(flight, now)

    def resign(self, shard: Shard, now: float) -> None:
        """We serve this partition no more: keep what was under way, and send everyone to ask again."""
        flights, shard.flights = shard.flights, {}
        self.flights -= len(flights)
        for flight in flights.values():
            self._space.apply(flight.record, now)
            self._space.remember(shard, flight.record, now)
            flight.waiting.clear()
            flight.done(Result(Status.UNSURE), now)
            for pending in flight.queue:
                pending.done(Result(Status.MOVED), now)
        behind, shard.behind = shard.behind, None
        for pending in behind or ():
            pending.done(Result(Status.MOVED), now)
        self.leases.resign(shard.partition, now)
