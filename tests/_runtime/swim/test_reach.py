"""Members that answer datagrams and cannot be dialled."""

from __future__ import annotations

import pytest

from mycorrizal import (
    OperationTimeout,
    PeerRefused,
    PeerUnreachable,
    QueueFull,
    RemoteProtocolError,
    ResourcesExhausted,
)
from mycorrizal._runtime.swim.reach import KEPT_MAX, KEPT_SECONDS, PATIENCE, Reach

BOB, CAROL = ("10.0.0.2", 7946), ("10.0.0.3", 7946)
ALIVE = [BOB, CAROL]


def test_two_failures_with_members_that_stay() -> None:
    reach = Reach()
    reach.dialled(BOB, PeerUnreachable("no route"), 10.0)
    assert reach.failing(ALIVE, 10.0 + PATIENCE) == 0  # one may be chance
    reach.dialled(BOB, OperationTimeout("late"), 40.0)
    assert reach.failing(ALIVE, 9.0 + PATIENCE) == 0  # they may be dead, and nobody knows yet
    assert reach.failing(ALIVE, 40.0) == 2
    assert reach.failing([CAROL], 40.0) == 0  # they were
    assert reach.failing(ALIVE, 40.0 + KEPT_SECONDS) == 0
    reach.dialled(BOB, None, 50.0)
    assert reach.failing(ALIVE, 50.0) == 0


def test_one_failure_each_with_two() -> None:
    reach = Reach()
    for address in ALIVE:
        reach.dialled(address, PeerUnreachable("no route"), 0.0)
    assert reach.failing(ALIVE, PATIENCE) == 2


@pytest.mark.parametrize(
    "error", [PeerRefused("no"), RemoteProtocolError("odd"), QueueFull("ours"), ResourcesExhausted("ours")]
)
def test_what_says_nothing_against_tcp(error: Exception) -> None:
    reach = Reach()
    for now in range(5):
        reach.dialled(BOB, error, float(now))
    assert reach.failing(ALIVE, 100.0) == 0


def test_it_is_bounded() -> None:
    reach = Reach()
    for number in range(KEPT_MAX + 10):
        reach.dialled(("10.0.0.1", number), PeerUnreachable("no"), 0.0)
    assert len(reach._failed) == KEPT_MAX and ("10.0.0.1", 0) not in reach._failed


def test_it_is_news_once_and_again_after_it_worked() -> None:
    reach = Reach()
    reach.dialled(BOB, PeerUnreachable("no"), 0.0)
    assert not reach.news(BOB, 100.0)  # one may be chance
    reach.dialled(BOB, PeerUnreachable("no"), 1.0)
    assert not reach.news(BOB, PATIENCE - 0.1) and not reach.news(CAROL, 100.0)
    assert reach.news(BOB, PATIENCE)
    reach.dialled(BOB, PeerUnreachable("no"), 50.0)
    assert not reach.news(BOB, 50.0)
    reach.dialled(BOB, None, 60.0)
    for now in (70.0, 90.0):
        reach.dialled(BOB, PeerUnreachable("no"), now)
    assert reach.news(BOB, 90.0)


def test_what_was_told_is_forgotten_with_the_failure() -> None:
    reach = Reach()
    for number in range(KEPT_MAX + 10):
        for now in (0.0, PATIENCE):
            reach.dialled(("10.0.0.1", number), PeerUnreachable("no"), now)
        assert reach.news(("10.0.0.1", number), PATIENCE)
    assert len(reach._told) == len(reach._failed) == KEPT_MAX
