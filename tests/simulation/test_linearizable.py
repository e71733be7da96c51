"""The linearizability checker: histories that are, histories that are not, and a brute-force comparison."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest

from simulated.linearizable import FOREVER, Event, apply, linearizable


def event(kind: str, argument: Any, began: float, ended: float, answer: Any = None) -> Event:
    return Event(0, b"k", kind, argument, began, ended, answer)


A, B = b"a", b"b"

GOOD = {
    "nothing": [],
    "in turn": [event("set", A, 0, 1, True), event("get", None, 2, 3, A), event("delete", None, 4, 5, True)],
    "overlapping write seen": [event("set", A, 0, 10, True), event("get", None, 1, 2, A)],
    "overlapping write not seen": [event("set", A, 0, 10, True), event("get", None, 1, 2, None)],
    "unknown write seen late": [
        event("set", A, 0, FOREVER), event("get", None, 5, 6, None), event("get", None, 7, 8, A),
    ],
    "unknown write never": [event("set", A, 0, FOREVER), event("get", None, 5, 6, None)],
    "increments": [event("incr", 1, 0, 5, 2), event("incr", 1, 1, 5, 1), event("incr", 3, 6, 7, 5)],
    "cas": [event("set", A, 0, 1, True), event("cas", (A, B), 2, 9, True), event("cas", (A, A), 3, 8, False)],
    "clear": [event("set", A, 0, 1, True), event("clear", None, 2, 9, True), event("get", None, 3, 4, A)],
    "expiry": [event("set", A, 0, 1, True), event("expire", A, 5, 6, True), event("get", None, 7, 8, None)],
    "expiry of what was overwritten": [
        event("set", A, 0, 1, True), event("set", B, 2, 3, True), event("expire", A, 5, 6, True),
        event("get", None, 7, 8, B),
    ],
    "add": [event("add", A, 0, 9, True), event("add", B, 1, 8, False), event("get", None, 10, 11, A)],
}

BAD = {
    "lost write": [event("set", A, 0, 1, True), event("get", None, 2, 3, None)],
    "stale read": [event("set", A, 0, 1, True), event("set", B, 2, 3, True), event("get", None, 4, 5, A)],
    "value from nowhere": [event("get", None, 0, 1, B), event("set", A, 0, 1, True)],
    "deleted key back": [
        event("set", A, 0, 1, True), event("delete", None, 2, 3, True), event("get", None, 4, 5, A),
    ],
    "cleared key back": [
        event("set", A, 0, 1, True), event("clear", None, 2, 3, True), event("get", None, 4, 5, A),
    ],
    "outlives its time": [event("set", A, 0, 1, True), event("expire", A, 5, 6, True), event("get", None, 7, 8, A)],
    "expires too soon": [event("set", A, 0, 1, True), event("expire", A, 5, 6, True), event("get", None, 2, 3, None)],
    "there and back": [event("set", A, 0, 9, True), event("get", None, 1, 2, A), event("get", None, 3, 4, None)],
    "doubled increment": [event("incr", 1, 0, 1, 1), event("incr", 1, 2, 3, 3)],
    "lost increment": [event("incr", 1, 0, 1, 1), event("incr", 1, 2, 3, 1)],
    "two winners": [
        event("set", A, 0, 1, True), event("cas", (A, b"x"), 2, 9, True), event("cas", (A, b"y"), 3, 8, True),
    ],
    "two adders": [event("add", A, 0, 9, True), event("add", B, 1, 8, True)],
    "loser without a winner": [event("add", A, 0, 1, False)],
    "unknown write twice": [
        event("set", A, 0, FOREVER), event("set", B, 1, 2, True), event("get", None, 3, 4, A),
        event("set", B, 5, 6, True), event("get", None, 7, 8, A),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_possible_history_passes(name: str) -> None:
    assert linearizable(GOOD[name]) is True


@pytest.mark.parametrize("name", BAD)
def test_planted_violation_is_found(name: str) -> None:
    assert linearizable(BAD[name]) is False


def brute_force(history: list[Event]) -> bool:
    """Try every order of every subset that has all known operations."""
    known = [event for event in history if event.known]
    unknown = [event for event in history if not event.known]
    for mask in range(1 << len(unknown)):
        chosen = known + [event for place, event in enumerate(unknown) if mask >> place & 1]
        for order in permutations(chosen):
            if any(later.ended < earlier.began for place, earlier in enumerate(order) for later in order[place + 1 :]):
                continue
            state: Any = None
            for item in order:
                answer, state = apply(state, item)
                if item.known and answer != item.answer:
                    break
            else:
                return True
    return False


def test_agrees_with_trying_everything() -> None:
    rng = Random(7)
    verdicts = []
    for _ in range(400):
        history = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.choice(["get", "set", "delete", "add", "cas"])
            began = rng.random() * 10
            ended = FOREVER if rng.random() < 0.15 else began + rng.random() * 5
            argument = (rng.choice([A, B]), rng.choice([A, B])) if kind == "cas" else rng.choice([A, B])
            answer = rng.choice([None, A, B]) if kind == "get" else True if kind == "set" else rng.random() < 0.6
            history.append(event(kind, argument, began, ended, None if ended == FOREVER else answer))
        verdict = linearizable(history)
        assert verdict is brute_force(history), history
        verdicts.append(verdict)
    assert 50 < sum(map(bool, verdicts)) < 350


def test_search_that_takes_too_long_is_undecided() -> None:
    history = [event("set", b"%d" % index, 0, 10, True) for index in range(30)] + [event("get", None, 11, 12, b"x")]
    assert linearizable(history, steps=100) is None


def test_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="no operation"):
        linearizable([event("shuffle", None, 0, 1, True)])


def test_operations_that_touch_may_have_happened_in_either_order() -> None:
    write = Event(1, b"k", "set", 1, 0.0, 1.0, True)
    for got in (None, 1):
        assert linearizable([write, Event(2, b"k", "get", None, 1.0, 2.0, got)])
    assert not linearizable([write, Event(2, b"k", "get", None, 1.01, 2.0, None)])
