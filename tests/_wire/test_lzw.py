"""LZW both ways. Go's own bytes are in the vectors; here are properties and bounds."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal import RemoteProtocolError
from mycorrizal._wire import limits
from mycorrizal._wire.lzw import compress, compress_below, decompress

from .strategies import bomb, brief, rough

words = st.sampled_from([b"alive", b"node-", b"\0\0", b"x"])
plain = st.binary(max_size=600) | st.lists(words, max_size=300).map(b"".join)


def slow_decompress(data: bytes) -> bytes:
    """The decoder of memberlist-protocol §4.2, step by step."""
    out = bytearray()
    table: dict[int, bytes] = {n: bytes((n,)) for n in range(256)}
    width, hi, overflow, last, position = 9, 257, 512, None, 0
    bits = int.from_bytes(data, "little")
    while True:
        if position + width > len(data) * 8:
            raise ValueError("unexpected EOF")
        code = bits >> position & ((1 << width) - 1)
        position += width
        if code == 256:
            width, hi, overflow, last = 9, 257, 512, None
            continue
        if code == 257:
            return bytes(out)
        if code > hi:
            raise ValueError("invalid code")
        known = table[last] if last is not None else b""
        entry = known + known[:1] if code == hi and last is not None else table[code]
        out += entry
        if last is not None:
            table[hi] = known + entry[:1]
        last = code
        hi += 1
        if hi >= overflow:
            if width == 12:
                last, hi = None, hi - 1
            else:
                width, overflow = width + 1, overflow * 2


@brief
@given(plain)
def test_round_trip(data: bytes) -> None:
    packed = compress(data)
    assert decompress(packed, len(data)) == data
    assert decompress(packed + b"rest", len(data)) == data
    assert compress_below(data, len(packed) + 1) == packed
    assert compress_below(data, len(packed)) is None
    if data:
        with pytest.raises(RemoteProtocolError, match="larger than the limit"):
            decompress(packed, len(data) - 1)


@brief
@given(rough(plain.map(compress)))
def test_the_decoder_agrees_with_the_plain_one(data: bytes) -> None:
    try:
        wanted = slow_decompress(data)
    except ValueError:
        with pytest.raises(RemoteProtocolError, match="unexpected EOF|invalid code"):
            decompress(data, 1 << 20)
    else:
        assert decompress(data, 1 << 20) == wanted


@pytest.mark.parametrize("size", [*range(254, 258), *range(766, 770), *range(3836, 3841), 7676, 20_000])
def test_round_trip_where_the_width_changes_and_the_table_is_cleared(size: int) -> None:
    # No pair of neighbours comes twice, so that every byte is a code of its own.
    data = bytes(byte for a in range(256) for b in range(a + 1, 256) for byte in (a, b))[:size]
    packed = compress(data)
    assert decompress(packed, size) == slow_decompress(packed) == data


def code_stream(rng: random.Random, count: int) -> bytes:
    """Return valid codes as an encoder might write that fills its table to the brim and clears when it likes."""
    bits = position = 0
    width, hi, fresh = 9, 257, True
    for _ in range(count):
        code = rng.randrange(256) if fresh else rng.randrange(hi + 1)
        if rng.random() < 3e-4:
            code = 256
        elif code == 257:
            code = hi
        bits |= code << position
        position += width
        if code == 256:
            width, hi, fresh = 9, 257, True
            continue
        fresh = False
        hi += 1
        if hi == 1 << width:
            if width == 12:
                hi -= 1
            else:
                width += 1
    bits |= 257 << position
    return bits.to_bytes((position + width + 7) // 8, "little")


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_code_streams_past_the_full_table(seed: int) -> None:
    """Our encoder clears before the table is full; others need not."""
    data = code_stream(random.Random(seed), 6000)
    assert decompress(data, 100 << 20) == slow_decompress(data)


@pytest.mark.parametrize("size", [1, 2, 300, 5000, 1 << 20, (20 << 20) + 1, 40 << 20])
def test_bombs_are_exact(size: int) -> None:
    assert decompress(bomb(size), size) == bytes(size)


def test_bounds_hold_while_decompressing() -> None:
    """TestDecompressPayload_Limit of memberlist."""
    limit = limits.DECOMPRESSED_MAX
    data = bomb(limit + 1)
    assert len(data) < 40_000
    with pytest.raises(RemoteProtocolError, match="larger than the limit"):
        decompress(data, limit)
    # What comes after the limit is not looked at any more: here it would be an error of another kind.
    with pytest.raises(RemoteProtocolError, match="larger than the limit"):
        decompress(bomb(3 * limit)[:-1], limit)


def test_a_run_of_clear_codes_costs_no_more_than_other_codes() -> None:
    count = 400_000  # multiple of eight
    unit = sum(256 << 9 * i for i in range(8)).to_bytes(9, "little")
    data = unit * (count // 8) + (257).to_bytes(2, "little")
    began = time.process_time()
    assert decompress(data, 10) == b""
    assert time.process_time() - began < 10, "a second would do; a thousand times as long without care"
