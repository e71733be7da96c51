"""What cache machines say to each other: lists in the wire form of values, so large bytes travel uncopied.

A request is ``[kind, boot of the receiver, boot of the sender, clock, cache,
*body]`` and its answer ``[status, clock, *body]``: flat, since cbor2 takes a
microsecond for each list that it writes. A notice is a request that nobody
answers. The boots keep a process from taking what was meant for its
predecessor under the same name. Everything is decoded by the guarded decoder
of ``_wire.values`` and then checked here, field by field; what does not fit is
a ``RemoteProtocolError``, which the machine counts.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import cbor2

from .._wire.lent import Lent
from .._wire.value_guard import TAG_BUFFER
from .._wire.values import DEFAULT, Codecs, Encoded, encode_value
from ..exceptions import RemoteProtocolError
from .entry import NEVER
from .operations import DOUBTS_MAX, Op, Result, maker
from .placement import BITMAP_BYTES, PARTITIONS, Owner, from_bitmap
from .versions import VERSION_MAX

__all__ = ["Answer", "Copy", "Message", "Payload", "Record", "Reply", "Request", "make_record"]

RECORDS_MAX = 1 << 16
"""Most records, operations or partitions in one message."""

KEY_MAX = 4096

MS_MAX = 1 << 53
OP_MAX = MS_MAX << 10  # of an operation's id


class Payload(Protocol):
    """Bytes as they came from a peer, to be decoded: ``_data.ports.Received`` is one."""

    def decode(self, codecs: Codecs) -> object: ...


class Message(enum.IntEnum):
    """Kinds of requests and notices; numbers are append-only."""

    OPERATE = 1  # milliseconds left, most bytes of a value in the answer (0: any), operations ... -> results ...
    REPLICATE = 2  # records -> indexes of those refused
    CLAIM = 3  # bitmap -> of those agreed to: copies, and a bitmap of those in which nothing is
    PULL = 4  # partitions, each with a key -> records, and of each partition the last key, outcomes
    OFFER = 5  # copies -> bitmaps of those refused and of those wanted
    PUSH = 6  # of each partition: number, mark, first, last, ends, outcomes; records -> of each whether we have newer
    RELEASE = 7  # bitmap: claim them, I have what you may not have
    SURPLUS = 8  # bitmap -> bitmap of those that may be dropped
    SYNCED = 9  # -> [synced, view]
    KEYS = 10  # partition, after, most -> [keys]
    STATS = 11  # -> map
    ALL_SYNCED = 12  # view -> whether all members say, when they are asked now, that they are synced, of that view
    MANY = 13  # [kind, cache, *body] ... -> [status, *body] ..., of ``QUESTIONS``
    OPERATE_MANY = 14  # as columns: milliseconds left, operations of one kind -> results
    INVALIDATE = 20  # notice: [partition, epoch, sequence, keys] ...


QUESTIONS = frozenset(
    map(int, (Message.CLAIM, Message.OFFER, Message.RELEASE, Message.SURPLUS, Message.SYNCED))
)
"""Kinds of small requests about many partitions or all, which may share a message with those of other caches."""

QUESTIONS_MAX = 128
"""Most of them in one message: an answer to each may tell of every partition."""


class Answer(enum.IntEnum):
    """Status of an answer."""

    OK = 0
    WRONG_PROCESS = 1
    UNKNOWN_CACHE = 2
    REFUSED = 3
    """The receiver's view is another one."""
    BAD = 4


class Request(NamedTuple):
    """A request or notice, its envelope checked."""

    kind: int
    to: bytes
    boot: bytes
    clock: int
    cache: str
    body: list[Any]


class Reply(NamedTuple):
    """An answer, its envelope checked."""

    status: int
    clock: int
    body: list[Any]


class Record(NamedTuple):
    """One write, as copies get it. ``value`` None: a tombstone. ``op`` and the outcome let a copy answer a retry."""

    key: bytes
    value: bytes | None
    version: int
    expires: float = NEVER
    op: int = 0
    status: int = 0
    number: int = 0


make_record = maker(Record)


class Copy(NamedTuple):
    """What a member has of a partition: how much, which, and up to where absence means deletion."""

    partition: int
    size: int
    digest: int
    floor: int
    cleared: int


ANSWER_BYTES = 8 << 20
"""Bytes of values in an answer to many: half of what may stand in a header. The others are asked for alone."""

BULK = 64 << 10
"""Bytes of a value from which a message is worth a walk that keeps large ones beside its header, uncopied."""


