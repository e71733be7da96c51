"""Large values are sent out of their writer's memory, which is its own again when the operation is over."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import Answer, Message, Reply, decode_request, parse_operate
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._wire.lent import Lent
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import CacheOutcomeUnknown, CacheUnavailable

from .harness import arrived, make_machine, space_in

PEER = b"peerboot"
SIZE = 1 << 20
ALONE: dict[str, Any] = {}
SET = Op(Kind.SET, b"")


class Writer:
    """A node whose peer is primary of a key, and a value in its memory."""

    def __init__(self, op: Op = SET, deadline: float = 3.0) -> None:
        self.machine = make_machine()
        self.view = {"peer": (PEER, {"c": space_in(self.machine).definition})}
        self.machine.members_changed(self.view, 0.0)
        self.key = next(key for key in (b"%d" % n for n in range(1000)) if not self.machine.leads("c", key))
        self.memory = bytearray(b"a" * SIZE)
        self.lent = Lent(encode_value(self.memory))
        self.packed = self.lent.pack()
        self.machine.calls_to_start()
        self.machine.operate("c", [op._replace(key=self.key)], "ticket", deadline, 0.0, self.lent)

    def calls(self) -> list[Any]:
        """Return the operations that are to be sent."""
        calls = self.machine.calls_to_start()
        return [call for call in calls if decode_request(arrived(call.payload)).kind == Message.OPERATE]

    def call(self) -> Any:
        (call,) = self.calls()
        assert call.payload.lent is self.lent
        return call

    def answer(self, call: Any, status: int, now: float) -> None:
        self.machine.answered(call.id, arrived(Reply(Answer.OK, 0, [list(Result(status, version=5))])), now)

    def outcome(self) -> Any:
        ((ticket, (outcome,)),) = self.machine.completions()
        assert ticket == "ticket"
        return outcome


def sent(call: Any) -> Op:
    (op,) = parse_operate(decode_request(arrived(call.payload)).body)[2]
    return op


def read_by(call: Any, memory: bytearray) -> bool:
    """Return whether a call sends `memory` as it is now."""
    memory[0] ^= 1
    found = memory in call.payload.pack()
    memory[0] ^= 1
    return found


@pytest.mark.parametrize(
    "op",
    [
        SET, Op(Kind.SET, b"", ttl=500, number=7), Op(Kind.CAS, b"", number=-3, expected=b"e" * 5000),
        Op(Kind.ADD, b"", ttl=1),
    ],
)  # fmt: skip
def test_it_is_sent_as_it_lies_there(op: Op) -> None:
    writer = Writer(op)
    call = writer.call()
    got = sent(call)
    assert got == op._replace(key=writer.key, id=got.id, value=writer.packed) and got.id and type(got.value) is bytes
    assert read_by(call, writer.memory)
    writer.answer(call, Status.OK, 0.1)
    assert writer.outcome() == Result(Status.OK, version=5)
    assert not writer.machine.calls_to_cancel()


def test_a_retry_reads_it_again() -> None:
    writer = Writer()
    first = writer.call()
    writer.machine.failed(first.id, True, 0.1)
    writer.machine.handle_timer(0.6)
    second = writer.call()
    assert read_by(second, writer.memory) and sent(second).id == sent(first).id and sent(second).age > 0
    assert not writer.machine.calls_to_cancel()  # it was over


def test_a_small_one_lent_never_shares_a_message() -> None:
    writer = Writer()
    small = Lent(encode_value(bytes(5000)))
    jobs: list[Any] = [("c", [Op(Kind.SET, writer.key)], "lent", 3.0, small)]
    jobs += [("c", [Op(Kind.SET, writer.key, value=b"v")], n, 3.0, None) for n in range(3)]
    writer.calls()
    writer.machine.operate_all(jobs, 0.0)
    calls = writer.calls()
    (lent,) = [call for call in calls if call.payload.lent is small]
    assert sent(lent).value == small.pack()


def test_at_the_deadline_the_call_is_cancelled_before_the_caller_hears_of_it() -> None:
    writer = Writer()
    call = writer.call()
    writer.machine.handle_timer(2.9)
    assert not writer.machine.calls_to_cancel() and not writer.machine.completions()
    writer.machine.handle_timer(3.0)
    assert writer.machine.calls_to_cancel() == [call.id]
    assert isinstance(writer.outcome(), CacheOutcomeUnknown)
    writer.answer(call, Status.OK, 3.1)  # too late for anybody
    assert not writer.machine.completions() and not writer.machine.calls_to_cancel()


def test_it_is_not_read_again_once_a_caller_has_given_up() -> None:
    writer = Writer(deadline=1e9)
    call = writer.call()
    for _ in range(2):
        writer.lent.over = True
        writer.machine.give_up("c", writer.lent, 1.0)
    assert writer.machine.calls_to_cancel() == [call.id]
    assert isinstance(writer.outcome(), CacheOutcomeUnknown)
    writer.machine.handle_timer(100.0)
    assert not writer.calls() and space_in(writer.machine).client.open == 0


def test_giving_up_between_two_attempts() -> None:
    writer = Writer(deadline=1e9)
    writer.machine.failed(writer.call().id, False, 0.1)
    writer.lent.over = True
    writer.machine.give_up("c", writer.lent, 0.2)
    writer.machine.handle_timer(10.0)
    assert isinstance(writer.outcome(), CacheUnavailable) and not writer.calls()
    assert not writer.machine.calls_to_cancel()


def test_giving_up_before_it_has_begun() -> None:
    writer = Writer()
    lent = Lent(encode_value(writer.memory))
    lent.over = True
    writer.machine.give_up("c", lent, 0.0)  # it is not known yet
    writer.calls()
    writer.machine.operate("c", [Op(Kind.SET, writer.key)], "late", 1e9, 0.0, lent)
    ((ticket, (outcome,)),) = writer.machine.completions()
    assert ticket == "late" and isinstance(outcome, CacheUnavailable) and not writer.calls()


def test_it_is_packed_once_the_partition_has_moved_here() -> None:
    writer = Writer()
    call = writer.call()
    writer.machine.members_changed(ALONE, 0.5)  # which ends the call too
    assert writer.machine.calls_to_cancel() == [call.id]
    writer.machine.handle_timer(1.5)
    outcome = writer.outcome()
    assert isinstance(outcome, Result) and outcome.status == Status.OK
    writer.memory[:] = b"b" * SIZE
    assert space_in(writer.machine).store.get(writer.key, 1.6).value == writer.packed  # type: ignore[union-attr]


def test_it_is_not_packed_after_the_caller_has_gone_on() -> None:
    writer = Writer()
    writer.call()
    writer.machine.members_changed(ALONE, 0.5)
    writer.lent.over = True  # give_up is on its way
    writer.memory[:] = b"b" * SIZE
    writer.machine.handle_timer(1.5)
    assert isinstance(writer.outcome(), CacheOutcomeUnknown)
    assert space_in(writer.machine).store.get(writer.key, 1.6) is None


def test_what_was_packed_here_may_move_away_again() -> None:
    writer = Writer(deadline=30.0)
    writer.call()
    elsewhere = {"other": (b"otherboo", {"c": space_in(writer.machine).definition})}
    space = space_in(writer.machine)
    writer.machine.members_changed(ALONE, 0.5)
    space.primary.submit = lambda pending, now: pending.done(Result(Status.NOT_READY), now)  # type: ignore[method-assign]
    writer.machine.handle_timer(1.5)
    writer.memory[:] = b"b" * SIZE  # not read any more: there is a copy
    writer.machine.retire("c", 1.6)
    writer.machine.members_changed(elsewhere, 1.7)
    writer.machine.handle_timer(2.5)
    (call,) = [call for call in writer.calls() if call.payload.size > SIZE]
    assert call.payload.lent is None and sent(call).value == writer.packed


def test_nothing_of_it_is_kept() -> None:
    writer = Writer()
    call = writer.call()
    writer.answer(call, Status.OK, 0.1)
    assert writer.outcome().status == Status.OK
    writer.lent = None  # type: ignore[assignment]
    del call
    writer.memory.append(0)  # raises BufferError while anybody has a view
    assert type(writer.machine) is CacheMachine
