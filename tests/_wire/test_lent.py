"""Values that are sent out of memory which their owner gets back."""

from __future__ import annotations

import random
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._wire.frames import INLINE_MAX
from mycorrizal._wire.lent import LEND_MIN, Lent
from mycorrizal._wire.value_guard import BUFFER_MIN, TAG_BUFFER
from mycorrizal._wire.values import Encoded, ValueReader, decode_held, decode_parts, encode_value
from mycorrizal.exceptions import ValueEncodeError

from .strategies import brief
from .value_strategies import same, values


@brief
@given(values, st.integers(0, 20_000))
def test_it_arrives_within_a_message_as_one_byte_string(value: Any, more: int) -> None:
    value = [value, bytes(BUFFER_MIN + more)]
    message = Lent(encode_value(value)).within(cbor2.dumps([1, cbor2.CBORTag(TAG_BUFFER, 0), "x"]))
    parts = message.parts()
    assert sum(map(len, parts)) == message.size and b"".join(parts) == message.pack()
    reader, rng = ValueReader(message.size), random.Random(1)
    for part in parts:
        at = 0
        while at < len(part):
            size = rng.choice((1, 100, 1 << 20))
            reader.feed(part[at : at + size])
            at += size
    got: Any = decode_parts(*reader.parts())
    assert got == [1, encode_value(value).pack(), "x"] and type(got[1]) is bytes
    assert same(value, decode_held(got[1]))


def test_what_is_large_is_not_copied() -> None:
    memory = bytearray(LEND_MIN)
    message = Lent(encode_value(memory)).within(b"\xf6")
    memory[0] = memory[-1] = 7
    assert message.buffers[-1][0] == message.buffers[-1][-1] == 7


def test_what_is_packed_too_late_does_not_count() -> None:
    lent = Lent(encode_value(bytearray(LEND_MIN)))
    assert lent.pack() == encode_value(bytes(LEND_MIN)).pack()
    lent.over = True
    assert lent.pack() is None


def test_what_the_caller_takes_back_in_the_middle_does_not_count() -> None:
    encoded = encode_value(bytearray(LEND_MIN))
    lent = Lent(encoded)

    class Slow(Encoded):
        """Is still being read when the call ends."""

        def pack(self) -> bytes:
            packed = super().pack()
            lent.over = True
            return packed

    lent._encoded = Slow(encoded.header, encoded.buffers, encoded.preamble, encoded.size)
    assert lent.pack() is None


def test_it_is_no_value_of_a_users() -> None:
    encoded = encode_value(bytes(LEND_MIN))
    for value in (encoded, Lent(encoded), Lent(encoded).within(b"\xf6")):
        with pytest.raises(ValueEncodeError):
            encode_value([value])


def test_it_never_travels_inline() -> None:
    assert LEND_MIN > INLINE_MAX  # there it would be read without a look at ``over``
    assert LEND_MIN > BUFFER_MIN  # what is shorter is refused
