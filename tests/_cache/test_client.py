"""A node's callers: to the primary, again where nothing happened, until the deadline; one completion each."""

from __future__ import annotations

from typing import Any

from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import Answer, Message, Reply, decode_request
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal.exceptions import CacheOutcomeUnknown, CacheUnavailable
from tests._cache.harness import arrived, make_machine, run_due, space_in

PEER = b"peerboot"


def remote(kind: Kind = Kind.SET, deadline: float = 3.0) -> tuple[CacheMachine, Any, int]:
    """Return a machine, the call it made for an operation on a key of ``peer``, and the operation's id."""
    machine = make_machine()
    machine.members_changed({"peer": (PEER, {"c": space_in(machine).definition})}, 0.0)
    machine.calls_to_start()
    me = space_in(machine).core.me
    key = next(
        key
        for key in (b"%d" % index for index in range(1000))
        if space_in(machine).shards[partition_of(key)].primary != me
    )
    machine.operate("c", [Op(kind, key, value=b"v")], "ticket", deadline, 0.0)
    (call,) = operations(machine)
    return machine, call, decode_request(arrived(call.payload)).body[2][2]


def operations(machine: CacheMachine) -> list[Any]:
    calls = machine.calls_to_start()
    return [call for call in calls if decode_request(arrived(call.payload)).kind == Message.OPERATE]


def answer(machine: CacheMachine, call: Any, status: int, now: float) -> None:
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, [list(Result(status, version=5))])), now)


def test_answer_completes_once() -> None:
    machine, call, _ = remote()
    answer(machine, call, Status.OK, 0.1)
    answer(machine, call, Status.OK, 0.1)
    machine.handle_timer(5.0)
    assert machine.completions() == [("ticket", [Result(Status.OK, version=5)])]


def test_primary_that_moved_is_asked_again_with_the_same_id() -> None:
    machine, call, ident = remote()
    for status in (Status.MOVED, Status.NOT_READY, Status.BUSY, Status.UNSURE):
        answer(machine, call, status, 0.1)
        assert not machine.completions()
        machine.handle_timer(0.6)
        (call,) = operations(machine)
        op = decode_request(arrived(call.payload)).body[2]
        assert op[2] == ident and op[3] > 0, "same id, and an age"


def test_broken_call_is_tried_again_and_unknown_at_the_deadline() -> None:
    machine, call, _ = remote()
    machine.failed(call.id, True, 0.1)
    machine.handle_timer(0.6)
    (again,) = operations(machine)
    machine.failed(again.id, False, 0.7)
    machine.handle_timer(3.0)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheOutcomeUnknown) and outcome.indeterminate


def test_call_that_was_never_read_is_unavailable_at_the_deadline() -> None:
    machine, call, _ = remote()
    machine.failed(call.id, False, 0.1)
    machine.handle_timer(3.0)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheUnavailable) and not outcome.indeterminate and outcome.retriable


def test_read_is_never_of_unknown_outcome() -> None:
    machine, call, _ = remote(Kind.GET)
    machine.failed(call.id, True, 0.1)
    machine.handle_timer(3.0)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheUnavailable)


def test_silence_is_unknown_at_the_deadline() -> None:
    machine, _, _ = remote()
    machine.handle_timer(3.0)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheOutcomeUnknown) and outcome.node == "peer"


def test_forgotten_retry_is_unknown() -> None:
    machine, call, _ = remote()
    answer(machine, call, Status.FORGOTTEN, 0.1)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheOutcomeUnknown)


def test_wrong_number_of_results_is_no_answer() -> None:
    machine, call, _ = remote()
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, [])), 0.1)
    machine.handle_timer(3.0)
    ((_, (outcome,)),) = machine.completions()
    assert isinstance(outcome, CacheOutcomeUnknown)


def test_many_for_others_leave_before_all_that_is_here_is_done() -> None:
    machine = make_machine(replicas=1)
    machine.members_changed({"peer": (PEER, {"c": space_in(machine).definition})}, 0.0)
    for call in machine.calls_to_start():  # the peer has nothing to hand over
        asked = decode_request(arrived(call.payload)).body[0]
        machine.answered(call.id, arrived(Reply(Answer.OK, 0, [asked, []])), 0.0)
    serving = [shard.partition for shard in space_in(machine).shards if shard.serving]
    keys = [b"%d" % index for index in range(4000)]
    here = [key for key in keys if partition_of(key) in serving]
    machine.operate("c", [Op(Kind.SET, key, value=b"v") for key in keys], "ticket", 3.0, 0.0)
    assert operations(machine), "sent at the end of this turn"
    assert 0 < space_in(machine).store.entries < len(here) / 2
    run_due(machine, 0.0)
    assert space_in(machine).store.entries == len(here)


def test_many_go_together_to_each_primary() -> None:
    machine = make_machine()
    machine.members_changed({"peer": (PEER, {"c": space_in(machine).definition})}, 0.0)
    machine.calls_to_start()
    machine.operate("c", [Op(Kind.SET, b"%d" % index, value=b"v") for index in range(3000)], "ticket", 3.0, 0.0)
    calls = operations(machine)
    assert len(calls) == 2, "1,500 of them, 1,024 a message"
    assert space_in(machine).client.open == 3000
    machine.handle_timer(3.0)
    assert space_in(machine).client.open == 0 and len(machine.completions()) == 1
