"""One name at two addresses: every way a question can end, and that a quarrel does not go on for ever."""

from __future__ import annotations

import pytest

from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Alive, Dead, Ping
from mycorrizal.types import NodeState
from tests._swim.harness import VSN, alive, drain, events, make, record, run_timers, sent, state, tell
from tests.scenarios.network import LIVELY, Network

MAPPED = bytes(10) + b"\xff\xff\x0a\0\0\1"  # 10.0.0.1 in sixteen bytes


def pings(swim: Swim) -> list[tuple[int, str]]:
    """Take the packets; return number and host of the pings."""
    return [(m.seq_no, to[0]) for m, to in sent(swim) if isinstance(m, Ping)]


@pytest.mark.parametrize("kinds", [("udp",), ("udp", "tcp")])
def test_two_live_namesakes_that_cannot_reach_each_other_do_not_outbid_for_ever(kinds: tuple[str, ...]) -> None:
    one, two = (make("twin", f"10.0.0.{n}", seed=n, start=False, **LIVELY) for n in (1, 2))
    x, y = (make(name, f"10.0.0.{n}", start=False, **LIVELY) for n, name in ((3, "x"), (4, "y")))
    network = Network(one, two, x, y, latency=0.001)
    assert network.join(one, x) is None
    assert network.join(two, y) is None
    network.run(5.0)
    network.cut_both(one, two, *kinds)
    assert network.join(x, y) is None
    network.run(1200.0)
    assert one.incarnation <= 20
    assert two.incarnation <= 20
    before = one.incarnation, two.incarnation
    network.run(600.0)
    assert (one.incarnation, two.incarnation) == before
    assert network.events(one, NodeConflict) or network.events(two, NodeConflict), "and it is said"


def test_our_own_address_in_its_other_form_is_outbid_without_a_question() -> None:
    swim = make()
    tell(swim, Alive(5, "self", MAPPED, 7946, b"", VSN))
    assert pings(swim) == []
    assert swim.incarnation == 6
    tell(swim, Alive(5, "self", MAPPED, 7946, b"", VSN))
    assert swim.incarnation == 6, "older than ours"
    for _ in range(50):
        tell(swim, Alive(swim.incarnation, "self", MAPPED, 7946, b"", VSN))
    assert swim.incarnation == 13
    assert any(isinstance(e, NodeConflict) for e in events(swim))


def test_no_outbidding_after_a_leave() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer"), alive("self", "10.0.0.2", 7), now=1.0)
    assert [host for _, host in pings(swim)] == ["10.0.0.2"]
    swim.leave(1.1)
    run_timers(swim, 10.0)
    assert swim.incarnation == 1
    assert swim.local_node.state == NodeState.LEFT


def test_a_claim_without_address_is_no_claim() -> None:
    swim = make()
    tell(swim, alive("peer", "10.0.0.2", 5))
    drain(swim)
    swim._transitions.alive(Alive(6, "peer", bytes((10, 0, 0, 3)), 0, b"", VSN), 1.0)
    assert pings(swim) == []
    assert swim.counters["alive.address_refused"] == 1


def test_a_better_claim_of_the_same_address_replaces_the_one_under_question() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5), now=0.0)
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 1), alive("peer", "10.0.0.3", 6), alive("peer", "10.0.0.3", 2), now=1.0)
    assert len(pings(swim)) == 1
    run_timers(swim, 3.0)
    assert (record(swim, "peer").host, record(swim, "peer").incarnation) == ("10.0.0.3", 6)


@pytest.mark.parametrize("answers", [False, True])
def test_the_record_is_forgotten_meanwhile(answers: bool) -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5), Dead(5, "peer", "x"))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 1), now=30.9)
    [(number, _)] = pings(swim)
    swim._prober._reap(31.0)
    drain(swim)
    if answers:
        tell(swim, AckResp(number, None), now=31.1)
    run_timers(swim, 40.0)
    assert state(swim, "peer") == (None if answers else NodeState.ALIVE)
    assert [type(e) for e in events(swim)] == ([] if answers else [NodeJoined])


