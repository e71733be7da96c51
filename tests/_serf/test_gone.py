"""Intents about those who leave, are gone, or are unknown: which counts, what is passed on, and for how long."""

from __future__ import annotations

import pytest

from mycorrizal._serf.machine import DEPARTED_SECONDS, INTENT_SECONDS, Member, SerfMachine, SerfStatus
from mycorrizal._serf.messages import JoinIntent, LeaveIntent, State, decode, decode_state, encode
from mycorrizal.exceptions import ConfigError


def hear(machine: SerfMachine, *messages: LeaveIntent | JoinIntent, now: float = 0.0) -> list[object]:
    """Take messages; return what is passed on."""
    for message in messages:
        machine.receive_message(encode(message), now)
    return [decode(out.message) for out in machine.messages_to_send()]


def with_member(status: SerfStatus, name: str = "a") -> SerfMachine:
    machine = SerfMachine("py")
    machine.node_joined(name, 1.0)
    if status in (SerfStatus.LEAVING, SerfStatus.LEFT):
        hear(machine, LeaveIntent(5, name))
    if status in (SerfStatus.LEFT, SerfStatus.FAILED):
        machine.node_left(name, 2.0)
    assert machine.status(name) is status
    return machine


@pytest.mark.parametrize("order", [(5, 9), (9, 5)])
def test_of_two_leaves_and_an_older_join_the_leave_holds(order: tuple[int, int]) -> None:
    machine = with_member(SerfStatus.ALIVE)
    hear(machine, *(LeaveIntent(time, "a") for time in order), JoinIntent(7, "a"))
    assert machine.status("a") is SerfStatus.LEAVING


@pytest.mark.parametrize("status", [SerfStatus.LEAVING, SerfStatus.LEFT])
def test_push_pulls_about_who_left_do_not_count_on(status: SerfStatus) -> None:
    machine, other = with_member(status), with_member(SerfStatus.ALIVE)
    for _ in range(3):
        other.merge_state(decode_state(machine.local_state()), False, 0.0)
        machine.merge_state(decode_state(other.local_state()), False, 0.0)
    assert [{m.name: m.ltime for m in one.members()}["a"] for one in (machine, other)] == [5, 5]
    told = State(20, (("a", 9),), ("a",))  # by Serf
    machine.merge_state(told, False, 0.0)
    machine.merge_state(told, False, 0.0)
    assert {m.name: m.ltime for m in machine.members()}["a"] == 9
    machine.force_leave("a", False, 0.0)
    assert {m.name: m.ltime for m in machine.members()}["a"] == 20


@pytest.mark.parametrize("status", list(SerfStatus))
def test_a_newer_leave_is_recorded_and_passed_on_once(status: SerfStatus) -> None:
    machine = with_member(status)
    newer = LeaveIntent(9, "a")
    assert hear(machine, newer) == [newer]
    assert hear(machine, newer) == hear(machine, LeaveIntent(8, "a")) == hear(machine, JoinIntent(9, "a")) == []
    gone = status in (SerfStatus.LEFT, SerfStatus.FAILED)
    expected = SerfStatus.LEFT if gone else SerfStatus.LEAVING
    assert {m.name: m for m in machine.members()}["a"] == Member("a", expected, 9, 2.0 if gone else 1.0)


@pytest.mark.parametrize("status", [SerfStatus.ALIVE, SerfStatus.LEAVING])
def test_prune_forgets_who_leaves_once_it_is_gone(status: SerfStatus) -> None:
    machine = with_member(status)
    prune = LeaveIntent(9, "a", True)
    assert hear(machine, prune) == [prune]
    assert machine.forgotten() == []
    machine.node_left("a", 3.0)
    assert (machine.status("a"), machine.forgotten()) == (None, ["a"])


@pytest.mark.parametrize("status", [SerfStatus.LEFT, SerfStatus.FAILED])
def test_prune_forgets_who_is_gone_at_once(status: SerfStatus) -> None:
    machine = with_member(status)
    prune = LeaveIntent(9, "a", True)
    assert hear(machine, prune) == [prune]
    assert (machine.status("a"), machine.forgotten(), machine.size) == (None, ["a"], 1)


def test_a_prune_of_ourselves_forgets_nothing() -> None:
    machine = SerfMachine("py")
    machine.leave()
    hear(machine, LeaveIntent(9, "py", True))
    machine.node_left("py", 1.0)
    assert machine.status("py") is SerfStatus.LEAVING


@pytest.mark.parametrize("prune", [False, True])
def test_force_leave(prune: bool) -> None:
    machine = with_member(SerfStatus.FAILED)
    machine.force_leave("a", prune, 3.0)
    (sent,) = [decode(out.message) for out in machine.messages_to_send()]
    assert sent == LeaveIntent(1, "a", prune)
    assert machine.status("a") is (None if prune else SerfStatus.LEFT)
    assert hear(machine, LeaveIntent(1, "a", prune)) == ([LeaveIntent(1, "a", prune)] if prune else [])
    other = with_member(SerfStatus.FAILED)
    hear(other, LeaveIntent(1, "a", prune))
    assert other.status("a") is machine.status("a")


def test_force_leave_of_a_stranger_is_passed_on_and_kept_for_who_comes() -> None:
    machine = SerfMachine("py")
    machine.force_leave("a", False, 0.0)
    assert len(machine.messages_to_send()) == 1
    machine.node_joined("a", 1.0)
    assert machine.status("a") is SerfStatus.LEAVING
    with pytest.raises(ConfigError, match="this node itself"):
        machine.force_leave("py", False, 0.0)


@pytest.mark.parametrize("status", [SerfStatus.LEFT, SerfStatus.FAILED])
def test_the_gone_are_remembered_for_a_day(status: SerfStatus) -> None:
    machine = with_member(status)  # gone at 2
    machine.reap(2.0 + DEPARTED_SECONDS - 1)
    hear(machine, LeaveIntent(20, "a"), now=DEPARTED_SECONDS)  # no news of when it went
    assert machine.status("a") is not None
    assert "a" in dict(decode_state(machine.local_state()).status_ltimes)
    machine.reap(2.0 + DEPARTED_SECONDS)
    assert (machine.status("a"), machine.forgotten(), machine.size) == (None, ["a"], 1)


def test_who_came_back_is_not_forgotten_for_when_it_was_gone() -> None:
    machine = with_member(SerfStatus.FAILED)
    machine.node_joined("a", 10.0)
    machine.reap(10 * DEPARTED_SECONDS)
    assert machine.status("a") is SerfStatus.ALIVE
    machine.node_left("a", 10 * DEPARTED_SECONDS)
    machine.reap(11 * DEPARTED_SECONDS - 1)
    assert machine.status("a") is SerfStatus.FAILED


def test_intents_about_strangers_are_kept_for_five_minutes() -> None:
    machine = SerfMachine("py")
    hear(machine, LeaveIntent(5, "a"), now=1.0)
    hear(machine, LeaveIntent(5, "b"), now=2.0)
    machine.node_joined("a", 1.0 + INTENT_SECONDS)
    machine.node_joined("b", 1.0 + INTENT_SECONDS)
    assert (machine.status("a"), machine.status("b")) == (SerfStatus.ALIVE, SerfStatus.LEAVING)
