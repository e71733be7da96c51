"""Values: what is sent arrives, what cannot be sent is refused where it stands."""

from __future__ import annotations

import enum
import math
from collections import Counter, OrderedDict, defaultdict
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import ConfigError, RemoteProtocolError, ValueDecodeError, ValueEncodeError, ValueTooLarge
from mycorrizal._wire.value_codecs import ALWAYS
from mycorrizal._wire.value_guard import BUFFERS_MAX, DEPTH_MAX, HEADER_MAX
from mycorrizal._wire.value_walk import _ATOMS, _CONVERT
from mycorrizal._wire.values import (
    Codecs,
    decode_held,
    decode_lent,
    decode_packed,
    decode_parts,
    encode_value,
    pack_plain,
)

from .strategies import brief, rough
from .value_strategies import plain_values, same, values


def arrive(value: object, codecs: Codecs | None = None) -> Any:
    return decode_packed(encode_value(value, codecs or Codecs()).pack(), codecs or Codecs())


@brief
@given(values)
def test_what_is_sent_arrives(value: Any) -> None:
    encoded = encode_value(value)
    packed = encoded.pack()
    assert len(packed) == encoded.size
    assert b"".join(encoded.parts()) == packed
    assert same(value, decode_packed(packed))
    assert same(value, decode_packed(memoryview(packed)))


@brief
@given(plain_values)
def test_what_arrived_can_be_sent_again(value: Any) -> None:
    once = arrive(value)
    assert same(once, arrive(once))


@brief
@given(rough(values.map(lambda value: encode_value(value).pack())))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        decode_packed(data)
    except RemoteProtocolError:
        pass


@brief
@given(rough(values.map(lambda value: encode_value(value).header)))
def test_any_header_decodes_or_is_refused(header: bytes) -> None:
    """Deeper than whole wire forms get, whose lengths seldom fit after a change."""
    for buffers in ([], [bytes(5000)], [bytearray(8000)]):
        try:
            decode_parts(header, buffers)
        except RemoteProtocolError:
            pass


# -- the wire form -------------------------------------------------------------------------


def test_small_values_are_their_cbor_behind_five_bytes() -> None:
    assert encode_value({"a": 1}).pack().hex() == "00" + "00000004" + "a1616101"
    assert encode_value(b"abc").pack().hex() == "00" + "00000004" + "43616263"


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 4095, 4096, 65535, 65536, 1 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_byte_strings_of_every_length_arrive_as_bytes(size: int, kind: Any) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for value, got in ((kind(data), arrive(kind(data))), ([kind(data)], arrive([kind(data)])[0])):
        assert type(got) is bytes and got == data, type(value)
    encoded = encode_value(kind(data))
    assert len(encoded.buffers) == (size >= 4096)
    assert len(encoded.header) < size + 10


def test_large_memory_is_not_copied() -> None:
    data = bytearray(8192)
    text = "ä" * 70_000
    encoded = encode_value([data, memoryview(data)[:5000], {"t": text}])
    assert [view.nbytes for view in encoded.buffers] == [8192, 5000, 140_000]
    data[0], data[4999] = 7, 9
    assert (encoded.buffers[0][0], encoded.buffers[1][4999]) == (7, 9)
    assert len(encoded.header) < 50
    got: Any = decode_packed(encoded.pack())
    assert got == [bytes(data), bytes(data[:5000]), {"t": text}]


def test_views_that_are_not_plain_memory_arrive_as_their_bytes() -> None:
    for view in (memoryview(bytes(10_000))[::2], memoryview(bytes(8000)).cast("d"), memoryview(b"abc")[::-1]):
        assert arrive(view) == view.tobytes()


def test_more_than_254_buffers_take_the_longer_form() -> None:
    for count in (254, 255, 256, 1000):
        value = [bytes([i % 256]) * 4096 for i in range(count)]
        encoded = encode_value(value)
        assert len(encoded.buffers) == count
        assert encoded.preamble[0] == min(count, 255)
        assert arrive(value) == value


