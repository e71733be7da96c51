"""Operations of several callers in one message: which share, and that none makes the others wait."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from mycorrizal._cache.core import Call
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.machine import CacheMachine, Later
from mycorrizal._cache.messages import Message, decode_request, parse_operate
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal.exceptions import ConfigError

from .harness import arrived, space_in

NOW = 100.0


class Two:
    """Two machines whose messages are carried when the test says so; `held` kinds are not."""

    def __init__(self, replicas: int) -> None:
        cache = Definition("c", replicas=replicas)
        names = ("here", "there")
        self.machines = {
            name: CacheMachine(name, name.encode().ljust(8), rng=Random(name), wall=1.8e9, now=0.0) for name in names
        }
        self.waiting: dict[Later, tuple[CacheMachine, int]] = {}
        self.done: dict[Any, Any] = {}
        self.held: list[tuple[str, Call]] = []
        self.hold: set[int] = set()
        self.carried: list[Call] = []
        view = {name: (name.encode().ljust(8), {"c": cache}) for name in names}
        for machine in self.machines.values():
            machine.define(cache, 0.0)
        for machine in self.machines.values():
            machine.members_changed(view, 0.0)
        for step in range(1, 600):
            for machine in self.machines.values():
                machine.handle_timer(step / 10)
            self.carry(step / 10)
        self.carried.clear()

    @property
    def here(self) -> CacheMachine:
        return self.machines["here"]

    def begin(self, *jobs: tuple[str, list[Op]]) -> None:
        self.here.operate_all([("c", ops, ticket, NOW + 5.0, None) for ticket, ops in jobs], NOW)
        self.carry(NOW)

    def carry(self, now: float) -> None:
        busy = True
        while busy:
            busy = False
            for name, machine in self.machines.items():
                for call in machine.calls_to_start():
                    busy = True
                    self.take(name, call, now)
                for later, answer in machine.replies_to_send():
                    busy = True
                    asker, number = self.waiting.pop(later)
                    asker.answered(number, arrived(answer), now)
                self.done.update(machine.completions())

    def take(self, name: str, call: Call, now: float) -> None:
        if decode_request(arrived(call.payload)).kind in self.hold:
            self.held.append((name, call))
            return
        self.carried.append(call)
        answer = self.machines[call.member.name].receive(name, arrived(call.payload), now)
        if isinstance(answer, Later):
            self.waiting[answer] = self.machines[name], call.id
        else:
            self.machines[name].answered(call.id, arrived(answer), now)

    def release(self) -> None:
        self.hold.clear()
        held, self.held = self.held, []
        for name, call in held:
            self.take(name, call, NOW)
        self.carry(NOW)

    def asked(self) -> list[list[bytes]]:
        """Return the keys of the operations in each message that went from here to there."""
        requests = [decode_request(arrived(call.payload)) for call in self.carried if call.member.name == "there"]
        return [[op.key for op in parse_operate(r.body)[2]] for r in requests if r.kind == Message.OPERATE]

    def keys(self) -> Iterator[bytes]:
        """Yield keys whose primary is there."""
        space, number = space_in(self.here), 0
        while True:
            number += 1
            owner = space.shards[partition_of(b"%d" % number)].primary
            if owner is not None and owner.name == "there":
                yield b"%d" % number


def wrote(key: bytes, value: bytes = b"v") -> list[Op]:
    return [Op(Kind.SET, key, value=value)]


def result(found: Any) -> Result:
    (outcome,) = found
    assert isinstance(outcome, Result), outcome
    return outcome


@pytest.mark.parametrize("replicas", [1, 2])
def test_callers_of_one_turn_share_a_message(replicas: int) -> None:
    two = Two(replicas)
    keys = two.keys()
    mine = [next(keys) for _ in range(8)]
    two.begin(*[(f"write {key!r}", wrote(key)) for key in mine])
    two.begin(*[(f"read {key!r}", [Op(Kind.GET, key)]) for key in mine])
    assert two.asked() == [mine, mine]
    assert all(result(two.done[f"read {key!r}"]).value == b"v" for key in mine)


def test_the_many_operations_of_one_caller_have_their_own() -> None:
    two = Two(1)
    keys = two.keys()
    one, many = next(keys), [next(keys) for _ in range(5)]
    two.begin(("many", [op for key in many for op in wrote(key)]), ("one", wrote(one)))
    assert sorted(two.asked()) == sorted([[one], many])
    assert len(two.done["many"]) == 5 and result(two.done["one"]).status == Status.OK


def test_two_writes_on_one_key_do_not_share() -> None:
    two = Two(2)
    keys = two.keys()
    hot, cold = next(keys), next(keys)
    jobs = [(f"hot {n}", [Op(Kind.INCR, hot, number=1)]) for n in range(3)]
    two.begin(*jobs, ("cold", wrote(cold)))
    assert sorted(two.asked()) == sorted([[hot, cold], [hot], [hot]])
    assert sorted(result(two.done[name]).number for name, _ in jobs) == [1, 2, 3]


def test_a_write_that_has_to_wait_does_not_keep_others_waiting() -> None:
    two = Two(2)
    keys = two.keys()
    slow, read, other = next(keys), next(keys), next(keys)
    two.hold.add(Message.REPLICATE)
    two.begin(("first", wrote(slow, b"1")))
    two.begin(("second", wrote(slow, b"2")), ("read", [Op(Kind.GET, read)]), ("add", [Op(Kind.ADD, other, value=b"3")]))
    assert two.asked() == [[slow], [slow, other], [read]]
    assert result(two.done["read"]).status == Status.MISSING
    assert "first" not in two.done and "second" not in two.done
    two.release()
    assert two.asked()[3:] == [[slow]]  # asked again, alone: it did not wait where the other was answered
    assert [result(two.done[name]).status for name in ("first", "second", "add")] == [Status.OK] * 3
    two.begin(("what", [Op(Kind.GET, slow)]))
    assert result(two.done["what"]).value == b"2"


def test_a_large_value_travels_alone() -> None:
    two = Two(1)
    keys = two.keys()
    large, small = next(keys), next(keys)
    two.begin(("in", wrote(large, bytes(100_000))), ("small", wrote(small)))
    assert sorted(two.asked()) == sorted([[large], [small]])
    two.carried.clear()
    two.begin(("out", [Op(Kind.GET, large)]), ("read", [Op(Kind.GET, small)]))
    assert two.asked() == [[large, small], [large]]
    assert result(two.done["out"]).value == bytes(100_000) and result(two.done["read"]).value == b"v"


def test_one_that_cannot_be_begun_leaves_the_others_alone() -> None:
    two = Two(1)
    key = next(two.keys())
    two.begin(("bad", wrote(b"k" * 5000)), ("good", wrote(key)))
    assert isinstance(two.done["bad"], ConfigError)
    assert result(two.done["good"]).status == Status.OK
