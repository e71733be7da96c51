"""What a cache gives out for a while: locks, and the right to compute a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._cache.definition import SECONDS_MAX, check_seconds
from ._cache.operations import Kind, Op, Status
from ._runtime.deadline import Deadline
from ._runtime.lifecycle import Handle
from ._wire.values import decode_held
from .exceptions import CacheError, MycorrizalError, OperationTimeout, ValueTooLarge

if TYPE_CHECKING:
    from .cache import Cache

__all__ = ["Computation", "Lock", "Patience", "milliseconds"]

_SECONDS = 10.0
_POLL_SECONDS = 30.0  # a wait at the primary; then it is asked again
_ANSWER_SECONDS = 0.1


def milliseconds(seconds: float) -> int:
    """Return `seconds` as it travels: at least 1, and not in the type of a small NumPy number, which would overflow."""
    return max(1, int(float(seconds) * 1000))


class Patience:
    """How long to wait at the primary for a lock or a lease, and when that was too long.

    It ends a little before the deadline, so that the answer, who holds it, is here in time.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._spare = min(_ANSWER_SECONDS, deadline.capped(1.0) / 4)

    def milliseconds(self) -> int:
        """Return how long the next operation may wait."""
        return max(0, int((self._deadline.capped(_POLL_SECONDS) - self._spare) * 1000))

    @property
    def over(self) -> bool:
        """Whether there is no time to ask again."""
        return self._deadline.capped(1.0) <= self._spare


class Lock(Handle):
    """A lock that is held; made by ``Cache.lock``. A context manager that releases it. Any thread.

    Attributes:
        name: of the lock.
        token: the fencing token: greater than that of every holder before.
    """

    def __init__(self, cache: Cache, name: str, raw: bytes, token: int, lease: float) -> None:
        self._cache = cache
        self._raw = raw
        self._lease = lease
        self.name = name
        self.token = token

    def renew(self, lease: float | None = None, timeout: float | None = _SECONDS) -> bool:
        """Hold it for `lease` seconds from now; return False if it is not held any more. Blocks. Raises as ``set``."""
        lease = self._lease if lease is None else lease
        check_seconds("lease", lease, zero=True)
        op = Op(Kind.RENEW, self._raw, number=self.token, ttl=milliseconds(lease))
        return self._cache._one(op, timeout, "renew").status == Status.OK

    def release(self, timeout: float | None = _SECONDS) -> bool:
        """Release it; return False if it was not held any more. Blocks. Raises as ``set``."""
        return self._cache._one(Op(Kind.UNLOCK, self._raw, number=self.token), timeout, "release").status == Status.OK

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.release()
        except MycorrizalError:
            if exc_info[0] is None:
                raise

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, token {self.token}>"


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

    def run(self, compute: Callable[[], Any], deadline: Deadline) -> Any:
        """Return what `compute` returns; stored, unless the key was written or deleted meanwhile."""
        try:
            value = compute()
            encoded = self._cache._encoded(value)
            mine = decode_held(encoded, self._cache._codecs)  # what nobody could read is not stored
        except BaseException:
            self.give_back()
            raise
        ttl = self._ttl
        if value is None and self._negative_ttl is not None:
            ttl = self._negative_ttl
        elif ttl is not None:
            ttl = min(float(ttl) + self._stale, SECONDS_MAX)
        op = Op(Kind.SET, self._raw, value=encoded, number=self._token, ttl=self._cache._ms(ttl))
        try:
            stored = self._cache._one(op, max(deadline.capped(_SECONDS), 1.0), "get_or_compute")
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
