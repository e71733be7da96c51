"""ZeroMQ's wire protocol without a socket: what we say, what we understand, what ends a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import RemoteProtocolError
from mycorrizal._control.zmtp import Zmtp, message

GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


def ready(kind: bytes, *more: bytes) -> bytes:
    """Return the handshake of a socket of `kind`."""
    body = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind + b"".join(more)
    return bytes((4, len(body))) + body


def command(name: bytes, rest: bytes = b"") -> bytes:
    body = bytes((len(name),)) + name + rest
    return bytes((4, len(body))) + body


def connected(kind: str = "ROUTER", peer: bytes = b"DEALER", **more: int) -> Zmtp:
    """Return one that is past the handshake."""
    one = Zmtp(kind, **{"largest": 1000, "parts": 3, **more})
    assert one.receive(GREETING + ready(peer)) == []
    assert one.ready
    one.outgoing()
    return one


def test_what_we_say_first() -> None:
    one = Zmtp("ROUTER", largest=10, parts=1)
    greeting = one.outgoing()
    assert len(greeting) == 64
    assert greeting[:1] == b"\xff" and greeting[9:12] == b"\x7f\x03\x00" and greeting[12:32].rstrip(b"\0") == b"NULL"
    assert one.outgoing() == b""
    one.receive(GREETING)
    assert one.outgoing() == ready(b"ROUTER")
    assert not one.ready


@pytest.mark.parametrize(
    ("kind", "peer", "fits"),
    [
        ("ROUTER", b"DEALER", True),
        ("ROUTER", b"REQ", True),
        ("ROUTER", b"ROUTER", True),
        ("ROUTER", b"SUB", False),
        ("PUB", b"SUB", True),
        ("PUB", b"XSUB", True),
        ("PUB", b"DEALER", False),
        ("PUB", b"", False),
    ],
)
def test_only_sockets_that_fit_may_connect(kind: str, peer: bytes, fits: bool) -> None:
    one = Zmtp(kind, largest=10, parts=1)
    if fits:
        one.receive(GREETING + ready(peer))
        assert one.ready
    else:
        with pytest.raises(RemoteProtocolError, match=f"socket at a {kind}"):
            one.receive(GREETING + ready(peer))


def test_other_properties_do_not_matter_nor_the_case_of_names() -> None:
    one = Zmtp("ROUTER", largest=10, parts=1)
    body = b"\x05READY" + b"\x08Identity" + (3).to_bytes(4, "big") + b"abc" + b"\x0bSOCKET-TYPE\0\0\0\x03REQ"
    one.receive(GREETING + bytes((4, len(body))) + body)
    assert one.ready


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=3).filter(lambda m: sum(map(len, m)) <= 1000)))
def test_messages_arrive_whole_however_they_are_cut(messages: list[list[bytes]]) -> None:
    data = b"".join(message(parts) for parts in messages)
    whole = connected().receive(data)
    assert whole == [tuple(parts) for parts in messages]
    slow = connected()
    assert [found for at in range(len(data)) for found in slow.receive(data[at : at + 1])] == whole


def test_long_frame_is_written_long() -> None:
    assert message([b"x" * 255]) == b"\x00\xff" + b"x" * 255
    assert message([b"", b"x" * 256]) == b"\x01\x00" + b"\x02" + (256).to_bytes(8, "big") + b"x" * 256


def test_ping_is_answered_and_unknown_commands_are_left_alone() -> None:
    one = connected()
    assert one.receive(command(b"PING", b"\0\x0acontext") + command(b"DANCE") + command(b"")) == []
    assert one.outgoing() == command(b"PONG", b"context")
    one.receive(command(b"PING", b"\0\0" + b"x" * 100))
    assert one.outgoing() == command(b"PONG", b"x" * 16)


def test_subscriptions_of_both_versions_are_one() -> None:
    one = connected("PUB", b"SUB")
    old = message([b"\x01event."]) + message([b"\x00event."])
    new = command(b"SUBSCRIBE", b"event.") + command(b"CANCEL", b"event.")
    assert one.receive(old) == one.receive(new) == [(b"\x01event.",), (b"\x00event.",)]
    assert connected().receive(new) == []  # means nothing to a ROUTER


LONG = (1 << 63).to_bytes(8, "big")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\xff" + bytes(9),
        b"\xff" + bytes(8) + b"\x7f\x01",
        GREETING.replace(b"NULL\0", b"CURVE"),
        GREETING + message([b"too early"]),
        GREETING + command(b"HELLO"),
        GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\xffREQ"),
        GREETING + command(b"READY", b"\xff"),
        GREETING + command(b"READY", b"\x01a\0"),
        GREETING + command(b"READY"),
        GREETING + b"\x06" + (5000).to_bytes(8, "big"),
        GREETING + b"\x06" + LONG,
        GREETING + ready(b"REQ") + b"\x08\x00",
        GREETING + ready(b"REQ") + b"\x05\x00",
        GREETING + ready(b"REQ") + b"\x02" + (1001).to_bytes(8, "big"),
        GREETING + ready(b"REQ") + b"\x02" + LONG,
        GREETING + ready(b"REQ") + message([b"x" * 600, b"x" * 600]),
        GREETING + ready(b"REQ") + message([b""] * 4),
    ],
    ids=range(18),
)
def test_what_breaks_the_protocol_or_a_bound_ends_the_connection(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Zmtp("ROUTER", largest=1000, parts=3).receive(data)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_messages_or_refused(data: bytes, greeted: bool) -> None:
    one = connected() if greeted else Zmtp("PUB", largest=100, parts=3)
    try:
        one.receive(data)
    except RemoteProtocolError:
        pass
