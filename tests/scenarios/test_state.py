"""Go's ``state_test.go``, the half about claims: alive, suspect, dead, merge, gossip.

The other half is ``test_state_probe``.
"""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import Event, MergeRejected, NodeConflict, NodeJoined, NodeLeft, NodeUpdated
from mycorrizal._swim.members import verify_protocol
from mycorrizal._wire.messages import Alive, Dead, Message, PushNodeState, PushPull, Suspect
from mycorrizal.exceptions import MergeRefused
from mycorrizal.types import NodeState
from tests._swim.harness import VSN, alive, drain, events, queued, record, run_timers, sent, state, tell
from tests.scenarios.network import Network, faithful

TEST = ("127.0.0.1", 7946)


def machine(*others: str, **settings: Any) -> Swim:
    """Return a quiet machine that knows `others`, with nothing queued and nothing reported."""
    swim = faithful("self", "127.0.0.9", **settings)
    tell(swim, *(alive(name, incarnation=1) for name in others))
    settle(swim)
    return swim


def settle(swim: Swim) -> None:
    drain(swim)
    swim._core.queue.reset()


def about(swim: Swim, message: Message, now: float = 0.0) -> list[Event]:
    """Deliver `message`; return the membership events that follow."""
    tell(swim, message, now=now)
    return [e for e in events(swim) if isinstance(e, (NodeJoined, NodeLeft, NodeUpdated, NodeConflict))]


# -- alive ---------------------------------------------------------------------------------


def test_MemberList_AliveNode_NewNode() -> None:
    swim = machine()
    version = swim.node_version
    happened = about(swim, alive("test"), now=3.0)
    assert [(type(e), e.node.name) for e in happened] == [(NodeJoined, "test")]  # type: ignore[union-attr]
    assert state(swim, "test") == NodeState.ALIVE
    assert record(swim, "test").incarnation == 1
    assert queued(swim) == [alive("test")]
    assert swim.node_version != version


def test_MemberList_AliveNode_SuspectNode() -> None:
    swim = machine("test")
    tell(swim, Suspect(1, "test", "x"))
    settle(swim)

    assert about(swim, alive("test")) == []
    assert state(swim, "test") == NodeState.SUSPECT, "an old incarnation clears nothing"
    assert queued(swim) == []

    assert about(swim, alive("test", incarnation=2)) == [], "no event: it was a member all the time"
    assert state(swim, "test") == NodeState.ALIVE
    assert queued(swim) == [alive("test", incarnation=2)]
    run_timers(swim, 100.0)
    assert state(swim, "test") == NodeState.ALIVE, "and the suspicion's timer is gone"


def test_MemberList_AliveNode_Idempotent() -> None:
    swim = machine("test")
    changed = swim._core.table.get("test").changed  # type: ignore[union-attr]
    assert about(swim, alive("test", incarnation=2), now=5.0) == []
    assert record(swim, "test").incarnation == 2
    assert swim._core.table.get("test").changed == changed  # type: ignore[union-attr]
    assert queued(swim) == [alive("test", incarnation=2)]


def test_MemberList_AliveNode_ChangeMeta() -> None:
    swim = machine()
    tell(swim, alive("test", meta=b"val1"))
    settle(swim)
    happened = about(swim, alive("test", incarnation=2, meta=b"val2"))
    assert [type(e) for e in happened] == [NodeUpdated]
    assert happened[0].node.meta == b"val2"  # type: ignore[union-attr]
    assert record(swim, "test").meta == b"val2"


def test_MemberList_AliveNode_Refute() -> None:
    swim = machine()
    own = record(swim, "self")
    assert about(swim, Alive(2, "self", own.addr, own.port, b"foo", VSN)) == []
    assert record(swim, "self").meta == b"", "what others say about us is not taken"
    assert queued(swim) == [Alive(3, "self", own.addr, own.port, None, VSN)]
    assert swim.incarnation == 3


