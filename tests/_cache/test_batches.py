"""Batches: what their operations are one by one, in fewer messages."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._cache.batches import Tally
from mycorrizal._cache.columns import VERSION, pack_batch, pack_found
from mycorrizal._cache.definition import Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import ANSWER_BYTES, Answer, Message, Reply, Request, decode_request
from mycorrizal._cache.operations import Batch, Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.shard import Pending
from mycorrizal._cache.survey import CLEAR_KEYS as CLEARS
from mycorrizal.exceptions import CacheError, CacheOutcomeUnknown, CacheUnavailable
from tests._cache.harness import Caches, arrived, ask, make_machine, reply_of, run_due, space_in

PEER = b"peerboot"
NAMES = [b"k%d" % index for index in range(8)]
GET, SET, DELETE = Kind.GET, Kind.SET, Kind.DELETE


def ops_of(batch: Batch) -> list[Op]:
    return [batch.op(index) for index in range(len(batch.keys))]


def calls(machine: CacheMachine, kind: Message = Message.OPERATE_MANY) -> list[Any]:
    return [call for call in machine.calls_to_start() if decode_request(arrived(call.payload)).kind == kind]


def do(caches: Caches, index: int, batch: Batch, timeout: float = 3.0) -> list[Result | CacheError]:
    found = begin(caches, index, batch, timeout)
    assert caches.cluster.run_until(lambda: bool(found), timeout + 1.0), "no completion"
    outcomes: list[Result | CacheError] = found[0]
    return outcomes


def begin(caches: Caches, index: int, batch: Batch, timeout: float = 3.0) -> list[Any]:
    found: list[Any] = []
    caches.cluster.ask(
        caches.nodes[index], lambda machine, ticket, now: machine.operate("c", batch, ticket, now + timeout, now),
        found.append,
    )  # fmt: skip
    return found


# -- the same as one by one -----------------------------------------------------------------------

KEYS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)
BATCHES = st.builds(
    lambda kind, keys, values, ttl: Batch(
        kind, keys, values[: len(keys)] if kind == SET else (), ttl if kind == SET else 0
    ),
    st.sampled_from((GET, SET, DELETE)), KEYS,
    st.lists(st.binary(min_size=1, max_size=40), min_size=8, max_size=8), st.sampled_from((0, 0, 500)),
)  # fmt: skip


HOW: tuple[dict[str, Any], ...] = ({}, {"max_entries": 5}, {"near": True}, {"quorum": 2})


def state(machine: CacheMachine) -> Any:
    """Return what is here, but for the ids of operations."""
    space = space_in(machine)
    store = space.store
    entries = [(it.key, it.value, it.version, it.expires, it.visited) for it in store.walk()]
    remembered = [[tuple(one) for one in shard.outcomes.values()] for shard in space.shards]
    numbers = {**space.stats(5.0), "counters": [space.counters.gets, space.counters.hits, space.counters.writes]}
    return sorted(entries), store.graves, store.digests, remembered, numbers, [it.seq for it in space.shards]


@settings(max_examples=100)
@given(st.lists(BATCHES, min_size=1, max_size=6), st.sampled_from(HOW))
def test_a_batch_is_its_operations_one_by_one(batches: list[Batch], how: dict[str, Any]) -> None:
    together, apart = make_machine(**how), make_machine(**how)
    for machine in (together, apart):
        machine.members_changed({}, 0.0)
        if "quorum" not in how:
            ask(machine, *[Op(Kind.LEASE, key, 9 + index, number=900) for index, key in enumerate(NAMES[:3])])
    for turn, batch in enumerate(batches):
        now = 1.0 + turn * 0.4
        together.operate("c", batch, "t", now + 0.2, now)
        for index, op in enumerate(ops_of(batch)):
            apart.operate("c", [op], index, now + 0.2, now)
        for machine in (together, apart):
            run_due(machine, now + 0.3)
        ((_, many),), one_by_one = together.completions(), dict(apart.completions())
        expected = [one_by_one[index][0] for index in range(len(batch.keys))]
        if how.get("quorum"):
            assert {type(one) for one in (*many, *expected)} == {CacheUnavailable}
        else:
            assert many == expected
        assert state(together) == state(apart)
        assert space_in(together).primary.leases.out == space_in(apart).primary.leases.out
    assert together.counters().keys() - {"no_quorum"} >= apart.counters().keys() - {"no_quorum", "operations_retried"}
    assert space_in(together).client.open == space_in(apart).client.open == 0


CHANGES = st.lists(
    st.tuples(st.sampled_from(("crash", "restart", "suspect", "wait")), st.integers(0, 3), st.floats(0.0, 0.1)),
    max_size=3,
)


@settings(max_examples=25)
@given(st.integers(0, 1000), BATCHES, CHANGES)
def test_what_a_batch_says_holds_whatever_members_do_meanwhile(seed: int, batch: Batch, changes: Any) -> None:
    """One member fails at a time, the caller's does not: what was acknowledged is there, what was refused is not."""
    caches = Caches(4, seed=seed)
    cluster = caches.cluster
    for key in NAMES:
        caches.set(0, key, b"before")
    found = begin(caches, 0, batch)
    down = None
    for what, index, pause in changes:
        cluster.run(pause)
        node = caches.nodes[index]
        if what == "crash" and index and down is None:
            down = node
            cluster.crash(node)
        elif what == "restart" and down is not None:
            cluster.run(2.0)
            cluster.restart(down)
            cluster.run(2.0)
            down = None
        elif what == "suspect" and index and down is None:
            cluster.suspect([caches.nodes[0]], node, 0.2)
    assert cluster.run_until(lambda: bool(found), 5.0)
    cluster.run(3.0)
    said: dict[bytes, set[bytes | None]] = {key: {b"before"} for key in NAMES}
    for key, op, outcome in zip(batch.keys, ops_of(batch), found[0], strict=True):
        if isinstance(outcome, Result):
            if batch.kind == GET:
                assert outcome.value == b"before"
            else:
                said[key] = {op.value}
        elif isinstance(outcome, CacheOutcomeUnknown):
            said[key] |= {op.value}
    if not batch.ttl:
        for key, values in said.items():
            assert caches.get(0, key) in values


