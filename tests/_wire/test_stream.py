"""Streams: both directions, in any pieces, cut anywhere, within bounds. Go's own streams are in the vectors."""

from __future__ import annotations

import itertools
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import (
    Config,
    DecryptError,
    LabelMismatch,
    LocalProtocolError,
    RemoteProtocolError,
    WireMismatch,
)
from mycorrizal._wire import limits
from mycorrizal._wire import messages as m
from mycorrizal._wire.compression import compress_message
from mycorrizal._wire.security import Keyring, encrypt_payload
from mycorrizal._wire.stream import StreamCodec, StreamReader
from tests.keys import key_of

from .strategies import bodies, bomb, brief, push_pulls, rough

KEY = key_of("k", 16)
Wire = Literal["cbor", "msgpack"]


def streams(wire: Wire = "cbor", **settings: Any) -> StreamCodec:
    config = Config(name="node-a", wire=wire, **settings)
    counter = itertools.count()
    return StreamCodec(config, Keyring.of(config), lambda: next(counter).to_bytes(12, "big"))


def plain(wire: Wire = "cbor", **settings: Any) -> StreamCodec:
    return streams(wire, enable_compression=False, **settings)


def error_text(codec: StreamCodec, reply: bytes | None) -> str:
    assert reply is not None
    message = codec.reader(answer=True).feed(reply)
    assert isinstance(message, m.Err)
    return message.error


def refusal(codec: StreamCodec, data: bytes) -> tuple[RemoteProtocolError, StreamReader]:
    """Return the error that `data`, and the end of the stream after it, meet."""
    reader = codec.reader(answer=False)
    try:
        assert reader.feed(data) is None
        reader.feed_eof()
    except RemoteProtocolError as error:
        return error, reader
    pytest.fail("not refused")


settings_of = st.fixed_dictionaries(
    {
        "wire": st.sampled_from(["cbor", "msgpack"]),
        "label": st.sampled_from(["", "blah"]),
        "secret_key": st.sampled_from([None, KEY]),
        "protocol_version": st.sampled_from([1, 2]),
        "enable_compression": st.booleans(),
        "gossip_verify_incoming": st.just(False),
    }
)
opening = push_pulls() | bodies(m.Ping) | st.builds(m.User, st.binary(max_size=300))
answers = push_pulls() | bodies(m.AckResp, m.Err)


@brief
@given(settings_of, st.data())
def test_round_trip_in_any_pieces(settings: dict[str, Any], data: st.DataObject) -> None:
    codec = streams(**settings)
    answer = data.draw(st.booleans())
    message = data.draw(answers if answer else opening)
    sent = codec.seal(message, answer=answer)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    pieces = [sent[a:b] for a, b in itertools.pairwise([0, *cuts, len(sent)])]
    reader = codec.reader(answer=answer)
    results = [reader.feed(piece) for piece in pieces]
    assert [result for result in results if result is not None] == [message]
    assert reader.wanted == 0
    assert reader.feed(b"surplus") is None
    reader.feed_eof()
    assert reader.reply is None


@brief
@given(settings_of, st.data())
def test_a_stream_cut_anywhere_is_refused_or_says_nothing(settings: dict[str, Any], data: st.DataObject) -> None:
    codec = streams(**settings)
    sent = codec.seal(data.draw(opening), answer=False)
    size = data.draw(st.integers(0, len(sent) - 1))
    reader = codec.reader(answer=False)
    # The broken end of a compressed message can be told from its first bytes only when the frame is whole.
    assert reader.feed(sent[:size]) is None
    assert 0 < reader.wanted <= len(sent) - size
    header = 2 + len(codec.label) if codec.label else 0
    if size in (0, header):
        reader.feed_eof()
    else:
        with pytest.raises(RemoteProtocolError, match="closed in the middle"):
            reader.feed_eof()
    assert reader.reply is None
    assert reader.wanted == 0


@brief
@given(settings_of, st.booleans(), st.data())
def test_any_bytes_read_or_are_refused(settings: dict[str, Any], answer: bool, data: st.DataObject) -> None:
    codec = streams(**settings)
    valid = st.builds(lambda message: codec.seal(message, answer=answer), answers if answer else opening)
    sent = data.draw(rough(valid))
    reader = codec.reader(answer=answer)
    step = data.draw(st.integers(1, 50))
    try:
        for at in range(0, len(sent), step):
            if reader.feed(sent[at : at + step]) is not None:
                return
        reader.feed_eof()
    except RemoteProtocolError:
        assert not (answer and reader.reply), "an answer is never answered"
        if reader.reply is not None:
            assert error_text(codec, reader.reply)


# -- what is answered, and what is not ---------------------------------------------------------


