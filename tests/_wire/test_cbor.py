"""The CBOR bodies, and the guard that stands before cbor2."""

from __future__ import annotations

import time
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import LocalProtocolError, RemoteProtocolError, WireMismatch
from mycorrizal._wire import messages as m
from mycorrizal._wire.body import IncompleteError
from mycorrizal._wire.cbor import CborCodec
from mycorrizal._wire.limits import BODY_DEPTH_MAX, BODY_ITEMS_MAX

from .strategies import BODY_CLASSES, bodies, brief, rough

codec = CborCodec()


def refused(data: bytes, match: str | None = None, cls: Any = m.NackResp) -> None:
    with pytest.raises(RemoteProtocolError, match=match):
        codec.decode(cls, data)


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
        _, end = codec.decode(cls, data)
    except RemoteProtocolError:
        return
    assert 0 < end <= len(data)


# -- what bodies look like ---------------------------------------------------------------


def test_a_body_is_a_map_with_sorted_keys_and_without_empty_optional_fields() -> None:
    assert list(cbor2.loads(codec.encode(m.Alive()))) == ["Addr", "Incarnation", "Meta", "Node", "Port", "Vsn"]
    assert cbor2.loads(codec.encode(m.Ping(1, "b"))) == {"Node": "b", "SeqNo": 1}


def test_text_that_is_not_utf8_travels_as_bytes() -> None:
    name = b"\xffnode".decode("utf-8", "surrogateescape")
    data = codec.encode(m.Suspect(1, name, "a"))
    assert cbor2.loads(data) == {"From": "a", "Incarnation": 1, "Node": b"\xffnode"}
    assert codec.decode(m.Suspect, data)[0] == m.Suspect(1, name, "a")
    with pytest.raises(LocalProtocolError, match="cannot be written"):
        codec.encode(m.Err("\ud800"))


def test_none_and_empty_are_kept_apart() -> None:
    for payload in (None, b""):
        assert codec.decode(m.AckResp, codec.encode(m.AckResp(1, payload)))[0].payload == payload


def test_unknown_keys_are_ignored_and_missing_ones_are_zero() -> None:
    more = {"SeqNo": 7, "later": {"deep": [1, 2.5, None, b"x", {"y": True}]}, "x" * 100: "y" * 300, "n": -5}
    data = cbor2.dumps(more)
    assert codec.decode(m.NackResp, data) == (m.NackResp(7), len(data))
    assert codec.decode(m.NackResp, b"\xa0") == (m.NackResp(0), 1)
    assert codec.decode(m.NackResp, bytes.fromhex("b801655365714e6f07")) == (m.NackResp(7), 9)
    for size in range(len(data)):
        with pytest.raises(IncompleteError):
            codec.decode(m.NackResp, data[:size])


@pytest.mark.parametrize(
    ("cls", "key", "values"),
    [
        (m.NackResp, "SeqNo", [-1, 1 << 32, 1.0, True, None, "1", b"1", [1]]),
        (m.Alive, "Port", [65536, "x"]),
        (m.Compress, "Algo", [256]),
        (m.UserMsgHeader, "UserMsgLen", [1 << 63, -(1 << 63) - 1, None]),
        (m.PushPullHeader, "Join", [0, 1, None, "true"]),
        (m.Err, "Error", [1, None, ["x"]]),
        (m.AckResp, "Payload", ["text", 5, [1]]),
    ],
)
def test_wrong_types_and_ranges_are_refused(cls: Any, key: str, values: list[object]) -> None:
    for value in values:
        refused(cbor2.dumps({key: value}), cls=cls)


@pytest.mark.parametrize("first", [*range(0x80, 0xA0), 0xC0, *range(0xDC, 0xE0)])
def test_a_msgpack_map_is_named_as_such(first: int) -> None:
    with pytest.raises(WireMismatch, match="wire='msgpack'"):
        codec.decode(m.Ping, bytes((first, 0)))


def test_integers_out_of_range_are_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="is not in"):
        codec.encode(m.NackResp(1 << 32))


# -- traps of CBOR and cbor2 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("hexed", "what"),
    [
        ("a16178d81c81d81d00", "shared references that make a cycle"),
        ("a16178d8236428612b29", "a regular expression"),
        ("a16178c249" + "ff" * 9, "a big number"),
        ("a16178d9010281f4", "a set"),
        ("a16178c1fb7ff0000000000000", "a time"),
        ("a101a0", "an integer key"),
        ("a1417801", "a byte string as key"),
        ("a18001", "an array as key"),
        ("a16178a10101", "an integer key below"),
        ("bf6178f5ff", "a map of indefinite length"),
        ("a161789fff", "an array of indefinite length"),
        ("a161785f4161ff", "bytes of indefinite length"),
        ("a17f6178ff01", "a key of indefinite length"),
        ("a16178f8ff", "a simple value"),
        ("a16178f7", "undefined"),
        ("a16178fc", "a reserved head"),
        ("a161781c", "a reserved integer"),
        ("a161785c", "a reserved length"),
        ("a16178ff", "a break"),
        ("a162c32801", "a key that is not UTF-8"),
        ("a1617862c328", "text that is not UTF-8"),
        ("a2617801617802", "a duplicate key"),
        ("00", "no map"),
        ("f6", "null for the whole"),
    ],
)
def test_what_a_body_never_holds_is_refused(hexed: str, what: str) -> None:
    refused(bytes.fromhex(hexed))


@pytest.mark.parametrize("head", ["5b", "7b", "9b", "bb", "5a", "7a", "9a", "ba"])
@pytest.mark.parametrize("key", [True, False])
def test_huge_declared_lengths_cost_nothing(head: str, key: bool) -> None:
    began = time.process_time()
    refused(bytes.fromhex("a1" + ("" if key else "6178") + head + "ff" * 8))
    refused(bytes.fromhex(head + "ff" * 8))
    assert time.process_time() - began < 1


def test_deep_nesting_and_many_values_are_refused() -> None:
    for depth in (BODY_DEPTH_MAX + 1, 100_000):
        refused(b"\xa1\x61x" + b"\x81" * depth + b"\x00", "nested too deep")
        refused(b"\xa1\x61x" + b"\xa1\x61x" * depth + b"\x00", "nested too deep")
    refused(b"\xa1\x61x\x99" + (BODY_ITEMS_MAX + 1).to_bytes(2, "big") + b"\x00" * 300, "too many entries")
    refused(b"\xb9\xff\xff" + b"\x61x\x00" * 65535, "too many entries")
