"""What is sent on one stream, and the memory for what arrives."""

from __future__ import annotations

import random

import pytest

from mycorrizal._data.flows import Budget, InValue, Outflow, feed
from mycorrizal._data.ports import ON_HOST
from mycorrizal._wire.frames import BULK_INITIAL, Frame
from mycorrizal._wire.lent import Lent
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import RemoteProtocolError

from .harness import World, packed
from .raw import RawConn


def view(size: int) -> memoryview:
    return memoryview(bytes(size))


def test_flows_take_turns_and_wait_for_grants() -> None:
    conn = RawConn(World(), dialled=True)
    flows = {n: Outflow(n, [view(10), view(1 << 20)], fin=True) for n in (2, 6)}
    assert feed(conn, flows, 300 << 10) == []
    assert sum(map(len, conn.sent.values())) == 300 << 10
    assert min(map(len, conn.sent.values())) > 0
    feed(conn, flows, 1 << 30)
    assert [len(data) for data in conn.sent.values()] == [BULK_INITIAL] * 2
    flows[2].limit = 1 << 62
    (finished,) = feed(conn, flows, 1 << 30)
    assert finished.stream == 2 and finished.finished and conn.fins == {2} and list(flows) == [6]
    assert len(conn.sent[2]) == (1 << 20) + 10


def test_an_end_without_bytes() -> None:
    conn = RawConn(World(), dialled=True)
    flow = Outflow(4, [], fin=False)
    assert flow.idle
    flow.fin = True
    assert feed(conn, {4: flow}, 1) == [flow]
    assert conn.fins == {4}


def test_value_in_pieces() -> None:
    data = packed(bytes(1 << 20))
    value = InValue(Frame.MESSAGE, b"", len(data), 0.0)
    assert value.feed(data[:BULK_INITIAL], False, 1.0) is None
    assert not value.expected and value.last == 1.0
    with pytest.raises(RemoteProtocolError):
        value.feed(b"x", False, 2.0)
    value = InValue(Frame.MESSAGE, b"", len(data), 0.0)
    value.grant(5.0)
    assert value.expected and value.since == 5.0
    received = value.feed(data, True, 6.0)
    assert received is not None and received.size > 1 << 20
    value = InValue(Frame.MESSAGE, b"", len(data), 0.0)
    value.grant(5.0)
    with pytest.raises(RemoteProtocolError):
        value.feed(data[:-1], True, 6.0)