def test_the_answer_has_no_label_header_but_the_label_is_authenticated() -> None:
    ours, theirs = streams(label="a", secret_key=KEY), streams(label="b", secret_key=KEY)
    answer = ours.seal(m.AckResp(1), answer=True)
    assert answer[0] == m.MessageType.ENCRYPT
    assert ours.reader(answer=True).feed(answer) == m.AckResp(1)
    with pytest.raises(DecryptError):
        theirs.reader(answer=True).feed(answer)


@pytest.mark.parametrize("ours", ["", "b"])
def test_another_label_is_refused_in_silence(ours: str) -> None:
    error, reader = refusal(streams(label=ours), streams(label="a").seal(m.Ping(), answer=False))
    assert isinstance(error, LabelMismatch)
    assert reader.reply is None


def test_labels_that_a_front_end_removes() -> None:
    codec = streams(label="a", secret_key=KEY, skip_inbound_label_check=True)
    sent = codec.seal(m.Ping(7), answer=False)
    assert codec.reader(answer=False).feed(sent[3:]) == m.Ping(7)
    assert isinstance(refusal(codec, sent)[0], LabelMismatch)


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        (None, KEY, "remote state is encrypted and encryption is not configured"),
        (KEY, None, "encryption is configured but remote state is not encrypted"),
        (KEY, key_of("o", 16), "no installed keys could decrypt the message"),
    ],
)
def test_a_wrong_key_is_told_to_the_joiner(ours: bytes | None, theirs: bytes | None, text: str) -> None:
    codec = streams(secret_key=ours, gossip_verify_outgoing=False)
    joiner = streams(secret_key=theirs)
    error, reader = refusal(codec, joiner.seal(m.PushPull(join=True), answer=False))
    assert isinstance(error, DecryptError)
    assert str(error).startswith(text)
    assert error.hint
    assert error_text(plain(), reader.reply) == text


@pytest.mark.parametrize("message", [m.PushPull(join=True), m.Ping(1, "x"), m.User(b"x")])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), [("cbor", "msgpack"), ("msgpack", "cbor")])
def test_a_codec_mixed_up_is_one_clear_error_on_both_sides(
    ours: Wire, theirs: Wire, message: m.Message, compressed: bool
) -> None:
    joiner = streams(theirs, enable_compression=compressed)
    error, reader = refusal(streams(ours), joiner.seal(message, answer=False))
    assert isinstance(error, WireMismatch)
    assert reader.reply is not None
    with pytest.raises(WireMismatch, match=f"wire='{ours}'"):
        joiner.reader(answer=True).feed(reader.reply)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 99, 244])
def test_types_that_open_no_stream_are_refused_in_silence(kind: int) -> None:
    codec = plain("msgpack")
    compressed = compress_message(codec.body, bytes((kind, 0x80)))
    error, reader = refusal(codec, compressed)
    assert "does not open a stream" in str(error)
    assert reader.reply is None


@pytest.mark.parametrize("kind", [0, 1, 3, 8, 99])
def test_types_that_answer_nothing_are_refused(kind: int) -> None:
    reader = plain("msgpack").reader(answer=True)
    with pytest.raises(RemoteProtocolError, match="came back" if kind in (0, 8) else "does not answer a stream"):
        reader.feed(bytes((kind, 0x80)))


def test_an_empty_inside_of_a_frame_is_an_error() -> None:
    codec = plain(secret_key=KEY, gossip_verify_outgoing=False)
    header = b"\x0a" + (29).to_bytes(4, "big")
    _, reader = refusal(codec, header + encrypt_payload(1, KEY, b"", header, bytes(12)))
    assert error_text(plain(), reader.reply) == "decrypted message is empty"
    _, reader = refusal(plain(), compress_message(codec.body, b""))
    assert error_text(plain(), reader.reply) == "decompressed message is empty"


def test_a_message_cut_inside_a_whole_frame_is_refused_in_silence() -> None:
    codec = streams(secret_key=KEY)
    inside = plain().seal(m.PushPull((m.PushNodeState("a"),), b"state"), answer=False)
    for size in range(1, len(inside)):
        error, reader = refusal(streams(), compress_message(codec.body, inside[:size]))
        assert "cut" in str(error)
        assert reader.reply is None


# -- bounds --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        m.PushPullHeader(limits.PUSH_PULL_NODES_MAX + 1),
        m.PushPullHeader(-1),
        m.PushPullHeader(0, limits.USER_BYTES_MAX + 1),
        m.PushPullHeader(0, -1),
        m.UserMsgHeader(limits.USER_BYTES_MAX + 1),
        m.UserMsgHeader(-1),
    ],
)
@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_declared_sizes_are_checked_before_anything_is_read(wire: Wire, body: Any) -> None:
    codec = plain(wire)
    kind = b"\x08" if isinstance(body, m.UserMsgHeader) else b"\x06"
    error, reader = refusal(codec, kind + codec.body.encode(body))
    assert "is not in 0.." in str(error)
    assert reader.reply is None


