"""How messages get out: small ones ride gossip while that has room, the others are pushed, and all is bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mycorrizal import QueueFull
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.spread import Spread
from mycorrizal._swim.broadcasts import TransmitLimitedQueue

LIMITS = Limits(queue=8, gossip_backlog=4, gossip_backlog_bytes=100, gossip_bytes=50, pushes=2)


class Out:
    """A ``Spread`` with its queue and what it counted."""

    def __init__(self, *peers: str, limits: Limits = LIMITS) -> None:
        self.counted: Counter[str] = Counter()
        self.queue = TransmitLimitedQueue(4, lambda: 4)
        self.spread = Spread(self.queue, limits, lambda: list(peers), lambda name: self.counted.update([name]))


def test_what_is_too_long_for_gossip_is_pushed_if_it_is_ours_and_not_passed_on_if_it_is_not() -> None:
    one = Out("b", "c")
    one.spread.out(bytes(50), "fits")
    assert (len(one.queue), one.spread.pushes) == (1, [])
    one.spread.out(bytes(51), "long")
    assert [push.targets for push in one.spread.pushes] == [("b", "c")]
    assert one.counted == {"spread.pushed": 1}
    one.spread.again(bytes(51), "others")
    assert len(one.queue) == 1


@pytest.mark.parametrize(("size", "gossiped"), [(1, 4), (30, 4), (50, 2)])
def test_what_gossip_would_take_long_for_is_pushed(size: int, gossiped: int) -> None:
    one = Out("b")
    for number in range(6):
        one.spread.out(bytes(size), f"{number}")
    assert (len(one.queue), len(one.spread.pushes)) == (gossiped, 6 - gossiped)


def test_a_quarter_of_the_queue_is_for_our_own() -> None:
    one = Out("b")
    for number in range(10):
        one.spread.again(b"x", f"{number}")
    assert len(one.queue) == 6
    assert one.counted == {"spread.not_passed_on": 4}


@pytest.mark.parametrize(("most", "sent"), [(64, 8 * 4 + 12 * 2), (0, 20 * 4)])
def test_a_flood_that_everybody_was_told_directly_is_gossiped_half_as_often(most: int, sent: int) -> None:
    one = Out("b", limits=Limits(gossip_backlog=32, direct_peers=most))
    for number in range(20):
        one.spread.again(b"x", f"{number}")
    assert sum(len(one.spread.get_broadcasts(0, 5)) for _ in range(40)) == sent


def test_what_waits_to_be_pushed_is_bounded() -> None:
    one = Out("b")
    for _ in range(2):
        one.spread.check(51)
        one.spread.out(bytes(51), "x")
    with pytest.raises(QueueFull) as caught:
        one.spread.check(51)
    assert caught.value.retriable
    assert one.counted["spread.full"] == 1
    one.spread.check(50)  # gossip has room


def test_who_has_nobody_to_tell_is_never_full_and_queues_nothing() -> None:
    one = Out()
    for _ in range(5):
        one.spread.check(51)
        one.spread.out(bytes(51), "x")
    assert (one.spread.pushes, len(one.queue)) == ([], 0)


def test_our_own_small_messages_are_told_directly_too_where_the_others_are_few() -> None:
    one, crowd = Out("b", "c", limits=replace(LIMITS, direct_peers=2, direct=3)), Out("b", "c", "d")
    crowd.spread._limits = replace(LIMITS, direct_peers=2)
    for out in (one, crowd):
        out.spread.out(b"small", "1")
        out.spread.out(bytes(51), "long")
        out.spread.again(b"others", "2")
    assert (one.spread.direct, crowd.spread.direct) == ([b"small"], [])
    assert len(one.queue) == 2, "gossip repairs what is lost"
    for number in range(5):
        one.spread.out(b"more", f"{number}")
    assert len(one.spread.direct) == 3
