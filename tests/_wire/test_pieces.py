"""Pieces of streams on a socket: however the bytes are cut, what arrives is what was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._wire.pieces import (
    BODY_MAX,
    HEAD_SIZE,
    Hello,
    Piece,
    PieceReader,
    code_piece,
    only_data,
    parse_close,
    parse_code,
    piece_head,
)
from mycorrizal.exceptions import RemoteProtocolError

HELLO = Hello(bytes(32), b"bootboot", bytes(range(32)), "::1", 7947)
BODIES = st.lists(st.tuples(st.sampled_from([2, 3, 6]), st.binary(max_size=40)), max_size=6)


def piece(stream: int, data: bytes, kind: Piece = Piece.DATA) -> bytes:
    return piece_head(kind, stream, len(data)) + data


def read(parts: list[bytes]) -> list[tuple[int, int, bytes]]:
    reader = PieceReader()
    return [found for part in parts for found in reader.feed(part)]


@given(BODIES, st.lists(st.integers(1, 30), min_size=1))
def test_streams_arrive_in_order_however_they_are_cut(bodies: list[tuple[int, bytes]], sizes: list[int]) -> None:
    sent = b""
    for stream, data in bodies:
        sent += piece(stream, data) + piece(stream, b"", Piece.LAST) + code_piece(Piece.STOP, stream, 9)
    parts: list[bytes] = []
    at = 0
    while at < len(sent):
        size = sizes[len(parts) % len(sizes)]
        parts.append(sent[at : at + size])
        at += size
    found = read(parts)
    for number in (2, 3, 6):
        whole = b"".join(body for kind, stream, body in found if stream == number and kind in (Piece.DATA, Piece.LAST))
        assert whole == b"".join(data for stream, data in bodies if stream == number)
    for kind in (Piece.LAST, Piece.STOP):
        assert [stream for got, stream, _ in found if got == kind] == [stream for stream, _ in bodies]


def test_a_large_piece_is_not_held_back() -> None:
    reader = PieceReader()
    data = piece(6, bytes(1 << 20), Piece.LAST)
    assert [len(body) for _, _, body in reader.feed(data[:1000])] == [1000 - 13]
    assert [kind for kind, _, _ in reader.feed(data[1000:])] == [Piece.LAST]


def test_hello_and_close_say_what_was_said() -> None:
    ((kind, _, body),) = read([HELLO.pack()])
    assert kind == Piece.HELLO and Hello.parse(body) == HELLO
    ((_, _, body),) = read([code_piece(Piece.CLOSE, 0, 0x6D01, "idle \ud800" + "x" * 1000)])
    code, reason = parse_close(body)
    assert code == 0x6D01 and reason.startswith("idle ?") and len(reason) == 256


@pytest.mark.parametrize(
    "data", [piece_head(0, 0, 0), piece_head(9, 0, 0), piece_head(Piece.CLOSE, 0, BODY_MAX + 1), b"\xff" * 13]
)
def test_what_is_no_piece_is_refused_before_it_is_kept(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read([data])


BODY = HELLO.pack()[13:]


@pytest.mark.parametrize("body", [b"", b"short", BODY.replace(b"myc host", b"myc hose"), BODY + b"\xff"])
def test_hellos_of_something_else_are_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Hello.parse(body)


@pytest.mark.parametrize("body", [b"", b"abc", b"abcde"])
def test_codes_have_four_bytes(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_code(body)


def test_bytes_of_a_piece_may_be_read_elsewhere() -> None:
    reader = PieceReader()
    data = piece(6, bytes(1000), Piece.LAST) + piece(3, b"next")
    assert reader.between and reader.pending[1] == 0
    assert [len(body) for _, _, body in reader.feed(data[:100])] == [100 - HEAD_SIZE]
    assert reader.pending == (6, 1000 + HEAD_SIZE - 100) and not reader.between
    assert not reader.skip(10)
    assert reader.skip(1000 + HEAD_SIZE - 110) and reader.between
    assert list(reader.feed(data[1000 + HEAD_SIZE :])) == [(Piece.DATA, 3, b"next")]
    list(reader.feed(b"\0"))
    assert not reader.between


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (piece(3, b"all"), (3, b"all")),
        (piece(3, b"all") + b"\0", None),
        (piece(3, b"all")[:-1], None),
        (piece(3, b"all", Piece.LAST), None),
        (b"", None),
    ],
)
def test_one_piece_of_a_stream_is_told_from_less_and_more(data: bytes, found: tuple[int, bytes] | None) -> None:
    assert only_data(data) == found
