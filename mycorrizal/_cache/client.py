"""Operations of this node's callers: to the primary, again if it was not it, until the deadline.

Operations of several callers that become ready in the same turn share a message
where none can make the others wait: reads, and writes that wait for the same
backups. Large values, waits for locks, and the many operations of one caller
have messages of their own.

An operation is tried again when nothing happened (another node is primary, or
not ready yet), and also when nobody knows (the call broke): a primary
recognises it by its id. If the deadline passes while nobody knows, the error
says ``indeterminate``.

Whoever asks for a lease or a lock may not be there any more when it comes, or the
answer may be lost. Then it is given back by the id of the operation (``withdraw``),
and once more if it is granted after all.

A large value may be lent (``_wire.lent``): each attempt reads it where it is,
and the attempt under way is called off before the operation ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .._endings import cache_error
from .._histogram import Histogram
from .._wire.lent import Lent
from ..exceptions import CacheError
from .batches import FINAL, Batches, Part
from .core import Failure
from .messages import Answer, Message, Reply, pack_lent, pack_ops, parse_results
from .operations import AGAIN, DOUBTS_MAX, READS, Batch, Kind, Op, Result, Status
from .placement import Owner, partition_of
from .shard import Pending
from .timers import Timer

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Client"]

_SHARED_BYTES = 1 << 14  # a larger value travels alone
_GET = Kind.GET  # an enum's member takes 150 ns to look up in Python 3.11
_ANSWERED = int(Answer.OK)
_NOT_FINAL = frozenset(Status) - FINAL
_GRANTS = frozenset({Kind.LEASE, Kind.LOCK})
_GIVE_BACK_SECONDS = 10.0
_HERE_MAX = 256  # operations on what is here, in one turn: what is sent to others must not wait for them
_Group = tuple[object, ...]


class Job:
    """What one caller asked for: one operation or many, and one completion.

    Attributes:
        batch: operations as columns; ``parts`` of it are under way together, ``attempts`` by themselves.
    """

    __slots__ = (
        "attempts", "batch", "began", "deadline", "left", "lent", "many", "outcomes", "parts", "ticket", "timer",
    )  # fmt: skip

    def __init__(self, ticket: Any, count: int, lent: Lent | None, now: float, deadline: float) -> None:
        self.ticket = ticket
        self.began = now
        self.deadline = deadline
        self.batch: Batch | None = None
        self.parts: dict[Part, None] = {}
        self.attempts: list[_Attempt] = []
        self.lent = lent  # the value of the one operation
        self.left = count
        self.many = count > 1
        self.outcomes: list[Result | CacheError | None] = [None] * count
        self.timer: Timer | None = None


class _Attempt:
    """One operation of a job."""

    __slots__ = (
        "alone", "began", "call", "count", "deadline", "done", "doubts", "index", "job", "op", "owner", "size",
        "unsure", "why",
    )  # fmt: skip

    def __init__(self, job: Job, index: int, op: Op) -> None:
        self.job = job
        self.index = index
        self.op = op
        self.began = job.began
        self.deadline = job.deadline
        self.count = 0
        self.call = 0  # the last one
        self.size = len(op.value or b"") if job.lent is None else job.lent.size  # of the value
        self.alone = False  # in a message of its own: its answer is large, or it has to wait
        self.unsure = False
        self.doubts: dict[Owner, None] = {}  # who may have done it, and has not said so
        self.done = False
        self.why = int(Status.MOVED)
        self.owner: Owner | None = None  # who has it now


class Client:
    """The callers of one cache on one node.

    Attributes:
        batches: those of many keys.
        open: operations under way.
        counted: how operations ended, by kind, whether this node is primary of the key, and status; -1: an error.
        times: how long they took, but for errors and waits for locks, by whether this node is primary of the key.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._core = space.core
        self._ready: list[_Attempt] = []
        self._lending: dict[Lent, _Attempt] = {}
        self._asking: dict[int, _Attempt] = {}  # for leases and locks, by the operation's id
        self.batches = Batches(space, self)
        self.open = 0
        self.counted: dict[tuple[int, bool, int], int] = {}
        self.times = {True: Histogram(), False: Histogram()}

    def operate(
        self, ops: Sequence[Op], ticket: Any, deadline: float, now: float, lent: Lent | None = None
    ) -> None:
        """Run operations; the completion is a list of a ``Result`` or an error for each, in order."""
        job = Job(ticket, len(ops), lent, now, deadline)
        if not ops:
            self._core.completions.append((ticket, []))
            return
        bits = self._core.rng.getrandbits
        for index, op in enumerate(ops):
            named = op if op.id or op.kind == _GET else Op(op.kind, op.key, bits(62) | 1, *op[3:])
            job.attempts.append(attempt := _Attempt(job, index, named))
            if op.kind in _GRANTS:
                self._asking[named.id] = attempt
        self._ready += job.attempts
        if lent is not None:
            (self._lending[lent],) = job.attempts
        self._opened(job)

    def operate_many(self, batch: Batch, ticket: Any, deadline: float, now: float) -> None:
        """Run a batch; the completion is as that of ``operate``."""
        job = Job(ticket, len(batch.keys), None, now, deadline)
        if not batch.keys:
            self._core.completions.append((ticket, []))
            return
        job.batch = self.batches.named(batch)
        self.batches.begin(job)
        self._opened(job)

    def _opened(self, job: Job) -> None:
        self.open += job.left
        self._space.touch()
        job.timer = self._core.timers.call_at(job.deadline, partial(self._overdue, job))

    def _overdue(self, job: Job, now: float) -> None:
        """The deadline of a job has passed."""
        for part in list(job.parts):
            under_way = part.sent and part.batch.kind not in READS
            self.batches.expire(part, _unknown(part.owner) if under_way else self._unavailable(Status.MOVED), now)
        self._expire(job.attempts, now)

    def alone(
        self, job: Job, index: int, owner: Owner | None, now: float, result: Result | None = None, *,
        unsure: bool = False,
    ) -> None:  # fmt: skip
        """One operation of a batch goes on by itself: `owner` was asked, and answered `result`, or nothing."""
        assert job.batch is not None
        attempt = _Attempt(job, index, job.batch.op(index))
        job.attempts.append(attempt)
        attempt.owner = owner
        attempt.count = 0 if owner is None else 1
        if result is not None:
            self._answered(attempt, result, now)
            return
        if unsure and attempt.op.kind not in READS:
            self._doubt(attempt)
        self._again(attempt, Status.MOVED, now)

    def give_up(self, lent: Lent, now: float) -> None:
        """End the operation whose value is `lent`, if it has not ended."""
        attempt = self._lending.get(lent)
        if attempt is not None:
            self._expire([attempt], now)

    def withdraw(self, op: Op, now: float) -> None:
        """Nobody waits any more for `op`, which asks for a lease or a lock: end it, and give back what it was given."""
        attempt = self._asking.get(op.id)
        if attempt is not None:
            self._expire([attempt], now)
        self._give_back(op, now)

    def _give_back(self, op: Op, now: float) -> None:
        if self.open < self._core.limits.operations:
            self._core.counters["grants_given_back"] += 1
            self.operate([Op(Kind.RETURN, op.key, number=op.id)], None, now + _GIVE_BACK_SECONDS, now)

    def flush(self, now: float) -> None:
        """Send what is ready."""
        self.batches.flush(now)
        me = self._core.me
        while self._ready:
            ready, self._ready = self._ready, []
            if len(ready) == 1:
                (attempt,) = ready
                owners = self._owners(attempt, now)
                if owners and owners[0] != me:
                    self._send_batch(owners[0], ready, attempt.size, now)
                elif owners:
                    self._run_here(attempt, now)
                continue
            groups: dict[_Group, list[_Attempt]] = {}
            written: dict[bytes, None] = {}
            here: list[_Attempt] = []
            for attempt in ready:
                owners = self._owners(attempt, now)
                if owners and owners[0] == me:
                    here.append(attempt)
                elif owners:
                    if attempt.op.kind != _GET and len(owners) > 1:
                        attempt.alone = attempt.alone or attempt.op.key in written  # it has to wait for the other write
                        written[attempt.op.key] = None
                    groups.setdefault(_group(attempt, owners), []).append(attempt)
            for group, attempts in groups.items():
                owner = group[0]
                assert isinstance(owner, Owner)
                self._send(owner, attempts, now)
            if len(here) > _HERE_MAX:
                self._core.timers.call_at(now, partial(self._go_on, here[_HERE_MAX:]))
            for attempt in here[:_HERE_MAX]:
                self._run_here(attempt, now)

    def _go_on(self, attempts: list[_Attempt], now: float) -> None:
        self._ready += attempts
        self._space.touch()

    def _owners(self, attempt: _Attempt, now: float) -> tuple[Owner, ...]:
        """Return the owners of an attempt's key, or nothing if it is over or has to wait."""
        if attempt.done:
            return ()
        lent = attempt.job.lent
        if lent is not None and lent.over:
            self._expire([attempt], now)
            return ()
        owners = self._space.shards[partition_of(attempt.op.key)].owners
        if not owners:
            self._again(attempt, Status.MOVED, now)
        return owners

    def _prepared(self, attempt: _Attempt, now: float) -> Op:
        """Return the operation as this attempt sends it."""
        op = attempt.op
        if attempt.count:
            op = op._replace(age=max(1, int((now - attempt.began) * 1000)))
        if attempt.doubts:
            # Who is gone has told its backups, or nobody; who lives may have what its successor has not heard yet.
            alive = [owner for owner in attempt.doubts if owner == self._core.me or owner in self._core.alive]
            op = op._replace(doubts=tuple([owner for owner in alive if owner != attempt.owner]) or None)
        attempt.count += 1
        return op

    def _run_here(self, attempt: _Attempt, now: float) -> None:
        lent = attempt.job.lent
        if lent is not None:
            value = lent.pack()
            if value is None:
                self._expire([attempt], now)
                return
            attempt.op = attempt.op._replace(value=value)
            self._keep(attempt)
        attempt.owner = self._core.me
        number = attempt.count

        def done(result: Result, now: float) -> None:
            if attempt.count == number + 1:
                self._answered(attempt, result, now)

        op = self._prepared(attempt, now)
        self._space.primary.submit(Pending(op, self._core.me, done, attempt.deadline), now)

    def _send(self, owner: Owner, attempts: list[_Attempt], now: float) -> None:
        limits = self._core.limits
        batch: list[_Attempt] = []
        size = largest = 0
        for attempt in attempts:
            batch.append(attempt)
            length = attempt.size
            size += len(attempt.op.key) + length + 64
            largest = max(largest, length)
            if len(batch) >= limits.batch_records or size >= limits.batch_bytes:
                self._send_batch(owner, batch, largest, now)
                batch, size, largest = [], 0, 0
        if batch:
            self._send_batch(owner, batch, largest, now)

    def _send_batch(self, owner: Owner, batch: list[_Attempt], largest: int, now: float) -> None:
        ops = []
        deadline = longest = 0.0
        for attempt in batch:
            attempt.owner = owner
            ops.append(op := self._prepared(attempt, now))
            deadline = max(deadline, attempt.deadline)  # the timer of a job ends it sooner
            longest = max(longest, op.wait)
        shared = batch[0].job is not batch[-1].job

        def done(outcome: Reply | Failure, answered: float) -> None:
            results = None
            if not isinstance(outcome, Failure) and outcome.status == _ANSWERED:
                results = parse_results(outcome.body)
            if results is not None and len(results) == len(batch):
                for attempt, result in zip(batch, results, strict=True):
                    if attempt.op.kind == _GET and not attempt.done:
                        self._space.near.keep(attempt.op.key, result, owner, now)
                    self._answered(attempt, result, answered)
                return
            unsure = (isinstance(outcome, Failure) and outcome.indeterminate) or results is not None
            for attempt in batch:
                if not attempt.done:
                    if unsure and attempt.op.kind not in READS:
                        self._doubt(attempt)
                    self._again(attempt, Status.MOVED, answered)
                elif attempt.op.kind in _GRANTS:  # it may have come after its withdrawal
                    self._give_back(attempt.op, answered)

        left = max(1, int((deadline - now) * 1000))
        lent = batch[0].job.lent  # which makes it the only one
        packed = pack_ops(ops) if lent is None else [pack_lent(ops[0])]
        body = [left, _SHARED_BYTES if shared else 0, *packed]
        batch[0].call = self._core.call(
            owner, Message.OPERATE, self._space.name, body, done, now, deadline, longest / 1000.0, largest, lent
        )

    def _answered(self, attempt: _Attempt, result: Result, now: float) -> None:
        status = result.status
        if attempt.done:
            if attempt.op.kind in _GRANTS and status in (Status.OK, Status.LEASED):
                self._give_back(attempt.op, now)
        elif status not in _NOT_FINAL:
            self._finish(attempt, result, now)
        elif status in AGAIN:
            self._again(attempt, status, now)
        elif status == Status.UNSURE:
            self._doubt(attempt)
            self._again(attempt, status, now)
        elif status == Status.ALONE and not attempt.alone:
            attempt.alone = True
            attempt.owner = None
            if attempt.count == 1:
                attempt.count = 0  # surely nothing happened: not a retry
            self._make_ready(attempt)
        elif status == Status.FORGOTTEN:
            self._finish(attempt, _unknown(attempt.owner), now)
        else:
            self._finish(attempt, result, now)

    def _doubt(self, attempt: _Attempt) -> None:
        """Who has it may do it, or have done it."""
        attempt.unsure = True
        if attempt.owner is not None:
            attempt.doubts[attempt.owner] = None

    def _again(self, attempt: _Attempt, why: int, now: float) -> None:
        """Try later, unless the deadline comes first."""
        attempt.why = why
        if len(attempt.doubts) > DOUBTS_MAX:
            self._finish(attempt, _unknown(attempt.owner), now)
            return
        attempt.owner = None
        at = now + self._core.backoff(attempt.count - 1 if attempt.count else 0)
        if at >= attempt.deadline:
            return  # the timer of the job ends it
        self._core.counters["operations_retried"] += 1
        self._core.timers.call_at(at, lambda now: self._make_ready(attempt))

    def _make_ready(self, attempt: _Attempt) -> None:
        self._ready.append(attempt)
        self._space.touch()

    def _expire(self, attempts: list[_Attempt], now: float) -> None:
        for attempt in attempts:
            if attempt.done:
                continue
            under_way = attempt.owner is not None and attempt.op.kind not in READS
            if attempt.unsure or under_way:
                self._finish(attempt, _unknown(attempt.owner), now)
            else:
                self._finish(attempt, self._unavailable(attempt.why), now)

    def _unavailable(self, why: int) -> CacheError:
        if why == Status.NO_QUORUM:
            text = f"fewer than {self._space.definition.quorum} members announce cache {self._space.name!r}"
        else:
            text = f"no primary of cache {self._space.name!r} took the operation in time"
        return cache_error(False, text, hint="nothing happened; try again, or allow more time")

    def _finish(self, attempt: _Attempt, outcome: Result | CacheError, now: float) -> None:
        attempt.done = True
        if attempt.op.kind in _GRANTS:
            self._asking.pop(attempt.op.id, None)
        if attempt.op.kind not in READS:
            self._space.near.wrote(attempt.op.key, now)
        job = attempt.job
        if job.lent is not None:
            self._core.cancel(attempt.call)
            self._keep(attempt)
        job.outcomes[attempt.index] = outcome
        status, here = -1, attempt.owner == self._core.me
        if isinstance(outcome, CacheError):
            self._core.counters["operations_failed"] += 1
        else:
            status = outcome.status
            if not attempt.op.wait:  # how long a lock is held by others says nothing of the cache
                self.times[here].observe(now - attempt.began)
        kind = attempt.op.kind, here, status
        self.counted[kind] = self.counted.get(kind, 0) + 1
        self.closed(job, 1)

    def closed(self, job: Job, count: int) -> None:
        """So many operations of a job have ended."""
        self.open -= count
        job.left -= count
        if count and not job.left:
            if job.timer is not None:
                job.timer.cancel()
            job.attempts, job.batch = [], None  # which know it in turn: only a collection would free their values
            if job.ticket is not None:
                self._core.completions.append((job.ticket, job.outcomes))

    def _keep(self, attempt: _Attempt) -> None:
        """The value is not lent any more."""
        lent, attempt.job.lent = attempt.job.lent, None
        if lent is not None:
            self._lending.pop(lent, None)
            lent.let_go()


def _group(attempt: _Attempt, owners: tuple[Owner, ...]) -> _Group:
    """Return what attempts have in common that may travel in one message; the first is to whom."""
    op, job = attempt.op, attempt.job
    if job.many and not (attempt.alone and op.kind == _GET):  # a read that had no room in the answer
        return owners[0], job
    if attempt.alone or op.wait or attempt.size > _SHARED_BYTES or job.lent is not None:
        return owners[0], attempt
    return owners if op.kind != _GET else (owners[0], None)


def _unknown(owner: Owner | None) -> CacheError:
    return cache_error(
        True,
        "the operation was sent, and nobody said what came of it",
        node=owner.name if owner is not None else None,
        hint="read the entry before trying again",
    )
