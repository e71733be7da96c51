"""Who waits for which answer: the first ends the wait, late and foreign ones do nothing."""

from __future__ import annotations

import pytest

from mycorrizal._swim.acks import Acks
from mycorrizal._swim.timers import Timers


def waiting() -> tuple[Acks, Timers, list[object]]:
    timers = Timers()
    acks, said = Acks(timers), list[object]()
    acks.expect(
        7, 1.0, lambda payload, now: said.append((payload, now)), lambda now: said.append(now),
        lambda: said.append("nack"),
    )  # fmt: skip
    return acks, timers, said


def test_the_first_ack_ends_the_wait() -> None:
    acks, timers, said = waiting()
    acks.nack(7)
    acks.nack(8)
    assert acks.ack(7, b"x", 0.5)
    assert not acks.ack(7, b"x", 0.6)
    assert not acks.ack(8, b"x", 0.6)
    acks.nack(7)
    timers.fire(2.0)
    assert said == ["nack", (b"x", 0.5)]
    assert len(acks) == 0


def test_the_deadline_ends_it_too() -> None:
    acks, timers, said = waiting()
    timers.fire(1.0)
    assert said == [1.0]
    assert not acks.ack(7, b"x", 1.1)


def test_forgotten_and_replaced() -> None:
    acks, timers, said = waiting()
    acks.expect(7, 2.0, lambda payload, now: said.append("new"), lambda now: said.append("over"))
    acks.nack(7)  # nobody counts them
    acks.forget(99)
    timers.fire(1.5)
    assert said == []
    acks.forget(7)
    timers.fire(3.0)
    assert said == []
    assert len(acks) == 0
    assert not acks.full


def test_it_is_full_at_the_bound_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._swim.acks._WAITING_MAX", 2)
    acks = Acks(Timers())
    full = []
    for number in range(3):
        full.append(acks.full)
        acks.expect(number, 1.0, lambda payload, now: None, lambda now: None)
    assert full == [False, False, True]
    acks.forget(0)
    acks.ack(1, b"", 0.0)
    assert not acks.full
