"""The data plane's frames: round trips, refusals, and any chunking of a lane."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._wire import frames
from mycorrizal._wire.frames import (
    FORMAT,
    FRAME_MAX,
    HANDSHAKE_MAX,
    Challenge,
    Close,
    Frame,
    LaneReader,
    Limits,
    Proof,
    Status,
    StreamHead,
    Welcome,
    frame,
    only_frame,
    stream_head,
)
from mycorrizal.exceptions import RemoteProtocolError

LIMITS = Limits(64, 1 << 20, 1024, 1 << 30)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=12),
    st.lists(st.integers(1, 400), min_size=1, max_size=9),
)
def test_lane_in_any_pieces(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(frame(kind, body) for kind, body in sent)
    reader, at, step = LaneReader(), 0, 0
    found: list[tuple[int, bytes]] = []
    while at < len(data):
        size = sizes[step % len(sizes)]
        found += reader.feed(data[at : at + size])
        at, step = at + size, step + 1
    assert found == sent


def test_lane_limits() -> None:
    reader = LaneReader()
    assert list(reader.feed(frame(1, bytes(HANDSHAKE_MAX - 1)))) == [(1, bytes(HANDSHAKE_MAX - 1))]
    with pytest.raises(RemoteProtocolError):
        list(reader.feed(frame(1, bytes(HANDSHAKE_MAX))))
    reader = LaneReader()
    found = []
    for kind, body in reader.feed(frame(1, b"") + frame(2, bytes(HANDSHAKE_MAX))):
        reader.limit = FRAME_MAX  # what is allowed may change in the middle
        found.append((kind, len(body)))
    assert found == [(1, 0), (2, HANDSHAKE_MAX)]
    with pytest.raises(RemoteProtocolError):
        list(LaneReader().feed(bytes(5)))


def test_lane_that_is_left_in_the_middle_goes_on_there() -> None:
    reader = LaneReader()
    for kind, _ in reader.feed(frame(1, b"a") + frame(2, b"b")):
        assert kind == 1
        break
    assert list(reader.feed(b"")) == [(2, b"b")]


def test_the_longest_head_is_taken_and_the_next_is_not() -> None:
    assert StreamHead().feed(stream_head(1, bytes(511))) == (1, bytes(511), b"")
    with pytest.raises(RemoteProtocolError):
        StreamHead().feed(stream_head(1, bytes(512)))


@given(st.integers(0, 255), st.binary(max_size=300), st.none() | st.integers(0, 1 << 63), st.binary(max_size=50))
def test_head_byte_by_byte(kind: int, body: bytes, size: int | None, rest: bytes) -> None:
    head = StreamHead()
    data = stream_head(kind, body, size)
    for byte in data[:-1]:
        assert head.feed(bytes((byte,))) is None
    assert head.feed(data[-1:] + rest) == (kind, body + (b"" if size is None else size.to_bytes(8, "big")), rest)


@pytest.mark.parametrize("data", [b"\0\0", b"\x02\x01", b"\xff\xff"])
def test_heads_of_no_length_and_too_long(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        StreamHead().feed(data)


@given(st.binary(min_size=32, max_size=32), names, st.binary(min_size=8, max_size=8), st.binary(max_size=500))
def test_handshake_round_trip(nonce: bytes, name: str, boot: bytes, proof: bytes) -> None:
    sent: list[Any] = [
        Challenge(nonce, name, boot, proof, LIMITS),
        Proof(nonce, name, boot, proof, LIMITS, 1 << 40),
        Welcome(proof, (1 << 64) - 1),
    ]
    for message in sent:
        ((kind, body),) = LaneReader().feed(message.pack())
        assert type(message).parse(body) == message
        assert type(message).parse(body + b"\x00\x01x") == message  # a later version may add fields
        assert kind == Frame[type(message).__name__.upper()]
        without = len(body) if kind == Frame.WELCOME else len(body) - 4  # before the format, which the oldest lacks
        for cut in range(len(body)):
            if cut == without:
                assert type(message).parse(body[:cut]) == message._replace(format=1)
                continue
            with pytest.raises(RemoteProtocolError):
                type(message).parse(body[:cut])


@given(st.binary(max_size=400))
def test_garbage_raises_one_error(data: bytes) -> None:
    parsers = (
        *(Challenge.parse, Proof.parse, Welcome.parse, frames.parse_sequence, frames.parse_request),
        *(frames.parse_response, frames.parse_grant, frames.parse_id, frames.parse_open, StreamHead().feed),
        lambda raw: list(LaneReader().feed(raw)),
    )
    for parse in parsers:
        try:
            parse(data)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize("limits", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 0)])
def test_limits_of_zero(limits: tuple[int, int, int, int]) -> None:
    ((_, body),) = LaneReader().feed(Challenge(bytes(32), "a", bytes(8), b"", Limits(*limits)).pack())
    with pytest.raises(RemoteProtocolError):
        Challenge.parse(body)


def test_names() -> None:
    assert frames.parse_open(frames.name_field("x" * 255)) == "x" * 255
    for name in ("", "x" * 256, "é" * 128):
        with pytest.raises(ValueError, match="255"):
            frames.name_field(name)
    with pytest.raises(RemoteProtocolError):
        frames.parse_open(b"")


def test_bodies() -> None:
    body = frames.request_body(7, 1500, 3) + frames.name_field("echo") + b"value"
    assert frames.parse_request(body) == (7, 1500, 3, "echo", 15)
    assert frames.parse_response(frames.response_body(7, Status.BUSY) + b"v") == (7, Status.BUSY)
    assert frames.parse_grant(frames.grant_body(4, 1 << 62)) == (4, 1 << 62)
    assert frames.parse_id(frames.id_body(9)) == 9
    assert frames.parse_sequence(frames.message_body(1 << 60)) == 1 << 60


@pytest.mark.parametrize("status", Status)
def test_every_status_is_read_and_no_other(status: Status) -> None:
    assert frames.parse_response(frames.response_body(1, status)) == (1, status)
    with pytest.raises(RemoteProtocolError):
        frames.parse_response(frames.response_body(1, len(Status)))


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_request_that_is_cut_before_its_value_is_refused(cut: int) -> None:
    body = frames.request_body(7, 1500, 3) + frames.name_field("echo")
    assert frames.parse_request(body) == (7, 1500, 3, "echo", 15)
    with pytest.raises(RemoteProtocolError):
        frames.parse_request(body[:-cut])


LIMITS = Limits(1, 1, 1, 1)
WHO = (bytes(32), "a", bytes(8), b"proof", LIMITS)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, bytes(31)), (0, bytes(33)), (1, ""), (1, "n" * 256), (2, bytes(7)), (2, bytes(9))]
    + [(4, LIMITS._replace(**{name: 0})) for name in Limits._fields],
)
def test_each_field_of_a_handshake_is_checked(place: int, value: object) -> None:
    fields = [*WHO[:place], value, *WHO[place + 1 :]]
    made: tuple[Any, ...] = Challenge._make([*fields, FORMAT]), Proof._make([*fields, 0, FORMAT])
    for message in made:
        ((_, body),) = LaneReader().feed(message.pack())
        with pytest.raises(RemoteProtocolError):
            type(message).parse(body)


def test_a_handshake_with_the_longest_name_is_taken() -> None:
    message = Challenge(bytes(32), "n" * 255, bytes(8), b"proof", LIMITS)
    ((_, body),) = LaneReader().feed(message.pack())
    assert Challenge.parse(body) == message


def test_codes_are_none_of_the_transports() -> None:
    """A transport error of the peer (RFC 9000 §20.1, TLS alerts 0x100 to 0x1ff) must not look like a reason of ours."""
    assert all(code > 0x1FF for code in Close)


def test_one_frame_is_told_from_less_and_more() -> None:
    whole = frame(Frame.CANCEL, b"1234")
    assert only_frame(whole) == (Frame.CANCEL, b"1234")
    assert [only_frame(data) for data in (b"", whole[:-1], whole + b"x", whole + whole)] == [None] * 4
    reader = LaneReader()
    assert reader.between and list(reader.feed(whole[:7])) == [] and not reader.between
