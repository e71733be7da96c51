"""Two versions of what agents tell each other: the connection is refused, and both hear which side is older."""

from __future__ import annotations

import pytest

from mycorrizal._wire.frames import FORMAT, Challenge, Close, Proof
from mycorrizal.exceptions import PeerUnreachable

from .harness import Node, World
from .raw import LIMITS, Raw, RawConn


@pytest.mark.parametrize(("spoken", "older"), [(FORMAT - 1, "m"), (FORMAT + 1, "b")])
def test_a_client_of_another_format_is_told_who_is_older(spoken: int, older: str) -> None:
    raw = Raw(name="m")
    proof = Proof.parse(raw.proof()[5:])._replace(format=spoken)
    raw.say(proof.pack())
    assert raw.conn.closed is not None and raw.code == Close.WRONG_FORMAT
    assert raw.conn.closed[1] == f"m speaks format {spoken}, b speaks {FORMAT}: {older} is older"
    assert set(raw.node.machine.peers) <= {"b"}


@pytest.mark.parametrize(("spoken", "older"), [(FORMAT - 1, "m"), (FORMAT + 1, "b")])
def test_who_calls_a_server_of_another_format_is_told_who_is_older(spoken: int, older: str) -> None:
    node = Node(World(), "b", ("10.0.0.1", 1))
    conn = RawConn(node.world, dialled=True)
    node.dial = lambda address, peer, now: conn  # type: ignore[method-assign,assignment,return-value]
    node.addresses["m"] = ("10.0.0.2", 1)
    _, outcome = node.request("m", 1)
    node.world.run(1.0)
    machine, now = node.machine, node.world.now
    machine.connected(conn, now)
    challenge = Challenge(bytes(32), "m", bytes(8), b"k", LIMITS, spoken)
    machine.stream_data(conn, 3, challenge.pack(), False, now)
    assert conn.closed is not None and conn.closed[0] == Close.WRONG_FORMAT
    machine.closed(conn, conn.closed[0], conn.closed[1], False, "local", now)
    assert isinstance(outcome.error, PeerUnreachable) and not outcome.error.indeterminate
    assert f"{older} is older" in str(outcome.error) and "same version" in str(outcome.error)
