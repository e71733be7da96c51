"""The QUIC port in metadata, plain and as a tag of Serf's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import ConfigError
from mycorrizal._wire import msgpack
from mycorrizal._wire.meta import PORT_MAX, port_meta, quic_port

from .strategies import brief


@brief
@given(st.integers(1, PORT_MAX), st.binary(max_size=510))
def test_a_port_is_found_in_front_of_anything(port: int, rest: bytes) -> None:
    meta = port_meta(port, rest)
    assert meta == bytes([port >> 8, port & 0xFF]) + rest
    assert quic_port(meta) == port


def test_no_port_is_none() -> None:
    assert port_meta(0, b"x") == b"\x00\x00x"
    for meta in (b"", b"\x1f", b"\x00\x00", b"\x00\x00rest", b"\xff"):
        assert quic_port(meta) is None


@pytest.mark.parametrize(
    ("tags", "port"),
    [
        ({"role": "web", "quic_port": "65535"}, 65535),
        ({"quic_port": "1"}, 1),
        ({"quic_port": "0"}, None),
        ({"quic_port": "65536"}, None),
        ({"quic_port": "-1"}, None),
        ({"quic_port": "٣"}, None),
        ({"quic_port": ""}, None),
        ({"quic_port": "9" * 400}, None),
        ({"quic_port": 7946}, None),
        ({"quic_port": ["1"]}, None),
        ({"role": "web"}, None),
        (["quic_port", "1"], None),
        (None, None),
    ],
)
def test_tags_of_serf(tags: object, port: int | None) -> None:
    meta = b"\xff" + msgpack.pack(tags)
    assert quic_port(meta) == port
    assert quic_port(meta + b"x") is None
    assert quic_port(meta[:-1]) is None


@brief
@given(st.binary(max_size=512), st.booleans())
def test_any_metadata_give_a_port_or_none(meta: bytes, serf: bool) -> None:
    port = quic_port(b"\xff" + meta if serf else meta)
    assert port is None or 0 < port <= 0xFFFF


@pytest.mark.parametrize("port", [-1, PORT_MAX + 1, 0xFF00, 65536])
def test_a_port_that_looks_like_tags_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="port"):
        port_meta(port)
