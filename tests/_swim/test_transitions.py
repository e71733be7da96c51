"""The rules, where the scenarios and Go's own scripts do not go."""

from __future__ import annotations

import logging

import pytest

from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft
from mycorrizal._wire.messages import Alive, Dead, PushNodeState, PushPull, Suspect
from mycorrizal.types import NodeState, pack_host
from tests._swim.harness import FAITHFUL, VSN, alive, drain, events, make, queued, record, run_timers, state, tell

LAST = 0xFFFFFFFF - 0xFFFF
"""The greatest incarnation of which a node is accused out of the blue."""


# -- near the end of the incarnations ---------------------------------------------------------


def test_a_node_driven_to_the_last_incarnation_can_still_leave() -> None:
    swim, witness = make(), make("witness", "10.0.0.2")
    for machine in (swim, witness):
        tell(machine, alive("self", "10.0.0.1"), Suspect(LAST, "self", "x"))
    tell(witness, Alive(swim.incarnation, "self", pack_host("10.0.0.1"), 7946, b"", VSN))
    swim.leave(1.0)
    said = queued(swim)[-1]
    assert said == Dead(LAST + 1, "self", "self")
    tell(witness, said)
    assert state(witness, "self") == NodeState.LEFT


def test_and_it_is_not_immortal() -> None:
    swim, witness = make(), make("witness", "10.0.0.2")
    tell(swim, Suspect(LAST, "self", "x"))
    tell(witness, alive("self", "10.0.0.1", LAST + 1), Suspect(LAST + 1, "self", "x"))
    assert state(witness, "self") == NodeState.SUSPECT
    tell(swim, Suspect(LAST + 1, "self", "x"))
    assert swim.incarnation == LAST + 2, "it can answer"
    tell(witness, alive("self", "10.0.0.1", LAST + 2))
    assert state(witness, "self") == NodeState.ALIVE
    tell(witness, Suspect(LAST + 2, "self", "x"))
    run_timers(witness, 60.0)
    assert state(witness, "self") == NodeState.DEAD


def test_the_end_of_that() -> None:
    swim = make()
    tell(swim, alive("peer", incarnation=LAST + 0x7FFF), alive("other", incarnation=LAST + 0x8000))
    assert state(swim, "peer") == NodeState.ALIVE
    assert state(swim, "other") is None
    tell(swim, Suspect(LAST + 0x8000, "peer", "x"))
    assert state(swim, "peer") == NodeState.ALIVE, "nobody accuses beyond what the node has said"
    tell(swim, alive("self", "10.0.0.1", LAST + 0x7FFF, meta=b"x"))
    assert swim.incarnation == 1, "an answer would not be believed"


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("addr", [b"", None, b"\x0a\0\0", bytes(5), bytes(17)])
def test_an_address_nobody_can_dial_is_refused(addr: bytes | None) -> None:
    swim = make()
    tell(swim, Alive(1, "peer", addr, 7946, b"", VSN))
    assert state(swim, "peer") is None
    assert swim.counters["alive.address_refused"] == 1


def test_an_address_that_is_not_allowed_takes_no_name() -> None:
    swim = make(cidrs_allowed=("10.0.0.0/8",))
    tell(swim, alive("peer"), alive("stranger", "192.168.0.1"))
    assert state(swim, "stranger") is None
    tell(swim, alive("peer", "192.168.0.1", 2))
    assert record(swim, "peer").incarnation == 1
    assert swim.counters["alive.address_refused"] == 2


def test_a_merged_member_without_port_has_ours() -> None:
    swim = make(port=7001)
    pushed = PushNodeState("peer", pack_host("10.0.0.2"), 0, None, 1, 0, VSN)
    swim.answer_exchange(PushPull((pushed,), b"", False), ("10.0.0.2", 7001), 0.0)
    assert record(swim, "peer").port == 7001
    tell(swim, alive("other", port=0))
    assert record(swim, "other").port == 7001


def test_a_merged_state_that_does_not_exist_changes_nothing() -> None:
    swim = make()
    pushed = PushNodeState("peer", pack_host("10.0.0.2"), 7946, None, 1, 9, VSN)
    swim.answer_exchange(PushPull((pushed,), b"", False), ("10.0.0.2", 7946), 0.0)
    assert state(swim, "peer") is None


# -- versions and admission -------------------------------------------------------------------


def test_an_alive_without_versions_is_taken_unless_somebody_wants_to_judge() -> None:
    class Anyone:
        def notify_alive(self, node: object) -> None: ...

    swim = make()
    tell(swim, alive("peer", vsn=b""), alive("bad", vsn=bytes((3, 2, 2, 0, 0, 0))))
    assert state(swim, "peer") == NodeState.ALIVE
    assert state(swim, "bad") is None
    swim = make(delegates={"alive": Anyone()})
    tell(swim, alive("peer", vsn=b""))
    assert state(swim, "peer") is None
    assert swim.counters["alive.version_refused"] == 1


# -- a name that becomes free -------------------------------------------------------------------


def test_a_dead_name_may_be_reclaimed_after_a_while() -> None:
    swim = make(dead_node_reclaim_time=10.0, **FAITHFUL)
    tell(swim, alive("peer", "10.0.0.2", 7), Dead(7, "peer", "x"))
    drain(swim)
    tell(swim, alive("peer", "10.0.0.3", 1), now=9.0)
    assert [type(e) for e in events(swim)] == [NodeConflict]
    tell(swim, alive("peer", "10.0.0.3", 1), now=10.1)
    assert [type(e) for e in events(swim)] == [NodeJoined]
    assert record(swim, "peer").host == "10.0.0.3"


