"""The walk over a value before cbor2 writes it: what is fine stays the same object, the rest is replaced or refused.

Replaced: large memory by a reference, NumPy arrays by tagged memory, objects of
registered types by what their codec makes of them, views by bytes (cbor2 would
write a list of integers), instances of subclasses by the plain value.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import cbor2

from . import value_guard as guard
from .arrays import Buffers, Unfit, encode_array, is_integer, is_numpy
from .text import text_of
from .value_codecs import Codec, Codecs
from .value_guard import BUFFERS_MAX, BYTES_FLAG, TAG_BUFFER, TAG_CODEC, TAG_DECIMAL, TAG_TEXT, TAG_TIME

__all__ = ["as_element", "as_key", "bad_text", "sendable", "unknown"]

BYTES_INLINE = 4096
"""Byte strings from this length on travel beside the header."""

TEXT_INLINE = 1 << 16
"""Text from this many characters on travels beside the header."""

_ATOMS = frozenset({type(None), bool, float})
_INT_LIMIT = 1 << (8 * guard.BIG_INT_BYTES)
_SAFE = 1 << 63
_KEY_LIMIT = 1 << 64
_DECIMAL_DIGITS = 1233
"""What 4,096 bits hold."""
_TAG_SET = 258
_LONG = 32
"""Lists from this length on are first looked at as a whole."""


def _place(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # a user's class
        text = f"<{type(key).__qualname__}>"
    return f"[{text}]" if len(text) <= 80 else f"[{text[:80]}...]"


def sendable(value: Any, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    """Return what cbor2 shall write for `value`: itself, where that is right. Any thread.

    Raises:
        Unfit: something in it does not travel; ``path`` is the way there, from the inside out.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    convert = _CONVERT.get(kind)
    if convert is not None:
        return convert(value, depth, buffers, codecs)
    codec = codecs.by_type.get(kind)
    if codec is not None:
        return _coded(value, codec, depth, buffers, codecs)
    if is_numpy(value):
        return encode_array(value, buffers)
    for base, plain in _PLAIN.items():
        if isinstance(value, base):
            return _CONVERT[base](plain(value), depth, buffers, codecs)
    raise unknown(kind)


def unknown(kind: type[Any]) -> Unfit:
    """Return the error for a value of a type that neither travels nor has a codec."""
    name = kind.__qualname__
    if name in ("function", "builtin_function_or_method", "method"):
        return Unfit(f"a {name} cannot be sent", "code does not travel; name a handler and send its arguments")
    return Unfit(f"{name} cannot be sent", "make it of plain values, or register a codec for it")


def _dict(value: dict[Any, Any], depth: int, buffers: Buffers, codecs: Codecs) -> dict[Any, Any]:
    if depth >= guard.DEPTH_MAX:
        raise _too_deep()
    changed: dict[Any, Any] | None = None
    done = 0
    key: Any = None
    try:
        for key, item in value.items():
            sent_key = key if type(key) is str else as_key(key)
            kind = type(item)
            if kind in _ATOMS or (kind is str and len(item) < TEXT_INLINE) or (kind is int and -_SAFE < item < _SAFE):
                sent = item
            else:
                sent = sendable(item, depth + 1, buffers, codecs)
            if changed is None:
                if sent is item and sent_key is key:
                    done += 1
                    continue
                changed = dict(zip(list(value)[:done], value.values(), strict=False))
            changed[sent_key] = sent
    except Unfit as error:
        error.path.append(_place(key))
        raise
    if changed is None:
        return value
    if len(changed) != len(value):  # a class with an equality of its own
        raise Unfit("two keys that are the same text or number cannot be sent", "send a list of pairs instead")
    return changed


