"""Messages: each once and in order, whoever sends, whatever their size, and whether or not anyone reads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from mycorrizal import DataConfig, OperationTimeout, UnknownHandler
from mycorrizal.dataplane import DataPlane

from .conftest import until
from .planes import Task, each_carrier, mesh, together  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("each_carrier")


def collect(plane: DataPlane, count: int, seconds: float = 20.0) -> dict[str, list[object]]:
    """Return the next `count` messages by sender."""
    found: dict[str, list[object]] = defaultdict(list)
    for _ in range(count):
        message = plane.receive(seconds)
        found[message.sender].append(message.value)
    return found


def fence(plane: DataPlane, node: str) -> None:
    """Return when `node` has heard all that `plane` told it before, such as that a message was taken back."""
    with pytest.raises(UnknownHandler):
        plane.request(node, "fence")


def test_a_full_inbox_makes_senders_wait_and_loses_nothing() -> None:
    with mesh("a", "b", config=DataConfig(inbox_messages=5)) as (a, b):
        for number in range(5):
            a.send("b", number)
        began = time.monotonic()
        with pytest.raises(OperationTimeout) as caught:
            a.send("b", "taken back", timeout=0.3)
        assert 0.25 < time.monotonic() - began < 2
        assert caught.value.indeterminate and caught.value.node == "b" and "read fast enough" in str(caught.value)
        fence(a, "b")
        waiting = [Task(a.send, "b", 5, timeout=20)]
        until(lambda: a.peers()[0].messages)
        queued = [a.send_async("b", number) for number in range(6, 100)]  # more than the window
        withdrawn = a.send_async("b", "withdrawn too")
        assert withdrawn.cancel()
        assert b.metrics()["inbox.messages"] == 5
        assert waiting[0].is_alive()
        assert not any(future.done() for future in queued)
        assert collect(b, 100) == {"a": list(range(100))}
        waiting[0].result()
        assert [future.result(10) for future in queued] == [None] * 94
        with pytest.raises(OperationTimeout):
            b.receive(0.1)
        a.send("b", "after")
        assert b.receive(10).value == "after"
        assert a.peers()[0].messages == 0
        assert b.metrics()["inbox.bytes"] == 0


def test_an_inbox_full_of_bytes_lets_one_large_message_in_when_it_is_empty() -> None:
    with mesh("a", "b", config=DataConfig(inbox_bytes=1 << 16)) as (a, b):
        a.send("b", bytes(3 << 20))  # larger than the whole inbox
        with pytest.raises(OperationTimeout):
            a.send("b", "taken back", timeout=0.3)
        fence(a, "b")
        assert len(b.receive(10).value) == 3 << 20
        a.send("b", "small")
        futures = [a.send_async("b", bytes([n]) * 30_000) for n in range(10)]
        until(lambda: futures[1].done())
        assert not futures[2].done()
        assert [message[0] for message in collect(b, 11)["a"][1:]] == list(range(10))  # type: ignore[index]


def test_withdrawn_messages_are_skipped_wherever_they_are() -> None:
    """Half of the messages are given up while the inbox is full; the others arrive, each once, in order."""
    with mesh("a", "b", config=DataConfig(inbox_messages=1, window_messages=16)) as (a, b):
        futures = [a.send_async("b", number) for number in range(200)]
        until(lambda: futures[0].done())
        gone = {number for number in range(1, 200, 2) if futures[number].cancel()}
        large = a.send_async("b", bytes(4 << 20))
        cancelled = a.send_async("b", bytes(4 << 20))
        cancelled.cancel()
        last = a.send_async("b", "last")
        fence(a, "b")
        found: list[object] = []
        while not found or found[-1] != "last":
            value = b.receive(20).value
            found.append("large" if isinstance(value, bytes) else value)
        assert found == [n for n in range(200) if n not in gone] + ["large", "last"]
        assert len(gone) == 100
        assert large.result(10) is last.result(10) is None


def test_order_of_four_senders_with_2000_messages_each() -> None:
    config = DataConfig(inbox_messages=100, window_messages=32)
    with mesh("s0", "s1", "s2", "s3", "sink", config=config) as (*senders, sink):
        reading = Task(collect, sink, 8000, 40.0)

        def send(number: int) -> None:
            futures = [senders[number].send_async("sink", step) for step in range(2000)]
            for future in futures:
                assert future.result(40) is None

        together(4, send, 60)
        assert reading.result(60) == {f"s{number}": list(range(2000)) for number in range(4)}
        assert sink.metrics()["inbox.messages"] == 0


def test_senders_are_served_in_turn_when_the_inbox_is_full() -> None:
    """A fast sender does not keep a slow one out."""
    with mesh("fast", "slow", "sink", config=DataConfig(inbox_messages=8)) as (fast, slow, sink):
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                fast.send("sink", 0, timeout=20)

        floods = [Task(flood) for _ in range(8)]
        until(lambda: sink.metrics()["inbox.messages"] == 8)
        sent = [slow.send_async("sink", number) for number in range(20)]
        found = collect_until(sink, lambda found: len(found["slow"]) == 20, most=2000)
        assert found["slow"] == list(range(20))
        stop.set()
        until(lambda: collect_pending(sink) or not any(task.is_alive() for task in floods))
        for task in floods:
            task.result()
        assert all(future.result(10) is None for future in sent)


def collect_until(
    plane: DataPlane, enough: Callable[[dict[str, list[object]]], bool], most: int
) -> dict[str, list[object]]:
    """Receive until it is enough; fail after `most` messages."""
    found: dict[str, list[object]] = defaultdict(list)
    for _ in range(most):
        message = plane.receive(20)
        found[message.sender].append(message.value)
        if enough(found):
            return found
    raise AssertionError({sender: len(values) for sender, values in found.items()})


def collect_pending(plane: DataPlane) -> bool:
    """Receive what is there; always False."""
    try:
        while True:
            plane.receive(0)
    except OperationTimeout:
        return False


def test_large_messages_between_small_ones_keep_the_order() -> None:
    sizes = [10, 70_000, 10, 3_000_000, 10, 10, 65_535, 65_536, 65_537, 300_000, 1, 5_000_000, 10] * 3
    with mesh("a", "b") as (a, b):
        reading = Task(collect, b, 2 * len(sizes), 30.0)
        futures = []
        for number, size in enumerate(sizes):
            array = np.full(size // 8 + 1, number, dtype=np.float64)
            futures += [a.send_async("b", [number, bytes([number]) * size]), a.send_async("b", [number, array])]
        for future in futures:
            assert future.result(30) is None
        values = reading.result(30)["a"]
        assert [value[0] for value in values] == [number for number in range(len(sizes)) for _ in (0, 1)]
        for size, raw, array in zip(sizes, values[::2], values[1::2], strict=True):
            assert raw[1] == bytes([raw[0]]) * size
            assert array[1].shape == (size // 8 + 1,) and (array[1] == array[0]).all()
        until(lambda: b.metrics()["bulk.bytes"] == 0)


def test_both_ways_at_once_with_requests_between() -> None:
    with mesh("a", "b", config=DataConfig(inbox_messages=64)) as (a, b):
        for plane in (a, b):
            plane.on_request("size")(lambda request: len(request.value))

        def work(number: int) -> object:
            me, other = ((a, b), (b, a))[number % 2]
            if number < 2:
                for step in range(1000):
                    me.send(other.name, step, timeout=30)
                return None
            if number < 4:
                return collect(me, 1000, 30.0)[other.name]
            return [me.request(other.name, "size", bytes(size), timeout=30) for size in sizes]

        sizes = (0, 1000, 100_000, 2_000_000) * 5
        found = together(8, work, 60)
        assert found[2] == found[3] == list(range(1000))
        assert found[4:] == [list(sizes)] * 4
