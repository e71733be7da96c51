"""What this library does beyond memberlist in small clusters: who is frozen is waited for, who was killed is not."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeLeft, Stalled
from mycorrizal.types import NodeState
from tests.scenarios.network import Network
from tests.scenarios.test_beyond import cluster

FLOOR: dict[str, Any] = {"suspicion_min_timeout": 12.0}


def buried(network: Network, swims: list[Swim]) -> list[tuple[str, str]]:
    """Return who declared whom dead, or heard of it."""
    return [(swim._core.name, e.node.name) for swim in swims for e in network.events(swim, NodeLeft)]


def all_alive(swims: list[Swim]) -> bool:
    """Return whether everybody holds everybody for alive."""
    return all([node.state for node in swim.nodes()] == [NodeState.ALIVE] * len(swims) for swim in swims)


def first_death(network: Network, swims: list[Swim], name: str, patience: float = 60.0) -> float:
    """Return the seconds from now until somebody declares `name` dead."""
    took = network.run_until(lambda: any(who == name for _, who in buried(network, swims)), patience)
    assert took is not None
    return took


# -- a process that does not run for a while ---------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seconds", [6.0, 10.0, 12.0])
@pytest.mark.parametrize("phase", [0.0, 0.37, 0.74])
def test_nobody_is_declared_dead_for_a_stall_below_the_floor(size: int, seconds: float, phase: float) -> None:
    network, swims = cluster(size, **FLOOR)
    network.run(phase)
    network.freeze(swims[1])
    network.run(seconds)
    network.thaw(swims[1])
    assert [s.seconds for s in network.events(swims[1], Stalled)] == [pytest.approx(seconds, abs=1.0)]
    assert network.run_until(lambda: all_alive(swims), 3.0) is not None
    network.run(30.0)
    assert buried(network, swims) == []
    assert all_alive(swims)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_without_it_the_others_bury_the_living(size: int) -> None:
    network, swims = cluster(size)
    network.freeze(swims[1])
    network.run(10.0)
    assert {who for _, who in buried(network, swims)} == {"n1"}


def test_six_members_are_memberlists_business() -> None:
    network, swims = cluster(6, **FLOOR)
    network.freeze(swims[1])
    network.run(10.0)
    assert {who for _, who in buried(network, swims)} == {"n1"}


def test_one_long_call_after_another() -> None:
    network, swims = cluster(3, **FLOOR)
    for _ in range(20):
        network.freeze(swims[1])
        network.run(6.0)
        network.thaw(swims[1])
        network.run(0.02)
    network.run(10.0)
    assert buried(network, swims) == []
    assert all_alive(swims)


@pytest.mark.parametrize("size", [2, 5])
def test_all_frozen_together_as_a_laptop_asleep(size: int) -> None:
    network, swims = cluster(size, **FLOOR)
    for swim in swims:
        network.freeze(swim)
    network.run(3600.0)
    for swim in swims:
        network.thaw(swim)
        network.run(0.3)
    network.run(30.0)
    assert buried(network, swims) == []
    assert all_alive(swims)


def test_two_of_three_frozen_one_after_the_other() -> None:
    network, swims = cluster(3, **FLOOR)
    network.freeze(swims[1])
    network.run(4.0)
    network.freeze(swims[2])
    network.run(6.0)
    network.thaw(swims[1])
    network.run(4.0)
    network.thaw(swims[2])
    network.run(30.0)
    assert buried(network, swims) == []
    assert all_alive(swims)


# -- a process that is gone ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_killed_process_is_noticed_as_quickly_as_without_the_floor(size: int) -> None:
    times = []
    for settings in ({}, FLOOR):
        network, swims = cluster(size, **settings)
        network.remove(swims[1])
        del swims[1]
        times.append(first_death(network, swims, "n1"))
    assert times[1] == pytest.approx(times[0], abs=0.1)
    assert times[1] < 10


def test_without_the_rule_a_killed_process_is_waited_for_too() -> None:
    network, swims = cluster(3, trust_refusals=False, **FLOOR)
    network.remove(swims.pop(1))
    assert first_death(network, swims, "n1") >= 12


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_host_that_vanishes_is_noticed_as_much_later(size: int) -> None:
    network, swims = cluster(size, **FLOOR)
    victim = swims.pop(1)
    network.silent.add(victim.local_node.address)
    network.remove(victim)
    took = first_death(network, swims, "n1")
    assert 12.0 < took < 12.0 + 5.0


def test_one_is_killed_while_another_is_frozen() -> None:
    network, swims = cluster(3, **FLOOR)
    network.freeze(swims[2])
    network.remove(swims.pop(1))
    took = first_death(network, swims, "n1")
    assert took < 12, "the probes of the frozen one have stretched the prober's interval"
    network.run(12.0 - took)
    network.thaw(swims[1])
    network.run(30.0)
    assert {who for _, who in buried(network, swims)} == {"n1"}
    assert [node.name for node in swims[0].members()] == ["n0", "n2"]
