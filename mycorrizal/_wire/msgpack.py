"""The ``wire="msgpack"`` body codec, and plain values in the same style for Serf's messages.

Bodies come out byte for byte as Go's codec writes them: maps with sorted keys,
the old specification's raw family only, signed fields in the signed family,
nil and empty kept apart. Reading is as tolerant as Go's: newer markers, other
key order, unknown keys, arrays in place of maps.

Knows nothing of type bytes, frames or limits of messages. Nothing here
recurses on a body's data, and nothing is allocated before the bytes are there.

From: memberlist-protocol §1.2, §1.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from ..exceptions import LocalProtocolError, RemoteProtocolError
from .body import BODIES, INTEGER_RANGE, B, BodyPlan, IncompleteError, plan_values, wire_mismatch
from .limits import BODY_DEPTH_MAX, BODY_ITEMS_MAX
from .messages import Body, Field, Kind

__all__ = ["MsgpackCodec", "pack", "unpack"]

_Reader = Callable[[bytes, int], tuple[Any, int]]

_FIX = [bytes([n]) for n in range(256)]
_UINT16 = struct.Struct(">BH").pack
_UINT32 = struct.Struct(">BI").pack
_UINT64 = struct.Struct(">BQ").pack
_INT8 = struct.Struct(">Bb").pack
_INT16 = struct.Struct(">Bh").pack
_INT32 = struct.Struct(">Bi").pack
_INT64 = struct.Struct(">Bq").pack

_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bin, str8, raw
_COUNT_BYTES = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # array, map
_INTEGER_BYTES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SCALAR_SIZE = {  # marker included; what is only ever skipped
    **{marker: 1 + size for marker, size in _INTEGER_BYTES.items()},
    **{0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9},
    **{0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18},  # fixext
}
_EXT_LENGTH_BYTES = {0xC7: 1, 0xC8: 2, 0xC9: 4}

# -- writing bodies ---------------------------------------------------------------


def _write_unsigned(value: int) -> bytes:
    if value < 0x80:
        return _FIX[value]
    if value < 0x100:
        return b"\xcc" + _FIX[value]
    if value < 0x10000:
        return _UINT16(0xCD, value)
    return _UINT32(0xCE, value) if value < 1 << 32 else _UINT64(0xCF, value)


def _write_signed(value: int) -> bytes:
    # Go writes a signed field in the signed family even when it is positive: 200 is d1 00 c8.
    if -32 <= value < 0x80:
        return _FIX[value & 0xFF]
    if -0x80 <= value < 0x80:
        return _INT8(0xD0, value)
    if -0x8000 <= value < 0x8000:
        return _INT16(0xD1, value)
    return _INT32(0xD2, value) if -(1 << 31) <= value < 1 << 31 else _INT64(0xD3, value)


def _write_raw(value: bytes | None) -> bytes:
    if value is None:
        return b"\xc0"
    size = len(value)
    if size < 32:
        return _FIX[0xA0 | size] + value
    return (_UINT16(0xDA, size) if size < 0x10000 else _UINT32(0xDB, size)) + value


def _write_text(value: str) -> bytes:
    return _write_raw(value.encode("utf-8", "surrogateescape"))


def _write_bool(value: bool) -> bytes:
    return b"\xc3" if value else b"\xc2"


_WRITERS: dict[Kind, Callable[[Any], bytes]] = {
    Kind.U8: _write_unsigned,
    Kind.U16: _write_unsigned,
    Kind.U32: _write_unsigned,
    Kind.INT: _write_signed,
    Kind.BOOL: _write_bool,
    Kind.TEXT: _write_text,
    Kind.BYTES: _write_raw,
}

# -- reading ------------------------------------------------------------------------
# A read past the end is an IndexError, turned into IncompleteError at the two doors
# (``decode``, ``unpack``); lengths that were declared are compared before a slice is taken.


def _reach(data: bytes, end: int) -> None:
    if end > len(data):
        raise IncompleteError(end)


def _number(data: bytes, start: int, size: int) -> int:
    _reach(data, start + size)
    return int.from_bytes(data[start : start + size], "big")


def _raw_span(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the bytes of a raw, str or bin value stand, or None if it is something else."""
    marker = data[at]
    if 0xA0 <= marker <= 0xBF:
        start, size = at + 1, marker & 0x1F
    elif (width := _LENGTH_BYTES.get(marker)) is not None:
        start, size = at + 1 + width, _number(data, at + 1, width)
    else:
        return None
    _reach(data, start + size)
    return start, start + size