def test_MemberList_AliveNode_Conflict() -> None:
    swim = machine(dead_node_reclaim_time=10.0)
    tell(swim, alive("test", "127.0.0.1", port=8000))
    settle(swim)
    rival = alive("test", "127.0.0.2", 2, port=9000, meta=b"foo")

    happened = about(swim, rival, now=1.0)
    assert [type(e) for e in happened] == [NodeConflict]
    assert happened[0].existing.address == ("127.0.0.1", 8000)  # type: ignore[union-attr]
    assert happened[0].other.address == ("127.0.0.2", 9000)  # type: ignore[union-attr]
    assert record(swim, "test").address == ("127.0.0.1", 8000)
    assert state(swim, "test") == NodeState.ALIVE
    assert record(swim, "test").meta == b""
    assert queued(swim) == []

    tell(swim, Dead(2, "test", "x"), now=2.0)
    settle(swim)
    assert [type(e) for e in about(swim, rival, now=11.0)] == [NodeConflict], "dead, but not for long enough"
    happened = about(swim, rival, now=12.5)
    assert [type(e) for e in happened] == [NodeJoined]
    assert record(swim, "test").address == ("127.0.0.2", 9000)
    assert record(swim, "test").meta == b"foo"
    assert queued(swim) == [rival]


# -- suspect -------------------------------------------------------------------------------


def test_MemberList_SuspectNode_NoNode() -> None:
    swim = machine()
    assert about(swim, Suspect(1, "test", "x")) == []
    assert state(swim, "test") is None
    assert queued(swim) == []


def test_MemberList_SuspectNode() -> None:
    swim = machine("test", "other")
    suspicion = Suspect(1, "test", "other")
    assert about(swim, suspicion) == [], "a suspicion is no event"
    assert state(swim, "test") == NodeState.SUSPECT
    assert "test" in [node.name for node in swim.members()]
    assert queued(swim) == [suspicion]

    due = swim.get_timer()
    assert due is not None
    swim.handle_timer(due)
    assert state(swim, "test") == NodeState.DEAD
    assert [type(e) for e in events(swim)] == [NodeLeft]
    assert queued(swim) == [Dead(1, "test", "self")]


def test_MemberList_SuspectNode_DoubleSuspect() -> None:
    swim = machine("test")
    tell(swim, Suspect(1, "test", "x"))
    settle(swim)
    before, due = swim.nodes(), swim.get_timer()
    assert about(swim, Suspect(1, "test", "x"), now=1.0) == []
    assert queued(swim) == []
    assert (swim.nodes(), swim.get_timer()) == (before, due)


def test_MemberList_SuspectNode_OldSuspect() -> None:
    swim = machine()
    tell(swim, alive("test", incarnation=10))
    settle(swim)
    assert about(swim, Suspect(1, "test", "x")) == []
    assert state(swim, "test") == NodeState.ALIVE
    assert queued(swim) == []


def test_MemberList_SuspectNode_Refute() -> None:
    swim = machine()
    assert swim.health_score == 0
    assert about(swim, Suspect(1, "self", "x")) == []
    assert state(swim, "self") == NodeState.ALIVE
    assert [(type(m), m.incarnation, m.node) for m in queued(swim)] == [(Alive, 2, "self")]  # type: ignore[union-attr]
    assert swim.health_score == 1


# -- dead ----------------------------------------------------------------------------------


def test_MemberList_DeadNode_NoNode() -> None:
    swim = machine()
    assert about(swim, Dead(1, "test", "x")) == []
    assert state(swim, "test") is None
    assert queued(swim) == []


def test_MemberList_DeadNodeLeft() -> None:
    swim = machine("test")
    gone = Dead(1, "test", "test")
    assert [type(e) for e in about(swim, gone)] == [NodeLeft]
    assert state(swim, "test") == NodeState.LEFT
    assert queued(swim) == [gone]
    settle(swim)

    back = alive("test", "127.0.0.2", 3, port=9000, meta=b"foo")
    assert [type(e) for e in about(swim, back)] == [NodeJoined], "a left name is free at once"
    assert state(swim, "test") == NodeState.ALIVE
    assert record(swim, "test").address == ("127.0.0.2", 9000)
    assert queued(swim) == [back]