@pytest.mark.parametrize("seed", range(50))
def test_budget_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    budget = Budget(1000)
    granted: list[InValue] = []
    waiting: list[InValue] = []

    def held(owner: object) -> int:
        return sum(value.size for value in granted if value.owner == owner)

    def held_at(host: str) -> int:
        return sum(value.size for value in granted if value.host == host)

    for _ in range(300):
        if rng.random() < 0.5:
            value = InValue(Frame.MESSAGE, b"", rng.choice((10, 400, 999, 5000)), 0.0)

            def grant(value: InValue = value) -> None:
                assert next(other for other in waiting if other.owner == value.owner) is value, "not in order"
                waiting.remove(value)
                assert not held(value.owner) or held(value.owner) + value.size <= 500
                total = sum(other.size for other in granted) + value.size
                spare = 1000 - total + value.size - (62 if held_at(value.host) else 0)
                few = not held(value.owner) and value.size <= spare // 4
                assert not granted or total <= 875 or few
                granted.append(value)

            value.on_grant = grant
            waiting.append(value)
            owner = rng.randrange(3)
            budget.ask(value, owner, "ab"[owner // 2])
        elif granted and rng.random() < 0.7:
            budget.drop(granted.pop(rng.randrange(len(granted))))
        elif waiting:
            budget.drop(waiting.pop(rng.randrange(len(waiting))))
        assert budget.used == sum(value.size for value in granted)
        assert budget.used <= 1000 or len(granted) == 1
        assert budget.wanted == bool(waiting)
    while waiting:
        budget.drop(waiting.pop())
    while granted:
        budget.drop(granted.pop())
    assert budget.used == 0 and not budget.wanted


def wants(budget: Budget, owner: str, size: int, host: str = "10.0.0.1") -> InValue:
    value = InValue(Frame.MESSAGE, b"", size, 0.0)
    budget.ask(value, owner, host)
    return value


def test_one_under_several_names_does_not_get_all_memory() -> None:
    budget = Budget(1 << 30)
    for number in range(12):
        for size in (1 << 29, 1 << 28, 1 << 26, 1 << 24):  # each name takes what it can get
            wants(budget, f"name {number}", size)
    assert budget.wanted
    assert all(wants(budget, honest, 1 << 20).granted for honest in ("a", "b", "c"))


def test_one_of_any_number_of_names_leaves_some_to_other_addresses() -> None:
    budget = Budget(1 << 30)
    for power in range(29, 17, -1):
        for number in range(100):
            wants(budget, f"name {power}.{number}", 1 << power)
    assert budget.wanted
    assert not wants(budget, "neighbour", 1 << 18).granted, "a name more at that address"
    assert all(wants(budget, f"at {number}", 1 << 20, f"10.0.1.{number}").granted for number in range(10))


def test_those_of_the_address_that_holds_least_come_first() -> None:
    budget = Budget(1000)
    full, other = wants(budget, "a", 450), wants(budget, "b", 420)
    fresh, honest = wants(budget, "c", 400), wants(budget, "d", 300, "10.0.0.2")
    assert full.granted and other.granted and not fresh.granted and not honest.granted
    budget.drop(full)
    assert honest.granted and not fresh.granted, "who waits longer has a new name, at an address that holds more"


def test_who_has_his_share_holds_up_nobody() -> None:
    budget = Budget(1000)
    first = wants(budget, "slow", 500)
    more, greedy = wants(budget, "slow", 100), wants(budget, "slow too", 500)
    assert first.granted and not more.granted and not greedy.granted
    assert wants(budget, "honest", 100).granted
    waits, small = wants(budget, "large", 450), wants(budget, "small", 20)
    assert small.granted and not waits.granted
    assert not wants(budget, "larger", 200).granted, "it passed by who waits for longer"
    budget.drop(first)
    assert greedy.granted and more.granted
    budget = Budget(1000)
    assert wants(budget, "a", 400).granted and wants(budget, "b", 420).granted
    assert not wants(budget, "a", 300).granted and wants(budget, "b", 50).granted


def test_those_who_hold_least_come_first() -> None:
    budget = Budget(1000)
    full = wants(budget, "a", 480)
    assert wants(budget, "b", 300).granted
    second, third = wants(budget, "b", 150), wants(budget, "c", 450)
    assert not second.granted and not third.granted
    budget.drop(full)
    assert third.granted and not second.granted


class TakenBack(Lent):
    """Its caller takes it back while a piece is copied."""

    __slots__ = ("looks",)

    def __init__(self) -> None:
        self.looks = iter([False, True])

    @property
    def over(self) -> bool:  # type: ignore[override]
        return next(self.looks, True)


def test_lent_memory_is_not_sent_once_it_was_taken_back() -> None:
    conn = RawConn(World(), dialled=True)
    lent = Lent(encode_value(bytearray(1 << 20)))
    flow = Outflow(2, [view(1 << 20)], fin=True, lent=lent)
    flows = {2: flow}
    feed(conn, flows, 100 << 10)
    before = len(conn.sent[2])
    assert before == 100 << 10
    lent.over = True
    flow.limit = 1 << 62
    flows[6] = Outflow(6, [view(100)], fin=True)
    assert flow.idle and [flow.stream for flow in feed(conn, flows, 1 << 30)] == [6]
    assert len(conn.sent[2]) == before and 2 not in conn.fins and not flow.finished


def test_a_piece_that_was_copied_too_late_is_thrown_away() -> None:
    conn = RawConn(World(), dialled=True)
    flow = Outflow(2, [view(10)], fin=True, lent=TakenBack())
    assert feed(conn, {2: flow}, 1 << 30) == []
    assert 2 not in conn.sent and 2 not in conn.fins and not flow.finished


def test_lent_memory_may_change_as_soon_as_it_was_given_to_the_connection() -> None:
    given: list[bytes | memoryview] = []

    class Keeps(RawConn):
        def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
            given.append(data)

    memory = bytearray(b"a" * 1000)
    lent = Lent(encode_value(memory))
    feed(Keeps(World(), dialled=True), {2: Outflow(2, [memoryview(memory)], fin=True, lent=lent)}, 1 << 30)
    memory[:] = b"b" * 1000
    assert given == [b"a" * 1000]


def by_host() -> RawConn:
    conn = RawConn(World(), dialled=True)
    conn.way = ON_HOST
    return conn


def test_where_a_send_reads_at_once_lent_memory_is_not_copied_and_the_end_comes_after_a_last_look() -> None:
    given: list[tuple[bool, bool]] = []

    class Reads(RawConn):
        way = ON_HOST

        def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
            given.append((isinstance(data, memoryview), fin))

    conn = Reads(World(), dialled=True)
    conn.way = ON_HOST
    memory = bytearray(1000)
    flow = Outflow(2, [memoryview(memory)], fin=True, lent=Lent(encode_value(memory)))
    assert feed(conn, {2: flow}, 1 << 30) == [flow] and flow.finished
    assert given == [(True, False), (False, True)]


def test_what_was_taken_back_while_it_was_read_never_becomes_whole() -> None:
    conn = by_host()
    lent = Lent(encode_value(bytearray(1000)))
    flow = Outflow(2, [view(1000)], fin=True, lent=lent)
    assert feed(conn, {2: flow}, 1000) == [] and not flow.finished
    lent.over = True
    assert feed(conn, {2: flow}, 1 << 30) == []
    assert len(conn.sent[2]) == 1000 and not conn.fins and not flow.finished


def test_a_connection_that_is_full_is_given_nothing_more() -> None:
    class Full(RawConn):
        @property
        def full(self) -> bool:  # type: ignore[override]
            return sum(map(len, self.sent.values())) >= 300 << 10

    conn = Full(World(), dialled=True)
    flows = {n: Outflow(n, [view(1 << 20)], fin=True) for n in (2, 6)}
    feed(conn, flows, 1 << 30)
    assert sum(map(len, conn.sent.values())) == 512 << 10
    feed(conn, flows, 1 << 30)
    assert sum(map(len, conn.sent.values())) == 512 << 10


def test_a_value_that_is_written_where_it_stays() -> None:
    data = packed(bytes(1 << 20))
    value = InValue(Frame.MESSAGE, b"", len(data), 0.0)
    assert value.room() is None
    value.feed(data[:1000], False, 1.0)
    room = value.room()
    assert room is not None and len(room) == BULK_INITIAL - 1000, "no more than granted"
    room.release()
    assert value.filled(BULK_INITIAL - 1000, False, 2.0) is None and value.last == 2.0
    assert value.room() is None
    value.grant(3.0)
    received = value.filled(len(data) - BULK_INITIAL, True, 4.0)
    assert received is not None and received.size == (1 << 20) + 4
    with pytest.raises(RemoteProtocolError):
        InValue(Frame.MESSAGE, b"", len(data), 0.0)._ended()
