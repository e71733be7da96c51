"""What is remembered of events: the latest, by number and bytes, and what was handed on in that order."""

from __future__ import annotations

from mycorrizal._replica.memory import Memory, Remembered
from mycorrizal._replica.messages import Event, Sender

from .harness import boot

A, B = Sender("a", boot("a")), Sender("b", boot("b"))


def one(number: int, sender: Sender = A, size: int = 10, *, delivered: bool = True) -> Remembered:
    found = Remembered(Event(sender, number, "t", b""), bytes(size))
    found.delivered = delivered
    return found


def numbers(memory: Memory, count: int = 99) -> list[int]:
    return [event.number for event in memory.latest(None, count)]


def test_as_many_as_the_limits_say_and_the_oldest_goes_first() -> None:
    memory = Memory(3, 100)
    for number in range(1, 6):
        memory.add(one(number))
    assert numbers(memory) == [3, 4, 5]
    memory.add(one(6, size=85))
    assert (numbers(memory), memory.bytes) == ([5, 6], 95)


def test_the_order_is_that_in_which_they_were_handed_on() -> None:
    memory, held = Memory(9, 999), one(2, delivered=False)
    memory.add(held)  # it waits for the first
    memory.add(one(1))
    assert numbers(memory) == [1], "what waits was not handed on"
    held.delivered = True
    memory.add(held)
    assert numbers(memory) == [1, 2]
    assert (len(memory), memory.bytes) == (2, 20)


def test_a_sender_of_whom_all_is_forgotten_is_not_remembered() -> None:
    memory = Memory(2, 100)
    memory.add(one(1))
    memory.add(one(1, B))
    memory.add(one(2, B))
    assert not memory.has_any(A)
    assert memory.has_any(B)
    memory.add(one(2))
    assert memory.has_any(A)


def test_the_last_few_of_a_topic() -> None:
    memory = Memory(9, 999)
    for number in range(1, 5):
        memory.add(one(number))
    assert numbers(memory, 2) == [3, 4]
    assert numbers(memory, 0) == []
    assert numbers(memory, -1) == []
    assert memory.latest("other", 9) == []
