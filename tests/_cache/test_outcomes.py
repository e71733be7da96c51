"""What is remembered of writes for retries goes when none can come any more, also where nothing is written."""

from __future__ import annotations

from mycorrizal._cache.definition import Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Kind, Op

from .harness import Caches, ask, make_machine, space_in

AGE = Limits().outcomes_age


def remembered(machine: CacheMachine) -> int:
    return sum(len(shard.outcomes) for shard in space_in(machine).shards)


def test_outcomes_go_without_further_writes() -> None:
    machine = make_machine(replicas=1)
    for number in range(500):
        ask(machine, Op(Kind.SET, b"%d" % number, value=b"v"), now=1.0 + number / 100)
    assert remembered(machine) == 500
    at = 0.0
    while (due := machine.get_timer()) is not None and due < 1.0 + AGE + 5.1:
        assert due > at - 1e-9
        at = due
        machine.handle_timer(at)
    assert remembered(machine) == 0


def test_they_stay_as_long_as_a_retry_may_come() -> None:
    machine = make_machine(replicas=1)
    ask(machine, Op(Kind.INCR, b"n", id=7, number=1), now=1.0)
    ask(machine, Op(Kind.SET, b"m", value=b"v"), now=AGE - 1.0)
    machine.handle_timer(AGE)
    (again,) = ask(machine, Op(Kind.INCR, b"n", id=7, age=1000, number=1), now=AGE)
    assert again.number == 1


def test_both_copies_let_go_at_the_same_moment() -> None:
    caches = Caches(2)
    for number in range(50):
        caches.set(number % 2, b"%d" % number, b"v")
    assert all(remembered(node.machine) == 50 for node in caches.nodes)
    pushed = [node.machine.counters().get("fill_bytes", 0) for node in caches.nodes]
    caches.cluster.run(2 * AGE)
    assert all(remembered(node.machine) == 0 for node in caches.nodes)
    assert [node.machine.counters().get("fill_bytes", 0) for node in caches.nodes] == pushed
