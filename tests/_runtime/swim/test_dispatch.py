"""The delegate thread and its bounded queue."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from mycorrizal import Node, NodeState
from mycorrizal._runtime.swim import dispatch
from mycorrizal._runtime.swim.dispatch import Dispatcher, Observers
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._swim import events as swim


class Recorder:
    """Writes down every callback."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def notify_msg(self, data: bytes) -> None:
        self.calls.append(("msg", data))

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        self.calls.append(("state", (buf, join)))

    def notify_join(self, node: Node) -> None:
        self.calls.append(("join", node))

    def notify_leave(self, node: Node) -> None:
        self.calls.append(("leave", node))

    def notify_update(self, node: Node) -> None:
        self.calls.append(("update", node))

    def notify_conflict(self, existing: Node, other: Node) -> None:
        self.calls.append(("conflict", (existing, other)))

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
        self.calls.append(("ping", (node, rtt, payload)))


def node(name: str = "bob", incarnation: int = 1, state: NodeState = NodeState.ALIVE) -> Node:
    return Node(name, b"\x7f\0\0\1", 1, state=state, incarnation=incarnation)


def dispatcher(recorder: object, depth: int = 100) -> tuple[Dispatcher, Counters]:
    counters = Counters()
    observers = Observers(recorder, recorder, recorder, recorder)  # type: ignore[arg-type]
    return Dispatcher(observers, depth, "alice", counters), counters


def test_who_waits_until_it_has_caught_up() -> None:
    gate, calls = threading.Event(), []

    class Slow(Recorder):
        def notify_msg(self, data: bytes) -> None:
            assert gate.wait(5)
            calls.append(data)

    one, _ = dispatcher(Slow())
    assert one.caught_up().done(), "nothing is queued"
    one.put(swim.UserMessage(b"first", None))
    waiting = one.caught_up()
    one.put(swim.UserMessage(b"later", None))
    one.service.start()
    assert not waiting.done()
    given_up = one.caught_up()
    assert given_up.cancel()
    gate.set()
    waiting.result(5)
    assert calls[:1] == [b"first"]
    one.stop()
    assert one.join(Deadline(5))
    assert one.caught_up().done() and calls == [b"first", b"later"]


def test_what_is_being_called_counts_as_queued() -> None:
    gate, inside = threading.Event(), threading.Event()

    class Slow(Recorder):
        def notify_msg(self, data: bytes) -> None:
            inside.set()
            assert gate.wait(5)

    one, _ = dispatcher(Slow())
    one.put(swim.UserMessage(b"first", None))
    one.service.start()
    assert inside.wait(5)
    waiting = one.caught_up()
    assert not waiting.done()
    one.put(swim.UserMessage(b"never called", None))
    one.stop()
    assert not one.join(Deadline(0.01)), "a callback still runs"
    waiting.result(5)
    gate.set()
    assert one.service.join(Deadline(5))


def test_it_does_not_matter_how_full_it_is() -> None:
    one, counters = dispatcher(Recorder(), depth=1)
    for _ in range(3):
        one.put(swim.UserMessage(b"m", None))
    waiting = one.caught_up()
    finish(one)
    assert waiting.done()
    assert counters["dropped.notify_msg"] == 2


def finish(one: Dispatcher) -> None:
    """Run what is queued, to the end."""
    one.service.start()
    one.stop()
    assert one.join(Deadline(10))


def test_every_kind_of_event_in_order() -> None:
    recorder = Recorder()
    one, _ = dispatcher(recorder)
    bob = node()
    for event in (
        swim.NodeJoined(bob), swim.UserMessage(b"a", None), swim.NodeUpdated(bob), swim.RemoteState(b"s", True),
        swim.PingComplete(bob, 0.1, b"p"), swim.NodeConflict(bob, bob), swim.NodeLeft(bob), swim.Stalled(1.0),
    ):  # fmt: skip
        one.put(event)
    assert len(one) == 7
    finish(one)
    assert [call for call, _ in recorder.calls] == ["join", "msg", "update", "state", "ping", "conflict", "leave"]
    assert recorder.calls[3] == ("state", (b"s", True))


def test_missing_methods_are_left_out() -> None:
    class Few:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def notify_leave(self, node: Node) -> None:
            self.calls.append("leave")

    few = Few()
    one, _ = dispatcher(few)
    one.put(swim.NodeJoined(node()))
    one.put(swim.UserMessage(b"x", None))
    one.put(swim.NodeLeft(node()))
    finish(one)
    assert few.calls == ["leave"]
    assert not Observers()
    assert Observers(ping=few)  # type: ignore[arg-type]


def test_exceptions_are_logged_and_counted_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Recorder):
        def notify_msg(self, data: bytes) -> None:
            if data == b"exit":
                raise SystemExit
            if data == b"bad":
                raise KeyError("boom")
            super().notify_msg(data)

    bad = Bad()
    one, counters = dispatcher(bad)
    for data in (b"bad", b"exit", b"good"):
        one.put(swim.UserMessage(data, None))
    finish(one)
    assert bad.calls == [("msg", b"good")]
    assert counters["delegate.faults"] == 2
    assert "notify_msg raised KeyError('boom')" in caplog.text


