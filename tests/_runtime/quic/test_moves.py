"""A host that has another address: its connections go on, whichever side dialled. The socket changes under them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mycorrizal._runtime.quic.connection import Connection
from mycorrizal._runtime.quic.fast.aio import Quic
from mycorrizal._runtime.quic.path import open_socket

from .rig import Side


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    a, b = Side("a"), Side("b")
    yield a, b
    a.stop()
    b.stop()


def move(side: Side, host: str) -> tuple[str, int]:
    """Put a socket at another address in the place of a side's; return where it listens now."""
    with open_socket(host, 0) as other:
        os.dup2(other.fileno(), side.sock.fileno())
        return other.getsockname()[:2]  # type: ignore[no-any-return]


def says(side: Side, conn: Connection, other: Side, data: bytes) -> None:
    """Send `data` on a new stream and wait until the other side has it."""
    stream = side.run(lambda now: conn.open_stream(uni=True))
    side.run(lambda now: conn.send(stream, data, True))
    other.owner.wait(lambda: data in map(bytes, other.owner.data.values()))


def test_a_client_that_moves_is_answered_there(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    b.owner.wait(lambda: b.owner.accepted)
    [accepted] = b.owner.accepted
    says(b, accepted, a, b"before")
    where = move(a, "127.0.0.2")
    a.run(lambda now: conn.ping())
    says(a, conn, b, b"after" * 10_000)
    says(b, accepted, a, b"answer" * 10_000)
    assert b.run(lambda now: accepted.address) == where
    if isinstance(accepted._quic, Quic):
        paths = accepted._quic._network_paths
        b.owner.wait(lambda: len(paths) == 1)
        assert b.run(lambda now: paths[0].is_validated)
    assert not a.owner.ends and not b.owner.ends


def test_a_server_that_moves_is_followed(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    says(a, conn, b, b"before")
    [accepted] = b.owner.accepted
    where = move(b, "127.0.0.2")
    a.run(lambda now: conn.send(conn.open_stream(uni=True), b"on the way to nobody", True))
    a.run(lambda now: conn.follow(where))
    says(a, conn, b, b"after" * 10_000)
    says(b, accepted, a, b"answer" * 10_000)
    b.owner.wait(lambda: b"on the way to nobody" in map(bytes, b.owner.data.values()))
    assert conn.address == where
    assert not a.owner.ends and not b.owner.ends


def test_only_a_client_follows_and_only_where_it_can(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    b.owner.wait(lambda: b.owner.accepted)
    [accepted] = b.owner.accepted
    before = accepted.address
    b.run(lambda now: accepted.follow(("127.0.0.9", 9)))
    assert accepted.address == before
    a.run(lambda now: conn.follow(("::1", 9)))
    assert conn.address == b.address
    says(a, conn, b, b"still there")
    a.run(lambda now: conn.close(0, "", now))
    a.run(lambda now: conn.follow(("127.0.0.9", 9)))
    assert conn.address == b.address
