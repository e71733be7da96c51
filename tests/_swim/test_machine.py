"""The door of the machine: calls that end, leaving, stalls, a clock that slips."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.events import NodeJoined, NodeLeft, OperationDone, PacketRejected, Stalled, UserMessage
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Alive, Dead, Message, NackResp, Ping, PushPull, Suspect, User
from mycorrizal.delegates import BaseDelegate
from mycorrizal.exceptions import ConfigError, LocalProtocolError
from mycorrizal.types import Address, Node, NodeState
from tests._swim.harness import alive, drain, events, host_for, make, queued, run_timers, sent, state, tell

PEER: Address = ("10.0.0.9", 7946)
TALKS: dict[str, Any] = {"gossip_interval": 0.2}


def ended(swim: Swim) -> dict[int, Exception | None]:
    """Take all events; return the operations that ended, with their errors."""
    return {e.operation_id: e.error for e in events(swim) if isinstance(e, OperationDone)}


# -- calls end --------------------------------------------------------------------------


def test_two_updates_in_a_row_both_end() -> None:
    swim = make(**TALKS)
    tell(swim, alive("peer"))
    first, second = swim.update_meta(1.0), swim.update_meta(1.0)
    assert ended(swim) == {first: None}, "replaced by the second"
    run_timers(swim, 10.0)
    assert ended(swim) == {second: None}


def test_a_leave_ends_the_update_before_it() -> None:
    swim = make(**TALKS)
    tell(swim, alive("peer"))
    update, leave = swim.update_meta(1.0), swim.leave(1.0)
    run_timers(swim, 10.0)
    assert ended(swim) == {update: None, leave: None}
    with pytest.raises(LocalProtocolError, match="has left"):
        swim.update_meta(11.0)


class Doorkeeper:
    """An alive delegate that admits whom it is told to."""

    shut = False

    def notify_alive(self, node: Node) -> None:
        if self.shut:
            raise ValueError("no admittance")


def test_an_update_that_is_refused_says_so() -> None:
    keeper = Doorkeeper()
    swim = make(delegates={"alive": keeper}, **TALKS)
    tell(swim, alive("peer"))
    drain(swim)
    keeper.shut = True
    with pytest.raises(LocalProtocolError, match="refused"):
        swim.update_meta(1.0)
    leave = swim.leave(2.0)
    run_timers(swim, 10.0)
    assert ended(swim) == {leave: None}


def test_a_refused_start_says_so() -> None:
    keeper = Doorkeeper()
    keeper.shut = True
    with pytest.raises(ConfigError, match="alive"):
        make(delegates={"alive": keeper})
    with pytest.raises(ConfigError, match="cidrs_allowed"):
        make(cidrs_allowed=("192.168.0.0/16",))
    with pytest.raises(LocalProtocolError):
        make().start(1.0)


@pytest.mark.parametrize("call", ["leave", "update_meta"])
@pytest.mark.parametrize("news", [Dead(1, "peer", "x"), Dead(1, "peer", "peer")], ids=["dies", "leaves"])
def test_a_call_ends_when_the_last_who_could_hear_it_is_gone(call: str, news: Message) -> None:
    swim = make(gossip_interval=0.2, gossip_to_the_dead_time=0)
    tell(swim, alive("peer"))
    operation = getattr(swim, call)(1.0)
    assert ended(swim) == {}
    tell(swim, news, now=1.01)
    assert ended(swim) == {operation: None}
    run_timers(swim, 60.0)
    assert ended(swim) == {}, "once only"


def test_a_leave_with_nobody_else_ends_at_once() -> None:
    swim = make(**TALKS)
    tell(swim, alive("peer"), Dead(1, "peer", "x"))
    leave, again = swim.leave(1.0), swim.leave(1.0)
    assert ended(swim) == {leave: None, again: None}


def test_a_leave_with_suspects_only_is_told_to_them() -> None:
    swim = make(**TALKS)
    tell(swim, alive("peer"), Suspect(1, "peer", "x"))
    drain(swim)
    leave = swim.leave(1.0)
    run_timers(swim, 3.0)
    assert ended(swim) == {leave: None}
    assert Dead(1, "self", "self") in [m for m, _ in sent(swim)]


# -- leaving ----------------------------------------------------------------------------


def test_a_leave_is_told_to_everyone_directly() -> None:
    """Gossip may spend all its transmissions on nodes that were killed a moment ago."""
    swim = make(retransmit_mult=2, probe_interval=0, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    tell(swim, Dead(1, "peer8", "x"))
    run_timers(swim, 5.0)
    drain(swim)
    leave = swim.leave(5.0)
    run_timers(swim, 7.0)
    assert ended(swim) == {leave: None}
    told = {to[0] for m, to in sent(swim) if m == Dead(1, "self", "self")}
    assert told >= {f"10.2.0.{n}" for n in range(1, 8)}


@pytest.mark.parametrize(("fanout", "most"), [(0, 2), (3, 5)])
def test_how_many_are_told_directly(fanout: int, most: int) -> None:
    swim = make(retransmit_mult=2, leave_fanout=fanout, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    run_timers(swim, 5.0)
    drain(swim)
    swim.leave(5.0)
    run_timers(swim, 7.0)
    assert len([m for m, _ in sent(swim) if m == Dead(1, "self", "self")]) == most


def test_a_node_that_left_lives_on_without_itself() -> None:
    """memberlist forgets its own record like anybody's; reads still work."""
    swim = make(probe_interval=1.0, **TALKS)
    tell(swim, alive("peer"))
    swim.leave(1.0)
    now = 1.0
    while now < 100.0:
        now += 0.5
        swim.handle_timer(now)
        tell(swim, *[AckResp(m.seq_no, None) for m, _ in sent(swim) if isinstance(m, Ping)], now=now)
    assert [n.name for n in swim.nodes()] == ["peer"]
    assert swim.local_node.state == NodeState.LEFT
    drain(swim)
    tell(swim, alive("self", "10.0.0.1", 9), Suspect(9, "self", "x"), Dead(9, "self", "x"), now=now)
    assert state(swim, "self") is None
    answer = swim.answer_exchange(PushPull((), b"", False), PEER, now)
    assert isinstance(answer, PushPull)
    assert [n.name for n in answer.nodes] == ["peer"]
    assert events(swim) == []


