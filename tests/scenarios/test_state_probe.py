"""Go's ``state_test.go``, the half about failure detection: probe, suspicion by size of cluster, ping, acks."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.acks import Acks
from mycorrizal._swim.events import NodeLeft, OperationDone
from mycorrizal._swim.timers import Timers
from mycorrizal._wire.messages import Alive, Dead, IndirectPing, NackResp, Ping, Suspect
from mycorrizal.exceptions import NoPingResponse
from mycorrizal.types import NodeState
from tests._swim.harness import VSN, alive, drain, events, queued, record, run_timers, sent, state, tell
from tests.scenarios.network import Network, faithful

FAST: dict[str, Any] = {"probe_interval": 0.2, "probe_timeout": 0.01}
OLD_VSN = bytes((1, 2, 2, 0, 0, 0))  # cannot be pinged over TCP, cannot send nacks
NO_NACK_VSN = bytes((1, 3, 2, 0, 0, 0))


def claim(swim: Swim, vsn: bytes = VSN) -> Alive:
    """Return what `swim` would say of itself."""
    own = swim.local_node
    return Alive(1, own.name, own.addr, own.port, b"", vsn)


def cluster(prober: Swim, *peers: Swim, vsn: bytes = VSN, target: bytes = VSN) -> Network:
    """Return a network in which `prober` knows its peers and "bad", which runs nowhere."""
    network = Network(prober, *peers)
    tell(prober, *(claim(peer, vsn) for peer in peers), alive("bad", "127.0.0.4", vsn=target))
    prober._core.queue.reset()
    network.forget()
    return network


def probe(network: Network, swim: Swim, name: str) -> float:
    """Let `swim` probe `name` once; return how long it took."""
    member = swim._core.table.get(name)
    assert member is not None
    swim._prober.probe_member(member, network.now)
    took = network.run_until(lambda: swim._prober._active is None, 60.0)
    assert took is not None
    return took


def peers(**settings: Any) -> tuple[Swim, Swim, Swim]:
    """Return three machines whose own periodic work is off; the first is to probe."""
    first, second, third = (faithful(f"m{n}", f"127.0.0.{n}", start=False, **{**FAST, **settings}) for n in (1, 2, 3))
    for swim in (first, second, third):
        swim._prober.start = lambda now: None  # type: ignore[method-assign]
        swim.start(0.0)
    return first, second, third


# -- one probe -------------------------------------------------------------------------------


def test_MemberList_Probe() -> None:
    m1, m2 = faithful("m1", "127.0.0.1", **FAST), faithful("m2", "127.0.0.2")
    network = Network(m1, m2)
    tell(m1, claim(m2))
    network.run(0.39)  # the first tick comes in the second interval
    assert [(p.seq_no, p.node) for p in network.sent("m1", Ping)] == [(1, "m2")]
    assert state(m1, "m2") == NodeState.ALIVE


def test_MemberList_ProbeNode() -> None:
    m1, m2, _ = peers()
    network = cluster(m1, m2)
    assert probe(network, m1, "m2") == 0.0
    assert state(m1, "m2") == NodeState.ALIVE
    assert [(p.seq_no, p.source_node) for p in network.sent("m1", Ping)] == [(1, "m1")]


def test_MemberList_ProbeNode_Suspect() -> None:
    m1, m2, m3 = peers()
    network = cluster(m1, m2, m3)
    assert probe(network, m1, "bad") == pytest.approx(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    asked = network.sent("m1", IndirectPing)
    assert [(r.seq_no, r.node, r.nack) for r in asked] == [(1, "bad", True)] * 2
    for peer in ("m2", "m3"):
        assert [(p.seq_no, p.node) for p in network.sent(peer, Ping)] == [(1, "bad")], "with a number of its own"


@pytest.mark.parametrize(
    ("peers_known", "confirmations", "milliseconds"),
    [
        (1, 0, 500), (2, 0, 500), (3, 0, 500),
        (4, 0, 1000), (5, 0, 1000),
        (5, 1, 750), (5, 2, 604), (5, 3, 500), (5, 4, 500),
    ],
)  # fmt: skip
def test_MemberList_ProbeNode_Suspect_Dogpile(peers_known: int, confirmations: int, milliseconds: int) -> None:
    settings = {"probe_interval": 0.1, "probe_timeout": 0.001, "suspicion_mult": 5, "suspicion_max_timeout_mult": 2}
    m1, _, _ = peers(**settings)
    network = cluster(m1)
    tell(m1, *(alive(f"peer{n}") for n in range(peers_known - 1)))

    probe(network, m1, "bad")
    assert state(m1, "bad") == NodeState.SUSPECT
    began = network.now
    tell(m1, *(Suspect(1, "bad", f"peer{n}") for n in range(confirmations)), now=began)

    assert network.run_until(lambda: state(m1, "bad") == NodeState.DEAD, 10.0) == pytest.approx(
        milliseconds / 1000, abs=0.0015
    )
    assert len(network.events(m1, NodeLeft)) == 1


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_MemberList_ProbeNode_FallbackTCP(latency: float) -> None:
    m1, m2, m3 = peers()
    target = faithful("bad", "127.0.0.4")
    network = cluster(m1, m2, m3)
    network.latency = latency
    network.add(target)
    for swim in (m1, m2, m3):
        network.cut_both(swim, target, "udp")
    assert probe(network, m1, "bad") == pytest.approx(0.2), "the answer over TCP does not shorten the wait"
    assert state(m1, "bad") == NodeState.ALIVE
    assert [p.seq_no for p in network.sent("m1", Ping, over="tcp")] == [1], "the same ping as over UDP"
    assert m1.health_score == 0
    for peer in ("m2", "m3"):
        assert [p.node for p in network.sent(peer, Ping)] == ["bad"]


@pytest.mark.parametrize("how", ["everywhere", "for this node"])
def test_MemberList_ProbeNode_FallbackTCP_Disabled(how: str) -> None:
    off: dict[str, Any] = {"disable_tcp_pings": True}
    if how == "for this node":
        off = {"disable_tcp_pings_for_node": lambda name: name == "bad"}
    m1, m2, m3 = peers(**off)
    target = faithful("bad", "127.0.0.4")
    network = cluster(m1, m2, m3)
    network.add(target)
    for swim in (m1, m2, m3):
        network.cut_both(swim, target, "udp")
    assert probe(network, m1, "bad") == pytest.approx(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    assert network.sent("m1", Ping, over="tcp") == []


def test_MemberList_ProbeNode_FallbackTCP_OldProtocol() -> None:
    m1, m2, m3 = peers()
    target = faithful("bad", "127.0.0.4")
    network = cluster(m1, m2, m3, target=OLD_VSN)
    network.add(target)
    for swim in (m1, m2, m3):
        network.cut_both(swim, target, "udp")
    assert probe(network, m1, "bad") == pytest.approx(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    assert network.sent("m1", Ping, over="tcp") == []


# -- awareness -------------------------------------------------------------------------------


def test_MemberList_ProbeNode_Awareness_Degraded() -> None:
    m1, m2, m3 = peers()
    network = cluster(m1, m2, m3)
    m1._core.awareness.apply(1)
    assert probe(network, m1, "bad") == pytest.approx(0.4), "twice the interval"
    assert state(m1, "bad") == NodeState.SUSPECT
    for peer in ("m2", "m3"):
        assert len(network.sent(peer, Ping)) == 1
        assert network.sent(peer, NackResp) == [NackResp(1)]
    assert m1.health_score == 1, "all nacks came, so the score stays"


def test_MemberList_ProbeNode_Wrong_VSN() -> None:
    m1, _, _ = peers()
    tell(m1, alive("wrong", vsn=bytes(6)))
    assert state(m1, "wrong") is None
    assert m1.counters["alive.version_refused"] == 1


def test_MemberList_ProbeNode_Awareness_Improved() -> None:
    m1, m2, _ = peers()
    network = cluster(m1, m2)
    m1._core.awareness.apply(1)
    probe(network, m1, "m2")
    assert state(m1, "m2") == NodeState.ALIVE
    assert m1.health_score == 0


def test_MemberList_ProbeNode_Awareness_MissedNack() -> None:
    m1, m2, m3 = peers()
    network = cluster(m1, m2, m3)
    network.remove(m3)
    assert probe(network, m1, "bad") == pytest.approx(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    assert m1.health_score == 1


def test_MemberList_ProbeNode_Awareness_OldProtocol() -> None:
    m1, m2, m3 = peers()
    network = cluster(m1, m2, m3, vsn=NO_NACK_VSN)
    assert probe(network, m1, "bad") == pytest.approx(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    assert [r.nack for r in network.sent("m1", IndirectPing)] == [False, False]
    for peer in ("m2", "m3"):
        assert network.sent(peer, NackResp) == []
    assert m1.health_score == 1


def test_MemberList_ProbeNode_Buddy() -> None:
    m1, m2, _ = peers()
    network = cluster(m1, m2)
    tell(m1, Suspect(1, "m2", "somebody"))
    network.flush()
    m2._core.queue.reset()
    assert state(m1, "m2") == NodeState.SUSPECT

    probe(network, m1, "m2")

    assert [p.seq_no for p in network.sent("m1", Ping)] == [1]
    assert network.sent("m1", Suspect) == [Suspect(1, "m2", "m1")]
    refutation = Alive(2, "m2", record(m2, "m2").addr, 7946, None, VSN)
    assert queued(m2) == [refutation]
    assert m2.incarnation == 2


# -- ping ------------------------------------------------------------------------------------


def test_MemberList_Ping() -> None:
    m1, m2, _ = peers(probe_timeout=0.1)
    network = cluster(m1, m2)
    network.latency = 0.015
    good = m1.ping("m2", m2.local_node.address, network.now)
    network.run(0.05)
    wrong = m1.ping("not m2", m2.local_node.address, network.now)
    asked = network.now
    network.run(1.0)
    ends = {e.operation_id: e for e in network.events(m1, OperationDone)}
    assert ends[good].error is None
    assert ends[good].result == pytest.approx(0.030)
    assert isinstance(ends[wrong].error, NoPingResponse)
    assert network.when(m1, OperationDone)[1] - asked == pytest.approx(0.1)
    assert state(m1, "m2") == NodeState.ALIVE


def test_MemberList_NextSeq() -> None:
    m1, _, _ = peers()
    assert [m1._core.next_sequence() for _ in range(2)] == [1, 2]
    m1._core._sequence = 0xFFFFFFFF
    assert m1._core.next_sequence() == 0, "a u32 on the wire"


# -- who waits for an ack ----------------------------------------------------------------------


class Waiting:
    """Records the end of waits."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.acks = Acks(self.timers)
        self.said: list[tuple[object, ...]] = []

    def expect(self, sequence: int, deadline: float) -> None:
        self.acks.expect(
            sequence, deadline,
            lambda payload, now: self.said.append(("ack", payload, now)),
            lambda now: self.said.append(("expired", now)),
            lambda: self.said.append(("nack",)),
        )  # fmt: skip


