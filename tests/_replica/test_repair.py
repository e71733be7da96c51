"""Holes by themselves: who is asked when, what an answer changes, and when nobody is asked any more."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from mycorrizal._replica.events import Events, Log
from mycorrizal._replica.fetches import Fetches
from mycorrizal._replica.freshness import Via
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.messages import Event, Have, Sender, decode_header, pack
from mycorrizal._replica.outputs import EventsMissed, Output
from mycorrizal._replica.repair import Repairs

from .harness import boot

OWN, X, Y, P, Q, R = (Sender(name, boot(name)) for name in ("own", "x", "y", "p", "q", "r"))


class Node:
    """Events and their repair, with members that answer only what the test says."""

    def __init__(self, *up: Sender, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.up = set(up)
        self.said: list[Output] = []
        self.counted: Counter[str] = Counter()
        self.refused: list[Exception] = []
        count = lambda name: self.counted.update([name])  # noqa: E731
        self.events = Events(OWN, self.limits, lambda life: life in self.up, count, self.said.append)
        self.fetches = Fetches(self.limits.fetches, self.limits.fetch_seconds, self.limits.state_seconds)
        self.repairs = Repairs(
            self.events, self.fetches, self.limits, Random(1),
            is_up=lambda life: life in self.up, peers=lambda: sorted(life.name for life in self.up),
            count=count, rejected=self.refused.append,
        )  # fmt: skip
        self.events.joined(0.0)

    def take(self, number: int, sender: Sender = X, now: float = 0.0) -> bool:
        one = event(number, sender)
        return self.events.take(one, one.encode(), now, Via.ASKED)

    def log(self, sender: Sender = X) -> Log:
        found = self.events.log(sender)
        assert found is not None
        return found

    def asked(self, now: float) -> list[str]:
        """Let the time be `now`; return who is asked."""
        self.repairs.run(now)
        taken, self.fetches.waiting = self.fetches.waiting, []
        self.last = [fetch.fetch_id for fetch in taken]
        return [fetch.member for fetch in taken]

    def answer(self, now: float, last: int = 0, *numbers: int, sender: Sender = X) -> None:
        """The latest question is answered: so far it has come, and these events."""
        data = pack(Have(sender, last), [(event(number, sender).encode(), 0.0) for number in numbers])
        self.fetches.ended(self.last[-1], data, now)

    def fail(self, now: float) -> None:
        self.fetches.ended(self.last[-1], None, now)

    def rise(self, life: Sender, now: float) -> None:
        self.up.add(life)
        self.repairs.member_up(life, now)

    def missed(self) -> int:
        return sum(one.count for one in self.said if isinstance(one, EventsMissed))


def event(number: int, sender: Sender = X) -> Event:
    return Event(sender, number, "t", b"")


def test_the_sender_is_asked_first_for_what_is_missing_and_after_a_moment() -> None:
    node = Node(X, P)
    node.take(3)
    assert node.asked(0.29) == []
    node.repairs.run(0.46)
    [fetch] = node.fetches.waiting
    want, _ = decode_header(fetch.payload)
    assert (fetch.member, want) == ("x", (X, ((1, 2),)))
    node.last = [fetch.fetch_id]
    node.answer(1.0, 3, 1, 2)
    assert node.log().last == 3
    assert len(node.repairs) == 0


def test_who_cannot_ask_does_not_wake_for_it() -> None:
    node = Node(X, fetches=1)
    node.take(3)
    assert node.repairs.due() is not None
    number = node.fetches.start("p", b"", 0.0, lambda data, now: None)
    assert node.repairs.due() is None
    node.fetches.waiting.clear()
    assert node.asked(5.0) == []
    node.fetches.ended(number, None, 5.0)
    assert node.asked(5.0) == ["x"]


@pytest.mark.parametrize("silent", [True, False], ids=["did not answer", "had nothing"])
def test_who_comes_back_is_asked_again_at_once(silent: bool) -> None:
    node = Node(P)
    node.take(3)
    assert node.asked(1.0) == ["p"]
    if silent:
        node.fail(1.0)
    else:
        node.answer(1.0)
    node.rise(P, 1.0)
    assert node.asked(1.0) == ["p"]


def test_whoever_comes_is_asked_soon() -> None:
    node = Node(give_up_seconds=1e9)
    node.take(3)
    now = 1.0
    for _ in range(9):  # nobody is there, and questions have grown rare
        node.asked(now)
        due = node.repairs.due()
        assert due is not None
        now = due
    node.asked(now)
    node.rise(Q, now)
    due = node.repairs.due()
    assert due is not None and due <= now + node.limits.gap_seconds
    assert node.asked(due) == ["q"]


def test_questions_that_find_nobody_grow_rare_and_go_on() -> None:
    node = Node(give_up_seconds=1e9)
    node.take(3)
    gaps, now = [], 1.0
    for _ in range(20):
        assert node.asked(now) == []
        due = node.repairs.due()
        assert due is not None
        gaps.append(due - now)
        now = due
    assert 0.5 <= gaps[0] <= 1.0
    assert all(4.0 <= gap <= 8.0 for gap in gaps[3:])


def test_so_many_say_that_they_do_not_have_it_and_no_more_are_asked() -> None:
    node = Node(P, Q, R, peers_asked=2)
    node.take(3)
    asked = []
    while found := node.asked(1.0):
        asked += found
        node.answer(1.0)
    assert len(set(asked)) == 2


def test_what_the_sender_does_not_have_is_given_up_though_nothing_waits_behind_it() -> None:
    node = Node(X, P)
    node.events.heard(X, 5, 0.0)
    assert node.asked(1.0) == ["x"]
    node.answer(1.0, 2)  # it has come to 2, and remembers neither
    assert node.asked(1.0) == ["p"]
    node.answer(1.0)
    assert node.asked(1.0) == []
    assert (node.missed(), node.log().last) == (2, 2)
    assert len(node.repairs) == 0


def test_a_hole_that_is_being_filled_is_not_given_up() -> None:
    node = Node(P, give_up_seconds=10.0)
    node.take(9)
    assert node.asked(1.0) == ["p"]
    node.answer(9.0, 0, 1)
    assert node.asked(9.0) == ["p"], "it helped, and is asked for the rest"
    node.answer(9.0)
    node.asked(12.0)
    assert node.missed() == 0
    for now in range(13, 25):  # ten seconds after it helped last
        while node.asked(float(now)):
            node.answer(float(now))
    assert node.missed() == 7


def test_an_old_answer_does_not_close_a_new_hole() -> None:
    node = Node(X)
    node.take(3)
    assert node.asked(1.0) == ["x"]
    node.take(1, now=1.1)
    node.take(2, now=1.1)
    assert len(node.repairs) == 0
    node.events.heard(X, 5, 1.2)
    node.answer(1.3, 2)
    assert node.events.missing(node.log()) == ((4, 5),)
    assert len(node.repairs) == 1


def test_the_word_of_a_sender_that_went_meanwhile_is_that_of_anybody() -> None:
    node = Node(X)
    node.events.heard(X, 5, 0.0)
    assert node.asked(1.0) == ["x"]
    node.up.discard(X)
    node.answer(1.0)  # the name may be another life's by now
    assert node.events.missing(node.log()) == ((1, 5),)


def test_an_answer_holds_what_was_asked_for_and_not_too_much_of_it() -> None:
    node = Node(X, held=4)
    node.take(3)
    assert node.asked(1.0) == ["x"]
    data = pack(Have(X, 9), [(event(1).encode(), 0.0), (event(1, Y).encode(), 0.0)])
    node.fetches.ended(node.last[-1], data, 1.0)
    assert node.events.log(Y) is None
    assert "something else" in str(node.refused.pop())
    assert node.asked(1.0) == ["x"], "the first of them helped"
    node.answer(1.0, 9, 2, 3, 4, 5, 6)
    assert "too many" in str(node.refused.pop())


def test_a_sender_that_is_forgotten_takes_its_hole_and_its_bytes_along() -> None:
    node = Node(senders=2)
    node.take(3)
    assert (len(node.repairs), node.events.gauges["events.held_bytes"]) == (1, len(event(3).encode()))
    node.take(1, Y)
    assert node.events.log(X) is None
    assert (len(node.repairs), node.events.gauges["events.held_bytes"]) == (0, 0)
    assert node.counted["events.sender_forgotten"] == 1