def test_before_the_start_there_is_no_local_node() -> None:
    with pytest.raises(LocalProtocolError):
        _ = make(start=False).local_node


def test_accusations_after_the_leave_change_nothing() -> None:
    swim = make()
    tell(swim, alive("peer"))
    swim.leave(1.0)
    drain(swim)
    claims = (Suspect(5, "self", "x"), Dead(5, "self", "x"), alive("self", "10.0.0.1", 6), alive("self", "10.0.0.7", 6))
    tell(swim, *claims, now=2.0)
    assert swim.local_node.state == NodeState.LEFT
    assert events(swim) == []


def test_whoever_takes_a_node_that_left_for_alive_is_told_with_an_incarnation_that_counts() -> None:
    """It came back, left again, and never learnt how far its former self had come."""
    swim, deaf = make(), make("deaf", "10.0.0.2", probe_timeout=0.5)
    swim.leave(1.0)
    tell(deaf, alive("self", "10.0.0.1", 4), now=1.0)
    for turn in range(2):
        drain(swim)
        deaf.ping("self", ("10.0.0.1", 7946), 2.0 + turn)
        for here, there in ((deaf, swim), (swim, deaf), (deaf, swim)):
            for data, _ in here.datagrams_to_send():
                there.receive_datagram(data, here.local_node.address, 2.1 + turn)
    assert state(deaf, "self") == NodeState.LEFT


def test_the_delegate_hears_of_a_leave_first() -> None:
    said: list[bool] = []

    class Intends(BaseDelegate):
        def leaving(self) -> None:
            said.append(swim._core.has_left)

    swim = make(delegates={"delegate": Intends()})
    swim.leave(1.0)
    assert said == [False]


class Parting(BaseDelegate):
    """Has a word to say to everybody, and never gossips it."""

    def __init__(self, word: Any) -> None:
        self.word = word

    def leaving(self) -> Any:
        return self.word