def _count(data: bytes, at: int) -> tuple[str, int, int] | None:
    """Return ``("map" | "array", entries, offset of the first)``, or None if it is neither."""
    marker = data[at]
    if 0x80 <= marker <= 0x9F:
        return ("map" if marker < 0x90 else "array"), marker & 0x0F, at + 1
    if (width := _COUNT_BYTES.get(marker)) is not None:
        return ("array" if marker < 0xDE else "map"), _number(data, at + 1, width), at + 1 + width
    return None


def _integer(data: bytes, at: int, name: str) -> tuple[int, int]:
    marker = data[at]
    if marker < 0x80:
        return marker, at + 1
    if marker >= 0xE0:
        return marker - 0x100, at + 1
    width = _INTEGER_BYTES.get(marker)
    if width is None:
        raise RemoteProtocolError(f"{name}: marker {marker:#04x} is no integer")
    end = at + 1 + width
    _reach(data, end)
    return int.from_bytes(data[at + 1 : end], "big", signed=marker >= 0xD0), end


def _integer_reader(field: Field) -> _Reader:
    low, high = INTEGER_RANGE[field.kind]
    name = field.key

    def read(data: bytes, at: int) -> tuple[int, int]:
        marker = data[at]
        if marker < 0x80:
            return marker, at + 1
        if marker == 0xC0:
            return 0, at + 1
        value, end = _integer(data, at, name)
        if not low <= value <= high:
            raise RemoteProtocolError(f"{name}: {value} is not in {low}..{high}")
        return value, end

    return read


def _bool_reader(field: Field) -> _Reader:
    name = field.key

    def read(data: bytes, at: int) -> tuple[bool, int]:
        marker = data[at]
        if marker in (0xC2, 0x00, 0xC0):
            return False, at + 1
        if marker in (0xC3, 0x01):
            return True, at + 1
        raise RemoteProtocolError(f"{name}: marker {marker:#04x} is no boolean")

    return read


def _bytes_reader(field: Field) -> _Reader:
    name = field.key

    def read(data: bytes, at: int) -> tuple[bytes | None, int]:
        marker = data[at]
        if 0xA0 <= marker <= 0xBF:
            end = at + 1 + (marker & 0x1F)
            if end > len(data):
                raise IncompleteError(end)
            return data[at + 1 : end], end
        if marker == 0xC0:
            return None, at + 1
        return _long_bytes(data, at, name)

    return read


def _text_reader(field: Field) -> _Reader:
    name = field.key

    def read(data: bytes, at: int) -> tuple[str, int]:
        marker = data[at]
        if 0xA0 <= marker <= 0xBF:
            end = at + 1 + (marker & 0x1F)
            if end > len(data):
                raise IncompleteError(end)
            return data[at + 1 : end].decode("utf-8", "surrogateescape"), end
        if marker == 0xC0:
            return "", at + 1
        value, end = _long_bytes(data, at, name)
        return value.decode("utf-8", "surrogateescape"), end

    return read


def _long_bytes(data: bytes, at: int, name: str) -> tuple[bytes, int]:
    span = _raw_span(data, at)
    if span is not None:
        return data[span[0] : span[1]], span[1]
    head = _count(data, at)
    if head is None or head[0] != "array":
        raise RemoteProtocolError(f"{name}: marker {data[at]:#04x} is no byte string")
    # Go also takes an array of small integers for bytes; nobody sends more than Vsn's six.
    _, count, at = head
    if count > BODY_ITEMS_MAX:
        raise RemoteProtocolError(f"{name}: an array of {count} integers for a byte string")
    out = bytearray()
    for left in range(count, 0, -1):
        _reach(data, at + left)
        value, at = _integer(data, at, name)
        if not 0 <= value <= 0xFF:
            raise RemoteProtocolError(f"{name}: {value} is no byte")
        out.append(value)
    return bytes(out), at


_READERS: dict[Kind, Callable[[Field], _Reader]] = {
    Kind.U8: _integer_reader,
    Kind.U16: _integer_reader,
    Kind.U32: _integer_reader,
    Kind.INT: _integer_reader,
    Kind.BOOL: _bool_reader,
    Kind.TEXT: _text_reader,
    Kind.BYTES: _bytes_reader,
}


