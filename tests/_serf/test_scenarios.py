"""Scenarios of Serf's own tests of its rules; ``test_catalogue.py`` says where the others stand.

``TestSerf_joinIntent_newer`` in Go is ``test_Serf_joinIntent_newer`` here.
"""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from mycorrizal._serf.asking import (
    ACK,
    NO_BROADCAST,
    Query,
    QueryResponse,
    Relay,
    decode_query_message,
    encode_filters,
    encode_query_message,
    passes,
)
from mycorrizal._serf.machine import DEPARTED_SECONDS, EVENT_BUFFER, INTENT_SECONDS, SerfMachine, SerfStatus
from mycorrizal._serf.messages import (
    Clock,
    EventsAt,
    JoinIntent,
    LeaveIntent,
    MessageType,
    State,
    UserEvent,
    decode,
    decode_state,
    encode,
    encode_tags,
)
from mycorrizal._serf.queries import QUERY_BUFFER
from mycorrizal._wire import msgpack
from mycorrizal.config import Config
from mycorrizal.exceptions import ConfigError
from mycorrizal.serf import SerfDelegate
from mycorrizal.types import Node, NodeState
from tests._serf.ground import FakeGround, a_node

HERE = (bytes((127, 0, 0, 1)), 7946)
TAGS = {"role": "webserver", "datacenter": "east-aws"}


def hear(machine: SerfMachine, *messages: Any, now: float = 0.0) -> list[object]:
    """Take messages; return what is passed on."""
    for message in messages:
        queries = isinstance(message, (Query, QueryResponse, Relay))
        machine.receive_message(encode_query_message(message) if queries else encode(message), now)
    sent = [out.message for out in machine.messages_to_send()]
    return [decode_query_message(data) or decode(data) for data in sent]


def with_member(ltime: int, name: str = "test") -> SerfMachine:
    """Return a machine with one other member, of which a join intent was seen."""
    machine = SerfMachine("py")
    machine.node_joined(name, 0.0)
    hear(machine, JoinIntent(ltime, name))
    return machine


def ltime(machine: SerfMachine, name: str = "test") -> int:
    return next(member.ltime for member in machine.members() if member.name == name)


def a_query(time: int, number: int, name: str = "load", **changes: Any) -> Query:
    fields: dict[str, Any] = {"filters": (), "flags": ACK, "relays": 0, "timeout": 10**9, "payload": b"", **changes}
    return Query(time, number, *HERE, "s1", name=name, **fields)


def ask(machine: SerfMachine, payload: bytes = b"", limit: int = 1024) -> Query:
    asked = machine.queries.ask("q", payload, HERE, 0.0, nodes=(), tags={}, relays=0, timeout=1.0, limit=limit)
    return asked[0]


def started(**options: Any) -> tuple[SerfDelegate, FakeGround]:
    serf = SerfDelegate(**options)
    ground = FakeGround(serf.config(Config.local(name="py")))
    serf.attached(cast(Any, ground))
    serf.notify_join(a_node("py", serf.node_meta(512)))
    return serf, ground


# -- intents ----------------------------------------------------------------------------------


def test_Serf_joinLeave_ltime() -> None:
    first, second = SerfMachine("s1"), SerfMachine("s2")
    first.node_joined("s2", 0.0)
    second.node_joined("s1", 0.0)
    first.merge_state(decode_state(second.local_state()), True, 0.0)
    for out in first.messages_to_send():
        second.receive_message(out.message, 0.0)
    assert ltime(second, "s1") == 1
    assert second.clocks[0] > 1
    before = second.clocks[0]
    leaving = first.leave()
    assert leaving is not None
    second.receive_message(leaving, 0.0)
    assert second.clocks[0] > before


def test_Serf_join_pendingIntent() -> None:
    machine = SerfMachine("py")
    hear(machine, JoinIntent(5, "test"))
    machine.node_joined("test", 0.0)
    assert (ltime(machine), machine.status("test")) == (5, SerfStatus.ALIVE)


def test_Serf_join_pendingIntents() -> None:
    machine = SerfMachine("py")
    hear(machine, JoinIntent(5, "test"), LeaveIntent(6, "test"))
    machine.node_joined("test", 0.0)
    assert (ltime(machine), machine.status("test")) == (6, SerfStatus.LEAVING)


def test_Serf_leaveIntent_bufferEarly() -> None:
    machine, early = SerfMachine("py"), LeaveIntent(10, "test")
    assert hear(machine, early) == [early]
    assert hear(machine, early) == []
    machine.node_joined("test", 0.0)
    assert (ltime(machine), machine.status("test")) == (10, SerfStatus.LEAVING)


def test_Serf_leaveIntent_oldMessage() -> None:
    machine = with_member(12)
    assert hear(machine, LeaveIntent(10, "test")) == []
    assert (ltime(machine), machine.status("test")) == (12, SerfStatus.ALIVE)


