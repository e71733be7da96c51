"""Choice of codec, and messages in packet form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import LocalProtocolError, RemoteProtocolError, WireMismatch
from mycorrizal._wire import messages as m
from mycorrizal._wire.codec import BodyCodec, body_codec, decode_message, encode_message

from .strategies import brief, packet_messages, rough

codecs = st.sampled_from([body_codec("cbor"), body_codec("msgpack")])


@brief
@given(codecs, packet_messages() | st.builds(m.Err))
def test_round_trip(codec: BodyCodec, message: m.Message) -> None:
    data = encode_message(codec, message)
    assert data[0] == message.TYPE
    assert decode_message(codec, data) == message


@brief
@given(codecs, rough(st.builds(encode_message, codecs, packet_messages())))
def test_any_bytes_decode_or_are_refused(codec: BodyCodec, data: bytes) -> None:
    try:
        decode_message(codec, data)
    except RemoteProtocolError:
        pass


def test_names() -> None:
    assert [body_codec(name).name for name in ("cbor", "msgpack")] == ["cbor", "msgpack"]


@pytest.mark.parametrize(("ours", "theirs"), [("cbor", "msgpack"), ("msgpack", "cbor")])
def test_each_codec_knows_the_other_one(ours: str, theirs: str) -> None:
    messages: list[m.Message] = [m.Ping(1, "b"), m.IndirectPing(), m.AckResp(1), m.NackResp(1)]
    for message in [*messages, m.Err("x"), m.Suspect(), m.Dead(), m.Alive()]:
        with pytest.raises(WireMismatch, match=f"set wire='{theirs}' here or wire='{ours}' there"):
            decode_message(body_codec(ours), encode_message(body_codec(theirs), message))


def test_user_messages_are_raw() -> None:
    assert encode_message(body_codec("cbor"), m.User(b"\xff")) == b"\x08\xff"
    assert decode_message(body_codec("cbor"), b"\x08") == m.User(b"")


def test_bytes_after_a_body_are_ignored() -> None:
    for name in ("cbor", "msgpack"):
        codec = body_codec(name)
        assert decode_message(codec, encode_message(codec, m.NackResp(3)) + b"\xff\xff") == m.NackResp(3)


@pytest.mark.parametrize("data", [b"", *(bytes((kind, 0x80)) for kind in (6, 7, 9, 10, 12, 14, 99, 244))])
def test_what_is_no_message_of_a_packet(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no type byte|not supported"):
        decode_message(body_codec("msgpack"), data)


def test_a_push_pull_has_no_packet_form() -> None:
    with pytest.raises(LocalProtocolError):
        encode_message(body_codec("cbor"), m.PushPull())