def encode(message: Sequence[Any], size: int = 0, lent: Lent | None = None) -> Encoded:
    """Return a ``Request`` or ``Reply``, or what looks like one, ready to be sent.

    `size`: bytes of the largest value in it, or of all. `lent`: the value of its one operation, see ``pack_lent``.
    """
    flat = [*message[:-1], *message[-1]]
    if lent is not None:
        return lent.within(cbor2.dumps(flat))
    if size >= BULK:
        return encode_value(flat)
    header = cbor2.dumps(flat)
    return Encoded(header, (), b"\x00" + len(header).to_bytes(4, "big"), len(header) + 5)


def _decode(payload: Payload, fields: int) -> list[Any]:
    message = payload.decode(DEFAULT)
    if type(message) is not list or len(message) < fields:
        raise RemoteProtocolError("a cache message that is no list, or too short")
    return message


def decode_request(payload: Payload) -> Request:
    """Return a peer's request."""
    kind, to, boot, clock, cache, *body = _decode(payload, 5)
    if type(to) is not bytes or type(boot) is not bytes or type(cache) is not str:
        raise RemoteProtocolError("a cache request whose fields have the wrong types")
    return Request(whole(kind, 255), to, boot, whole(clock, VERSION_MAX), cache, body)


def decode_reply(payload: Payload) -> Reply:
    """Return a peer's answer."""
    status, clock, *body = _decode(payload, 2)
    return Reply(whole(status, 255), whole(clock, VERSION_MAX), body)


# -- checks ---------------------------------------------------------------------------------


def whole(value: object, most: int) -> int:
    """Return a number from 0 to `most`."""
    if type(value) is not int or not 0 <= value <= most:
        raise RemoteProtocolError("a number that is none, or out of range")
    return value


def _signed(value: object) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise RemoteProtocolError("a number that is none, or out of range")
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise RemoteProtocolError("something else where bytes should be")
    return value


def _maybe_bytes(value: object) -> bytes | None:
    return None if value is None else _bytes(value)


def _key(value: object) -> bytes:
    if type(value) is not bytes or not 0 < len(value) <= KEY_MAX:
        raise RemoteProtocolError("a key that is none, empty or too long")
    return value


def _owners(value: object) -> tuple[Owner, ...]:
    found = rows(value, 2)
    if len(found) > DOUBTS_MAX or not all(type(name) is str and len(name) <= KEY_MAX for name, *_ in found):
        raise RemoteProtocolError("an operation whose earlier tries went to nobody, or to too many")
    return tuple([Owner(name, _bytes(boot)) for name, boot, *_ in found])


def rows(value: object, width: int, most: int = RECORDS_MAX) -> list[list[Any]]:
    """Return a list of at most `most` lists of at least `width`."""
    if type(value) is not list or len(value) > most:
        raise RemoteProtocolError("a list that is none, or too long")
    for row in value:
        if type(row) is not list or len(row) < width:
            raise RemoteProtocolError("a record that is none, or too short")
    return value


def parts(body: object, width: int) -> list[Any]:
    """Return the first `width` items of a body, or of a list in it."""
    if type(body) is not list or len(body) < width:
        raise RemoteProtocolError("a cache message whose body is too short")
    return body[:width]


def partition(value: object) -> int:
    """Return a partition's number."""
    return whole(value, PARTITIONS - 1)


def version(value: object) -> int:
    """Return a version."""
    return whole(value, VERSION_MAX)


def partitions(value: object) -> list[int]:
    """Return the partitions in a bitmap."""
    raw = _bytes(value)
    if len(raw) != BITMAP_BYTES:
        raise RemoteProtocolError("a bitmap of the wrong size")
    return from_bitmap(raw)


# -- bodies ---------------------------------------------------------------------------------

def _trimmed(row: tuple[Any, ...]) -> list[Any]:
    """Return a row without its last fields as far as they are 0 or None: most are, and each costs both sides."""
    end = len(row)
    while end > 1 and row[end - 1] in _NONE:
        end -= 1
    return list(row[:end])


_NONE = (0, None)


def _filled(row: list[Any], usual: list[Any]) -> list[Any]:
    """Undo ``_trimmed``."""
    return row if len(row) >= len(usual) else row + usual[len(row) :]


def pack_ops(ops: Sequence[Op]) -> list[Any]:
    """Return operations for a body."""
    return [_trimmed(op) for op in ops]


def pack_lent(op: Op) -> list[Any]:
    """Return an operation for a body, with a reference in place of its value, which is lent."""
    return _trimmed((*op[:4], _BESIDE, *op[5:]))


