"""Go's ``util_test.go``: arithmetic, samples, compounds, compression."""

from __future__ import annotations

import random

import pytest

from mycorrizal._swim.members import Member, MemberTable
from mycorrizal._swim.scaling import push_pull_scale, retransmit_limit, suspicion_timeout
from mycorrizal._wire import limits, lzw
from mycorrizal._wire.codec import body_codec, decode_message, encode_message
from mycorrizal._wire.messages import Dead, Ping, Suspect
from mycorrizal._wire.packet import PacketCodec, join_compound, split_compound
from mycorrizal._wire.security import Keyring
from mycorrizal.config import Config
from mycorrizal.exceptions import RemoteProtocolError
from mycorrizal.types import NodeState
from tests._swim.harness import FAITHFUL, VSN, alive, drain, make, nonces, state, tell
from tests.scenarios.network import Network, faithful

CODEC = body_codec("msgpack")


@pytest.mark.parametrize("wire", ["msgpack", "cbor"])
def test_EncodeDecode(wire: str) -> None:
    codec = body_codec(wire)
    message = Ping(100, "target", b"\x7f\0\0\1", 7946, "source")
    encoded = encode_message(codec, message)
    assert encoded[0] == 0
    assert decode_message(codec, encoded) == message


def table(count: int, seed: int = 0) -> MemberTable:
    members = MemberTable(random.Random(seed))
    for n in range(count):
        member = Member(f"test{n}", bytes((10, 0, 0, n)), 7946, None, VSN)
        member.state = (NodeState.ALIVE, NodeState.SUSPECT, NodeState.DEAD)[n % 3]
        members.add(member)
    return members


def test_RandomOffset() -> None:
    """A new member gets a random place in the probe order, every place as likely as another."""
    places = []
    for seed in range(200):
        members = table(9, seed)
        members.add(Member("last", b"\x0a\0\1\0", 7946, None, VSN))
        places.append([m.name for m in members].index("last"))
    assert set(places) == set(range(10))


def test_RandomOffset_Zero() -> None:
    """The first member of all finds an empty table."""
    members = table(0)
    members.add(Member("only", b"\x0a\0\0\1", 7946, None, VSN))
    assert [m.name for m in members] == ["only"]


@pytest.mark.parametrize(("n", "ms"), [(5, 1000), (10, 1000), (50, 1698), (100, 2000), (500, 2698), (1000, 3000)])
def test_SuspicionTimeout(n: int, ms: int) -> None:
    assert suspicion_timeout(3, n, 1.0) == pytest.approx(3 * ms / 1000)


def test_RetransmitLimit() -> None:
    assert [retransmit_limit(3, n) for n in (0, 1, 99)] == [0, 3, 6]


def test_ShuffleNodes() -> None:
    """The probe order is shuffled whenever it has been walked through, and keeps everybody."""
    members = table(8)
    before = [m.name for m in members]
    members.reap(lambda member: False)
    after = [m.name for m in members]
    assert after != before
    assert sorted(after) == sorted(before)


def test_PushPullScale() -> None:
    assert {push_pull_scale(n) for n in range(33)} == {1}
    assert {push_pull_scale(n) for n in range(33, 65)} == {2}
    assert {push_pull_scale(n) for n in range(65, 129)} == {3}


def test_MoveDeadNodes() -> None:
    """Dead and left nodes are forgotten beyond the window, recent ones stay."""
    swim = make(gossip_to_the_dead_time=15.0, **FAITHFUL)
    tell(swim, *(alive(f"{kind}{n}") for kind in ("dead", "left", "alive") for n in range(2)))
    tell(swim, Dead(1, "dead0", "x"), Dead(1, "left0", "left0"), now=0.1)
    tell(swim, Dead(1, "dead1", "x"), Dead(1, "left1", "left1"), now=10.0)
    drain(swim)
    swim._prober._reap(20.0)
    assert [node.name for node in swim.nodes()] == ["alive0", "alive1", "dead1", "left1", "self"]
    assert state(swim, "dead1") == NodeState.DEAD
    assert state(swim, "left1") == NodeState.LEFT


