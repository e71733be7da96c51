"""An address that changes while the node runs: the mover's word, and what those who hear it make of it."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft, NodeUpdated
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Alive, Dead, Message, Ping, Suspect
from mycorrizal._wire.meta import AgentMeta, agent_meta
from mycorrizal.types import NodeState, pack_host
from tests._swim.harness import VSN, alive, drain, events, make, queued, record, run_timers, sent, state, tell

OLD, NEW = "10.0.0.2", "10.0.0.3"


def together(swim: Swim, *messages: Message, now: float) -> None:
    """Deliver messages in one packet."""
    codec = swim._core.codec
    for datagram in codec.seal([codec.encode(message) for message in messages], crc=False):
        swim.receive_datagram(datagram, (NEW, 7946), now)


def claims(swim: Swim) -> list[tuple[Message, str]]:
    """Take the packets; return the claims in them, each with where it goes."""
    return [(m, to[0]) for m, to in sent(swim) if isinstance(m, (Alive, Dead))]


# -- the mover -----------------------------------------------------------------------------------------------


def test_the_new_address_is_told_directly_and_gossiped() -> None:
    swim = make(wire="cbor")
    tell(swim, alive("peer"), alive("gone"), Dead(1, "gone", "gone"))
    drain(swim)
    swim.moved(pack_host(NEW), 1.0)
    word = Alive(2, "self", pack_host(NEW), 7946, None, VSN)
    assert claims(swim) == [(word, record(swim, "peer").host)]
    assert word in queued(swim)
    assert (swim.local_node.host, swim.incarnation) == (NEW, 2)
    assert [e.node.host for e in events(swim) if isinstance(e, NodeUpdated)] == [NEW]
    tell(swim, Ping(7, "self", pack_host("10.9.9.9"), 7946, "peer"), now=1.1)
    swim.ping("peer", record(swim, "peer").address, 1.2)
    [ping] = [m for m, _ in sent(swim) if isinstance(m, Ping)]
    assert ping.source_addr == pack_host(NEW), "answers come to where we are"


def test_it_is_repeated_a_few_times() -> None:
    swim = make(wire="cbor")
    tell(swim, alive("peer"))
    drain(swim)
    swim.moved(pack_host(NEW), 1.0)
    run_timers(swim, 60.0)
    assert 2 <= len(claims(swim)) <= 4


def test_with_go_peers_a_goodbye_goes_in_front() -> None:
    swim = make(wire="msgpack")
    tell(swim, alive("peer"))
    drain(swim)
    swim.moved(pack_host(NEW), 1.0)
    assert [m for m, _ in claims(swim)] == [
        Dead(1, "self", "self"), Alive(2, "self", pack_host(NEW), 7946, None, VSN),
    ]  # fmt: skip


def test_the_same_address_is_no_move() -> None:
    swim = make()
    tell(swim, alive("peer"))
    drain(swim)
    swim.moved(pack_host("10.0.0.1"), 1.0)
    assert (claims(swim), events(swim), swim.incarnation) == ([], [], 1)


def test_who_has_left_tells_nobody() -> None:
    swim = make()
    tell(swim, alive("peer"))
    swim.leave(0.5)
    drain(swim)
    swim.moved(pack_host(NEW), 1.0)
    assert claims(swim) == []


def test_an_address_that_may_not_be_is_not_told() -> None:
    swim = make(cidrs_allowed=("10.0.0.0/24",))
    swim.moved(pack_host("10.66.0.1"), 1.0)
    assert swim.local_node.host == "10.0.0.1"
    assert swim.counters["alive.address_refused"] == 1


def test_what_was_not_answered_meanwhile_is_forgotten() -> None:
    swim = make(probe_interval=1.0, probe_timeout=0.5)
    tell(swim, alive("peer"))
    run_timers(swim, 2.0)
    swim._core.awareness.apply(3)
    swim.moved(pack_host(NEW), 2.1)
    assert swim.health_score == 0
    assert swim._prober._active is None


# -- the others ----------------------------------------------------------------------------------------------


def heard(**settings: Any) -> Swim:
    """Return a machine that knows a peer at the old address, and has just heard of the new one."""
    swim = make(probe_timeout=0.5, **settings)
    tell(swim, alive("peer", OLD, 5, meta=b"tags"))
    drain(swim)
    tell(swim, alive("peer", NEW, 6, meta=b"tags"), now=1.0)
    return swim


def test_a_silent_old_address_makes_it_a_move() -> None:
    swim = heard()
    run_timers(swim, 3.0)
    assert (record(swim, "peer").host, state(swim, "peer")) == (NEW, NodeState.ALIVE)
    assert [type(e) for e in events(swim)] == [NodeUpdated]
    assert alive("peer", NEW, 6, meta=b"tags") in queued(swim), "and passes it on"


def test_other_metadata_or_an_older_number_is_another_life() -> None:
    for claim in (alive("peer", NEW, 6, meta=b"other"), alive("peer", NEW, 1, meta=b"tags")):
        swim = make(probe_timeout=0.5)
        tell(swim, alive("peer", OLD, 5, meta=b"tags"))
        drain(swim)
        tell(swim, claim, now=1.0)
        run_timers(swim, 3.0)
        assert [type(e) for e in events(swim)] == [NodeLeft, NodeJoined]


def test_an_agents_boot_id_tells_its_life_whatever_else_it_says() -> None:
    def meta(boot: int, tag: str) -> bytes:
        return agent_meta(AgentMeta(7000, bytes([boot]) * 8, {"tag": tag}), None)

    for boot, expected in ((1, [NodeUpdated]), (2, [NodeLeft, NodeJoined])):
        swim = make(probe_timeout=0.5)
        tell(swim, alive("peer", OLD, 5, meta=meta(1, "before")))
        drain(swim)
        tell(swim, alive("peer", NEW, 6, meta=meta(boot, "after")), now=1.0)
        run_timers(swim, 3.0)
        assert [type(e) for e in events(swim)] == expected
        assert record(swim, "peer").meta == meta(boot, "after")


def test_an_older_record_of_the_same_process_is_not_looked_into() -> None:
    swim = make(probe_timeout=0.5)
    meta = agent_meta(AgentMeta(7000, bytes(range(8))), None)
    tell(swim, alive("peer", NEW, 6, meta=meta))
    drain(swim)
    tell(swim, alive("peer", OLD, 5, meta=meta), now=1.0)
    assert sent(swim) == []
    run_timers(swim, 3.0)
    assert (record(swim, "peer").host, events(swim)) == (NEW, [])


def test_a_suspicion_waits_for_the_answer() -> None:
    swim = make(probe_interval=1.0, probe_timeout=0.5, stall_threshold=0)
    tell(swim, alive("peer", OLD, 5), *(alive(f"m{n}") for n in range(4)))
    tell(swim, *(Suspect(5, "peer", f"m{n}") for n in range(4)), now=1.0)  # over after 4 s
    run_timers(swim, 4.5)
    drain(swim)
    tell(swim, alive("peer", NEW, 6), now=4.9)
    run_timers(swim, 7.0)
    assert [type(e) for e in events(swim) if getattr(e, "node", swim.local_node).name == "peer"] == [NodeUpdated]


def test_a_goodbye_for_gos_sake_is_none() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", OLD, 5))
    drain(swim)
    together(swim, Dead(5, "peer", "peer"), alive("peer", NEW, 6), now=1.0)
    tell(swim, Dead(5, "peer", "peer"), now=1.2)  # from a Go member, who has passed it on
    run_timers(swim, 3.0)
    tell(swim, Dead(5, "peer", "peer"), now=3.1)
    assert [type(e) for e in events(swim)] == [NodeUpdated]
    assert record(swim, "peer").host == NEW


def test_a_restart_elsewhere_whose_leave_comes_late_has_left() -> None:
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", OLD, 5, meta=b"one"))
    drain(swim)
    tell(swim, alive("peer", NEW, 6, meta=b"two"), Dead(5, "peer", "peer"), now=1.0)
    run_timers(swim, 3.0)
    [left, joined] = events(swim)
    assert isinstance(left, NodeLeft) and left.node.state == NodeState.LEFT
    assert isinstance(joined, NodeJoined) and joined.node.host == NEW


def test_a_goodbye_that_is_meant_counts() -> None:
    swim = heard()
    tell(swim, Dead(6, "peer", "peer"), now=1.2)
    assert [type(e) for e in events(swim)] == [NodeLeft]


def test_without_our_rules_it_is_go() -> None:
    swim = heard(name_takeover=False)
    run_timers(swim, 3.0)
    assert [type(e) for e in events(swim)] == [NodeConflict]
    together(swim, Dead(5, "peer", "peer"), alive("peer", NEW, 6), now=4.0)
    assert [type(e) for e in events(swim)] == [NodeLeft, NodeJoined]


@pytest.mark.parametrize("there", [True, False])
def test_an_older_record_is_a_conflict_if_both_answer(there: bool) -> None:
    """A record from before a move goes round for as long as somebody was asleep meanwhile."""
    swim = make(probe_timeout=0.5)
    tell(swim, alive("peer", NEW, 6))
    drain(swim)
    tell(swim, alive("peer", OLD, 5), now=1.0)
    for expected in (NEW, OLD) if there else (NEW,):
        [(ping, to)] = [(m, to[0]) for m, to in sent(swim) if isinstance(m, Ping)]
        assert to == expected
        tell(swim, AckResp(ping.seq_no, None), now=1.1)
    run_timers(swim, 5.0)
    assert [type(e) for e in events(swim)] == ([NodeConflict] if there else [])
    assert record(swim, "peer").host == NEW