def _skip(data: bytes, at: int, allowed: int) -> tuple[int, int]:
    """Return the offset after the value at `at`, and how many values it may yet hold of `allowed`.

    Raises:
        RemoteProtocolError: it nests too deep or holds more than `allowed` values.
    """
    open_counts = [1]  # values still to come, for each container around us
    while open_counts:
        if not open_counts[-1]:
            open_counts.pop()
            continue
        allowed -= 1
        if allowed < 0:
            raise RemoteProtocolError(f"more than {BODY_ITEMS_MAX} values under unknown keys")
        open_counts[-1] -= 1
        marker = data[at]
        if marker < 0x80 or marker >= 0xE0:
            at += 1
        elif (size := _SCALAR_SIZE.get(marker)) is not None:
            at += size
        elif (span := _raw_span(data, at)) is not None:
            at = span[1]
        elif (head := _count(data, at)) is not None:
            count = head[1] * 2 if head[0] == "map" else head[1]
            at = head[2]
            if count > allowed:
                raise RemoteProtocolError(f"more than {BODY_ITEMS_MAX} values under unknown keys")
            open_counts.append(count)
            if len(open_counts) > BODY_DEPTH_MAX:
                raise RemoteProtocolError(f"a value nests deeper than {BODY_DEPTH_MAX}")
        elif (width := _EXT_LENGTH_BYTES.get(marker)) is not None:
            at += 2 + width + _number(data, at + 1, width)
        else:
            raise RemoteProtocolError(f"unknown msgpack marker {marker:#04x}")
        _reach(data, at + sum(open_counts))
    return at, allowed


# -- the body codec -------------------------------------------------------------------


class _Plan(BodyPlan):
    __slots__ = ("head", "prefixes", "readers", "writers")

    def __init__(self, cls: type[Body]) -> None:
        super().__init__(cls)
        self.head = _FIX[0x80 | len(self.fields)]
        self.prefixes = tuple(_write_raw(key.encode()) for key in self.keys)
        self.writers = tuple(_WRITERS[self.fields[i].kind] for i in self.order)
        self.readers = tuple(_READERS[field.kind](field) for field in self.fields)


class MsgpackCodec:
    """Bodies as Go's memberlist writes and reads them."""

    name = "msgpack"

    def __init__(self) -> None:
        self._plans: dict[type[Any], _Plan] = {cls: _Plan(cls) for cls in BODIES}

    def encode(self, body: Body) -> bytes:
        plan = self._plans[type(body)]
        values = plan_values(plan, body)
        out = [plan.head]
        append = out.append
        try:
            if True not in plan.optional:
                for prefix, write, value in zip(plan.prefixes, plan.writers, values, strict=True):
                    append(prefix)
                    append(write(value))
            else:
                for prefix, write, value, optional in zip(
                    plan.prefixes, plan.writers, values, plan.optional, strict=True
                ):
                    if value or not optional:
                        append(prefix)
                        append(write(value))
                out[0] = _FIX[0x80 | len(out) // 2]
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"{type(body).__name__}: text that cannot be written: {error}") from None
        return b"".join(out)

    def decode(self, cls: type[B], data: bytes, offset: int = 0) -> tuple[B, int]:
        plan = self._plans[cls]
        try:
            marker = data[offset]
            if 0x80 <= marker <= 0x8F:
                return self._map(plan, data, offset + 1, marker & 0x0F)
            if 0xA0 <= marker <= 0xBF:
                raise wire_mismatch("cbor", self.name)
            if marker == 0xC0:  # nil for the whole: a message of zeros
                return plan.cls(), offset + 1
            head = _count(data, offset)
            if head is None:
                raise RemoteProtocolError(f"marker {marker:#04x} where a {cls.__name__} map should start")
            form, count, at = head
            return (self._map if form == "map" else self._array)(plan, data, at, count)
        except IndexError:
            raise IncompleteError(len(data) + 1) from None

    @staticmethod
    def _map(plan: _Plan, data: bytes, at: int, count: int) -> tuple[Any, int]:
        values = plan.defaults.copy()
        index, readers = plan.index, plan.readers
        allowed = BODY_ITEMS_MAX
        if count > allowed:
            raise RemoteProtocolError(f"a map of {count} keys")
        for _ in range(count):
            marker = data[at]
            if 0xA0 <= marker <= 0xBF:
                start, at = at + 1, at + 1 + (marker & 0x1F)
            else:
                span = _raw_span(data, at)
                if span is None:
                    raise RemoteProtocolError(f"marker {marker:#04x} where a key should be")
                start, at = span
            # A cut key cannot do harm: what follows it is missing too.
            i = index.get(data[start:at])
            if i is None:
                at, allowed = _skip(data, at, allowed)
            else:
                values[i], at = readers[i](data, at)
        return plan.cls(*values), at

    @staticmethod
    def _array(plan: _Plan, data: bytes, at: int, count: int) -> tuple[Any, int]:
        """Read a body that came as an array: fields in declaration order, surplus ignored."""
        values = plan.defaults.copy()
        allowed = BODY_ITEMS_MAX
        if count > allowed:
            raise RemoteProtocolError(f"an array of {count} fields")
        for i in range(count):
            if i < len(values):
                values[i], at = plan.readers[i](data, at)
            else:
                at, allowed = _skip(data, at, allowed)
        return plan.cls(*values), at


# -- plain values, for what stands above memberlist ------------------------------------


