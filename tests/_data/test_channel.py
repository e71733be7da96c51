"""Numbered messages alone: any order of arrival, any loss, any withdrawal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._data.channel import Incoming, Outgoing, OutMessage
from mycorrizal._data.ports import Received
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import MycorrizalError, RemoteProtocolError


class Ticket:
    def __init__(self) -> None:
        self.ended = 0

    def succeed(self, outcome: object) -> None:
        self.ended += 1

    def fail(self, error: MycorrizalError) -> None:
        self.ended += 1


def message(size: int = 10) -> OutMessage:
    return OutMessage(encode_value(bytes(size)), Ticket())


def incoming(room: int = 1 << 20, window: int = 8, window_bytes: int = 1000) -> tuple[Incoming, list[int]]:
    taken: list[int] = []

    def offer(item: tuple[str, Received], size: int) -> bool:
        if len(taken) >= room:
            return False
        taken.append(int(item[0]))
        return True

    return Incoming(window, window_bytes, offer), taken


def put(half: Incoming, number: int, size: int = 10) -> bool:
    return half.put(number, (str(number), Received(bytes(size))), size) if half.expects(number) else False


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)))
def test_any_order_with_skips_and_twice(order: list[int], skipped: set[int]) -> None:
    half, taken = incoming()
    for number in order:
        for _ in range(2):
            half.skip(number) if number in skipped else put(half, number)
    assert taken == [number for number in range(1, 9) if number not in skipped]
    assert half.accepted == 8 and not half.holding and half._bytes == 0


@given(st.lists(st.tuples(st.sampled_from("pswdr"), st.integers(1, 12)), max_size=60))
def test_room_comes_and_goes(steps: list[tuple[str, int]]) -> None:
    taken: list[int] = []
    room = 2

    def offer(item: tuple[str, Received], size: int) -> bool:
        nonlocal room
        if not room:
            return False
        room -= 1
        taken.append(int(item[0]))
        return True

    half = Incoming(8, 1 << 20, offer)
    for kind, number in steps:
        try:
            if kind == "p":
                put(half, number)
            elif kind == "s":
                half.skip(number)
            elif kind == "r":
                room += 1
            elif kind == "w":
                half.drain(1)
            else:
                half.drain()
        except RemoteProtocolError:
            assert number >= half.accepted + 9
        assert half.blocked <= half.holding
        assert half._bytes == sum(entry[1] for entry in half._held.values() if entry is not None)
    assert taken == sorted(set(taken))


def test_window_of_the_receiver() -> None:
    half, _ = incoming(room=0)
    for number in (0, 9):
        with pytest.raises(RemoteProtocolError):
            half.expects(number)
    put(half, 1, 5000)  # one of any size
    with pytest.raises(RemoteProtocolError):
        put(half, 2, 1)
    half, _ = incoming(room=0)
    put(half, 1, 600)
    with pytest.raises(RemoteProtocolError):
        put(half, 2, 600)


def test_let_go_takes_them_again() -> None:
    half, taken = incoming(room=1)
    for number in (1, 2, 4):
        put(half, number)
    assert half.blocked
    half.let_go()
    assert not half.holding and not half.blocked and half._bytes == 0
    taken.clear()
    for number in (1, 2):
        put(half, number)
    assert taken == [2]


def test_window_of_the_sender_counts_what_was_withdrawn_until_it_is_skipped() -> None:
    half = Outgoing(8, 1000)
    messages = [message(600) for _ in range(3)]
    for item in messages:
        half.add(item)
    assert list(half.pop_ready()) == messages[:1]
    assert half.withdraw(messages[0])  # sent: to be skipped
    assert not half.withdraw(messages[0])
    assert list(half.pop_ready()) == []
    assert half.accepted(1)
    assert not half.accepted(1)
    assert list(half.pop_ready()) == messages[1:2]
    assert messages[0].ticket.ended == 0  # type: ignore[attr-defined]
    assert not half.withdraw(messages[2])  # not sent: nothing to skip
    half.purge()
    assert len(half) == 1 and half.open == 1


def test_one_larger_than_the_window_goes_alone() -> None:
    half = Outgoing(8, 1000)
    for size in (5000, 1):
        half.add(message(size))
    assert [item.sequence for item in half.pop_ready()] == [1]
    half.accepted(1)
    assert [item.sequence for item in half.pop_ready()] == [2]


def test_accepted_beyond_what_was_sent() -> None:
    half = Outgoing(8, 1000)
    half.add(message())
    with pytest.raises(RemoteProtocolError):
        half.accepted(1)
    list(half.pop_ready())
    with pytest.raises(RemoteProtocolError):
        half.accepted(2)
    half.trim(1 << 60)  # what a handshake claims is only believed as far as it can be
    assert len(half) == half.open == half._bytes == 0


def test_give_up_and_restart() -> None:
    half = Outgoing(2, 1000)
    messages = [message() for _ in range(4)]
    for item in messages:
        half.add(item)
    list(half.pop_ready())
    assert half.take_all() == messages
    assert half.open == 0 and len(half) == 2  # two numbers have to be skipped
    assert [item.value for item in half.unaccepted()] == [None, None]
    later = message()
    half.add(later)
    assert half.restart() == []
    assert list(half.pop_ready()) == [later] and later.sequence == 1
    assert half.restart() == [later]
    assert half.open == len(half) == half._bytes == 0


def test_large_windows_are_not_slow() -> None:
    half = Outgoing(1 << 16, 1 << 40)
    encoded = encode_value(b"")
    for _ in range(1 << 16):
        half.add(OutMessage(encoded, Ticket()))
    assert sum(1 for _ in half.pop_ready()) == 1 << 16
    for number in range(1, (1 << 16) + 1):
        half.accepted(number)
    assert len(half) == 0