def test_the_number_of_buffers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._wire.value_walk.BUFFERS_MAX", 3)
    monkeypatch.setattr("mycorrizal._wire.arrays.BUFFERS_MAX", 3)
    value = [bytes(5000)] * 5 + [bytearray(5000), memoryview(bytes(5000)), "x" * 70_000]
    assert len(encode_value(value).buffers) == 3
    assert arrive(value) == [bytes(5000)] * 7 + ["x" * 70_000]
    assert BUFFERS_MAX == 65536


# -- types ---------------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 3


class Word(str, enum.Enum):  # noqa: UP042
    YES = "yes"

    def __str__(self) -> str:
        return "another text"


class Point(NamedTuple):
    x: int
    y: bytes


class Metres(float):
    pass


class Raw(bytes):
    pass


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (Colour.RED, 3),
        (Word.YES, "yes"),
        ({Word.YES: Colour.RED, Colour.RED: 1}, {"yes": 3, 3: 1}),
        (Point(1, bytes(5000)), [1, bytes(5000)]),
        (Metres(2.5), 2.5),
        (Raw(b"abc"), b"abc"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ((1, (2, 3)), [1, [2, 3]]),
        (frozenset({1}), {1}),
        ([bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        ({"a": 1, "b": (1,), "c": bytes(5000), "d": 2}, {"a": 1, "b": [1], "c": bytes(5000), "d": 2}),
    ],
)
def test_what_arrives_as_another_type(sent: Any, got: Any) -> None:
    assert same(got, arrive(sent))


def test_the_value_sent_is_not_changed() -> None:
    inner = {"b": bytes(9000), "k": Colour.RED}
    value = [inner, (1, 2), {Word.YES: 1}]
    encode_value(value)
    assert inner == {"b": bytes(9000), "k": Colour.RED}
    assert type(inner["k"]) is Colour and type(next(iter(value[2]))) is Word


@pytest.mark.parametrize("number", [0, 23, 24, 1 << 63, -(1 << 64), 1 << 64, (1 << 4096) - 1, -(1 << 4096)])
def test_integers(number: int) -> None:
    assert arrive(number) == number
    assert arrive([number] * 40) == [number] * 40


@pytest.mark.parametrize(
    "text", ["0", "-0", "-0.00", "0E+7", "1E-9999", "1E+9999", "NaN", "-NaN5", "sNaN", "-Infinity"]
)
def test_decimals(text: str) -> None:
    got = arrive(Decimal(text))
    assert (type(got), got.as_tuple()) == (Decimal, Decimal(text).as_tuple())


def test_a_long_decimal_keeps_its_digits() -> None:
    assert arrive(Decimal("1." + "3" * 1200)) == Decimal("1." + "3" * 1200)


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
        datetime(1, 1, 1),  # noqa: DTZ001
        datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=5, seconds=17, microseconds=3))),
        datetime(2026, 7, 1, 2, 3, 4, 5, timezone(timedelta(hours=5, seconds=17, microseconds=3))),
    ],
)
def test_times_keep_their_offset_or_the_lack_of_one(time: datetime) -> None:
    got = arrive([time, date(2026, 1, 2)])[0]
    assert (got, got.utcoffset()) == (time, time.utcoffset())


def test_offset_of_no_whole_minutes_has_a_tag_of_ours() -> None:
    """RFC 3339, and so tag 0 for other languages, knows hours and minutes only."""
    whole, odd = (
        datetime(2026, 7, 1, tzinfo=timezone(offset)) for offset in (timedelta(minutes=-90), timedelta(seconds=-1))
    )
    assert encode_value(whole).header[:1] == b"\xc0" and encode_value(odd).header[:1] != b"\xc0"
    assert repr(arrive([whole, odd])) == repr([whole, odd])
    for zone in (timezone(timedelta(microseconds=-1)), Nowhere()):
        time = datetime(2026, 7, 1, tzinfo=zone)
        with pytest.raises(ValueEncodeError, match="datetime with"):
            encode_value(time)


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


def test_equal_sets_are_equal_bytes() -> None:
    grown = set(range(0, 4000, 8)) | {"a", "b", None, 1.5}
    shrunk = {*range(5000), "x", 1.5, None, "b", "a"}
    shrunk -= {"x", *(number for number in range(5000) if number % 8 or number >= 4000)}
    assert grown == shrunk and list(grown) != list(shrunk)
    assert encode_value(grown).header == encode_value(shrunk).header == encode_value(frozenset(shrunk)).header


