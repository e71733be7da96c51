"""Go's ``net_test.go``: packets and streams as they come in and go out."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import PacketRejected, UserMessage
from mycorrizal._wire.codec import body_codec, encode_message
from mycorrizal._wire.messages import (
    AckResp,
    Alive,
    Err,
    IndirectPing,
    Message,
    Ping,
    PushNodeState,
    PushPull,
    PushPullHeader,
    User,
    UserMsgHeader,
)  # fmt: skip
from mycorrizal._wire.packet import join_compound
from mycorrizal._wire.security import Keyring, decrypt_payload
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.config import Config
from mycorrizal.delegates import BaseDelegate
from mycorrizal.exceptions import PeerRefused, RemoteProtocolError
from mycorrizal.types import Address, NodeState
from tests._swim.harness import alive, drain, events, nonces, queued, run_timers, sent, state, tell
from tests.scenarios.network import Network, answer_bytes, faithful, named

CODEC = body_codec("msgpack")
PEER: Address = ("127.0.0.2", 5555)
SOURCE: dict[str, Any] = {"source_addr": b"\x7f\0\0\x03", "source_port": 6666, "source_node": "asker"}
KEY = bytes(range(16))


def machine(**settings: Any) -> Swim:
    """Return a machine with nothing to gossip."""
    swim = faithful("self", "127.0.0.1", **settings)
    swim._core.queue.reset()
    drain(swim)
    return swim


def streams(**settings: Any) -> StreamCodec:
    config = Config(**{"name": "peer", "wire": "msgpack", "enable_compression": False, **settings})
    return StreamCodec(config, Keyring((), config.secret_key), nonces("peer"))


# -- packets -----------------------------------------------------------------------------------


def test_HandleCompoundPing() -> None:
    swim = machine()
    pings = [encode_message(CODEC, Ping(n, "self", **SOURCE)) for n in (42, 43, 44)]
    swim.receive_datagram(join_compound(pings), PEER, 0.0)
    assert sent(swim) == [(AckResp(n, None), ("127.0.0.3", 6666)) for n in (42, 43, 44)]


def test_HandlePing() -> None:
    swim = machine()
    tell(swim, Ping(42, "self", **SOURCE), sender=PEER)
    assert sent(swim) == [(AckResp(42, None), ("127.0.0.3", 6666))], "to the source fields"
    tell(swim, Ping(43, ""), sender=PEER)
    assert sent(swim) == [(AckResp(43, None), PEER)], "without them, to where it came from"


@pytest.mark.parametrize("name", ["self-bad", "Self", "sel"])
def test_HandlePing_WrongNode(name: str) -> None:
    swim = machine()
    tell(swim, Ping(42, name, **SOURCE), sender=PEER)
    run_timers(swim, 10.0)
    assert sent(swim) == []
    assert swim.counters["pings_misdirected"] == 1


def test_HandleIndirectPing() -> None:
    swim = machine()
    network = Network(swim)
    tell(swim, IndirectPing(100, b"\x7f\0\0\1", 7946, "self", False, **SOURCE), sender=PEER)
    network.run(1.0)
    acks = [(s.message, s.to) for s in network.log if isinstance(s.message, AckResp)]
    assert (AckResp(100, None), ("127.0.0.3", 6666)) in acks, "the number of the one who asked"


class Fallback:
    """A probe that got no answer over UDP and has just dialled its target."""

    def __init__(self) -> None:
        self.swim = faithful("self", "127.0.0.1", start=False, probe_interval=1.0, probe_timeout=0.1)
        self.swim._prober.start = lambda now: None  # type: ignore[method-assign]
        self.swim.start(0.0)
        tell(self.swim, alive("target", "127.0.0.2"))
        self.swim._prober.probe_member(self.swim._core.table.get("target"), 0.0)  # type: ignore[arg-type]
        run_timers(self.swim, 0.1)
        self.request = self.swim.exchanges_to_start()[0]

    def end(self) -> NodeState | None:
        run_timers(self.swim, 2.0)
        return state(self.swim, "target")


@pytest.mark.parametrize(
    ("answer", "contact"),
    [
        (AckResp(1, None), True),
        (AckResp(2, None), False),
        (IndirectPing(1), False),
        (Err("whatever"), False),
        (None, False),
    ],
    ids=["success", "other number", "unexpected type", "error", "nothing"],
)
def test_TCPPing(answer: Message | None, contact: bool) -> None:
    fallback = Fallback()
    assert fallback.request.address == ("127.0.0.2", 7946)
    assert fallback.request.message == Ping(1, "target", b"\x7f\0\0\1", 7946, "self")
    assert fallback.request.expects_reply
    assert fallback.request.deadline == 1.0
    fallback.swim.exchange_answered(fallback.request.exchange_id, answer, 0.2)
    assert fallback.end() == (NodeState.ALIVE if contact else NodeState.SUSPECT)


def test_ping_over_TCP_to_a_closed_port_is_no_contact_and_ends_in_time() -> None:
    fallback = Fallback()
    fallback.swim.exchange_failed(fallback.request.exchange_id, ConnectionRefusedError(), 0.1)
    run_timers(fallback.swim, 0.999)
    assert state(fallback.swim, "target") == NodeState.ALIVE
    run_timers(fallback.swim, 1.0)
    assert state(fallback.swim, "target") == NodeState.SUSPECT


def test_a_ping_over_TCP_for_somebody_else_is_not_answered() -> None:
    swim = machine()
    assert swim.answer_exchange(Ping(7, "other"), PEER, 0.0) is None
    assert swim.answer_exchange(Ping(7, "self"), PEER, 0.0) == AckResp(7, None)
    assert swim.answer_exchange(Ping(8, ""), PEER, 0.0) == AckResp(8, None)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_TCPPushPull(compressed: bool) -> None:
    swim = machine(enable_compression=compressed)
    tell(swim, alive("Test 0"))
    network = Network(swim)
    mine = PushNodeState("Test 0", b"\x7f\0\0\1", 7946, None, 1, 1, None)
    others = [PushNodeState(f"Test {n}", b"\x7f\0\0\1", 7946, None, 1, 0, None) for n in (1, 2)]
    dialler = streams(enable_compression=compressed)
    request = dialler.seal(PushPull((mine, *others), b"", False), answer=False)

    reply = answer_bytes(network.peer(swim), request, PEER, 0.0)

    assert reply is not None
    assert reply[0] == (9 if compressed else 6)
    answer = dialler.reader(answer=True).feed(reply)
    assert isinstance(answer, PushPull)
    assert sorted((n.name, n.state, n.vsn) for n in answer.nodes) == [
        ("Test 0", 0, bytes((1, 5, 2, 0, 0, 0))),
        ("self", 0, bytes((1, 5, 2, 0, 0, 0))),
    ], "the table of before the merge"
    assert answer.join is False


def test_SendMsg_Piggyback() -> None:
    swim = machine()
    rumour = Alive(10, "rand", b"\x7f\0\0\xff", 7946, None, b"\1\5\2\0\0\0")
    swim._core.queue_broadcast(rumour, "rand")
    tell(swim, Ping(42, "self", **SOURCE), sender=PEER)
    assert len(swim._core.datagrams) == 1
    assert swim._core.datagrams[0][0][:2] == b"\x07\x02"
    assert [m for m, _ in sent(swim)] == [AckResp(42, None), rumour]


# -- checksum and encryption ------------------------------------------------------------------


def test_EncryptDecryptState() -> None:
    codec = streams(secret_key=KEY)
    state_of_mine = PushPull((PushNodeState("a", b"\x7f\0\0\1", 1, b"m", 2, 0, b"\1\5\2\0\0\0"),), b"user state", True)
    sealed = codec.seal(state_of_mine, answer=False)
    assert sealed[0] == 10
    assert int.from_bytes(sealed[1:5], "big") == len(sealed) - 5
    assert decrypt_payload((KEY,), sealed[5:], sealed[:5]) == streams().seal(state_of_mine, answer=False)
    assert codec.reader(answer=False).feed(sealed) == state_of_mine


def test_RawSendUdp_CRC() -> None:
    swim = machine(delegates={"delegate": BaseDelegate()})
    address: Address = ("127.0.0.1", 9999)

    def packet(**how: Any) -> bytes:
        swim.datagrams_to_send()
        swim.send_user(b"test", address, 0.0, **how)
        return swim.datagrams_to_send()[0][0]

    assert packet() == b"\x08test", "an unknown node gets no checksum"
    tell(swim, alive("old", "127.0.0.1", port=9999, vsn=bytes((1, 4, 2, 0, 0, 0))))
    assert packet(name="old") == b"\x08test"
    tell(swim, alive("new", "127.0.0.1", port=9999))
    checked = packet(name="new")
    assert len(checked) == 5 + 5
    assert checked[0] == 12
    assert packet() == b"\x08test"
    tell(swim, alive("127.0.0.1", "127.0.0.1", port=9999))
    assert packet() == checked, "found by its address, which is its name"


def rejected(swim: Swim) -> list[str]:
    return [str(e.reason) for e in events(swim) if isinstance(e, PacketRejected)]


def test_IngestPacket_CRC() -> None:
    swim = machine(delegates={"delegate": BaseDelegate()})
    tell(swim, alive("new", "127.0.0.1", port=9999))
    drain(swim)
    swim.send_user(b"test", ("127.0.0.1", 9999), 0.0, name="new")
    data, _ = swim.datagrams_to_send()[0]
    swim.receive_datagram(data[:-1] + b"?", PEER, 0.0)
    assert len(refused := rejected(swim)) == 1
    assert "checksum" in refused[0]
    swim.receive_datagram(data, PEER, 0.0)
    assert events(swim) == [UserMessage(b"test", PEER)]


def test_IngestPacket_ExportedFunc_EmptyMessage() -> None:
    swim = machine()
    swim.receive_datagram(b"", PEER, 0.0)
    assert len(rejected(swim)) == 1
    assert swim.counters["packets_rejected"] == 1


def test_HandleCommand() -> None:
    swim = machine()
    swim.receive_datagram(join_compound([b"", encode_message(CODEC, Ping(1, "self", **SOURCE))]), PEER, 0.0)
    assert len(refused := rejected(swim)) == 1
    assert "type byte" in refused[0]
    assert [m for m, _ in sent(swim)] == [AckResp(1, None)], "the others of the same packet are handled"


def test_Gossip_MismatchedKeys() -> None:
    m1 = faithful("m1", "127.0.0.1", secret_key=bytes(range(16)))
    m2 = faithful("m2", "127.0.0.2", secret_key=bytes(range(16, 32)))
    network = Network(m1, m2)
    error = network.join(m2, m1)
    # m1 says so, encrypted with its own key, which m2 cannot open either.
    assert error is not None
    assert "no installed keys could decrypt" in str(error)
    assert named(m1.members()) == ["m1"]
    assert named(m2.members()) == ["m2"]


def test_a_refusal_that_can_be_read_is_told() -> None:
    m1 = faithful("m1", "127.0.0.1", secret_key=KEY, gossip_verify_outgoing=False)
    m2 = faithful("m2", "127.0.0.2")
    network = Network(m1, m2)
    error = network.join(m2, m1)
    assert isinstance(error, PeerRefused)
    assert "encryption is configured but remote state is not encrypted" in str(error)


# -- streams -----------------------------------------------------------------------------------


def refused_stream(*parts: bytes) -> tuple[RemoteProtocolError, bytes | None]:
    reader = streams().reader(answer=False)
    with pytest.raises(RemoteProtocolError) as caught:
        reader.feed(b"".join(parts))
    return caught.value, reader.reply


@pytest.mark.parametrize(("count", "user_state"), [(10_000_000, 0), (-1, 0), (0, 30_000_000), (0, -1)])
def test_ReadRemoteState_Limits(count: int, user_state: int) -> None:
    header = CODEC.encode(PushPullHeader(count, user_state, False))
    error, reply = refused_stream(b"\x06", header)
    assert str(count or user_state) in str(error)
    assert reply is None, "closed without a word"


@pytest.mark.parametrize("size", [30_000_000, -1])
def test_ReadUserMsg_Limit(size: int) -> None:
    error, reply = refused_stream(b"\x08" + CODEC.encode(UserMsgHeader(size)))
    assert str(size) in str(error)
    assert reply is None


def test_HandleConn_NilConnAfterRemoveLabelHeaderFromStream() -> None:
    """A connection that breaks while its label is read ends with an error and leaves nothing behind."""
    for broken in (b"\xf4", b"\xf4\x05", b"\xf4\x05lab"):
        reader = streams(label="label").reader(answer=False)
        assert reader.feed(broken) is None
        with pytest.raises(RemoteProtocolError):
            reader.feed_eof()
        assert reader.wanted == 0
        assert reader.reply is None


def test_what_has_no_place_on_a_stream_is_not_answered() -> None:
    swim = machine()
    assert swim.answer_exchange(alive("x"), PEER, 0.0) is None
    assert swim.answer_exchange(User(b"data"), PEER, 0.0) is None
    assert len(rejected(swim)) == 1
    assert queued(swim) == []