def test_MemberList_setProbeChannels() -> None:
    waiting = Waiting()
    waiting.expect(0, 0.020)
    assert len(waiting.acks) == 1
    waiting.timers.fire(0.019)
    assert waiting.said == []
    waiting.timers.fire(0.021)
    assert waiting.said == [("expired", 0.021)]
    assert len(waiting.acks) == 0


def test_MemberList_setAckHandler() -> None:
    """A relay waits for an ack as well, and forgets it when its time is over."""
    m1, _, _ = peers()
    tell(m1, IndirectPing(9, b"\x7f\0\0\x04", 7946, "bad", False, b"\x7f\0\0\x02", 7946, "m2"))
    assert m1.gauges["acks.pending"] == 1
    run_timers(m1, 0.011)
    assert m1.gauges["acks.pending"] == 0


def test_MemberList_invokeAckHandler() -> None:
    waiting = Waiting()
    assert not waiting.acks.ack(0, b"", 1.0), "nobody waits for it"
    waiting.expect(0, 10.0)
    assert waiting.acks.ack(0, b"", 1.0)
    assert waiting.said == [("ack", b"", 1.0)]
    assert len(waiting.acks) == 0
    waiting.timers.fire(20.0)
    assert not waiting.acks.ack(0, b"", 21.0)
    assert len(waiting.said) == 1, "it ends once"


