"""The msgpack bodies: Go's bytes, Go's tolerance, and bounds that Go has not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import LocalProtocolError, RemoteProtocolError, WireMismatch
from mycorrizal._wire import messages as m
from mycorrizal._wire.body import IncompleteError
from mycorrizal._wire.limits import BODY_DEPTH_MAX, BODY_ITEMS_MAX
from mycorrizal._wire.msgpack import MsgpackCodec, pack, unpack

from .strategies import BODY_CLASSES, bodies, brief, rough

codec = MsgpackCodec()


def ack(payload: str, seq_no: str = "2a") -> bytes:
    return bytes.fromhex("82a55365714e6f" + seq_no + "a75061796c6f6164" + payload)


# -- round trips ----------------------------------------------------------------------


@brief
@given(bodies(), st.binary(max_size=5))
def test_round_trip(body: Any, rest: bytes) -> None:
    data = codec.encode(body)
    assert codec.decode(type(body), data + rest) == (body, len(data))
    assert codec.decode(type(body), b"\x04" + data, 1) == (body, len(data) + 1)


@brief
@given(bodies())
def test_a_cut_body_is_incomplete_and_says_how_much_is_needed(body: Any) -> None:
    data = codec.encode(body)
    for size in range(len(data)):
        with pytest.raises(IncompleteError) as caught:
            codec.decode(type(body), data[:size])
        assert size < caught.value.needed <= len(data)


@brief
@given(st.sampled_from(BODY_CLASSES), rough(bodies().map(codec.encode)))
def test_any_bytes_decode_or_are_refused(cls: Any, data: bytes) -> None:
    try:
        body, end = codec.decode(cls, data)
    except RemoteProtocolError:
        return
    assert 0 < end <= len(data)
    assert codec.decode(cls, codec.encode(body))[0].FIELDS == body.FIELDS


# -- widths ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hexed"),
    [(0, "00"), (127, "7f"), (128, "cc80"), (255, "ccff"), (256, "cd0100"), (65535, "cdffff"), (65536, "ce00010000")],
)
def test_unsigned_fields_are_as_short_as_can_be(value: int, hexed: str) -> None:
    assert codec.encode(m.NackResp(value)).hex() == "81a55365714e6f" + hexed


@pytest.mark.parametrize(
    ("value", "hexed"),
    [
        *((-1, "ff"), (-32, "e0"), (-33, "d0df"), (-128, "d080"), (-129, "d1ff7f"), (127, "7f"), (128, "d10080")),
        *((32767, "d17fff"), (32768, "d200008000"), (-(1 << 31), "d280000000"), (1 << 31, "d30000000080000000")),
    ],
)
def test_signed_fields_stay_in_the_signed_family(value: int, hexed: str) -> None:
    body = m.UserMsgHeader(value)
    assert codec.encode(body).hex() == "81aa557365724d73674c656e" + hexed
    assert codec.decode(m.UserMsgHeader, codec.encode(body))[0] == body


@pytest.mark.parametrize(
    ("size", "head"), [(31, "bf"), (32, "da0020"), (255, "da00ff"), (65535, "daffff"), (65536, "db00010000")]
)
def test_text_and_bytes_are_raw(size: int, head: str) -> None:
    assert codec.encode(m.Err("x" * size)).hex() == "81a54572726f72" + head + "78" * size
    assert codec.decode(m.Err, codec.encode(m.Err("x" * size)))[0].error == "x" * size


def test_integers_out_of_range_are_our_own_mistake() -> None:
    for body in (m.NackResp(1 << 32), m.NackResp(-1), m.Alive(port=65536), m.UserMsgHeader(1 << 63)):
        with pytest.raises(LocalProtocolError, match="is not in"):
            codec.encode(body)


def test_text_that_no_peer_can_have_sent_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="cannot be written"):
        codec.encode(m.Err("\ud800"))


def test_a_foreign_name_comes_out_as_it_came_in() -> None:
    data = bytes.fromhex("81a54572726f72a4ff00fe41")
    body, _ = codec.decode(m.Err, data)
    assert codec.encode(body) == data


# -- tolerance ------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ["c403", "c50003", "c600000003", "d903", "da0003", "db00000003", "a3"])
def test_every_marker_of_bytes_is_read(marker: str) -> None:
    assert codec.decode(m.AckResp, ack(marker + "616263"))[0] == m.AckResp(42, b"abc")
    assert codec.decode(m.Err, bytes.fromhex("81a54572726f72" + marker + "616263"))[0] == m.Err("abc")


@pytest.mark.parametrize("count", ["93", "dc0003", "dd00000003"])
def test_bytes_may_come_as_an_array(count: str) -> None:
    assert codec.decode(m.AckResp, ack(count + "01cc80ccff"))[0].payload == b"\x01\x80\xff"


@pytest.mark.parametrize("payload", ["91cd0100", "91ff", "91a161", "dc0101" + "00" * 257, "81a16101", "01", "c3", "c1"])
def test_what_is_no_byte_string_is_refused(payload: str) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(m.AckResp, ack(payload))


@pytest.mark.parametrize("hexed", ["00", "01", "c2", "c3", "c0"])
def test_booleans(hexed: str) -> None:
    body, _ = codec.decode(m.PushPullHeader, bytes.fromhex("81a44a6f696e" + hexed))
    assert body.join is (hexed in ("01", "c3"))


def test_nil_is_zero_for_a_field_and_for_the_whole() -> None:
    data = bytes.fromhex("83ab496e6361726e6174696f6ec0a44e6f6465c0d90446726f6dc0")
    assert codec.decode(m.Suspect, data) == (m.Suspect(), len(data))
    assert codec.decode(m.Alive, b"\xc0\xff") == (m.Alive(), 1)


@pytest.mark.parametrize("value", ["ff", "d0ff", "cf0000000100000000", "cb4045000000000000", "a161", "c3"])
def test_what_is_no_unsigned_number_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match="SeqNo"):
        codec.decode(m.NackResp, bytes.fromhex("81a55365714e6f" + value))


@pytest.mark.parametrize("value", ["02", "ff", "cc01", "a0"])
def test_what_is_no_boolean_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match="no boolean"):
        codec.decode(m.PushPullHeader, bytes.fromhex("81a44a6f696e" + value))


@pytest.mark.parametrize("first", [0x00, 0xC1, 0xC2, 0xCC, 0xD9, 0xE0])
def test_what_is_no_body_is_refused(first: int) -> None:
    with pytest.raises(RemoteProtocolError, match="should start"):
        codec.decode(m.NackResp, bytes((first, 0, 0)))


@pytest.mark.parametrize("head", ["83", "de0003", "df00000003"])
def test_maps_of_any_width(head: str) -> None:
    data = bytes.fromhex(head + "a34e657881c0c0a55365714e6f2aa0c2")
    with pytest.raises(RemoteProtocolError, match="key should be"):
        codec.decode(m.NackResp, bytes.fromhex(head + "01"))
    with pytest.raises(RemoteProtocolError):
        codec.decode(m.NackResp, data[:-1] + b"\xc1")
    assert codec.decode(m.NackResp, data)[0] == m.NackResp(42)


@pytest.mark.parametrize("head", ["94", "dc0004", "dd00000004"])
def test_a_body_may_come_as_an_array(head: str) -> None:
    data = bytes.fromhex(head + "07a26161a161" + "8101c0")
    assert codec.decode(m.Suspect, data) == (m.Suspect(7, "aa", "a"), len(data))
    assert codec.decode(m.Suspect, bytes.fromhex("9107"))[0] == m.Suspect(7)


SKIPPED = [
    *"c0 c2 c3 00 7f e0 ff cc01 cd0001 ce00000001 cf0000000000000001 d001 d10001 d200000001 d30000000000000001".split(),
    *"ca00000000 cb0000000000000000 a161 d90161 da000161 db0000000161 c40161 c5000161 c60000000161".split(),
    *"d40100 d5010000 d60100000000 c702016161 c80002016161 c9000000020161ff".split(),
    *"91a161 dc0001a161 dd00000001a161 81a16101 de0001a16101 df00000001a16101 90 80 9281a1619100c0".split(),
]


@pytest.mark.parametrize("value", SKIPPED)
def test_unknown_keys_are_skipped_with_their_value(value: str) -> None:
    data = bytes.fromhex("82a3666f6f" + value + "a55365714e6f2a")
    assert codec.decode(m.NackResp, data) == (m.NackResp(42), len(data))
    for size in range(len(data)):
        with pytest.raises(IncompleteError):
            codec.decode(m.NackResp, data[:size])


# -- bounds ---------------------------------------------------------------------------


def test_deep_nesting_is_refused_without_recursion() -> None:
    for depth, good in ((BODY_DEPTH_MAX - 1, True), (BODY_DEPTH_MAX + 1, False), (100_000, False)):
        data = bytes.fromhex("82a3666f6f") + b"\x91" * depth + b"\xc0" + bytes.fromhex("a55365714e6f2a")
        if good:
            assert codec.decode(m.NackResp, data)[0] == m.NackResp(42)
        else:
            with pytest.raises(RemoteProtocolError, match="deeper|more than"):
                codec.decode(m.NackResp, data)


def test_many_unknown_values_are_refused_before_they_are_walked() -> None:
    many = BODY_ITEMS_MAX + 1
    wide = b"\xdc" + many.to_bytes(2, "big") + b"\xc0" * many
    for data in (b"\x81\xa1x" + wide, b"\x82" + (b"\xa1x\xdc\x00\x80" + b"\xc0" * 128) * 2 + b"\xa1y" + wide):
        with pytest.raises(RemoteProtocolError, match="unknown keys"):
            codec.decode(m.NackResp, data)
    with pytest.raises(RemoteProtocolError, match="unknown keys"):
        codec.decode(m.NackResp, b"\x92\x01" + b"\x98" + (b"\xdc\x00\x40" + b"\xc0" * 64) * 8)
    with pytest.raises(RemoteProtocolError, match="unknown keys"):
        codec.decode(m.NackResp, b"\xde\x01\x00" + (b"\xa1x\x91\xc0" * 256))
    with pytest.raises(RemoteProtocolError, match="map of"):
        codec.decode(m.NackResp, b"\xdf\xff\xff\xff\xff")
    with pytest.raises(RemoteProtocolError, match="array of"):
        codec.decode(m.NackResp, b"\xdd\xff\xff\xff\xff")


@pytest.mark.parametrize("first", range(0xA0, 0xC0))
def test_a_cbor_map_is_named_as_such(first: int) -> None:
    with pytest.raises(WireMismatch, match="wire='cbor'"):
        codec.decode(m.Ping, bytes((first, 0)))


# -- plain values ------------------------------------------------------------------------

values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1)),
        *(st.floats(allow_nan=False), st.binary(max_size=40)),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=40), inner, max_size=4),
    max_leaves=20,
)


@brief
@given(values, st.binary(max_size=3))
def test_plain_values_round_trip(value: Any, rest: bytes) -> None:
    data = pack(value)
    assert unpack(data + rest) == (value, len(data))


@brief
@given(rough(values.map(pack)))
def test_any_bytes_unpack_or_are_refused(data: bytes) -> None:
    try:
        _, end = unpack(data)
    except RemoteProtocolError:
        return
    assert 0 < end <= len(data)


def test_plain_values_are_in_the_old_style() -> None:
    assert pack({"b": "x" * 40, "a": (1, -1, 200), b"A": None}).hex() == (
        "83a141c0a161" + "9301ffccc8" + "a162da0028" + "78" * 40
    )
    assert pack([0] * 16).hex() == "dc0010" + "00" * 16
    assert pack([0] * 65536)[:5].hex() == "dd00010000"
    assert pack(bytearray(b"x")) == pack(memoryview(b"x")) == b"\xa1x"


@pytest.mark.parametrize("value", [object(), {1: 2}, 1 << 64, -(1 << 63) - 1, "\ud800", {1, 2}])
def test_what_cannot_be_packed(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        pack(value)


def test_packing_and_unpacking_are_bounded() -> None:
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    with pytest.raises(LocalProtocolError, match="deeper"):
        pack(nested)
    for data in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x92" + b"\xdc\x80\x00" * 3):
        with pytest.raises(RemoteProtocolError):
            unpack(data)
    with pytest.raises(RemoteProtocolError, match="too many"):
        unpack(pack([[1, 2], [3, 4]]), items=6)
    with pytest.raises(RemoteProtocolError, match="too many"):
        unpack(b"\x01", items=0)
    assert unpack(pack([[1, 2], [3, 4]]), items=7)[0] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("hexed", "value"),
    [
        *(("ca3fc00000", 1.5), ("d6ff01020304", b"\1\2\3\4"), ("c702056162", b"ab")),
        *(("81d90161c3", {b"a": True}), ("82a16101a16102", {b"a": 2})),
    ],
)
def test_unpacking_what_we_do_not_write(hexed: str, value: object) -> None:
    data = bytes.fromhex(hexed)
    assert unpack(data) == (value, len(data))
    for size in range(len(data)):
        with pytest.raises(IncompleteError):
            unpack(data[:size])


@pytest.mark.parametrize("hexed", ["c1", "8101c0", "81c0c0"])
def test_unpacking_nonsense(hexed: str) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(bytes.fromhex(hexed))