def test_a_long_encrypted_frame_is_refused_before_it_is_read() -> None:
    codec = plain(secret_key=KEY, gossip_verify_outgoing=False)
    size = limits.ENCRYPTED_FRAME_MAX + 1
    _, reader = refusal(codec, b"\x0a" + size.to_bytes(4, "big"))
    assert error_text(plain(), reader.reply) == f"remote node state is larger than limit ({size})"
    waiting = codec.reader(answer=False)
    assert waiting.feed(b"\x0a" + (size - 1).to_bytes(4, "big")) is None
    assert waiting.wanted == size - 1


@pytest.mark.parametrize(("wire", "head"), [("msgpack", b"\x09\x81\xa3Buf\xdb"), ("cbor", b"\x09\xa1cBuf\x5a")])
def test_a_long_buf_is_refused_before_it_is_read(wire: Wire, head: bytes) -> None:
    error, _ = refusal(plain(wire), head + (limits.COMPRESSED_BUF_MAX + 1).to_bytes(4, "big"))
    assert "more than" in str(error)


def test_a_decompression_bomb_is_refused() -> None:
    codec = plain("msgpack")
    body = m.Compress(0, bomb(limits.DECOMPRESSED_MAX + 1))
    _, reader = refusal(codec, b"\x09" + codec.body.encode(body))
    assert "larger than the limit" in error_text(codec, reader.reply)


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_member_record_is_bounded(wire: Wire) -> None:
    codec = plain(wire)
    head = b"\x06" + codec.body.encode(m.PushPullHeader(3))
    small = codec.body.encode(m.PushNodeState("a"))
    large = codec.body.encode(m.PushNodeState("a" * limits.STREAM_BODY_MAX))
    for data in (head + large, head + small + large, head + small + large[:200]):
        assert "a member of more than" in str(refusal(codec, data)[0])


def test_member_records_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATE_BYTES_MAX", 1000)
    codec = plain()
    nodes = tuple(m.PushNodeState(f"node-{n}") for n in range(50))
    assert "members of more than" in str(refusal(codec, codec.seal(m.PushPull(nodes), answer=False))[0])


def test_a_member_with_too_long_metadata_loses_its_place_and_nobody_else() -> None:
    codec = streams()
    nodes = tuple(m.PushNodeState(f"node-{size}", meta=bytes(size)) for size in (0, 512, 513))
    reader = codec.reader(answer=False)
    message = reader.feed(codec.seal(m.PushPull(nodes, b"s"), answer=False))
    assert message == m.PushPull(nodes[:2], b"s")
    assert reader.dropped == 1


def test_what_receivers_refuse_is_not_sent() -> None:
    codec = plain(secret_key=KEY)
    for message in (
        m.User(bytes(limits.USER_BYTES_MAX + 1)),
        m.User(bytes(limits.USER_BYTES_MAX)),
        m.PushPull((), bytes(limits.USER_BYTES_MAX + 1)),
        m.PushPull((m.PushNodeState(),) * (limits.PUSH_PULL_NODES_MAX + 1)),
        m.Alive(),
    ):
        with pytest.raises(LocalProtocolError):
            codec.seal(message, answer=False)


def test_a_very_long_message_goes_uncompressed() -> None:
    codec = streams()
    message = m.User(bytes(limits.STREAM_COMPRESS_MAX))
    sent = codec.seal(message, answer=False)
    assert sent[0] == m.MessageType.USER
    assert codec.reader(answer=False).feed(sent) == message


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_the_cost_of_reading_is_linear_in_small_pieces(wire: Wire) -> None:
    codec = plain(wire)
    nodes = tuple(m.PushNodeState(f"node-{n}", b"\n\0\0\1", 7946, b"meta", n, 0, bytes(6)) for n in range(10_000))
    message = m.PushPull(nodes, bytes(2_000_000), True)
    sent = codec.seal(message, answer=False)
    reader = codec.reader(answer=False)
    began = time.process_time()
    result = None
    for at in range(0, len(sent), 100):
        result = reader.feed(sent[at : at + 100])
    assert result == message
    assert time.process_time() - began < 20


def trickle(reader: StreamReader, data: bytes) -> None:
    for at in range(len(data)):
        reader.feed(data[at : at + 1])