# -- messages -------------------------------------------------------------------------------------


def with_peer(**settings: Any) -> CacheMachine:
    """Return a machine with a peer that has nothing to hand over, and that is primary of half."""
    machine = make_machine(**settings)
    machine.members_changed({"peer": (PEER, {"c": space_in(machine).definition})}, 0.0)
    for call in machine.calls_to_start():
        asked = decode_request(arrived(call.payload)).body[0]
        machine.answered(call.id, arrived(Reply(Answer.OK, 0, [asked, []])), 0.0)
    machine.calls_to_start()
    return machine


def theirs(machine: CacheMachine, count: int) -> list[bytes]:
    shards, me = space_in(machine).shards, space_in(machine).core.me
    keys = (b"%d" % index for index in range(4 * count + 40))
    return [key for key in keys if shards[partition_of(key)].primary != me][:count]


def test_one_message_to_each_member_whatever_the_partitions() -> None:
    caches = Caches(4, replicas=1)
    keys = [b"%d" % index for index in range(600)]
    machine = caches.nodes[0].machine
    now = caches.cluster.now + caches.nodes[0].offset
    machine.operate("c", Batch(SET, keys, [b"v"] * 600), "t", now + 1.0, now)
    sent = [decode_request(arrived(call.payload)) for call in machine.calls_to_start()]
    assert [request.kind for request in sent] == [Message.OPERATE_MANY] * 3


def test_a_message_is_bounded_by_number_and_bytes() -> None:
    machine = with_peer(replicas=1)
    keys = theirs(machine, 3000)
    machine.operate("c", Batch(SET, keys, [b"v"] * 3000), "t", 3.0, 0.0)
    assert len(calls(machine)) == 3, "1,024 a message"
    machine.operate("c", Batch(SET, keys[:40], [bytes(100_000)] * 40), "t", 3.0, 0.0)
    assert len(calls(machine)) == 14, "256 KiB a message, and what one more value makes of that"