def as_key(key: Any) -> Any:
    """Return the plain value that a key of a dict is sent as. Raises as ``sendable``."""
    kind = type(key)
    if kind is int or (kind is bytes and len(key) <= guard.KEY_BYTES_MAX):
        if kind is bytes or -_KEY_LIMIT <= key < _KEY_LIMIT:
            return key
        raise Unfit("an integer of more than 64 bits cannot be a key", "use its text")
    if isinstance(key, str):
        return str.__str__(key)
    if is_integer(key):
        return as_key(int(operator.index(key)))
    if isinstance(key, bytes) and kind is not bytes:
        return as_key(memoryview(key).tobytes())
    hint = "keys are str, int, or bytes of at most 255; send a list of pairs instead"
    raise Unfit(f"{kind.__qualname__} cannot be a key", hint)


def _list(value: list[Any] | tuple[Any, ...], depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    if depth >= guard.DEPTH_MAX:
        raise _too_deep()
    if len(value) >= _LONG and _plain_numbers(value):
        return value
    changed: list[Any] | None = None
    at = 0
    try:
        for at, item in enumerate(value):
            kind = type(item)
            if kind in _ATOMS or (kind is str and len(item) < TEXT_INLINE) or (kind is int and -_SAFE < item < _SAFE):
                continue
            sent = sendable(item, depth + 1, buffers, codecs)
            if sent is not item:
                if changed is None:
                    changed = list(value)
                changed[at] = sent
    except Unfit as error:
        error.path.append(f"[{at}]")
        raise
    return value if changed is None else changed


def _plain_numbers(value: list[Any] | tuple[Any, ...]) -> bool:
    """Return whether all items travel as they are, at the speed of C."""
    kinds = set(map(type, value))
    if int not in kinds:
        return kinds <= _ATOMS
    return len(kinds) == 1 and -_SAFE < min(value) and max(value) < _SAFE


def _too_deep() -> Unfit:
    return Unfit("nested too deep, or holds itself", f"{guard.DEPTH_MAX} levels are the most")


def _int(value: int, depth: int, buffers: Buffers, codecs: Codecs) -> int:
    if -_INT_LIMIT <= value < _INT_LIMIT:
        return value
    raise Unfit(f"an integer of {value.bit_length()} bits cannot be sent", "send it as text or bytes")


def _str(value: str, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    if len(value) < TEXT_INLINE or len(buffers) >= BUFFERS_MAX:
        return value
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise _surrogates() from None
    return cbor2.CBORTag(TAG_TEXT, _beside(memoryview(data), buffers))


def _surrogates() -> Unfit:
    return Unfit("text with lone surrogates cannot be sent", "use .encode('utf-8', 'surrogateescape') and send bytes")


def _bytes(value: bytes | bytearray, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    if len(value) < BYTES_INLINE or len(buffers) >= BUFFERS_MAX:
        return value
    return _beside(memoryview(value), buffers)


def _memoryview(value: memoryview, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    if value.nbytes < BYTES_INLINE or len(buffers) >= BUFFERS_MAX:
        return value.tobytes()
    return _beside(value.cast("B") if value.c_contiguous else memoryview(value.tobytes()), buffers)


def _beside(view: memoryview, buffers: Buffers) -> cbor2.CBORTag:
    buffers.append((view, view.nbytes | BYTES_FLAG))
    return cbor2.CBORTag(TAG_BUFFER, len(buffers) - 1)


def _set(value: set[Any] | frozenset[Any], depth: int, buffers: Buffers, codecs: Codecs) -> cbor2.CBORTag:
    """Return the set as the list that stands for it, sorted by encoding: equal sets are equal bytes."""
    plain = [as_element(item) for item in value]
    if len(set(plain)) != len(value):
        raise Unfit("two elements that are the same text or number cannot be sent", "send a list instead")
    try:
        return cbor2.CBORTag(_TAG_SET, sorted(plain, key=cbor2.dumps))
    except UnicodeEncodeError:
        raise _surrogates() from None


def as_element(item: Any) -> Any:
    """Return the plain value that an element of a set is sent as. Raises as ``sendable``."""
    kind = type(item)
    if kind in (str, bytes) or kind in _ATOMS or (kind is int and -_KEY_LIMIT <= item < _KEY_LIMIT):
        return item
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, bytes):
        return memoryview(item).tobytes()
    if isinstance(item, float):
        return float.__float__(item)
    if is_integer(item) and -_KEY_LIMIT <= (number := int(operator.index(item))) < _KEY_LIMIT:
        return number
    hint = "elements are str, bytes, None, and numbers of 64 bits; send a list instead"
    raise Unfit(f"{kind.__qualname__} in a set cannot be sent", hint)


def _decimal(value: Decimal, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        if len(digits) <= 16:
            return cbor2.CBORTag(TAG_DECIMAL, str(value))
    elif abs(exponent) <= guard.DECIMAL_EXPONENT_MAX and len(digits) <= _DECIMAL_DIGITS:
        return value if any(digits) or not sign else cbor2.CBORTag(TAG_DECIMAL, f"-0E{exponent}")
    raise Unfit("a Decimal with so many digits or so large an exponent cannot be sent", "send its text")


def _datetime(value: datetime, depth: int, buffers: Buffers, codecs: Codecs) -> cbor2.CBORTag:
    offset = value.utcoffset()
    if offset is None:
        if value.tzinfo is not None:
            raise Unfit("a datetime with a tzinfo that has no offset cannot be sent", "send .replace(tzinfo=None)")
        return cbor2.CBORTag(TAG_TIME, value.isoformat())
    if not offset.seconds % 60 and not offset.microseconds:
        return cbor2.CBORTag(0, value.isoformat())
    if abs(offset.total_seconds()) < 1:
        raise Unfit("a datetime with an offset of less than a second cannot be sent", "send .astimezone(timezone.utc)")
    return cbor2.CBORTag(TAG_TIME, value.isoformat())


def _as_is(value: Any, depth: int, buffers: Buffers, codecs: Codecs) -> Any:
    return value


def _coded(value: Any, codec: Codec, depth: int, buffers: Buffers, codecs: Codecs) -> cbor2.CBORTag:
    if depth >= guard.DEPTH_MAX:
        raise _too_deep()
    try:
        inner = codec.encode(value)
    except Unfit as error:  # of a codec of ours, which says what to do instead
        error.path += [f"<{codec.name}>"]
        raise
    except Exception as error:
        raise Unfit(f"the codec {codec.name} failed: {type(error).__name__}: {text_of(error)}") from error
    try:
        return cbor2.CBORTag(TAG_CODEC, [codec.name, sendable(inner, depth + 1, buffers, codecs)])
    except Unfit as error:
        error.path.append(f"<{codec.name}>")
        raise


def bad_text(value: Any, depth: int) -> Unfit | None:
    """Return the error for the text that UTF-8 cannot hold, with its place."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return _surrogates()
        return None
    if isinstance(value, cbor2.CBORTag):
        return bad_text(value.value, depth)
    items: Any = ()
    if isinstance(value, dict):
        items = [pair for key, item in value.items() for pair in ((key, key), (key, item))]
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = enumerate(value)
    for key, item in items:
        found = bad_text(item, depth + 1)
        if found is not None:
            found.path.append(_place(key))
            return found
    return None


_Convert = Callable[[Any, int, Buffers, Codecs], Any]
_CONVERT: dict[type[Any], _Convert] = {
    **{int: _int, str: _str, bytes: _bytes, bytearray: _bytes, memoryview: _memoryview},
    **{dict: _dict, list: _list, tuple: _list, set: _set, frozenset: _set},
    **{Decimal: _decimal, datetime: _datetime, date: _as_is, UUID: _as_is, float: _as_is},
}
_PLAIN: dict[type[Any], Callable[[Any], Any]] = {
    # what an instance of a subclass is sent as; enumerations and the like may say something else to str() and int()
    **{int: int.__int__, float: float.__float__, str: str.__str__, bytes: lambda value: memoryview(value).tobytes()},
    **{dict: lambda value: dict((OrderedDict if isinstance(value, OrderedDict) else dict).items(value))},
    **{list: list.copy, tuple: lambda value: tuple.__getitem__(value, slice(None)), set: set, frozenset: frozenset},
    **{bytearray: lambda value: memoryview(value).tobytes()},
}
