"""What stands before cbor2 when a value comes from a peer: one walk over the header that builds nothing.

It refuses what we never write, so that the library meets only what it reads
harmlessly, whatever its version: tags outside a short list (35 would compile a
regular expression, 28 and 29 make cycles), indefinite lengths, simple values,
keys that are not text, 64-bit integers or short byte strings, deep nesting, big
numbers and exponents without bound, and counts that the bytes cannot fill. So
the work on a header is bounded by its length.

Integer keys need no bound of their number: only numbers of more than 64 bits
collide without end in a dict (equal modulo 2**61 - 1), and such are no keys;
tests/_wire/test_value_guard.py holds the worst that 64 bits can do.
Duplicate keys are cbor2's to refuse, see ``values.py``.

From: RFC 8949 (CBOR), RFC 8746 (typed arrays, tags 40, 64-87, 1040), RFC 8943
(date, tag 1004), tag 258 (set).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..exceptions import RemoteProtocolError

__all__ = ["HEADER_MAX", "VALUE_BYTES_MAX", "scan"]

VALUE_BYTES_MAX = 1 << 30
"""Longest wire form of a value unless the caller says otherwise."""

HEADER_MAX = 16 << 20
"""Longest header. What is larger is bulk, and bulk belongs into buffers."""

ITEMS_MAX = 1 << 22
"""Values in one header. A list of four million numbers wants to be an array."""

CONTAINERS_MAX = 1 << 20
"""Lists, maps, sets and tagged values in one header; an array counts eightfold.