def test_Serf_leaveIntent_newer() -> None:
    machine, newer = with_member(12), LeaveIntent(14, "test")
    assert hear(machine, newer) == [newer]
    assert (machine.status("test"), machine.clocks[0]) == (SerfStatus.LEAVING, 15)


def test_Serf_joinIntent_bufferEarly() -> None:
    machine, early = SerfMachine("py"), JoinIntent(10, "test")
    assert hear(machine, early) == [early]
    assert hear(machine, early) == []
    machine.node_joined("test", 0.0)
    assert ltime(machine) == 10


def test_Serf_joinIntent_oldMessage() -> None:
    machine = with_member(12)
    assert hear(machine, JoinIntent(10, "test")) == []
    assert ltime(machine) == 12


def test_Serf_joinIntent_newer() -> None:
    machine, newer = with_member(12), JoinIntent(14, "test")
    assert hear(machine, newer) == [newer]
    assert (ltime(machine), machine.clocks[0]) == (14, 15)


def test_Serf_joinIntent_resetLeaving() -> None:
    machine, newer = with_member(11), JoinIntent(14, "test")
    hear(machine, LeaveIntent(12, "test"))
    assert machine.status("test") is SerfStatus.LEAVING
    assert hear(machine, newer) == [newer]
    assert (ltime(machine), machine.status("test"), machine.clocks[0]) == (14, SerfStatus.ALIVE, 15)


@pytest.mark.parametrize(("order", "news"), [((4, 5), 2), ((5, 4), 1)])
def test_Serf_eventsLeave_avoidInfiniteLeaveRebroadcast(order: tuple[int, int], news: int) -> None:
    """Two that have a member gone missed its return, and hear of its further leaves in turn from one another."""
    machines = [with_member(1), with_member(1)]
    for machine in machines:
        hear(machine, LeaveIntent(2, "test"))
        machine.node_left("test", 0.0)
    passing: list[object] = [LeaveIntent(time, "test") for time in order]
    passed = []
    for machine in machines * 3:
        passing = hear(machine, *passing)
        passed.append(len(passing))
    assert passed == [news, news, 0, 0, 0, 0], "each passes news on, once"
    assert [(ltime(machine), machine.status("test")) for machine in machines] == [(5, SerfStatus.LEFT)] * 2


@pytest.mark.parametrize(
    ("now", "kept"),
    [(1.0, {"foo": 1, "bar": 5, "baz": 3}), (INTENT_SECONDS, {"baz": 3}), (INTENT_SECONDS + 2, {})],
)
def test_RecentIntent(now: float, kept: dict[str, int]) -> None:
    machine = SerfMachine("py")
    hear(machine, JoinIntent(1, "foo"), LeaveIntent(2, "bar"), JoinIntent(4, "bar"))
    assert hear(machine, JoinIntent(0, "bar")) == []
    hear(machine, JoinIntent(5, "bar"))
    hear(machine, JoinIntent(3, "baz"), now=1.0)
    for name in ("foo", "bar", "baz", "tubez"):
        machine.node_joined(name, now)
    assert {member.name: member.ltime for member in machine.members() if member.ltime} == kept


# -- members ----------------------------------------------------------------------------------


def test_Serf_ReapHandler() -> None:
    machine = SerfMachine("py")
    for name, gone in (("a", 0.0), ("b", 5.0), ("c", 10.0)):
        machine.node_joined(name, 0.0)
        machine.node_left(name, gone)
    machine.reap(DEPARTED_SECONDS + 4)
    assert {member.name for member in machine.members()} == {"py", "b", "c"}
    assert machine.forgotten() == ["a"]
    hear(machine, JoinIntent(2, "bob"), LeaveIntent(2, "doug"), now=DEPARTED_SECONDS + 4)
    hear(machine, JoinIntent(1, "alice"), LeaveIntent(1, "carol"), now=DEPARTED_SECONDS + 11)
    now = DEPARTED_SECONDS + INTENT_SECONDS + 4
    machine.reap(now)
    for name in ("alice", "bob", "carol", "doug"):
        machine.node_joined(name, now)
    assert [ltime(machine, name) for name in ("alice", "bob", "carol", "doug")] == [1, 0, 1, 0]


def test_RemoveOldMember() -> None:
    machine = SerfMachine("py")
    for name in ("foo", "bar", "baz"):
        machine.node_joined(name, 0.0)
        machine.node_left(name, 0.0)
    hear(machine, LeaveIntent(1, "bar", True))
    assert [member.name for member in machine.members()] == ["py", "foo", "baz"]


def test_MemberStatus_String() -> None:
    assert [status.value for status in SerfStatus] == ["alive", "leaving", "left", "failed"]


