"""One value of an application: a small CBOR header, and its large memory beside it.

Wire form: u8 n, the number of buffers (255: a u32 n follows) · n x u64, their
lengths (top bit set: becomes ``bytes``; clear: writable memory for an array) ·
u32 length of the header · header · buffers.

What travels: None, bool, int (to 4,096 bits), float, str, bytes, list, dict,
set, datetime, date, Decimal, UUID, NumPy arrays and scalars, and what a
``Codecs`` adds. Keys of a dict are str, int (64 bits) or short bytes, elements
of a set those, float, bool and None.

What arrives equals what was sent, by value and type, or is refused. What
arrives as another type is in the table of docs/data-plane.md, which
tools/fuzzing/value_exceptions.py makes: such as tuple as list, a time zone as its
offset, a subclass of a builtin type as that type (as ``json`` does it).
Subclasses of anything else are refused: ``pandas.Timestamp`` would lose its
nanoseconds without a word.

Everything a peer sent passes ``value_guard.scan`` before cbor2 sees it. What no
honest peer sends is a ``RemoteProtocolError``; what only this process cannot
read, since a codec or NumPy is missing or a codec raised, a ``ValueDecodeError``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import cbor2

from ..exceptions import RemoteProtocolError, ValueDecodeError, ValueEncodeError, ValueTooLarge
from . import arrays
from .arrays import Buffers, Unfit
from .lent import Encoded
from .text import text_of
from .value_codecs import Codec, Codecs
from .value_guard import (
    BYTES_FLAG,
    CONTAINERS_MAX,
    HEADER_MAX,
    MANY,
    TAG_BUFFER,
    TAG_CODEC,
    TAG_DECIMAL,
    TAG_TEXT,
    TAG_TIME,
    VALUE_BYTES_MAX,
    scan,
)
from .value_reader import ValueReader, split
from .value_walk import BYTES_INLINE, bad_text, sendable

__all__ = [
    "DEFAULT",
    "Codec",
    "Codecs",
    "Encoded",
    "ValueReader",
    "decode_held",
    "decode_lent",
    "decode_packed",
    "decode_parts",
    "encode_value",
    "pack_parts",
    "pack_plain",
]

DEFAULT = Codecs()
"""The registry that nothing was registered in."""


# -- encoding -----------------------------------------------------------------------------------------------------

_BYTES_HEADS = [bytes((0x40 + n,)) if n < 24 else bytes((0x58, n)) for n in range(256)]


_PREAMBLES = [b"\x00" + size.to_bytes(4, "big") for size in range(1100)]
_PLAIN = frozenset({int, float, bool, type(None), str, bytes})
_PLAIN_LENGTH = 255
_PLAIN_INT = 1 << 63


def pack_plain(value: object) -> bytes | None:
    """Return the whole wire form of a number, None, or a short text or byte string; None: ``encode_value`` has it.

    Any thread. A third of what ``encode_value(value).pack()`` takes, which is the same.
    """
    kind = type(value)
    if kind not in _PLAIN:
        return None
    if kind is int:
        if not -_PLAIN_INT < value < _PLAIN_INT:  # type: ignore[operator]
            return None
    elif (kind is str or kind is bytes) and len(value) > _PLAIN_LENGTH:  # type: ignore[arg-type]
        return None
    try:
        header = cbor2.dumps(value)
    except UnicodeEncodeError:
        return None
    return _PREAMBLES[len(header)] + header


def encode_value(value: object, codecs: Codecs = DEFAULT, *, limit: int = VALUE_BYTES_MAX) -> Encoded:
    """Return `value` ready for the wire. Any thread.

    Raises:
        ValueEncodeError: something in it does not travel; the text names the place.
        ValueTooLarge: it takes more than `limit` bytes, or its header more than 16 MiB.
    """
    if type(value) is bytes and (size := len(value)) < BYTES_INLINE:
        header = (_BYTES_HEADS[size] if size < 256 else b"\x59" + size.to_bytes(2, "big")) + value
        size = len(header)
        if size + 5 <= limit:
            return Encoded(header, (), b"\x00" + size.to_bytes(4, "big"), size + 5)
    buffers: Buffers = []
    try:
        sent = sendable(value, 0, buffers, codecs)
        header = cbor2.dumps(sent)
    except Unfit as error:
        raise _encode_error(error) from error.__cause__
    except UnicodeEncodeError:
        raise _encode_error(bad_text(sent, 0) or Unfit("text with lone surrogates cannot be sent")) from None
    except cbor2.CBOREncodeError as error:
        raise ValueEncodeError(f"value: {error}") from None
    preamble = _preamble(header, buffers) if buffers else b"\x00" + len(header).to_bytes(4, "big")
    size = len(preamble) + len(header)
    views: tuple[memoryview, ...] = ()
    if buffers:
        views = tuple([view for view, _ in buffers])
        size += sum([view.nbytes for view in views])
    if size > limit:
        raise ValueTooLarge(f"a value of {size} bytes; the limit is {limit}")
    if len(header) > CONTAINERS_MAX // 4:  # a shorter one cannot hold too many items
        _check_counts(header, buffers)
    return Encoded(header, views, preamble, size)


def _check_counts(header: bytes, buffers: Buffers) -> None:
    """Refuse here what the receiver would refuse."""
    hint = "send numbers as a NumPy array, and large data as bytes"
    if len(header) > HEADER_MAX:
        raise ValueTooLarge(f"a value with {len(header)} bytes beside its large buffers", hint=hint)
    try:
        scan(header, [b"" if length & BYTES_FLAG else bytearray() for _, length in buffers])
    except RemoteProtocolError:
        raise ValueTooLarge("a value with too many items", hint=hint) from None


def pack_parts(header: bytes, buffers: Sequence[bytes | bytearray]) -> bytes:
    """Return the wire form of what ``ValueReader.parts`` gives. Any thread."""
    lengths = [len(buffer) | (BYTES_FLAG if isinstance(buffer, bytes) else 0) for buffer in buffers]
    return b"".join((_preamble_of(header, lengths), header, *buffers))


def _preamble(header: bytes, buffers: Buffers) -> bytes:
    return _preamble_of(header, [length for _, length in buffers])


def _preamble_of(header: bytes, lengths: list[int]) -> bytes:
    count = len(lengths)
    if count < MANY:
        return struct.pack(f">B{count}QI", count, *lengths, len(header))
    return struct.pack(f">BI{count}QI", MANY, count, *lengths, len(header))


def _encode_error(error: Unfit) -> ValueEncodeError:
    return ValueEncodeError("".join(("value", *reversed(error.path))) + ": " + error.reason, hint=error.hint)


# -- decoding -----------------------------------------------------------------------------------------------------


def decode_packed(data: bytes | memoryview, codecs: Codecs | None = None) -> object:
    """Return the value in a whole wire form. Any thread. Arguments and errors as those of ``decode_parts``."""
    size = len(data)
    if size > 5 and not data[0] and int.from_bytes(data[1:5], "big") == size - 5 <= HEADER_MAX:
        header = bytes(data[5:])
        head = header[0]
        if 0x40 <= head < 0x58 and size == head - 0x3A:
            return header[1:]
        if head == 0x58 and size == header[1] + 7:
            return header[2:]
        if head == 0x59 and size == int.from_bytes(header[1:3], "big") + 8:
            return header[3:]
        return decode_parts(header, (), codecs)
    reader = ValueReader(size)
    reader.feed(data)
    if not reader.done:
        raise RemoteProtocolError("a value that ends too early")
    return decode_parts(*reader.parts(), codecs)


def _starts(heads: list[bytes]) -> list[bytes]:
    """Return, by the length of a whole wire form, what stands before its text if it holds nothing else."""
    found = [b"never"] * (len(heads) + 7)
    for size, head in enumerate(heads):
        found[5 + len(head) + size] = b"\x00" + (len(head) + size).to_bytes(4, "big") + head
    return found


_BYTES_STARTS = _starts(_BYTES_HEADS)
_TEXT_STARTS = _starts([bytes((0x60 + n,)) if n < 24 else bytes((0x78, n)) for n in range(256)])


_ONE = b"\x00\x00\x00\x00\x01"
_SCALARS: dict[bytes, object] = {_ONE + b"\xf4": False, _ONE + b"\xf5": True, _ONE + b"\xf6": None}
_SCALARS |= {_ONE + bytes((n,)): n for n in range(24)} | {_ONE + bytes((0x20 + n,)): -1 - n for n in range(24)}


def _number_starts() -> dict[bytes, Callable[[bytes], object]]:
    """Return, by its first six bytes, how to read the whole wire form of a number; its length is the fifth."""
    found: dict[bytes, Callable[[bytes], object]] = {}
    for power in range(4):
        start = bytes((0, 0, 0, 0, 1 + (1 << power)))
        found[start + bytes((0x18 + power,))] = lambda data: int.from_bytes(data[6:], "big")
        found[start + bytes((0x38 + power,))] = lambda data: -1 - int.from_bytes(data[6:], "big")
    found[b"\x00\x00\x00\x00\x09\xfb"] = lambda data: _DOUBLE.unpack_from(data, 6)[0]
    return found


_DOUBLE = struct.Struct(">d")
_NUMBERS = _number_starts()


def decode_held(data: bytes, codecs: Codecs | None = None) -> object:
    """Return the value in a whole wire form that stays in memory, as often as it is asked for. Any thread.

    As ``decode_packed``, but quicker with numbers and with short texts and byte strings, and large arrays are
    read-only views of `data` instead of copies.
    """
    size = len(data)
    if size < 263:
        if size < 15:
            if data in _SCALARS:
                return _SCALARS[data]
            number = _NUMBERS.get(data[:6])
            if number is not None and size == data[4] + 5:
                return number(data)
        start = _BYTES_STARTS[size]
        if data.startswith(start):
            return data[len(start) :]
        start = _TEXT_STARTS[size]
        if data.startswith(start):
            try:
                return data[len(start) :].decode()
            except UnicodeDecodeError:
                raise RemoteProtocolError("not a value: text that is not UTF-8") from None
    if size and data[0]:
        return decode_parts(*split(data), codecs)
    return decode_packed(data, codecs)


def decode_parts(
    header: bytes, buffers: Sequence[bytes | bytearray | memoryview], codecs: Codecs | None = None
) -> object:
    """Return the value of a header and what arrived beside it, as ``ValueReader.parts`` gives them. Any thread.

    Buffers are not copied: they become part of the value.

    Args:
        codecs: of the user whose value it is. None: it is the library's own message, in which nothing needs one.

    Raises:
        RemoteProtocolError: no honest peer sends that.
        ValueDecodeError: a peer that has more than this process sends it, never without `codecs`.
    """
    ours = scan(header, buffers)
    try:
        if not ours:
            return cbor2.loads(header, allow_duplicate_keys=False)
        more = {TAG_BUFFER: lambda index, _: buffers[index], TAG_CODEC: lambda pair, _: _decode_with(codecs, *pair)}
        return cbor2.loads(header, allow_duplicate_keys=False, semantic_decoders=_DECODERS | more)
    except Exception as error:  # whatever the library, NumPy or a codec makes of what passed the guard
        wrong = _wrong(error, codecs)
    try:
        raise wrong  # out here, and without a name: else it and its frames, with the value, know each other
    finally:
        del wrong


def decode_lent(encoded: Encoded, codecs: Codecs) -> object:
    """Return the value as it would arrive; large arrays are read-only views of where `encoded` has them. Any thread.

    Raises:
        ValueDecodeError: it cannot be read again.
    """
    count = len(encoded.buffers)
    lengths = struct.unpack_from(f">{count}Q", encoded.preamble, 1 if count < MANY else 5)
    buffers: list[bytes | memoryview] = []
    for view, length in zip(encoded.buffers, lengths, strict=True):
        whole = view.obj
        if not length & BYTES_FLAG:
            buffers.append(view.toreadonly())
        elif isinstance(whole, bytes) and len(whole) == view.nbytes:  # a byte string itself
            buffers.append(whole)
        else:
            buffers.append(bytes(view))
    return decode_parts(encoded.header, buffers, codecs)


def _wrong(error: Exception, codecs: Codecs | None) -> BaseException:
    """Return what to raise for `error`, which cbor2 may have wrapped."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
        if isinstance(cause, ValueDecodeError) and codecs is None:
            return RemoteProtocolError(f"not a message: {cause}")
        if isinstance(cause, (RemoteProtocolError, ValueDecodeError)):
            return cause
    if isinstance(cause, MemoryError) or not isinstance(cause, Exception):
        return cause  # Ctrl-C stays Ctrl-C
    return RemoteProtocolError(f"not a value: {type(cause).__name__}")


