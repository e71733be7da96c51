"""A host gets another address while its node runs: everybody follows, and nobody reports that it went and came."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft, NodeUpdated, OperationDone, UdpBlocked
from mycorrizal._wire.messages import Dead
from mycorrizal.types import NodeState
from tests._swim.harness import make, record
from tests.scenarios.network import LIVELY, Network, faithful, state_of

NEW = "10.0.9.9"


def whole(size: int, **settings: Any) -> tuple[Network, list[Swim]]:
    """Return a network on which `size` members, m0, m1 and so on, know each other."""
    swims = [make(f"m{n}", f"10.0.0.{n + 1}", seed=n, start=False, **{**LIVELY, **settings}) for n in range(size)]
    network = Network(*swims, latency=0.002)
    for swim in swims[1:]:
        assert network.join(swim, swims[0]) is None
    assert network.run_until(lambda: all(len(swim.members()) == size for swim in swims), 60.0) is not None
    network.run(5.0)
    network.forget()
    return network, swims


def told(network: Network, swims: list[Swim]) -> list[object]:
    """Return all that the members reported, but updates."""
    quiet = (NodeUpdated, OperationDone)
    return [event for swim in swims for event in network.peer(swim).events if not isinstance(event[1], quiet)]


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("notice", [0.0, 1.0, 2.0])
def test_who_moves_is_followed_and_nobody_flaps(size: int, wire: str, notice: float) -> None:
    network, swims = whole(size, wire=wire)
    mover, others = swims[1], [swim for swim in swims if swim is not swims[1]]
    before = mover.incarnation
    network.move(mover, NEW, notice=notice)
    followed = network.run_until(lambda: all(record(swim, "m1").host == NEW for swim in swims), 30.0)
    assert followed is not None
    assert followed <= notice + 2.5
    network.run(60.0)
    assert told(network, swims) == []
    for swim in others:
        assert [event.node.host for event in network.events(swim, NodeUpdated)] == [NEW], "said once"
        assert record(swim, "m1").incarnation > before
        assert swim.counters["moves"] == 1
    assert all(node.state == NodeState.ALIVE for swim in swims for node in swim.nodes())
    assert [swim.health_score for swim in swims] == [0] * size, "and nobody thinks worse of itself"
    assert [s for s in network.log if s.to[0] == "10.0.0.2" and s.at > network.now - 50.0] == [], "the old one is free"


def test_it_is_done_with_packets_lost() -> None:
    network, swims = whole(8)
    dice = iter(range(10_000))
    network.drop = lambda sender, to, data: next(dice) % 4 == 0
    network.move(swims[1], NEW, notice=1.0)
    assert network.run_until(lambda: all(record(swim, "m1").host == NEW for swim in swims), 30.0) is not None
    network.run(30.0)
    assert [e for swim in swims for e in network.events(swim, NodeLeft)] == []


def test_one_after_the_other_and_back() -> None:
    network, swims = whole(3)
    for host in (NEW, "10.0.9.10", "10.0.0.2"):
        network.move(swims[1], host, notice=1.0)
        assert network.run_until(lambda host=host: all(record(swim, "m1").host == host for swim in swims), 30.0)
        network.run(10.0)
    assert told(network, swims) == []


def test_all_hosts_move_at_once() -> None:
    network, swims = whole(3)
    for number, swim in enumerate(swims):
        network.move(swim, f"10.0.9.{number}", notice=1.0)
    network.run(30.0)
    # Nobody knows where anybody is, and all are asked for at addresses where nobody is: only seeds help here.
    assert all(swim.local_node.host.startswith("10.0.9.") for swim in swims)
    assert network.join(swims[0], swims[1]) is None
    assert network.join(swims[2], swims[1]) is None
    assert network.run_until(lambda: all(len(swim.members()) == 3 for swim in swims), 30.0) is not None


def test_another_host_gets_the_old_address() -> None:
    """As two leases that are swapped: what is at an address is who answers to the name."""
    network, swims = whole(4)
    network.move(swims[1], NEW, notice=1.0)
    network.run(0.5)
    network.move(swims[2], "10.0.0.2", notice=1.0)
    network.run(30.0)
    for swim in swims:
        assert (record(swim, "m1").host, record(swim, "m2").host) == (NEW, "10.0.0.2")
    assert told(network, swims) == []


def test_a_record_of_the_old_address_is_no_conflict_later() -> None:
    network, swims = whole(4)
    sleeper = swims[3]
    network.freeze(sleeper)
    network.move(swims[1], NEW, notice=1.0)
    network.run(10.0)
    late = network.add(make("late", "10.0.1.1", start=False, **LIVELY))
    assert network.join(late, swims[0]) is None
    network.run(30.0)
    network.thaw(sleeper)
    network.run(60.0)
    assert all(record(swim, "m1").host == NEW for swim in (*swims, late))
    assert [e for swim in (*swims, late) for e in network.events(swim, NodeConflict)] == []


def test_the_tags_change_as_well() -> None:
    network, swims = whole(3)
    mover = swims[1]
    network.move(mover, NEW)
    network.run(0.001)
    mover.update_meta(network.now)
    network.run(20.0)
    assert told(network, swims) == []
    assert all(record(swim, "m1").host == NEW for swim in swims)


def test_who_was_away_for_longer_comes_back_elsewhere() -> None:
    network, swims = whole(3)
    mover, others = swims[1], [swims[0], swims[2]]
    network.part([mover], others)
    network.run(60.0)
    assert all(state_of(swim, "m1") in (None, NodeState.DEAD) for swim in others)
    network.move(mover, NEW)
    network.heal()
    network.run(60.0)
    assert all(record(swim, "m1").host == NEW for swim in others)
    assert [len(network.events(swim, NodeJoined)) for swim in others] == [1, 1]


def test_it_blames_no_firewall() -> None:
    network, swims = whole(2)
    for number in range(6):
        network.move(swims[1], f"10.0.9.{number}", notice=2.0)
        network.run(20.0)
    assert [e for swim in swims for e in network.events(swim, UdpBlocked)] == []


# -- Go's members: they take a new address only of who has left ------------------------------------------


def test_a_member_with_gos_rules_sees_a_leave_and_a_join() -> None:
    go = [faithful(f"go{n}", f"10.0.2.{n + 1}", seed=n, start=False, **LIVELY) for n in range(2)]
    ours = [make(f"m{n}", f"10.0.0.{n + 1}", seed=n, start=False, **LIVELY) for n in range(3)]
    network = Network(*go, *ours, latency=0.002)
    for swim in (*go[1:], *ours):
        assert network.join(swim, go[0]) is None
    network.run(10.0)
    network.forget()
    network.move(ours[1], NEW, notice=1.0)
    network.run(60.0)
    for swim in go:
        assert record(swim, "m1").host == NEW
        assert [type(e) for _, e in network.peer(swim).events] == [NodeLeft, NodeJoined], "no conflict is told"
    assert told(network, ours) == []
    assert network.sent("m1", Dead), "for them it said goodbye"


def test_among_ourselves_nobody_says_goodbye() -> None:
    network, swims = whole(3, wire="cbor")
    network.move(swims[1], NEW)
    network.run(30.0)
    assert network.sent("m1", Dead) == []
