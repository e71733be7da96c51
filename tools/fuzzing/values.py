"""Values of an application as targets of tools/fuzz: what arrives is what was sent, and equal bytes stand for equality.

The same two rules as in tests/_wire/test_value_exceptions.py and
tests/_wire/test_canonical.py, some hundred times as fast as Hypothesis makes
values. The bytes of an input are what texts, byte strings and arrays are of.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import numpy as np

from fuzzing.value_exceptions import (
    Colour,
    Level,
    Number,
    Pair,
    Raw,
    Real,
    Sequence,
    Unit,
    Word,
    same,
)
from mycorrizal import ValueEncodeError, ValueTooLarge
from mycorrizal._wire.canonical import canonical, digest, equal
from mycorrizal._wire.value_codecs import Codecs
from mycorrizal._wire.value_reader import ValueReader
from mycorrizal._wire.values import (
    Encoded,
    decode_held,
    decode_lent,
    decode_packed,
    decode_parts,
    encode_value,
)

CODECS = Codecs()
CODECS.register(Fraction, "fraction", lambda f: [f.numerator, f.denominator], lambda pair: Fraction(*pair))
ZONES = [None, UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"), timezone(timedelta(0)), timezone.min]
EDGES = [0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 53, (1 << 53) + 1]
EDGES += [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, (1 << 4096) - 1, 1 << 4096]
SIZES = [0, 1, 23, 24, 255, 256, 1023, 1024, 4095, 4096, 4097]
FLOATS = [0.0, -0.0, 1.0, 0.1, 1.5, float("inf"), float("-inf"), float("nan"), 5e-324, 1e308, 65504.0, 3.4e38]
SMALL: list[Any] = [0, 1, True, False, None, 0.0, -0.0, 1.0, "", "1", b"", b"1", "a", np.int64(1), np.bool_(True)]
SMALL += [np.float64(1), np.float32(1), np.str_("a"), Decimal(1), Decimal("1.0"), Decimal("-0"), Colour.RED, "red"]
SMALL += [np.ones(1), np.ones((1, 1)), np.ones(1, ">f8"), np.zeros(0), np.zeros((0, 2)), np.array(1), bytearray(b"1")]
SMALL += [np.array([0, 2, 255], "u1").view(bool), np.array([False, True, True]), Level.LOW, Fraction(1), float("nan")]
KEYS: list[Any] = [0, 1, -1, "", "1", b"", b"1", "a", b"a", Colour.RED, "red", Level.LOW, np.int64(1), np.str_("a")]
KEYS += [1.0, True, None, (1,), -(1 << 64), (1 << 64) - 1, 1 << 64, bytes(255), bytes(256), Number(2), Raw(b"1")]
ELEMENTS: list[Any] = [*KEYS, np.uint8(7), 0.5, 0.0, float("inf"), float("nan"), np.float64(0.5), np.float32(0.1)]
DTYPES = ["?", "u1", "<u2", ">u4", "<u8", "i1", ">i2", "<i4", ">i8", "<f2", ">f4", "<f8", "<c8", ">c16", "S1", "S3"]
DTYPES += ["<U1", ">U2", "<U3", "<M8[s]", ">M8[7D]", "<m8[ns]", "m8", "M8", "<m8[Y]", "V3", "g", "G", "i4,f4"]
Make = Callable[[random.Random, bytes], Any]

# -- values ------------------------------------------------------------------------------


def corpus() -> Iterator[bytes]:
    """Yield what texts, byte strings and arrays are made of."""
    yield from (b"a", "aé\u20ac\U0001f600".encode(), b"\0" * 40, b"a\0b\0", bytes(range(256)), b"\x01\x00" * 30)
    yield from (struct.pack("<9d", *FLOATS[:9]), b"\xff" * 70, "é\0".encode() * 50)


def make(rng: random.Random, data: bytes, depth: int = 0) -> Any:
    """Return some value, of types that travel and of types that do not, with the odd ones oftener than they are."""
    if depth < 5 and rng.random() < (0.6 if depth == 0 else 0.3):
        return rng.choice(CONTAINERS)(rng, data, depth + 1)
    return rng.choice(LEAVES)(rng, data)


def _number(rng: random.Random, data: bytes) -> Any:
    number = rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(rng.choice((4, 16, 62, 70, 4000)))
    number = rng.choice((number, -number, -1 - number))
    return Number(number) if rng.random() < 0.05 else number


def _float(rng: random.Random, data: bytes) -> Any:
    number = rng.choice(FLOATS) if rng.random() < 0.5 else struct.unpack("d", rng.randbytes(8))[0]
    return Real(number) if rng.random() < 0.05 else number


def _text(rng: random.Random, data: bytes) -> Any:
    kind = rng.random()
    if kind < 0.01:
        return "é" * rng.choice((32767, 32768, 65535, 65536))
    errors = "surrogateescape" if kind < 0.03 else "ignore"
    text = data[: rng.choice(SIZES)].decode(errors=errors)
    return Word(text) if kind > 0.95 else np.str_(text) if kind > 0.9 else Colour.RED if kind > 0.88 else text


def _bytes(rng: random.Random, data: bytes) -> Any:
    size = rng.choice(SIZES)
    whole = (data * (1 + size // (len(data) or size or 1)) or bytes(size))[:size]
    kinds: list[Callable[[bytes], Any]] = [bytes, bytes, bytes, bytearray, Raw, memoryview, np.bytes_]
    kinds += [lambda raw: memoryview(raw)[::2], lambda raw: memoryview(array("d", raw[: len(raw) // 8 * 8]))]
    return rng.choice(kinds)(whole)


def _time(rng: random.Random, data: bytes) -> Any:
    year = rng.choice((1, 999, 1970, 2026, 9999))
    at = datetime(year, rng.randrange(1, 13), rng.randrange(1, 29), rng.randrange(24), tzinfo=UTC)
    at = at.replace(microsecond=rng.choice((0, 1, 999_999, 500_000)), second=rng.randrange(60), fold=rng.random() < 0.2)
    if rng.random() < 0.2:
        return at.date()
    seconds = rng.choice((rng.randrange(-86399, 86400), 60 * rng.randrange(-1439, 1440)))
    own = timezone(timedelta(seconds=seconds, microseconds=rng.choice((0, 0, 1, -1)) if abs(seconds) < 86399 else 0))
    return at.replace(tzinfo=rng.choice((*ZONES, own, own)))


def _decimal(rng: random.Random, data: bytes) -> Any:
    if rng.random() < 0.3:
        return Decimal(rng.choice(("NaN", "-NaN12", "sNaN", "-Infinity", "-0", "0E+9", "-0E-9999", "0E+10000")))
    digits = tuple(rng.randrange(10) for _ in range(rng.choice((1, 2, 30, 1233, 1234))))
    exponent = rng.choice((0, -1, 3, 23, -24, 9998, 9999, -9999, 10000, -10000))
    return Decimal((rng.randrange(2), digits, exponent))


def _other(rng: random.Random, data: bytes) -> Any:
    kinds: list[Any] = [None, True, False, UUID(int=rng.getrandbits(128)), UUID(int=5, is_safe=SafeUUID.safe)]
    kinds += [Level.LOW, ..., 1j, Colour, range(3), "\ud800", date(1, 1, 1), np.longdouble(3), np.longlong(1)]
    kinds += [np.void(b"ab"), Fraction(rng.randrange(9), 7), timedelta(1), np.str_("a\0"), np.bytes_(b"a\0")]
    return rng.choice(kinds)


def _small(rng: random.Random, data: bytes) -> Any:
    return rng.choice(SMALL)


def _array(rng: random.Random, data: bytes) -> Any:
    """Return an array over any bytes: of any order in memory, read-only, of a kind of its own, of no elements."""
    dtype = np.dtype(rng.choice(DTYPES))
    shape = [rng.choice((0, 1, 1, 2, 3, 3, 7)) for _ in range(rng.randrange(4))]
    if rng.random() < 0.05:
        shape = [rng.choice((1, 200, 1100))] if rng.random() < 0.7 else [1] * rng.choice((32, 33))
    size, offset = int(np.prod(shape, dtype=int)) * dtype.itemsize, rng.randrange(2)
    raw = bytearray((data * (1 + size // len(data)) if data and rng.random() < 0.7 else rng.randbytes(size))[:size])
    if dtype.kind == "U" and rng.random() < 0.9:
        raw = bytearray(np.array([rng.choice("aé\U0001f600\0")] * (size // 4), dtype.str[0] + "U1").tobytes())
    made: Any = np.frombuffer(bytearray(offset) + raw, dtype, count=-1 if size else 0, offset=offset if size else 0)
    made = made.reshape(shape) if made.size or 0 in shape else np.zeros(shape, dtype)
    if made.ndim == 0 and dtype.kind != "U" and rng.random() < 0.5:
        return made[()]
    for _ in range(rng.randrange(3)):
        made = rng.choice(VIEWS)(rng, made)
    return made


def _of_array(view: Callable[[Any], Any]) -> Callable[[random.Random, Any], Any]:
    return lambda rng, made: view(made)


def _read_only(rng: random.Random, made: Any) -> Any:
    made = made[...]
    made.setflags(write=False)
    return made


def _of_a_kind(rng: random.Random, made: Any) -> Any:
    return made.view(rng.choice((np.memmap, np.memmap, Unit, np.ma.MaskedArray)))


VIEWS: list[Callable[[random.Random, Any], Any]] = [
    *(_of_array(np.asfortranarray), _of_array(np.transpose), _of_array(lambda a: a[::2] if a.ndim else a)),
    *(_of_array(lambda a: a[..., ::-1] if a.ndim else a), _read_only, _read_only, _of_a_kind),
    _of_array(lambda a: np.broadcast_to(a, (2, *a.shape)) if a.ndim < 4 else a),
    _of_array(lambda a: np.array(a.tolist(), object) if _few(a) else a),
]


def _few(made: Any) -> bool:
    return made.size < 4 and made.dtype.kind in "iu?" and type(made) is np.ndarray


def _list(rng: random.Random, data: bytes, depth: int) -> Any:
    if rng.random() < 0.1:
        pool = (0, 1, 1 << 63, -5, 0.5, None) if rng.random() < 0.5 else (7, -1)
        return [rng.choice(pool) for _ in range(rng.randrange(29, 40))]
    items = [make(rng, data, depth) for _ in range(rng.randrange(5))]
    kind = rng.random()
    if kind < 0.6:
        return items
    return tuple(items) if kind < 0.8 else Sequence(items) if kind < 0.9 else Pair(items, 1)


def _dict(rng: random.Random, data: bytes, depth: int) -> Any:
    made: dict[Any, Any] = {}
    for _ in range(rng.randrange(5)):
        other = rng.choice((f"k{rng.randrange(40)}", rng.getrandbits(64), Word("a") if rng.random() < 0.1 else "word"))
        made[rng.choice(KEYS) if rng.random() < 0.5 else other] = make(rng, data, depth)
    kind = rng.random()
    return made if kind < 0.8 else OrderedDict(made) if kind < 0.9 else defaultdict(list, made)


def _set(rng: random.Random, data: bytes, depth: int) -> Any:
    plain = (str, int, bytes)
    pool = ELEMENTS if rng.random() < 0.3 else [one for one in ELEMENTS if type(one) in plain or one is None]
    made = {rng.choice(pool) if rng.random() < 0.7 else rng.getrandbits(20) for _ in range(rng.randrange(9))}
    return made if rng.random() < 0.7 else frozenset(made)


def _deep(rng: random.Random, data: bytes, depth: int) -> Any:
    value = make(rng, data, 6)
    for _ in range(rng.randrange(26, 34)):
        value = {"k": value} if rng.random() < 0.3 else [value]
    return value


LEAVES: list[Make] = [_number, _float, _text, _bytes, _time, _decimal, _other, _small, _small, _array, _array, _array]
CONTAINERS: list[Callable[[random.Random, bytes, int], Any]] = [*[_list] * 3, *[_dict] * 3, _set, _set, _deep]

# -- what arrives is what was sent -------------------------------------------------------


def round_trip(rng: random.Random) -> Callable[[bytes], str]:
    """Make the target: a value is refused with advice, or arrives the same by every way that there is."""

    def run(data: bytes) -> str:
        value = make(rng, data)
        try:
            encoded = encode_value(value, CODECS)
        except (ValueEncodeError, ValueTooLarge) as error:
            assert str(error).startswith(("value", "a value")) and error.hint, f"no advice: {error!r} for {value!r}"
            return type(error).__name__
        packed = encoded.pack()
        assert len(packed) == encoded.size == sum(len(part) for part in encoded.parts()), repr(value)
        for way in (_whole, rng.choice((_held, _lent, _in_pieces))):
            got = way(rng, encoded, packed)
            assert same(value, got), f"{way.__name__}: {got!r} of {value!r}"
        if rng.random() < 0.2:
            _limits(value, encoded)
            again = encode_value(got, CODECS).pack()  # what arrived goes on to the next one as it is
            assert same(got, decode_packed(again, CODECS)), f"the second time: {value!r}"
        return "array" if encoded.buffers else type(value).__name__

    return run


def _whole(rng: random.Random, encoded: Encoded, packed: bytes) -> Any:
    return decode_packed(memoryview(packed) if rng.random() < 0.3 else packed, CODECS)


def _held(rng: random.Random, encoded: Encoded, packed: bytes) -> Any:
    return decode_held(packed, CODECS)


def _lent(rng: random.Random, encoded: Encoded, packed: bytes) -> Any:
    return decode_lent(encoded, CODECS)


def _in_pieces(rng: random.Random, encoded: Encoded, packed: bytes) -> Any:
    reader, at = ValueReader(len(packed)), 0
    while at < len(packed):
        size = rng.choice((1, 5, 64, 1500, len(packed)))
        reader.feed(packed[at : at + size])
        at += size
    return decode_parts(*reader.parts(), CODECS)


def _limits(value: Any, encoded: Encoded) -> None:
    """A value of just the size is taken, and one byte less is too little."""
    assert encode_value(value, CODECS, limit=encoded.size).header == encoded.header, repr(value)
    try:
        encode_value(value, CODECS, limit=encoded.size - 1)
    except ValueTooLarge:
        return
    raise AssertionError(f"over its limit: {value!r}")


# -- bytes that stand for equality -------------------------------------------------------


def equality(rng: random.Random) -> Callable[[bytes], str]:
    """Make the target: two values have the same canonical bytes exactly if they are equal by the written rule."""

    def run(data: bytes) -> str:
        one, other, like = _pair(rng, data)
        try:
            first, second = canonical(one, CODECS), canonical(other, CODECS)
        except (ValueEncodeError, ValueTooLarge) as error:
            return type(error).__name__
        told = model(one) == model(other)
        assert told or not like, f"the model itself: {one!r}, {other!r}"
        assert (first == second) is told, f"equal: {told}, by their bytes: {not told}: {one!r}, {other!r}"
        if rng.random() < 0.2:
            assert (digest(one, CODECS) == digest(other, CODECS)) is told
        packed, packed_other = encode_value(one, CODECS).pack(), encode_value(other, CODECS).pack()
        arrived, arrived_other = decode_packed(packed, CODECS), decode_packed(packed_other, CODECS)
        told = model(arrived) == model(arrived_other)
        assert equal(packed, packed_other, CODECS) is told, f"equal once there: {told}: {one!r}, {other!r}"
        if rng.random() < 0.2 and model(one) == model(arrived):  # what arrives as it was has the key that it had
            assert canonical(arrived, CODECS) == first, f"another key once there: {one!r}"
        return "equal" if told else "different"

    return run


def _pair(rng: random.Random, data: bytes) -> tuple[Any, Any, bool]:
    """Return two values, and whether they are equal in any case."""
    kind = rng.random()
    if kind < 0.3:
        one = _tiny(rng, 3)
        return one, _tiny(rng, 3), False
    one = make(rng, data)
    if kind < 0.65:
        return one, shuffled(rng, one), True
    return one, _twin(rng, one), False


def _tiny(rng: random.Random, depth: int) -> Any:
    """Return a value of the few that there are: two of them are often equal, or nearly."""
    if depth and rng.random() < 0.4:
        inner = [_tiny(rng, depth - 1) for _ in range(rng.randrange(3))]
        kinds: list[Callable[[], Any]] = [lambda: inner, lambda: tuple(inner), lambda: {"1": inner}]
        kinds += [lambda: {rng.choice(KEYS): one for one in inner}, lambda: {rng.choice(ELEMENTS) for _ in inner}]
        return rng.choice(kinds)()
    return rng.choice(SMALL)


def shuffled(rng: random.Random, value: Any) -> Any:
    """Return an equal value that was made in another order, and of which arrays lie otherwise in memory."""
    if type(value) in (dict, OrderedDict):
        pairs = [(key, shuffled(rng, item)) for key, item in value.items()]
        rng.shuffle(pairs)
        return type(value)(pairs)
    if type(value) in (set, frozenset):
        items = list(value)
        rng.shuffle(items)
        grown: set[Any] = {object() for _ in range(rng.randrange(50))}  # its table keeps the size
        grown.update(items)
        grown.intersection_update(items)
        return type(value)(items) if len(grown) != len(items) else grown if type(value) is set else frozenset(grown)
    if type(value) in (list, tuple):
        return type(value)([shuffled(rng, item) for item in value])
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return np.array(value, order="F") if rng.random() < 0.5 else np.repeat(value[None], 2, axis=0)[1, ...]
    if type(value) is bytes:
        return bytearray(value) if rng.random() < 0.3 else value
    return value


def _twin(rng: random.Random, value: Any) -> Any:
    """Return `value` with one thing changed in one place, which may be no change at all."""
    if isinstance(value, list | tuple) and value and type(value) in (list, tuple):
        items = list(value)
        at = rng.randrange(len(items))
        items[at] = _twin(rng, items[at])
        return items if rng.random() < 0.1 else type(value)(items)
    if type(value) is dict and value:
        key = rng.choice(list(value))
        if rng.random() < 0.3:
            other = _changed(rng, key)
            try:
                return {(other if one is key else one): item for one, item in value.items()}
            except TypeError:  # it has no hash
                return value
        return {**value, key: _twin(rng, value[key])}
    if type(value) is set and value:
        return value ^ {rng.choice([*value, *ELEMENTS])}
    return _changed(rng, value)


def _changed(rng: random.Random, value: Any) -> Any:
    ways: list[Callable[[], Any]] = [lambda: rng.choice(SMALL[:20]), lambda: value]
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        ways += [lambda: value + 1, lambda: -value, lambda: float(value), lambda: int(value), lambda: np.float64(value)]
    if isinstance(value, str) and type(value) is str:
        ways += [lambda: value + "\0", value.encode, lambda: np.str_(value), lambda: value[:-1]]
    if type(value) is bytes:
        ways += [lambda: value + b"\0", lambda: value[1:], lambda: np.bytes_(value), value.decode]
    if isinstance(value, np.ndarray) and type(value) is np.ndarray and value.dtype.kind in "iufcb":
        ways += [lambda: value.T, lambda: value.astype(value.dtype.newbyteorder()), lambda: value.reshape(-1)]
        ways += [lambda: value.astype("c16"), lambda: value + value.dtype.type(1), lambda: value[None], value.tolist]
    if isinstance(value, datetime):
        ways += [lambda: value.replace(tzinfo=None), lambda: value.replace(fold=0), value.date, value.astimezone]
    if isinstance(value, Decimal):
        ways += [value.normalize, lambda: -value, value.copy_negate]
    try:
        with np.errstate(all="ignore"):
            return rng.choice(ways)()
    except (ArithmeticError, ValueError):
        return value


def model(value: Any) -> Any:
    """Return what two values have in common exactly if they are equal, by the rule of ``canonical``, written anew."""
    if isinstance(value, Fraction):
        return "fraction", value
    if isinstance(value, dict):
        return "dict", frozenset((model(_plain(key)), model(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return "set", frozenset(model(_plain(item)) for item in value)
    if isinstance(value, list | tuple):
        return "list" if isinstance(value, list) else "tuple", tuple(map(model, value))
    if isinstance(value, np.ndarray | np.generic):
        elements = np.asarray(value)
        elements = elements.view("u1") != 0 if elements.dtype == bool and elements.size else elements
        return isinstance(value, np.generic), value.dtype.str, value.shape, elements.tobytes()
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", memoryview(value).tobytes()
    if isinstance(value, datetime):
        return "datetime", value.replace(tzinfo=None, fold=0), value.utcoffset()
    if isinstance(value, Decimal):
        return "decimal", value.as_tuple()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            plain = kind.__str__(value) if kind is str else kind.__repr__(value)
            return kind, plain
    return type(value), value


def _plain(key: Any) -> Any:
    """Return what a key of a dict or an element of a set is sent as."""
    if isinstance(key, np.str_ | np.bytes_):
        return str(key) if isinstance(key, str) else bytes(key)
    return key.item() if isinstance(key, np.generic) else key
