"""The queue, beyond Go's scripts: plain broadcasts, callbacks that queue again, bounds."""

from __future__ import annotations

from mycorrizal._swim.broadcasts import Broadcast, TransmitLimitedQueue


def queue(mult: int = 3, nodes: int = 5) -> TransmitLimitedQueue:
    return TransmitLimitedQueue(mult, lambda: nodes)


def test_plain_broadcasts_replace_what_they_say_they_do() -> None:
    done: list[str] = []
    q = queue()
    for tag in ("a", "b", "a"):
        q.queue_broadcast(tag.encode(), tag=tag, finished=lambda tag=tag: done.append(tag))
    q.queue_broadcast(b"named", name="a")
    q.queue_broadcast(b"unique", unique=True, tag="a")
    assert len(q) == 5, "nothing is replaced without being asked"

    def same(entry: Broadcast) -> bool:
        return entry.tag == "a"

    q.queue_broadcast(b"new", tag="a", invalidates=same)
    assert done == ["a", "a"]
    assert sorted(entry.message for entry in q.broadcasts()) == [b"b", b"named", b"new", b"unique"]


def test_fewer_transmits_then_longer_then_newer() -> None:
    q = queue()
    q.queue_broadcast(b"old", unique=True)
    q.get_broadcasts(0, 100)
    for message in (b"one", b"two", b"longer"):
        q.queue_broadcast(message, unique=True)
    assert [entry.message for entry in q.broadcasts()] == [b"longer", b"two", b"one", b"old"]
    assert q.get_broadcasts(2, 13) == [b"longer", b"two"]
    assert q.get_broadcasts(2, 4) == [], "nothing is that small"
    assert q.get_broadcasts(2, 2) == []


def test_a_callback_may_queue_a_newer_one_of_the_same_name() -> None:
    q = queue(mult=1)
    said: list[str] = []

    def again() -> None:
        said.append("old")
        q.queue_broadcast(b"newer", name="x", finished=lambda: said.append("newer"))

    q.queue_broadcast(b"old", name="x", finished=again)
    assert q.get_broadcasts(0, 100) == [b"old"]
    assert [entry.message for entry in q.broadcasts()] == [b"newer"]
    assert said == ["old"]


def test_a_callback_of_one_may_replace_another_that_was_just_taken() -> None:
    q = queue(mult=2)
    said: list[str] = []
    q.queue_broadcast(b"dies", unique=True, finished=lambda: q.queue_broadcast(b"fresh", name="x"))
    q.get_broadcasts(0, 100)
    q.queue_broadcast(b"stale", name="x", finished=lambda: said.append("stale"))
    assert q.get_broadcasts(0, 100) == [b"stale", b"dies"]
    assert said == ["stale"], "its successor is queued, so it is finished"
    assert [entry.message for entry in q.broadcasts()] == [b"fresh"]


def test_a_callback_of_what_is_replaced_may_queue_too() -> None:
    """Whatever it does, each is finished once and nothing is left behind."""
    q = queue()
    said: list[str] = []

    def again() -> None:
        said.append("first")
        q.queue_broadcast(b"from the callback", name="x", finished=lambda: said.append("callback"))

    q.queue_broadcast(b"first", name="x", finished=again)
    q.queue_broadcast(b"second", name="x", finished=lambda: said.append("second"))
    q.reset()
    assert len(q) == 0
    assert q.broadcasts() == []
    assert sorted(said) == ["callback", "first", "second"]


def test_pruning_drops_the_most_sent() -> None:
    q = queue()
    done: list[int] = []
    for n in range(4):
        q.queue_broadcast(bytes(10 + n), unique=True, finished=lambda n=n: done.append(n))
    q.get_broadcasts(0, 23)  # 13, then 10
    q.prune(2)
    assert done == [0, 3]
    q.prune(2)
    q.reset()
    assert done == [0, 3, 1, 2]
    assert len(q) == 0


def test_without_retransmissions_each_goes_once() -> None:
    q = queue(mult=0)
    q.queue_broadcast(b"x", name="x")
    assert q.get_broadcasts(2, 100) == [b"x"]
    assert q.get_broadcasts(2, 100) == []


def test_a_callback_may_empty_a_tier_that_is_still_to_come() -> None:
    """The limit falls with the cluster, and then entries of several tiers end in one call."""
    nodes = [1000]
    q = TransmitLimitedQueue(1, lambda: nodes[0])
    q.queue_broadcast(b"sent twice", name="x")
    q.get_broadcasts(0, 100)
    q.queue_broadcast(b"sent once", unique=True, finished=lambda: q.queue_broadcast(b"y", name="x"))
    q.get_broadcasts(0, 100)
    nodes[0] = 1
    assert q.get_broadcasts(0, 100) == [b"sent once"]
    assert [entry.message for entry in q.broadcasts()] == [b"y"]


def test_the_backlog_is_the_bytes_that_wait() -> None:
    queue = TransmitLimitedQueue(1, lambda: 1)
    for size in (10, 20, 30, 40):
        queue.queue_broadcast(bytes(size), name=f"{size}")
    queue.queue_broadcast(bytes(5), name="10")
    assert queue.backlog == 95
    queue.prune(3)
    assert queue.backlog == sum(len(entry.message) for entry in queue.broadcasts())
    queue.get_broadcasts(2, 1000)
    assert (len(queue), queue.backlog) == (0, 0)