def test_MemberList_DeadNode() -> None:
    swim = machine("test")
    happened = about(swim, Dead(1, "test", "x"))
    assert [type(e) for e in happened] == [NodeLeft]
    assert happened[0].node.state == NodeState.DEAD  # type: ignore[union-attr]
    assert state(swim, "test") == NodeState.DEAD
    assert queued(swim) == [Dead(1, "test", "x")]
    assert [node.name for node in swim.members()] == ["self"]


def test_MemberList_DeadNode_Double() -> None:
    swim = machine("test")
    tell(swim, Dead(1, "test", "x"))
    settle(swim)
    assert about(swim, Dead(2, "test", "y")) == []
    assert queued(swim) == []
    assert about(swim, Dead(2, "test", "test")) == []
    assert state(swim, "test") == NodeState.DEAD, "a dead node does not become a left one"


def test_MemberList_DeadNode_OldDead() -> None:
    swim = machine()
    tell(swim, alive("test", incarnation=10))
    settle(swim)
    assert about(swim, Dead(1, "test", "x")) == []
    assert state(swim, "test") == NodeState.ALIVE


def test_MemberList_DeadNode_AliveReplay() -> None:
    swim = machine()
    tell(swim, alive("test", incarnation=10), Dead(10, "test", "x"))
    settle(swim)
    assert about(swim, alive("test", incarnation=10)) == []
    assert state(swim, "test") == NodeState.DEAD
    assert queued(swim) == []


def test_MemberList_DeadNode_Refute() -> None:
    swim = machine()
    assert about(swim, Dead(1, "self", "x")) == []
    assert state(swim, "self") == NodeState.ALIVE
    assert [(type(m), m.incarnation, m.node) for m in queued(swim)] == [(Alive, 2, "self")]  # type: ignore[union-attr]
    assert swim.health_score == 1


# -- merging tables --------------------------------------------------------------------------


def entry(claim: Alive, node_state: NodeState) -> PushNodeState:
    return PushNodeState(claim.node, claim.addr, claim.port, claim.meta, claim.incarnation, int(node_state), claim.vsn)


def test_MemberList_MergeState() -> None:
    swim = machine("test1", "test2", "test3")
    tell(swim, Suspect(1, "test1", "x"))
    settle(swim)
    remote = (
        entry(alive("test1", incarnation=2), NodeState.ALIVE),
        entry(alive("test2"), NodeState.SUSPECT),
        entry(alive("test3"), NodeState.DEAD),
        entry(alive("test4", incarnation=2), NodeState.ALIVE),
    )
    swim.answer_exchange(PushPull(remote), TEST, 0.0)

    assert state(swim, "test1") == NodeState.ALIVE
    assert record(swim, "test1").incarnation == 2
    assert state(swim, "test2") == NodeState.SUSPECT
    assert state(swim, "test3") == NodeState.SUSPECT, "a remote death is only a suspicion"
    assert state(swim, "test4") == NodeState.ALIVE
    assert record(swim, "test4").incarnation == 2
    happened = events(swim)
    assert [type(e) for e in happened] == [NodeJoined]
    assert happened[0].node.name == "test4"  # type: ignore[union-attr]


Table = list[tuple[int, int, int]]  # min, max, current


