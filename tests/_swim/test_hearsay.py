"""Hearsay of somebody unknown or gone is checked before anybody is told; who speaks for itself is believed."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.events import NodeJoined, OperationDone
from mycorrizal._swim.hearsay import _AWAY, _CHECKS_MAX
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Dead, IndirectPing, Ping, PushNodeState, PushPull, Suspect
from mycorrizal.types import Address, NodeState, pack_host
from tests._swim.harness import VSN, alive, drain, events, make, run_timers, sent, state, tell

BOB: Address = ("10.0.0.2", 7946)
CAROL: Address = ("10.0.0.3", 7946)
DAVE: Address = ("10.0.0.4", 7946)


def awake(**settings: Any) -> Swim:
    """Return a machine that knows bob and dave, and knew carol once."""
    swim = make(stall_threshold=0, **settings)
    tell(swim, alive("bob", BOB[0]), sender=BOB)
    tell(swim, alive("dave", DAVE[0]), sender=DAVE)
    tell(swim, alive("carol", CAROL[0]), Dead(1, "carol", "carol"), sender=CAROL)
    swim._core.table.reap(lambda member: member.gone)
    drain(swim)
    return swim


def entry(name: str, address: Address, incarnation: int = 1, alive: NodeState = NodeState.ALIVE) -> PushNodeState:
    return PushNodeState(name, pack_host(address[0]), address[1], None, incarnation, alive, VSN)


BOB_HIMSELF = entry("bob", BOB)


def pushed(swim: Swim, *nodes: PushNodeState, by: Address = BOB, join: bool = False, now: float = 1.0) -> None:
    swim.answer_exchange(PushPull(nodes, b"", join), (by[0], 40000), now)


def pings(swim: Swim) -> list[tuple[int, str, Address]]:
    return [(m.seq_no, m.node, to) for m, to in sent(swim) if isinstance(m, Ping)]


def joins(swim: Swim) -> list[str]:
    return [event.node.name for event in events(swim) if isinstance(event, NodeJoined)]


def ended(swim: Swim) -> list[int]:
    return [event.operation_id for event in events(swim) if isinstance(event, OperationDone)]


def test_of_whom_a_push_pull_tells_is_pinged_and_told_of_when_it_answers() -> None:
    swim = awake()
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL, 7))
    assert state(swim, "carol") is None and swim.gauges["nodes.hearsay"] == 1
    [(number, name, address)] = pings(swim)
    assert (name, address) == ("carol", CAROL)
    tell(swim, AckResp(number, None), now=1.1)
    assert state(swim, "carol") == NodeState.ALIVE and joins(swim) == ["carol"]
    assert swim.gauges["nodes.hearsay"] == 0


def test_who_does_not_answer_is_asked_through_others_and_nobody_hears_of_it() -> None:
    swim = awake()
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL))
    drain(swim)
    run_timers(swim, 1.6)
    asked = [(m, to) for m, to in sent(swim) if isinstance(m, (Ping, IndirectPing))]
    assert {to for m, to in asked if isinstance(m, IndirectPing)} == {BOB, DAVE}
    assert {to for m, to in asked if isinstance(m, Ping)} == {CAROL}
    run_timers(swim, 5.0)
    assert state(swim, "carol") is None and joins(swim) == []
    assert swim.gauges["nodes.hearsay"] == 0 and swim.counters["hearsay_refuted"] == 1


def test_who_answers_through_others_is_believed() -> None:
    swim = awake()
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL))
    drain(swim)
    run_timers(swim, 1.6)
    [number] = {m.seq_no for m, _ in sent(swim) if isinstance(m, IndirectPing)}
    tell(swim, AckResp(number, None), now=1.7)
    assert joins(swim) == ["carol"]


def test_of_who_left_from_elsewhere_no_old_record_counts_unchecked() -> None:
    swim = make()
    tell(swim, alive("bob", BOB[0]), alive("carol", CAROL[0], 9), Dead(9, "carol", "carol"))
    drain(swim)
    pushed(swim, BOB_HIMSELF, entry("carol", DAVE, 2))
    assert state(swim, "carol") == NodeState.LEFT and joins(swim) == []
    assert [name for _, name, _ in pings(swim)] == ["carol"]


def test_who_joins_is_believed_at_once_about_itself() -> None:
    swim = awake()
    pushed(swim, entry("eve", ("10.0.0.5", 7946)), by=("10.0.0.5", 1), join=True)
    tell(swim, alive("frank", "10.0.0.6"), sender=("10.0.0.6", 7946))
    assert joins(swim) == ["eve", "frank"]
    assert pings(swim) == []


def test_several_of_one_host_are_told_apart_by_their_answers() -> None:
    swim = awake()
    pushed(swim, entry("eve", (BOB[0], 7947)), entry("frank", (BOB[0], 7948)), join=True)
    assert joins(swim) == []
    assert sorted(name for _, name, _ in pings(swim)) == ["eve", "frank"]


def test_whom_we_dialled_is_believed_about_itself_whoever_else_its_host_has() -> None:
    swim = awake()
    swim.join(("10.0.0.5", 7946), 1.0)
    [request] = swim.exchanges_to_start()
    eve, carol = entry("eve", ("10.0.0.5", 7946)), entry("carol", ("10.0.0.5", 7947))
    swim.exchange_answered(request.exchange_id, PushPull((eve, carol), b"", True), 1.1)
    assert joins(swim) == ["eve"]


def test_a_newcomer_believes_whom_it_joins_and_who_has_lost_somebody_is_none() -> None:
    for lost, expected in ((False, ["carol", "dave"]), (True, [])):
        swim = make(reconnect_interval=10.0)
        if lost:
            tell(swim, alive("bob", BOB[0]), Dead(1, "bob", "x"))
        events(swim)
        swim.join(BOB, 1.0)
        [request] = swim.exchanges_to_start()
        answer = PushPull((entry("carol", CAROL), entry("dave", DAVE)), b"", True)
        swim.exchange_answered(request.exchange_id, answer, 1.1)
        assert joins(swim) == expected


def test_a_join_is_over_when_those_have_been_asked_of_whom_it_told() -> None:
    swim = awake()
    operation = swim.join(("10.0.0.5", 7946), 1.0)
    [request] = swim.exchanges_to_start()
    told = [entry("eve", ("10.0.0.5", 7946)), entry("carol", CAROL), entry("frank", ("10.0.0.6", 7946))]
    swim.exchange_answered(request.exchange_id, PushPull(tuple(told), b"", True), 1.1)
    numbers = {name: number for number, name, _ in pings(swim)}
    tell(swim, AckResp(numbers["frank"], None), now=1.2)
    assert ended(swim) == []
    run_timers(swim, 3.0)
    assert ended(swim) == [operation]
    assert [node.name for node in swim.members()] == ["bob", "dave", "eve", "frank", "self"]


def test_gossip_is_doubted_where_it_comes_from_somebody_who_was_suspect_a_while_ago() -> None:
    swim = awake()
    tell(swim, Suspect(1, "bob", "dave"), sender=DAVE, now=1.0)
    tell(swim, alive("carol", CAROL[0]), sender=BOB, now=2.0)
    tell(swim, alive("bob", BOB[0], 2), sender=BOB, now=3.0)
    tell(swim, alive("eve", "10.0.0.5"), sender=BOB, now=4.0)
    assert joins(swim) == []
    assert [name for _, name, _ in pings(swim)] == ["carol", "eve"]
    tell(swim, alive("frank", "10.0.0.6"), sender=DAVE, now=4.0)
    assert joins(swim) == ["frank"], "who was always there is believed"
    later = 4.0 + _AWAY + 2 * len(swim.nodes()) * swim._core.config.probe_interval
    run_timers(swim, later)
    tell(swim, alive("grace", "10.0.0.7"), sender=BOB, now=later)
    assert joins(swim) == ["grace"], "and in the end bob too"


def test_gossip_is_doubted_where_it_comes_from_who_is_lost_or_was() -> None:
    swim = awake(reconnect_interval=10.0)
    tell(swim, Dead(1, "bob", "dave"), sender=DAVE, now=1.0)
    swim._core.table.reap(lambda member: member.gone)
    tell(swim, alive("carol", CAROL[0]), sender=BOB, now=2.0)
    tell(swim, alive("bob", BOB[0], 2), sender=BOB, now=3.0)
    tell(swim, alive("eve", "10.0.0.5"), sender=BOB, now=4.0)
    assert joins(swim) == ["bob"]
    assert [name for _, name, _ in pings(swim)] == ["carol", "eve"]


def test_checks_are_bounded() -> None:
    swim = awake()
    pushed(swim, *(entry(f"m{n}", (f"10.2.{n >> 8}.{n & 255}", 7946)) for n in range(_CHECKS_MAX + 5)))
    assert len(pings(swim)) == swim.gauges["nodes.hearsay"] == _CHECKS_MAX
    assert swim.counters["hearsay_dropped"] == 5
    pushed(swim, BOB_HIMSELF, entry("m0", ("10.2.0.0", 7946), 4))
    assert pings(swim) == [], "who is being checked is not checked again"


def test_hearsay_that_is_newer_is_what_is_believed_in_the_end() -> None:
    swim = awake()
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL, 3))
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL, 4))
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL, 2))
    [(number, _, _)] = pings(swim)
    tell(swim, AckResp(number, None), now=1.1)
    assert next(node.incarnation for node in swim.nodes() if node.name == "carol") == 4


@pytest.mark.parametrize("networks", [None, ("10.0.0.0/30",)])
def test_no_address_is_pinged_that_nobody_may_have(networks: tuple[str, ...] | None) -> None:
    swim = awake(cidrs_allowed=networks)
    nowhere = PushNodeState("frank", b"", 0, None, 1, NodeState.ALIVE, VSN)
    pushed(swim, BOB_HIMSELF, entry("eve", ("10.0.0.9", 7946)), nowhere)
    assert [name for _, name, _ in pings(swim)] == (["eve"] if networks is None else [])


def test_switched_off() -> None:
    swim = awake(check_hearsay=False)
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL))
    assert joins(swim) == ["carol"] and pings(swim) == []


def test_a_claim_of_another_address_does_not_ride_on_a_check() -> None:
    swim = awake()
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL, 3))
    pushed(swim, BOB_HIMSELF, entry("carol", ("10.0.0.9", 7946), 9))
    [(number, _, address)] = pings(swim)
    tell(swim, AckResp(number, None), now=1.1)
    [(there, incarnation)] = [(node.address, node.incarnation) for node in swim.nodes() if node.name == "carol"]
    assert (there, incarnation) == (address, 3) == (CAROL, 3)


def test_where_nobody_more_is_taken_nobody_is_checked() -> None:
    swim = awake(max_nodes=3)
    pushed(swim, BOB_HIMSELF, entry("carol", CAROL))
    assert pings(swim) == [] and state(swim, "carol") is None


def test_who_has_left_does_not_check_what_is_told_of_itself() -> None:
    swim = awake()
    swim.leave(0.5)
    own = swim._core.table.get("self")
    assert own is not None
    drain(swim)
    pushed(swim, BOB_HIMSELF, entry(own.name, own.address, own.incarnation + 5))
    assert pings(swim) == [] and state(swim, own.name) == NodeState.LEFT
