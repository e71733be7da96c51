"""A handler that a node does not have: asked for again where the node has just started, and else said at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from mycorrizal import DataPlane, UnknownHandler
from tests.keys import key_of

PATIENCE = 30.0


@pytest.fixture
def pair() -> Iterator[tuple[DataPlane, DataPlane]]:
    key = key_of("missing")
    with DataPlane("alice", key=key) as alice, DataPlane("bob", key=key) as bob:
        alice.add_peer("bob", bob.address)
        yield alice, bob


def settles(plane: DataPlane, moment: float) -> None:
    """Have `plane` be one that has just started until `moment`."""
    plane._started._settled = moment


def test_it_is_named(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    settles(bob, 0.0)
    with pytest.raises(UnknownHandler, match="bob has no handler 'nothing' .register it there") as caught:
        alice.request("bob", "nothing", timeout=PATIENCE)
    assert not caught.value.retriable
    assert bob.metrics()["requests.unknown"] == 1


def test_of_a_node_that_has_just_started_it_is_asked_for_again(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    settles(bob, math.inf)
    core, asked = bob._started, 0

    def has_handler(name: str) -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            bob.on_request("late")(lambda request: request.value + 1)
        return name in core.handlers

    core.has_handler = has_handler  # type: ignore[method-assign]
    assert alice.request("bob", "late", 1, timeout=PATIENCE) == 2
    assert bob.metrics()["requests.not_yet"] == 2


def test_one_that_never_comes_is_asked_for_as_long_as_there_is_time(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    settles(bob, math.inf)
    with pytest.raises(UnknownHandler, match="bob has no handler 'nothing' yet: it has just started") as caught:
        alice.request("bob", "nothing", timeout=3.0)
    assert caught.value.retriable and not caught.value.indeterminate and caught.value.node == "bob"


def test_calls_that_do_not_wait_are_told_that_it_may_come(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    settles(bob, math.inf)
    with pytest.raises(UnknownHandler) as caught:
        alice.request_async("bob", "nothing").result(PATIENCE)
    assert caught.value.retriable
    error = alice.request_all(["bob"], "nothing", timeout=PATIENCE).errors["bob"]
    assert isinstance(error, UnknownHandler) and error.retriable


def test_it_is_asked_for_until_the_node_has_settled(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    settles(bob, math.inf)
    core, asked = bob._started, 0

    def has_handler(name: str) -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            settles(bob, 0.0)
        return name in core.handlers

    core.has_handler = has_handler  # type: ignore[method-assign]
    with pytest.raises(UnknownHandler) as caught:
        alice.request("bob", "nothing", timeout=PATIENCE)
    assert not caught.value.retriable and asked == 3


def test_the_time_of_a_start_ends(pair: tuple[DataPlane, DataPlane]) -> None:
    _, bob = pair
    bob._started.started()
    assert bob._started.settling
    settles(bob, 0.0)
    assert not bob._started.settling