def test_MemberList_invokeAckHandler_Channel_Ack() -> None:
    waiting = Waiting()
    waiting.expect(7, 10.0)
    assert not waiting.acks.ack(6, b"other", 1.0)
    assert waiting.acks.ack(7, b"payload", 2.0)
    assert waiting.said == [("ack", b"payload", 2.0)]
    assert len(waiting.acks) == 0


def test_MemberList_invokeAckHandler_Channel_Nack() -> None:
    waiting = Waiting()
    waiting.acks.nack(7)
    waiting.expect(7, 10.0)
    waiting.acks.nack(7)
    waiting.acks.nack(7)
    assert waiting.said == [("nack",)] * 2
    assert len(waiting.acks) == 1, "a nack does not end the wait"
    assert waiting.acks.ack(7, b"late", 3.0)
    assert waiting.said[-1] == ("ack", b"late", 3.0)


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(), ConnectionResetError(), TimeoutError(), OSError("no route")]
)
def test_Memberlist_FailedRemote(error: Exception) -> None:
    """Which errors of a socket make a probe go on at once with the indirect part.

    A datagram to the target that could not be written does, and costs the
    score nothing; one to somebody else does not. Whatever ends the
    conversation over TCP counts as no contact.
    """
    m1, m2, m3 = peers()
    network = cluster(m1, m2, m3)
    m1._prober.probe_member(m1._core.table.get("bad"), 0.0)  # type: ignore[arg-type]
    sent(m1)
    m1.write_failed(("127.0.0.2", 7946), 0.001)
    m1.write_failed(("127.0.0.4", 1), 0.001)
    assert sent(m1) == []
    m1.write_failed(("127.0.0.4", 7946), 0.002)
    assert [m.node for m, _ in sent(m1) if isinstance(m, IndirectPing)] == ["bad", "bad"]
    request = m1.exchanges_to_start()[0]
    m1.exchange_failed(request.exchange_id, error, 0.003)
    network.run(0.2)
    assert state(m1, "bad") == NodeState.SUSPECT
    assert m1.health_score == 2, "two peers that were asked for a nack sent none"

    m1.write_failed(("127.0.0.4", 7946), network.now)  # nothing is under way
    drain(m1)
    assert events(m1) == []


def test_a_dead_or_left_node_is_not_probed() -> None:
    m1 = faithful("m1", "127.0.0.1", **FAST)
    network = Network(m1)
    tell(m1, alive("dead"), alive("left"), Dead(1, "dead", "x"), Dead(1, "left", "left"))
    network.run(5.0)
    assert network.sent("m1", Ping) == []