def test_the_delegates_word_is_said_before_each_farewell() -> None:
    """Serf takes who leaves without its intent for failed, and gossip may hand that to those who do not pass it on."""
    swim = make(retransmit_mult=2, delegates={"delegate": Parting(bytearray(b"bye"))}, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    run_timers(swim, 5.0)
    drain(swim)
    swim.leave(5.0)
    run_timers(swim, 7.0)
    told: dict[str, list[list[Message]]] = {}
    for data, (host, _) in swim.datagrams_to_send():
        told.setdefault(host, []).append(list(swim._core.codec.open(data).messages))
    assert sorted(told) == [f"10.2.0.{n}" for n in range(1, 9)]
    farewell: list[Message] = [User(b"bye"), Dead(1, "self", "self")]
    assert all(packets.count(farewell) == 1 for packets in told.values()), "in one packet, so in this order"


@pytest.mark.parametrize("word", ["text", b"x" * 701, b"", None])
def test_a_word_that_cannot_be_said_holds_up_no_leave(word: object) -> None:
    swim = make(retransmit_mult=2, delegates={"delegate": Parting(word)}, **TALKS)
    tell(swim, alive("peer"))
    run_timers(swim, 5.0)
    drain(swim)
    leave = swim.leave(5.0)
    assert swim.counters.get("delegate.faults.leaving", 0) == (1 if word else 0)
    run_timers(swim, 7.0)
    assert ended(swim) == {leave: None}
    assert {type(m) for m, _ in sent(swim)} == {Dead}


# -- time -------------------------------------------------------------------------------


def test_a_clock_that_slips_back_stands_still() -> None:
    swim = make(stall_threshold=0, **TALKS)
    tell(swim, alive("peer"), now=10.0)
    operation = swim.ping("peer", PEER, 10.4)
    number = next(m.seq_no for m, _ in sent(swim) if isinstance(m, Ping))
    drain(swim)
    tell(swim, AckResp(number, None), now=10.39)
    [done] = [e for e in events(swim) if isinstance(e, OperationDone)]
    assert (done.operation_id, done.result) == (operation, 0.0), "no negative round trip"
    assert swim._core.timers.now == 10.4


def test_the_time_of_the_machine_never_goes_back_over_a_stall() -> None:
    swim = make(probe_interval=1.0, stall_threshold=1.0)
    due = swim.get_timer()
    assert due is not None
    tell(swim, Ping(1, "self"), now=due + 0.9)  # datagrams before timers: no stall yet
    tell(swim, Ping(2, "self"), now=due + 2.0)
    assert swim.counters["stalls"] == 1
    assert swim._core.timers.now == due + 0.9
    again = swim.get_timer()
    assert again is not None
    assert again <= due + 2.0, "what was due is due"


@pytest.mark.parametrize("gap", [0.02, 0.9])
def test_a_machine_that_is_busy_does_not_stand_still(gap: float) -> None:
    """Its timers wait, for the datagrams come first; yet it could have answered all the time."""
    swim = make(probe_interval=1.0, stall_threshold=1.0, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    run_timers(swim, 20.0)
    drain(swim)
    begun = 20.0
    for n in range(1, 151):
        tell(swim, Ping(n, "self"), now=begun + n * gap)
    assert "stalls" not in swim.counters and swim.incarnation == 1
    assert queued(swim) == [] and not any(isinstance(e, Stalled) for e in events(swim))
    tell(swim, Ping(151, "self"), now=begun + 150 * gap + 3.0)
    assert swim.counters["stalls"] == 1 and swim.incarnation == 2
    assert [e.seconds for e in events(swim) if isinstance(e, Stalled)] == [pytest.approx(3.0)]


def test_stalls_in_a_row_are_told_to_the_others_once(caplog: pytest.LogCaptureFixture) -> None:
    """Else who is slow makes the others slow, and they him."""
    swim = make(probe_interval=1.0, stall_threshold=1.0, push_pull_interval=30.0, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    run_timers(swim, 2.0)
    drain(swim)
    begun = 2.0
    for n in range(1, 11):
        tell(swim, Ping(n, "self"), now=begun + n * 2.2)
    assert swim.counters["stalls"] == 10
    assert len([e for e in events(swim) if isinstance(e, Stalled)]) == 10, "whoever looks sees each"
    assert swim.incarnation == 1 + 4, "one every 5 s is told"
    assert len([r for r in caplog.records if "did not run" in r.getMessage()]) == 4


def test_a_stall_that_a_send_finds_is_gossiped_on() -> None:
    """Whichever input notices the stall, the refutation goes round after round."""
    swim = make(probe_interval=1.0, **TALKS)
    tell(swim, *(alive(f"peer{n}", f"10.2.0.{n}") for n in range(1, 9)))
    run_timers(swim, 20.0)
    drain(swim)
    swim.send_user(b"hello", PEER, 40.0)
    assert any(isinstance(e, Stalled) for e in events(swim))
    assert swim._gossiper._armed
    assert [m.incarnation for m in queued(swim) if isinstance(m, Alive) and m.node == "self"] == [2]


# -- odd inputs -------------------------------------------------------------------------


def test_an_exchange_ends_once() -> None:
    swim = make()
    join = swim.join(PEER, 0.0)
    [request] = swim.exchanges_to_start()
    swim.exchange_failed(request.exchange_id, ConnectionRefusedError(), 1.0)
    assert isinstance(ended(swim)[join], ConnectionRefusedError)
    with pytest.raises(LocalProtocolError):
        swim.exchange_answered(request.exchange_id, None, 1.0)


def test_what_has_no_place_on_a_stream_or_in_a_packet() -> None:
    swim = make(delegates={"delegate": BaseDelegate()})
    drain(swim)
    assert swim.answer_exchange(Suspect(1, "self", "x"), PEER, 0.0) is None
    swim._handle(PushPull((), b"", False), PEER, 0.0)  # no codec lets it through
    assert [type(e) for e in events(swim)] == [PacketRejected, PacketRejected]
    assert swim.answer_exchange(User(b""), PEER, 0.0) is None
    assert events(swim) == [], "an empty user message is not delivered over TCP"
    swim.answer_exchange(User(b"x"), PEER, 0.0)
    assert events(swim) == [UserMessage(b"x", PEER)]
    tell(swim, NackResp(77), AckResp(77, None))
    assert events(swim) == []


def test_alive_from_an_address_that_is_not_allowed() -> None:
    swim = make(cidrs_allowed=("10.0.0.0/8",))
    tell(swim, alive("peer"), sender=("192.168.0.1", 7946))
    tell(swim, alive("peer"), sender=("no address", 7946))
    assert state(swim, "peer") is None
    assert swim.counters["alive.address_refused"] == 2
    tell(swim, alive("peer"), sender=("::ffff:10.0.0.7", 7946))
    assert state(swim, "peer") == NodeState.ALIVE


def test_without_addition_switches_nothing_is_corrected() -> None:
    swim = make(verify_suspicions=False)
    tell(swim, alive("peer", incarnation=5))
    drain(swim)
    tell(swim, Suspect(4, "peer", "x"), Dead(4, "peer", "x"))
    assert sent(swim) == []


def test_every_join_has_its_leave() -> None:
    swim = make()
    tell(swim, alive("peer"), Dead(1, "peer", "x"), alive("peer", incarnation=2), Dead(2, "peer", "peer"))
    tell(swim, alive("peer", "10.7.7.7", 1), Suspect(1, "peer", "x"), Dead(1, "peer", "x"))
    kinds = [type(e) for e in events(swim) if isinstance(e, (NodeJoined, NodeLeft)) and e.node.name == "peer"]
    assert kinds == [NodeJoined, NodeLeft] * 3


# -- what is left behind, counted, filled in ----------------------------------------------------------


def test_an_update_that_was_refused_is_not_heard_of_again() -> None:
    keeper = Doorkeeper()
    swim = make(delegates={"alive": keeper}, **TALKS)
    tell(swim, alive("peer"))
    keeper.shut = True
    with pytest.raises(LocalProtocolError, match="refused"):
        swim.update_meta(1.0)
    keeper.shut = False
    tell(swim, Dead(1, "peer", "x"), now=2.0)  # whoever waits for the news to be told need not wait any more
    assert ended(swim) == {}


def test_a_node_that_left_never_goes_back_in_incarnation() -> None:
    swim = make()
    tell(swim, alive("peer"), Suspect(4, "self", "x"))
    swim.leave(1.0)
    tell(swim, Suspect(2, "self", "x"), Dead(3, "self", "x"), alive("self", "10.0.0.1", 1), now=2.0)
    assert swim.incarnation == 5
    tell(swim, Dead(7, "self", "x"), now=2.0)
    assert swim.incarnation == 7


def test_datagrams_that_the_system_refused_are_counted() -> None:
    swim = make()
    for _ in range(3):
        swim.write_failed(PEER, 1.0)
    assert swim.counters["udp.write_errors"] == 3


@pytest.mark.parametrize(("settings", "port", "taken"), [({}, 0, 7946), ({}, 9, 9), ({"protocol_version": 1}, 9, 7946)])
def test_a_record_without_a_port_has_ours_and_in_the_first_protocol_every_one(
    settings: dict[str, Any], port: int, taken: int
) -> None:
    swim = make(**settings)
    tell(swim, alive("peer", port=port))
    assert next(node.port for node in swim.nodes() if node.name == "peer") == taken


def test_the_last_word_goes_to_those_who_are_there() -> None:
    swim = make(leave_fanout=9, retransmit_mult=1, **TALKS)
    tell(swim, alive("peer"), alive("gone"), Dead(1, "gone", "x"))
    drain(swim)
    swim._core.queue.reset()
    swim.leave(1.0)
    member = swim._core.table.get("peer")
    assert member is not None
    swim._core.send_gossip(member)  # the only time that it is gossiped, so it is said again
    told = [to[0] for message, to in sent(swim) if isinstance(message, Dead)]
    assert told == [host_for("peer")] * 2