def test_SerfRemoveFailedNode_ourself() -> None:
    machine = SerfMachine("py")
    machine.force_leave("somebody", False, 0.0)
    with pytest.raises(ConfigError, match="this node itself"):
        machine.force_leave("py", False, 0.0)


def test_Serf_joinLeaveJoin() -> None:
    machine = with_member(1)
    hear(machine, LeaveIntent(2, "test"))
    machine.node_left("test", 1.0)
    assert (machine.status("test"), machine.size) == (SerfStatus.LEFT, 1)
    machine.node_joined("test", 2.0)
    assert (machine.status("test"), machine.size) == (SerfStatus.ALIVE, 2)


def test_Serf_NumNodes() -> None:
    machine = SerfMachine("py")
    assert machine.size == 1
    machine.node_joined("test", 0.0)
    assert machine.size == 2


def test_Serf_leaveRejoinDifferentRole() -> None:
    serf, _ = started()
    serf.notify_join(a_node("s2", encode_tags({"role": "foo"}, 512)))
    serf.notify_leave(a_node("s2", state=NodeState.LEFT))
    serf.notify_join(a_node("s2", encode_tags({"role": "bar"}, 512)))
    assert [(m.name, m.tags.get("role")) for m in serf.members()] == [("py", None), ("s2", "bar")]


def test_Serf_update() -> None:
    serf, _ = started()
    serf.notify_join(a_node("s2"))
    serf.notify_update(a_node("s2", encode_tags({"foo": "bar"}, 512)))
    assert [(m.tags, m.status) for m in serf.members() if m.name == "s2"] == [({"foo": "bar"}, SerfStatus.ALIVE)]


def test_Serf_role() -> None:
    serf, _ = started(tags={"role": "web"})
    serf.notify_join(a_node("s2", encode_tags({"role": "lb"}, 512)))
    assert {member.name: member.tags["role"] for member in serf.members()} == {"py": "web", "s2": "lb"}


def test_Delegate_NodeMeta_Old() -> None:
    """Serf's protocol 2 has the role alone for metadata; we say version 5, and read it."""
    assert SerfDelegate.tags_of(Node("s1", HERE[0], HERE[1], b"test", NodeState.ALIVE, 1)) == {"role": "test"}


def test_SerfStats() -> None:
    serf, _ = started()
    found = serf.metrics()
    assert {found[f"clock_{clock}"] for clock in ("member", "event", "query")} == {1}
    assert {value for name, value in found.items() if not name.startswith("clock_")} == {0}


# -- state ------------------------------------------------------------------------------------


def test_Delegate_LocalState() -> None:
    machine = with_member(1)
    machine.user_event("test", b"test", False, 512)
    ask(machine)
    state = decode_state(machine.local_state())
    assert (state.ltime, state.event_ltime, state.query_ltime) == machine.clocks == (2, 2, 2)
    assert dict(state.status_ltimes) == {"py": 0, "test": 1}
    assert state.left_members == ()
    assert state.events == (EventsAt(1, (UserEvent(1, "test", b"test", False),)),)


def test_Delegate_MergeRemoteState() -> None:
    machine = SerfMachine("py")
    events = (EventsAt(45, (UserEvent(45, "test", b""),)),)
    machine.merge_state(State(42, (("test", 20), ("foo", 15)), ("foo",), 50, events, 100), False, 0.0)
    assert machine.clocks == (42, 50, 100)
    for name in ("test", "foo"):
        machine.node_joined(name, 0.0)
    assert (ltime(machine), machine.status("test")) == (20, SerfStatus.ALIVE)
    assert (ltime(machine, "foo"), machine.status("foo")) == (16, SerfStatus.LEAVING)
    event = machine.next_event()
    assert event is not None
    assert (event.ltime, event.name) == (45, "test")


def test_Serf_Join_IgnoreOld() -> None:
    first, second = SerfMachine("s1"), SerfMachine("s2")
    first.user_event("event!", b"test", False, 512)
    first.user_event("second", b"foobar", False, 512)
    second.merge_state(decode_state(first.local_state()), True, 0.0)
    assert second.next_event() is None


# -- events -----------------------------------------------------------------------------------


def test_Serf_userEvent_oldMessage() -> None:
    machine = SerfMachine("py")
    hear(machine, UserEvent(EVENT_BUFFER + 1000, "new"))
    assert hear(machine, UserEvent(1, "old")) == []


def test_Serf_userEvent_sameClock() -> None:
    machine = SerfMachine("py")
    events = [UserEvent(1, "first", b"test"), UserEvent(1, "first", b"newpayload"), UserEvent(1, "second", b"other")]
    assert hear(machine, *events) == events
    got = [machine.next_event() for _ in events]
    assert [(event.name, event.payload) for event in got if event] == [(e.name, e.payload) for e in events]


# -- queries ----------------------------------------------------------------------------------


