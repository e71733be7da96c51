"""How writes get to their backups: batches, sent again until the backup has them or is none any more.

The receiver takes a record only from whom it holds for the partition's
primary. So a primary that was deposed, and does not know it yet, cannot
complete a write; and one that learns from a refusal that a backup has something
newer claims its partition anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .columns import pack_records, parse_records
from .core import Failure
from .entry import CLEAR_PREFIX
from .messages import Answer, Message, Record, Reply, parse_refusals, parts
from .placement import Owner, partition_of
from .shard import Flight, Outcome, Shard, make_outcome

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Replication"]

_BATCHES = 8  # under way to one backup at a time
NOT_PRIMARY = 1
NEWER = 2
TOO_FAR_AHEAD = 3


class _Outbox:
    """What one backup is to get."""

    __slots__ = ("attempt", "batches", "not_before", "queue")

    def __init__(self) -> None:
        self.queue: list[tuple[Record, Flight | None]] = []
        self.batches = 0
        self.attempt = 0
        self.not_before = 0.0


class Replication:
    """Both ends of it, for one cache on one node."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._core = space.core
        self._outboxes: dict[Owner, _Outbox] = {}

    # -- sending ------------------------------------------------------------------------

    def send(self, backup: Owner, record: Record, flight: Flight | None) -> None:
        """Queue `record` for `backup`; `flight`, if any, waits for it."""
        self.send_many(backup, [(record, flight)])

    def send_many(self, backup: Owner, records: list[tuple[Record, Flight | None]]) -> None:
        """Queue records for `backup`, each with who waits for it."""
        outbox = self._outboxes.get(backup)
        if outbox is None:
            outbox = self._outboxes[backup] = _Outbox()
        outbox.queue += records
        self._space.touch()
        if len(outbox.queue) > self._core.limits.backlog_records:
            self._overflow(backup, outbox)

    def _overflow(self, backup: Owner, outbox: _Outbox) -> None:
        """Drop what nobody waits for; the backup is filled anew instead."""
        kept: list[tuple[Record, Flight | None]] = []
        for record, flight in outbox.queue:
            if flight is None:
                self._core.counters["replication_dropped"] += 1
                self._space.shards[partition_of(record.key)].fills[backup] = None
            else:
                kept.append((record, flight))
        outbox.queue = kept
        self._space.fill.wake()

    @property
    def behind(self) -> bool:
        """Whether a backup did not take what it was sent, and has not since."""
        return any(outbox.attempt and (outbox.queue or outbox.batches) for outbox in self._outboxes.values())

    def forget(self, members: dict[Owner, None]) -> None:
        """Keep outboxes of `members` only."""
        for owner in [owner for owner in self._outboxes if owner not in members]:
            del self._outboxes[owner]

    def flush(self, now: float) -> None:
        """Send what may be sent: at the end of every turn."""
        for backup, outbox in self._outboxes.items():
            while outbox.queue and outbox.batches < _BATCHES and outbox.not_before <= now:
                self._send_batch(backup, outbox, now)

    def _send_batch(self, backup: Owner, outbox: _Outbox, now: float) -> None:
        limits = self._core.limits
        batch: list[tuple[Record, Flight | None]] = []
        size = taken = 0
        for record, flight in outbox.queue:
            if batch and (len(batch) >= limits.batch_records or size >= limits.batch_bytes):
                break
            taken += 1
            if self._wanted(backup, record, flight):
                batch.append((record, flight))
                size += len(record.key) + len(record.value or b"") + 64
        del outbox.queue[:taken]
        if not batch:
            return
        outbox.batches += 1

        def done(outcome: Reply | Failure, now: float) -> None:
            self._batch_done(backup, outbox, batch, outcome, now)

        packed, largest = pack_records([record for record, _ in batch], now)
        self._core.call(backup, Message.REPLICATE, self._space.name, [packed], done, now, size=largest)

    def _wanted(self, backup: Owner, record: Record, flight: Flight | None) -> bool:
        if flight is not None:
            return backup in flight.waiting
        shard = self._space.shards[partition_of(record.key)]
        return shard.serving and backup in shard.owners

    def _batch_done(
        self, backup: Owner, outbox: _Outbox, batch: list[tuple[Record, Flight | None]], outcome: Reply | Failure,
        now: float,
    ) -> None:  # fmt: skip
        again: list[tuple[Record, Flight | None]] = []
        refused: dict[int, int] = {}
        if isinstance(outcome, Failure) or outcome.status != Answer.OK:
            again = batch
        else:
            refused = parse_refusals(parts(outcome.body, 1)[0], len(batch))
        outbox.batches -= 1
        self._space.touch()
        if not again:
            good = [flight for index, (_, flight) in enumerate(batch) if flight is not None and index not in refused]
            self._space.primary.acknowledged(good, backup, now)
            for index in refused:
                record, flight = batch[index]
                again.append((record, flight))
                if refused[index] == NEWER:
                    self._core.counters["deposed"] += 1
                    self._space.handover.reclaim(partition_of(record.key), now)
        again = [(record, flight) for record, flight in again if self._wanted(backup, record, flight)]
        if not again:
            outbox.attempt = 0
            return
        self._core.counters["replication_retries"] += len(again)
        outbox.queue[:0] = again
        outbox.not_before = now + self._core.backoff(outbox.attempt)
        outbox.attempt += 1
        self._core.timers.call_at(outbox.not_before, lambda now: self._space.touch())

    # -- receiving ----------------------------------------------------------------------

    def receive(self, sender: Owner, body: list[Any], now: float) -> list[Any]:
        """Take records as a backup; return ``[[index, reason], ...]`` of those refused."""
        space = self._space
        refused = []
        good: list[tuple[Shard, Record]] = []
        for index, record in enumerate(parse_records(parts(body, 1)[0], now)):
            partition = partition_of(record.key)
            shard = space.shards[partition]
            if shard.primary != sender:
                refused.append([index, NOT_PRIMARY])
                self._core.counters["replicas_refused"] += 1
                continue
            here = space.store.version_of(partition, record.key)
            if here > record.version and record.op not in shard.outcomes:
                refused.append([index, NEWER])
                continue
            if not self._core.clock.observe(record.version, now):
                self._core.counters["versions_refused"] += 1
                refused.append([index, TOO_FAR_AHEAD])
                continue
            if self._core.me not in shard.owners:
                space.handover.keep_house(now)
            if record.key.startswith(CLEAR_PREFIX):
                space.apply(record, now)
                space.remember(shard, record, now)
            else:
                good.append((shard, record))
        space.write_all(good, now)
        return [refused]


def outcome_of(record: Record, now: float) -> Outcome:
    """Return what is remembered of a write."""
    return make_outcome((record.status, record.number, record.version, now))