def test_the_record_moved_meanwhile() -> None:
    """What was asked is not what stands there any more: nothing is taken, nothing is reported."""
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 1), now=1.0)
    tell(swim, Dead(5, "peer", "peer"), alive("peer", "10.0.0.4", 1), now=1.1)  # left, so the name was free
    run_timers(swim, 10.0)
    assert record(swim, "peer").host == "10.0.0.4"
    kinds = [type(e) for e in events(swim)]
    assert kinds == [NodeLeft, NodeJoined]


def test_a_dead_record_is_asked_too_and_moves_without_a_second_leave() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5), Dead(5, "peer", "x"))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 1), now=1.0)
    assert [host for _, host in pings(swim)] == ["10.0.0.2"]
    run_timers(swim, 3.0)
    assert [type(e) for e in events(swim)] == [NodeJoined]
    assert swim.gauges["nodes.lost"] == 0


def test_claims_that_are_looked_into_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._swim.claims._CLAIMS_MAX", 2)
    swim = make(probe_timeout=0.5)
    tell(swim, *(alive(f"peer{n}", f"10.0.0.{n + 2}", 5) for n in range(4)))
    drain(swim)
    tell(swim, *(alive(f"peer{n}", f"10.66.0.{n + 2}", 6) for n in range(4)), now=1.0)
    assert [host for _, host in pings(swim)] == ["10.0.0.2", "10.0.0.3"]
    assert [e.existing.name for e in events(swim) if isinstance(e, NodeConflict)] == ["peer2", "peer3"]


def test_claims_that_a_datagram_may_not_have_looked_into_are_counted() -> None:
    swim = make()
    tell(swim, *(alive(f"peer{n}", f"10.0.0.{n + 2}") for n in range(5)))
    drain(swim)
    codec = swim._core.codec
    claims = [codec.encode(alive(f"peer{n}", f"10.66.0.{n + 2}", 6)) for n in range(5)]
    [datagram] = codec.seal(claims, crc=False)
    swim.receive_datagram(datagram, ("10.9.9.9", 7946), 1.0)
    assert len(pings(swim)) == 2, "two pings each"
    assert swim.counters["answers_withheld"] == 3


def test_a_record_with_its_address_in_the_other_form_is_as_old_as_it_says() -> None:
    swim = make()
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\2"
    tell(swim, alive("peer", "10.0.0.2", 5, meta=b"new"))
    for incarnation in (4, 5):
        tell(swim, Alive(incarnation, "peer", mapped, 7946, b"old", VSN))
        assert (record(swim, "peer").incarnation, record(swim, "peer").meta) == (5, b"new")
    tell(swim, Alive(6, "peer", mapped, 7946, b"newer", VSN))
    assert (record(swim, "peer").incarnation, record(swim, "peer").meta) == (6, b"newer")


def test_addresses_that_are_outbid_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._swim.claims._CLAIMS_MAX", 2)
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer"))
    now, seen = 0.0, []
    for n in range(8):
        now += 5.0
        tell(swim, alive("self", f"10.66.0.{n + 2}", swim.incarnation), now=now)
        run_timers(swim, now + 2.0)
        seen.append(swim.incarnation)
    assert seen[-1] == seen[3] > 1
    assert any(isinstance(e, NodeConflict) for e in events(swim))


def test_a_claim_that_turned_out_to_be_true_is_no_conflict() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 6), now=1.0)
    [(number, _)] = pings(swim)
    tell(swim, Dead(5, "peer", "peer"), alive("peer", "10.0.0.3", 6), now=1.1)
    tell(swim, AckResp(number, None), now=1.2)  # the old address said so before it went
    assert record(swim, "peer").host == "10.0.0.3"
    assert [type(e) for e in events(swim)] == [NodeLeft, NodeJoined]



def test_a_claim_that_came_true_by_another_way_is_no_conflict() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 6), now=1.0)
    [(number, _)] = pings(swim)
    tell(swim, Dead(6, "peer", "peer"), alive("peer", "10.0.0.3", 6), now=1.1)  # no leave of before the claim
    tell(swim, AckResp(number, None), now=1.2)
    assert record(swim, "peer").host == "10.0.0.3"
    assert [type(e) for e in events(swim)] == [NodeLeft, NodeJoined]


def test_who_moved_is_counted() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", "10.0.0.2", 5), now=0.0)
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 6), now=1.0)
    run_timers(swim, 3.0)
    assert record(swim, "peer").host == "10.0.0.3" and swim.counters["moves"] == 1
