"""The reader of large values: any pieces, no more memory than bytes, and nothing that was not announced."""

from __future__ import annotations

import gc
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import RemoteProtocolError
from mycorrizal._wire.value_guard import BUFFERS_MAX, BYTES_FLAG, HEADER_MAX
from mycorrizal._wire.value_reader import ValueReader
from mycorrizal._wire.values import decode_packed, decode_parts, encode_value

from .strategies import brief
from .value_strategies import same, values

MIB = 1 << 20


def read(data: bytes, *cuts: int) -> ValueReader:
    reader = ValueReader(len(data))
    at = 0
    for cut in (*sorted(cuts), len(data)):
        assert not reader.done or at == len(data)
        reader.feed(data[at:cut])
        at = max(at, cut)
    return reader


large = st.lists(
    st.one_of(
        st.integers(4096, 9000).map(bytes),
        st.integers(200, 2000).map(lambda n: np.arange(float(n))),
        st.integers(65536, 70000).map(lambda n: "x" * n),
        values,
    ),
    max_size=6,
)


@brief
@given(values | large, st.lists(st.integers(0, 30_000), max_size=30))
def test_any_pieces_give_what_the_whole_gives(value: Any, cuts: list[int]) -> None:
    data = encode_value(value).pack()
    reader = read(data, *(cut for cut in cuts if cut < len(data)))
    assert reader.done and reader.received == len(data)
    assert same(value, decode_parts(*reader.parts()))


def test_single_bytes_will_do() -> None:
    for value in (1, [bytes(4096), np.arange(300.0), bytes(5000)], [bytes(4096)] * 300):
        data = encode_value(value).pack()
        reader = read(data, *range(min(len(data), 20_000)))
        assert same(value, decode_parts(*reader.parts()))


def test_bytes_are_handed_over_and_arrays_stay_writable() -> None:
    data = encode_value([b"x" * 5000, np.zeros(1000)]).pack()
    header, buffers = read(data).parts()
    assert [type(buffer) for buffer in buffers] == [bytes, memoryview]
    value: Any = decode_parts(header, buffers)
    text, array = value
    assert text is buffers[0]
    buffers[1][7] = 0x40
    assert array[0] == 2.0


def preamble(*lengths: int, header: int = 1, count: int | None = None) -> bytes:
    count = len(lengths) if count is None else count
    number = bytes([count]) if count < 255 else b"\xff" + struct.pack(">I", count)
    return number + struct.pack(f">{len(lengths)}QI", *lengths, header)


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (0, b""),
        (5, b""),
        (6, b"\x00\x00\x00\x00\x00"),
        (6, preamble(header=2)),
        (7, preamble(header=1)),
        (HEADER_MAX + 6, preamble(header=HEADER_MAX + 1)),
        (5 + 8 + 1 + 1023, preamble(1023)),
        (5 + 8 + 1, preamble(0)),
        (5 + 8 + 1, preamble(BYTES_FLAG)),
        (5000, preamble((1 << 64) - 1)),
        (5000, preamble(BYTES_FLAG - 1, 14 + 16)),
        (5000, preamble(1024, count=254)),
        (MIB, b"\xff\x00\x00\x00\x05"),
        (1 << 36, b"\xff" + struct.pack(">I", BUFFERS_MAX + 1)),
        (1 << 36, b"\xff\xff\xff\xff\xff"),
    ],
)
def test_a_preamble_that_does_not_fit_is_refused_at_once(size: int, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ValueReader(size).feed(data)


def test_more_than_announced_is_refused() -> None:
    data = encode_value([1] * 50).pack()
    reader = read(data)
    with pytest.raises(RemoteProtocolError, match="more than"):
        reader.feed(b"x")
    with pytest.raises(RemoteProtocolError, match="more than"):
        ValueReader(len(data)).feed(data + b"x")


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x00\x05", encode_value([bytes(5000)]).pack()[:-1]])
def test_a_whole_that_is_cut_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_packed(data)


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("flag", [0, BYTES_FLAG], ids=["array", "bytes"])
def test_memory_is_taken_as_bytes_arrive(flag: int) -> None:
    """Ten values of 1 GiB each are announced, and 1 MiB of each is sent."""
    before = resident()
    readers = []
    for _ in range(10):
        reader = ValueReader((1 << 30) + 14)
        reader.feed(preamble((1 << 30) | flag) + b"\x00" + bytes(MIB))
        readers.append(reader)
    assert resident() - before < 40 * MIB


@pytest.mark.parametrize("value", [b"\x01" * (64 * MIB), np.ones(8 * MIB)], ids=["bytes", "array"])
def test_a_large_value_is_held_once(value: Any) -> None:
    encoded = encode_value(value)
    before = resident()
    reader = ValueReader(encoded.size)
    for part in encoded.parts():
        for at in range(0, len(part), 65536):
            reader.feed(part[at : at + 65536])
    got: Any = decode_parts(*reader.parts())
    del reader
    assert resident() - before < 66 * MIB
    assert same(value, got)


def test_a_reader_that_was_read_holds_nothing() -> None:
    reader = read(encode_value([bytes(5000), "x"]).pack())
    header, buffers = reader.parts()
    assert header and len(buffers) == 1 and not reader._buffers


@brief
@given(large, st.lists(st.tuples(st.booleans(), st.integers(500, 20_000)), min_size=1, max_size=20))
def test_bytes_that_are_written_where_they_stay_count_as_fed(value: Any, steps: list[tuple[bool, int]]) -> None:
    data = encode_value(value).pack()
    reader = ValueReader(len(data))
    number = 0
    while not reader.done:
        direct, size = steps[number % len(steps)]
        number += 1
        room = reader.room() if direct else None
        rest = data[reader.received :][:size]
        if room is None:
            reader.feed(rest)
            continue
        with room:
            rest = rest[: len(room)]
            room[: len(rest)] = rest
        reader.filled(len(rest))
    assert reader.room() is None and reader.received == len(data)
    assert same(value, decode_parts(*reader.parts()))


def test_there_is_no_room_before_the_lengths_are_known() -> None:
    data = encode_value(bytes(5000)).pack()
    reader = ValueReader(len(data))
    assert reader.room() is None
    while reader.room() is None:
        reader.feed(data[reader.received :][:1])
    assert reader.received == len(data) - 5000