def _decode_with(codecs: Codecs | None, name: str, inner: object) -> object:
    codec = None if codecs is None else codecs.by_name.get(name)
    if codec is None:
        hint = "register it here too, in the codecs= of this side"
        raise ValueDecodeError(f"a value of the codec {name!r}, which is not registered here", hint=hint)
    try:
        return codec.decode(inner)
    except Exception as error:
        text = f"the codec {name!r} could not read a value: {type(error).__name__}: {text_of(error)}"
        raise ValueDecodeError(text) from error


def _decode_text(data: bytes) -> str:
    return data.decode()


def _decode_decimal(text: str) -> Decimal:
    if not _ODD_DECIMAL.fullmatch(text):
        raise RemoteProtocolError("a decimal that is none")
    return Decimal(text)


_ODD_DECIMAL = re.compile(r"-?(?:Infinity|s?NaN[0-9]{0,16})|-0E-?[0-9]{1,4}")


def _hook(decode: Callable[[Any], Any]) -> Callable[[Any, bool], Any]:
    return lambda content, _: decode(content)


_DECODERS = {tag: _hook(decode) for tag, decode in arrays.decoders().items()}
_DECODERS |= {TAG_TEXT: _hook(_decode_text), TAG_DECIMAL: _hook(_decode_decimal)}
_DECODERS |= {TAG_TIME: _hook(datetime.fromisoformat)}