@pytest.mark.parametrize(
    ("a", "b", "fits"),
    [
        ([(0, 0, 0)], [(0, 0, 0)], True),
        ([(0, 0, 0)], [(0, 1, 0)], True),
        ([(0, 0, 0)], [(1, 1, 1)], False),
        ([(0, 1, 0), (0, 2, 1)], [(1, 3, 1)], False),
        ([(0, 3, 2), (0, 2, 0)], [(0, 2, 1), (0, 5, 0)], True),
    ],
    ids=["identical", "understands newer", "outside", "transitively outside", "several nodes"],
)
@pytest.mark.parametrize("delegate", [False, True], ids=["protocol", "delegate"])
def test_VerifyProtocol(a: Table, b: Table, fits: bool, delegate: bool) -> None:
    def rows(table: Table) -> list[tuple[str, int, bytes]]:
        return [
            (f"node {n}", NodeState.ALIVE, bytes((0, 0, 0, *v) if delegate else (*v, 0, 0, 0)))
            for n, v in enumerate(table)
        ]

    for remote, local in ((a, b), (b, a)):
        if fits:
            verify_protocol(rows(remote), rows(local))
        else:
            with pytest.raises(MergeRefused, match=r"version .* of node 'node \d' is outside"):
                verify_protocol(rows(remote), rows(local))


def test_a_table_with_a_version_outside_is_refused_as_a_whole() -> None:
    swim = machine()
    remote = (
        entry(alive("good"), NodeState.ALIVE),
        entry(alive("bad", vsn=bytes((1, 5, 9, 0, 0, 0))), NodeState.ALIVE),
    )
    answer = swim.answer_exchange(PushPull(remote), TEST, 0.0)
    assert isinstance(answer, PushPull), "the peer is not told, as in memberlist"
    assert [node.name for node in swim.nodes()] == ["self"]
    refused = [e for e in events(swim) if isinstance(e, MergeRejected)]
    assert len(refused) == 1
    assert "'bad'" in str(refused[0].reason)


# -- gossip and push/pull ----------------------------------------------------------------------


def test_Memberlist_Gossip() -> None:
    a = faithful("a", "127.0.0.1", gossip_interval=0.2)
    b = faithful("b", "127.0.0.2")
    network = Network(a, b)
    tell(a, alive("b", "127.0.0.2"), alive("c", "127.0.0.3"), now=0.0)
    network.run(0.4)
    assert [node.name for node in b.members()] == ["a", "b", "c"]
    assert {e.node.name for e in network.events(b, NodeJoined)} == {"a", "b", "c"}


def test_Memberlist_GossipToDead() -> None:
    swim = machine("test", gossip_interval=0.2, gossip_to_the_dead_time=30.0)
    tell(swim, Dead(1, "test", "x"), now=0.0)
    settle(swim)

    tell(swim, alive("news"), Dead(1, "news", "news"), now=29.0)  # somebody who left gets none
    swim._gossiper.round(29.9)
    assert {to for _, to in sent(swim)} == {record(swim, "test").address}, "the lately dead may refute"

    drain(swim)
    swim._gossiper.round(30.1)
    assert sent(swim) == [], "the long dead are left alone"


def test_Memberlist_PushPull() -> None:
    a = faithful("a", "127.0.0.1", push_pull_interval=10.0)
    b = faithful("b", "127.0.0.2")
    network = Network(a, b)
    tell(a, alive("b", "127.0.0.2"))
    network.run(25.0)
    assert network.sent("a", PushPull, over="tcp")[0].join is False
    assert {e.node.name for e in network.events(b, NodeJoined)} == {"a", "b"}
    assert [node.name for node in b.members()] == ["a", "b"]
    assert b.gauges["nodes"] == 2
    assert a.counters["push_pulls"] >= 1


# -- the table ---------------------------------------------------------------------------------


def test_MemberList_ResetNodes() -> None:
    """The dead stay known while they may refute, and are forgotten at a wrap of the probe order after that."""
    a = faithful("a", "127.0.0.1", probe_interval=1.0, gossip_to_the_dead_time=30.0)
    b = faithful("b", "127.0.0.2")
    network = Network(a, b)
    tell(a, alive("b", "127.0.0.2"), alive("test", "127.0.0.3"))
    tell(a, Dead(1, "test", "x"), now=0.0)
    network.run(30.0)
    assert state(a, "test") == NodeState.DEAD
    network.run(4.0)
    assert state(a, "test") is None
    assert state(a, "b") == NodeState.ALIVE
    assert [e for e in network.events(a, NodeLeft) if e.node.name != "test"] == []
