"""What this library does beyond memberlist: names that move, stalls, UDP that is blocked, partitions, early push/pulls.

Each has a contrast with everything switched off, where memberlist's behaviour is the reason for the addition.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft, Stalled, UdpBlocked
from mycorrizal._wire.messages import AckResp, Alive, Dead, Ping, Suspect
from mycorrizal.types import NodeState
from tests._swim.harness import FAITHFUL, alive, drain, events, make, record, run_timers, sent, state, tell
from tests.scenarios.network import LIVELY, Network, named, state_of


def lively(name: str, host: str, **settings: Any) -> Swim:
    """Return a machine of the LAN profile, with all that is ours switched on."""
    return make(name, host, start=False, **{**LIVELY, **settings})


def cluster(size: int, **settings: Any) -> tuple[Network, list[Swim]]:
    """Return nodes n0, n1, ... that know each other."""
    swims = [lively(f"n{n}", f"10.0.0.{n + 1}", **settings) for n in range(size)]
    network = Network(*swims, latency=0.001)
    for joiner in swims[1:]:
        assert network.join(joiner, swims[0]) is None
    everybody = [f"n{n}" for n in range(size)]
    assert network.run_until(lambda: all(named(swim.members()) == everybody for swim in swims), 5.0) is not None
    network.run(10.0)
    network.forget()
    return network, swims


def alive_at(swim: Swim, name: str) -> str | None:
    """Return the address at which `swim` holds `name` for alive."""
    found = [n.host for n in swim.members() if n.name == name and n.state == NodeState.ALIVE]
    return found[0] if found else None


# -- the same name at a new address ------------------------------------------------------------


def test_a_node_that_crashed_comes_back_elsewhere_within_seconds() -> None:
    network, swims = cluster(4)
    old = swims.pop()
    network.remove(old)
    again = network.add(lively("n3", "10.0.9.9", seed=1))
    assert network.join(again, swims[0]) is None
    took = network.run_until(lambda: all(alive_at(swim, "n3") == "10.0.9.9" for swim in swims), 10.0)
    assert took is not None
    assert took <= 2.5, "two pings that stay unanswered where the news comes in, and the same where it is gossiped to"
    network.run(30.0)
    for swim in (*swims, again):
        assert alive_at(swim, "n3") == "10.0.9.9"
        assert network.events(swim, NodeConflict) == []
    for swim in swims:
        kinds = [type(e) for e in (*network.events(swim, NodeLeft), *network.events(swim, NodeJoined))]
        assert kinds == [NodeLeft, NodeJoined], "the old one is gone, the new one has come"
        assert swim.counters["takeovers"] == 1
    assert again.incarnation >= 2, "it found its former self in the table, and outbid it"


def test_without_it_the_name_stays_locked() -> None:
    network, swims = cluster(4, **FAITHFUL)
    network.remove(swims.pop())
    again = network.add(lively("n3", "10.0.9.9", seed=1, **FAITHFUL))
    assert network.join(again, swims[0]) is None
    network.run(20.0)
    assert {alive_at(swim, "n3") for swim in swims} != {"10.0.9.9"}
    assert network.events(swims[0], NodeConflict) != []


def test_two_live_nodes_of_one_name_are_a_conflict_and_nothing_changes() -> None:
    network, swims = cluster(3)
    rival = network.add(lively("n2", "10.0.9.9", seed=1))
    assert network.join(rival, swims[0]) is None
    network.run(15.0)
    for swim in swims:
        assert alive_at(swim, "n2") == "10.0.0.3"
        assert network.events(swim, NodeLeft) == []
        assert "takeovers" not in swim.counters
    conflict = network.events(swims[0], NodeConflict)[0]
    assert (conflict.existing.name, conflict.existing.host) == ("n2", "10.0.0.3")
    assert (conflict.other.name, conflict.other.host) == ("n2", "10.0.9.9")
    assert network.events(rival, NodeConflict) != [], "and the rival hears of it too"
    assert alive_at(rival, "n2") == "10.0.9.9"


def conflicted(**settings: Any) -> Swim:
    """Return a machine that knows "test" at 10.0.0.2."""
    swim = make("self", "10.0.0.1", **settings)
    tell(swim, alive("test", "10.0.0.2", 5))
    drain(swim)
    return swim


def test_the_old_address_is_asked_twice_before_a_name_moves() -> None:
    swim = conflicted(probe_timeout=0.5)
    tell(swim, alive("test", "10.0.0.3", 1), now=1.0)
    tell(swim, alive("test", "10.0.0.4", 1), now=1.1)  # a third claimant has to wait
    asked = [(m.node, to) for m, to in sent(swim) if isinstance(m, Ping)]
    assert asked == [("test", ("10.0.0.2", 7946))]
    run_timers(swim, 1.5)
    assert [to for m, to in sent(swim) if isinstance(m, Ping)] == [("10.0.0.2", 7946)]
    assert record(swim, "test").host == "10.0.0.2"
    run_timers(swim, 2.0)
    assert record(swim, "test").host == "10.0.0.3", "a lower incarnation, but the only one that can be"
    assert [type(e) for e in events(swim)] == [NodeLeft, NodeJoined]


def test_an_answer_from_the_old_address_settles_it() -> None:
    swim = conflicted(probe_timeout=0.5)
    tell(swim, alive("test", "10.0.0.3", 9), now=1.0)
    ping = next(m for m, _ in sent(swim) if isinstance(m, Ping))
    tell(swim, AckResp(ping.seq_no, None), now=1.1)
    assert [type(e) for e in events(swim)] == [NodeConflict]
    run_timers(swim, 10.0)
    assert record(swim, "test").host == "10.0.0.2"
    assert record(swim, "test").incarnation == 5


def test_our_own_name_elsewhere() -> None:
    """An old record of ours is outbid; a live namesake is reported; neither moves our own address."""
    swim = make("self", "10.0.0.1", probe_timeout=0.5)
    drain(swim)
    tell(swim, alive("self", "10.0.0.2", 7), now=1.0)
    ping = next((m, to) for m, to in sent(swim) if isinstance(m, Ping))
    assert ping[1] == ("10.0.0.2", 7946), "the other address is in doubt, not ours"
    run_timers(swim, 2.0)
    assert swim.incarnation == 8
    assert swim.local_node.host == "10.0.0.1"
    assert events(swim) == []

    drain(swim)
    tell(swim, alive("self", "10.0.0.2", 20), now=3.0)
    namesake = next(m for m, _ in sent(swim) if isinstance(m, Ping))
    tell(swim, AckResp(namesake.seq_no, None), now=3.1)
    assert [type(e) for e in events(swim)] == [NodeConflict]
    assert swim.local_node.host == "10.0.0.1"
    assert swim.incarnation == 8


def test_the_two_forms_of_one_IPv4_address_are_no_conflict() -> None:
    swim = conflicted()
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\2"
    tell(swim, Alive(6, "test", mapped, 7946, b"new", alive("x").vsn), now=1.0)
    assert [m for m, _ in sent(swim) if isinstance(m, Ping)] == []
    assert record(swim, "test").meta == b"new"
    assert not any(isinstance(e, (NodeConflict, NodeLeft, NodeJoined)) for e in events(swim))


# -- a process that did not run ------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [3.0, 10.0, 60.0])
def test_a_frozen_process_accuses_nobody_and_speaks_first(seconds: float) -> None:
    network, swims = cluster(5)
    sleeper, others = swims[2], [swim for n, swim in enumerate(swims) if n != 2]
    incarnation = sleeper.incarnation
    network.freeze(sleeper)
    network.run(seconds)
    network.forget()
    woken = network.now
    network.thaw(sleeper)

    first = [(to, data) for name, to, data in network.raw if name == "n2"][:3]
    assert len({to for to, _ in first}) == 3
    for _, data in first:
        said = sleeper._core.codec.open(data).messages
        assert [(type(m), getattr(m, "node", "")) for m in said[:1]] == [(Alive, "n2")], "before any answer"
        assert said[0].incarnation == incarnation + 1  # type: ignore[union-attr]
    stalls = network.events(sleeper, Stalled)
    assert len(stalls) == 1
    assert seconds - 1.0 <= stalls[0].seconds <= seconds

    took = network.run_until(lambda: all(alive_at(swim, "n2") for swim in others), 10.0)
    assert took is not None
    assert took <= 2.0
    network.run(10.0)
    assert network.sent("n2", Suspect, since=woken) == []
    assert [d for d in network.sent("n2", Dead, since=woken) if d.sender == "n2"] == []
    for swim in swims:
        assert network.events(swim, NodeLeft) == []
        assert {node.state for node in swim.members()} == {NodeState.ALIVE}


def test_without_it_a_frozen_process_accuses_others() -> None:
    """The contrast: with the wake-up handled as memberlist does, a probe under way ends in an accusation."""
    swim = make("self", "10.0.0.1", probe_interval=1.0, disable_tcp_pings=True, **FAITHFUL)
    tell(swim, alive("peer"))
    while not swim._prober._active:
        run_timers(swim, swim.get_timer() or 0.0)
    swim.handle_timer(20.0)
    assert state(swim, "peer") == NodeState.SUSPECT


def test_a_stall_gives_up_the_probe_and_gives_suspects_their_window_again() -> None:
    swim = make("self", "10.0.0.1", probe_interval=1.0)
    tell(swim, alive("peer"))
    while not swim._prober._active:
        run_timers(swim, swim.get_timer() or 0.0)
    began = swim._prober._active.sent
    tell(swim, alive("doubted"), Suspect(1, "doubted", "x"), now=began)
    drain(swim)

    swim.handle_timer(began + 30.0)  # the window of 4 s, and the probe's second, are long over

    assert [type(e) for e in events(swim)] == [Stalled]
    assert state(swim, "doubted") == NodeState.SUSPECT
    assert swim._prober._active is None
    run_timers(swim, began + 31.2)
    assert state(swim, "peer") == NodeState.ALIVE, "whoever was being probed is not accused"
    assert swim.counters.get("probes_failed", 0) == 0
    run_timers(swim, began + 33.5)
    assert state(swim, "doubted") == NodeState.SUSPECT
    run_timers(swim, began + 35.0)
    assert state(swim, "doubted") == NodeState.DEAD, "the window is not for ever"


def test_a_short_delay_is_no_stall() -> None:
    swim = make("self", "10.0.0.1", probe_interval=1.0)
    due = swim.get_timer()
    assert due is not None
    swim.handle_timer(due + 0.9)
    assert not any(isinstance(e, Stalled) for e in events(swim))
    assert swim.incarnation == 1


def test_a_stall_may_come_again() -> None:
    swim = make("self", "10.0.0.1", probe_interval=1.0)
    tell(swim, alive("peer"))
    now = 0.0
    for number in range(1, 4):
        now += 20.0
        tell(swim, Ping(number, "self"), now=now)
        assert swim.incarnation == 1 + number
        due = swim.get_timer()
        assert due is not None
        assert now <= due <= now + 1.5, "and the machine's timers are in step with the owner's clock again"
    assert len([e for e in events(swim) if isinstance(e, Stalled)]) == 3


def test_conversations_after_a_stall_have_their_whole_time() -> None:
    swim = make("self", "10.0.0.1", probe_interval=1.0, tcp_timeout=10.0)
    tell(swim, Ping(1, "self"), now=50.0)
    assert swim.counters["stalls"] == 1
    drain(swim)
    swim.join(("10.0.0.2", 7946), 50.0)
    assert swim.exchanges_to_start()[0].deadline == pytest.approx(60.0)


@pytest.mark.parametrize("verify", [False, True])
def test_a_late_confirmation_is_no_stall(verify: bool) -> None:
    """A confirmation may move the end of a suspicion into the past. That is not time we slept."""
    swim = make("self", "10.0.0.1", start=False, probe_interval=1.0, verify_suspicions=verify)
    swim._prober.start = lambda now: None  # type: ignore[method-assign]
    swim.start(0.0)
    tell(swim, alive("bad"), *(alive(f"peer{n}") for n in range(4)))
    tell(swim, Suspect(1, "bad", "peer0"))  # 24 s without, 11.4 s with one confirmation
    run_timers(swim, 20.0)
    tell(swim, Suspect(1, "bad", "peer1"), now=20.0)
    drain(swim)
    run_timers(swim, 20.0 + (0.6 if verify else 0.0))
    assert [type(e) for e in events(swim)] == [NodeLeft], "at once, or when it has been heard"
    assert swim.incarnation == 1
    assert "stalls" not in swim.counters


# -- UDP that does not get through ----------------------------------------------------------------


def blocked(network: Network, swim: Swim) -> list[tuple[str, int, str]]:
    return [(e.node.name, e.port, e.direction) for e in network.events(swim, UdpBlocked)]


def two(a: dict[str, Any], b: dict[str, Any]) -> tuple[Network, Swim, Swim]:
    """Return two members, n0 on port 7001 and n1 on port 7002, after half a minute of peace."""
    first, second = (
        make(f"n{n}", f"10.0.0.{n + 1}", 7001 + n, start=False, **settings) for n, settings in enumerate((a, b))
    )
    network = Network(first, second, latency=0.001)
    assert network.join(second, first) is None
    network.run(31.0)
    assert blocked(network, first) == blocked(network, second) == []
    network.forget()
    return network, first, second


PROBES: dict[str, Any] = {"probe_interval": 1.0, "gossip_interval": 0.2}


def test_blocked_outbound() -> None:
    network, a, b = two(PROBES, PROBES)
    network.cut(a, b, "udp")
    network.run(20.0)
    assert blocked(network, a) == [("n1", 7002, "outbound")], "its pings come in, so it is ours that get lost"
    assert state(a, "n1") == NodeState.ALIVE
    assert state(b, "n0") == NodeState.ALIVE


def test_blocked_outbound_as_the_one_who_is_probed_sees_it() -> None:
    network, a, b = two({}, PROBES)
    network.cut(a, b, "udp")
    network.run(20.0)
    assert blocked(network, a) == [("n1", 7002, "outbound")], "its ping came both ways: our ack was lost"
    assert state(b, "n0") == NodeState.ALIVE


def test_blocked_inbound() -> None:
    network, a, b = two(PROBES, {})
    network.cut(a, b, "udp")
    network.run(20.0)
    assert blocked(network, b) == [("n0", 7002, "inbound")], "its ping came over TCP only: our own port is closed"
    assert state(a, "n1") == NodeState.ALIVE


def test_blocked_unknown() -> None:
    network, a, b = two(PROBES, {})
    network.cut(a, b, "udp")
    network.run(20.0)
    assert blocked(network, a) == [("n1", 7002, "unknown")], "it never pings, so it cannot be told which way is closed"


def test_blocked_is_said_every_half_minute_at_most_and_not_any_more_once_it_works() -> None:
    network, a, b = two(PROBES, PROBES)
    network.cut(a, b, "udp")
    network.run(95.0)
    times = network.when(a, UdpBlocked)
    assert 3 <= len(times) <= 4
    assert all(later - earlier >= 30.0 for earlier, later in pairwise(times))
    network.heal()
    network.run(35.0)
    network.forget()
    network.run(120.0)
    assert blocked(network, a) == blocked(network, b) == []


def test_one_lost_packet_is_not_reported_as_blocked() -> None:
    network, swims = cluster(3)
    lost: list[bytes] = []

    def drop(sender: str, to: Any, data: bytes) -> bool:
        first = not lost and any(isinstance(m, Ping) for m in swims[0]._core.codec.open(data).messages)
        if first:
            lost.append(data)
        return first

    network.drop = drop
    network.run(20.0)
    assert len(lost) == 1
    assert [blocked(network, swim) for swim in swims] == [[], [], []]


def test_a_dead_node_is_not_reported_as_blocked() -> None:
    network, swims = cluster(3)
    network.remove(swims.pop())
    network.run(30.0)
    assert [blocked(network, swim) for swim in swims] == [[], []]
    assert [state_of(swim, "n2") for swim in swims] == [NodeState.DEAD] * 2


# -- suspects are heard ---------------------------------------------------------------------------


def test_who_repeats_an_old_accusation_is_corrected() -> None:
    swim = make("self", "10.0.0.1")
    tell(swim, alive("peer", incarnation=5))
    drain(swim)
    accuser = ("10.0.0.9", 7946)
    tell(swim, Suspect(4, "peer", "x"), Dead(4, "peer", "x"), sender=accuser)
    assert [(m.node, m.incarnation, to) for m, to in sent(swim) if isinstance(m, Alive)] == [("peer", 5, accuser)] * 2
    tell(swim, Suspect(5, "peer", "x"), sender=accuser)
    assert [m for m, _ in sent(swim) if isinstance(m, Alive)] == [], "that one is as new as what we know"


def test_a_suspect_whose_refutations_are_lost_is_asked_before_it_is_buried() -> None:
    network, (n0, n1, n2) = cluster(3)

    def drop(sender: str, to: Any, data: bytes) -> bool:
        """Lose all that others say of n1 on the way to n0; what n1 itself says comes through."""
        said = n0._core.codec.open(data).messages
        return sender == "n2" and to == n0.local_node.address and any(getattr(m, "node", "") == "n1" for m in said)

    network.drop = drop
    tell(n0, Suspect(n0._core.table.get("n1").incarnation, "n1", "n2"), now=network.now)  # type: ignore[union-attr]
    network.run(60.0)
    assert alive_at(n0, "n1") == n1.local_node.host
    assert [network.events(swim, NodeLeft) for swim in (n0, n1, n2)] == [[], [], []]


@pytest.mark.parametrize("verify", [False, True])
def test_that_does_not_delay_the_detection_of_a_crash(verify: bool) -> None:
    network, swims = cluster(5, verify_suspicions=verify)
    network.remove(swims.pop())
    took = network.run_until(lambda: all(state_of(swim, "n4") == NodeState.DEAD for swim in swims), 60.0)
    assert took is not None
    assert took <= 12.0