# -- what is refused -----------------------------------------------------------------------


class Odd:
    pass


class Later(datetime):
    pass


CYCLE: list[Any] = []
CYCLE.append({"again": CYCLE})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Odd(), r"^value: Odd cannot be sent"),
        ({"a": [1, 2, 3, lambda: 0]}, r"^value\['a'\]\[3\]: a function cannot be sent"),
        ((1, {"b": {b"k": [print]}}), r"^value\[1\]\['b'\]\[b'k'\]\[0\]: a builtin_function"),
        ({(1, 2): 3}, r"^value\[\(1, 2\)\]: tuple cannot be a key.*list of pairs"),
        ({"a": {None: 1}}, r"^value\['a'\]\[None\]: NoneType cannot be a key"),
        ({True: 1}, "bool cannot be a key"),
        ({1.0: 1}, "float cannot be a key"),
        ({1 << 64: 1}, "an integer of more than 64 bits cannot be a key"),
        ({bytes(256): 1}, "bytes cannot be a key"),
        ({(1, 2)}, "tuple in a set cannot be sent"),
        ([{1 << 64}], r"^value\[0\]: int in a set cannot be sent"),
        (1 << 4096, "an integer of 4097 bits"),
        ([0] * 50 + [(-1 << 4096) - 1], r"^value\[50\]: an integer of 4097 bits"),
        (Decimal("1E+10000"), "a Decimal with"),
        ([Decimal("1" * 1300)], r"^value\[0\]: a Decimal with"),
        (CYCLE, "nested too deep, or holds itself"),
        (Later(2026, 1, 1), "Later cannot be sent"),
        (Fraction(1, 2), "Fraction cannot be sent"),
        (1j, "complex cannot be sent"),
        (type, "type cannot be sent"),
        ("a\ud800", "^value: text with lone surrogates"),
        ({"a": ["b", {"c": "\udc80"}]}, r"^value\['a'\]\[1\]\['c'\]: text with lone surrogates.*surrogateescape"),
        ({"\ud800": 1}, "lone surrogates"),
        (["\ud800" * 70_000], r"^value\[0\]: text with lone surrogates"),
        ({"x" * 300: Odd()}, r"^value\['x{79}\.\.\.\]: Odd"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: object, text: str) -> None:
    with pytest.raises(ValueEncodeError, match=text) as caught:
        encode_value(value)
    assert isinstance(caught.value, TypeError)


def test_depth_is_bounded_alike_on_both_sides() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert arrive(value) == value
    with pytest.raises(ValueEncodeError, match=r"^value(\[0\]){32}: nested too deep"):
        encode_value([value])


def test_a_value_over_the_limit_is_refused() -> None:
    assert encode_value(bytes(95), limit=102).size == 102
    for value in (bytes(96), bytes(200_000), [1] * 200, "x" * 100_000):
        with pytest.raises(ValueTooLarge, match="the limit is 102"):
            encode_value(value, limit=102)


