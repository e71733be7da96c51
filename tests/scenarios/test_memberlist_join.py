"""Go's ``memberlist_test.go``, the half about joining: labels, keys, networks, versions, vetoes, conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import MergeRejected, NodeConflict, NodeJoined, NodeLeft
from mycorrizal.exceptions import ConfigError, MergeRefused, MycorrizalError
from mycorrizal.types import Node, NodeState
from tests._swim.harness import record
from tests.scenarios.network import LIVELY, Network, faithful, named

KEY = bytes(range(16))


def nodes(*hosts: str, **settings: Any) -> tuple[Network, list[Swim]]:
    swims = [faithful(f"m{n}", host, **settings) for n, host in enumerate(hosts, 1)]
    return Network(*swims), swims


def test_Memberlist_Join() -> None:
    network, (m1, m2) = nodes("127.0.0.1", "127.0.0.2")
    assert network.join(m2, m1) is None
    for swim in (m1, m2):
        assert named(swim.members()) == ["m1", "m2"]
        assert swim.gauges["nodes"] == 2
    assert [e.node.name for e in network.events(m1, NodeJoined)] == ["m1", "m2"]
    assert [e.node.name for e in network.events(m2, NodeJoined)] == ["m2", "m1"]


def test_a_join_at_oneself_is_harmless() -> None:
    network, (m1,) = nodes("127.0.0.1")
    assert network.join(m1, m1) is None
    assert named(m1.members()) == ["m1"]
    assert m1.incarnation == 1


def labelled_join(**settings: Any) -> None:
    m1 = faithful("m1", "127.0.0.1", label="blah", **settings)
    m2 = faithful("m2", "127.0.0.2", label="blah", **settings)
    network = Network(m1, m2)
    assert network.join(m2, m1) is None
    assert named(m1.members()) == named(m2.members()) == ["m1", "m2"]
    versions = (m1.node_version, m2.node_version)

    for label in ("", "not-blah"):
        stranger = network.add(faithful("m3", "127.0.0.3", label=label, **settings))
        assert network.join(stranger, m1) is not None
        assert named(stranger.members()) == ["m3"]
        assert stranger.gauges["nodes"] == 1
        stranger.ping("m1", m1.local_node.address, network.now)
        network.run(1.0)
        assert (m1.node_version, m2.node_version) == versions
        assert m1.counters["packets_rejected"] > 0, "nor do datagrams get through"
        network.remove(stranger)


def test_Memberlist_Join_with_Labels() -> None:
    labelled_join()


def test_Memberlist_Join_with_Labels_and_Encryption() -> None:
    labelled_join(secret_key=KEY)


def test_Memberlist_JoinDifferentNetworksUniqueMask() -> None:
    network, (m1, m2) = nodes("127.0.0.1", "127.0.1.1", cidrs_allowed=("127.0.0.0/8",))
    assert network.join(m2, m1) is None
    assert named(m1.members()) == named(m2.members()) == ["m1", "m2"]


def test_Memberlist_JoinDifferentNetworksMultiMasks() -> None:
    allowed = ("127.0.0.0/24", "127.0.1.0/24")
    network, (m1, m2) = nodes("127.0.0.1", "127.0.1.1", cidrs_allowed=allowed, **LIVELY)
    assert network.join(m2, m1) is None
    assert named(m1.members()) == named(m2.members()) == ["m1", "m2"]

    rogue = network.add(faithful("rogue", "127.0.2.1", cidrs_allowed=("127.0.0.0/8",), **LIVELY))
    assert network.join(rogue, m1) is None
    network.run(3.0)
    assert named(rogue.members()) == ["m1", "m2", "rogue"]
    for swim in (m1, m2):
        assert named(swim.nodes()) == ["m1", "m2"], "it sees them, they do not take it in"

    # A node that is not allowed itself does not start. (In Go it runs without listing itself.)
    with pytest.raises(ConfigError) as caught:
        faithful("denied", "127.0.2.2", cidrs_allowed=allowed)
    assert caught.value.field == "cidrs_allowed"


class Veto:
    """A merge delegate that refuses everybody."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.asked: list[list[str]] = []

    def notify_merge(self, peers: Sequence[Node]) -> None:
        self.asked.append(named(peers))
        raise PermissionError(self.why)


def test_Memberlist_Join_Cancel() -> None:
    first, second = Veto("not with you"), Veto("custom merge canceled")
    m1 = faithful("m1", "127.0.0.1", delegates={"merge": first})
    m2 = faithful("m2", "127.0.0.2", delegates={"merge": second})
    network = Network(m1, m2)
    error = network.join(m2, m1)
    assert isinstance(error, MergeRefused)
    assert "custom merge canceled" in str(error)
    assert named(m1.members()) == ["m1"]
    assert named(m2.members()) == ["m2"]
    assert first.asked == [["m2"]]
    assert second.asked == [["m1"]]
    assert [str(e.reason) for e in network.events(m1, MergeRejected)] == ["notify_merge refused: not with you"]


