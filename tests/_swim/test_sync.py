"""Push/pull: how a join can end, and the bounds on what is done unasked."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.events import MergeRejected, OperationDone, RemoteState
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Dead, Err, Message, Ping, PushNodeState, PushPull, Suspect
from mycorrizal.delegates import BaseDelegate
from mycorrizal.exceptions import MergeRefused, PeerRefused, RemoteProtocolError
from mycorrizal.types import Address, NodeState, pack_host
from tests._swim.harness import VSN, alive, drain, events, make, run_timers, sent, state, tell

SEED: Address = ("10.0.0.2", 7946)
EVERY: dict[str, Any] = {"push_pull_interval": 30.0}


def entry(name: str, vsn: bytes = VSN) -> PushNodeState:
    return PushNodeState(name, pack_host("10.0.0.2"), 7946, None, 1, 0, vsn)


def joined(swim: Swim, answer: Message | None) -> Exception | None:
    """Join, let the seed answer so, and return how it ended."""
    operation = swim.join(SEED, 0.0)
    [request] = swim.exchanges_to_start()
    swim.exchange_answered(request.exchange_id, answer, 0.0)
    [end] = [e for e in events(swim) if isinstance(e, OperationDone)]
    assert end.operation_id == operation
    return end.error


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (None, RemoteProtocolError, "with nothing"),
        (AckResp(1, None), RemoteProtocolError, "type ACK"),
        (Err("no installed keys"), PeerRefused, "no installed keys"),
        (PushPull((entry("peer", bytes((1, 5, 9, 0, 0, 0))),), b"", True), MergeRefused, "version 9"),
    ],
    ids=["nothing", "another type", "an error", "other versions"],
)
def test_a_join_that_fails_says_why(answer: Message | None, kind: type[Exception], text: str) -> None:
    swim = make()
    error = joined(swim, answer)
    assert isinstance(error, kind)
    assert text in str(error).replace("ACK_RESP", "ACK")
    assert swim.counters["push_pulls_failed"] == 1
    assert [n.name for n in swim.members()] == ["self"]


def test_a_join_that_works() -> None:
    swim = make(**EVERY)
    assert joined(swim, PushPull((entry("peer"),), b"state nobody wants", True)) is None
    assert state(swim, "peer") == NodeState.ALIVE


def test_what_is_pushed_and_does_not_fit_is_reported_here() -> None:
    swim = make()
    drain(swim)
    answer = swim.answer_exchange(PushPull((entry("peer", b""),), b"", False), SEED, 0.0)
    assert isinstance(answer, PushPull), "the peer is not told, as in memberlist"
    assert [type(e) for e in events(swim)] == [MergeRejected]


def test_a_merge_delegate_sees_only_states_there_are() -> None:
    seen: list[str] = []

    class Sees:
        def notify_merge(self, peers: object) -> None:
            seen.extend(node.name for node in peers)  # type: ignore[attr-defined]

    swim = make(delegates={"merge": Sees()})
    odd = PushNodeState("odd", pack_host("10.0.0.3"), 7946, None, 1, 9, VSN)
    swim.answer_exchange(PushPull((entry("peer"), odd), b"", True), SEED, 0.0)
    assert seen == ["peer"]


# -- unasked -------------------------------------------------------------------------------------


def test_in_a_large_cluster_few_react_to_a_join() -> None:
    swim = make(early_push_pulls=16, **EVERY)
    tell(swim, *(alive(f"old{n}", f"10.5.{n // 250}.{n % 250 + 1}") for n in range(1000)))
    run_timers(swim, 29.0)
    swim._sync._tokens = 16.0
    before = swim.counters.get("push_pulls_early", 0)
    for n in range(100):
        tell(swim, alive(f"new{n}", f"10.6.0.{n + 1}"), now=29.0)
    assert swim.counters.get("push_pulls_early", 0) == before
    assert swim._sync._tokens >= 14.0, "100 joins, and about 0.4 of them are reacted to"


def test_a_stall_is_followed_by_a_comparison_though_no_token_is_left() -> None:
    swim = make(probe_interval=1.0, **EVERY)
    tell(swim, alive("peer"))
    swim._sync._tokens = 0.0
    if swim._sync._early is not None:
        swim._sync._early.cancel()
        swim._sync._early = None
    swim.handle_timer(100.0)
    drain(swim)
    run_timers(swim, 101.3)
    assert len([r for r in swim.exchanges_to_start() if isinstance(r.message, PushPull)]) == 1


def found(swim: Swim, now: float) -> list[float]:
    """Let "lost" answer a reconnect ping; return when push/pulls with it were wanted."""
    [number] = [m.seq_no for m, _ in sent(swim) if isinstance(m, Ping)]
    tell(swim, AckResp(number, None), now=now)
    times = []
    while True:
        for request in swim.exchanges_to_start():
            swim.exchange_failed(request.exchange_id, ConnectionRefusedError(), now)
            times.append(now)
        due = swim.get_timer()
        if due is None or due > 30.0:
            return times
        now = due
        swim.handle_timer(now)
        swim.datagrams_to_send()  # a further reconnect ping, which nobody answers


def lost(**settings: Any) -> tuple[Swim, float]:
    """Return a machine at its first reconnect ping, and the time."""
    swim = make(reconnect_interval=10.0, **settings)
    tell(swim, alive("lost"), Dead(1, "lost", "x"))
    drain(swim)
    due = swim.get_timer()
    assert due is not None
    assert 5.0 <= due <= 15.0
    swim.handle_timer(due)
    return swim, due


def test_a_lost_member_that_answers_is_compared_with_a_few_times() -> None:
    swim, now = lost()
    times = found(swim, now + 0.1)
    assert [round(at - times[0], 3) for at in times] == [0.0, 1.0, 3.5, 8.5]
    assert swim.counters["reconnects"] == 1
    assert swim.gauges["nodes.lost"] == 1, "it is dead to us until it says otherwise"


def test_the_reconnect_ping_carries_the_accusation() -> None:
    swim, _ = lost()
    assert [type(m) for m, _ in sent(swim)] == [Ping, Suspect]


def test_whoever_is_back_before_it_answers_needs_nothing() -> None:
    swim, now = lost()
    tell(swim, alive("lost", incarnation=2), now=now + 0.05)
    assert found(swim, now + 0.1) == []


def test_no_reconnecting_after_a_leave() -> None:
    swim, now = lost()
    [number] = [m.seq_no for m, _ in sent(swim) if isinstance(m, Ping)]
    swim.leave(now)
    tell(swim, AckResp(number, None), now=now + 0.1)
    drain(swim)
    run_timers(swim, 300.0)
    assert sent(swim) == []
    assert swim.exchanges_to_start() == []
    assert swim.get_timer() is None


@pytest.mark.parametrize("off", [{"reconnect_interval": 0}, {"reconnect_max": 0}])
def test_switched_off(off: dict[str, Any]) -> None:
    swim = make(**off)
    tell(swim, alive("lost"), Dead(1, "lost", "x"))
    assert swim.gauges["nodes.lost"] == 0
    assert swim.get_timer() is None


# -- what is told of an exchange, and who is remembered as lost ---------------------------------------


def test_a_state_says_whether_we_dialled() -> None:
    swim = make(delegates={"delegate": BaseDelegate()})
    assert joined(swim, PushPull((entry("peer"),), b"answer", True)) is None
    states = []
    swim.join(SEED, 1.0)
    [request] = swim.exchanges_to_start()
    swim.exchange_answered(request.exchange_id, PushPull((entry("peer"), entry("new")), b"answer", True), 1.0)
    swim.answer_exchange(PushPull((entry("peer"),), b"offer", True), SEED, 2.0)
    swim.answer_exchange(PushPull((entry("peer"),), b"offer", False), SEED, 2.0)
    states = [(e.data, e.join, e.answer) for e in events(swim) if isinstance(e, RemoteState)]
    assert states == [(b"answer", True, True), (b"offer", True, False), (b"offer", False, False)]


def test_a_seed_that_refuses_is_named() -> None:
    error = joined(make(), Err("no installed keys"))
    assert isinstance(error, PeerRefused)
    assert error.node == "10.0.0.2:7946"
    assert error.hint is not None and "keys" in error.hint


def test_of_the_lost_the_longest_gone_is_forgotten_and_counted() -> None:
    swim = make(reconnect_interval=10.0, reconnect_max=2)
    for n, name in enumerate("abc"):
        tell(swim, alive(name), Dead(1, name, "x"), now=float(n))
    assert list(swim._sync._lost) == ["b", "c"]
    assert swim.counters["lost_members_forgotten"] == 1
    tell(swim, alive("b", incarnation=2), now=5.0)
    assert list(swim._sync._lost) == ["c"]
    tell(swim, alive("c", incarnation=2), Dead(2, "c", "c"), now=5.0)
    assert swim.gauges["nodes.lost"] == 0, "who left is not lost"


def test_of_who_is_lost_it_is_known_how_long_its_last_life_was() -> None:
    swim = make(reconnect_interval=10.0, stall_threshold=0)
    for now, claim in ((0.0, alive("lost")), (50.0, Dead(1, "lost", "x")), (60.0, alive("lost", incarnation=2))):
        tell(swim, claim, now=now)
    tell(swim, alive("lost", incarnation=3), Dead(3, "lost", "x"), now=75.0)
    assert [(lost.since, lost.lived) for lost in swim._sync._lost._members.values()] == [(75.0, 15.0)]


def test_who_is_lost_for_long_is_looked_for_no_more_and_counted() -> None:
    swim = make(reconnect_interval=10.0, reconnect_timeout=100.0)
    tell(swim, alive("lost"), Dead(1, "lost", "x"))
    run_timers(swim, 90.0)
    pings = swim.counters["reconnect_pings"]
    assert pings >= 4
    run_timers(swim, 1000.0)
    assert swim.gauges["nodes.lost"] == 0
    assert swim.counters["lost_members_forgotten"] == 1
    assert swim.get_timer() is None


def test_a_merge_that_is_refused_is_told_with_its_address() -> None:
    swim = make()
    swim.answer_exchange(PushPull((entry("peer", bytes((1, 5, 9, 0, 0, 0))),), b"", True), SEED, 1.0)
    [told] = [e for e in events(swim) if isinstance(e, MergeRejected)]
    assert told.address == SEED
    assert swim.counters["merges_refused"] == 1
    assert state(swim, "peer") is None