def test_a_name_that_was_left_is_free_at_once() -> None:
    swim = make(**FAITHFUL)
    tell(swim, alive("peer", "10.0.0.2", 7), Dead(7, "peer", "peer"), alive("peer", "10.0.0.3", 1))
    assert record(swim, "peer").host == "10.0.0.3"
    kinds = [type(e) for e in events(swim) if isinstance(e, (NodeJoined, NodeLeft)) and e.node.name == "peer"]
    assert kinds == [NodeJoined, NodeLeft, NodeJoined]


def test_whoever_is_gone_is_not_suspected_any_more() -> None:
    swim = make()
    tell(swim, alive("peer"), Suspect(1, "peer", "x"))
    member = swim._core.table.get("peer")
    assert member is not None
    swim._transitions.mark_gone(member, NodeState.DEAD, 1.0)
    assert member.suspicion is None
    assert member.suspicion_timer is None
    drain(swim)
    run_timers(swim, 100.0)
    assert events(swim) == []


def test_the_alive_delegate_may_refuse_anybody() -> None:
    class Refuses:
        def notify_alive(self, node: object) -> None:
            if getattr(node, "name", "") != "self":
                raise PermissionError("not you")

    swim = make(delegates={"alive": Refuses()})
    tell(swim, alive("peer"))
    assert state(swim, "peer") is None
    assert swim.counters["alive.delegate_refused"] == 1


def test_a_suspicion_that_runs_out_late_buries_nobody_else() -> None:
    swim = make()
    tell(swim, alive("peer"), Suspect(1, "peer", "x"))
    member = swim._core.table.get("peer")
    assert member is not None
    assert member.suspicion is not None
    old = member.suspicion
    tell(swim, alive("peer", incarnation=2))
    swim._transitions._suspicion_over(member, old, 1.0)
    assert state(swim, "peer") == NodeState.ALIVE


# -- what an old word and a new life change -----------------------------------------------------------


def test_an_answer_to_an_old_accusation_is_newer_than_all_that_was_said() -> None:
    swim = make()
    tell(swim, Suspect(8, "self", "x"))
    assert swim.incarnation == 9
    member = swim._core.table.get("self")
    assert member is not None
    swim._transitions.refute(member, 3, 1.0)
    assert swim.incarnation == 10


@pytest.mark.parametrize("kind", [Suspect, Dead])
def test_who_is_back_refutes_without_the_words_of_a_failure(
    caplog: pytest.LogCaptureFixture, kind: type[Suspect | Dead]
) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    swim = make()
    member = swim._core.table.get("self")
    assert member is not None
    said = swim._transitions.suspect if kind is Suspect else swim._transitions.dead
    for claim, now in ((kind(1, "self", "x"), 5.0), (kind(9, "self", "self"), 500.0)):  # of the process before this one
        said(claim, now)  # type: ignore[arg-type]
        (record,) = [found for found in caplog.records if "had this name before" in found.getMessage()]
        assert record.levelname == "INFO" and not any(word in record.getMessage() for word in ("refutes", "dead"))
        caplog.clear()
    said(kind(swim.incarnation, "self", "x"), 600.0)  # type: ignore[arg-type]
    (record,) = [found for found in caplog.records if "refutes" in found.getMessage()]
    assert record.levelname == "WARNING" and record.getMessage().endswith("by x")


def test_an_accuser_or_a_gravedigger_has_a_name_that_may_be() -> None:
    swim = make(wire="cbor")
    for claim in (Suspect(1, "peer", "no\nname"), Dead(1, "peer", "no\nname")):
        tell(swim, alive("peer"), claim)
        assert state(swim, "peer") == NodeState.ALIVE
    assert swim.counters["names_refused"] == 2


def test_the_table_holds_as_many_as_it_may() -> None:
    swim = make(max_nodes=3)
    tell(swim, *(alive(f"p{n}") for n in range(4)))
    assert len(swim.nodes()) == 3
    assert swim.counters["alive.table_full"] == 2


def test_a_record_with_too_long_metadata_is_counted() -> None:
    swim = make()
    swim._transitions.alive(alive("peer", meta=bytes(513)), 0.0)
    swim._transitions.alive(alive("other", meta=bytes(512)), 0.0)
    assert (state(swim, "peer"), state(swim, "other")) == (None, NodeState.ALIVE)
    assert swim.counters["alive.meta_refused"] == 1


def test_without_a_reclaim_time_a_dead_name_is_never_free() -> None:
    swim = make(name_takeover=False)
    tell(swim, alive("peer"), Dead(1, "peer", "x"), alive("peer", "10.66.0.1", 5), now=1.0)
    tell(swim, alive("peer", "10.66.0.1", 5), now=1e6)
    assert state(swim, "peer") == NodeState.DEAD
    assert swim.counters["conflicts"] == 2


def test_the_first_protocol_knows_no_ports_in_a_merge_either() -> None:
    for version, port in ((1, 7946), (2, 9)):
        swim = make(protocol_version=version)
        vsn = bytes((1, 5, version, 0, 0, 0))
        swim._transitions.merge([PushNodeState("peer", pack_host("10.0.0.2"), 9, None, 1, 0, vsn)], 0.0)
        assert record(swim, "peer").port == port
