"""What both body codecs share: ranges of the fields, and the word for a body of the other codec."""

from __future__ import annotations

import pytest

from mycorrizal import LocalProtocolError
from mycorrizal._wire import messages as m
from mycorrizal._wire.codec import body_codec

WIRES = ["cbor", "msgpack"]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (m.Ping(seq_no=-1), "Ping.SeqNo: -1 is not in 0..4294967295"),
        (m.Ping(seq_no=1 << 32), "Ping.SeqNo"),
        (m.Alive(port=1 << 16), "Alive.Port: 65536 is not in 0..65535"),
        (m.Alive(port=-1), "Alive.Port"),
        (m.PushPullHeader(nodes=1 << 63), "PushPullHeader.Nodes"),
        (m.PushPullHeader(nodes=(-1 << 63) - 1), "PushPullHeader.Nodes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_a_number_that_does_not_fit_its_field_is_not_sent(wire: str, body: m.Body, text: str) -> None:
    with pytest.raises(LocalProtocolError, match=text):
        body_codec(wire).encode(body)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "body",
    [m.Ping(seq_no=0xFFFFFFFF, source_port=0xFFFF), m.PushPullHeader((1 << 63) - 1, -1 << 63)],
    ids=lambda body: type(body).__name__,
)
def test_the_ends_of_the_ranges_travel(wire: str, body: m.Body) -> None:
    codec = body_codec(wire)
    data = codec.encode(body)
    assert codec.decode(type(body), data) == (body, len(data))