Each costs the receiver up to 300 bytes and 2 us, for one to eight bytes of the peer's.
"""

DEPTH_MAX = 32
"""How deep lists, maps and the values of codecs may nest: what other decoders take by default."""

BUFFER_MIN = 1024
"""Shortest buffer beside the header, so that the work on buffers is bounded by the bytes that arrive."""

BUFFERS_MAX = 1 << 16
"""Most buffers of one value; the sender puts further byte strings into the header."""

BYTES_FLAG = 1 << 63
"""In the length of a buffer: it becomes ``bytes``."""

MANY = 255
"""In place of the number of buffers: a u32 follows with the number, from 255 on."""

BIG_INT_BYTES = 512
"""Bytes of the longest integer: 4,096 bits."""

DECIMAL_EXPONENT_MAX = 9999
"""Largest exponent of a ``Decimal``: ``int(Decimal("1E+999999999"))`` would never end."""

KEY_BYTES_MAX = 255
"""Longest byte string as a key."""

DIMENSIONS_MAX = 32
"""Dimensions of an array: what every NumPy can hold."""

NAME_MAX = 255
"""Bytes of the longest name of a codec."""

TAG_ARRAY, TAG_ARRAY_F = 40, 1040
"""An array of several dimensions, [shape, typed array], in C and in Fortran order (RFC 8746 §3.1)."""

# Ours, in the unassigned first-come range, "m" with its eighth bit and a letter; never written to a file, so free to
# change. Outside 27647..28671 and 28704..32767, which cbor-x takes for Packed CBOR.
TAG_BUFFER = 0xED62
"""Buffer i in place of a byte string, ``mb``. Buffers are used once each, in order."""
TAG_CODEC = 0xED63
"""[name, value] of a registered codec, ``mc``."""
TAG_DTYPE = 0xED64
"""[dtype text, bytes]: a typed array that RFC 8746 has no tag for, ``md``."""
TAG_DECIMAL = 0xED65
"""Text of a ``Decimal`` that tag 4 cannot carry: NaN, infinity, negative zero, ``me``."""
TAG_SCALAR = 0xED73
"""A typed array of one element that was a NumPy scalar, ``ms``."""
TAG_TIME = 0xED74
"""Text of a datetime that tag 0 cannot carry: without a zone, or with an offset of no whole minutes, ``mt``."""
TAG_TEXT = 0xED75
"""UTF-8 text in a buffer, ``mu``."""

TYPED = frozenset({*range(64, 87)} - {68, 76, 83})
"""Tags of typed arrays that are read: not clamped bytes, the reserved one and 128-bit floats."""

_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
_Buffers = Sequence[bytes | bytearray | memoryview]
_Leaf = Callable[[bytes, int, _Buffers, int], tuple[int, int]]


def _whole_size(head: int) -> int:
    """Return the size of the item that starts with `head`, or 0 where it takes a closer look."""
    major, info = head >> 5, head & 0x1F
    if major in (0, 1):
        return 1 if info < 24 else 1 + _WIDTHS.get(info, -1)
    if major in (2, 3) and info < 24:
        return 1 + info
    return {0xF4: 1, 0xF5: 1, 0xF6: 1, 0xF9: 3, 0xFA: 5, 0xFB: 9}.get(head, 0)


_SIZES = [_whole_size(head) for head in range(256)]
_KEY_SIZES = [size if head < 0x80 else 0 for head, size in enumerate(_SIZES)]


def scan(data: bytes, buffers: _Buffers = ()) -> bool:
    """Walk over the header of a value; return whether it holds tags of ours. Any thread.

    About 60 ns an item. `buffers` are what arrived beside it: ``bytes`` for
    byte strings and texts, writable memory for arrays.

    Raises:
        RemoteProtocolError: there is something in it that we never write.
    """
    try:
        return _scan(data, buffers)
    except IndexError:
        raise RemoteProtocolError("a value that ends too early") from None


def _scan(data: bytes, buffers: _Buffers) -> bool:
    sizes, key_sizes, end = _SIZES, _KEY_SIZES, len(data)
    outer: list[tuple[int, bool]] = []  # what is left in the containers around us, and whether they are maps
    left, is_map = 1, False
    at = used = items = containers = 0
    ours = False
    while True:
        if is_map:
            for _ in range(left):
                left -= 1
                size = key_sizes[data[at]]
                at = at + size if size else _long_key(data, at)
                size = sizes[data[at]]
                if not size:
                    break
                at += size
            else:
                left, is_map = outer.pop()
                continue
        else:
            for _ in range(left):
                left -= 1
                size = sizes[data[at]]
                if not size:
                    break
                at += size
            else:
                if not outer:
                    break
                left, is_map = outer.pop()
                continue
        head = data[at]  # of an item that takes a closer look
        count = head & 0x1F
        if count < 24:
            at += 1
        else:
            count, at = _argument(data, at)
        if head < 0x80:
            at += count
            continue
        containers += 1
        if containers > CONTAINERS_MAX:
            raise RemoteProtocolError("a value with too many items")
        if head >= 0xC0:
            if count >= TAG_BUFFER or count in _HOOKED:
                ours = True
                containers += _ARRAY_WEIGHT
            if count != TAG_CODEC or head >= 0xE0:
                at, used = _leaf(count, data, at, buffers, used, head)
                continue
            at, count, head = _codec_name(data, at), 1, 0x81
        size = count if head < 0xA0 else 2 * count
        items += size
        if size > end - at or items > ITEMS_MAX or len(outer) >= DEPTH_MAX:
            raise RemoteProtocolError("a value with too many items, nested too deep or cut short")
        outer.append((left, is_map))
        left, is_map = count, head >= 0xA0
    if at != end or used != len(buffers):
        raise RemoteProtocolError("a value that ends too early or too late, or does not use its buffers")
    return ours


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """Return the number in the head at `at` and the offset after it."""
    info = data[at] & 0x1F
    if info < 24:
        return info, at + 1
    width = _WIDTHS.get(info)
    if width is None:
        raise RemoteProtocolError("an indefinite or reserved length")
    end = at + 1 + width
    number = int.from_bytes(data[at + 1 : end], "big")
    if number < _LEAST[info]:  # each item costs us more than its two bytes cost the peer
        raise RemoteProtocolError("a length in a longer form than it needs")
    return number, end


def _long_key(data: bytes, at: int) -> int:
    """Return the offset after a key of more than 23 bytes."""
    major = data[at] >> 5
    if major not in (2, 3):
        raise RemoteProtocolError(f"byte {data[at]:#04x} where a key should be: text, a 64-bit integer or bytes")
    count, at = _argument(data, at)
    if major == 2 and count > KEY_BYTES_MAX:
        raise RemoteProtocolError(f"a key of {count} bytes")
    return at + count


# -- tags: each function returns the offset after the content, and how many buffers are used by then --------------


def _leaf(tag: int, data: bytes, at: int, buffers: _Buffers, used: int, head: int) -> tuple[int, int]:
    if head >= 0xE0:
        raise RemoteProtocolError(f"byte {head:#04x} has no place in a value")
    if tag in TYPED:
        return _typed_content(data, at, buffers, used)
    check = _LEAVES.get(tag)
    if check is None:
        raise RemoteProtocolError(f"CBOR tag {tag} has no place in a value")
    return check(data, at, buffers, used)


def _short(major: int, least: int, most: int, what: str) -> _Leaf:
    """Make the check of a content that is a byte string (2) or text (3) of some length."""

    def check(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
        if data[at] >> 5 == major:
            count, at = _argument(data, at)
            if least <= count <= most:
                return at + count, used
        raise RemoteProtocolError(f"{what} that is none")

    return check


def _epoch(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    """Walk over seconds since 1970, as other languages write a time; we write text."""
    head = data[at]
    if head >> 5 in (0, 1):
        return _argument(data, at)[1], used
    if head in (0xF9, 0xFA, 0xFB):
        return at + _SIZES[head], used
    raise RemoteProtocolError("a time that is none")


def _decimal(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    if data[at] == 0x82 and data[at + 1] >> 5 in (0, 1):
        exponent, at = _argument(data, at + 1)
        if exponent <= DECIMAL_EXPONENT_MAX:
            if data[at] in (0xC2, 0xC3):
                return _big_int(data, at + 1, buffers, used)
            if data[at] >> 5 in (0, 1):
                return _argument(data, at)[1], used
    raise RemoteProtocolError("a decimal that is none, or with too large an exponent")


def _set(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    """Walk over a set: texts, byte strings and plain numbers only, whose hashes cannot be made to collide for long."""
    if data[at] >> 5 != 4:
        raise RemoteProtocolError("a set that is none")
    count, at = _argument(data, at)
    if count > len(data) - at or count > ITEMS_MAX:
        raise RemoteProtocolError("a set with too many items or cut short")
    for _ in range(count):
        size = _SIZES[data[at]]
        if size:
            at += size
        elif data[at] >> 5 in (2, 3):
            size, at = _argument(data, at)
            at += size
        else:
            raise RemoteProtocolError(f"byte {data[at]:#04x} has no place in a set")
    return at, used


def _buffer(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    return _reference(data, at, buffers, used, array=False)


def _text(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    return _reference(data, _tag(data, at, TAG_BUFFER), buffers, used, array=False)


def _reference(data: bytes, at: int, buffers: _Buffers, used: int, *, array: bool) -> tuple[int, int]:
    """Walk over the number of a buffer, which has to be the next one and of the right kind."""
    if data[at] >> 5:
        raise RemoteProtocolError("a reference to a buffer that is none")
    index, at = _argument(data, at)
    if index != used or index >= len(buffers) or (type(buffers[index]) is bytes) is array:
        raise RemoteProtocolError(f"a reference to buffer {index}, which is not the next one, or of another kind")
    return at, used + 1


def _tag(data: bytes, at: int, *allowed: int) -> int:
    """Return the offset after the head of one of the tags `allowed`."""
    if data[at] >> 5 == 6:
        tag, at = _argument(data, at)
        if tag in allowed:
            return at
    raise RemoteProtocolError("an array, scalar or text without what should be in it")


def _typed_content(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    if data[at] >> 5 == 2:
        count, at = _argument(data, at)
        return at + count, used
    return _reference(data, _tag(data, at, TAG_BUFFER), buffers, used, array=True)


def _other_typed(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    if data[at] != 0x82 or not 0x62 <= data[at + 1] <= 0x77:
        raise RemoteProtocolError("an array without its type")
    return _typed_content(data, at + 1 + _SIZES[data[at + 1]], buffers, used)


def _typed(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    inside = _tag(data, at, TAG_DTYPE, *TYPED)
    tag, _ = _argument(data, at)
    check = _other_typed if tag == TAG_DTYPE else _typed_content
    return check(data, inside, buffers, used)


def _shaped(data: bytes, at: int, buffers: _Buffers, used: int) -> tuple[int, int]:
    if data[at] != 0x82 or data[at + 1] >> 5 != 4:
        raise RemoteProtocolError("an array without its shape")
    count, at = _argument(data, at + 1)
    if count > DIMENSIONS_MAX:
        raise RemoteProtocolError(f"an array of {count} dimensions")
    for _ in range(count):
        if data[at] >> 5:
            raise RemoteProtocolError("an array with a strange shape")
        _, at = _argument(data, at)
    return _typed(data, at, buffers, used)


def _codec_name(data: bytes, at: int) -> int:
    """Return the offset after the name of a codec, where the value begins."""
    if data[at] != 0x82 or data[at + 1] >> 5 != 3:
        raise RemoteProtocolError("a codec without its name")
    count, at = _argument(data, at + 1)
    if count > NAME_MAX:
        raise RemoteProtocolError("a codec with a long name")
    return at + count


_big_int = _short(2, 0, BIG_INT_BYTES, "an integer")
_LEAVES: dict[int, _Leaf] = {
    0: _short(3, 16, 42, "a time"),
    1: _epoch,
    2: _big_int,
    3: _big_int,
    4: _decimal,
    37: _short(2, 16, 16, "a UUID"),
    258: _set,
    1004: _short(3, 10, 10, "a date"),
    TAG_ARRAY: _shaped,
    TAG_ARRAY_F: _shaped,
    TAG_BUFFER: _buffer,
    TAG_DECIMAL: _short(3, 2, 32, "a decimal"),
    TAG_DTYPE: _other_typed,
    TAG_TIME: _short(3, 16, 42, "a time"),
    TAG_SCALAR: _typed,
    TAG_TEXT: _text,
}
_ARRAY_WEIGHT = 7  # what else goes through functions of ours, on top of the 1 for any container
_HOOKED = TYPED | {TAG_ARRAY, TAG_ARRAY_F}