def test_what_is_here_is_done_some_at_a_time_and_after_what_is_sent() -> None:
    machine = with_peer(replicas=1)
    keys = [b"%d" % index for index in range(12_000)]
    machine.operate("c", Batch(SET, keys, [b"v"] * len(keys)), "t", 3.0, 0.0)
    assert calls(machine) and 0 < space_in(machine).store.entries <= Limits().batch_records
    before = -1
    while (due := machine.get_timer()) is not None and due <= 0.0:
        done = space_in(machine).store.entries - before
        assert done <= Limits().batch_records + 1
        before = space_in(machine).store.entries
        machine.handle_timer(0.0)
    assert before > 4000


def test_as_many_are_under_way_as_keys() -> None:
    machine = with_peer(replicas=1)
    keys = theirs(machine, 300)
    machine.operate("c", Batch(DELETE, keys), "t", 3.0, 0.0)
    client = space_in(machine).client
    assert client.open == 300
    run_due(machine, 3.0)
    assert client.open == 0 and client.counted == {(DELETE, False, -1): 300}


# -- what goes wrong ------------------------------------------------------------------------------


def sent(kind: int = SET, count: int = 4, deadline: float = 3.0) -> tuple[CacheMachine, Any, Batch]:
    machine = with_peer(replicas=1)
    keys = theirs(machine, count)
    machine.operate("c", Batch(kind, keys, [b"v"] * count if kind == SET else ()), "t", deadline, 0.0)
    (call,) = calls(machine)
    return machine, call, Batch(kind, keys)


def outcomes_of(machine: CacheMachine) -> list[Any]:
    ((_, outcomes),) = machine.completions()
    return list(outcomes)


def test_what_the_primary_would_not_do_is_tried_again_under_its_id() -> None:
    machine, call, batch = sent()
    statuses = (Status.OK, Status.MOVED, Status.UNSURE, Status.NOT_READY)
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, pack_found([Result(one) for one in statuses])[0])), 0.1)
    assert not machine.completions()
    run_due(machine, 0.6)
    again = [op for each in calls(machine, Message.OPERATE) for op in decode_request(arrived(each.payload)).body[2:]]
    ids = dict(zip(batch.keys, ids_in(call), strict=True))
    assert {op[1]: op[2] for op in again} == {key: ids[key] for key in batch.keys[1:]}
    assert all(op[3] > 0 for op in again), "and an age"


def ids_in(call: Any) -> list[int]:
    raw = decode_request(arrived(call.payload)).body[6]
    return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]


def test_each_write_has_an_id_of_its_own() -> None:
    _, call, _ = sent(count=50)
    assert len({*ids_in(call)} - {0}) == 50


@pytest.mark.parametrize(
    ("indeterminate", "kind", "expected"),
    [
        (True, SET, CacheOutcomeUnknown), (False, SET, CacheUnavailable), (True, GET, CacheUnavailable),
        (True, DELETE, CacheOutcomeUnknown),
    ],
)  # fmt: skip
def test_a_broken_call_at_the_deadline(indeterminate: bool, kind: int, expected: type[CacheError]) -> None:
    machine, call, _ = sent(kind, deadline=0.5)
    machine.failed(call.id, indeterminate, 0.45)
    run_due(machine, 0.5)
    for again in machine.calls_to_start():
        machine.failed(again.id, False, 0.5)
    assert [type(outcome) for outcome in outcomes_of(machine)] == [expected] * 4


@pytest.mark.parametrize(("kind", "expected"), [(SET, CacheOutcomeUnknown), (GET, CacheUnavailable)])
def test_silence_at_the_deadline(kind: int, expected: type[CacheError]) -> None:
    machine, call, _ = sent(kind)
    machine.handle_timer(3.0)
    outcomes = outcomes_of(machine)
    assert [type(outcome) for outcome in outcomes] == [expected] * 4
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, pack_found([Result(0)] * 4)[0])), 3.1)
    assert not machine.completions() and space_in(machine).client.open == 0


GOOD = pack_found([Result(0)] * 4)[0]


