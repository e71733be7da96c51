"""Many operations of one kind: columns to each primary in few messages, and one pass over them there.

The first attempt of a batch goes together, to each primary what is its. What has
come of nothing then, since the primary is another one by now, has not answered
or would not wait, is tried again one by one by ``client``, whose rules on
retries and doubts hold for it. So a batch is what its operations are one by
one, each under an id of its own, but for the messages.

A primary's own part is done some at a time, so that it holds up nobody for long.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

from ..exceptions import CacheError
from .columns import pack_batch, parse_found
from .core import Failure
from .messages import ANSWER_BYTES, Answer, Message, Reply
from .operations import AGAIN, READS, Batch, Kind, Result, Status
from .placement import Owner

if TYPE_CHECKING:
    from .client import Client, Job
    from .space import Space

__all__ = ["FINAL", "Batches", "Part", "Tally"]

_GET = Kind.GET  # an enum's member takes 150 ns to look up in Python 3.11
_OK = int(Answer.OK)
FINAL = frozenset(Status) - AGAIN - {Status.UNSURE, Status.ALONE, Status.FORGOTTEN}
"""What needs no second look."""
_OPEN = Result(Status.BUSY)
_ALONE = Result(Status.ALONE)
_IDS = (1 << 62) - 1


class Tally:
    """What came of each operation of a batch at its primary; ``done`` is called when the last has ended."""

    __slots__ = ("done", "left", "results", "size")

    def __init__(self, count: int, done: Callable[[list[Result], float], None]) -> None:
        self.left = count
        self.done = done
        self.size = 0  # bytes of the values in it
        self.results = [_OPEN] * count

    def settle(self, index: int, result: Result, now: float) -> None:
        """One has ended."""
        if result.value is not None:
            self.size += len(result.value)
            if self.size > ANSWER_BYTES:
                self.size -= len(result.value)
                result = _ALONE
        self.results[index] = result
        self.left -= 1
        if not self.left:
            self.done(self.results, now)


    def settle_all(self, written: list[tuple[int, Result]], now: float) -> None:
        """Some that bring no value have ended."""
        for index, result in written:
            self.results[index] = result
        self.left -= len(written)
        if written and not self.left:
            self.done(self.results, now)


class Part:
    """What goes to one primary of one job.

    Attributes:
        indexes: of the operations in the job.
        sent: it was, or has begun here.
        over: nobody waits for it any more.
    """

    __slots__ = ("asked", "batch", "indexes", "job", "over", "owner", "sent")

    def __init__(self, job: Job, batch: Batch, indexes: Sequence[int], owner: Owner, asked: float) -> None:
        self.job = job
        self.batch = batch
        self.indexes = indexes
        self.owner = owner
        self.asked = asked
        self.sent = False
        self.over = False


class Batches:
    """The batches of the callers of one cache on one node."""

    def __init__(self, space: Space, client: Client) -> None:
        self._space = space
        self._core = space.core
        self._client = client
        self._ready: list[Job] = []

    def named(self, batch: Batch) -> Batch:
        """Return `batch` with an id for each write."""
        if batch.kind in READS:
            return batch
        count = len(batch.keys)
        drawn = struct.unpack(f"<{count}Q", self._core.rng.randbytes(8 * count))
        return batch._replace(ids=[ident & _IDS | 1 for ident in drawn])

    def begin(self, job: Job) -> None:
        """Send the batch of `job` at the end of the turn."""
        self._ready.append(job)

    def flush(self, now: float) -> None:
        """Send what is ready."""
        while self._ready:
            ready, self._ready = self._ready, []
            for job in ready:
                self._spread(job, now)

    def _spread(self, job: Job, now: float) -> None:
        """Give each primary its part."""
        owners = [shard.primary for shard in self._space.shards]
        shares: dict[Owner | None, list[int]] = {}
        assert job.batch is not None
        for index, key in enumerate(job.batch.keys):
            owner = owners[crc32(key) & 0xFF]
            share = shares.get(owner)
            if share is None:
                share = shares[owner] = []
            share.append(index)
        here = shares.pop(self._core.me, None)
        for owner, share in shares.items():
            if owner is None:
                for index in share:
                    self._client.alone(job, index, None, now)
            else:
                for indexes in self._cut(job.batch, share):
                    self._send(self._part(job, indexes, owner, now), now)
        if here is not None:
            cut = self._cut(job.batch, here)
            self._run_here([self._part(job, indexes, self._core.me, now) for indexes in cut], now)

    def _part(self, job: Job, indexes: Sequence[int], owner: Owner, now: float) -> Part:
        assert job.batch is not None
        part = Part(job, job.batch.only(indexes), indexes, owner, now)
        job.parts[part] = None
        return part

    def _cut(self, batch: Batch, share: Sequence[int]) -> list[Sequence[int]]:
        """Return what goes into one message each."""
        limits, keys, values = self._core.limits, batch.keys, batch.values
        most = limits.batch_records
        sizes = [len(keys[index]) + 64 for index in share]
        if values:
            sizes = [size + len(values[index]) for size, index in zip(sizes, share, strict=True)]
        if sum(sizes) < limits.batch_bytes:
            return [share[start : start + most] for start in range(0, len(share), most)]
        found, start, size = [], 0, 0
        for end, one in enumerate(sizes, 1):
            size += one
            if end - start >= most or size >= limits.batch_bytes or end == len(sizes):
                found.append(share[start:end])
                start, size = end, 0
        return found

    # -- at another primary -------------------------------------------------------------

    def _send(self, part: Part, now: float) -> None:
        part.sent = True
        deadline = part.job.deadline
        body, size = pack_batch(part.batch, max(1, int((deadline - now) * 1000)))
        done = partial(self._answered, part)
        self._core.call(
            part.owner, Message.OPERATE_MANY, self._space.name, body, done, now, deadline=deadline, size=size
        )

    def _answered(self, part: Part, outcome: Reply | Failure, now: float) -> None:
        if not isinstance(outcome, Failure) and outcome.status == _OK:
            self._settle(part, parse_found(outcome.body, len(part.indexes)), now)
        elif not part.over:
            unsure = isinstance(outcome, Failure) and outcome.indeterminate
            del part.job.parts[part]
            for index in part.indexes:
                self._client.alone(part.job, index, part.owner, now, unsure=unsure)

    # -- here ---------------------------------------------------------------------------

    def _run_here(self, parts: list[Part], now: float) -> None:
        """Run the first part, and the others in later turns."""
        part, *later = parts
        if later:
            self._core.timers.call_at(now, partial(self._run_here, later))
        if not part.over:
            part.sent = True
            tally = Tally(len(part.indexes), partial(self._settle, part))
            self._space.primary.run_many(part.batch, self._core.me, part.job.deadline, tally, now)

    # -- what came of it ----------------------------------------------------------------

    def _settle(self, part: Part, results: list[Result], now: float) -> None:
        if part.over:
            return
        job, kind = part.job, part.batch.kind
        del job.parts[part]
        self._noted(part, results, now)
        outcomes = job.outcomes
        again = []
        for index, result in zip(part.indexes, results, strict=True):
            if result[0] in FINAL:
                outcomes[index] = result
            else:
                again.append((index, result))
        counted = self._client.counted
        for status, count in Counter([result[0] for result in results if result[0] in FINAL]).items():
            known = kind, part.owner == self._core.me, status
            counted[known] = counted.get(known, 0) + count
        self._client.closed(job, len(results) - len(again))
        for index, result in again:
            self._client.alone(job, index, part.owner, now, result)

    def _noted(self, part: Part, results: list[Result], now: float) -> None:
        """Near copies are made of what was read, and dropped of what was written."""
        near = self._space.near
        if near.enabled:
            for key, result in zip(part.batch.keys, results, strict=True):
                if part.batch.kind != _GET:
                    near.wrote(key, now)
                elif part.owner != self._core.me:
                    near.keep(key, result, part.owner, part.asked)

    def expire(self, part: Part, error: CacheError, now: float) -> None:
        """The deadline has passed, and nothing has come of `part`."""
        part.over = True
        self._noted(part, [_OPEN] * len(part.indexes), now)
        count = len(part.indexes)
        for index in part.indexes:
            part.job.outcomes[index] = error
        self._core.counters["operations_failed"] += count
        known = part.batch.kind, part.owner == self._core.me, -1
        self._client.counted[known] = self._client.counted.get(known, 0) + count
        self._client.closed(part.job, count)
