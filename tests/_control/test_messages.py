"""Requests, replies and events as bytes, and what is refused of them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import cbor2
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import ControlError, RemoteProtocolError, ValueEncodeError, ValueTooLarge
from mycorrizal._control import messages
from mycorrizal._control.messages import Request, decode_event, decode_reply, decode_request


def test_request_arrives_as_it_was_sent() -> None:
    arguments = {"node": "bob", "value": [1, b"x", {"a": None}]}
    data = messages.encode_request(7, "send", arguments)
    assert decode_request(data) == Request(7, "send", arguments)
    assert cbor2.loads(data) == {"id": 7, "command": "send", "arguments": arguments}


def test_large_texts_and_bytes_stay_in_the_one_frame_as_plain_cbor() -> None:
    big = {"value": b"x" * 100_000, "text": "y" * 100_000}
    assert cbor2.loads(messages.encode_request(1, "send", big))["arguments"] == big


def test_arrays_travel_as_rfc_8746_in_the_one_frame() -> None:
    data = messages.encode_reply(1, numpy.arange(1000, dtype="<f8"))
    assert cbor2.loads(data)["result"].tag == 86
    assert decode_reply(data).result.sum() == 499500


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (numpy.float32(0.5), 0.5),
        (numpy.int64(2**40), 2**40),
        (numpy.bool_(1), True),
        (numpy.str_("a"), "a"),
        (numpy.bytes_(b"a"), b"a"),
        (numpy.array([[True], [False]]), [[True], [False]]),
        (numpy.asfortranarray([["a", "bc"], ["", "d"]]), [["a", "bc"], ["", "d"]]),
        (numpy.array("a"), "a"),
        (numpy.array([], "S3"), []),
        (Decimal("Infinity"), float("inf")),
        ({"a": [(Decimal("-Infinity"),)]}, {"a": [[float("-inf")]]}),
    ],
)
def test_answers_and_events_hold_plain_values_where_they_say_the_same(value: Any, plain: Any) -> None:
    assert cbor2.loads(messages.encode_reply(1, value))["result"] == plain
    assert cbor2.loads(messages.encode_event("t", (1, 1), "p", {"value": [value]}))["value"] == {"value": [plain]}


@pytest.mark.parametrize(
    "value", [numpy.datetime64("2026-01-01"), numpy.ones(2, "c8"), Decimal("-0.0"), Decimal("NaN5"), numpy.ones((2, 2))]
)
def test_answers_keep_what_no_plain_value_says(value: Any) -> None:
    assert repr(decode_reply(messages.encode_reply(1, value)).result) == repr(value)


def test_requests_keep_all() -> None:
    got = decode_request(messages.encode_request(1, "settings.set", {"value": numpy.float32(0.5)}))
    assert type(got.arguments["value"]) is numpy.float32


def test_message_nests_32_levels() -> None:
    value: Any = 1
    for _ in range(31):  # and the map around it
        value = [value]
    assert decode_reply(messages.encode_reply(1, value)).result == value
    with pytest.raises(ValueEncodeError, match="nested too deep"):
        messages.encode_reply(1, [value])


def test_seconds_since_1970_are_a_time() -> None:
    for seconds in (1764583054, 1764583054.5, -1.5):
        data = cbor2.dumps({"id": 1, "command": "x", "arguments": {"when": cbor2.CBORTag(1, seconds)}})
        when = decode_request(data).arguments["when"]
        assert (when.timestamp(), when.utcoffset()) == (seconds, timedelta(0))
    with pytest.raises(RemoteProtocolError):
        decode_request(cbor2.dumps({"id": 1, "command": "x", "arguments": {"when": cbor2.CBORTag(1, 1e300)}}))


@pytest.mark.parametrize("number", [0, 2**60, 1764583054500.0, -0.0, "seven", b"\0\1", None])
def test_ids_of_any_kind_come_back(number: int | float | str | bytes | None) -> None:
    """As they came: JavaScript writes a large number as a float, and compares."""
    assert type(decode_reply(messages.encode_reply(number, [1])).id) is type(number)
    assert decode_reply(messages.encode_reply(number, [1])).id == number
    assert decode_request(cbor2.dumps({"id": number, "command": "ping"})) == Request(number, "ping", {})


REFUSED = [
    b"",
    b"\xff",
    b"\xa0",
    cbor2.dumps([1, 2]),
    cbor2.dumps({"id": 1}),
    cbor2.dumps({"id": 1.5, "command": "ping"}),
    cbor2.dumps({"id": float("inf"), "command": "ping"}),
    cbor2.dumps({"id": float("nan"), "command": "ping"}),
    cbor2.dumps({"id": "x" * 65, "command": "ping"}),
    cbor2.dumps({"id": [1], "command": "ping"}),
    cbor2.dumps({"id": 1, "command": "p" * 65}),
    cbor2.dumps({"id": 1, "command": 5}),
    cbor2.dumps({"id": 1, "command": "ping", "arguments": [1]}),
    cbor2.dumps({"id": 1, "command": "ping", "arguments": {1: 2}}),
    cbor2.dumps({"id": 1, "command": "ping"}) + b"\0",
    cbor2.dumps({"id": 1, "command": "ping"})[:-1],
    b"\xa2" + cbor2.dumps("command") + cbor2.dumps("ping") + cbor2.dumps("command") + cbor2.dumps("ping"),
    cbor2.dumps({"id": 1, "command": "send", "arguments": {"value": cbor2.CBORTag(35, "(a+)+$")}}),
    b"\xbf" + cbor2.dumps("command") + cbor2.dumps("ping") + b"\xff",
    b"\x81" * 100_000 + b"\x01",
    b"\xa1\x61a" * 100_000 + b"\x01",
    bytes(messages.REQUEST_MAX + 1),
]


@pytest.mark.parametrize("data", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(data)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (decode_request, decode_reply, decode_event):
        try:
            decode(data)
        except RemoteProtocolError:
            pass


def test_failure_arrives_as_the_error_it_was() -> None:
    error = ControlError("timeout", "too late", retriable=True, indeterminate=True)
    reply = decode_reply(messages.encode_failure("a", "timeout", error))
    assert reply.id == "a" and reply.error is not None
    assert (reply.error.code, str(reply.error)) == ("timeout", "too late")
    assert reply.error.retriable and reply.error.indeterminate


def test_failure_can_always_be_told() -> None:
    reply = decode_reply(messages.encode_failure(1, "failed", ValueError("\ud800" + "x" * 10_000)))
    assert reply.error is not None and len(str(reply.error)) == messages.TEXT_MAX
    assert not reply.error.retriable


@pytest.mark.parametrize("table", [{}, {"ok": False}, {"ok": False, "error": {"code": 1}}, {"ok": 1, "result": 2}])
def test_what_is_no_reply_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(cbor2.dumps(table))


def test_what_cannot_be_sent_is_said_with_its_place() -> None:
    with pytest.raises(ValueEncodeError, match=r"an argument\['arguments'\]\['value'\]\[0\]: object cannot be sent"):
        messages.encode_request(1, "send", {"value": [object()]})
    with pytest.raises(ValueEncodeError):
        messages.encode_request(1, "send", {"value": "\ud800"})
    with pytest.raises(ValueTooLarge):
        messages.encode_request(1, "send", {"value": bytes(messages.REQUEST_MAX)})
    with pytest.raises(ValueTooLarge):
        messages.encode_reply(1, bytes(messages.REPLY_MAX))


def test_event_arrives() -> None:
    event = decode_event(messages.encode_event("event.user.deploy", (5, 2), "0a", {"value": [1], "sender": "bob"}))
    assert (event.topic, event.sequence, event.topic_sequence, event.publisher) == ("event.user.deploy", 5, 2, "0a")
    assert event.value == {"value": [1], "sender": "bob"}


@pytest.mark.parametrize("value", [object(), bytes(messages.EVENT_MAX)])
def test_event_that_cannot_be_told_is_told_without_its_value(value: object) -> None:
    event = decode_event(messages.encode_event("event.user.x", (1, 1), "0a", {"sender": "bob", "value": value}))
    assert event.value["sender"] == "bob" and "value" not in event.value
    assert event.value["omitted"]


@pytest.mark.parametrize("missing", ["topic", "value", "sequence", "topic_sequence", "publisher"])
def test_event_that_lacks_something_is_refused(missing: str) -> None:
    table = cbor2.loads(messages.encode_event("event.x", (1, 1), "0a", {}))
    del table[missing]
    with pytest.raises(RemoteProtocolError):
        decode_event(cbor2.dumps(table))