@pytest.mark.parametrize("body", [[], [VERSION], pack_found([Result(0)] * 3)[0], [VERSION + 1, *GOOD[1:]]])
def test_an_answer_that_is_none_leaves_writes_unknown(body: list[Any]) -> None:
    machine, call, _ = sent(deadline=0.2)
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, body)), 0.1)
    assert machine.counters()["bad_answers"] == 1
    run_due(machine, 0.2)
    assert {type(outcome) for outcome in outcomes_of(machine)} == {CacheOutcomeUnknown}


def test_what_has_not_begun_here_did_not_happen() -> None:
    machine = make_machine(replicas=1)
    machine.members_changed({}, 0.0)
    keys = [b"%d" % index for index in range(2000)]
    machine.operate("c", Batch(SET, keys, [b"v"] * 2000), "t", 0.0, 0.0)
    run_due(machine, 0.0)
    kinds = {type(outcome) for outcome in outcomes_of(machine)}
    assert kinds == {Result, CacheUnavailable}
    assert space_in(machine).store.entries == Limits().batch_records


def test_a_value_too_large_keeps_nobody_from_the_others() -> None:
    machine = make_machine(max_bytes=2000)
    machine.members_changed({}, 0.0)
    machine.operate("c", Batch(SET, [b"a", b"b", b"c"], [b"v", bytes(3000), b"w"]), "t", 5.0, 0.0)
    assert [outcome.status for outcome in outcomes_of(machine)] == [Status.OK, Status.TOO_LARGE, Status.OK]


def test_no_key_that_is_none() -> None:
    machine = make_machine()
    for key in (b"", bytes(1025)):
        machine.operate_all([("c", Batch(GET, [b"a", key]), "t", 1.0, None)], 0.0)
        ((_, error),) = machine.completions()
        assert str(len(key)) in str(error)


# -- at the primary -------------------------------------------------------------------------------


def ask_for(machine: CacheMachine, batch: Batch) -> Any:
    request = Request(Message.OPERATE_MANY, b"me".ljust(8), PEER, 0, "c", pack_batch(batch, 5000)[0])
    return machine.receive("peer", arrived(request), 1.0)


def test_reads_that_have_no_room_in_the_answer_are_asked_for_alone() -> None:
    machine = make_machine()
    machine.members_changed({}, 0.0)
    for key in NAMES[:5]:
        space_in(machine).store.put(key, bytes(3 << 20), 10, float("inf"))
    reply = reply_of(ask_for(machine, Batch(GET, NAMES[:5])))
    assert list(reply.body[2]) == [0, 0, *[Status.ALONE] * 3] and 2 * (3 << 20) < ANSWER_BYTES
    caches = Caches(2, replicas=1)
    keys = caches.owned_by(1, count=5, by=0)
    for key in keys:
        caches.space(1).store.put(key, bytes(3 << 20), 10, float("inf"))
    assert [it.value for it in do(caches, 0, Batch(GET, keys)) if isinstance(it, Result)] == [bytes(3 << 20)] * 5


def test_a_write_waits_behind_the_one_under_way_on_its_key() -> None:
    caches = Caches(2)
    (key, *others) = caches.owned_by(0, count=5)
    first = caches.start(0, Op(SET, key, value=b"first"))
    assert not first
    second = begin(caches, 0, Batch(SET, [key, *others], [b"second"] * 5))
    third = begin(caches, 0, Batch(DELETE, [others[0], key]))
    assert caches.cluster.run_until(lambda: bool(first and second and third), 2.0)
    assert [it.status for it in third[0]] == [Status.OK, Status.OK]
    assert caches.get(1, key) is None and caches.get(1, others[1]) == b"second"
    assert caches.space(0).primary.flights == 0


def test_a_write_waits_behind_a_clear() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(0)
    clear = next(it for it in CLEARS if partition_of(it) == partition_of(key))
    cleared = caches.start(0, Op(Kind.CLEAR, clear))
    wrote = begin(caches, 0, Batch(SET, [key], [b"after"]))
    behind = caches.space(0).shards[partition_of(key)].behind
    assert behind is not None and [pending.op.key for pending in behind] == [key]
    assert caches.cluster.run_until(lambda: bool(cleared and wrote), 2.0)
    assert caches.get(1, key) == b"after"


