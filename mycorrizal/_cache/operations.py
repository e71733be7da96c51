"""What a caller can ask of a key, and the one function that says what comes of it.

``decide`` is the cache's whole meaning on one node: it looks at the entry and
at the operation, and returns the answer and the change, if there is one. It is
run by the primary alone, one operation on a key at a time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .._wire.values import decode_packed, encode_value
from ..exceptions import MycorrizalError
from .entry import NEVER, Entry
from .placement import Owner

__all__ = ["AGAIN", "READS", "Batch", "Change", "Kind", "Op", "Result", "Status", "decide", "make_result", "maker"]


_T = TypeVar("_T", bound="tuple[Any, ...]")


def maker(kind: type[_T]) -> Callable[[tuple[Any, ...]], _T]:
    """Return what makes a named tuple of a whole tuple, in a third of the time that its class takes."""
    return partial(tuple.__new__, kind)


class Kind(enum.IntEnum):
    """Operations on one key; numbers are append-only."""

    GET = 1
    SET = 2
    DELETE = 3
    TOUCH = 4  # a new time to live
    ADD = 5  # set if absent
    CAS = 6  # set if the version, or the value, is as expected
    INCR = 7
    LEASE = 8  # get, or be the one who computes
    LOCK = 9
    RENEW = 10
    UNLOCK = 11
    CLEAR = 12  # everything in the partition of the key
    RETURN = 13  # give a lease or a lock back, or wait for it no more: it is the next one's


READS = frozenset({Kind.GET, Kind.LEASE, Kind.RETURN})


class Status(enum.IntEnum):
    """How an operation ended; numbers are append-only."""

    OK = 0
    MISSING = 1
    FAILED = 2
    """A condition does not hold: present already, another version, held by somebody else."""
    LEASED = 3
    """The value is the caller's to compute; an old one may come with it."""
    NOT_COUNTER = 4
    TOO_LARGE = 5
    MOVED = 6
    """Another node is primary, by the answering node's view; nothing happened."""
    NOT_READY = 7
    """This node is primary, but has not everything yet; nothing happened."""
    BUSY = 8
    NO_QUORUM = 9
    FORGOTTEN = 10
    """A retry of what is too long ago: it may have happened."""
    UNSURE = 11
    """The partition moved while the write was under way: it may have happened, and a retry tells."""
    ALONE = 12
    """Its value, or a write under way, would make the others in the message wait: ask in one of its own."""


AGAIN = frozenset({Status.MOVED, Status.NOT_READY, Status.BUSY, Status.NO_QUORUM})
"""Nothing happened, so the same operation may be tried again."""


DOUBTS_MAX = 4
"""Processes that may have done an operation unknown to its primary; with more, its outcome is unknown."""


class Op(NamedTuple):
    """One operation on one key.

    Attributes:
        id: 62 random bits; a retry has the same.
        age: milliseconds since its first attempt; 0: this is the first.
        ttl: milliseconds to live; 0: for ever.
        number: version that a GET must at least see (read repair), amount of an INCR, expected version of a CAS (0:
            absent), token of a RENEW, UNLOCK, or SET under a lease, milliseconds of a LEASE; of a RETURN the lease's
            token, or the id of the LEASE or LOCK that asked.
        wait: milliseconds that a LOCK or LEASE may wait at the primary.
        early: a LEASE takes an entry with fewer milliseconds to live for one that wants computing.
        expected: value that a CAS compares with instead of the version.
        doubts: living processes that had an earlier try, and may have done it unknown to the primary.
    """

    kind: int
    key: bytes
    id: int = 0
    age: int = 0
    value: bytes | None = None
    ttl: int = 0
    number: int = 0
    wait: int = 0
    early: int = 0
    expected: bytes | None = None
    doubts: tuple[Owner, ...] | None = None


class Batch(NamedTuple):
    """Operations of one kind on many keys, as columns: GET, SET or DELETE, and nothing else about them.

    Attributes:
        values: of a SET, as many as keys.
        ttl: of a SET, milliseconds to live; 0: for ever.
        ids: of a SET or DELETE, as ``Op.id``; the client gives them.
    """

    kind: int
    keys: Sequence[bytes]
    values: Sequence[bytes] = ()
    ttl: int = 0
    ids: Sequence[int] = ()

    def op(self, index: int) -> Op:
        """Return one of them."""
        ident = self.ids[index] if self.ids else 0
        return Op(self.kind, self.keys[index], ident, 0, self.values[index] if self.values else None, self.ttl)

    def only(self, indexes: Sequence[int]) -> Batch:
        """Return some of them."""
        keys, values, ids = self.keys, self.values, self.ids
        return Batch(
            self.kind, [keys[index] for index in indexes], [values[index] for index in indexes] if values else (),
            self.ttl, [ids[index] for index in indexes] if ids else (),
        )  # fmt: skip


