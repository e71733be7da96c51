"""Go's ``memberlist_test.go``, the half about one node and its messages. The other half is ``test_memberlist_join``."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeJoined, NodeUpdated, OperationDone, PingComplete, RemoteState, UserMessage
from mycorrizal._wire.messages import Alive, Dead, Ping, Suspect
from mycorrizal._wire.packet import PacketCodec
from mycorrizal._wire.security import Keyring
from mycorrizal.config import Config
from mycorrizal.delegates import BaseDelegate, BasePingDelegate
from mycorrizal.exceptions import ConfigError
from mycorrizal.types import NodeState, Versions
from tests._swim.harness import alive, keyring, nonces, queued, record, sent, tell
from tests.keys import key_of
from tests.scenarios.network import LIVELY, Network, faithful, named, state_of

KEY = bytes(range(16))
A, B = key_of("a", 16), key_of("b")


class Messages(BaseDelegate):
    """A delegate with metadata, messages to gossip and a state."""

    def __init__(self, meta: bytes = b"", *, state: bytes = b"") -> None:
        self.meta = meta
        self.state = state
        self.broadcasts: list[bytes] = []

    def node_meta(self, limit: int) -> bytes:
        return self.meta

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        taken = []
        while self.broadcasts and limit >= overhead + len(self.broadcasts[0]):
            limit -= overhead + len(self.broadcasts[0])
            taken.append(self.broadcasts.pop(0))
        return taken

    def local_state(self, join: bool) -> bytes:
        return self.state


def pair(**settings: Any) -> tuple[Swim, Swim, Network]:
    a, b = faithful("a", "127.0.0.1", **{**LIVELY, **settings}), faithful("b", "127.0.0.2", **{**LIVELY, **settings})
    return a, b, Network(a, b)


# -- one node --------------------------------------------------------------------------------


def test_DefaultLANConfig_protocolVersion() -> None:
    assert Config.lan().protocol_version == 2


@pytest.mark.parametrize(("version", "good"), [(1, True), (4, True), (5, True), (0, False), (6, False)])
def test_Create_protocolVersion(version: int, good: bool) -> None:
    if good:
        assert faithful("a", "127.0.0.1", protocol_version=version).local_node.versions.protocol == version
    else:
        with pytest.raises(ConfigError) as caught:
            Config(protocol_version=version)
        assert caught.value.field == "protocol_version"


@pytest.mark.parametrize(("size", "good"), [(0, True), (16, True), (24, True), (32, True), (3, False), (38, False)])
def test_Create_secretKey(size: int, good: bool) -> None:
    if good:
        Config(secret_key=bytes(range(size)))
    else:
        with pytest.raises(ConfigError) as caught:
            Config(secret_key=bytes(range(size)))
        assert caught.value.field == "secret_key"


def in_clear(swim: Swim) -> bool:
    """Whether a ping of `swim` can be read by anybody."""
    swim.datagrams_to_send()
    swim.ping("b", ("127.0.0.2", 7946), 0.0)
    return b"SourceNode" in swim.datagrams_to_send()[0][0]


def test_Create_secretKeyEmpty() -> None:
    assert in_clear(faithful("a", "127.0.0.1", secret_key=b""))
    assert in_clear(faithful("a", "127.0.0.1"))
    assert not in_clear(faithful("a", "127.0.0.1", secret_key=KEY))


def test_Create_keyringOnly() -> None:
    config = Config(name="a", wire="msgpack", enable_compression=False)
    ring = Keyring((), KEY)
    codec = PacketCodec(config, ring, nonces("a"))
    datagram = codec.seal([codec.encode(Ping(1, "b"))], crc=False)[0]
    assert datagram[0] == 1, "the encryption's version"
    assert b"SeqNo" not in datagram


def test_Create_keyringAndSecretKey() -> None:
    ring = keyring(Config(secret_key=KEY, keys=(A, B)))
    assert ring.primary == KEY
    assert ring.keys() == (KEY, A, B)
    assert keyring(Config(secret_key=KEY, keys=(A, KEY))).keys() == (KEY, A), (
        "it may stand among the others"
    )


def test_Create() -> None:
    swim = faithful(
        "self", "127.0.0.1", protocol_version=3,
        delegate_protocol_version=13, delegate_protocol_min=12, delegate_protocol_max=24,
    )  # fmt: skip
    assert named(swim.members()) == ["self"]
    assert swim.members()[0].versions == Versions(1, 5, 3, 12, 24, 13)
    assert swim.members()[0].incarnation == 1


def test_MemberlistProtocolVersion() -> None:
    assert faithful("a", "127.0.0.1", protocol_version=1).local_node.versions.protocol == 1


def test_Create_checkBroadcastQueueMetrics() -> None:
    """The length of the queue can be read whenever somebody wants to know it."""
    swim = faithful("self", "127.0.0.1")
    assert swim.gauges["queue.broadcasts"] == len(queued(swim)) == 1
    tell(swim, alive("b"), alive("c"))
    assert swim.gauges["queue.broadcasts"] == 3


def test_MemberList_CreateShutdown() -> None:
    """A machine with all its timers that nobody drives any more does nothing, and asks for nothing but time."""
    swim = faithful("self", "127.0.0.1", **LIVELY)
    assert swim.get_timer() is not None
    sent(swim)
    assert swim.exchanges_to_start() == []
    assert sent(swim) == []


def test_MemberList_Members() -> None:
    swim = faithful("self", "127.0.0.1")
    tell(swim, *(alive(name) for name in ("alive", "suspect", "dead", "left")))
    tell(swim, Suspect(1, "suspect", "x"), Dead(1, "dead", "x"), Dead(1, "left", "left"))
    assert named(swim.members()) == ["alive", "self", "suspect"]
    assert named(swim.nodes()) == ["alive", "dead", "left", "self", "suspect"]
    assert record(swim, "suspect").state == NodeState.SUSPECT


def test_AdvertiseAddr() -> None:
    """What others are told to dial is the advertised address, whatever the sockets are bound to."""
    a = faithful("a", "203.0.113.7", 8500, bind_addr="127.0.0.1", bind_port=7946)
    assert a.members()[0].address == ("203.0.113.7", 8500)
    assert [(m.addr, m.port) for m in queued(a) if isinstance(m, Alive)] == [(b"\xcb\0\x71\7", 8500)]
    a.ping("b", ("203.0.113.8", 7946), 0.0)
    pings = [m for m, _ in sent(a) if isinstance(m, Ping)]
    assert [(p.source_addr, p.source_port) for p in pings] == [(b"\xcb\0\x71\7", 8500)]

    b = faithful("b", "203.0.113.8")
    network = Network(a, b)
    assert network.join(b, a) is None
    assert record(b, "a").address == ("203.0.113.7", 8500)


# -- leaving and dying -------------------------------------------------------------------------


def test_Memberlist_Leave() -> None:
    a, b, network = pair()
    network.join(b, a)
    network.run(1.0)
    operation = b.leave(network.now)
    took = network.run_until(
        lambda: bool([e for e in network.events(b, OperationDone) if e.operation_id == operation]), 10.0
    )
    assert took is not None
    assert took <= 1.5, "the broadcast is out after as many rounds as the retransmit limit"
    assert network.events(b, OperationDone)[-1].error is None
    assert named(a.members()) == ["a"]
    assert named(b.members()) == ["a"]
    assert state_of(a, "b") == NodeState.LEFT
    assert state_of(b, "b") == NodeState.LEFT

    again = b.leave(network.now)
    network.flush()
    assert network.events(b, OperationDone)[-1] == OperationDone(again), "a second leave has nothing to do"


def test_Memberlist_JoinShutdown() -> None:
    a, b, network = pair()
    network.join(b, a)
    assert named(a.members()) == ["a", "b"]
    network.run(1.0)
    network.remove(b)
    took = network.run_until(lambda: named(a.members()) == ["a"], 60.0)
    assert took is not None
    # At most one interval until it is probed, one for the probe, and the shortest window for a pair: 4 s.
    assert 5.0 <= took <= 7.0
    assert state_of(a, "b") == NodeState.DEAD


# -- what travels ------------------------------------------------------------------------------


def test_Memberlist_delegateMeta() -> None:
    a = faithful("a", "127.0.0.1", delegates={"delegate": Messages(b"web")})
    b = faithful("b", "127.0.0.2", delegates={"delegate": Messages(b"lb")})
    network = Network(a, b)
    assert network.join(a, b) is None
    for swim in (a, b):
        assert record(swim, "a").meta == b"web"
        assert record(swim, "b").meta == b"lb"
    assert [(e.node.name, e.node.meta) for e in network.events(b, NodeJoined)] == [("b", b"lb"), ("a", b"web")]


def test_Memberlist_delegateMeta_Update() -> None:
    web, lb = Messages(b"web"), Messages(b"lb")
    a = faithful("a", "127.0.0.1", delegates={"delegate": web}, gossip_interval=0.2)
    b = faithful("b", "127.0.0.2", delegates={"delegate": lb}, gossip_interval=0.2)
    network = Network(a, b)
    network.join(a, b)
    network.run(2.0)

    web.meta, lb.meta = b"api", b"db"
    operations = (a.update_meta(network.now), b.update_meta(network.now))
    network.run(2.0)

    for swim, operation in zip((a, b), operations, strict=True):
        assert record(swim, "a").meta == b"api"
        assert record(swim, "b").meta == b"db"
        assert OperationDone(operation) in network.events(swim, OperationDone)
        assert {e.node.name for e in network.events(swim, NodeUpdated)} == {"a", "b"}


def test_Memberlist_UserData() -> None:
    first, second = Messages(state=b"something"), Messages(state=b"my state")
    a = faithful("a", "127.0.0.1", delegates={"delegate": first}, gossip_interval=0.1)
    b = faithful("b", "127.0.0.2", delegates={"delegate": second}, gossip_interval=0.1)
    network = Network(a, b)
    messages = [b"test %d" % n for n in range(256)]
    first.broadcasts = list(messages)

    assert network.join(b, a) is None
    network.run(5.0)

    assert sorted(m.data for m in network.events(b, UserMessage)) == sorted(messages)
    assert network.events(a, RemoteState) == [RemoteState(b"my state", True)]
    assert network.events(b, RemoteState) == [RemoteState(b"something", True)]
    assert max(len(data) for _, _, data in network.raw) <= 1400 + 7, "the budget leaves out a length and a checksum"


def test_Memberlist_SendTo() -> None:
    a = faithful("a", "127.0.0.1", delegates={"delegate": Messages()})
    b = faithful("b", "127.0.0.2", delegates={"delegate": Messages()})
    network = Network(a, b)
    network.join(b, a)
    a.send_user(b"ping", b.local_node.address, network.now, name="b")
    b.send_user(b"pong", a.local_node.address, network.now)
    network.flush()
    assert network.events(b, UserMessage) == [UserMessage(b"ping", ("127.0.0.1", 7946))]
    assert network.events(a, UserMessage) == [UserMessage(b"pong", ("127.0.0.2", 7946))]


def test_Memberlist_PingDelegate() -> None:
    class Payload(BasePingDelegate):
        def ack_payload(self) -> bytes:
            return b"whatever"

    a, b = (
        faithful(name, host, delegates={"ping": Payload()}, probe_interval=0.1, probe_timeout=0.05)
        for name, host in (("a", "127.0.0.1"), ("b", "127.0.0.2"))
    )
    network = Network(a, b, latency=0.004)
    network.join(b, a)
    network.run(0.5)
    for swim, other in ((a, "b"), (b, "a")):
        done = network.events(swim, PingComplete)
        assert done
        assert {(e.node.name, e.payload) for e in done} == {(other, b"whatever")}
        assert all(e.rtt == pytest.approx(0.008) for e in done)


def test_Memberlist_Restart_delegateMeta_Update() -> None:
    """A node that comes back with new metadata before anybody missed it is believed, though its incarnation is old."""
    a = faithful("a", "127.0.0.1", delegates={"delegate": Messages(b"web")}, **LIVELY)
    b = faithful("b", "127.0.0.2", delegates={"delegate": Messages(b"lb")}, **LIVELY)
    network = Network(a, b)
    network.join(a, b)
    network.run(1.0)

    network.remove(a)
    again = network.add(
        faithful("a", "127.0.0.1", delegates={"delegate": Messages(b"api")}, seed=1, start=False, **LIVELY)
    )
    assert again.incarnation == 1 == record(b, "a").incarnation
    assert network.join(again, b) is None
    network.run(2.0)

    for swim in (again, b):
        assert record(swim, "a").meta == b"api"
        assert record(swim, "b").meta == b"lb"
        assert named(swim.members()) == ["a", "b"]
    assert again.incarnation == 2
    assert [e.node.meta for e in network.events(b, NodeUpdated)] == [b"api"]
