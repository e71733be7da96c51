"""Bounds on what others can make a node do, and delegates that misbehave: the node says so and goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import DelegateFault, NodeJoined, NodeLeft, UserMessage
from mycorrizal._wire.messages import (
    AckResp,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Ping,
    PushNodeState,
    PushPull,
    Suspect,
)
from mycorrizal.config import META_MAX_SIZE
from mycorrizal.delegates import BaseDelegate, BasePingDelegate
from mycorrizal.exceptions import LocalProtocolError, MetaTooLarge
from mycorrizal.types import Node, NodeState, pack_host
from tests._swim.harness import VSN, alive, drain, events, host_for, make, queued, record, sent, state, tell
from tests.scenarios.network import LIVELY, Network, named

PEER = ("10.0.0.9", 7946)
U32_MAX = 0xFFFFFFFF


def entry(name: str, incarnation: int, node_state: int = 0, host: str = "10.0.0.2") -> PushNodeState:
    return PushNodeState(name, pack_host(host), 7946, None, incarnation, node_state, VSN)


# -- incarnations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("incarnation", [U32_MAX, U32_MAX - 1, U32_MAX - 0x7FFF])
def test_incarnations_that_leave_no_room_to_refute_are_refused(incarnation: int) -> None:
    swim = make("self", "10.0.0.1")
    tell(swim, alive("peer"))
    drain(swim)
    own = swim.local_node
    claims: list[Message] = [
        Alive(incarnation, "self", own.addr, own.port, b"x", VSN),
        *(cls(incarnation, name, "x") for cls in (Suspect, Dead) for name in ("self", "peer")),
        alive("peer", incarnation=incarnation), alive("stranger", incarnation=incarnation),
    ]  # fmt: skip
    for claim in claims:
        tell(swim, claim)
    pushed = (entry("peer", incarnation), entry("peer", incarnation, 2), entry("self", incarnation, 2))
    swim.answer_exchange(PushPull(pushed), PEER, 0.0)

    assert [(n.name, n.state, n.incarnation) for n in swim.nodes()] == [("peer", 0, 1), ("self", 0, 1)]
    assert swim.incarnation == 1
    assert swim.counters["incarnation_refused"] >= len(claims)
    assert events(swim) == []


def taken(incarnation: int) -> bool:
    """Whether an accusation of `incarnation` is believed."""
    swim = make("self", "10.0.0.1")
    tell(swim, alive("peer"), Suspect(incarnation, "peer", "x"))
    return state(swim, "peer") == NodeState.SUSPECT


def test_an_accusation_that_is_taken_can_be_refuted() -> None:
    """The greatest incarnation that is believed leaves room for an answer that is believed too."""
    accused, witness = make("accused", "10.0.0.1"), make("witness", "10.0.0.2")
    network = Network(accused, witness)
    network.join(witness, accused)
    low, high = 1, U32_MAX  # taken, refused
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) else (low, middle)
    for swim in (accused, witness):
        tell(swim, Suspect(low, "accused", "x"))
    assert accused.incarnation in (1, low + 1)
    for refutation in [m for m in queued(accused) if isinstance(m, Alive) and m.node == "accused"]:
        tell(witness, refutation)
    assert state(witness, "accused") == NodeState.ALIVE


def test_an_old_incarnation_of_ours_is_outbid_up_to_the_bound() -> None:
    swim = make("self", "10.0.0.1")
    tell(swim, Suspect(3_000_000_000, "self", "x"))
    assert swim.incarnation == 3_000_000_001


# -- the table ---------------------------------------------------------------------------------------


def test_the_table_is_bounded() -> None:
    swim = make("self", "10.0.0.1", max_nodes=5, gossip_to_the_dead_time=10.0)
    tell(swim, *(alive(f"peer{n}") for n in range(10)))
    swim.answer_exchange(PushPull(tuple(entry(f"pushed{n}", 1) for n in range(10))), PEER, 0.0)
    assert len(swim.nodes()) == 5
    assert swim.counters["alive.table_full"] == 16
    assert len([e for e in events(swim) if isinstance(e, NodeJoined)]) == 5

    tell(swim, alive("peer0", incarnation=2, meta=b"known ones go on"))
    assert record(swim, "peer0").meta == b"known ones go on"
    tell(swim, Dead(1, "peer1", "x"))
    swim._prober._reap(11.0)
    tell(swim, alive("latecomer"))
    assert state(swim, "latecomer") == NodeState.ALIVE, "where one is forgotten there is room for another"


def test_relays_and_claims_are_bounded() -> None:
    swim = make("self", "10.0.0.1")
    requests = [
        IndirectPing(n, b"\x0a\0\0\x63", 7946, "target", True, b"\x0a\0\0\x09", 7946, "asker") for n in range(4200)
    ]
    tell(swim, *requests)
    assert swim.gauges["acks.pending"] <= 4096
    assert swim.counters["indirect_pings_refused"] == 4200 - 4096

    swim = make("self", "10.0.0.1")
    tell(swim, *(alive(f"peer{n}", "10.1.0.1", port=1000 + n) for n in range(300)))
    drain(swim)
    tell(swim, *(alive(f"peer{n}", "10.1.0.2", 2, port=1000 + n) for n in range(300)))
    assert len([m for m, _ in sent(swim) if isinstance(m, Ping)]) == 256


@pytest.mark.parametrize("size", [META_MAX_SIZE + 1, 5000])
def test_metadata_of_others_that_is_too_long_is_refused(size: int) -> None:
    swim = make("self", "10.0.0.1")
    tell(swim, alive("peer", meta=bytes(size)))
    assert state(swim, "peer") is None


# -- supply delegates -------------------------------------------------------------------------------------


class Supplies(BaseDelegate, BasePingDelegate):
    """A delegate whose answers are given one by one."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def _give(self, what: str, default: Any) -> Any:
        given = self.answers.get(what, default)
        if isinstance(given, Exception):
            raise given
        return given() if callable(given) else given

    def node_meta(self, limit: int) -> bytes:
        return self._give("node_meta", b"")  # type: ignore[no-any-return]

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return self._give("get_broadcasts", ())  # type: ignore[no-any-return]

    def local_state(self, join: bool) -> bytes:
        return self._give("local_state", b"")  # type: ignore[no-any-return]

    def ack_payload(self) -> bytes:
        return self._give("ack_payload", b"")  # type: ignore[no-any-return]


