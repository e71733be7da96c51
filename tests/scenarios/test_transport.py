"""Go's ``transport_test.go``: the whole over a transport in memory, which is what all of these scenarios use."""

from __future__ import annotations

from mycorrizal._swim.events import UserMessage
from mycorrizal.delegates import BaseDelegate
from tests.scenarios.network import LIVELY, Network, faithful, named


def test_Transport_Join() -> None:
    m1, m2 = faithful("node1", "127.0.0.1", **LIVELY), faithful("node2", "127.0.0.2", **LIVELY)
    network = Network(m1, m2)
    assert network.join(m2, m1, name="node1") is None
    network.run(3.0)
    assert named(m1.members()) == named(m2.members()) == ["node1", "node2"]
    assert m1.gauges["nodes"] == m2.gauges["nodes"] == 2


def test_Transport_Send() -> None:
    m1 = faithful("node1", "127.0.0.1", delegates={"delegate": BaseDelegate()})
    m2 = faithful("node2", "127.0.0.2")
    network = Network(m1, m2)
    network.join(m2, m1, name="node1")
    address = m1.local_node.address

    m2.send_user(b"SendToAddress", address, network.now)
    m2.send_user(b"SendBestEffort", address, network.now, name="node1")
    m2.send_user(b"", address, network.now, name="node1")
    network.flush()
    network.send_reliable(m2, m1, b"SendReliable")

    got = [m.data for m in network.events(m1, UserMessage)]
    assert got == [b"SendToAddress", b"SendBestEffort", b"", b"SendReliable"]
    assert {m.address for m in network.events(m1, UserMessage)} == {("127.0.0.2", 7946)}
