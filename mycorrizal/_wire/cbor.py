"""The ``wire="cbor"`` body codec: memberlist's field names in CBOR maps, through cbor2.

Every byte from a peer passes one guard before cbor2 sees it: ``_measure``
walks one item without building anything and refuses what a body never holds
(tags, indefinite lengths, keys that are not text, deep nesting, more entries
than bytes). So shared references, regular expressions, big numbers, colliding
integer keys and huge declared lengths never reach the library, whatever its
version.

Text that is not UTF-8 (a foreign node's name) travels as a byte string.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2

from ..exceptions import LocalProtocolError, RemoteProtocolError
from .body import BODIES, INTEGER_RANGE, B, BodyPlan, IncompleteError, plan_values, wire_mismatch
from .limits import BODY_DEPTH_MAX, BODY_ITEMS_MAX
from .messages import Body, Field, Kind

__all__ = ["CborCodec"]

_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


def _whole_size(head: int) -> int:
    """Return the size of the item that starts with `head`, or 0 where more than its first byte decides."""
    major, info = head >> 5, head & 0x1F
    if major in (0, 1):
        return 1 if info < 24 else 1 + _WIDTHS.get(info, -1)
    if major in (2, 3) and info < 24:
        return 1 + info
    if major == 7:
        return {20: 1, 21: 1, 22: 1, 25: 3, 26: 5, 27: 9}.get(info, 0)
    return 0


_SIZES = [_whole_size(head) for head in range(256)]
_KEY_SIZES = [1 + head - 0x60 if 0x60 <= head <= 0x77 else 0 for head in range(256)]


def _measure_map(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of entries of the map at `at` and the offset after it, or refuse it."""
    head = data[at]
    if not 0xA0 <= head <= 0xB7:
        return _measure_long_map(data, at)
    count = head & 0x1F
    at += 1
    for _ in range(count):
        size = _KEY_SIZES[data[at]]
        at = at + size if size else _measure(data, at, 0, key=True)
        size = _SIZES[data[at]]
        at = at + size if size else _measure(data, at, BODY_ITEMS_MAX)
    if at > len(data):
        raise IncompleteError(at)
    return count, at


def _measure_long_map(data: bytes, at: int) -> tuple[int, int]:
    head = data[at]
    if 0xB8 <= head <= 0xBB:
        count, _ = _argument(data, at)
        return count, _measure(data, at, BODY_ITEMS_MAX)
    if 0x80 <= head <= 0x9F or head == 0xC0 or 0xDC <= head <= 0xDF:
        raise wire_mismatch("msgpack", "cbor")
    raise RemoteProtocolError(
        f"byte {head:#04x} where a CBOR map should start",
        hint="if the sender is a member, compare secret_key and wire= of both sides",
    )


def _measure(data: bytes, at: int, allowed: int, *, key: bool = False) -> int:
    """Return the offset after the one item at `at`, which may hold `allowed` more."""
    pending = [1]  # items still to come, for each container around us; a map alternates key and value
    is_map = [False]
    while pending:
        if not pending[-1]:
            pending.pop()
            is_map.pop()
            continue
        wants_key = key or (is_map[-1] and pending[-1] % 2 == 0)
        pending[-1] -= 1
        head = data[at]
        major = head >> 5
        if wants_key and major != 3:
            raise RemoteProtocolError(f"byte {head:#04x} where a text key should be")
        if size := _SIZES[head]:
            at += size
        elif major in (2, 3):
            count, at = _argument(data, at)
            at += count
        elif major in (4, 5):
            count, at = _argument(data, at)
            count *= major - 3
            allowed -= count
            pending.append(count)
            is_map.append(major == 5)
            if allowed < 0 or len(pending) > BODY_DEPTH_MAX:
                raise RemoteProtocolError("a body with too many entries, or nested too deep")
        else:
            raise RemoteProtocolError(f"byte {head:#04x} has no place in a body")
        if at + sum(pending) > len(data):
            raise IncompleteError(at + sum(pending))
    return at


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """Return the count in the head at `at` and the offset after the head."""
    info = data[at] & 0x1F
    if info < 24:
        return info, at + 1
    width = _WIDTHS.get(info)
    if width is None:
        raise RemoteProtocolError("an indefinite or reserved length")
    end = at + 1 + width
    if end > len(data):
        raise IncompleteError(end)
    return int.from_bytes(data[at + 1 : end], "big"), end


