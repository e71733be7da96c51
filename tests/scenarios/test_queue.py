"""Go's ``queue_test.go``: the transmit-limited queue."""

from __future__ import annotations

import pytest

from mycorrizal._swim.broadcasts import TransmitLimitedQueue
from mycorrizal._swim.scaling import retransmit_limit

FOUR = [("test", b"1. this is a test."), ("foo", b"2. this is a test."), ("bar", b"3. this is a test."),
        ("baz", b"4. this is a test.")]  # fmt: skip


def four(queue: TransmitLimitedQueue) -> list[str]:
    """Queue four messages of 18 bytes; return the list of those that will have been finished."""
    finished: list[str] = []
    for name, message in FOUR:
        queue.queue_broadcast(message, name=name, finished=lambda name=name: finished.append(name))
    return finished


def names(queue: TransmitLimitedQueue) -> list[str | None]:
    return [entry.name for entry in queue.broadcasts()]


@pytest.mark.parametrize(
    ("lesser", "greater", "sent_once"),
    [
        (b"short", b"longer than it", b"longer than it"),
        (b"twelve bytes", b"ten  bytes", None),
        (b"newer", b"older", None),
    ],
    ids=["diff-transmits", "same-transmits--diff-len", "same-transmits--same-len--diff-id"],
)
def test_LimitedBroadcastLess(lesser: bytes, greater: bytes, sent_once: bytes | None) -> None:
    queue = TransmitLimitedQueue(4, lambda: 10)
    queue.queue_broadcast(greater, name="greater")
    if sent_once:
        assert queue.get_broadcasts(2, 100) == [sent_once]
    queue.queue_broadcast(lesser, name="lesser")
    assert names(queue) == ["lesser", "greater"]
    assert queue.get_broadcasts(2, 100) == [lesser, greater]


def test_TransmitLimited_Queue() -> None:
    queue = TransmitLimitedQueue(1, lambda: 1)
    for name in ("test", "foo", "bar"):
        queue.queue_broadcast(b"", name=name)
    assert len(queue) == 3
    assert names(queue) == ["bar", "foo", "test"], "the newest first"

    queue.queue_broadcast(b"", name="test")

    assert len(queue) == 3
    assert names(queue) == ["test", "bar", "foo"]


def test_TransmitLimited_GetBroadcasts() -> None:
    queue = TransmitLimitedQueue(3, lambda: 10)
    four(queue)
    assert len(queue.get_broadcasts(2, 80)) == 4
    assert len(queue.get_broadcasts(3, 80)) == 3


def test_TransmitLimited_GetBroadcasts_Limit() -> None:
    queue = TransmitLimitedQueue(1, lambda: 10)
    assert retransmit_limit(1, 10) == 2
    finished = four(queue)
    assert [len(queue.get_broadcasts(3, 80)) for _ in range(4)] == [3, 3, 2, 0]
    assert sorted(finished) == sorted(name for name, _ in FOUR)
    assert len(queue) == 0

    # Go's id counter starts again when the queue is empty. Ours does not, and the order is the same.
    four(queue)
    assert names(queue) == ["baz", "bar", "foo", "test"]


def test_TransmitLimited_Prune() -> None:
    queue = TransmitLimitedQueue(1, lambda: 10)
    finished = four(queue)
    queue.prune(2)
    assert len(queue) == 2
    assert finished == ["test", "foo"]
    assert names(queue) == ["baz", "bar"]

    TransmitLimitedQueue(1, lambda: 10).prune(0)  # crashes in Go


def test_TransmitLimited_ordering() -> None:
    queue = TransmitLimitedQueue(20, lambda: 10)
    sent = {"node1": 10, "node4": 7, "node3": 4, "node2": 3, "node0": 0}
    for name, times in sent.items():
        queue.queue_broadcast(name.encode(), name=name)
        for _ in range(times):  # room for one: the fewest transmits go first, and that is the newcomer
            assert queue.get_broadcasts(0, 5) == [name.encode()]
    in_order = [(entry.name, entry.transmits) for entry in queue.broadcasts()]
    assert in_order == [("node0", 0), ("node2", 3), ("node3", 4), ("node4", 7), ("node1", 10)]
