"""What this library does beyond memberlist with push/pulls: partitions heal, and a lost alive is repaired early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeJoined, NodeLeft
from mycorrizal._wire.messages import Dead, Ping, PushPull
from mycorrizal.types import Address, NodeState
from tests._swim.harness import FAITHFUL, alive, drain, make, sent, tell
from tests.scenarios.network import LIVELY, Network, named, state_of
from tests.scenarios.test_beyond import cluster, lively

# -- partitions ------------------------------------------------------------------------------------


def partitioned(size: int, seconds: float, **settings: Any) -> tuple[Network, list[Swim]]:
    """Return a cluster that was in two halves for `seconds`, and has just been mended."""
    network, swims = cluster(size, **settings)
    left, right = swims[: size // 2], swims[size // 2 :]
    network.part(left, right)
    network.run(seconds)
    for side in (left, right):
        for swim in side:
            assert named(swim.nodes()) == named([other.local_node for other in side]), "the others are forgotten"
    network.heal()
    return network, swims


@pytest.mark.parametrize("size", [2, 6])
def test_a_partition_heals_without_a_join(size: int) -> None:
    network, swims = partitioned(size, 180.0)
    began = network.now
    everybody = [f"n{n}" for n in range(size)]
    took = network.run_until(lambda: all(named(swim.members()) == everybody for swim in swims), 120.0)
    assert took is not None
    assert took <= 25.0, "the next reconnect ping finds somebody, push/pull does the rest"
    assert not any(s.message.join for s in network.log if s.at >= began and isinstance(s.message, PushPull))

    network.run(60.0)
    for swim in swims:
        assert {node.state for node in swim.members()} == {NodeState.ALIVE}
        assert len(swim.members()) == size
        assert network.events(swim, NodeLeft, since=began + took) == [], "and nobody is taken for dead again"
        assert swim.gauges["nodes.lost"] == 0


def test_without_it_the_halves_never_meet_again() -> None:
    network, swims = partitioned(4, 180.0, **FAITHFUL)
    network.run(600.0)
    assert [len(swim.members()) for swim in swims] == [2] * 4


def test_who_left_is_not_called_back() -> None:
    network, swims = cluster(3)
    gone = swims.pop()
    gone.leave(network.now)
    network.run(3.0)
    network.remove(gone)
    network.run(120.0)
    for swim in swims:
        assert swim.gauges["nodes.lost"] == 0
        assert "reconnect_pings" not in swim.counters


def test_lost_members_are_tried_now_and_then_and_forgotten_in_the_end() -> None:
    swim = make("self", "10.0.0.1", reconnect_interval=10.0, reconnect_timeout=200.0, reconnect_max=3)
    for n in range(5):
        tell(swim, alive(f"lost{n}"))
        tell(swim, Dead(1, f"lost{n}", "x"))
    assert swim.gauges["nodes.lost"] == 3, "bounded: the oldest were forgotten"
    assert swim.counters["lost_members_forgotten"] == 2
    drain(swim)
    network = Network(swim)
    network.run(100.0)
    pings = [s for s in network.log if isinstance(s.message, Ping)]
    assert 20 <= len(pings) <= 45, "up to four in an interval, but nobody twice: three in 10 seconds"
    assert {getattr(p.message, "node", "") for p in pings} <= {"lost2", "lost3", "lost4"}
    network.run(130.0)
    assert swim.gauges["nodes.lost"] == 0
    network.forget()
    network.run(100.0)
    assert network.log == [], "and then there is silence"


def test_a_lost_member_that_comes_back_by_itself_is_not_lost_any_more() -> None:
    swim = make("self", "10.0.0.1")
    tell(swim, alive("lost"), Dead(1, "lost", "x"))
    assert swim.gauges["nodes.lost"] == 1
    tell(swim, alive("lost", incarnation=2))
    assert swim.gauges["nodes.lost"] == 0


# -- early push/pulls ---------------------------------------------------------------------------------


def deaf_to_a_joiner(seed: int, *, rest: float = 100.0, **settings: Any) -> tuple[Network, Swim]:
    """Return a cluster of five, and a member of it that hears nothing of a sixth by UDP. The sixth has just joined.

    Before that the five had `rest` seconds in which nobody joined, and their tokens came back.
    """
    network, swims = cluster(5, **settings)
    network.run(rest)
    network.forget()
    victim = swims[3]

    def drop(sender: str, to: Address, data: bytes) -> bool:
        return to == victim.local_node.address and b"newcomer" in data

    network.drop = drop
    newcomer = network.add(lively("newcomer", "10.0.9.9", seed=seed, enable_compression=False, **settings))
    assert network.join(newcomer, swims[0]) is None
    return network, victim


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_alive_is_repaired_within_seconds(seed: int) -> None:
    network, victim = deaf_to_a_joiner(seed)
    took = network.run_until(lambda: state_of(victim, "newcomer") is not None, 30.0)
    assert took is not None
    assert took <= 4.0


def test_without_it_a_lost_alive_waits_for_the_next_push_pull() -> None:
    network, victim = deaf_to_a_joiner(0, **{**FAITHFUL, "push_pull_interval": 3600.0})
    network.run(20.0)
    assert state_of(victim, "newcomer") is None


def churn(count: int) -> Iterator[tuple[float, str]]:
    for n in range(count):
        yield n * 0.5, f"passer-by-{n}"


def test_early_push_pulls_are_bounded_in_constant_change() -> None:
    """Five minutes with a joiner every half second: at most the tokens, and one more for each interval."""
    swim = make("self", "10.0.0.1", start=False, **{**LIVELY, "probe_interval": 0})
    network = Network(swim)
    for at, name in churn(600):
        network.run(at - network.now)
        tell(swim, alive(name), now=network.now)
    network.flush()
    assert network.now > 299
    assert 3 + 24 <= swim.counters["push_pulls_early"] <= 3 + 60
    assert swim.counters["push_pulls"] <= 7 * 11 + 3, "six early ones to a periodic one at most"
    joined = {e.node.name for e in network.events(swim, NodeJoined)}
    assert len(joined) == 601


def test_after_a_join_there_are_a_few_at_most() -> None:
    network, _ = deaf_to_a_joiner(1)
    network.run(15.0)
    early = [s for s in network.log if s.over == "tcp" and isinstance(s.message, PushPull) and not s.message.join]
    by_sender = {name: len([s for s in early if s.sender == name]) for name in {s.sender for s in early}}
    assert by_sender
    assert max(by_sender.values()) <= 3 + 1, "three tokens, and the periodic one may fall into this time"
    joins = [s for s in network.log if s.over == "tcp" and isinstance(s.message, PushPull) and s.message.join]
    assert len(joins) == 1


def test_no_early_push_pull_without_the_periodic_one() -> None:
    """Where push/pull is switched off, it is off."""
    swim = make("self", "10.0.0.1", push_pull_interval=0, gossip_interval=0.2)
    network = Network(swim)
    tell(swim, alive("peer"), alive("other"))
    network.run(30.0)
    assert "push_pulls" not in swim.counters
    assert [m for m, _ in sent(swim) if isinstance(m, PushPull)] == []