_BESIDE = cbor2.CBORTag(TAG_BUFFER, 0)


def parse_operate(body: list[Any]) -> tuple[float, int, list[Op]]:
    """Return what an ``OPERATE`` says: seconds left, most bytes of a value in the answer, operations."""
    left, most = parts(body, 2)
    ops = [_parse_op(row) for row in rows(body[2:], 2)]
    if not ops:
        raise RemoteProtocolError("a message without operations")
    return whole(left, MS_MAX) / 1000.0, whole(most, MS_MAX), ops


def _parse_op(row: list[Any]) -> Op:
    if len(row) == 2:
        return Op(whole(row[0], 255), _key(row[1]))
    if len(row) == 5:
        kind, key, ident, age, data = row
        return Op(
            whole(kind, 255), _key(key), whole(ident, OP_MAX), whole(age, MS_MAX), _maybe_bytes(data)
        )
    kind, key, ident, age, data, ttl, number, wait, early, expected, doubts = _filled(row, _NO_OP)[:11]
    return Op(
        whole(kind, 255), _key(key), whole(ident, OP_MAX), whole(age, MS_MAX), _maybe_bytes(data),
        whole(ttl, MS_MAX), _signed(number), whole(wait, MS_MAX), whole(early, MS_MAX), _maybe_bytes(expected),
        None if doubts is None else _owners(doubts),
    )  # fmt: skip


_NO_OP = list(Op(0, b""))


def pack_results(results: Sequence[Result]) -> list[Any]:
    """Return results for a body."""
    return [_trimmed(result) for result in results]


def parse_results(value: object) -> list[Result]:
    """Return the results in a body."""
    return [
        Result(whole(status, 255), _maybe_bytes(data), version(stamp), whole(ttl, MS_MAX), _signed(number),
               whole(seq, VERSION_MAX))
        for status, data, stamp, ttl, number, seq, *_ in [_filled(row, _NO_RESULT) for row in rows(value, 1)]
    ]  # fmt: skip


_NO_RESULT = list(Result(0))


def rows_of(records: Sequence[Record], now: float) -> list[Any]:
    """Return records for a body, as rows; when they expire travels as what is left, since clocks differ."""
    return [
        _trimmed((record.key, record.value, record.version, _left(record.expires, now), *record[4:]))
        for record in records
    ]


def _left(expires: float, now: float) -> int:
    return 0 if expires == NEVER else max(1, int((expires - now) * 1000))


def parse_rows(value: object, now: float) -> list[Record]:
    """Return the records in a body that are rows."""
    return [
        Record(_key(key), _maybe_bytes(data), version(stamp),
               now + whole(ttl, MS_MAX) / 1000.0 if ttl else NEVER,
               whole(op, OP_MAX), whole(status, 255), _signed(number))
        for key, data, stamp, ttl, op, status, number, *_ in [_filled(row, _NO_RECORD) for row in rows(value, 3)]
    ]  # fmt: skip


_NO_RECORD: list[Any] = [b"", None, 0, 0, 0, 0, 0]


def pack_copies(copies: Iterable[Copy]) -> list[Any]:
    """Return what we have for a body; of a partition in which nothing is its number."""
    return [_trimmed(copy) for copy in copies]


def parse_copies(value: object) -> list[Copy]:
    """Return what a member says that it has."""
    return [
        Copy(partition(place), whole(count, MS_MAX), whole(digest, (1 << 64) - 1), version(floor), version(clear))
        for place, count, digest, floor, clear, *_ in [_filled(row, _NO_COPY) for row in rows(value, 1)]
    ]


_NO_COPY: list[Any] = [0, 0, 0, 0, 0]


def parse_replies(many: Reply, count: int) -> list[Reply]:
    """Return the answers to `count` questions."""
    answers = rows(many.body, 1, count)
    if len(answers) != count:
        raise RemoteProtocolError("fewer answers than questions")
    return [Reply(whole(status, 255), many.clock, body) for status, *body in answers]


def parse_refusals(value: object, count: int) -> dict[int, int]:
    """Return the reasons why records were refused, by their index below `count`."""
    return {whole(row[0], count - 1): whole(row[1], 255) for row in rows(value, 2)}


def parse_keys(value: object) -> list[bytes]:
    """Return a list of keys."""
    if type(value) is not list or len(value) > RECORDS_MAX:
        raise RemoteProtocolError("a list of keys that is none, or too long")
    return [_key(key) for key in value]