def _loads(data: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Return the map at `offset` and the offset after it. The only place where cbor2 reads a peer's bytes."""
    try:
        count, end = _measure_map(data, offset)
    except IndexError:
        raise IncompleteError(len(data) + 1) from None
    try:
        table = cbor2.loads(data if end - offset == len(data) else data[offset:end])
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise RemoteProtocolError(f"not a CBOR body: {error}") from None
    if len(table) != count:
        raise RemoteProtocolError("a body with duplicate keys")
    return table, end


# -- the body codec -----------------------------------------------------------------


def _integer_check(field: Field) -> Callable[[Any], int]:
    low, high = INTEGER_RANGE[field.kind]

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise _unfit(field, value)

    return check


def _bool_check(field: Field) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) is bool:
            return value
        raise _unfit(field, value)

    return check


def _text_check(field: Field) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if type(value) is str:
            return value
        if type(value) is bytes:
            return value.decode("utf-8", "surrogateescape")
        raise _unfit(field, value)

    return check


def _bytes_check(field: Field) -> Callable[[Any], bytes | None]:
    def check(value: Any) -> bytes | None:
        if type(value) is bytes or value is None:
            return value
        raise _unfit(field, value)

    return check


_CHECKS: dict[Kind, Callable[[Field], Callable[[Any], Any]]] = {
    Kind.U8: _integer_check,
    Kind.U16: _integer_check,
    Kind.U32: _integer_check,
    Kind.INT: _integer_check,
    Kind.BOOL: _bool_check,
    Kind.TEXT: _text_check,
    Kind.BYTES: _bytes_check,
}


def _unfit(field: Field, value: object) -> RemoteProtocolError:
    what = f"{value}" if type(value) is int else type(value).__name__
    return RemoteProtocolError(f"{field.key}: {what[:40]} where {field.kind.value} should be")


class _Plan(BodyPlan):
    __slots__ = ("checks", "places")

    def __init__(self, cls: type[Body]) -> None:
        super().__init__(cls)
        self.checks = tuple(_CHECKS[field.kind](field) for field in self.fields)
        self.places = {field.key: i for i, field in enumerate(self.fields)}


class CborCodec:
    """Bodies as maps of definite length, keys sorted, unknown keys ignored."""

    name = "cbor"

    def __init__(self) -> None:
        self._plans: dict[type[Any], _Plan] = {cls: _Plan(cls) for cls in BODIES}

    def encode(self, body: Body) -> bytes:
        plan = self._plans[type(body)]
        values = plan_values(plan, body)
        table = dict(zip(plan.keys, values, strict=True))
        if True in plan.optional:
            for key, value, optional in zip(plan.keys, values, plan.optional, strict=True):
                if optional and not value:
                    del table[key]
        try:
            return cbor2.dumps(table)
        except UnicodeEncodeError:
            return cbor2.dumps({key: _plain(value) for key, value in table.items()})

    def decode(self, cls: type[B], data: bytes, offset: int = 0) -> tuple[B, int]:
        plan = self._plans[cls]
        table, end = _loads(data, offset)
        values = plan.defaults.copy()
        places, checks = plan.places, plan.checks
        for key, value in table.items():
            i = places.get(key)
            if i is not None:
                values[i] = checks[i](value)
        return plan.cls(*values), end


def _plain(value: Any) -> Any:
    """Return text that is not UTF-8 as its bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            try:
                return value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"text that cannot be written: {error}") from None
    return value