def supplied(delegate: Supplies, **settings: Any) -> Swim:
    return make("self", "10.0.0.1", delegates={"delegate": delegate, "ping": delegate}, **settings)


def faults(swim: Swim) -> list[tuple[str, str]]:
    return [(e.call, e.message) for e in events(swim) if isinstance(e, DelegateFault)]


def half_then_raise() -> Iterable[bytes]:
    yield b"one"
    raise RuntimeError("no more")


def test_get_broadcasts_that_returns_too_much() -> None:
    delegate = Supplies()
    swim = supplied(delegate)
    tell(swim, alive("peer"))
    swim._core.queue.reset()
    drain(swim)
    delegate.answers["get_broadcasts"] = [b"a" * 600, b"b" * 600, b"c" * 600, b"d"]
    swim._gossiper.round(0.0)
    datagrams = swim._core.datagrams
    assert all(len(data) <= 1400 + 7 for data, _ in datagrams)
    assert [len(m.data) for m, _ in sent(swim)] == [600, 600, 1], "what fits goes out"  # type: ignore[union-attr]
    [(call, message)] = faults(swim)
    assert call == "get_broadcasts"
    assert "1 messages were dropped" in message
    assert swim.counters["delegate.broadcasts_dropped"] == 1
    assert swim.counters["delegate.faults"] == 1