def test_messages_beyond_the_depth_are_dropped_counted_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    one, counters = dispatcher(recorder, depth=2)
    for index in range(5):
        one.put(swim.UserMessage(b"%d" % index, None))
    one.put(swim.NodeJoined(node()))  # never dropped
    assert counters["dropped.notify_msg"] == 3
    assert caplog.text.count("dropping notify_msg") == 1
    finish(one)
    assert recorder.calls == [("msg", b"0"), ("msg", b"1"), ("join", node())]


def test_bytes_are_bounded_but_one_large_message_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "QUEUED_BYTES_MAX", 100)
    recorder = Recorder()
    one, counters = dispatcher(recorder)
    one.put(swim.RemoteState(bytes(500), False))
    one.put(swim.RemoteState(bytes(500), False))
    one.put(swim.UserMessage(b"", None))
    assert counters["dropped.merge_remote_state"] == 1
    finish(one)
    assert [call for call, _ in recorder.calls] == ["state"]


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> tuple[Dispatcher, Recorder]:
    monkeypatch.setattr(dispatch, "FOLD_LIMIT", 0)
    recorder = Recorder()
    return dispatcher(recorder)[0], recorder


JOIN, LEAVE, UPDATE = swim.NodeJoined, swim.NodeLeft, swim.NodeUpdated


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([JOIN], ["join"]),
        ([JOIN, UPDATE], ["join"]),
        ([UPDATE, UPDATE], ["update"]),
        ([UPDATE, LEAVE], ["leave"]),
        ([JOIN, LEAVE], []),
        ([JOIN, UPDATE, LEAVE], []),
        ([LEAVE, JOIN], ["leave", "join"]),
        ([LEAVE, JOIN, LEAVE], ["leave"]),
        ([LEAVE, JOIN, UPDATE, LEAVE, JOIN], ["leave", "join"]),
        ([LEAVE, LEAVE], ["leave"]),
    ],
)
def test_folding(folding: tuple[Dispatcher, Recorder], given: list[Any], told: list[str]) -> None:
    one, recorder = folding
    for incarnation, kind in enumerate(given):
        one.put(kind(node(incarnation=incarnation)))
    finish(one)
    assert [call for call, _ in recorder.calls] == told
    if told:
        assert recorder.calls[-1][1].incarnation == len(given) - 1  # the newest record


@pytest.mark.parametrize("limit", [0, 50])
def test_what_is_told_alternates_ends_true_and_is_bounded(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FOLD_LIMIT", limit)
    rng = random.Random(7)
    recorder = Recorder()
    one, _ = dispatcher(recorder)
    names = [f"n{index}" for index in range(20)]
    present: dict[str, bool] = {}
    for step in range(3000):
        name = rng.choice(names)
        if not present.get(name):
            one.put(JOIN(node(name, step)))
            present[name] = True
        elif rng.random() < 0.5:
            one.put(UPDATE(node(name, step)))
        else:
            one.put(LEAVE(node(name, step)))
            present[name] = False
    assert len(one) <= limit + 2 * len(names)
    finish(one)
    seen: dict[str, bool] = {}
    for call, about in recorder.calls:
        assert seen.get(about.name, False) is (call != "join"), (call, about.name)
        seen[about.name] = call != "leave"
    assert {name for name in names if seen.get(name)} == {name for name in names if present.get(name)}


def test_stop_lets_the_rest_run_but_takes_nothing_new() -> None:
    recorder = Recorder()
    one, _ = dispatcher(recorder)
    one.put(swim.UserMessage(b"before", None))
    one.stop()
    one.put(swim.UserMessage(b"after", None))
    one.put(swim.NodeJoined(node()))
    one.service.start()
    assert one.join(Deadline(10))
    assert recorder.calls == [("msg", b"before")]


def test_callback_that_does_not_end_is_left_behind_with_the_rest() -> None:
    release, started = threading.Event(), threading.Event()

    class Slow(Recorder):
        def notify_msg(self, data: bytes) -> None:
            started.set()
            release.wait(10)
            super().notify_msg(data)

    slow = Slow()
    one, _ = dispatcher(slow)
    one.put(swim.UserMessage(b"1", None))
    one.put(swim.UserMessage(b"2", None))
    one.service.start()
    assert started.wait(10)
    one.stop()
    assert not one.join(Deadline(0))
    release.set()
    assert one.join(Deadline(10))
    assert slow.calls == [("msg", b"1")]


def test_join_from_a_callback_does_not_wait_for_itself() -> None:
    results: list[bool] = []

    class Stopper(Recorder):
        def notify_msg(self, data: bytes) -> None:
            one.stop()
            results.append(one.join(Deadline(None)))

    one, _ = dispatcher(Stopper())
    one.put(swim.UserMessage(b"1", None))
    one.put(swim.UserMessage(b"2", None))
    one.service.start()
    assert one.join(Deadline(10))
    assert results == [False, False]
