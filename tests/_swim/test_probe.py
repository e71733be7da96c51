"""Probing and answering, where the scenarios do not go: late and forged answers, write errors, who is told what."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.events import DelegateFault, OperationDone, UdpBlocked
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Dead, IndirectPing, Message, NackResp, Ping, Suspect
from mycorrizal.exceptions import NoPingResponse
from mycorrizal.types import Address, NodeState
from tests._swim.harness import alive, drain, events, host_for, make, run_timers, sent, state, tell

PEER = (host_for("peer"), 7946)


def probing(*others: str, **settings: Any) -> tuple[Swim, int]:
    """Return a machine that has just pinged "peer", and the number of the ping."""
    swim = make(**settings)
    tell(swim, alive("peer"), *(alive(name) for name in others))
    drain(swim)
    member = swim._core.table.get("peer")
    assert member is not None
    swim._core.config.__dict__["probe_interval"] = 1.0  # a window to probe in, without the periodic probes
    swim._prober.probe_member(member, 0.0)
    [number] = [m.seq_no for m, _ in sent(swim) if isinstance(m, Ping)]
    return swim, number


def fall_back(swim: Swim, answer: Message | None) -> None:
    """Answer the TCP pings that are wanted."""
    for request in swim.exchanges_to_start():
        swim.exchange_answered(request.exchange_id, answer, swim._core.timers.now)


# -- a probe of ours ------------------------------------------------------------------------


def test_a_write_error_goes_to_the_others_at_once() -> None:
    swim, number = probing("other")
    swim.write_failed(("10.9.9.9", 1), 0.1)
    assert sent(swim) == [], "somebody else's"
    swim.write_failed(PEER, 0.1)
    asked = [m for m, _ in sent(swim) if isinstance(m, IndirectPing)]
    assert [(m.seq_no, m.node) for m in asked] == [(number, "peer")]
    swim.write_failed(PEER, 0.2)
    assert sent(swim) == [], "once"
    assert swim.counters["udp.write_errors"] == 3
    score = swim.health_score
    tell(swim, AckResp(number, None), now=0.3)
    assert swim.health_score == score, "a probe that was not sent proves nothing about us"


@pytest.mark.parametrize("answer", [None, AckResp(4711, None), Suspect(1, "a", "b")], ids=["none", "number", "type"])
def test_a_wrong_answer_over_TCP_saves_nobody(answer: Message | None) -> None:
    swim, _ = probing()
    run_timers(swim, 0.5)
    fall_back(swim, answer)
    run_timers(swim, 1.5)
    assert state(swim, "peer") == NodeState.SUSPECT


def test_the_driver_may_be_late_with_the_answer_over_TCP() -> None:
    swim, number = probing()
    run_timers(swim, 1.2)  # over, but the conversation has the same deadline
    assert state(swim, "peer") == NodeState.ALIVE
    fall_back(swim, AckResp(number, None))
    assert state(swim, "peer") == NodeState.ALIVE
    assert swim._prober._active is None


def test_a_driver_that_says_nothing_is_not_waited_for_long() -> None:
    swim, _ = probing()
    run_timers(swim, 1.51)
    assert state(swim, "peer") == NodeState.SUSPECT


def test_nacks_that_nobody_asked_for_do_not_make_us_healthy() -> None:
    swim, number = probing("other", "third")
    swim._core.awareness.score = 3
    tell(swim, *[NackResp(number)] * 50)
    run_timers(swim, 0.5)
    fall_back(swim, None)
    run_timers(swim, 9.0)
    assert swim.health_score == 3


def test_who_is_forgotten_during_its_probe() -> None:
    swim, number = probing("other")
    tell(swim, Dead(1, "peer", "x"))
    swim._core.table.reap(lambda member: member.name == "peer")
    run_timers(swim, 0.5)
    assert [m.node for m, _ in sent(swim) if isinstance(m, IndirectPing)] == ["peer"]
    fall_back(swim, AckResp(number, None))
    run_timers(swim, 2.0)
    assert state(swim, "peer") is None

    swim, number = probing("other")
    swim._core.table.reap(lambda member: member.name == "peer")
    tell(swim, AckResp(number, None), now=0.1)
    assert swim._prober._active is None


@pytest.mark.parametrize(("settings", "tcp"), [
    ({"disable_tcp_pings": True}, 0),
    ({"disable_tcp_pings_for_node": lambda name: name == "peer"}, 0),
    ({"disable_tcp_pings_for_node": lambda name: name == "else"}, 1),
])  # fmt: skip
def test_where_TCP_pings_are_disabled(settings: dict[str, Any], tcp: int) -> None:
    swim, _ = probing(**settings)
    run_timers(swim, 0.5)
    assert len(swim.exchanges_to_start()) == tcp
    assert [e for e in events(swim) if isinstance(e, DelegateFault)] == []


def test_a_disabling_function_that_raises_disables_nothing() -> None:
    swim, _ = probing(disable_tcp_pings_for_node=lambda name: 1 / 0 > 0)
    run_timers(swim, 0.5)
    assert len(swim.exchanges_to_start()) == 1
    assert [e.call for e in events(swim) if isinstance(e, DelegateFault)] == ["disable_tcp_pings_for_node"]


def test_ticks_that_pass_during_a_probe_count_once() -> None:
    swim = make(probe_interval=1.0, disable_tcp_pings=True)
    tell(swim, alive("peer"), alive("other"))
    swim._core.awareness.score = 2  # the first probe may last 3 s
    run_timers(swim, 2.0)
    assert swim._prober._active is not None
    began, probes = swim._prober._active.sent, swim.counters["probes"]
    run_timers(swim, began + 2.9)
    assert swim.counters["probes"] == probes
    assert swim._prober._missed_tick
    run_timers(swim, began + 3.0)
    assert swim.counters["probes"] == probes + 1, "at once, and not three times"


def test_a_late_owner_does_not_make_the_ticks_pile_up() -> None:
    swim = make(probe_interval=1.0, stall_threshold=0)
    swim.handle_timer(100.0)
    due = swim.get_timer()
    assert due == 101.0


# -- answering ---------------------------------------------------------------------------------


def test_pings_for_somebody_else_are_not_answered() -> None:
    swim = make()
    drain(swim)
    tell(swim, Ping(1, "former tenant"))
    assert swim.answer_exchange(Ping(1, "former tenant"), PEER, 0.0) is None
    assert sent(swim) == []
    assert swim.counters["pings_misdirected"] == 2
    assert swim.answer_exchange(Ping(2, ""), PEER, 0.0) == AckResp(2, None)


@pytest.mark.parametrize(("fanout", "told"), [(64, 1), (0, 0)])
def test_who_pings_a_node_that_left_is_told(fanout: int, told: int) -> None:
    swim = make(leave_fanout=fanout)
    tell(swim, alive("peer"))
    swim.leave(1.0)
    swim._core.queue.reset()
    drain(swim)
    asker: Address = ("10.0.0.7", 7946)
    tell(swim, Ping(3, "self", b"\x0a\0\0\7", 7946, "deaf"), sender=("10.9.9.9", 1), now=2.0)
    said = sent(swim)
    assert (AckResp(3, None), asker) in said
    assert [m for m, to in said if isinstance(m, Dead) and to == asker] == [Dead(1, "self", "self")] * told


def test_a_relay_asks_and_passes_on() -> None:
    swim = make(protocol_version=1, port=7001)
    swim._core.queue.reset()
    request = IndirectPing(77, b"\x0a\0\0\x63", 0, "target", True, b"\x0a\0\0\x09", 7946, "asker")
    tell(swim, request)
    [(ping, to)] = [(m, to) for m, to in sent(swim) if isinstance(m, Ping)]
    assert to == ("10.0.0.99", 7001)
    tell(swim, AckResp(ping.seq_no, b"payload"), now=0.1)
    assert sent(swim) == [(AckResp(77, None), ("10.0.0.9", 7946))]
    run_timers(swim, 5.0)
    assert sent(swim) == [], "no nack behind an ack"


@pytest.mark.parametrize("nack", [True, False])
def test_a_relay_that_hears_nothing_says_so_if_asked(nack: bool) -> None:
    swim = make()
    swim._core.queue.reset()
    tell(swim, IndirectPing(77, b"\x0a\0\0\x63", 7946, "target", nack, b"", 0, "asker"), sender=PEER)
    assert [type(m) for m, _ in sent(swim)] == [Ping]
    run_timers(swim, 5.0)
    assert sent(swim) == ([(NackResp(77), PEER)] if nack else [])


# -- the public ping ------------------------------------------------------------------------------


def test_a_ping_ends_either_way() -> None:
    swim = make()
    good, bad = swim.ping("peer", PEER, 1.0), swim.ping("", ("10.0.0.3", 1), 1.0)
    numbers = [m.seq_no for m, _ in sent(swim) if isinstance(m, Ping)]
    drain(swim)
    tell(swim, AckResp(numbers[0], None), AckResp(numbers[0], None), now=1.25)
    run_timers(swim, 5.0)
    ends = {e.operation_id: e for e in events(swim) if isinstance(e, OperationDone)}
    assert ends[good].result == 0.25
    error = ends[bad].error
    assert isinstance(error, NoPingResponse)
    assert "10.0.0.3:1" in str(error)


# -- UDP that is blocked -----------------------------------------------------------------------------


def only_tcp(swim: Swim, times: int, now: float) -> float:
    """Let `times` probes of "peer" be answered over TCP alone."""
    for _ in range(times):
        member = swim._core.table.get("peer")
        assert member is not None
        swim._prober.probe_member(member, now)
        run_timers(swim, now + 0.6)
        [request] = swim.exchanges_to_start()
        swim.exchange_answered(request.exchange_id, AckResp(swim._core._sequence, None), now + 0.7)
        run_timers(swim, now + 1.0)
        now += 1.0
    return now


def test_blocked_is_told_after_four_probes_and_forgotten_after_one_answer() -> None:
    swim, number = probing()
    tell(swim, AckResp(number, None), now=0.1)
    now = only_tcp(swim, 3, 1.0)
    member = swim._core.table.get("peer")
    assert member is not None
    swim._prober.probe_member(member, now)
    tell(swim, AckResp(swim._core._sequence, None), now=now + 0.1)
    assert member.tcp_only == 0
    now = only_tcp(swim, 3, now + 1.0)
    drain(swim)
    now = only_tcp(swim, 1, now)
    blocked = [e for e in events(swim) if isinstance(e, UdpBlocked)]
    assert [(e.node.name, e.direction) for e in blocked] == [("peer", "unknown")]
    assert state(swim, "peer") == NodeState.ALIVE


def test_fallbacks_that_tell_now_this_now_that_are_plain_loss() -> None:
    swim = make()
    tell(swim, alive("peer"))
    drain(swim)

    def falls_back(number: int, heard: bool) -> list[str]:
        if heard:
            tell(swim, Ping(number, "self", None, 0, "peer"))
        swim.answer_exchange(Ping(number, "self", None, 0, "peer"), PEER, 0.0)
        return [e.direction for e in events(swim) if isinstance(e, UdpBlocked)]

    assert [falls_back(n, n % 3 == 0) for n in range(30)] == [[]] * 30
    assert ["inbound"] in [falls_back(100 + n, False) for n in range(4)]


def test_fallbacks_after_a_stall_of_ours_tell_nothing() -> None:
    """They were sent, and not answered over UDP, because we did not run."""
    swim = make(probe_interval=1.0, stall_threshold=1.0)
    tell(swim, alive("peer"))
    drain(swim)
    woke = (swim.get_timer() or 0.0) + 60.0
    numbers = iter(range(100, 200))

    def fall_back(now: float) -> list[str]:
        while (due := swim.get_timer()) is not None and due <= now:
            swim.handle_timer(due)
        number = next(numbers)
        swim.answer_exchange(Ping(number, "self", None, 0, "peer"), PEER, now)
        return [e.direction for e in events(swim) if isinstance(e, UdpBlocked)]

    swim.handle_timer(woke)
    assert swim.counters["stalls"] == 1
    assert [fall_back(woke + 0.25 * n) for n in range(12)] == [[]] * 12
    assert [fall_back(woke + 3.1 + 0.1 * n) for n in range(4)] == [[], [], [], ["inbound"]]
    assert swim.counters["stalls"] == 1


def test_probes_before_a_stall_of_ours_count_for_nothing_after_it() -> None:
    swim, number = probing(stall_threshold=1.0)
    tell(swim, AckResp(number, None), now=0.1)
    member = swim._core.table.get("peer")
    assert member is not None
    member.tcp_only = member.fallbacks = 3
    swim._prober.abandon(50.0)
    assert (member.tcp_only, member.fallbacks) == (0, 0)


def test_our_own_ping_over_TCP_tells_nothing() -> None:
    swim = make()
    drain(swim)
    for number in range(5):
        swim.answer_exchange(Ping(number, "self", None, 0, "self"), PEER, 0.0)
        swim.answer_exchange(Ping(number, "self", None, 0, "stranger"), PEER, 0.0)
    assert events(swim) == []


# -- odd settings, late callbacks ---------------------------------------------------------------------


def test_an_interval_shorter_than_the_timeout_asks_the_others_at_its_end() -> None:
    swim = make(probe_interval=0.3, probe_timeout=0.5)
    tell(swim, alive("peer"), alive("other"))
    while swim._prober._active is None:
        swim.handle_timer(swim.get_timer() or 0.0)
    began, name = swim._prober._active.sent, swim._prober._active.node.name
    drain(swim)
    run_timers(swim, began + 0.3)
    assert [m.node for m, _ in sent(swim) if isinstance(m, IndirectPing)] == [name]
    fall_back(swim, None)
    assert state(swim, name) == NodeState.SUSPECT


def test_what_comes_after_a_probe_was_given_up_is_about_nothing() -> None:
    swim, number = probing("other")
    probe = swim._prober._active
    assert probe is not None
    run_timers(swim, 0.5)
    drain_exchanges = swim.exchanges_to_start()
    swim.handle_timer(60.0)  # a stall
    assert swim._prober._active is None
    drain(swim)
    for late in (swim._prober._direct_timeout, swim._prober._expired, swim._prober._conclude):
        late(probe, 60.0)
    swim._prober._acked(probe, b"", 60.0)
    tell(swim, AckResp(number, None), now=60.0)
    for request in drain_exchanges:
        swim.exchange_failed(request.exchange_id, TimeoutError(), 60.0)
    assert state(swim, "peer") == NodeState.ALIVE
    assert "probes_failed" not in swim.counters


# -- what a stall, a bound and an interval leave ------------------------------------------------------


def test_a_probe_that_was_given_up_waits_for_nothing_and_what_was_counted_before_says_nothing() -> None:
    swim, number = probing()
    tell(swim, AckResp(number, None), now=0.1)
    now = only_tcp(swim, 3, 1.0)
    member = swim._core.table.get("peer")
    assert member is not None
    member.fallbacks = 3
    swim._prober.probe_member(member, now)
    assert swim.gauges["acks.pending"] == 1
    swim._prober.abandon(now + 60.0)
    assert swim.gauges["acks.pending"] == 0
    assert (member.tcp_only, member.fallbacks) == (0, 0)
    drain(swim)
    only_tcp(swim, 1, now + 61.0)
    assert [e for e in events(swim) if isinstance(e, UdpBlocked)] == []


def test_blocked_is_told_every_half_minute_at_most() -> None:
    swim, number = probing()
    tell(swim, AckResp(number, None), now=0.1)
    now = only_tcp(swim, 20, 1.0)
    assert len([e for e in events(swim) if isinstance(e, UdpBlocked)]) == 1
    only_tcp(swim, 20, now)
    assert len([e for e in events(swim) if isinstance(e, UdpBlocked)]) == 1
    assert swim.counters["udp_blocked"] == 2


def test_who_answers_over_TCP_is_not_held_for_refused() -> None:
    swim, number = probing()
    tell(swim, AckResp(number, None), now=0.1)
    swim._transitions.refused("peer", PEER, 0.5)
    member = swim._core.table.get("peer")
    assert member is not None and member.refused
    only_tcp(swim, 1, 1.0)
    assert not member.refused


def test_relayed_pings_that_wait_are_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._swim.acks._WAITING_MAX", 2)
    swim = make(probe_timeout=0.5)
    drain(swim)
    for number in range(5):
        tell(swim, IndirectPing(number, bytes((10, 0, 0, 9)), 7946, "target", False, None, 0, "asker"))
    assert len([m for m, _ in sent(swim) if isinstance(m, Ping)]) == 2
    assert swim.counters["indirect_pings_refused"] == 3
    run_timers(swim, 1.0)
    tell(swim, IndirectPing(9, bytes((10, 0, 0, 9)), 7946, "target", False, None, 0, "asker"), now=1.0)
    assert len([m for m, _ in sent(swim) if isinstance(m, Ping)]) == 1


def test_pings_over_TCP_count_as_long_as_none_before_was_answered_over_UDP() -> None:
    swim = make()
    tell(swim, alive("peer"))
    drain(swim)

    def falls_back(*numbers: int) -> int:
        for number in numbers:
            swim.answer_exchange(Ping(number, "self", None, 0, "peer"), PEER, 0.0)
        return len([e for e in events(swim) if isinstance(e, UdpBlocked)])

    assert falls_back(1, 2, 3) == 0
    tell(swim, Ping(4, "self", None, 0, "peer"))
    assert falls_back(5, 6, 7) == 0
    assert falls_back(8) == 1
