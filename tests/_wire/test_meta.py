"""The QUIC port in metadata, plain and as a tag of Serf's, and what an agent says of itself behind it."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import ConfigError, MetaTooLarge
from mycorrizal._wire import msgpack
from mycorrizal._wire.meta import BOOT_TAG, PORT_MAX, SERF_TAG, AgentMeta, agent_meta, port_meta, quic_port, read_meta

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


# -- what an agent says of itself --------------------------------------------------------------------

BOOT = b"bootboot"


@pytest.mark.parametrize("port", [7946, None])
@pytest.mark.parametrize("user", [b"", b"the user's"])
@pytest.mark.parametrize("tags", [{}, {"role": "web", "größe": ""}])
def test_an_agent_is_read_as_it_was_written(port: int | None, user: bytes, tags: dict[str, str]) -> None:
    said = AgentMeta(port, BOOT, tags, user)
    assert read_meta(agent_meta(said, None)) == said


def test_metadata_of_exactly_the_limit_are_written() -> None:
    said = AgentMeta(7946, BOOT, {"role": "web"}, b"x")
    size = len(agent_meta(said, None))
    assert len(agent_meta(said, size)) == size
    with pytest.raises(MetaTooLarge, match=f"take {size} bytes of {size - 1}"):
        agent_meta(said, size - 1)


@pytest.mark.parametrize(
    "body",
    [
        {"b": b"short"},
        {"b": b"too long a boot"},
        {"b": "bootboot"},
        {"t": {"role": "web"}},
        {"b": BOOT, "t": {"role": 1}},
        {"b": BOOT, "t": {b"role": "web"}},
        {"b": BOOT, "t": ["role"]},
        {"b": BOOT, "u": "text"},
        [BOOT],
        5,
    ],
    ids=str,
)
def test_what_is_no_agents_is_the_users(body: object) -> None:
    rest = cbor2.dumps(body)
    assert read_meta(port_meta(7946, rest)) == AgentMeta(7946, user=rest)
    assert read_meta(port_meta(7946, rest + b"x")) == AgentMeta(7946, user=rest + b"x")


def test_what_a_later_version_says_besides_is_passed_over() -> None:
    assert read_meta(port_meta(1, cbor2.dumps({"b": BOOT, "z": 5}))) == AgentMeta(1, BOOT)


@pytest.mark.parametrize(
    ("text", "boot"),
    [(BOOT.hex(), BOOT), (BOOT.hex()[:-2], None), (BOOT.hex() + "00", None), ("xyz", None), ("", None)],
)
def test_in_a_serf_cluster_tags_say_it(text: str, boot: bytes | None) -> None:
    meta = b"\xff" + msgpack.pack({SERF_TAG: "7946", BOOT_TAG: text, "role": "web"})
    assert read_meta(meta) == AgentMeta(7946, boot, {"role": "web"})


@brief
@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff", b"\x1f\x0a"]))
def test_any_metadata_are_read(meta: bytes, start: bytes) -> None:
    said = read_meta(start + meta)
    assert said.boot is None or len(said.boot) == 8