def test_Serf_query_oldMessage() -> None:
    machine = SerfMachine("py")
    hear(machine, a_query(QUERY_BUFFER + 1000, 1))
    assert hear(machine, a_query(1, 2)) == []


def test_Serf_query_sameClock() -> None:
    machine = SerfMachine("py")
    queries = [a_query(1, number, name) for number, name in enumerate(("foo", "bar", "baz"))]
    for query in queries:
        assert hear(machine, query) == [query]
        assert hear(machine, query) == []
    assert [asked.query for asked in machine.queries.asked()] == queries


def test_Serf_Query_Deduplicate() -> None:
    machine = SerfMachine("py")
    query = ask(machine)
    for flags in (0, 0, ACK, ACK):
        hear(machine, QueryResponse(query.ltime, query.id, "node1", flags))
    answers = machine.queries.answers(query)
    assert (answers.responses, answers.acks) == ({"node1": b""}, {"py", "node1"})


def test_Serf_Query_sizeLimit() -> None:
    with pytest.raises(ConfigError, match="the limit is 1024"):
        ask(SerfMachine("py"), bytes(1024))


def test_Serf_Query_sizeLimitIncreased() -> None:
    assert ask(SerfMachine("py"), bytes(1024), limit=2048).payload == bytes(1024)


def test_DefaultQuery() -> None:
    serf, ground = started()
    serf.on_query("load")(lambda query: b"1")
    assert serf.query("load") == {"py": b"1"}
    (query,) = map(decode_query_message, serf.get_broadcasts(3, 1400))
    assert isinstance(query, Query)
    assert query.timeout == int(ground.config.gossip_interval * 16 * 1e9), "16 rounds in a cluster of up to nine"
    assert (query.filters, query.relays) == ((), 0)


def test_QueryParams_EncodeFilters() -> None:
    filters = encode_filters(["foo", "bar"], {"role": "^web", "datacenter": "aws$"})
    assert [one[0] for one in filters] == [0, 1, 1]


@pytest.mark.parametrize(
    ("nodes", "tags", "processed"),
    [
        (["foo", "bar", "zip"], {"role": "^web", "datacenter": "aws$"}, True),
        (["foo", "bar"], {}, False),
        ([], {"other": "cool"}, False),
        ([], {"role": "db"}, False),
    ],
)
def test_Serf_ShouldProcess(nodes: list[str], tags: dict[str, str], processed: bool) -> None:
    assert passes(a_query(1, 1, filters=encode_filters(nodes, tags)), "zip", TAGS) is processed


def test__kRandomMembers() -> None:
    machine = SerfMachine("py", rng=random.Random(1), known=lambda *_: True)
    for number in range(90):
        machine.node_joined(f"test{number}", 0.0)
        if number % 3:
            hear(machine, *([LeaveIntent(1, f"test{number}")] if number % 3 == 2 else []))
            machine.node_left(f"test{number}", 0.0)
    chosen = []
    for number in range(3):
        hear(machine, a_query(1, number, relays=3))
        chosen.append({direct.name for direct in machine.queries.to_send() if direct.address is None})
    assert [len(names) for names in chosen] == [3, 3, 3]
    assert all(int(name[4:]) % 3 == 0 for names in chosen for name in names), "only who is alive"
    assert chosen[0] != chosen[1] != chosen[2] != chosen[0]


def test_SerfQueries_Ping() -> None:
    serf, ground = started()
    serf.on_query("q")(lambda query: b"")
    serf.notify_join(a_node("s1"))
    serf.notify_msg(encode_query_message(a_query(42, 1, "_serf_ping")))
    assert [decode_query_message(data) for _, data, _ in ground.sent] == [QueryResponse(42, 1, "py", ACK)]
    assert ground.handed == []


# -- messages ---------------------------------------------------------------------------------


def test_QueryFlags() -> None:
    assert (ACK, NO_BROADCAST) == (1, 2)


def test_EncodeMessage() -> None:
    data = encode(LeaveIntent(0, "foo"))
    assert data[0] == MessageType.LEAVE
    assert decode(data) == LeaveIntent(0, "foo")


def test_EncodeRelayMessage() -> None:
    inner = encode(LeaveIntent(0, "foo"))
    relay = Relay(HERE[0], 1234, "test", inner)
    data = encode_query_message(relay)
    assert data.endswith(inner)
    assert decode_query_message(data) == relay


def test_EncodeFilter() -> None:
    (data,) = encode_filters(["foo", "bar"], {})
    assert data[0] == 0
    assert msgpack.unpack(data, 1)[0] == [b"foo", b"bar"]


def test_LamportClock() -> None:
    """Begins at 1, as a Serf agent's clocks do once it has started."""
    clock = Clock()
    assert [clock.time, clock.tick(), clock.time] == [1, 1, 2]
    for seen in (41, 41, 30):
        clock.witness(seen)
        assert clock.time == 42
