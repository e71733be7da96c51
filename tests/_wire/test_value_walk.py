"""What a sender refuses is what a receiver would refuse, and what is just within a bound arrives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from mycorrizal import ValueEncodeError
from mycorrizal._wire.value_codecs import Codecs
from mycorrizal._wire.value_guard import BIG_INT_BYTES, DECIMAL_EXPONENT_MAX, DEPTH_MAX, KEY_BYTES_MAX, NAME_MAX
from mycorrizal._wire.values import decode_packed, encode_value


def arrive(value: Any, codecs: Codecs | None = None) -> Any:
    return decode_packed(encode_value(value, codecs or Codecs()).pack(), codecs or Codecs())


class Box:
    """Of a type that is registered."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def boxes(name: str = "box") -> Codecs:
    codecs = Codecs()
    codecs.register(Box, name, lambda box: box.inner, Box)
    return codecs


@pytest.mark.parametrize(
    "value",
    [
        {bytes(KEY_BYTES_MAX): 1},
        {(1 << 64) - 1: 1, -1 << 64: 2},
        {(1 << 64) - 1, -1 << 64},
        (1 << 8 * BIG_INT_BYTES) - 1,
        -1 << 8 * BIG_INT_BYTES,
        Decimal((0, (1,), DECIMAL_EXPONENT_MAX)),
        Decimal((0, (1,), -DECIMAL_EXPONENT_MAX)),
        Decimal((1, (0,), -DECIMAL_EXPONENT_MAX)),
        [*range(50), -1 << 63],
        [*range(50), (1 << 63) - 1],
        [*range(50), 1 << 63, (-1 << 63) - 1],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_last_that_fits_arrives(value: Any) -> None:
    assert arrive(value) == value


@pytest.mark.parametrize("digits", [15, 16])
def test_a_not_a_number_keeps_its_payload_as_far_as_receivers_take_it(digits: int) -> None:
    value = Decimal("NaN" + "1" * digits)
    assert str(arrive(value)) == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({bytes(KEY_BYTES_MAX + 1): 1}, "bytes cannot be a key"),
        ({1 << 64: 1}, "more than 64 bits cannot be a key"),
        ({(-1 << 64) - 1: 1}, "more than 64 bits cannot be a key"),
        ({(-1 << 64) - 1}, "int in a set"),
        (Decimal((0, (1,), -DECIMAL_EXPONENT_MAX - 1)), "a Decimal with"),
        (Decimal((1, (0,), -DECIMAL_EXPONENT_MAX - 1)), "a Decimal with"),
        (Decimal("NaN" + "1" * 17), "a Decimal with"),
        (Decimal("-sNaN" + "1" * 17), "a Decimal with"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_first_that_does_not_is_refused_here(value: Any, text: str) -> None:
    with pytest.raises(ValueEncodeError, match=text):
        encode_value(value)


def test_a_long_key_stands_in_an_error_in_short() -> None:
    with pytest.raises(ValueEncodeError) as caught:
        encode_value({"k" * 5000: {"l" * 5000: object()}})
    assert len(str(caught.value)) < 400


def test_codecs_nest_as_deep_as_lists() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = Box(value)
    got = arrive(value, boxes())
    for _ in range(DEPTH_MAX):
        got = got.inner
    assert got == 1
    with pytest.raises(ValueEncodeError, match="nested too deep"):
        encode_value(Box(value), boxes())


def test_a_codec_may_have_a_name_of_255_characters() -> None:
    codecs = boxes("n" * NAME_MAX)
    assert arrive(Box(5), codecs).inner == 5


@pytest.mark.parametrize("size", [5000, 70_000])
def test_beyond_the_last_buffer_all_stands_in_the_header(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._wire.value_walk.BUFFERS_MAX", 1)
    memory = bytearray(b"m" * size)
    for second in (bytes(memory), memory, memoryview(memory), memoryview(memory)[::-1], "m" * size):
        encoded = encode_value([b"b" * size, second])
        assert len(encoded.buffers) == 1
        assert decode_packed(encoded.pack()) == [b"b" * size, second if isinstance(second, str) else bytes(memory)]


@pytest.mark.parametrize("number", [1 << (8 * BIG_INT_BYTES), -(1 << (8 * BIG_INT_BYTES)) - 1])
@pytest.mark.parametrize("count", [1, 1000])
def test_a_number_that_is_too_large_is_found_in_a_long_list_too(number: int, count: int) -> None:
    with pytest.raises(ValueEncodeError, match=rf"value\[{count}\]: an integer of"):
        encode_value([*range(count), number])