def test_KRandomNodes() -> None:
    members = table(90)

    def wanted(member: Member) -> bool:
        return member.name != "test0" and member.state == NodeState.ALIVE

    draws = [tuple(m.name for m in members.sample(3, wanted)) for _ in range(3)]
    assert len(set(draws)) == 3
    for draw in draws:
        assert len(set(draw)) == 3
        assert "test0" not in draw
        assert all(int(name[4:]) % 3 == 0 for name in draw)


def test_k_random_nodes_of_few_are_found_without_fail() -> None:
    """In a small cluster the choice is exhaustive: whoever is eligible is found."""
    members = table(8)
    for _ in range(50):
        found = members.sample(3, lambda member: member.state == NodeState.ALIVE)
        assert sorted(m.name for m in found) == ["test0", "test3", "test6"]


PINGS = [encode_message(CODEC, Ping(100, "")) for _ in range(3)]


def test_MakeCompoundMessage() -> None:
    compound = join_compound(PINGS)
    assert len(compound) == 2 + 3 * 2 + 3 * len(PINGS[0])
    assert compound[:2] == b"\x07\x03"


def test_DecodeCompoundMessage() -> None:
    assert split_compound(join_compound(PINGS)[1:]) == (PINGS, 0)


def test_DecodeCompoundMessage_NumberOfPartsOverflow() -> None:
    for count in (128, 255):
        with pytest.raises(RemoteProtocolError):
            split_compound(bytes((count,)))
    with pytest.raises(RemoteProtocolError):
        split_compound(b"")


def test_DecodeCompoundMessage_Trunc() -> None:
    parts, lost = split_compound(join_compound(PINGS)[1:-5])
    assert parts == PINGS[:2]
    assert lost == 1


def test_a_cut_compound_delivers_its_whole_parts() -> None:
    a = faithful("a", "10.0.0.1")
    tell(a, alive("b"), alive("c"))
    parts = [encode_message(CODEC, Suspect(1, name, "x")) for name in ("b", "c")]
    a.receive_datagram(join_compound(parts)[:-1], ("10.0.0.9", 7946), 0.0)
    assert (state(a, "b"), state(a, "c")) == (NodeState.SUSPECT, NodeState.ALIVE)
    assert a.counters["packets_rejected"] == 1


def test_CompressDecompressPayload() -> None:
    config = Config(name="self", wire="msgpack", enable_compression=True)
    codec = PacketCodec(config, Keyring(), nonces("unused"))
    message = Ping(1, "testing" * 20)
    [datagram] = codec.seal([codec.encode(message)], crc=False)
    assert datagram[0] == 9
    assert len(datagram) < len(codec.encode(message))
    assert codec.open(datagram).messages == [message]

    short = codec.encode(Ping(1, "short"))
    assert codec.seal([short], crc=False) == [short], "what would become longer goes as it is"


def test_DecompressPayload_Limit() -> None:
    assert limits.DECOMPRESSED_MAX == 40 << 20
    size = (20 << 20) + 1
    codes = lzw.compress(bytes(size))
    assert len(lzw.decompress(codes, limits.DECOMPRESSED_MAX)) == size
    with pytest.raises(RemoteProtocolError, match="limit"):
        lzw.decompress(codes, size - 1)


def test_network_of_the_scenarios_loses_nothing() -> None:
    """The stage itself: a message sent is a message delivered, in virtual time."""
    a, b = faithful("a", "10.0.0.1"), faithful("b", "10.0.0.2")
    network = Network(a, b, latency=0.010)
    assert network.join(b, a) is None
    assert network.now == pytest.approx(0.020)
    assert [n.name for n in a.members()] == [n.name for n in b.members()] == ["a", "b"]