def test_writes_are_done_when_all_backups_have_them() -> None:
    caches = Caches(3, replicas=3)
    keys = caches.owned_by(0, count=20)
    for _, outcome in zip(keys, do(caches, 0, Batch(SET, keys, [b"v"] * 20)), strict=True):
        assert isinstance(outcome, Result) and outcome.status == Status.OK
    assert {len(caches.holders(key)) for key in keys} == {3}
    do(caches, 1, Batch(DELETE, keys))
    assert {len(caches.holders(key)) for key in keys} == {0}


def test_a_lease_is_void_once_its_key_was_in_a_batch() -> None:
    for batch in (Batch(SET, [b"k", b"l"], [b"v", b"v"]), Batch(DELETE, [b"k", b"l"])):
        machine = make_machine()
        machine.members_changed({}, 0.0)
        (lease,) = ask(machine, Op(Kind.LEASE, b"k", 7, number=900))
        machine.operate("c", batch, "t", 1.0, 0.0)
        machine.completions()
        (late,) = ask(machine, Op(SET, b"k", value=b"late", number=lease.number))
        assert late.status == Status.FAILED


def test_near_copies_come_of_a_batch_and_go_with_one() -> None:
    caches = Caches(2, replicas=1, near=True)
    keys = caches.owned_by(1, count=8, by=0)
    do(caches, 1, Batch(SET, keys, [b"v"] * 8))
    near = caches.space(0).near
    assert not any(near.tables)
    do(caches, 0, Batch(GET, keys))
    assert sorted(key for table in near.tables for key in table) == sorted(keys)
    do(caches, 0, Batch(SET, keys[:4], [b"w"] * 4))
    assert sorted(key for table in near.tables for key in table) == sorted(keys[4:])
    do(caches, 1, Batch(DELETE, keys[4:]))
    caches.cluster.run(0.1)
    assert not any(near.tables)


@pytest.mark.parametrize("answered", [True, False])
def test_no_caller_reads_a_near_copy_of_before_its_batch(answered: bool) -> None:
    """Whether the answer came or not, and before anybody has said that the copy is old."""
    machine = with_peer(replicas=1, near=True)
    keys, near = theirs(machine, 2), space_in(machine).near
    machine.operate("c", Batch(GET, keys), "t", 1.0, 0.0)
    (call,) = calls(machine)
    found = pack_found([Result(Status.OK, b"v", 5, seq=1)] * 2)[0]
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, found)), 0.1)
    assert sorted(key for table in near.tables for key in table) == sorted(keys)
    machine.operate("c", Batch(SET, keys, [b"w"] * 2), "t", 1.0, 0.2)
    (call,) = calls(machine)
    if answered:
        machine.answered(call.id, arrived(Reply(Answer.OK, 0, pack_found([Result(Status.OK)] * 2)[0])), 0.3)
    else:
        run_due(machine, 1.0)
    assert not any(near.tables)


def test_a_tally_is_complete_once() -> None:
    machine, found = make_machine(), list[list[Result]]()
    machine.members_changed({}, 0.0)
    tally = Tally(3, lambda results, now: found.append(list(results)))
    primary = space_in(machine).primary
    primary.run_many(Batch(GET, NAMES[:3]), space_in(machine).core.me, 9.0, tally, 0.0)
    assert [[it.status for it in results] for results in found] == [[Status.MISSING] * 3]


def test_the_same_batch_twice_is_two_writes_and_a_retry_of_one_is_one() -> None:
    machine = make_machine()
    machine.members_changed({}, 0.0)
    batch = Batch(SET, NAMES, [b"v"] * len(NAMES), 0, [Random(1).getrandbits(60) for _ in NAMES])
    first = reply_of(ask_for(machine, batch))
    assert first.status == Answer.OK
    space = space_in(machine)
    version = space.store.version_of(partition_of(NAMES[0]), NAMES[0])
    found: list[Result] = []
    op = batch.op(0)._replace(age=100)
    space.primary.submit(Pending(op, space.core.me, lambda result, now: found.append(result), 9.0), 1.1)
    assert found == [Result(Status.OK, version=version)], "the outcome that is remembered"
