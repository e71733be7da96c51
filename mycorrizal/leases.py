"""What a cache gives out for a while: locks, and the right to compute a value."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ._cache.definition import SECONDS_MAX, check_seconds
from ._cache.operations import Kind, Op, Result, Status
from ._runtime.cache.caching import new_id
from ._runtime.threads.clock import now
from ._runtime.threads.deadline import Deadline, Seconds, as_seconds
from ._runtime.threads.lifecycle import Handle
from ._runtime.threads.repeating import Repeater
from ._wire.text import logger
from ._wire.values import decode_lent
from .exceptions import (
    CacheError,
    LockLost,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    ReentrantCallError,
    ServiceCrashed,
    ValueTooLarge,
)

if TYPE_CHECKING:
    from .cache import Cache

__all__ = ["Computation", "Lock", "Patience", "milliseconds", "refuse_own_key", "seconds_of", "take_lock"]

log = logger("mycorrizal.cache")

_SECONDS = 10.0
_POLL_SECONDS = 30.0  # a wait at the primary; then it is asked again
_ANSWER_SECONDS = 0.1


def seconds_of(field: str, time: Seconds, *, zero: bool = False) -> float:
    """Return a time as a number of seconds.

    Raises:
        ConfigError: it does not travel: it is not above 0, nor 0 if `zero`, or endless.
    """
    seconds = as_seconds(time)
    check_seconds(field, seconds, zero=zero)
    return seconds


def milliseconds(seconds: float) -> int:
    """Return `seconds` as it travels: at least 1, and not in the type of a small NumPy number, which would overflow."""
    return max(1, int(float(seconds) * 1000))


class Patience:
    """How long to wait at the primary for a lock or a lease, and when that was too long.

    It ends a little before the deadline, so that the answer, who holds it, is here in time.
    """

    def __init__(self, deadline: Deadline, patient: bool = True) -> None:
        self._deadline = deadline
        self._patient = patient  # or it is asked once, and does not wait there
        self._spare = min(_ANSWER_SECONDS, deadline.capped(1.0) / 4)

    def milliseconds(self) -> int:
        """Return how long the next operation may wait."""
        return max(0, int((self._deadline.capped(_POLL_SECONDS) - self._spare) * 1000)) if self._patient else 0

    @property
    def over(self) -> bool:
        """Whether there is no time to ask again."""
        return not self._patient or self._deadline.capped(1.0) <= self._spare


class Lock(Handle):
    """A lock that is held; made by ``Cache.lock``. A context manager that releases it. Any thread.

    Attributes:
        name: of the lock.
        token: the fencing token: greater than that of every holder before.
    """

    def __init__(
        self, cache: Cache, name: str, raw: bytes, token: int, lease: float, asked: float, renew: bool
    ) -> None:
        self._cache = cache
        self._raw = raw
        self._lease = float(lease)
        self._until = asked + self._lease  # as the holder counts it: from before it asked
        self._released = False
        self._lost: LockLost | None = None
        self._renewal: Repeater | None = None
        if renew:
            self._renewal = Repeater("renew", cache._host.name, self._renew_again, self._pace)
        self.name = name
        self.token = token

    @property
    def held(self) -> bool:
        """Whether it is held still, as far as is known here. Never blocks.

        Its lease is not over by this process' clock, it was not released, and no answer has said that it is lost.
        """
        return not self._released and self._lost is None and now() < self._until

    def renew(self, lease: Seconds | None = None, timeout: Seconds | None = _SECONDS) -> bool:
        """Hold it for `lease` seconds from now; return True. Blocks.

        Raises: as ``set``.
            LockLost: it is not held any more; its lease ran out, or the cache was cleared.
        """
        lease = self._lease if lease is None else seconds_of("lease", lease, zero=True)
        began = now()
        op = Op(Kind.RENEW, self._raw, number=self.token, ttl=milliseconds(lease))
        self._checked(self._cache._one(op, timeout, "renew"), "renew")
        self._until = began + float(lease)
        return True

    def release(self, timeout: Seconds | None = _SECONDS) -> bool:
        """Release it; return False if this was done before. Blocks.

        Raises: as ``set``.
            LockLost: it was not held any more; what was done since may stand beside another holder's.
        """
        if self._renewal is not None:
            self._renewal.stop()
        if self._released:
            return False
        op = Op(Kind.UNLOCK, self._raw, number=self.token)
        self._checked(self._cache._one(op, timeout, "release"), "release")
        self._released = True
        return True

    def _checked(self, result: Result, operation: str) -> None:
        if result.status != Status.OK:
            holder = None if result.value is None else result.value.decode("utf-8", "replace")
            whose = "its lease ran out, or it was cleared" if holder is None else f"{holder} holds it now"
            self._lost = LockLost(
                f"the lock {self.name!r} of token {self.token} was lost: {whose}",
                token=self.token, node=holder, operation=operation,
                hint="what was done since may stand beside another holder's; allow a longer lease, or renew=True",
            )  # fmt: skip
            raise self._lost

    def _renew_again(self) -> float | None:
        """Renew it while the block runs; return when to do so again, None if that is in vain."""
        left = self._until - now()
        try:
            self.renew(timeout=max(left, 1.0))
        except (LockLost, NotRunningError, ServiceCrashed) as error:
            if not self._released:
                self._cache._host.note("cache.locks_lost", error)
                log.warning("%s: %s", self._cache._host.name, error)
            return None
        except MycorrizalError as error:  # it may go better next time
            self._cache._host.note("cache.locks_not_renewed", error)
            return min(1.0, self._pace / 3)
        return self._pace

    @property
    def _pace(self) -> float:
        """Seconds between two renewals."""
        return max(self._lease / 3, 0.02)

    def __enter__(self) -> Lock:
        if self._renewal is not None:
            try:
                self._renewal.start()
            except BaseException:
                self.release()
                raise
        _inside.set((*_inside.get(), self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        _inside.set(tuple(lock for lock in _inside.get() if lock is not self))
        try:
            self.release()
        except MycorrizalError:
            if exc_info[0] is None:
                raise

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, token {self.token}, {'held' if self.held else 'not held'}>"


_inside: ContextVar[tuple[Lock, ...]] = ContextVar("mycorrizal locks", default=())
"""Locks whose blocks the caller is inside of."""


def _refuse_own_lock(cache: Cache, raw: bytes) -> None:
    """Return unless the caller is inside the block of a lock that it asks for.

    Raises:
        ReentrantCallError: it is.
    """
    for lock in _inside.get():
        if lock._raw == raw and lock._cache is cache and lock.held:
            raise ReentrantCallError(
                f"lock {lock.name!r} is held by the block that asks for it: it would wait for itself",
                operation="lock",
                hint="a lock is taken once; pass the Lock to what needs it",
            )


def take_lock(
    cache: Cache, name: str, raw: bytes, lease: Seconds, deadline: Deadline, renew: bool, patient: bool = True
) -> Lock:
    """See ``Cache.lock``; not `patient`: it is not waited for."""
    lease = seconds_of("lease", lease, zero=True)
    _refuse_own_lock(cache, raw)
    host, wait = cache._host, Patience(deadline, patient)
    while True:
        value, ttl = host.name.encode(), milliseconds(lease)
        op = Op(Kind.LOCK, raw, new_id(), value=value, ttl=ttl, wait=wait.milliseconds())
        asked = now()
        try:
            result = cache._one(op, deadline.remaining(), "lock")
            if result.status == Status.OK:
                return Lock(cache, name, raw, result.version, lease, asked, renew)
        except BaseException:  # the answer may be lost, or this a Ctrl-C: what nobody knows of shall be nobody's
            host.withdraw(cache.name, op)
            raise
        if wait.over:
            holder = (result.value or b"?").decode("utf-8", "replace")
            own = ", this agent itself" if holder == host.name else ""
            raise OperationTimeout(
                f"the lock {name!r} is held by {holder}{own}", node=holder, operation="lock",
                hint=f"its lease ends in {result.ttl / 1000:.1f} s unless it is renewed",
            )  # fmt: skip


def refuse_own_key(cache: Cache, raw: bytes) -> None:
    """Return unless the caller computes the key that it asks for.

    Raises:
        ReentrantCallError: it does.
    """
    for computation in _computing.get():
        if computation._raw == raw and computation.running and computation._cache._same(cache):
            raise ReentrantCallError(
                f"the computation of {raw.decode()!r} asks for {raw.decode()!r} itself: it would wait for itself",
                operation="get_or_compute",
                hint="compute it from other keys, or read what is there with get()",
            )


class Computation:
    """Computes under a lease, and stores what came of it."""

    def __init__(
        self, cache: Cache, raw: bytes, token: int, ttl: float | None, stale: float, negative_ttl: float | None
    ) -> None:
        self._cache = cache
        self._raw = raw
        self._token = token
        self._ttl = ttl
        self._stale = stale
        self._negative_ttl = negative_ttl
        self.running = False

    def run(self, compute: Callable[[], Any], deadline: Deadline) -> Any:
        """Return what `compute` returns; stored, unless the key was written or deleted meanwhile."""
        outer = _computing.get()
        try:
            _computing.set((*outer, self))
            self.running = True  # a task with a copy of this context may go on when it is not any more
            value = compute()
            encoded = self._cache._encode(value)
            mine = decode_lent(encoded, self._cache._codecs)  # what nobody could read is not stored
        except BaseException:
            self.give_back()
            raise
        finally:
            self.running = False
            _computing.set(outer)
        ttl = self._ttl
        if value is None and self._negative_ttl is not None:
            ttl = self._negative_ttl
        elif ttl is not None:
            ttl = min(float(ttl) + self._stale, SECONDS_MAX)
        left, ms = max(deadline.capped(_SECONDS), 1.0), self._cache._ms(ttl)
        try:
            stored = self._cache._put(Kind.SET, self._raw, encoded, ms, left, "get_or_compute", self._token)
            if stored.status != Status.OK:
                self._cache._host.note("cache.not_stored", "the entry was written or deleted meanwhile")
        except (CacheError, ValueTooLarge, OperationTimeout) as error:
            self._cache._host.note("cache.not_stored", error)  # the caller has what it wanted
            if isinstance(error, ValueTooLarge):
                self.give_back()
        return mine

    def give_back(self) -> None:
        """Let the next one compute at once."""
        try:
            self._cache._one(Op(Kind.RETURN, self._raw, number=self._token), 1.0, "get_or_compute")
        except MycorrizalError as error:
            self._cache._host.note("cache.not_returned", error)  # the lease runs out


_computing: ContextVar[tuple[Computation, ...]] = ContextVar("mycorrizal computations", default=())
"""What the caller computes just now, the innermost last."""
