"""What this library does beyond memberlist with a leave: it is heard, also where transmissions go to the dead."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeLeft, OperationDone
from mycorrizal._wire.messages import Dead
from mycorrizal.types import Address, NodeState
from tests.scenarios.network import Network, named, state_of
from tests.scenarios.test_beyond import cluster

LOCAL: dict[str, Any] = {"gossip_interval": 0.1, "retransmit_mult": 2, "push_pull_interval": 15.0, "suspicion_mult": 3}


def leave_after_a_kill(seed: int, **settings: Any) -> tuple[Network, list[Swim], str]:
    """Return the survivors of a cluster of six in which two were killed, and then one left and is gone."""
    network, swims = cluster(6, **LOCAL, **settings)
    network.run(seed * 0.37)
    for _ in range(2):
        network.remove(swims.pop())
    goes = swims.pop(0)
    operation = goes.leave(network.now)

    def over() -> bool:
        return any(e.operation_id == operation for e in network.events(goes, OperationDone))

    took = network.run_until(over, 5.0)
    assert took is not None
    assert took < 1.0
    network.flush()
    network.run(0.01)
    network.remove(goes)
    network.run(1.0)
    return network, swims, goes.local_node.name


@pytest.mark.parametrize("seed", range(8))
def test_a_leave_right_after_a_kill_is_heard_by_all(seed: int) -> None:
    network, swims, name = leave_after_a_kill(seed)
    assert [state_of(swim, name) for swim in swims] == [NodeState.LEFT] * 3
    network.run(60.0)
    for swim in swims:
        assert named(swim.members()) == ["n1", "n2", "n3"]
        ends = {e.node.name: e.node.state for e in network.events(swim, NodeLeft)}
        assert ends == {name: NodeState.LEFT, "n4": NodeState.DEAD, "n5": NodeState.DEAD}


def test_without_it_some_do_not_hear_of_it() -> None:
    heard = []
    for seed in range(8):
        _, swims, name = leave_after_a_kill(seed, leave_fanout=0)
        heard += [state_of(swim, name) == NodeState.LEFT for swim in swims]
    assert not all(heard)


@pytest.mark.parametrize("told", [True, False])
def test_who_missed_it_hears_it_at_its_next_probe(told: bool) -> None:
    network, swims = cluster(3, push_pull_interval=0.0, **({} if told else {"leave_fanout": 0}))
    goes, near, far = swims

    def drop(sender: str, to: Address, data: bytes) -> bool:
        said = near._core.codec.open(data).messages
        return to == far.local_node.address and any(isinstance(m, Dead) for m in said)

    network.drop = drop
    goes.leave(network.now)
    network.run(3.0)
    assert [state_of(swim, "n0") for swim in (near, far)] == [NodeState.LEFT, NodeState.ALIVE]
    network.drop = lambda sender, to, data: False
    network.run(120.0)
    expected = None if told else NodeState.ALIVE
    assert [state_of(swim, "n0") for swim in (near, far)] == [None, expected], "it still answers pings"