class OnlyMe:
    """An alive delegate that admits one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0

    def notify_alive(self, node: Node) -> None:
        self.asked += 1
        if node.name != self.name:
            raise PermissionError("custom alive canceled")


def test_Memberlist_Join_Cancel_Passive() -> None:
    gates = {name: OnlyMe(name) for name in ("m1", "m2")}
    m1 = faithful("m1", "127.0.0.1", delegates={"alive": gates["m1"]})
    m2 = faithful("m2", "127.0.0.2", delegates={"alive": gates["m2"]})
    network = Network(m1, m2)
    assert network.join(m2, m1) is None, "the exchange itself worked"
    assert named(m1.members()) == ["m1"]
    assert named(m2.members()) == ["m2"]
    assert all(gate.asked == 2 for gate in gates.values()), "about itself, and about the other"


def join_versions(mine: int, theirs: int) -> None:
    m1 = faithful("m1", "127.0.0.1", protocol_version=theirs, **LIVELY)
    m2 = faithful("m2", "127.0.0.2", protocol_version=mine, **LIVELY)
    network = Network(m1, m2)
    assert network.join(m2, m1) is None
    network.run(10.0)
    for swim in (m1, m2):
        assert named(swim.members()) == ["m1", "m2"]
        assert network.events(swim, NodeLeft) == []
        assert swim.health_score == 0
    assert record(m1, "m2").versions.protocol == mine


def test_Memberlist_Join_protocolVersions() -> None:
    join_versions(2, 5)
    join_versions(5, 2)


@pytest.mark.parametrize(("mine", "theirs"), [(2, 1), (2, 3), (3, 2), (3, 1)])
def test_Memberlist_Join_Protocol_Compatibility(mine: int, theirs: int) -> None:
    join_versions(mine, theirs)


def test_Memberlist_Join_DeadNode() -> None:
    network, (m1,) = nodes("127.0.0.1", tcp_timeout=0.05)
    network.silent.add(("127.0.0.2", 23456))
    assert isinstance(network.join(m1, ("127.0.0.2", 23456)), TimeoutError)
    assert network.now == pytest.approx(0.05)

    error = network.join(m1, ("127.0.0.3", 7946))
    assert isinstance(error, ConnectionError), "nobody there at all: at once"
    assert network.now == pytest.approx(0.05)
    assert named(m1.members()) == ["m1"]


def test_Memberlist_Join_IPv6() -> None:
    m1 = faithful("m1", "::1", 23456, **LIVELY)
    m2 = faithful("m2", "::1", 23457, **LIVELY)
    network = Network(m1, m2)
    assert network.join(m2, m1, name="m1") is None
    network.run(5.0)
    for swim in (m1, m2):
        assert [(n.name, n.address) for n in swim.members()] == [("m1", ("::1", 23456)), ("m2", ("::1", 23457))]
        assert swim.health_score == 0


def test_Memberlist_conflictDelegate() -> None:
    m1, m2 = faithful("same", "127.0.0.1"), faithful("same", "127.0.0.2")
    network = Network(m1, m2)
    assert network.join(m2, m1) is None
    conflicts = network.events(m1, NodeConflict)
    assert conflicts
    assert {(c.existing.name, c.other.name) for c in conflicts} == {("same", "same")}
    assert (conflicts[0].existing.host, conflicts[0].other.host) == ("127.0.0.1", "127.0.0.2")
    assert [n.host for n in m1.members()] == ["127.0.0.1"]
    assert [n.host for n in m2.members()] == ["127.0.0.2"]


def test_require_node_names() -> None:
    """No datagram goes to an address without a name."""
    network, (m1, m2) = nodes("127.0.0.1", "127.0.0.2", require_node_names=True)
    assert network.join(m2, m1, name="m1") is None
    network.forget()
    m1.send_user(b"x", m2.local_node.address, network.now)
    network.flush()
    assert network.raw == []
    m1.send_user(b"x", m2.local_node.address, network.now, name="m2")
    network.flush()
    assert len(network.raw) == 1


class Rolling:
    """Two nodes that are restarted one after the other with other settings."""

    def __init__(self) -> None:
        self.network = Network()
        self.swims: list[Swim] = []
        self.stage = 0

    def start(self, number: int, **settings: Any) -> Swim:
        self.stage += 1
        swim = faithful(f"m{number}", f"127.0.0.{number}", seed=self.stage, start=False, **LIVELY, **settings)
        return self.network.add(swim)

    def roll(self, **settings: Any) -> None:
        """Leave with each node in turn and come back with `settings`."""
        for number in (1, 2):
            if len(self.swims) == 2:
                old = self.swims[number - 1]
                old.leave(self.network.now)
                self.network.run(2.0)
                self.network.remove(old)
                self.swims[number - 1] = new = self.start(number, **settings)
                other = self.swims[2 - number]
                assert self.network.join(new, other) is None
            else:
                self.swims.append(self.start(number, **settings))
                if number == 2:
                    assert self.network.join(self.swims[1], self.swims[0]) is None
            self.network.run(5.0)
            self.check()

    def check(self) -> None:
        for swim in self.swims:
            assert named(swim.members()) == [f"m{n + 1}" for n in range(len(self.swims))]
            assert {node.state for node in swim.members()} == {NodeState.ALIVE}
            assert swim.health_score == 0


def test_Memberlist_EncryptedGossipTransition() -> None:
    rolling = Rolling()
    rolling.roll()
    rolling.roll(secret_key=KEY, gossip_verify_incoming=False, gossip_verify_outgoing=False)
    rolling.roll(secret_key=KEY, gossip_verify_incoming=False, gossip_verify_outgoing=True)
    rolling.roll(secret_key=KEY)
    clear = [data for _, _, data in rolling.network.raw[-10:] if b"Node" in data]
    assert clear == []

    plain = rolling.network.add(faithful("m3", "127.0.0.3"))
    assert isinstance(rolling.network.join(plain, rolling.swims[0]), MycorrizalError), "and now nobody else gets in"