@pytest.mark.parametrize(
    "answer", [RuntimeError("oops"), half_then_raise, ["text"], 5, None, [None]],
    ids=["raises", "raises half way", "text", "a number", "None", "a None in it"],
)  # fmt: skip
def test_get_broadcasts_that_returns_nonsense(answer: Any) -> None:
    swim = supplied(Supplies(get_broadcasts=answer))
    tell(swim, alive("peer"))
    swim._core.queue.reset()
    tell(swim, Ping(7, "self", pack_host(host_for("peer")), 7946, "peer"), sender=PEER)
    assert AckResp(7, b"") in [m for m, _ in sent(swim)], "pings are answered all the same"
    assert [call for call, _ in faults(swim)] == ([] if answer is None else ["get_broadcasts"])


def test_node_meta_that_is_too_long() -> None:
    with pytest.raises(MetaTooLarge, match="513 bytes") as caught:
        supplied(Supplies(node_meta=bytes(META_MAX_SIZE + 1)))
    assert caught.value.field == "node_meta"

    delegate = Supplies(node_meta=b"good")
    swim = supplied(delegate)
    drain(swim)
    incarnation = swim.incarnation
    delegate.answers["node_meta"] = bytes(600)
    with pytest.raises(MetaTooLarge, match="600 bytes"):
        swim.update_meta(1.0)
    assert swim.local_node.meta == b"good"
    assert swim.incarnation == incarnation
    assert [call for call, _ in faults(swim)] == ["node_meta"]
    delegate.answers["node_meta"] = bytes(META_MAX_SIZE)
    swim.update_meta(2.0)
    assert len(swim.local_node.meta) == META_MAX_SIZE


def test_node_meta_that_raises() -> None:
    delegate = Supplies(node_meta=ValueError("not yet"))
    swim = supplied(delegate)
    assert swim.local_node.meta == b""
    [(call, message)] = faults(swim)
    assert call == "node_meta"
    assert "ValueError: not yet" in message

    delegate.answers["node_meta"] = b"good"
    swim.update_meta(1.0)
    assert swim.local_node.meta == b"good"


def test_metadata_is_kept_when_node_meta_raises_at_an_update() -> None:
    delegate = Supplies(node_meta=b"good")
    swim = supplied(delegate)
    delegate.answers["node_meta"] = ValueError("not now")
    try:
        swim.update_meta(1.0)
    except LocalProtocolError:
        pass  # saying so to the caller is as good
    assert [call for call, _ in faults(swim)] == ["node_meta"]
    assert swim.local_node.meta == b"good"


def test_local_state_that_is_too_big() -> None:
    swim = supplied(Supplies(local_state=bytes(20 * 1024 * 1024 + 1)))
    answer = swim.answer_exchange(PushPull((entry("peer", 1),), b"", True), PEER, 0.0)
    assert isinstance(answer, PushPull)
    assert answer.user_state == b"", "the members are exchanged, the state is left out"
    assert named(swim.members()) == ["peer", "self"]
    assert [call for call, _ in faults(swim)] == ["local_state"]


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("oops"),
        None,
        "text",
        3.5,
    ],
    ids=["raises", "None", "text", "a number"],
)
def test_local_state_that_is_nonsense(answer: Any) -> None:
    swim = supplied(Supplies(local_state=answer))
    reply = swim.answer_exchange(PushPull((entry("peer", 1),), b"", True), PEER, 0.0)
    assert isinstance(reply, PushPull)
    assert reply.user_state == b""
    assert named(swim.members()) == ["peer", "self"]
    assert [call for call, _ in faults(swim)] == ([] if answer is None else ["local_state"])


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("oops"),
        None,
        "text",
        3.5,
    ],
    ids=["raises", "None", "text", "a number"],
)
def test_ack_payload_that_is_nonsense(answer: Any) -> None:
    swim = supplied(Supplies(ack_payload=answer))
    tell(swim, Ping(7, "self"), sender=PEER)
    acks = [m for m, _ in sent(swim) if isinstance(m, AckResp)]
    assert [m.seq_no for m in acks] == [7]
    assert acks[0].payload in (None, b"")
    assert [call for call, _ in faults(swim)] == ([] if answer is None else ["ack_payload"])