def test_a_header_over_its_bound_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueTooLarge, match="NumPy array"):
        encode_value([math.pi] * (HEADER_MAX // 9 + 1))


def test_too_many_items_are_refused_before_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("values", "value_guard"):
        monkeypatch.setattr(f"mycorrizal._wire.{module}.CONTAINERS_MAX", 1000)
    assert arrive([[]] * 999) == [[]] * 999
    values: list[list[Any]] = [[[]] * 1000, [b"x" * 5000, *[{}] * 1000], [UUID(int=5)] * 1000, [np.zeros(1)] * 126]
    for value in values:
        with pytest.raises(ValueTooLarge, match="too many items"):
            encode_value(value)


# -- codecs --------------------------------------------------------------------------------


class Vector:
    def __init__(self, *xs: Any) -> None:
        self.xs = xs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self.xs == other.xs

    __hash__ = None  # type: ignore[assignment]


def vectors() -> Codecs:
    codecs = Codecs()
    codecs.register(Vector, "test.Vector", lambda vector: list(vector.xs), lambda xs: Vector(*xs))
    codecs.register(Fraction, "fraction", lambda f: [f.numerator, f.denominator], lambda pair: Fraction(*pair))
    return codecs


def test_registered_types_travel() -> None:
    codecs = vectors()
    value = {"v": Vector(1, Vector(Fraction(1, 3)), bytes(5000), {"mutable": [1]}), "b": bytes(6000)}
    got = arrive(value, codecs)
    assert got == value
    assert type(got["v"].xs[3]["mutable"]) is list


def test_only_the_exact_type_is_meant() -> None:
    class More(Vector):
        pass

    with pytest.raises(ValueEncodeError, match="More cannot be sent"):
        encode_value(More(), vectors())


def test_a_codec_that_is_missing_here_is_named() -> None:
    data = encode_value([Vector()], vectors()).pack()
    with pytest.raises(ValueDecodeError, match=r"'test.Vector', which is not registered here \(register it here too"):
        decode_packed(data, Codecs())
    with pytest.raises(RemoteProtocolError, match=r"not a message: .*'test.Vector'"):
        decode_packed(data)  # in the library's own messages no honest peer has one


def test_errors_in_codecs_are_documented_ones() -> None:
    codecs = Codecs()
    codecs.register(Vector, "v", lambda vector: vector.xs[0], lambda inner: Vector(inner["x"]))
    with pytest.raises(ValueEncodeError, match=r"^value\[0\]: the codec v failed: IndexError") as caught:
        encode_value([Vector()], codecs)
    assert isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(ValueEncodeError, match=r"^value<v>\[0\]: Odd cannot"):
        encode_value(Vector([Odd()]), codecs)
    with pytest.raises(ValueDecodeError, match="the codec 'v' could not read a value: TypeError") as unread:
        decode_packed(encode_value(Vector(5), codecs).pack(), codecs)
    assert isinstance(unread.value.__cause__, TypeError)


@pytest.mark.parametrize("own", [RemoteProtocolError("mine"), ValueDecodeError("mine"), ValueError("mine")])
def test_what_a_codec_raises_is_never_taken_for_an_offence(own: Exception) -> None:
    def refuse(inner: object) -> Vector:
        raise own

    codecs = Codecs()
    codecs.register(Vector, "v", lambda vector: 1, refuse)
    with pytest.raises(ValueDecodeError, match="could not read a value: .*mine"):
        decode_packed(encode_value([[Vector()]], codecs).pack(), codecs)


@brief
@given(values)
def test_what_is_sent_from_where_it_is_reads_as_what_arrives(value: object) -> None:
    encoded = encode_value(value)
    assert same(value, decode_lent(encoded, Codecs()))


def test_what_is_read_where_it_is_is_not_copied() -> None:
    array, text = np.zeros(9000), bytes(9000)
    found: Any = decode_lent(encode_value([array, text, bytearray(text)]), Codecs())
    first, second, third = found
    assert np.shares_memory(first, array) and not first.flags.writeable
    assert second is text and type(third) is bytes


def test_a_codec_that_never_ends_is_cut() -> None:
    codecs = Codecs()
    codecs.register(Vector, "v", lambda vector: vector, lambda inner: Vector())
    with pytest.raises(ValueEncodeError, match="nested too deep"):
        encode_value(Vector(), codecs)


def test_ctrl_c_inside_a_codec_stays_ctrl_c() -> None:
    def interrupt(_: object) -> Vector:
        raise KeyboardInterrupt

    codecs = Codecs()
    codecs.register(Vector, "v", lambda vector: 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode_packed(encode_value([Vector()], codecs).pack(), codecs)


@pytest.mark.parametrize(
    ("kind", "name"), [(5, "x"), (Odd, ""), (Odd, "ä"), (Odd, "x" * 256), (Vector, "y"), (Odd, "test.Vector")]
)
def test_wrong_registrations_are_refused(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match="kind|name"):
        vectors().register(kind, name, lambda _: 1, lambda _: None)


def test_codec_of_a_type_that_travels_by_itself_is_refused() -> None:
    assert frozenset(_CONVERT) | _ATOMS == ALWAYS
    for kind in ALWAYS:
        with pytest.raises(ConfigError, match="travels as it is") as caught:
            Codecs().register(kind, "x", lambda value: 1, lambda value: value)
        assert caught.value.field == "kind" and caught.value.hint


def test_codec_of_a_subclass_or_of_an_array_is_called() -> None:
    codecs = Codecs()
    codecs.register(Point, "point", list, lambda pair: Point(*pair))
    codecs.register(Colour, "colour", int, Colour)
    codecs.register(np.matrix, "matrix", np.asarray, lambda array: array.view(np.matrix))
    codecs.register(np.float64, "float64", float, np.float64)
    sent: list[Any] = [Point(1, b"2"), Colour.RED, np.arange(3).view(np.matrix), np.float64(2)]
    sent.append(OrderedDict(a=Point(1, b"")))
    got = arrive(sent, codecs)
    assert [type(item) for item in got] == [Point, Colour, np.matrix, np.float64, dict]
    assert type(got[4]["a"]) is Point


def test_entry_points_are_loaded_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "ours"

        def load(self) -> Any:
            return lambda codecs: codecs.register(Vector, "v", lambda v: v.xs[0], Vector)

    def entry_points(*, group: str) -> list[Entry]:
        assert group == "mycorrizal.codecs"
        return [Entry()]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert arrive(Vector(5), Codecs.from_entry_points()) == Vector(5)


def test_a_uuid_is_the_same_uuid() -> None:
    assert arrive(UUID(int=5)) == UUID(int=5)


# -- values that stay in memory -------------------------------------------------------------------------------------


def outcome(decode: Any, data: bytes) -> Any:
    try:
        return decode(data)
    except RemoteProtocolError:
        return "refused"


@brief
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300), st.integers(-(1 << 65), 1 << 65), st.floats(), values))
def test_what_is_held_is_read_as_what_arrives(value: Any) -> None:
    data = encode_value(value).pack()
    assert same(decode_held(data), decode_packed(data))


