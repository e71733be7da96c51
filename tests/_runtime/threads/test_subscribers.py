"""Event streams: bounded, many, and with an end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from mycorrizal import (
    EventsLost,
    MemberJoined,
    MycorrizalError,
    Node,
    NotRunningError,
    OperationTimeout,
    ReentrantCallError,
    ServiceCrashed,
)
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.subscribers import EventStream, Subscribers
from mycorrizal.events import MemberEvent

NODES = tuple(Node(f"n{index}", b"\x7f\0\0\1", index) for index in range(10))
EVENTS = [MemberJoined(node) for node in NODES]


def subscribers(
    limit: int = 4,
    refusal: Callable[[], MycorrizalError] = lambda: NotRunningError("over"),
    guard: Callable[[str], None] = lambda operation: None,
) -> tuple[Subscribers[MemberEvent], Counters]:
    counters = Counters()
    return Subscribers(lambda: EventStream(limit, lambda n: EventsLost(n, NODES), guard, refusal, counters)), counters


def test_each_subscriber_gets_each_event_in_order() -> None:
    all_, _ = subscribers()
    first, second = all_.subscribe(), all_.subscribe()
    for event in EVENTS[:3]:
        all_.publish(event)
    assert [first.get(0) for _ in range(3)] == [second.get(0) for _ in range(3)] == EVENTS[:3]
    assert len(all_) == 2


def test_slow_reader_loses_the_oldest_and_is_told_once() -> None:
    all_, counters = subscribers()
    stream = all_.subscribe()
    for event in EVENTS:
        all_.publish(event)
    assert all_.waiting() == 4
    assert stream.get(0) == EventsLost(6, NODES)
    assert [stream.get(0) for _ in range(4)] == EVENTS[-4:]
    assert counters["events.lost"] == 6
    with pytest.raises(OperationTimeout):
        stream.get(0)


@pytest.mark.parametrize("happens", ["event", "end", "close"])
def test_what_comes_at_the_end_of_a_slice_is_seen_at_once(monkeypatch: pytest.MonkeyPatch, happens: str) -> None:
    """The main thread waits in slices; the wait that was over when it was notified says that nothing came."""
    all_, _ = subscribers()
    stream = all_.subscribe()
    waits: list[float | None] = []

    def late(seconds: float | None) -> bool:
        waits.append(seconds)
        assert len(waits) == 1, "it sleeps on what has come"
        {"event": lambda: all_.publish(EVENTS[0]), "end": all_.end, "close": stream.close}[happens]()
        return False

    monkeypatch.setattr(stream._changed, "wait", late)
    if happens == "event":
        assert stream.get(5) == EVENTS[0]
    else:
        with pytest.raises(NotRunningError):
            stream.get(5)


def test_reader_that_stays_slow_gets_every_other_event() -> None:
    all_, _ = subscribers()
    stream = all_.subscribe()
    kinds = []
    for _ in range(6):
        for event in EVENTS:
            all_.publish(event)
        kinds.append(stream.get(0).kind)
    assert kinds[0::2] == ["lost"] * 3
    assert "lost" not in kinds[1::2]


def test_end_lets_readers_finish() -> None:
    all_, _ = subscribers()
    stream = all_.subscribe()
    all_.publish(EVENTS[0])
    all_.end()
    assert list(stream) == EVENTS[:1]
    with pytest.raises(NotRunningError):
        stream.get(0)
    assert list(all_.subscribe()) == []  # one that comes late


def test_crash_is_raised_after_what_is_left() -> None:
    all_, _ = subscribers(refusal=lambda: ServiceCrashed("died"))
    stream = all_.subscribe()
    all_.publish(EVENTS[0])
    all_.end()
    assert next(stream) == EVENTS[0]
    with pytest.raises(ServiceCrashed):
        next(stream)


def test_close_wakes_a_waiting_reader_and_forgets_what_is_unread() -> None:
    all_, _ = subscribers()
    stream = all_.subscribe()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    stream.close()
    reader.join(10)
    assert not reader.is_alive()
    assert got == []
    all_.publish(EVENTS[0])
    assert len(stream) == 0
    with pytest.raises(NotRunningError, match="closed"):
        stream.get(0)
    assert len(all_) == 0


def test_waiting_reader_is_woken_by_an_event_and_by_the_end() -> None:
    all_, _ = subscribers()
    stream = all_.subscribe()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    all_.publish(EVENTS[0])
    all_.end()
    reader.join(10)
    assert got == EVENTS[:1]


def test_stream_is_a_context_manager_and_forgotten_streams_cost_nothing() -> None:
    all_, _ = subscribers()
    with all_.subscribe() as stream:
        assert iter(stream) is stream
    dropped = all_.subscribe()
    assert len(all_) == 1
    del dropped
    gc.collect()
    assert len(all_) == 0
    all_.publish(EVENTS[0])
    all_.end()


def test_gossip_thread_may_not_wait() -> None:
    def guard(operation: str) -> None:
        raise ReentrantCallError(operation)

    all_, _ = subscribers(guard=guard)
    with pytest.raises(ReentrantCallError):
        all_.subscribe().get(0)


def test_stream_without_events_is_a_stream() -> None:
    all_, _ = subscribers()
    stream = all_.subscribe()
    assert stream
    assert repr(stream) == "<EventStream, open, 0 unread>"
    stream.end()
    assert "ended" in repr(stream)
    stream.close()
    assert "closed" in repr(stream)


def test_what_was_before_is_bounded_and_counts_as_no_loss() -> None:
    all_, counters = subscribers(limit=4)
    stream = all_.subscribe()
    stream.prefill(EVENTS[:7])
    assert [stream.get(0) for _ in range(4)] == EVENTS[3:7] and len(stream) == 0
    assert counters["events.lost"] == 0
