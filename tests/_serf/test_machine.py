"""Serf's messages and rules, against bytes that Debian's ``serf agent`` sent (SEEN)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._serf import machine as rules
from mycorrizal._serf import messages
from mycorrizal._serf.machine import SerfMachine, SerfStatus
from mycorrizal._serf.messages import (
    EventsAt,
    JoinIntent,
    LeaveIntent,
    State,
    UserEvent,
    decode,
    decode_state,
    decode_tags,
    encode,
    encode_tags,
)
from mycorrizal._wire import msgpack
from mycorrizal.exceptions import RemoteProtocolError
from tests._serf.seen import SEEN_EMPTY_EVENT, SEEN_EVENT, SEEN_LEAVE, SEEN_META, SEEN_QUERY, SEEN_STATE


def outgoing(machine: SerfMachine) -> list[bytes]:
    return [out.message for out in machine.messages_to_send()]


def received(machine: SerfMachine) -> list[tuple[int, str, bytes]]:
    events = []
    while (event := machine.next_event()) is not None:
        events.append((event.ltime, event.name, event.payload))
    return events


def status(machine: SerfMachine, name: str) -> SerfStatus:
    return {member.name: member.status for member in machine.members()}[name]


class TestMessages:
    def test_seen_bytes_decode(self) -> None:
        assert decode(SEEN_EVENT) == UserEvent(1, "deploy", b"v1.2", True)
        assert decode(SEEN_EMPTY_EVENT) == UserEvent(1, "nopayload", b"", False)
        assert decode(SEEN_LEAVE) == LeaveIntent(2, "s2", False)
        assert decode(SEEN_QUERY) is None
        events = (UserEvent(1, "nopayload"), UserEvent(1, "deploy", b"v1.2"))
        assert decode_state(SEEN_STATE) == State(
            3, (("s2", 2), ("g1", 0), ("s1", 0)), ("s2",), 2, (EventsAt(1, events),), 2
        )

    @pytest.mark.parametrize("seen", [SEEN_EVENT, SEEN_EMPTY_EVENT, SEEN_LEAVE])
    def test_seen_bytes_encode(self, seen: bytes) -> None:
        message = decode(seen)
        assert message is not None
        assert encode(message) == seen

    def test_seen_state_encodes_but_for_empty_places_and_order(self) -> None:
        assert decode_state(encode(decode_state(SEEN_STATE))) == State(
            3,
            (("g1", 0), ("s1", 0), ("s2", 2)),
            ("s2",),
            2,
            decode_state(SEEN_STATE).events,
            2,
        )

    def test_tags(self) -> None:
        assert decode_tags(SEEN_META) == {"dc": "x", "role": "web"}
        assert encode_tags({"role": "web", "dc": "x"}, 512) == SEEN_META
        assert encode_tags({}, 512) == b"\xff\x80"
        assert decode_tags(b"web") == {"role": "web"}  # as Serf shows foreign metadata
        assert decode_tags(b"") == {"role": ""}
        assert decode_tags(b"\xff\x05") == decode_tags(b"\xff") == decode_tags(b"\xff\x81\xa1a\x05") == {}

    def test_names_need_not_be_utf8(self) -> None:
        intent = decode(SEEN_LEAVE.replace(b"s2", b"\xfe\xff"))
        assert intent == LeaveIntent(2, "\udcfe\udcff", False)
        assert encode(intent) == SEEN_LEAVE.replace(b"s2", b"\xfe\xff")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x00",
            b"\x00\x05",
            b"\x02\x80",  # a state outside of a push/pull
            b"\x00" + msgpack.pack({"LTime": -1, "Node": "a"}),
            b"\x00" + msgpack.pack({"LTime": 1 << 63, "Node": "a"}),
            b"\x00" + msgpack.pack({"LTime": 1, "Node": "a" * 256}),
            b"\x00" + msgpack.pack({"LTime": 1, "Node": ""}),
            b"\x00" + msgpack.pack({"LTime": 1, "Node": "a", "Prune": 7}),
            b"\x03" + msgpack.pack({"LTime": 1, "Name": "a", "Payload": "x" * 10_000}),
            b"\x03" + msgpack.pack({"LTime": 1, "Name": 5}),
            SEEN_EVENT + bytes(64 << 10),
            b"\x03" + msgpack.pack({"LTime": "now", "Name": "a"}),
        ],
    )
    def test_refused(self, data: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            decode(data)

    @pytest.mark.parametrize(
        "body",
        [
            {"LTime": 1, "Events": 5},
            {"LTime": 1, "Events": [5]},
            {"LTime": 1, "Events": [None] * 5000},
            {"LTime": 1, "StatusLTimes": [1]},
            {"LTime": 1, "StatusLTimes": {"a": "x"}},
            {"LTime": 1, "LeftMembers": [None]},
            {"LTime": True},
        ],
    )
    def test_refused_states(self, body: dict[str, object]) -> None:
        with pytest.raises(RemoteProtocolError):
            decode_state(b"\x02" + msgpack.pack(body))

    def test_refused_as_a_state_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(messages, "MAX_STATE", len(SEEN_STATE) - 1)
        for data in (SEEN_EVENT, SEEN_STATE, b""):
            with pytest.raises(RemoteProtocolError):
                decode_state(data)

    @settings(max_examples=300, deadline=None)
    @given(
        st.binary(max_size=200),
        st.sampled_from([SEEN_EVENT, SEEN_LEAVE, SEEN_STATE, SEEN_QUERY]),
        st.data(),
    )
    def test_any_bytes_are_taken_or_refused(self, noise: bytes, seen: bytes, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(seen)))
        machine = SerfMachine("py")
        for sample in (
            noise,
            seen[:at] + noise,
            seen[:at] + noise[:1] + seen[at + 1 :],
        ):
            machine.receive_message(sample, 0.0)
            decode_tags(sample)
            try:
                machine.merge_state(decode_state(sample), True, 0.0)
            except RemoteProtocolError:
                pass
        decode_state(machine.local_state())


class TestIntents:
    def test_a_leave_intent_makes_the_end_a_leave(self) -> None:
        machine = SerfMachine("py")
        machine.node_joined("s2", 0.0)
        machine.receive_message(SEEN_LEAVE, 0.0)
        assert status(machine, "s2") is SerfStatus.LEAVING
        assert outgoing(machine) == [SEEN_LEAVE]
        machine.node_left("s2", 0.0)
        assert status(machine, "s2") is SerfStatus.LEFT
        assert machine.size == 1

    def test_an_end_without_intent_is_a_failure(self) -> None:
        machine = SerfMachine("py")
        machine.node_joined("s2", 0.0)
        machine.node_left("s2", 0.0)
        assert status(machine, "s2") is SerfStatus.FAILED
        machine.receive_message(SEEN_LEAVE, 0.0)  # serf force-leave
        assert status(machine, "s2") is SerfStatus.LEFT
        assert outgoing(machine) == [SEEN_LEAVE]

    def test_each_intent_is_passed_on_once(self) -> None:
        machine = SerfMachine("py")
        machine.node_joined("s2", 0.0)
        for _ in range(3):
            machine.receive_message(SEEN_LEAVE, 0.0)
        assert outgoing(machine) == [SEEN_LEAVE]
        assert machine.counters["duplicates"] == 2

    def test_intents_of_nodes_to_come_are_kept_and_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = SerfMachine("py")
        machine.receive_message(SEEN_LEAVE, 0.0)
        machine.receive_message(SEEN_LEAVE, 0.0)
        assert outgoing(machine) == [SEEN_LEAVE]
        machine.node_joined("s2", 0.0)
        assert status(machine, "s2") is SerfStatus.LEAVING
        monkeypatch.setattr(rules, "MAX_RECENT_INTENTS", 2)
        for name in ("a", "b", "c"):
            machine.receive_message(encode(LeaveIntent(9, name)), 0.0)
        for name in ("a", "b", "c"):
            machine.node_joined(name, 0.0)
        assert [status(machine, name) for name in ("a", "b")] == [
            SerfStatus.ALIVE,
            SerfStatus.LEAVING,
        ]

    def test_a_later_join_intent_revokes_the_leave(self) -> None:
        machine = SerfMachine("py")
        machine.node_joined("s2", 0.0)
        machine.receive_message(SEEN_LEAVE, 0.0)
        machine.receive_message(encode(JoinIntent(2, "s2")), 0.0)  # not later
        assert status(machine, "s2") is SerfStatus.LEAVING
        machine.receive_message(encode(JoinIntent(3, "s2")), 0.0)
        assert status(machine, "s2") is SerfStatus.ALIVE

    def test_a_leave_intent_about_us_is_refuted(self) -> None:
        machine = SerfMachine("py")
        machine.receive_message(encode(LeaveIntent(41, "py")), 0.0)
        assert outgoing(machine) == [encode(JoinIntent(42, "py"))]
        assert status(machine, "py") is SerfStatus.ALIVE
        assert machine.counters["refuted_leaves"] == 1

    def test_leaving_announces_once_and_stands(self) -> None:
        machine = SerfMachine("py")
        said = machine.leave()
        assert machine.leave() is None
        (message,) = outgoing(machine)
        assert said == message
        assert message == encode(LeaveIntent(1, "py"))
        machine.receive_message(message, 0.0)
        machine.receive_message(encode(JoinIntent(7, "py")), 0.0)
        assert status(machine, "py") is SerfStatus.LEAVING
        machine.receive_message(encode(LeaveIntent(9, "py")), 0.0)
        assert machine.counters["refuted_leaves"] == 0

    def test_prune_forgets(self) -> None:
        machine = SerfMachine("py")
        for name in ("a", "b", "c"):
            machine.node_joined(name, 0.0)
        machine.node_left("b", 0.0)
        machine.receive_message(encode(LeaveIntent(1, "c")), 0.0)
        machine.node_left("c", 0.0)
        for name in ("a", "b", "c"):
            machine.receive_message(encode(LeaveIntent(5, name, True)), 0.0)
        assert [member.name for member in machine.members()] == ["py", "a"]
        machine.node_left("a", 0.0)
        assert [member.name for member in machine.members()] == ["py"]

    def test_departed_members_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_DEPARTED", 2)
        machine = SerfMachine("py")
        for name in ("a", "b", "c"):
            machine.node_joined(name, 0.0)
            machine.node_left(name, 0.0)
        assert [member.name for member in machine.members()] == ["py", "b", "c"]
        machine.node_joined("b", 0.0)
        assert (status(machine, "b"), machine.size) == (SerfStatus.ALIVE, 2)
        machine.node_left("nobody", 0.0)
        machine.node_left("py", 0.0)
        assert status(machine, "py") is SerfStatus.ALIVE


class TestEvents:
    def test_an_event_is_delivered_and_passed_on_once(self) -> None:
        machine = SerfMachine("py")
        for _ in range(3):
            machine.receive_message(SEEN_EVENT, 0.0)
        assert received(machine) == [(1, "deploy", b"v1.2")]
        assert outgoing(machine) == [SEEN_EVENT]
        machine.receive_message(SEEN_EMPTY_EVENT, 0.0)  # same time, another event
        assert received(machine) == [(1, "nopayload", b"")]

    def test_an_event_is_known_by_its_time_its_name_and_its_payload(self) -> None:
        machine = SerfMachine("py")
        events = [UserEvent(1, "deploy", b"1"), UserEvent(1, "deploy", b"2"), UserEvent(1, "undo", b"1")]
        events += [UserEvent(2, "deploy", b"1"), UserEvent(1, "deploy", b"")]
        for event in events * 2:
            machine.receive_message(encode(event), 0.0)
        assert received(machine) == [(event.ltime, event.name, event.payload) for event in events]
        assert outgoing(machine) == [encode(event) for event in events]
        assert machine.counters["duplicates"] == len(events)

    def test_our_own_event_is_not_delivered_again(self) -> None:
        machine = SerfMachine("py")
        own = machine.user_event("go", b"now", False, 512)
        assert (own.ltime, machine.clocks[1]) == (1, 2)
        (message,) = outgoing(machine)
        machine.receive_message(message, 0.0)
        assert received(machine) == []

    def test_old_events_are_refused(self) -> None:
        machine = SerfMachine("py")
        machine.receive_message(encode(UserEvent(600, "new")), 0.0)
        machine.receive_message(encode(UserEvent(601 - 512, "just")), 0.0)
        machine.receive_message(encode(UserEvent(601 - 513, "old")), 0.0)
        assert received(machine) == [(600, "new", b""), (89, "just", b"")]
        assert machine.counters["old_events"] == 1

    def test_the_buffer_forgets_what_is_too_old_to_come_again(self) -> None:
        machine = SerfMachine("py")
        for ltime in range(1, 1200):
            machine.receive_message(encode(UserEvent(ltime, "tick")), 0.0)
        state = decode_state(machine.local_state())
        assert len(state.events) == 512
        assert state.events[0].ltime == 1200 - 512
        assert len(received(machine)) == 1199

    def test_buffer_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_EVENT_BYTES", 3000)
        monkeypatch.setattr(rules, "MAX_EVENTS_PER_TICK", 2)
        machine = SerfMachine("py")
        for ltime in range(1, 6):
            machine.receive_message(encode(UserEvent(ltime, "big", bytes(1000))), 0.0)
        assert [tick.ltime for tick in decode_state(machine.local_state()).events] == [
            4,
            5,
        ]
        machine.receive_message(encode(UserEvent(2, "big", bytes(1000))), 0.0)  # forgotten, but not new
        assert len(received(machine)) == 5
        for name in ("a", "b", "c"):
            machine.receive_message(encode(UserEvent(6, name)), 0.0)
        assert [event[1] for event in received(machine)] == ["a", "b"]
        assert machine.counters["overflowed"] == 1


class TestState:
    def test_round_trip(self) -> None:
        ours, theirs = SerfMachine("py"), SerfMachine("s1")
        theirs.node_joined("s2", 0.0)
        theirs.receive_message(SEEN_LEAVE, 0.0)
        theirs.node_left("s2", 0.0)
        theirs.user_event("go", b"", False, 512)
        ours.node_joined("s2", 0.0)
        ours.merge_state(decode_state(theirs.local_state()), False, 0.0)
        assert status(ours, "s2") is SerfStatus.LEAVING
        assert received(ours) == [(1, "go", b"")]
        assert outgoing(ours) == []  # a push/pull is passed on by push/pulls
        assert ours.clocks == (3, 2, 1)  # the leave's own time, 2, has passed

    def test_a_push_pull_does_not_take_a_leave_intent_for_a_join(self) -> None:
        """The intent would be of no later time than that join, and who left a failure."""
        for knows in (True, False):
            for seen in (True, False):
                leaver, between, ours = SerfMachine("s2"), SerfMachine("py2"), SerfMachine("py")
                intent = leaver.leave()
                assert intent is not None
                between.node_joined("s2", 0.0)
                between.receive_message(intent, 0.0)
                if knows:
                    ours.node_joined("s2", 0.0)
                ours.merge_state(decode_state((between if seen else leaver).local_state()), False, 0.0)
                if not knows:
                    ours.node_joined("s2", 0.0)
                ours.receive_message(intent, 0.0)
                assert status(ours, "s2") is SerfStatus.LEAVING
                ours.node_left("s2", 0.0)
                assert status(ours, "s2") is SerfStatus.LEFT

    def test_a_leave_that_was_refuted_is_not_kept_by_push_pulls(self) -> None:
        forced, between, ours = (SerfMachine(name) for name in ("s2", "py2", "py"))
        for machine in (between, ours):
            machine.node_joined("s2", 0.0)
        leave = encode(LeaveIntent(5, "s2"))  # by somebody's force-leave
        between.receive_message(leave, 0.0)
        forced.receive_message(leave, 0.0)
        ours.merge_state(decode_state(between.local_state()), False, 0.0)
        assert status(ours, "s2") is SerfStatus.LEAVING
        (refutation,) = outgoing(forced)
        ours.receive_message(refutation, 0.0)
        assert status(ours, "s2") is SerfStatus.ALIVE

    def test_a_newcomer_announces_itself_and_skips_history(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(decode_state(SEEN_STATE), True, 0.0)
        assert received(machine) == []
        (intent,) = [decode(message) for message in outgoing(machine)]
        assert intent == JoinIntent(4, "py")
        machine.receive_message(SEEN_EVENT, 0.0)  # the same history by gossip
        assert received(machine) == []
        machine.receive_message(encode(UserEvent(2, "fresh")), 0.0)
        assert received(machine) == [(2, "fresh", b"")]

    def test_replay(self) -> None:
        machine = SerfMachine("py", replay=True)
        machine.merge_state(decode_state(SEEN_STATE), True, 0.0)
        assert received(machine) == [(1, "nopayload", b""), (1, "deploy", b"v1.2")]

    def test_later_joins_of_others_cause_no_announcement(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(decode_state(SEEN_STATE), True, 0.0)
        outgoing(machine)
        machine.merge_state(State(ltime=1, event_ltime=1, query_ltime=1), True, 0.0)
        machine.merge_state(State(ltime=0), False, 0.0)
        assert outgoing(machine) == []

    def test_who_is_behind_at_a_later_join_announces_again(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(State(ltime=1), True, 0.0)
        outgoing(machine)
        machine.merge_state(State(ltime=90), True, 0.0)
        assert outgoing(machine) == [encode(JoinIntent(90, "py"))]

    def test_we_return_after_a_leave_that_others_remember(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(State(ltime=9, status_ltimes=(("py", 7),), left_members=("py",)), True, 0.0)
        sent = [decode(message) for message in outgoing(machine)]
        assert sent
        assert all(isinstance(intent, JoinIntent) and intent.ltime > 8 for intent in sent)
        assert status(machine, "py") is SerfStatus.ALIVE


class TestWhatIsRemembered:
    def test_all_three_clocks_go_with_the_cluster(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(State(ltime=20, event_ltime=30, query_ltime=40), False, 0.0)
        assert machine.clocks == (20, 30, 40)
        machine.receive_message(encode(UserEvent(30, "seen")), 0.0)
        assert machine.user_event("next", b"", False, 512).ltime == 31

    def test_only_the_first_join_skips_history(self) -> None:
        machine = SerfMachine("py")
        machine.merge_state(State(ltime=1, event_ltime=5), True, 0.0)
        missed = (EventsAt(8, (UserEvent(8, "missed"),)),)
        machine.merge_state(State(ltime=1, event_ltime=9, events=missed), True, 0.0)
        assert received(machine) == [(8, "missed", b"")]

    @pytest.mark.parametrize("by_intent", [True, False])
    def test_who_came_back_is_not_pruned_by_what_was_said_before(self, by_intent: bool) -> None:
        machine = SerfMachine("py")
        machine.node_joined("a", 0.0)
        machine.receive_message(encode(LeaveIntent(5, "a", True)), 0.0)
        if by_intent:
            machine.receive_message(encode(JoinIntent(6, "a")), 0.0)
        else:
            machine.node_joined("a", 0.0)
        machine.node_left("a", 0.0)
        assert status(machine, "a") is SerfStatus.FAILED

    def test_who_is_pruned_is_no_departed_member(self) -> None:
        machine = SerfMachine("py")
        machine.node_joined("a", 0.0)
        machine.node_left("a", 0.0)
        assert machine.size == 1
        machine.receive_message(encode(LeaveIntent(5, "a", True)), 0.0)
        assert ([member.name for member in machine.members()], machine.size) == (["py"], 1)
        machine.node_joined("b", 0.0)
        assert machine.size == 2

    def test_the_longest_unheard_of_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_RECENT_INTENTS", 2)
        machine = SerfMachine("py")
        for ltime, name in ((1, "a"), (1, "b"), (2, "a"), (1, "c")):
            machine.receive_message(encode(LeaveIntent(ltime, name)), 0.0)
        for name in "abc":
            machine.node_joined(name, 0.0)
        leaving = [member.name for member in machine.members() if member.status is SerfStatus.LEAVING]
        assert leaving == ["a", "c"]

    def test_the_longest_departed_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_DEPARTED", 2)
        machine = SerfMachine("py")
        for name in "ab":
            machine.node_joined(name, 0.0)
            machine.node_left(name, 0.0)
        machine.receive_message(encode(LeaveIntent(5, "a")), 0.0)  # it failed before b, and is said to have left now
        machine.node_joined("c", 0.0)
        machine.node_left("c", 0.0)
        assert [member.name for member in machine.members()] == ["py", "b", "c"]

    def test_events_that_nobody_pulls_are_bounded_and_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_RECEIVED", 2)
        machine = SerfMachine("py")
        for ltime in range(1, 5):
            machine.receive_message(encode(UserEvent(ltime, "e")), 0.0)
        assert received(machine) == [(1, "e", b""), (2, "e", b"")]
        assert machine.counters["overflowed"] == 2

    def test_a_type_that_we_do_not_take_is_counted_and_not_passed_on(self) -> None:
        machine = SerfMachine("py")
        machine.receive_message(b"\x0aunknown", 0.0)
        assert machine.counters["unknown_type"] == 1
        assert outgoing(machine) == []