class Result(NamedTuple):
    """What came of it.

    Attributes:
        value: of the entry, where one was asked for.
        version: of the entry after the operation; the fencing token of a LOCK.
        ttl: milliseconds it has to live; 0: for ever.
        number: of an INCR; the token of a lease.
        seq: number of the last invalidation in the partition, for a near copy.
    """

    status: int
    value: bytes | None = None
    version: int = 0
    ttl: int = 0
    number: int = 0
    seq: int = 0


make_result = maker(Result)


class Change(NamedTuple):
    """What a write makes of an entry; ``value`` None: a tombstone."""

    value: bytes | None
    expires: float = NEVER


_INT64 = 1 << 63
_SET, _OK = Kind.SET, int(Status.OK)  # an enum's member takes 150 ns to look up in Python 3.11


def _left(entry: Entry, now: float) -> int:
    return 0 if entry.expires == NEVER else max(1, int((entry.expires - now) * 1000))


def found(entry: Entry, now: float, seq: int = 0) -> Result:
    """Return the answer that holds an entry."""
    expires = entry.expires
    left = 0 if expires == NEVER else max(1, int((expires - now) * 1000))
    return make_result((_OK, entry.value, entry.version, left, 0, seq))


def decide(op: Op, entry: Entry | None, version: int, now: float) -> tuple[Result, Change | None]:  # noqa: PLR0911
    """Return the answer to `op` and the change it makes.

    Args:
        op: what is asked; not a LEASE, which is ``leases``' to answer.
        entry: the live entry, or None.
        version: what a change will have.
        now: monotonic seconds.
    """
    kind = op.kind
    expires = now + op.ttl / 1000.0 if op.ttl else NEVER
    if kind == _SET:
        return Result(_OK, None, version), Change(op.value, expires)
    if kind == Kind.GET:
        return (found(entry, now) if entry is not None else Result(Status.MISSING)), None
    if kind == Kind.CLEAR:
        return Result(Status.OK, version=version), Change(None)
    if kind == Kind.DELETE:
        # a tombstone even where nothing is: an older copy may be somewhere
        return Result(Status.OK if entry is not None else Status.MISSING, version=version), Change(None)
    if kind == Kind.ADD:
        if entry is not None:
            return Result(Status.FAILED, version=entry.version), None
        return Result(Status.OK, version=version), Change(op.value, expires)
    if kind == Kind.CAS:
        if not _as_expected(op, entry):
            return Result(Status.FAILED, version=entry.version if entry is not None else 0), None
        return Result(Status.OK, version=version), Change(op.value, expires)
    if kind == Kind.INCR:
        return _increment(op, entry, version, expires)
    if kind == Kind.LOCK:
        return _lock(op, entry, version, expires, now)
    if entry is None:
        return Result(Status.MISSING), None
    if kind == Kind.TOUCH:
        return Result(Status.OK, version=version), Change(entry.value, expires)
    if int.from_bytes(entry.value[:8], "big") != op.number:  # the holder's token
        return Result(Status.FAILED, entry.value[8:], ttl=_left(entry, now)), None
    if kind == Kind.RENEW:
        return Result(Status.OK, version=op.number), Change(entry.value, expires)
    return Result(Status.OK, version=op.number), Change(None)


def _as_expected(op: Op, entry: Entry | None) -> bool:
    if op.expected is not None:
        return entry is not None and entry.value == op.expected
    return op.number == (entry.version if entry is not None else 0)


def _increment(op: Op, entry: Entry | None, version: int, expires: float) -> tuple[Result, Change | None]:
    """A counter is an integer of 64 bits in the wire form of values; it keeps the time it has to live."""
    before: object = 0
    if entry is not None:
        expires = entry.expires
        try:
            before = decode_packed(entry.value) if len(entry.value) < 32 else None
        except MycorrizalError:
            before = None
    if type(before) is not int or not -_INT64 <= before + op.number < _INT64:
        return Result(Status.NOT_COUNTER), None
    after = before + op.number
    return Result(Status.OK, version=version, number=after), Change(encode_value(after).pack(), expires)


def _lock(op: Op, entry: Entry | None, version: int, expires: float, now: float) -> tuple[Result, Change | None]:
    """The version of the grant is the fencing token: it stands in the value, since a RENEW has another version."""
    if entry is not None:
        return Result(Status.FAILED, entry.value[8:], ttl=_left(entry, now)), None
    return Result(Status.OK, version=version), Change(version.to_bytes(8, "big") + (op.value or b""), expires)