def test_ack_payload_that_does_not_fit_a_datagram() -> None:
    """An ack that cannot be sent is no ack: the node would be taken for dead."""
    swim = supplied(Supplies(ack_payload=bytes(70_000)))
    tell(swim, Ping(7, "self"), sender=PEER)
    assert len(swim._core.datagrams[-1][0]) <= 65507
    assert [m.seq_no for m, _ in sent(swim) if isinstance(m, AckResp)] == [7]
    assert [call for call, _ in faults(swim)] == ["ack_payload"]


@pytest.mark.parametrize("answer", ["text", 3.5], ids=["text", "a number"])
def test_node_meta_that_is_nonsense(answer: Any) -> None:
    """Says what is wrong, and does not leave the machine half started or half updated."""
    delegate = Supplies(node_meta=b"good")
    swim = supplied(delegate)
    delegate.answers["node_meta"] = answer
    try:
        swim.update_meta(1.0)
    except LocalProtocolError:
        pass
    assert swim.local_node.meta == b"good"
    assert [call for call, _ in faults(swim)] == ["node_meta"]


class Raises:
    """Every delegate at once; whatever is asked, it raises."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.armed = False

    def _fail(self, call: str) -> None:
        self.calls.add(call)
        if self.armed:
            raise KeyError(call)

    def node_meta(self, limit: int) -> bytes:
        self._fail("node_meta")
        return b"meta"

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        self._fail("get_broadcasts")
        return []

    def local_state(self, join: bool) -> bytes:
        self._fail("local_state")
        return b"state"

    def ack_payload(self) -> bytes:
        self._fail("ack_payload")
        return b"payload"

    def notify_merge(self, peers: Sequence[Node]) -> None:
        self._fail("notify_merge")

    def notify_alive(self, node: Node) -> None:
        self._fail("notify_alive")

    def notify_msg(self, data: bytes) -> None:
        raise AssertionError("observation is not called by the machine")

    merge_remote_state: Callable[..., None] = notify_msg
    notify_ping_complete: Callable[..., None] = notify_msg


def test_delegates_that_always_raise_stop_nothing() -> None:
    trouble = Raises()
    swim = make(
        "self", "10.0.0.1", start=False,
        delegates={"delegate": trouble, "alive": trouble, "merge": trouble, "ping": trouble},
        disable_tcp_pings_for_node=lambda name: 1 / 0 > 0, **LIVELY,
    )  # fmt: skip
    peers = [make(f"peer{n}", f"10.0.0.{n + 2}", start=False, **LIVELY) for n in range(3)]
    network = Network(swim, *peers, latency=0.001)
    for joiner in (peers[0], peers[1]):
        assert network.join(joiner, swim) is None
    network.run(5.0)
    trouble.armed = True
    network.forget()
    peers[0].send_user(b"hello", swim.local_node.address, network.now)
    assert network.join(peers[2], peers[1]) is None
    network.run(60.0)
    peers[1].leave(network.now)
    network.run(40.0)

    assert trouble.calls == {
        "node_meta", "get_broadcasts", "local_state", "ack_payload", "notify_merge", "notify_alive",
    }  # fmt: skip
    assert [e.data for e in network.events(swim, UserMessage)] == [b"hello"]
    assert named(swim.members()) == ["peer0", "self"], "it admits nobody new, and notices who leaves"
    for peer in (peers[0], peers[2]):
        assert "self" in named(peer.members())
        assert [e.node.name for e in network.events(peer, NodeLeft)] == ["peer1"]
    called = {e.call for e in network.events(swim, DelegateFault)}
    assert {"get_broadcasts", "local_state", "ack_payload"} <= called
    assert swim.counters["delegate.faults"] >= len(network.events(swim, DelegateFault))