@brief
@given(
    st.one_of(st.binary(max_size=40), st.text(max_size=40), st.integers(-(1 << 65), 1 << 65), st.floats(), st.none()),
    st.integers(0, 60), st.binary(max_size=3),
)  # fmt: skip
def test_what_is_held_and_broken_is_refused_as_what_arrives(value: Any, at: int, other: bytes) -> None:
    data = encode_value(value).pack()
    broken = data[:at] + other + data[at + len(other) :]
    assert same(outcome(decode_held, broken), outcome(decode_packed, broken))


@pytest.mark.parametrize("length", [0, 1, 23, 24, 254, 255, 256, 257])
def test_short_texts_and_bytes_are_held_at_every_length(length: int) -> None:
    for value in (bytes(length), "x" * length):
        assert decode_held(encode_value(value).pack()) == value
    with pytest.raises(RemoteProtocolError):
        decode_held(encode_value("x" * length).pack()[:-1])


def test_a_large_array_that_is_held_is_a_view_of_it() -> None:
    array = np.arange(10_000.0)
    data = encode_value({"a": array, "b": bytes(5000), "c": "x" * 100_000}).pack()
    got: Any = decode_held(data)
    assert (got["a"] == array).all() and got["b"] == bytes(5000) and got["c"] == "x" * 100_000
    assert not got["a"].flags.writeable
    assert np.shares_memory(got["a"], np.frombuffer(data, np.uint8))
    for cut in (0, 1, 5, 8, 20, 5000, len(data) - 1):
        with pytest.raises(RemoteProtocolError):
            decode_held(data[:cut])


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=400), st.binary(max_size=400)))
def test_plain_values_are_packed_as_all_others(value: object) -> None:
    packed = pack_plain(value)
    assert packed is None or packed == encode_value(value).pack()
    small = type(value) is not int or -(1 << 63) < value < 1 << 63
    assert packed is not None or not small or len(value) > 255  # type: ignore[arg-type]


class _Enum(enum.IntEnum):
    A = 1


@pytest.mark.parametrize(
    "value", [[], {}, (1,), 1 << 63, "x" * 256, b"x" * 256, "\ud800", _Enum.A, bytearray()]
)
def test_what_is_not_plain_is_for_the_walk(value: object) -> None:
    assert pack_plain(value) is None
