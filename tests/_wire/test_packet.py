"""Datagrams: layers in order, bounds, and parts that fail alone. Go's own packets are in the vectors."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import Config, DecryptError, LabelMismatch, LocalProtocolError, RemoteProtocolError, WireMismatch
from mycorrizal._wire import limits
from mycorrizal._wire import messages as m
from mycorrizal._wire.compression import compress_message
from mycorrizal._wire.packet import PacketCodec, join_compound, split_compound
from mycorrizal._wire.security import Keyring
from tests.keys import key_of

from .strategies import brief, packet_messages, rough

KEY = key_of("k", 16)
Wire = Literal["cbor", "msgpack"]


def nonces() -> Callable[[], bytes]:
    counter = itertools.count()
    return lambda: next(counter).to_bytes(12, "big")


def packets(wire: Wire = "cbor", **settings: Any) -> PacketCodec:
    config = Config(name="node-a", wire=wire, **settings)
    return PacketCodec(config, Keyring.of(config), nonces())


settings_of = st.fixed_dictionaries(
    {
        "wire": st.sampled_from(["cbor", "msgpack"]),
        "label": st.sampled_from(["", "blah"]),
        "secret_key": st.sampled_from([None, KEY]),
        "protocol_version": st.sampled_from([1, 2]),
        "enable_compression": st.booleans(),
    }
)


@brief
@given(settings_of, st.lists(packet_messages(), max_size=6), st.booleans())
def test_round_trip(settings: dict[str, Any], messages: list[m.Message], crc: bool) -> None:
    codec = packets(**settings)
    datagrams = codec.seal([codec.encode(message) for message in messages], crc=crc)
    assert len(datagrams) == (1 if messages else 0)
    for datagram in datagrams:
        opened = codec.open(datagram)
        assert opened.messages == messages
        assert opened.rejected == []


def sealed(codec: PacketCodec, messages: list[m.Message]) -> bytes:
    return codec.seal([codec.encode(message) for message in messages], crc=True)[0]


@brief
@given(st.data())
def test_any_bytes_open_or_are_refused(data: st.DataObject) -> None:
    wire: Wire = data.draw(st.sampled_from(["cbor", "msgpack"]))
    codec = packets(wire, gossip_verify_incoming=False, secret_key=data.draw(st.sampled_from([None, KEY])))
    valid = st.builds(sealed, st.just(codec), st.lists(packet_messages(), min_size=1, max_size=4))
    try:
        opened = codec.open(data.draw(rough(valid)))
    except RemoteProtocolError:
        return
    assert len(opened.messages) + len(opened.rejected) <= limits.PACKET_PARTS_MAX


# -- sending ----------------------------------------------------------------------------


def test_more_than_255_parts_become_several_compounds() -> None:
    codec = packets(enable_compression=False)
    parts = [codec.encode(m.NackResp(n)) for n in range(600)]
    datagrams = codec.seal(parts, crc=False)
    assert [datagram[1] for datagram in datagrams] == [255, 255, 90]
    arrived = [message for datagram in datagrams for message in codec.open(datagram).messages]
    assert arrived == [m.NackResp(n) for n in range(600)]


def test_a_part_too_long_for_a_compound_goes_alone() -> None:
    codec = packets()
    long, short = b"\x08" + b"x" * 70_000, b"\x08y"
    assert [codec.open(d).messages for d in codec.seal([short, long, short], crc=False)] == [
        [m.User(long[1:])],
        [m.User(b"y"), m.User(b"y")],
    ]
    assert [codec.open(d).messages for d in codec.seal([short, long], crc=False)][1] == [m.User(b"y")]
    with pytest.raises(LocalProtocolError):
        join_compound([b""] * 256)


def test_a_part_as_long_as_a_compound_can_say_goes_once_and_in_one() -> None:
    codec = packets(enable_compression=False)
    longest, longer = b"\x08" + bytes(0xFFFE), b"\x08" + bytes(0xFFFF)
    for parts, packets_sent in (([longest, b"\x08"], 1), ([longer, b"\x08"], 2)):
        datagrams = codec.seal(parts, crc=False)
        assert len(datagrams) == packets_sent
        arrived = [message for datagram in datagrams for message in codec.open(datagram).messages]
        assert arrived == [m.User(part[1:]) for part in parts]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("label", ["", "blah", "grün"])
@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("outgoing", [True, False])
def test_overhead(version: int, label: str, key: bytes | None, outgoing: bool) -> None:
    codec = packets(protocol_version=version, label=label, secret_key=key, gossip_verify_outgoing=outgoing)
    encryption = (45 if version == 1 else 29) if key else 0
    labelled = 2 + len(label.encode()) if label else 0
    assert codec.overhead(gossip=True) == labelled + encryption
    assert codec.overhead(gossip=False) == labelled + (encryption if outgoing else 0)


def test_encryption_starts_and_stops_with_the_keyring() -> None:
    codec = packets()
    plain = codec.seal([b"\x08x"], crc=False)
    assert plain == [b"\x08x"]
    codec.keyring.add(KEY)
    assert codec.seal([b"\x08x"], crc=False)[0][0] == 1
    with pytest.raises(DecryptError):
        codec.open(plain[0])


# -- receiving: the whole is refused --------------------------------------------------------


def test_label_key_and_checksum_refuse_the_whole() -> None:
    with pytest.raises(LabelMismatch):
        packets().open(b"\xf4\x01a\x08x")
    with pytest.raises(LabelMismatch):
        packets(label="b").open(b"\xf4\x01a\x08x")
    with pytest.raises(DecryptError):
        packets(secret_key=KEY).open(packets(secret_key=key_of("o", 16)).seal([b"\x08x"], crc=False)[0])
    with pytest.raises(RemoteProtocolError, match="checksum"):
        packets().open(b"\x0c\0\0\0\0\x08x")


def test_plain_packets_are_taken_while_incoming_verification_is_off() -> None:
    codec = packets(secret_key=KEY, gossip_verify_incoming=False)
    assert codec.open(b"\x08x").messages == [m.User(b"x")]


# -- receiving: a part is refused -------------------------------------------------------------


def reasons(codec: PacketCodec, datagram: bytes) -> list[str]:
    return [str(error) for error in codec.open(datagram).rejected]


def test_a_bad_part_does_not_lose_the_others() -> None:
    codec = packets()
    opened = codec.open(join_compound([b"\x08a", b"", b"\x63", b"\x00\xff", b"\x08b"]))
    assert opened.messages == [m.User(b"a"), m.User(b"b")]
    assert len(opened.rejected) == 3


@pytest.mark.parametrize(
    ("datagram", "why"),
    [
        (b"", "no type byte"),
        (b"\x07", "number of parts"),
        (b"\x07\x80", "list of lengths"),
        (b"\x07\x02\x00\x01\x00\x05\x08", "1 parts lost"),
        (b"\x06\x80", "not supported"),
        (b"\x0d\xa0", "error message"),
        (b"\x0c\x00", "not supported"),
        (b"\x09\xa1dAlgo\x07", "unknown algorithm 7"),
        (b"\x09\xa0", "unexpected EOF"),
    ],
)
def test_reasons(datagram: bytes, why: str) -> None:
    assert any(why in reason for reason in reasons(packets(), datagram))


def test_a_message_of_the_other_codec_is_named_as_such() -> None:
    opened = packets("cbor").open(packets("msgpack").encode(m.Ping(1, "b")))
    assert isinstance(opened.rejected[0], WireMismatch)


def test_metadata_longer_than_allowed_is_refused() -> None:
    codec = packets()
    good, bad = codec.encode(m.Alive(meta=bytes(512))), codec.encode(m.Alive(meta=bytes(513)))
    assert len(codec.open(good).messages) == 1
    assert "metadata of 513 bytes" in reasons(codec, bad)[0]


# -- bounds -----------------------------------------------------------------------------


@pytest.mark.parametrize("compound", [True, False])
def test_nesting_is_bounded(compound: bool) -> None:
    codec = packets()

    def nested(depth: int) -> bytes:
        message = b"\x08x"
        for _ in range(depth):
            message = join_compound([message]) if compound else compress_message(codec.body, message)
        return message

    assert codec.open(nested(limits.PACKET_DEPTH_MAX)).messages == [m.User(b"x")]
    assert "nest deeper" in reasons(codec, nested(limits.PACKET_DEPTH_MAX + 1))[0]


def test_decompressed_bytes_are_bounded_for_the_packet_together() -> None:
    codec = packets()
    quarter = compress_message(codec.body, b"\x08" + bytes(limits.PACKET_DECOMPRESSED_MAX // 4 - 1))
    opened = codec.open(join_compound([quarter] * 5))
    assert len(opened.messages) == 4
    assert "decompressed bytes in a packet" in str(opened.rejected[0])


def test_a_part_that_cannot_be_decompressed_ends_decompressing() -> None:
    """Each try costs time, and a kept traceback would keep what was being decompressed."""
    codec = packets("msgpack")
    bomb = compress_message(codec.body, b"\x08" + bytes(limits.PACKET_DECOMPRESSED_MAX))
    opened = codec.open(join_compound([bomb, bomb, compress_message(codec.body, b"\x08x"), b"\x08y"]))
    assert opened.messages == [m.User(b"y")]
    assert ["larger than the limit" in str(error) for error in opened.rejected] == [True, False, False]
    assert [error.__traceback__ for error in opened.rejected] == [None] * 3


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_reason_that_is_kept_keeps_nothing_else_alive(wire: Any) -> None:
    codec = packets(wire)
    broken = [b"\x09" + b"\x08" * 40, b"\x09" + codec.body.encode(m.Compress(0, b"\x0f" * 40)), b"\x00\xa1\x01\x02"]
    for part in [*broken, b"\x09" + codec.body.encode(m.Compress(1, b"\x0f" * 40))]:
        [error] = codec.open(part).rejected
        assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


def test_metadata_of_the_most_that_is_allowed_are_taken() -> None:
    codec = packets()
    for size, taken in ((512, 1), (513, 0)):
        message = codec.encode(m.Alive(1, "a", bytes(4), 1, bytes(size), bytes(6)))
        assert len(codec.open(message).messages) == taken


def test_the_number_of_messages_is_bounded() -> None:
    codec = packets()
    inner = join_compound([b""] * 255)
    opened = codec.open(join_compound([inner] * 100))
    assert len(opened.rejected) <= limits.PACKET_PARTS_MAX + 100
    many = join_compound([join_compound([b"\x08"] * 255)] * 100)
    opened = codec.open(many)
    assert limits.PACKET_PARTS_MAX - 100 <= len(opened.messages) <= limits.PACKET_PARTS_MAX
    assert any("rest dropped" in str(error) for error in opened.rejected)


@brief
@given(st.lists(st.binary(max_size=20), max_size=255), st.binary(max_size=4))
def test_compounds_round_trip(parts: list[bytes], rest: bytes) -> None:
    joined = join_compound(parts)
    assert split_compound(joined[1:] + rest) == (parts, 0)


def test_the_checksum_stands_inside_the_encryption_and_covers_the_compressed_form() -> None:
    codec = packets(enable_compression=True)
    message = b"\x08" + b"again and " * 20
    out = codec.seal([message], crc=True)[0]
    kind, checksum = struct.unpack(">BI", out[:5])
    assert (kind, checksum) == (12, zlib.crc32(out[5:]))
    assert out[5] == 9


# -- numbered user messages -----------------------------------------------------------------

NUMBERED = m.User(b"data", b"12345678", 7, "bob \udcff")


def test_a_numbered_user_message_round_trips_beside_others() -> None:
    codec = packets(secret_key=KEY)
    messages = [m.User(b"plain"), NUMBERED, m.User(b"", b"12345678", 1 << 62)]
    (datagram,) = codec.seal([codec.encode(message) for message in messages], crc=True)
    assert codec.open(datagram).messages == messages


def test_an_unnumbered_user_message_is_memberlists() -> None:
    assert packets().encode(m.User(b"data")) == packets("msgpack").encode(m.User(b"data")) == b"\x08data"


def test_go_has_no_numbered_user_messages() -> None:
    codec = packets("msgpack", enable_compression=False)
    (datagram,) = codec.seal([codec.encode(NUMBERED)], crc=False)
    assert reasons(codec, datagram) == ["message type 200 is not supported here"]


@pytest.mark.parametrize(
    "bad", [m.User(b"x", b"short", 1), m.User(b"x", b"12345678", 0), m.User(b"x", b"12345678", -1)]
)
def test_a_bad_header_of_a_numbered_user_message_is_refused(bad: m.User) -> None:
    codec = packets(enable_compression=False)
    (datagram,) = codec.seal([codec.encode(bad)], crc=False)
    assert reasons(codec, datagram) == ["the header of a numbered user message is wrong"]
    cut = codec.encode(NUMBERED)[:-1]
    assert reasons(codec, cut) == ["the header of a numbered user message is wrong"]
