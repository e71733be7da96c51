"""The machine at its edges: hostile peers, timers, large values, what leaves no trace."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine, Later
from mycorrizal._cache.messages import Answer, Message, Reply, Request, decode_request, encode
from mycorrizal._cache.operations import Kind, Op, Status
from mycorrizal._cache.placement import PARTITIONS, partition_of
from mycorrizal._cache.versions import VERSION_MAX
from mycorrizal._wire.values import Encoded, encode_value
from tests._cache.harness import Bytes, Caches, arrived, ask, make_machine, reply_of, space_in

BOOT = b"me      "
PEER = b"peerboot"


def from_peer(machine: CacheMachine, kind: int, body: list[Any], *, to: bytes = BOOT, clock: int = 0) -> Reply:
    """Have a machine answer a request of a member ``peer``."""
    answer = machine.receive("peer", arrived(Request(kind, to, PEER, clock, "c", body)), 1.0)
    assert not isinstance(answer, Later)
    return reply_of(answer)


def with_peer(**settings: Any) -> CacheMachine:
    machine = make_machine(**settings)
    machine.members_changed({"peer": (PEER, {"c": space_in(machine).definition})}, 0.0)
    machine.calls_to_start()
    return machine


RUBBISH: list[Any] = [
    [], None, 5, [None], [[]], [[[]]], [[[1, 2]]], [b""], [b"\xff" * 31], [b"\xff" * 33], [1 << 62, b""], [-1, b"x", 5],
    [5, 0, [1, b"", 0, 0, None, 0, 0, 0, 0, None]], [5, 0, [1, b"k", -1, 0, None, 0, 0, 0, 0, None]],
    [5, 0, [1, b"k", 0, 0, "text", 0, 0, 0, 0, None]], [5, 0, [99, b"k" * 9999, 0, 0, None, 0, 0, 0, 0, None]],
    [5, 0, 7], [5, 0, []], [5, 0, [1]], [5, "0", [1, b"k"]], [-5, 0, [1, b"k"]], [5], [5, 0],
    [10**400, 0, [1, b"k"]], [5, 10**400, [1, b"k"]], [5, 0, [10**400, b"k"]],
    [[[b"k", b"v", VERSION_MAX + 1, 0, 0, 0, 0]]], [[[b"k", b"v", 1, -1, 0, 0, 0]]], [[[0, 0, 0, 0, 1 << 61]]],
    [[[0, 0, 1 << 63, 0, 0]]], [0, 0, True, True, [0, 0], [], []], [256, 0, True, True, [0, 0, 0], [], []],
    [0, b"\xff" * 32, b"", 0], [0, b"\xff" * 32, 7, 7], ["a", "b", "c", "d"], [{"a": 1}],
]  # fmt: skip


def flat(body: Any) -> list[Any]:
    return body if type(body) is list else [body]


@pytest.mark.parametrize("kind", [*Message, 0, 99, 255])
def test_rubbish_is_answered_and_changes_nothing(kind: int) -> None:
    machine = with_peer()
    for body in RUBBISH:
        if type(body) is list:
            reply = from_peer(machine, kind, body)
            assert reply.status in (Answer.BAD, Answer.OK, Answer.REFUSED)
        machine.notice("peer", Bytes(encode_value([kind, BOOT, PEER, 0, "c", *flat(body)]).pack()), 1.0)
    nameless = Bytes(encode_value([kind, BOOT, PEER, 0, 7]).pack())  # no name of a cache
    assert reply_of(machine.receive("peer", nameless, 1.0)).status == Answer.BAD
    assert space_in(machine).store.entries == 0
    assert machine.counters()["bad_requests"] > 0


def test_rubbish_as_answers_is_a_failed_call() -> None:
    for body in RUBBISH:
        limits = Limits(retry_min=0.001, retry_max=0.001)
        machine = CacheMachine("me", BOOT, rng=Random(1), wall=1.8e9, now=0.0, limits=limits)
        machine.members_changed({"peer": (PEER, {"c": Definition("c")})}, 0.0)
        machine.define(Definition("c"), 0.0)
        machine.operate("c", [Op(Kind.SET, b"%d" % index, value=b"v") for index in range(50)], "t", 9.0, 0.0)
        calls = machine.calls_to_start()
        kinds = {decode_request(arrived(call.payload)).kind for call in calls}
        assert kinds == {Message.OPERATE, Message.CLAIM}
        for call in calls:
            machine.answered(call.id, Bytes(encode_value([0, 0, *flat(body)]).pack()), 0.1)
            machine.answered(call.id, Bytes(encode_value([0, 0]).pack()), 0.1)  # a second answer is ignored
        machine.handle_timer(0.2)
        assert machine.calls_to_start(), "tried again"


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x00\x01\xf6", b"\xff" * 40, encode_value([1, 2]).pack()])
def test_bytes_that_are_no_message(data: bytes) -> None:
    machine = with_peer()
    assert reply_of(machine.receive("peer", Bytes(data), 1.0)).status == Answer.BAD
    machine.notice("peer", Bytes(data), 1.0)
    assert machine.counters()["bad_requests"] == 2


def test_mutated_messages_never_raise() -> None:
    """Real traffic with flipped bytes and cut ends."""
    caught: list[tuple[str, bytes]] = []

    class Spy(CacheMachine):
        def receive(self, sender: str, payload: Any, now: float) -> Encoded | Later:
            caught.append((sender, payload._data))
            return super().receive(sender, payload, now)

    from simulated.cache_campaign import run_cache_campaign

    run_cache_campaign(3, kind="crashes", duration=2.0, machine=Spy)
    rng = Random(9)
    machine = with_peer()
    for _, data in rng.sample(caught, 400):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        machine.receive("peer", Bytes(bytes(changed)), 1.0)
        machine.receive("peer", Bytes(bytes(changed[: rng.randrange(len(changed))])), 1.0)
    assert machine.counters()["bad_requests"] > 300


def test_what_was_meant_for_a_predecessor_is_refused() -> None:
    machine = with_peer()
    assert from_peer(machine, Message.SYNCED, [], to=b"12345678").status == Answer.WRONG_PROCESS


def test_unknown_cache() -> None:
    machine = with_peer()
    answer = machine.receive("peer", arrived(Request(Message.SYNCED, BOOT, PEER, 0, "other", [])), 1.0)
    assert reply_of(answer).status == Answer.UNKNOWN_CACHE


def test_clock_of_the_far_future_is_not_taken() -> None:
    machine = with_peer()
    before = ask(make_machine(), Op(Kind.SET, b"k", value=b"v"))[0].version
    from_peer(machine, Message.SYNCED, [], clock=VERSION_MAX)
    assert machine.counters()["versions_refused"] == 1
    lone = make_machine()
    from_peer(lone, Message.SYNCED, [], clock=VERSION_MAX)
    assert ask(lone, Op(Kind.SET, b"k", value=b"v"))[0].version == before


def test_write_of_the_far_future_is_not_acknowledged() -> None:
    machine = with_peer()
    theirs = next(key for key in (b"%d" % index for index in range(99)) if not serves(machine, key))
    reply = from_peer(machine, Message.REPLICATE, [[[theirs, b"v", VERSION_MAX, 0, 0, 0, 0]]])
    assert reply.body == [[[0, 3]]]
    assert space_in(machine).store.entries == 0


def serves(machine: CacheMachine, key: bytes) -> bool:
    return space_in(machine).shards[partition_of(key)].serving


def test_stranger_may_not_write_copies() -> None:
    machine = make_machine()
    reply = from_peer(machine, Message.REPLICATE, [[[b"k", b"v", 1 << 50, 0, 0, 0, 0]]])
    assert reply.body == [[[0, 1]]]
    assert from_peer(machine, Message.PULL, [[[0, b""]]]).status == Answer.REFUSED
    assert from_peer(machine, Message.PUSH, [[[0, 1, True, True, [0, 0, 0], []]], []]).status == Answer.REFUSED
    assert from_peer(machine, Message.RELEASE, [b"\xff" * 32]).status == Answer.REFUSED
    assert from_peer(machine, Message.CLAIM, [b"\xff" * 32]).body == [[], bytes(32)]
    assert space_in(machine).store.entries == 0


def test_quiet_machine_has_little_to_do() -> None:
    machine = make_machine()
    machine.handle_timer(0.5)
    timer = machine.get_timer()
    assert timer is not None and timer > 30.0, "the audit"


def test_timers_lead_to_rest() -> None:
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v", ttl=2000) for index in range(100)])
    caches.cluster.run(5.0)
    steps = caches.cluster.steps
    caches.cluster.run(20.0)
    assert caches.cluster.steps - steps < 10
    assert all(node.machine.info("c")["entries"] == 0 for node in caches.nodes)


def test_large_values_travel_beside_the_header() -> None:
    caches = Caches(3)
    (key,) = caches.owned_by(1)
    large = bytes(1 << 20)
    node = caches.nodes[0]
    node.machine.operate("c", [Op(Kind.SET, key, value=large)], "t", 1e9, caches.cluster.now + node.offset)
    (call,) = node.machine.calls_to_start()
    assert len(call.payload.header) < 200 and call.payload.buffers[0].obj is large, "not copied"
    caches.set(0, key, large)
    assert caches.get(2, key) == large


def test_definition_and_view_in_any_order() -> None:
    definition = Definition("c")
    machine = CacheMachine("me", BOOT, rng=Random(1), wall=1.8e9, now=0.0)
    machine.members_changed({"peer": (PEER, {"c": definition}), "other": (b"12345678", {})}, 0.0)
    machine.define(definition, 0.0)
    assert [owner.name for owner in space_in(machine).members] == ["me", "peer"]
    assert {call.member.name for call in machine.calls_to_start()} == {"peer"}


def test_calls_to_who_is_gone_end_at_once() -> None:
    machine = with_peer()
    machine.operate("c", [Op(Kind.SET, b"%d" % index, value=b"v") for index in range(40)], "t", 9.0, 1.0)
    assert machine.calls_to_start()
    machine.members_changed({}, 1.1)
    machine.handle_timer(2.0)
    ((_, outcomes),) = machine.completions()
    assert {outcome.status for outcome in outcomes} == {Status.OK}


def test_partitions_are_what_a_bitmap_holds() -> None:
    assert PARTITIONS == 256


def test_encoding_small_and_large_is_understood_alike() -> None:
    reply = Reply(0, 5, [[0, b"x" * 5000, 1, 0, 0, 0]])
    assert reply_of(encode(reply)) == reply_of(encode(reply, 1 << 20)) == reply
