"""How a call can end without an answer, as one table: the errors are made from it, and the guide prints it.

Which error it is depends on what ended the call; whether it may have taken
effect depends on how far the call had come (``Row``). An answer that comes
after the end changes nothing: it is dropped, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar, cast

from .exceptions import (
    CacheError,
    CacheOutcomeUnknown,
    CacheUnavailable,
    MycorrizalError,
    NotRunningError,
    OperationCancelled,
    OperationTimeout,
    PeerUnreachable,
    ServiceCrashed,
)
from .types import printable

__all__ = ["CACHE", "TABLE", "Ending", "Row", "cache_error", "copied", "error", "for_call", "named", "unreadable"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_E = TypeVar("_E", bound=MycorrizalError)


class Ending(Enum):
    """What ended a call; the value is how the guide calls it."""

    CLOSED = "this side was closed: `close()`, or the end of the interpreter"
    CRASHED = "a thread of this side died"
    TIMEOUT = "its `timeout` passed"
    CANCELLED = "it was cancelled here"
    LOST = "the peer was killed, or cannot be reached"
    DOWN = "membership declared the peer dead, it left, or `remove_peer`"
    PEER_CLOSED = "the peer closed: its data plane, or this connection"
    KEY_REMOVED = "the connection's key was removed"
    OTHER_PROCESS = "the peer was restarted, or its name is another process's"
    GAVE_UP = "the peer gave up its answer, or the stream, on the way"


class Row(NamedTuple):
    """One row. The last three: whether the call may have taken effect all the same; None: it goes on.

    Attributes:
        kind: the error.
        retriable: whether the same call may succeed later.
        waiting: nothing of the call was sent, or the peer has said that it did not read it.
        sent: a request, a stream that is open, or a file that is whole was given to a connection.
        message: a message was. A new connection to the same process carries it on.
    """

    kind: type[MycorrizalError]
    retriable: bool
    waiting: bool | None
    sent: bool | None
    message: bool | None


TABLE: dict[Ending, Row] = {
    Ending.CLOSED: Row(NotRunningError, False, False, True, True),
    Ending.CRASHED: Row(ServiceCrashed, False, False, True, True),
    Ending.TIMEOUT: Row(OperationTimeout, True, False, True, True),
    Ending.CANCELLED: Row(OperationCancelled, False, False, True, True),
    Ending.LOST: Row(PeerUnreachable, True, False, True, True),
    Ending.DOWN: Row(PeerUnreachable, True, False, True, True),
    Ending.PEER_CLOSED: Row(PeerUnreachable, True, None, True, None),
    Ending.KEY_REMOVED: Row(PeerUnreachable, True, None, True, None),
    Ending.OTHER_PROCESS: Row(PeerUnreachable, True, None, True, True),
    Ending.GAVE_UP: Row(PeerUnreachable, True, None, True, None),
}

CACHE: dict[bool, Row] = {
    False: Row(CacheUnavailable, True, False, None, None),
    True: Row(CacheOutcomeUnknown, False, None, True, None),
}
"""An operation of a cache asks again, others too, until its deadline. Then it is one of these two; by whether it is a
write that was sent. When this side is closed, or crashes, it ends as any call."""


def error(
    ending: Ending,
    text: str,
    *,
    sent: bool = False,
    node: str | None = None,
    operation: str | None = None,
    hint: str | None = None,
    cause: BaseException | None = None,
) -> MycorrizalError:
    """Return the error for what `ending` has ended; ``for_call`` makes it that of one call."""
    row = TABLE[ending]
    made = row.kind(text, node=node, operation=operation, hint=hint, retriable=row.retriable)
    made.indeterminate = _doubt(row, sent)
    made.ending = ending.name
    made.__cause__ = cause
    return made


def for_call(
    made: MycorrizalError, sent: bool, *, node: str | None = None, operation: str | None = None
) -> MycorrizalError:
    """Return a copy of `made` for one call: several may end with the same, each of them as far as it had come.

    What ``error`` did not make says of itself whether anything ran.
    """
    mine = copied(made)
    if made.ending is not None:
        mine.indeterminate = _doubt(TABLE[Ending[made.ending]], sent)
    mine.node = made.node or node
    mine.operation = operation or made.operation
    return mine


def named(operation: str, *within: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let each error of a public call say that it is `operation`'s, unless it says of what it is: of a call within.

    Args:
        within: calls by which this one does its work, and which nobody asked for.
    """

    def decorate(call: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(call)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return call(*args, **kwargs)
            except MycorrizalError as made:
                if made.operation is None or made.operation in within:
                    made.operation = operation
                raise

        return called

    return decorate


def copied(made: MycorrizalError) -> MycorrizalError:
    """Return an equal error with no traceback yet."""
    mine = type(made).__new__(type(made), *made.args)
    mine.args = made.args
    mine.__dict__.update(made.__dict__)
    mine.__cause__ = made.__cause__
    return mine


def unreadable(made: _E, what: str, *, node: str | None = None, operation: str | None = None) -> _E:
    """Return the error for its reader: `what` it is that cannot be decoded here, and who sent or wrote it."""
    mine = copied(made)
    mine.args = (printable(f"{what}: {made}", 4000),)
    mine.node, mine.operation = node, operation
    return cast(_E, mine)


def cache_error(sent: bool, text: str, *, node: str | None = None, hint: str | None = None) -> CacheError:
    """Return the error for an operation of a cache whose deadline has passed; `sent`: it is a write that was."""
    row = CACHE[sent]
    made = row.kind(text, node=node, hint=hint, retriable=row.retriable)
    made.indeterminate = sent
    return cast(CacheError, made)


def _doubt(row: Row, sent: bool) -> bool:
    return bool(row.sent if sent else row.waiting)
