"""Go's ``label_test.go``: the label header on packets and on streams."""

from __future__ import annotations

import pytest

from mycorrizal._wire.label import add_label, label_overhead, peel_label
from mycorrizal._wire.messages import Message, Ping
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.config import Config
from mycorrizal.exceptions import ConfigError, LabelMismatch, LocalProtocolError, RemoteProtocolError
from tests._swim.harness import nonces

KEY = bytes(range(16))
PING = Ping(7, "target")


def stream(label: str = "", *, key: bytes | None = None) -> StreamCodec:
    config = Config(name="self", label=label, secret_key=key, enable_compression=False, wire="msgpack")
    return StreamCodec(config, Keyring((), key), nonces(label))


def read(codec: StreamCodec, *chunks: bytes) -> Message | None:
    reader = codec.reader(answer=False)
    message = None
    for chunk in chunks:
        message = reader.feed(chunk) or message
    reader.feed_eof()
    return message


def test_AddLabelHeaderToPacket() -> None:
    assert add_label(b"", b"") == b""
    assert add_label(b"", b"something") == b"something"
    assert add_label(b"foo", b"") == b"\xf4\x03foo"
    assert add_label(b"foo", b"something") == b"\xf4\x03foosomething"
    assert add_label(b"x" * 255, b"something") == b"\xf4\xff" + b"x" * 255 + b"something"
    with pytest.raises(LocalProtocolError):
        add_label(b"x" * 256, b"something")
    with pytest.raises(ConfigError, match="label"):
        Config(label="x" * 256)


@pytest.mark.parametrize(
    ("packet", "label", "rest"),
    [
        (b"", b"", b""),
        (b"\x00blah", b"", b"\x00blah"),
        (b"\x0dblah", b"", b"\x0dblah"),
        (b"\x01blah", b"", b"\x01blah"),
        (b"\xf4\x03abc\x00blah", b"abc", b"\x00blah"),
        (b"\xf4\x03abc\x0dblah", b"abc", b"\x0dblah"),
        (b"\xf4\x03abc\x01blah", b"abc", b"\x01blah"),
        (b"\xf4\x03abc", b"abc", b""),
        (b"\xf4", None, b""),
        (b"\xf4\x01", None, b""),
        (b"\xf4\x02a", None, b""),
        (b"\xf4\x00", None, b""),
        (b"\xf4\x00\x00blah", None, b""),
    ],
)
def test_RemoveLabelHeaderFromPacket(packet: bytes, label: bytes | None, rest: bytes) -> None:
    if label is None:
        with pytest.raises(LabelMismatch):
            peel_label(packet)
    else:
        assert peel_label(packet) == (label, rest)


def test_AddLabelHeaderToStream() -> None:
    plain = stream().seal(PING, answer=False)
    assert plain[0] == Ping.TYPE, "no label, no header"
    assert stream("foo").seal(PING, answer=False) == b"\xf4\x03foo" + plain
    assert stream("x" * 255).seal(PING, answer=False) == b"\xf4\xff" + b"x" * 255 + plain
    assert stream("foo").seal(PING, answer=True) == plain, "an answer carries none"


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("label", ["", "abc", "x" * 255], ids=["none", "short", "long"])
def test_RemoveLabelHeaderFromStream(label: str, key: bytes | None) -> None:
    codec = stream(label, key=key)
    sealed = codec.seal(PING, answer=False)
    assert read(codec, sealed) == PING
    assert read(codec, *(bytes((byte,)) for byte in sealed)) == PING, "in whatever pieces it comes"

    for wrong in ("", "abc", "not it"):
        if wrong != label:
            reader = stream(wrong, key=key).reader(answer=False)
            with pytest.raises(LabelMismatch):
                reader.feed(sealed)
            assert reader.reply is None, "a wrong label is not answered"


@pytest.mark.parametrize("cut", [b"\xf4", b"\xf4\x02", b"\xf4\x02a"])
def test_a_stream_cut_inside_the_label_is_an_error(cut: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(stream("ab"), cut)


def test_an_empty_label_on_a_stream_is_an_error() -> None:
    with pytest.raises(LabelMismatch):
        read(stream(), b"\xf4\x00" + stream().seal(PING, answer=False))


def test_a_stream_closed_before_the_first_byte_is_no_error() -> None:
    assert read(stream("ab")) is None
    assert read(stream()) is None


def test_LabelOverhead() -> None:
    assert label_overhead(b"") == 0
    assert label_overhead(b"a") == 3
    assert label_overhead(b"x" * 255) == 257
