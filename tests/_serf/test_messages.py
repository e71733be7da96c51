"""Serf's messages at their bounds: the last that is taken, and the first that is not."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._serf import messages
from mycorrizal._serf.messages import (
    JoinIntent,
    UserEvent,
    decode,
    decode_state,
    decode_tags,
    encode,
    encode_tags,
)
from mycorrizal._wire import msgpack
from mycorrizal.exceptions import MetaTooLarge, RemoteProtocolError


def join(ltime: object, node: object = "a") -> bytes:
    return b"\x01" + msgpack.pack({"LTime": ltime, "Node": node})


def state(**fields: Any) -> bytes:
    return b"\x02" + msgpack.pack({"LTime": 1, "EventLTime": 1, "QueryLTime": 1, **fields})


def test_a_time_that_would_end_the_clock_is_refused() -> None:
    assert decode(join(messages.MAX_LTIME)) == JoinIntent(messages.MAX_LTIME, "a")
    for ltime in (messages.MAX_LTIME + 1, 2 * messages.MAX_LTIME, -1, True, False, "5", 1.5):
        with pytest.raises(RemoteProtocolError, match="no Lamport time"):
            decode(join(ltime))


def test_names_are_bounded() -> None:
    longest = "n" * messages.MAX_NAME
    assert decode(join(1, longest)) == JoinIntent(1, longest)
    for name in ("", longest + "n"):
        with pytest.raises(RemoteProtocolError, match="node name of"):
            decode(join(1, name))


@pytest.mark.parametrize("name", ["", "name"])
def test_the_name_of_an_event_counts_with_its_payload(name: str) -> None:
    room = messages.MAX_EVENT_SIZE - len(name)
    fits, longer = (encode(UserEvent(1, name, bytes(size))) for size in (room, room + 1))
    assert decode(fits) == UserEvent(1, name, bytes(room))
    with pytest.raises(RemoteProtocolError, match="user event of"):
        decode(longer)


@pytest.mark.parametrize(
    ("bound", "field", "many"),
    [
        ("MAX_STATE_NODES", "StatusLTimes", lambda count: {f"n{n}": 1 for n in range(count)}),
        ("MAX_STATE_NODES", "LeftMembers", lambda count: [f"n{n}" for n in range(count)]),
        ("MAX_STATE_TICKS", "Events", lambda count: [{"LTime": n, "Events": []} for n in range(count)]),
    ],
)
def test_each_list_of_a_state_is_bounded(bound: str, field: str, many: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, bound, 5)
    decode_state(state(**{field: many(5)}))
    with pytest.raises(RemoteProtocolError, match="beyond the limits"):
        decode_state(state(**{field: many(6)}))


def test_lengths_are_bounded_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = join(1)
    monkeypatch.setattr(messages, "MAX_MESSAGE", len(whole))
    decode(whole)
    with pytest.raises(RemoteProtocolError, match="Serf message of"):
        decode(whole + b"x")
    whole = state()
    monkeypatch.setattr(messages, "MAX_STATE", len(whole))
    decode_state(whole)
    with pytest.raises(RemoteProtocolError, match="Serf state of"):
        decode_state(whole + b"x")


def test_tags_may_take_exactly_the_limit() -> None:
    tags = {"role": "web"}
    size = len(encode_tags(tags, 512))
    assert decode_tags(encode_tags(tags, size)) == tags
    with pytest.raises(MetaTooLarge, match=f"take {size} bytes, the limit is {size - 1}"):
        encode_tags(tags, size - 1)


@pytest.mark.parametrize("broken", [b"\xff", b"\xff\x81\xa1k", b"\xff\x93", b"\xff\x81\xa1k\x05", b"\xff\xc1"])
def test_broken_tags_of_others_are_none(broken: bytes) -> None:
    assert decode_tags(broken) == {}