def pack(value: Any) -> bytes:
    """Return `value` in Go's style: the raw family for text and bytes, map keys sorted.

    Takes None, bool, int, float, bytes, str, list, tuple and dict with str or
    bytes keys. Positive integers are written unsigned, as Go writes its
    unsigned types.

    Raises:
        LocalProtocolError: `value` holds something else.
    """
    try:
        return b"".join(_packed(value, 0))
    except (UnicodeEncodeError, struct.error) as error:
        raise LocalProtocolError(f"not a value for msgpack: {error}") from None


def _packed(value: Any, depth: int) -> list[bytes]:
    if depth > BODY_DEPTH_MAX:
        raise LocalProtocolError(f"a value nests deeper than {BODY_DEPTH_MAX}")
    if value is None:
        return [b"\xc0"]
    if isinstance(value, bool):
        return [_write_bool(value)]
    if isinstance(value, int):
        return [_write_unsigned(value) if value >= 0 else _write_signed(value)]
    if isinstance(value, float):
        return [struct.pack(">Bd", 0xCB, value)]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [_write_raw(bytes(value))]
    if isinstance(value, str):
        return [_write_text(value)]
    if isinstance(value, (list, tuple)):
        out = [_head(0x90, 0xDC, len(value))]
        for item in value:
            out += _packed(item, depth + 1)
        return out
    if isinstance(value, dict):
        pairs = sorted(((_key_bytes(key), item) for key, item in value.items()), key=itemgetter(0))
        out = [_head(0x80, 0xDE, len(pairs))]
        for key, item in pairs:
            out.append(_write_raw(key))
            out += _packed(item, depth + 1)
        return out
    raise LocalProtocolError(f"not a value for msgpack: {type(value).__name__}")


def _key_bytes(key: Any) -> bytes:
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape")
    if isinstance(key, bytes):
        return key
    raise LocalProtocolError(f"not a key for msgpack: {type(key).__name__}")


def _head(fix: int, wide: int, count: int) -> bytes:
    if count < 16:
        return _FIX[fix | count]
    return _UINT16(wide, count) if count < 0x10000 else _UINT32(wide + 1, count)


def unpack(data: bytes, offset: int = 0, *, items: int = 65536, depth: int = BODY_DEPTH_MAX) -> tuple[Any, int]:
    """Return the value at `offset` and the offset after it; text and bytes both as bytes.

    Maps become dicts with bytes keys (the last of equal keys wins), arrays
    lists. An ext value becomes its bytes without the type.

    Args:
        items: most values it may hold, containers included.
        depth: how deep containers may nest.

    Raises:
        IncompleteError: the data end before the value does.
        RemoteProtocolError: not msgpack, a key that is no text, or beyond the limits.
    """
    try:
        value, end, _ = _unpacked(data, offset, items, depth)
    except IndexError:
        raise IncompleteError(len(data) + 1) from None
    return value, end


def _unpacked(data: bytes, at: int, items: int, depth: int) -> tuple[Any, int, int]:
    marker = data[at]
    if items <= 0:
        raise RemoteProtocolError("a value with too many parts")
    items -= 1
    if marker in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[marker], at + 1, items
    if marker in (0xCA, 0xCB):
        size = 4 if marker == 0xCA else 8
        _reach(data, at + 1 + size)
        return struct.unpack_from(">f" if size == 4 else ">d", data, at + 1)[0], at + 1 + size, items
    span = _raw_span(data, at) or _ext_span(data, at)
    if span is not None:
        return data[span[0] : span[1]], span[1], items
    head = _count(data, at)
    if head is None:
        return *_integer(data, at, "value"), items
    form, count, at = head
    width = 2 if form == "map" else 1
    if count * width > items or depth <= 0:
        raise RemoteProtocolError("a value with too many parts, or nested too deep")
    _reach(data, at + count * width)
    if form == "array":
        array = []
        for _ in range(count):
            item, at, items = _unpacked(data, at, items, depth - 1)
            array.append(item)
        return array, at, items
    table: dict[bytes, Any] = {}
    for _ in range(count):
        span = _raw_span(data, at)
        if span is None:
            raise RemoteProtocolError(f"marker {data[at]:#04x} where a key should be")
        key = data[span[0] : span[1]]
        table[key], at, items = _unpacked(data, span[1], items - 1, depth - 1)
    return table, at, items


def _ext_span(data: bytes, at: int) -> tuple[int, int] | None:
    marker = data[at]
    if 0xD4 <= marker <= 0xD8:
        start, size = at + 2, 1 << (marker - 0xD4)
    elif (width := _EXT_LENGTH_BYTES.get(marker)) is not None:
        start, size = at + 2 + width, _number(data, at + 1, width)
    else:
        return None
    _reach(data, start + size)
    return start, start + size
