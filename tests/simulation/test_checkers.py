"""Each checker catches the fault planted for it, and is quiet without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mycorrizal import Node, NodeState
from mycorrizal._swim.events import NodeLeft
from mycorrizal._swim.machine import Swim
from mycorrizal.simulation import (
    BoundsChecker,
    Checker,
    CheckFailed,
    Cluster,
    DetectionChecker,
    FalsePositiveChecker,
    IncarnationChecker,
    MetaChecker,
    Referee,
    ResurrectionChecker,
    SelfChecker,
    check_agreement,
)


class Liar(Swim):
    """A machine whose view can be falsified by a test."""

    lie: Callable[[Node], Node | None] | None = None
    extra: tuple[Node, ...] = ()

    def nodes(self) -> tuple[Node, ...]:
        nodes = super().nodes()
        if self.lie is not None:
            nodes = tuple(seen for node in nodes if (seen := self.lie(node)) is not None)
        return nodes + self.extra

    def members(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes() if node.state <= NodeState.SUSPECT)


def watched(make: Callable[[Cluster], Checker]) -> tuple[Cluster, Referee, Liar]:
    cluster = Cluster(1, machine=Liar)
    for name in ("a", "b"):
        cluster.add(name, meta=f"{name}/0/0".encode())
    cluster.join(cluster.members[1], cluster.members[0])
    cluster.run(2.0)
    referee = Referee([make(cluster)])
    for member in cluster.members:
        referee.changed(member, cluster.clock.now)
    liar = cluster.members[0].machine
    assert isinstance(liar, Liar)
    return cluster, referee, liar


def about(name: str, **changes: object) -> Callable[[Node], Node]:
    return lambda node: replace(node, **changes) if node.name == name else node  # type: ignore[arg-type]


def show(cluster: Cluster, referee: Referee) -> None:
    referee.changed(cluster.members[0], cluster.clock.now)


def test_incarnation() -> None:
    cluster, referee, liar = watched(lambda _: IncarnationChecker())
    liar.lie = about("b", incarnation=0, addr=bytes(4))
    show(cluster, referee)  # another address: another process
    liar.lie = about("b", incarnation=7)
    show(cluster, referee)
    liar.lie = about("b", incarnation=6)
    with pytest.raises(CheckFailed, match=r"IncarnationChecker: t=2.0+: .* let b ALIVE inc 7 .* fall to b ALIVE inc 6"):
        show(cluster, referee)


@pytest.mark.parametrize("state", [NodeState.DEAD, NodeState.LEFT])
def test_resurrection(state: NodeState) -> None:
    cluster, referee, liar = watched(lambda _: ResurrectionChecker())
    liar.lie = about("b", state=state, incarnation=3)
    show(cluster, referee)
    liar.lie = about("b", state=NodeState.ALIVE, incarnation=4)
    show(cluster, referee)
    liar.lie = about("b", state=state, incarnation=4)
    show(cluster, referee)
    liar.lie = about("b", state=NodeState.SUSPECT, incarnation=4)
    with pytest.raises(CheckFailed, match="took b .* back"):
        show(cluster, referee)


def test_resurrection_lets_off_what_was_pruned() -> None:
    cluster, referee, liar = watched(lambda _: ResurrectionChecker())
    liar.lie = about("b", state=NodeState.DEAD)
    show(cluster, referee)
    liar.lie = lambda node: None if node.name == "b" else node
    show(cluster, referee)
    liar.lie = None
    show(cluster, referee)
    liar.lie = about("b", state=NodeState.DEAD)
    show(cluster, referee)
    cluster.run(cluster.config.gossip_to_the_dead_time + 1.0)
    liar.lie = None
    show(cluster, referee)


@pytest.mark.parametrize("lie", [about("a", state=NodeState.DEAD), lambda node: None if node.name == "a" else node])
def test_self(lie: Callable[[Node], Node | None]) -> None:
    cluster, referee, liar = watched(lambda _: SelfChecker())
    show(cluster, referee)
    liar.lie = lie
    with pytest.raises(CheckFailed, match="believes of itself"):
        show(cluster, referee)


def test_meta() -> None:
    cluster, referee, liar = watched(lambda _: MetaChecker())
    liar.lie = about("b", meta=b"b/1/0")
    show(cluster, referee)  # another life
    liar.lie = about("b", meta=b"b/0/9", state=NodeState.SUSPECT)
    show(cluster, referee)  # a suspicion brings no metadata along
    liar.lie = about("b", meta=b"b/0/9")
    with pytest.raises(CheckFailed, match="b/0/9"):
        show(cluster, referee)


def test_bounds_of_the_table() -> None:
    cluster, referee, liar = watched(BoundsChecker)
    show(cluster, referee)
    core = liar._core
    for number in range(3):
        core.table.add(type(next(iter(core.table)))(f"ghost{number}", bytes(4), 1, None, bytes(6)))
    with pytest.raises(CheckFailed, match="knows 5 nodes, only 2 ever were"):
        show(cluster, referee)


def test_bounds_of_the_queue() -> None:
    cluster, referee, liar = watched(BoundsChecker)
    for number in range(10):
        liar._core.queue.queue_broadcast(b"x", unique=True, tag=number)
    with pytest.raises(CheckFailed, match="broadcasts queued"):
        show(cluster, referee)


def test_agreement() -> None:
    cluster, _, liar = watched(lambda _: SelfChecker())
    check_agreement(cluster)
    liar.lie = about("b", state=NodeState.DEAD)
    assert not cluster.agreed
    with pytest.raises(CheckFailed, match=r"misses \['b'\]"):
        check_agreement(cluster)
    liar.lie = about("b", meta=b"other")
    assert cluster.agreed  # which is about addresses only
    with pytest.raises(CheckFailed, match="holds Node"):
        check_agreement(cluster)
    liar.lie = None
    liar.extra = (Node("ghost", bytes(4), 1),)
    with pytest.raises(CheckFailed, match=r"still believes in \['ghost'\]"):
        check_agreement(cluster)


def test_false_positives() -> None:
    cluster, _, _ = watched(lambda _: SelfChecker())
    first, second = cluster.members
    dead = NodeLeft(replace(second.machine.local_node, state=NodeState.DEAD))
    checker = FalsePositiveChecker(cluster, limit=1)
    checker.event(first, NodeLeft(replace(dead.node, state=NodeState.LEFT)), 1.0)
    assert checker.total == 0
    checker.event(first, dead, 1.0)
    assert (checker.total, checker.healthy) == (1, 1)
    with pytest.raises(CheckFailed, match="2 false positives, at most 1"):
        checker.event(first, dead, 2.0)
    about_distressed = FalsePositiveChecker(cluster, distressed=[second])
    about_distressed.event(first, dead, 1.0)
    assert about_distressed.total == 0
    at_distressed = FalsePositiveChecker(cluster, distressed=[first])
    at_distressed.event(first, dead, 1.0)
    assert (at_distressed.total, at_distressed.healthy) == (1, 0)
    cluster.freeze(second)
    checker.event(first, dead, 3.0)
    assert checker.total == 2


def test_detection_that_never_comes() -> None:
    cluster = Cluster.converged(4)
    checker = DetectionChecker(cluster, bound=5.0)
    cluster.watchers.append(checker)
    cluster.crash(cluster.members[0])
    cluster.run(1.0)
    checker.finish(cluster.clock.now)  # not yet late
    cluster.run(5.0)
    with pytest.raises(CheckFailed, match="3 members still believe in"):
        checker.finish(cluster.clock.now)


def test_detection_that_comes_too_late() -> None:
    cluster = Cluster.converged(4)
    checker = DetectionChecker(cluster, bound=3.0)
    cluster.watchers.append(checker)
    cluster.crash(cluster.members[0])
    cluster.run(60.0)
    with pytest.raises(CheckFailed, match="was noticed after"):
        checker.finish(cluster.clock.now)


def test_a_detection_is_of_the_one_that_crashed_and_counts_for_every_observer() -> None:
    cluster = Cluster.converged(4)
    first, gone = cluster.members[1], cluster.members[0]
    checker = DetectionChecker(cluster, bound=59.0)
    cluster.watchers.append(checker)
    cluster.crash(gone)
    checker.event(first, NodeLeft(replace(gone.machine.local_node, name="before", state=NodeState.DEAD)), 1.0)
    assert checker.times == {}
    cluster.run(60.0)
    checker.finish(cluster.clock.now)
    assert len(checker.times[gone.name]) == 3
    checker.times[gone.name].append(59.5)
    with pytest.raises(CheckFailed, match="was noticed after 59.50 s"):
        checker.finish(cluster.clock.now)


def test_who_left_and_is_held_for_dead_is_no_false_positive() -> None:
    cluster, _, _ = watched(lambda _: SelfChecker())
    first, second = cluster.members
    checker = FalsePositiveChecker(cluster)
    dead = NodeLeft(replace(second.machine.local_node, state=NodeState.DEAD))
    second.left = True
    checker.event(first, dead, 1.0)
    assert checker.total == 0


def test_a_suspect_is_bound_to_its_incarnation_too() -> None:
    checker = IncarnationChecker()
    cluster, _, _ = watched(lambda _: checker)
    first, second = cluster.members
    node = replace(second.machine.local_node, incarnation=5, state=NodeState.SUSPECT)
    with pytest.raises(CheckFailed):
        checker.row(first, node, replace(node, incarnation=4), 1.0)
    dead = replace(node, state=NodeState.DEAD)
    checker.row(first, dead, replace(dead, incarnation=4), 1.0)


def test_who_left_may_hold_itself_for_gone() -> None:
    checker = SelfChecker()
    cluster, _, _ = watched(lambda _: checker)
    first = cluster.members[0]
    node = first.machine.local_node
    gone = replace(node, state=NodeState.LEFT)
    with pytest.raises(CheckFailed):
        checker.row(first, node, gone, 1.0)
    first.left = True
    checker.row(first, node, gone, 1.0)
