"""Who left or failed is remembered: once each, for a day, and not too many."""

from __future__ import annotations

import pytest

from mycorrizal._runtime.swim import departed
from mycorrizal._runtime.swim.departed import SECONDS, Departed
from mycorrizal.types import Node, NodeState


def node(name: str, state: NodeState = NodeState.DEAD) -> Node:
    return Node(name, bytes((127, 0, 0, 1)), 7946, state=state)


def test_a_member_is_gone_until_it_is_back_or_a_day_has_passed() -> None:
    gone = Departed()
    gone.left(node("a"), 10.0)
    gone.left(node("b", NodeState.LEFT), 20.0)
    gone.left(node("a", NodeState.LEFT), 30.0)
    assert gone.view(40.0) == [(node("b", NodeState.LEFT), 20.0), (node("a", NodeState.LEFT), 30.0)]
    assert [one.name for one, _ in gone.view(20.0 + SECONDS)] == ["a"]
    gone.joined("a")
    gone.joined("stranger")
    assert gone.view(40.0) == []


def test_the_longest_gone_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departed, "MOST", 2)
    gone = Departed()
    for at, name in enumerate("abca"):
        gone.left(node(name), float(at))
    assert [one.name for one, _ in gone.view(9.0)] == ["c", "a"]