@pytest.mark.parametrize("data", [b"\xde\x01\x00" + b"\xa1x\x90" * 256, b"\x81\xa1x" + b"\x91" * 30 + b"\xc0"])
def test_unknown_values_that_trickle_in_cost_little(data: bytes) -> None:
    """Each byte makes us look again at what was there; there cannot be much."""
    reader = plain("msgpack").reader(answer=False)
    began = time.process_time()
    trickle(reader, b"\x06" + data)
    assert reader.wanted == 0
    assert time.process_time() - began < 10


# -- numbered user messages -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_numbered_user_message_round_trips_in_any_pieces(size: int) -> None:
    codec, message = streams(secret_key=KEY), m.User(bytes(size), b"12345678", 7, "bob")
    data = codec.seal(message, answer=False)
    for piece in (1 if size == 1 else 997, len(data)):
        reader = codec.reader(answer=False)
        found = [reader.feed(data[at : at + piece]) for at in range(0, len(data), piece)]
        assert found[-1] == message


def test_a_numbered_user_message_is_bounded_and_opens_a_stream_with_cbor_only() -> None:
    codec = plain()
    head = bytes([m.MessageType.NUMBERED])
    long = codec.body.encode(m.NumberedHeader(limits.USER_BYTES_MAX + 1, b"12345678", 1, ""))
    assert "a user message" in str(refusal(codec, head + long)[0])
    data = codec.seal(m.User(b"x", b"12345678", 1), answer=False)
    assert codec.reader(answer=False).feed(data) is not None
    with pytest.raises(RemoteProtocolError, match="message type 200 does not answer"):
        codec.reader(answer=True).feed(data)
    go = plain("msgpack")
    with pytest.raises(RemoteProtocolError, match="message type 200 does not open"):
        go.reader(answer=False).feed(go.seal(m.User(b"x", b"12345678", 1), answer=False))


def test_who_dialled_answers_no_error() -> None:
    """The other side has sent what was wrong, and reads no more."""
    ours, theirs = streams(secret_key=KEY), streams()
    data = theirs.seal(m.PushPull(()), answer=True)
    reader = ours.reader(answer=True)
    with pytest.raises(DecryptError):
        reader.feed(data)
    assert reader.reply is None
    other, same = streams("msgpack").seal(m.PushPull(()), answer=True), streams("cbor").reader(answer=True)
    with pytest.raises(RemoteProtocolError):
        same.feed(other)
    assert same.reply is None


def test_a_connection_that_is_closed_after_its_label_has_said_nothing() -> None:
    codec = streams(label="blah")
    head = codec.seal(m.Ping(1, "a"), answer=False)[: len("blah") + 2]
    reader = codec.reader(answer=False)
    assert reader.feed(head) is None
    reader.feed_eof()
    reader = codec.reader(answer=False)
    assert reader.feed(head + b"\x06") is None
    with pytest.raises(RemoteProtocolError, match="in the middle"):
        reader.feed_eof()


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_members_that_were_decoded_count_as_held_and_what_is_over_holds_nothing_else(wire: Wire) -> None:
    codec = plain(wire)
    nodes = tuple(m.PushNodeState(f"node-{n}") for n in range(3000))
    data = codec.seal(m.PushPull(nodes, b"state"), answer=False)
    reader = codec.reader(answer=False)
    assert reader.feed(data[:-3]) is None
    assert reader.held >= len(nodes) * limits.RECORD_BYTES
    assert reader.feed(data[-3:] + b"what follows") == m.PushPull(nodes, b"state")
    assert reader.held == len(nodes) * limits.RECORD_BYTES
    said = codec.reader(answer=False)
    assert said.feed(codec.seal(m.User(b"x"), answer=False) + b"what follows") == m.User(b"x") and said.held == 0


def test_a_small_table_of_ours_refuses_no_ordinary_one() -> None:
    codec = plain(max_nodes=1)
    head = b"\x06" + codec.body.encode(m.PushPullHeader(limits.PUSH_PULL_NODES_FLOOR))
    assert codec.reader(answer=False).feed(head) is None
    more = b"\x06" + codec.body.encode(m.PushPullHeader(limits.PUSH_PULL_NODES_FLOOR + 1))
    assert "nodes" in str(refusal(codec, more)[0])


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_member_of_exactly_the_bound_is_taken(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = plain(wire)
    size = len(codec.body.encode(m.PushNodeState("a" * 300)))
    data = codec.seal(m.PushPull((m.PushNodeState("a" * 300),)), answer=False)
    monkeypatch.setattr(limits, "STREAM_BODY_MAX", size)
    assert isinstance(codec.reader(answer=False).feed(data), m.PushPull)
    monkeypatch.setattr(limits, "STREAM_BODY_MAX", size - 1)
    assert "a member of more than" in str(refusal(codec, data)[0])
