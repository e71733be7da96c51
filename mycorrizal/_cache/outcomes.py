"""What became of an operation, as its caller hears it."""

from __future__ import annotations

from collections.abc import Sequence

from ..exceptions import CacheError, CacheUnavailable, ValueTooLarge
from .operations import Result, Status

__all__ = ["checked", "failed"]

_REFUSALS = frozenset({Status.TOO_LARGE, Status.BUSY, Status.NO_QUORUM, Status.NOT_READY, Status.MOVED})


def failed(outcomes: Sequence[Result | CacheError]) -> list[int]:
    """Return the indexes of those that ``checked`` raises."""
    return [index for index, one in enumerate(outcomes) if type(one) is not Result or one[0] in _REFUSALS]


def checked(outcome: Result | CacheError, operation: str) -> Result:
    """Return `outcome` if it is one.

    Raises:
        CacheError, ValueTooLarge: what it is otherwise.
    """
    if isinstance(outcome, CacheError):
        outcome.operation = operation
        try:
            raise outcome
        finally:
            del outcome  # it would hold its own traceback, and so the caller's value, until it is collected
    if outcome.status == Status.TOO_LARGE:
        raise ValueTooLarge("the value is larger than the cache takes", operation=operation, hint="raise max_bytes")
    if outcome.status in (Status.BUSY, Status.NO_QUORUM, Status.NOT_READY, Status.MOVED):
        raise CacheUnavailable("the cache did not take the operation", operation=operation, hint="try again")
    return outcome
