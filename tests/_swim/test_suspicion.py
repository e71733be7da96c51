"""The floor under the window of a suspicion, and the evidence that removes it."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim.machine import Swim
from mycorrizal._swim.suspicion import Suspicion
from mycorrizal._wire.messages import AckResp, Alive, Dead, Ping, PushPull, Suspect
from mycorrizal._wire.meta import AgentMeta, agent_meta
from mycorrizal.exceptions import ConnectionRefused, OperationTimeout, PeerUnreachable
from mycorrizal.types import NodeState
from tests._swim.harness import alive, drain, make, run_timers, sent, state, tell

FLOOR = 12.0


def patient(nodes: int, **settings: Any) -> Swim:
    """Return a machine in a cluster of `nodes`, with a floor, that probes nobody by itself."""
    swim = make(start=False, **{"probe_interval": 1.0, "suspicion_min_timeout": FLOOR, **settings})
    swim._prober.start = lambda now: None  # type: ignore[method-assign]
    swim.start(0.0)
    tell(swim, *(alive(f"peer{n}") for n in range(nodes - 1)))
    drain(swim)
    return swim


def doubted(nodes: int, **settings: Any) -> Swim:
    """Return such a machine that has begun to doubt "peer0" at 0 s."""
    swim = patient(nodes, **settings)
    tell(swim, Suspect(1, "peer0", "somebody"))
    return swim


def dies(swim: Swim, *, now: float = 0.0) -> float:
    """Return when "peer0" is declared dead, to a hundredth of a second."""
    while state(swim, "peer0") == NodeState.SUSPECT:
        due = swim.get_timer()
        assert due is not None
        now = max(now, due)
        swim.handle_timer(now)
    return round(now, 2)


def fail(swim: Swim, error: Exception, now: float) -> None:
    """Let the only conversation that the machine wants fail."""
    (request,) = swim.exchanges_to_start()
    swim.exchange_failed(request.exchange_id, error, now)


def probe(swim: Swim, now: float) -> None:
    """Let the machine probe "peer0" until it falls back to TCP."""
    member = swim._core.table.get("peer0")
    assert member is not None
    swim._prober.probe_member(member, now)
    run_timers(swim, now + 0.5)


REFUSED = ConnectionRefused("cannot connect")
LOST = PeerUnreachable("broke off")
SILENT = OperationTimeout("no answer")


def test_the_floor_holds_for_every_number_of_confirmations() -> None:
    suspicion = Suspicion("a", 2, 4.0, 24.0, 100.0, floor=12.0)
    assert (suspicion.deadline, suspicion.shortest) == (124.0, 12.0)
    suspicion.confirm("b")
    assert suspicion.deadline == 112.0
    suspicion.confirm("c")
    assert suspicion.deadline == 112.0
    suspicion.floor = 0.0
    assert (suspicion.deadline, suspicion.shortest) == (104.0, 4.0)
    suspicion.floor = 30.0
    assert suspicion.deadline == 130.0


@pytest.mark.parametrize(("nodes", "without", "with_floor"), [(2, 4, 12), (3, 4, 12), (4, 24, 24), (5, 24, 24)])
def test_a_window_without_confirmations(nodes: int, without: float, with_floor: float) -> None:
    assert dies(doubted(nodes, suspicion_min_timeout=0)) == without
    assert dies(doubted(nodes)) == with_floor


def confirmed(nodes: int, **settings: Any) -> Swim:
    swim = doubted(nodes, **settings)
    tell(swim, Suspect(1, "peer0", "b"), Suspect(1, "peer0", "c"))
    return swim


@pytest.mark.parametrize(("nodes", "expected"), [(4, 12), (5, 12), (6, 4), (30, 5.91)])
def test_a_window_with_all_confirmations_and_where_the_floor_ends(nodes: int, expected: float) -> None:
    assert dies(confirmed(nodes)) == pytest.approx(expected, abs=0.02)


def test_the_largest_cluster_is_a_setting() -> None:
    assert dies(confirmed(30, suspicion_min_nodes=30)) == 12
    assert dies(doubted(3, suspicion_min_nodes=2)) == 4


def test_the_dead_do_not_count() -> None:
    swim = patient(8)
    tell(swim, *(Dead(1, f"peer{n}", "x") for n in range(4, 7)))
    tell(swim, *(Suspect(1, "peer0", who) for who in "abc"))
    assert len(swim.nodes()) == 8
    assert dies(swim) == 12


def test_a_refused_fallback_ping_leaves_memberlists_window() -> None:
    swim = patient(3)
    probe(swim, 0.0)
    fail(swim, REFUSED, 0.5)
    run_timers(swim, 1.0)
    assert state(swim, "peer0") == NodeState.SUSPECT
    assert dies(swim, now=1.0) == 5
    assert swim.counters["refusals"] == 1


@pytest.mark.parametrize(
    ("error", "trust"), [(SILENT, True), (LOST, True), (REFUSED, False)], ids=["silent", "broken", "switched off"]
)
def test_nothing_else_does(error: Exception, trust: bool) -> None:
    swim = patient(3, trust_refusals=trust)
    probe(swim, 0.0)
    fail(swim, error, 0.9)
    run_timers(swim, 1.0)
    assert dies(swim, now=1.0) == 13
    assert "refusals" not in swim.counters


def test_a_refusal_during_a_suspicion_shortens_it() -> None:
    swim = doubted(3)
    probe(swim, 1.0)
    fail(swim, REFUSED, 1.5)
    assert dies(swim, now=1.5) == 4


@pytest.mark.parametrize("verify", [False, True])
def test_a_late_refusal_ends_it_when_the_suspect_was_heard(verify: bool) -> None:
    swim = doubted(3, verify_suspicions=verify)
    probe(swim, 8.0)
    swim.datagrams_to_send()
    fail(swim, REFUSED, 8.6)
    assert dies(swim, now=8.6) == pytest.approx(9.1 if verify else 8.6, abs=0.02)
    pings = [m for m, _ in sent(swim) if isinstance(m, Ping) and m.node == "peer0"]
    assert len(pings) >= (5 if verify else 0), "it is pinged before it is buried, as always"
    assert "stalls" not in swim.counters


def test_a_refusal_is_as_good_as_all_confirmations() -> None:
    swim = doubted(4)
    swim._transitions.refused("peer0", swim._core.table.get("peer0").address, 0.0)  # type: ignore[union-attr]
    assert dies(swim) == 4.0
    swim = doubted(4, suspicion_min_timeout=0.0)  # memberlist's rules alone: it would take a witness
    swim._transitions.refused("peer0", swim._core.table.get("peer0").address, 0.0)  # type: ignore[union-attr]
    assert dies(swim) == 24.0


def test_a_refused_push_pull_counts_too() -> None:
    swim = patient(2)
    swim._sync._with_anyone(0.0)
    fail(swim, REFUSED, 0.1)
    tell(swim, Suspect(1, "peer0", "x"), now=0.2)
    assert dies(swim, now=0.2) == pytest.approx(4.2)


@pytest.mark.parametrize("over", ["udp", "tcp", "appeal"])
def test_an_answer_takes_the_evidence_back(over: str) -> None:
    swim = doubted(3)
    probe(swim, 0.0)
    fail(swim, REFUSED, 0.6)
    drain(swim)
    if over == "udp":
        number = swim._prober._active.sequence  # type: ignore[union-attr]
        tell(swim, AckResp(number, None), now=0.8)
        assert dies(swim, now=1.0) == 12
    elif over == "tcp":
        run_timers(swim, 1.1)
        probe(swim, 1.1)
        (request,) = swim.exchanges_to_start()
        swim.exchange_answered(request.exchange_id, AckResp(request.message.seq_no, None), 1.7)  # type: ignore[union-attr]
        run_timers(swim, 3.0)  # the health score stretches this probe
        assert dies(swim, now=3.0) == 12
    else:
        run_timers(swim, 3.6)
        number = next(m.seq_no for m, _ in sent(swim) if isinstance(m, Ping))
        tell(swim, AckResp(number, None), now=3.7)
        assert dies(swim, now=3.7) == pytest.approx(15.7), "and the verdict is put off by a whole window"


def test_a_new_life_has_a_clean_record() -> None:
    swim = doubted(3)
    probe(swim, 0.0)
    fail(swim, REFUSED, 0.6)
    tell(swim, alive("peer0", incarnation=2), now=0.7)
    tell(swim, Suspect(2, "peer0", "x"), now=1.0)
    assert dies(swim, now=1.0) == 13


def test_a_refusal_of_an_old_address_says_nothing() -> None:
    swim = patient(3)
    probe(swim, 0.0)
    tell(swim, Dead(1, "peer0", "peer0"), now=0.5)  # it leaves, and comes back elsewhere
    tell(swim, alive("peer0", "10.0.9.9", incarnation=2), now=0.5)
    fail(swim, REFUSED, 0.6)
    tell(swim, Suspect(2, "peer0", "x"), now=1.0)
    assert dies(swim, now=1.0) == 13


def test_a_refused_stranger_is_nobodys_evidence() -> None:
    swim = patient(2)
    swim.join(("10.0.0.77", 7946), 0.0)
    (request,) = swim.exchanges_to_start()
    assert isinstance(request.message, PushPull)
    swim.exchange_failed(request.exchange_id, REFUSED, 0.1)
    swim.join(("10.0.0.77", 7946), 0.0, name="unknown")
    fail(swim, REFUSED, 0.1)
    assert "refusals" not in swim.counters


def test_the_suspects_of_a_process_that_was_frozen_have_the_floor_again() -> None:
    swim = doubted(3)
    run_timers(swim, 2.0)
    tell(swim, Ping(1, "self"), now=60.0)
    assert swim.counters["stalls"] == 1
    assert dies(swim, now=60.0) == 72


def test_a_word_counts_once_and_only_as_long_as_it_is_wanted() -> None:
    suspicion = Suspicion("a", 2, 1.0, 6.0, 0.0)
    assert [suspicion.confirm(sender) for sender in "abbccd"] == [False, True, False, True, False, False]
    assert suspicion.deadline == 1.0


def test_putting_off_brings_no_verdict_nearer() -> None:
    swim = doubted(5, suspicion_min_timeout=0)
    member = swim._core.table.get("peer0")
    assert member is not None and member.suspicion is not None
    before = member.suspicion.deadline
    swim._transitions.extend_suspicions(0.5)
    assert member.suspicion.deadline == before
    late = before - 0.5
    swim._transitions.extend_suspicions(late)
    assert member.suspicion.deadline == late + member.suspicion.shortest


# -- the kernel's word --------------------------------------------------------------------------------


BOOT = b"a life.."


def agent(incarnation: int = 2) -> Alive:
    return alive("agent", incarnation=incarnation, meta=agent_meta(AgentMeta(7000, BOOT, {}), None))


def with_agent(**settings: Any) -> Swim:
    swim = patient(3, trust_kernel=True, **settings)
    tell(swim, agent())
    drain(swim)
    return swim


def test_whose_process_has_ended_is_dead_at_once_and_for_all() -> None:
    swim = with_agent(gossip_interval=0.2)
    swim.ended("agent", BOOT, 0.0)
    assert state(swim, "agent") == NodeState.DEAD and swim.counters["processes_ended"] == 1
    run_timers(swim, 0.5)
    assert Dead(2, "agent", "self") in [message for message, _ in sent(swim)]
    swim.ended("agent", BOOT, 0.5)
    assert swim.counters["processes_ended"] == 1


@pytest.mark.parametrize("why", ["another life", "switched off", "nobody", "itself"])
def test_of_another_life_nothing_is_said(why: str) -> None:
    swim = patient(3, trust_kernel=why != "switched off")
    tell(swim, agent())
    name = {"nobody": "nobody", "itself": "self"}.get(why, "agent")
    swim.ended(name, b"another." if why == "another life" else BOOT, 0.0)
    assert state(swim, "agent") == NodeState.ALIVE and "processes_ended" not in swim.counters


def test_it_is_refuted_as_any_accusation() -> None:
    swim = with_agent()
    swim.ended("agent", BOOT, 0.0)
    tell(swim, agent(3))
    assert state(swim, "agent") == NodeState.ALIVE
