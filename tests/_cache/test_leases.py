"""Leases to compute, and waiting for locks: one computes, the others wait, the dead are replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mycorrizal._cache.definition import Limits
from mycorrizal._cache.entry import LOCK_PREFIX
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.survey import CLEAR_KEYS
from tests._cache.harness import Caches, ask, make_machine

LEASE = Op(Kind.LEASE, b"k", number=10_000, wait=20_000)
LOCK = Op(Kind.LOCK, LOCK_PREFIX + b"x", ttl=60_000, wait=20_000)


def leased(found: list[Any]) -> Result:
    assert len(found) == 1 and isinstance(found[0][0], Result), found
    result: Result = found[0][0]
    return result


def test_hundred_callers_on_five_nodes_compute_once() -> None:
    caches = Caches(5)
    asked = [caches.start(index % 5, LEASE, timeout=30.0) for index in range(100)]
    caches.cluster.run(0.5)
    answered = [found for found in asked if found]
    assert len(answered) == 1
    result = leased(answered[0])
    assert result.status == Status.LEASED and result.value is None
    caches.set(0, b"k", b"computed", number=result.number)
    caches.cluster.run(0.5)
    assert all(leased(found).value == b"computed" for found in asked if found is not answered[0])


def test_node_that_dies_while_computing_is_replaced_once() -> None:
    caches = Caches(5)
    primary = caches.owners(b"k")[0]
    computing = next(index for index in range(5) if index not in caches.owners(b"k"))
    first = caches.start(computing, LEASE, timeout=30.0)
    caches.cluster.run(0.1)
    assert leased(first).status == Status.LEASED
    others = [caches.start(index, LEASE, timeout=30.0) for index in range(5) if index != computing for _ in range(20)]
    caches.cluster.run(0.2)
    assert not any(others)
    caches.cluster.crash(caches.nodes[computing])
    caches.cluster.run(1.0)
    replaced = [found for found in others if found]
    assert len(replaced) == 1
    assert leased(replaced[0]).status == Status.LEASED
    caches.set(primary, b"k", b"v", number=leased(replaced[0]).number)
    caches.cluster.run(0.5)
    assert [leased(found).value for found in others if found is not replaced[0]] == [b"v"] * 79


@pytest.mark.parametrize(("op", "status"), [(LEASE, Status.LEASED), (LOCK, Status.OK)], ids=["lease", "lock"])
def test_callers_of_a_dead_node_are_given_nothing(op: Op, status: Status) -> None:
    """They stand first in the queue; one of them would hold for the whole of its time what nobody uses."""
    caches = Caches(5)
    owners = caches.owners(op.key)
    dying, holding, waiting = [index for index in range(5) if index not in owners]
    holder = caches.start(dying if op is LEASE else holding, op, timeout=30.0)
    caches.cluster.run(0.1)
    assert leased(holder).status == status
    for _ in range(20):
        caches.start(dying, op, timeout=30.0)
    caches.cluster.run(0.1)
    alive = caches.start(waiting, op, timeout=30.0)
    caches.cluster.run(0.1)
    caches.cluster.crash(caches.nodes[dying])
    caches.cluster.run(1.0)
    if op is LOCK:
        assert not alive
        caches.one(holding, Op(Kind.UNLOCK, op.key, number=leased(holder).version))
        caches.cluster.run(0.5)
    assert leased(alive).status == status


def test_whoever_is_done_first_is_kept_though_its_lease_ran_out() -> None:
    caches = Caches(3)
    slow = caches.one(0, LEASE._replace(number=500))
    waiting = caches.start(1, LEASE)
    caches.cluster.run(0.4)
    assert not waiting
    caches.cluster.run(0.3)
    second = leased(waiting)
    assert second.status == Status.LEASED and second.number > slow.number
    assert caches.set(0, b"k", b"first", number=slow.number).status == Status.OK
    assert caches.set(1, b"k", b"second", number=second.number).status == Status.FAILED
    assert caches.get(2, b"k") == b"first"
    refused = sum(node.machine.counters().get("results_refused", 0) for node in caches.nodes)
    assert refused == 1


def test_computing_that_outlasts_every_lease_is_done_three_times_at_most() -> None:
    """Of callers that come every 0.1 s, with leases of 0.4 s, each computes for 0.6 s if it is told to."""
    machine = make_machine()
    computed = 0
    due: dict[int, int] = {}  # when somebody is done, in tenths, by token
    for tenth in range(60):
        now = tenth / 10.0
        for token in [token for token, at in due.items() if at == tenth]:
            ask(machine, Op(Kind.SET, b"k", value=b"v", number=token), now=now)
        (result,) = ask(machine, LEASE._replace(number=400, wait=0), now=now)
        if result.status == Status.LEASED:
            computed += 1
            due[result.number] = tenth + 6
    assert computed <= 3 and result.value == b"v"


def _deleted(caches: Caches) -> None:
    caches.one(1, Op(Kind.DELETE, b"k"))


def _set_and_deleted(caches: Caches) -> None:
    caches.set(1, b"k", b"fresh")
    caches.one(1, Op(Kind.DELETE, b"k"))


def _cleared(caches: Caches) -> None:
    caches.one(1, Op(Kind.CLEAR, CLEAR_KEYS[partition_of(b"k")]))


def _popped(caches: Caches) -> None:
    """As ``Cache.take`` does, of what is there or not."""
    found = caches.one(1, Op(Kind.GET, b"k"))
    assert caches.one(1, Op(Kind.CAS, b"k", number=found.version)).status == Status.OK


def _set_and_expired(caches: Caches) -> None:
    caches.set(1, b"k", b"short", ttl=50)
    caches.cluster.run(4.0)


def _set_and_evicted(caches: Caches) -> None:
    caches.set(1, b"k", b"fresh")
    for node in caches.nodes:
        caches.space(node.index).store.discard(partition_of(b"k"), b"k")


def _touched(caches: Caches) -> None:
    caches.one(1, Op(Kind.TOUCH, b"k", ttl=60_000))


def _primary_died(caches: Caches) -> None:
    """Who comes after it does not know what was decided before, and by whose clock."""
    caches.cluster.crash(caches.nodes[caches.owners(b"k")[0]])
    caches.cluster.run(5.0)


@pytest.mark.parametrize("before", [None, b"old"], ids=["missing", "early"])
@pytest.mark.parametrize(
    "change",
    [
        _deleted, _set_and_deleted, _cleared, _popped, _set_and_expired, _set_and_evicted, _touched, _primary_died,
    ],
)  # fmt: skip
def test_what_was_computed_before_a_change_is_not_stored_after_it(
    change: Callable[[Caches], None], before: bytes | None
) -> None:
    caches = Caches(4)
    asking = next(index for index in range(4) if index != caches.owners(b"k")[0])
    if before is not None:
        caches.set(0, b"k", before, ttl=60_000)
    elif change is _touched:
        return  # nothing to touch
    token = caches.one(asking, LEASE._replace(number=60_000, early=100_000)).number
    assert token
    change(caches)
    held = caches.get(asking, b"k")
    assert caches.set(asking, b"k", b"stale", number=token).status == Status.FAILED
    assert caches.get(asking, b"k") == held != b"stale"
    late = caches.one(asking, LEASE._replace(early=100_000))
    assert caches.set(asking, b"k", b"right", number=late.number).status == Status.OK


def test_clear_on_its_way_to_a_backup_voids_what_comes_before_it_is_there() -> None:
    """The write would be above the clear, and so outlive it."""
    caches = Caches(2)
    primary = caches.owners(b"k")[0]
    token = caches.one(primary, LEASE).number
    clearing = caches.start(primary, Op(Kind.CLEAR, CLEAR_KEYS[partition_of(b"k")]))
    storing = caches.start(primary, Op(Kind.SET, b"k", value=b"stale", number=token))
    assert not clearing
    caches.cluster.run(0.5)
    assert leased(clearing).status == Status.OK and leased(storing).status == Status.FAILED
    assert caches.get(primary, b"k") is None


def test_what_was_given_out_when_a_write_fails_is_still_good() -> None:
    """A condition that does not hold changes nothing."""
    machine = make_machine()
    (lease,) = ask(machine, LEASE)
    ask(machine, Op(Kind.CAS, b"k", number=12345, value=b"x"), Op(Kind.TOUCH, b"k", ttl=1), Op(Kind.GET, b"k"))
    assert ask(machine, Op(Kind.SET, b"k", value=b"v", number=lease.number))[0].status == Status.OK


def test_holder_wrongly_taken_for_dead_may_store_what_it_computed() -> None:
    caches = Caches(4)
    primary = caches.owners(b"k")[0]
    holding, asking, *_ = [index for index in range(4) if index not in caches.owners(b"k")]
    token = caches.one(holding, LEASE).number
    caches.cluster.suspect([caches.nodes[primary]], caches.nodes[holding], 0.3)
    caches.cluster.run(0.2)
    second = caches.one(asking, LEASE._replace(wait=0))
    assert second.status == Status.LEASED, "nobody waits for the dead"
    caches.cluster.run(2.0)
    assert caches.set(holding, b"k", b"first", number=token).status == Status.OK
    assert caches.set(asking, b"k", b"second", number=second.number).status == Status.FAILED


def test_value_that_runs_out_soon_is_computed_by_one_while_the_others_take_it() -> None:
    caches = Caches(3)
    caches.set(0, b"k", b"old", ttl=5000)
    early = LEASE._replace(early=4900)
    assert caches.one(1, early).status == Status.OK
    caches.cluster.run(1.0)
    first, second = caches.one(1, early), caches.one(2, early)
    assert (first.status, first.value) == (Status.LEASED, b"old")
    assert (second.status, second.value) == (Status.OK, b"old")


def test_caller_that_does_not_wait_is_told_how_long_the_lease_lasts() -> None:
    machine = make_machine()
    ask(machine, LEASE._replace(wait=0))
    (result,) = ask(machine, LEASE._replace(wait=0), now=1.0)
    assert result.status == Status.FAILED and result.ttl == 9000


def test_wait_ends_with_the_callers_own_time() -> None:
    caches = Caches(3)
    caches.one(0, LEASE)
    waiting = caches.start(1, LEASE._replace(wait=500))
    caches.cluster.run(0.7)
    assert leased(waiting).status == Status.FAILED


def test_leases_are_bounded() -> None:
    machine = make_machine(limits=Limits(leases=2))
    for index in range(2):
        ask(machine, LEASE._replace(key=b"%d" % index, number=1000))
    assert ask(machine, LEASE, deadline=0.1) is None
    assert machine.counters()["leases_refused"] == 1
    assert ask(machine, LEASE._replace(key=b"x"), now=1.5)[0].status == Status.LEASED
    assert machine.counters()["leases_dropped"] == 2, "those whose time was over made room"


@pytest.mark.parametrize("kind", [Kind.SET, Kind.DELETE])
def test_a_lease_that_a_write_voids_gives_its_place_back(kind: Kind) -> None:
    machine = make_machine(limits=Limits(leases=1))
    for turn in range(3):
        assert ask(machine, LEASE, now=float(turn))[0].status == Status.LEASED
        ask(machine, Op(kind, b"k", value=b"v"), now=turn + 0.1)
        ask(machine, Op(Kind.DELETE, b"k"), now=turn + 0.2)
    assert ask(machine, LEASE._replace(key=b"other"), now=3.0)[0].status == Status.LEASED
    assert "leases_refused" not in machine.counters() and "leases_dropped" not in machine.counters()


def test_primary_that_moves_sends_who_waits_to_the_next() -> None:
    caches = Caches(4)
    primary = caches.owners(b"k")[0]
    others = [index for index in range(4) if index != primary]
    caches.one(others[0], LEASE)
    waiting = caches.start(others[1], LEASE, timeout=30.0)
    caches.cluster.run(0.2)
    caches.cluster.crash(caches.nodes[primary])
    caches.cluster.run(8.0)
    assert leased(waiting).status == Status.LEASED, "leases are the primary's alone"


def test_lock_is_given_to_who_waits_when_it_is_free() -> None:
    caches = Caches(3)
    lock = Op(Kind.LOCK, LOCK_PREFIX + b"x", ttl=60_000, wait=10_000)
    token = caches.one(0, lock).version
    waiting = [caches.start(index % 3, lock, timeout=20.0) for index in range(5)]
    caches.cluster.run(1.0)
    assert not any(waiting)
    tokens = [token]
    for left in range(5, 0, -1):
        caches.one(0, Op(Kind.UNLOCK, lock.key, number=tokens[-1]))
        caches.cluster.run(0.1)
        granted = [found for found in waiting if found]
        assert len(granted) == 6 - left, "one at a time"
        tokens.append(max(leased(found).version for found in granted))
    assert tokens == sorted(set(tokens))


def test_lock_is_given_to_who_waits_when_it_runs_out() -> None:
    caches = Caches(3)
    lock = Op(Kind.LOCK, LOCK_PREFIX + b"x", ttl=1000, wait=10_000)
    caches.one(0, lock)
    waiting = caches.start(1, lock, timeout=20.0)
    caches.cluster.run(0.8)
    assert not waiting
    caches.cluster.run(0.5)
    assert leased(waiting).status == Status.OK


def test_who_waited_in_vain_is_told_who_holds_the_lock() -> None:
    machine = make_machine(replicas=1)
    ask(machine, Op(Kind.LOCK, b"l", value=b"alice", ttl=60_000), now=1.0)
    assert ask(machine, Op(Kind.LOCK, b"l", value=b"bob", ttl=60_000, wait=100), now=1.0) is None
    machine.handle_timer(1.1001)
    ((_, (found,)),) = machine.completions()
    assert found.status == Status.FAILED and found.value == b"alice"


@pytest.mark.parametrize("kind", [Kind.RENEW, Kind.UNLOCK])
def test_who_has_lost_a_lock_is_told_who_has_it(kind: Kind) -> None:
    machine = make_machine()
    (first,) = ask(machine, Op(Kind.LOCK, b"l", value=b"alice", ttl=100), now=1.0)
    (nobody,) = ask(machine, Op(kind, b"l", number=first.version, ttl=100), now=2.0)
    assert nobody.status == Status.MISSING and nobody.value is None
    ask(machine, Op(Kind.LOCK, b"l", value=b"bob", ttl=60_000), now=2.0)
    (lost,) = ask(machine, Op(kind, b"l", number=first.version, ttl=100), now=2.0)
    assert lost.status == Status.FAILED and lost.value == b"bob"


def test_token_grows_across_a_crash_of_the_primary() -> None:
    caches = Caches(4)
    lock = Op(Kind.LOCK, LOCK_PREFIX + b"x", ttl=500, wait=5000)
    tokens = []
    for _ in range(3):
        primary = caches.owners(lock.key, caches.cluster.running[0].index)[0]
        asking = next(node.index for node in caches.cluster.running if node.index != primary)
        tokens.append(caches.one(asking, lock, timeout=10.0).version)
        caches.cluster.crash(caches.nodes[primary])
        caches.cluster.run(1.0)
        caches.cluster.restart(caches.nodes[primary])
        caches.cluster.run(1.0)
    assert tokens == sorted(set(tokens))


def test_lease_whose_answer_was_lost_is_given_again_to_who_asks_again() -> None:
    machine = make_machine()
    op = LEASE._replace(id=99, wait=0)
    (first,) = ask(machine, op)
    (again,) = ask(machine, op._replace(age=50), now=0.1)
    assert again.status == Status.LEASED and again.number == first.number
    (other,) = ask(machine, op._replace(id=98), now=0.1)
    assert other.status == Status.FAILED


def waiters(caches: Caches) -> int:
    """Return how many operations wait at their primary, as the places say that are taken for them."""
    found = 0
    for node in caches.cluster.running:
        leases = caches.space(node.index).primary.leases
        waiting = sum(len(queue.waiting) for queue in leases._queues.values())
        assert leases._parked == waiting, node.name
        found += waiting
    return found


@pytest.mark.parametrize("op", [LEASE, LOCK], ids=["lease", "lock"])
def test_waiter_wrongly_taken_for_dead_asks_again_and_is_answered(op: Op) -> None:
    caches = Caches(5)
    owners = caches.owners(op.key)
    holding, waiting, _ = [index for index in range(5) if index not in owners]
    held = leased([caches.do(holding, op, timeout=30.0)])
    found = caches.start(waiting, op, timeout=30.0)
    caches.cluster.run(0.1)
    assert waiters(caches) == 1
    caches.cluster.suspect([caches.nodes[owners[0]]], caches.nodes[waiting], 0.3)
    caches.cluster.run(2.0)
    assert not found and waiters(caches) == 1, "it waits again"
    if op is LEASE:
        caches.set(holding, op.key, b"v", number=held.number)
    else:
        caches.one(holding, Op(Kind.UNLOCK, op.key, number=held.version))
    caches.cluster.run(1.0)
    assert leased(found).status == Status.OK
    assert waiters(caches) == 0


def test_lease_that_is_given_back_is_the_next_ones_at_once() -> None:
    caches = Caches(3)
    first = caches.one(0, LEASE)
    found = caches.start(1, LEASE)
    caches.cluster.run(0.1)
    assert not found
    caches.one(0, Op(Kind.RETURN, LEASE.key, number=first.number))
    caches.cluster.run(0.1)
    second = leased(found)
    assert second.status == Status.LEASED and second.number > first.number
    caches.one(2, Op(Kind.RETURN, LEASE.key, number=first.number))
    assert caches.one(2, LEASE._replace(wait=0)).status == Status.FAILED, "it was another's"
    caches.one(1, Op(Kind.RETURN, LEASE.key, number=second.number))
    assert caches.one(2, LEASE._replace(wait=0)).status == Status.LEASED, "nobody waited"


def test_places_of_waiters_are_given_back_however_their_wait_ends() -> None:
    """Whether a value is written, deleted, cleared, the lease lapses, they run out of time, or the primary moves."""
    caches = Caches(4, limits=Limits(waiting=2))
    owners = caches.owners(LEASE.key)
    asking = [index for index in range(4) if index not in owners]

    def written() -> None:
        caches.set(asking[0], LEASE.key, b"v")

    def cleared() -> None:
        caches.one(asking[0], Op(Kind.CLEAR, CLEAR_KEYS[partition_of(LEASE.key)]))

    def deleted() -> None:
        caches.one(asking[0], Op(Kind.DELETE, LEASE.key))

    def moved() -> None:
        caches.cluster.crash(caches.nodes[owners[0]])

    for ends in (written, deleted, cleared, lambda: caches.cluster.run(11.0), moved):
        caches.one(asking[0], Op(Kind.DELETE, LEASE.key))
        caches.one(asking[0], LEASE)
        for number in range(8):  # as many as there is room for
            caches.start(asking[number % 2], LEASE._replace(wait=12_000), timeout=12.0)
        caches.cluster.run(0.1)
        assert waiters(caches) == 8
        ends()
        caches.cluster.run(14.0)
        assert waiters(caches) == 0
    assert all("busy" not in node.machine.counters() for node in caches.cluster.running)


# -- whoever asked is not there any more ----------------------------------------------------


def withdraw(caches: Caches, index: int, op: Op) -> None:
    """As after a Ctrl-C, or when the last answer was lost."""
    caches.cluster.ask(caches.nodes[index], lambda machine, _, now: machine.withdraw("c", op, now), lambda _: None)


ASKS = pytest.mark.parametrize("op", [LEASE._replace(id=7), LOCK._replace(id=7)], ids=["lease", "lock"])


def free(caches: Caches, index: int, op: Op) -> bool:
    result = caches.one(index, op._replace(id=0, wait=0))
    return result.status in (Status.LEASED, Status.OK)


@ASKS
@pytest.mark.parametrize("here", [True, False])
def test_what_nobody_waits_for_any_more_is_the_next_ones_at_once(op: Op, here: bool) -> None:
    caches = Caches(3)
    index = next(index for index in range(3) if (index == caches.owners(op.key)[0]) is here)
    caches.start(index, op)
    withdraw(caches, index, op)  # before the answer is here
    caches.cluster.run(0.1)
    assert free(caches, 0, op)


@ASKS
def test_what_was_given_without_anybody_knowing_is_the_next_ones_at_once(op: Op) -> None:
    caches = Caches(3)
    caches.one(0, op)
    waiting = caches.start(1, op._replace(id=0))
    caches.cluster.run(0.1)
    assert not waiting
    withdraw(caches, 0, op)
    caches.cluster.run(0.1)
    assert leased(waiting).status in (Status.LEASED, Status.OK)
    withdraw(caches, 0, op)  # it is somebody else's by now
    caches.cluster.run(0.1)
    assert not free(caches, 0, op)


@ASKS
def test_who_waits_no_more_is_not_given_it(op: Op) -> None:
    caches = Caches(3)
    first = caches.one(0, op._replace(id=1))
    gone = caches.start(1, op)
    caches.cluster.run(0.1)
    later = caches.start(2, op._replace(id=0))
    caches.cluster.run(0.1)
    withdraw(caches, 1, op)
    caches.cluster.run(0.1)
    assert gone and waiters(caches) == 1
    withdraw(caches, 0, op._replace(id=1))
    caches.cluster.run(0.1)
    assert first.status in (Status.LEASED, Status.OK) and leased(later).status == first.status
    assert waiters(caches) == 0


@ASKS
def test_what_is_given_after_it_was_withdrawn_is_given_back(op: Op) -> None:
    """The request was slower on its way than its withdrawal."""
    caches = Caches(3)
    asking = next(index for index in range(3) if index not in caches.owners(op.key))
    caches.cluster.faults = replace(caches.cluster.faults, delay=0.5)
    caches.start(asking, op)
    caches.cluster.faults = replace(caches.cluster.faults, delay=0.001)
    withdraw(caches, asking, op)
    caches.cluster.run(0.1)
    assert free(caches, asking, op._replace(key=op.key + b"2")), "it works at all"
    caches.cluster.run(1.0)
    assert free(caches, asking, op)
    assert caches.nodes[asking].machine.counters()["grants_given_back"] == 2


def test_withdrawn_operations_leave_nothing() -> None:
    caches = Caches(3)
    for number in range(1, 20):
        caches.start(number % 3, LOCK._replace(id=number))
        withdraw(caches, number % 3, LOCK._replace(id=number))
    caches.cluster.run(1.0)
    for node in caches.nodes:
        client = caches.space(node.index).client
        assert not client.open and not client._asking
    assert waiters(caches) == 0 and free(caches, 0, LOCK)
