"""Many keys, values and numbers in one message, as columns: each is written and read in one go, at the speed of C.

A column of byte strings is two fields: their lengths as little-endian u32, and
the strings one after the other; where one is large, a list of them instead,
which then travel uncopied. A column of numbers is one field of little-endian
u64, or i64 where they have signs; statuses are bytes. A column of nothing but
zeros is empty. ``VERSION`` stands before the columns of a message.

What does not fit is a ``RemoteProtocolError``, raised before anything is built
that is larger than the message.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ..exceptions import RemoteProtocolError
from .entry import NEVER
from .messages import KEY_MAX, MS_MAX, OP_MAX, RECORDS_MAX, Record, make_record, parse_rows, parts, rows_of, whole
from .operations import Batch, Kind, Result, make_result
from .shard import Outcome, make_outcome
from .versions import VERSION_MAX

__all__ = [
    "VERSION",
    "pack_batch",
    "pack_found",
    "pack_outcomes",
    "pack_records",
    "parse_batch",
    "parse_found",
    "parse_outcomes",
    "parse_records",
]

VERSION = 1
"""Of the form of the columns."""

_MISSING = (1 << 32) - 1  # the length of what is not there
_UNCOPIED = 4096  # bytes of a value from which a column is a list: the wire form of values keeps it beside the header
_FEW = 4  # records; so few are rows
_KINDS = frozenset({Kind.GET, Kind.SET, Kind.DELETE})
_INT64 = 1 << 63

# -- columns --------------------------------------------------------------------------------


def _packed(values: Sequence[bytes | None]) -> tuple[list[Any], int]:
    """Return byte strings for a message, and the bytes of the largest or of all."""
    lengths = [_MISSING if value is None else len(value) for value in values]
    held = [value for value in values if value is not None]
    largest = max(map(len, held), default=0)
    if largest >= _UNCOPIED:
        return [b"", list(values)], largest
    joined = b"".join(held)
    return [struct.pack(f"<{len(lengths)}I", *lengths), joined], len(joined)


def _strings(lengths: object, joined: object, count: int) -> list[bytes | None]:
    if type(joined) is list:
        if len(joined) != count or not {type(value) for value in joined} <= {bytes, type(None)}:
            raise RemoteProtocolError("a column of byte strings with something else in it")
        return joined
    sizes = _unpacked(lengths, count, "I", 4)
    if _MISSING not in sizes:
        return list(_split(joined, sizes))
    found = iter(_split(joined, [size for size in sizes if size != _MISSING]))
    return [None if size == _MISSING else next(found) for size in sizes]


def _split(joined: object, sizes: Sequence[int]) -> list[bytes]:
    ends = list(accumulate(sizes, initial=0))
    if type(joined) is not bytes or ends[-1] != len(joined):
        raise RemoteProtocolError("a column of byte strings that is none, or cut short")
    return [joined[start:end] for start, end in pairwise(ends)]


def _unpacked(raw: object, count: int, letter: str, width: int) -> tuple[int, ...]:
    if type(raw) is not bytes or len(raw) != count * width:
        raise RemoteProtocolError("a column that is none, or of another length than the keys")
    return struct.unpack(f"<{count}{letter}", raw)


def _numbers(numbers: Sequence[int], letter: str = "Q") -> bytes:
    return struct.pack(f"<{len(numbers)}{letter}", *numbers) if any(numbers) else b""


def _read(raw: object, count: int, most: int, letter: str = "Q") -> Sequence[int]:
    if raw == b"":
        return (0,) * count
    found = _unpacked(raw, count, letter, 8)
    if max(found) > most:
        raise RemoteProtocolError("a column with a number out of range")
    return found


def _statuses(raw: object, count: int) -> bytes:
    if type(raw) is not bytes or len(raw) not in (0, count):
        raise RemoteProtocolError("a column of statuses that is none, or of another length than the keys")
    return raw or bytes(count)


def _keys(lengths: object, joined: object) -> list[bytes]:
    count = len(lengths) // 4 if type(lengths) is bytes else 0
    if not 0 < count <= RECORDS_MAX:
        raise RemoteProtocolError("columns without keys, or with too many")
    sizes = _unpacked(lengths, count, "I", 4)
    if min(sizes) == 0 or max(sizes) > KEY_MAX:
        raise RemoteProtocolError("a key that is empty or too long")
    return _split(joined, sizes)


def _named(keys: Sequence[bytes]) -> list[Any]:
    return [struct.pack(f"<{len(keys)}I", *map(len, keys)), b"".join(keys)]


def _versioned(body: object, width: int) -> list[Any]:
    version, *columns = parts(body, width + 1)
    if version != VERSION:
        raise RemoteProtocolError(f"columns of version {version!r:.20}; this node reads {VERSION}")
    return columns


# -- bodies ---------------------------------------------------------------------------------


def pack_batch(batch: Batch, left: int) -> tuple[list[Any], int]:
    """Return the body of an ``OPERATE_MANY`` that ends in `left` ms, and the bytes of its largest part."""
    values, size = _packed(batch.values) if batch.values else ([b"", b""], 0)
    return [left, VERSION, int(batch.kind), batch.ttl, *_named(batch.keys), _numbers(batch.ids), *values], size


def parse_batch(body: list[Any]) -> tuple[float, Batch]:
    """Return what an ``OPERATE_MANY`` says: seconds left, and the operations."""
    left, *rest = parts(body, 9)
    kind, ttl, lengths, joined, ids, sizes, values = _versioned(rest, 7)
    if whole(kind, 255) not in _KINDS:
        raise RemoteProtocolError("operations of a kind that has no columns")
    keys = _keys(lengths, joined)
    count = len(keys)
    held = _strings(sizes, values, count) if kind == Kind.SET else []
    if None in held:
        raise RemoteProtocolError("a write without a value")
    marks = _read(ids, count, OP_MAX) if kind != Kind.GET else ()
    return whole(left, MS_MAX) / 1000.0, Batch(kind, keys, held, whole(ttl, MS_MAX), marks)  # type: ignore[arg-type]


def pack_found(results: Sequence[Result]) -> tuple[list[Any], int]:
    """Return the answer to an ``OPERATE_MANY``, and the bytes of its largest part."""
    statuses, held, versions, ttls, _, seqs = zip(*results, strict=True)
    values, size = _packed(held) if held.count(None) < len(held) else ([b"", b""], 0)
    marks = bytes(statuses) if any(statuses) else b""
    return [VERSION, len(results), marks, *values, _numbers(versions), _numbers(ttls), _numbers(seqs)], size


def parse_found(body: list[Any], count: int) -> list[Result]:
    """Return the results in an answer to `count` operations."""
    answered, marks, sizes, held, versions, ttls, seqs = _versioned(body, 7)
    if answered != count:
        raise RemoteProtocolError("an answer to more or fewer operations than were asked for")
    values = _strings(sizes, held, count) if sizes or held else (None,) * count
    stamps, left = _read(versions, count, VERSION_MAX), _read(ttls, count, MS_MAX)
    columns = _statuses(marks, count), values, stamps, left, (0,) * count, _read(seqs, count, VERSION_MAX)
    return list(map(make_result, zip(*columns, strict=True)))


def pack_records(records: Sequence[Record], now: float) -> tuple[list[Any], int]:
    """Return records for a body, and the bytes of its largest part. Few are rows, as in ``messages``.

    When they expire travels as what is left, since clocks differ.
    """
    if len(records) <= _FEW:
        return rows_of(records, now), max([len(record.value or b"") for record in records], default=0)
    keys, held, versions, expires, ops, statuses, numbers = zip(*records, strict=True)
    values, size = _packed(held)
    ttls = [0 if at == NEVER else max(1, int((at - now) * 1000)) for at in expires]
    marks = bytes(statuses) if any(statuses) else b""
    rest = [_numbers(versions), _numbers(ttls), _numbers(ops), marks, _numbers(numbers, "q")]
    return [VERSION, *_named(keys), *values, *rest], size


def pack_outcomes(since: float, outcomes: Mapping[int, Outcome], now: float) -> list[Any]:
    """Return what is remembered of writes for a body; `since` when it is complete."""
    ages = [max(0, int((now - outcome.at) * 1000)) for outcome in outcomes.values()]
    statuses, numbers, versions, _ = zip(*outcomes.values(), strict=True) if outcomes else ((), (), (), ())
    ops, columns = struct.pack(f"<{len(outcomes)}Q", *outcomes), [_numbers(versions), _numbers(ages)]
    since_ms = max(0, int((now - since) * 1000))
    return [VERSION, since_ms, ops, bytes(statuses) if any(statuses) else b"", _numbers(numbers, "q"), *columns]


def parse_outcomes(value: object, now: float) -> tuple[float, dict[int, Outcome]]:
    """Return when what another copy remembers of writes is complete since, and that, by the operations' ids."""
    since, ops, marks, numbers, versions, ages = _versioned(value, 6)
    count = len(ops) // 8 if type(ops) is bytes else 0
    if count > RECORDS_MAX:
        raise RemoteProtocolError("outcomes of too many operations")
    marked, signed = _statuses(marks, count), _read(numbers, count, _INT64 - 1, "q")
    at = [now - age / 1000.0 for age in _read(ages, count, MS_MAX)]
    found = map(make_outcome, zip(marked, signed, _read(versions, count, VERSION_MAX), at, strict=True))
    return now - whole(since, MS_MAX) / 1000.0, dict(zip(_read(ops, count, OP_MAX), found, strict=True))


def parse_records(value: object, now: float) -> list[Record]:
    """Return the records in a body."""
    if type(value) is list and (not value or type(value[0]) is list):
        return parse_rows(value, now)
    lengths, joined, sizes, held, versions, ttls, ops, marks, numbers = _versioned(value, 9)
    keys = _keys(lengths, joined)
    count = len(keys)
    left = _read(ttls, count, MS_MAX)
    expires = [now + one / 1000.0 if one else NEVER for one in left] if any(left) else (NEVER,) * count
    stamps, marked = _read(versions, count, VERSION_MAX), _statuses(marks, count)
    rest = _read(ops, count, OP_MAX), marked, _read(numbers, count, _INT64 - 1, "q")
    return list(map(make_record, zip(keys, _strings(sizes, held, count), stamps, expires, *rest, strict=True)))
