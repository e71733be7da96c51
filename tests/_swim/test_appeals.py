"""Accusers are corrected within bounds, suspects are pinged before the end, and then it does end."""

from __future__ import annotations

from typing import Any

from mycorrizal._swim.events import NodeLeft
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Alive, Ping, Suspect
from mycorrizal.types import NodeState
from tests._swim.harness import alive, drain, events, make, run_timers, sent, state, tell


def patient(**settings: Any) -> Swim:
    """Return a machine whose suspicions have their windows, and that probes nobody by itself."""
    swim = make(start=False, probe_interval=1.0, **settings)
    swim._prober.start = lambda now: None  # type: ignore[method-assign]
    swim.start(0.0)
    return swim


def doubted(**settings: Any) -> Swim:
    """Return a machine that has begun to doubt "peer" at 10 s; with three nodes the window is 4 s."""
    swim = patient(**settings)
    tell(swim, alive("peer"), alive("other"), now=10.0)
    tell(swim, Suspect(1, "peer", "x"), now=10.0)
    drain(swim)
    return swim


def test_a_storm_of_old_accusations_is_no_storm_of_answers() -> None:
    swim = make()
    tell(swim, alive("peer", incarnation=9), now=100.0)
    drain(swim)
    old = Suspect(1, "peer", "x")
    tell(swim, *[old] * 500, now=100.0)
    assert len(sent(swim)) == 50
    tell(swim, *[old] * 500, now=100.5)
    assert len(sent(swim)) == 25
    assert swim.counters["accusers_corrected"] == 75


def test_the_accused_itself_corrects_too() -> None:
    swim = make()
    drain(swim)
    tell(swim, Suspect(1, "self", "x"), sender=("10.0.0.7", 7946))
    assert [(m.incarnation, to[0]) for m, to in sent(swim) if isinstance(m, Alive)] == [(2, "10.0.0.7")]


def test_a_suspect_is_pinged_in_the_last_probe_timeout_only() -> None:
    swim = doubted(probe_timeout=0.6)
    run_timers(swim, 13.39)
    assert sent(swim) == []
    run_timers(swim, 13.99)
    said = [m for m, _ in sent(swim)]
    assert [type(m) for m in said] == [Ping, Suspect] * 6
    run_timers(swim, 20.0)
    assert state(swim, "peer") == NodeState.DEAD
    assert [type(m) for m, _ in sent(swim)] in ([], [Ping, Suspect]), "at the very end at most one more"
    run_timers(swim, 100.0)
    assert [m for m, _ in sent(swim) if isinstance(m, Ping) and m.node == "other"] == []
    assert swim._appeals is not None
    assert swim._appeals._next == {}
    assert swim.gauges["acks.pending"] == 0


def test_an_answer_puts_the_verdict_off_by_a_shortest_window() -> None:
    swim = doubted(probe_timeout=0.6)
    run_timers(swim, 13.5)
    number = next(m.seq_no for m, _ in sent(swim) if isinstance(m, Ping))
    tell(swim, AckResp(number, None), now=13.5)
    assert swim.counters["suspicions_put_off"] == 1
    run_timers(swim, 16.8)
    assert sent(swim) == [], "it is pinged in the end of the new window again"
    run_timers(swim, 17.49)
    assert state(swim, "peer") == NodeState.SUSPECT
    run_timers(swim, 17.6)
    assert state(swim, "peer") == NodeState.DEAD
    assert [e.node.name for e in events(swim) if isinstance(e, NodeLeft)] == ["peer"]


def test_a_refutation_ends_the_pings() -> None:
    swim = doubted(probe_timeout=0.6)
    run_timers(swim, 13.45)
    numbers = [m.seq_no for m, _ in sent(swim) if isinstance(m, Ping)]
    tell(swim, alive("peer", incarnation=2), now=13.46)
    tell(swim, AckResp(numbers[0], None), now=13.47)
    assert "suspicions_put_off" not in swim.counters, "the answer comes too late to matter"
    drain(swim)
    run_timers(swim, 60.0)
    assert [m for m, _ in sent(swim) if isinstance(m, Ping)] == []
    assert swim._appeals is not None
    assert swim._appeals._next == {}
    assert state(swim, "peer") == NodeState.ALIVE


def test_a_confirmation_that_ends_the_window_leaves_time_for_one_round_of_pings() -> None:
    swim = patient(probe_timeout=0.6)
    tell(swim, *(alive(f"peer{n}") for n in range(5)))
    tell(swim, Suspect(1, "peer0", "peer1"))
    run_timers(swim, 20.0)  # of 24
    drain(swim)
    tell(swim, Suspect(1, "peer0", "peer2"), now=20.0)  # 11.4 s long over
    run_timers(swim, 20.3)
    tell(swim, Suspect(1, "peer0", "peer3"), now=20.3)  # the last one that counts does not begin it anew
    run_timers(swim, 20.59)
    assert state(swim, "peer0") == NodeState.SUSPECT
    assert 4 <= len([m for m, _ in sent(swim) if isinstance(m, Ping)]) <= 8
    run_timers(swim, 20.61)
    assert state(swim, "peer0") == NodeState.DEAD
