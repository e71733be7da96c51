"""Waits go in slices: the main thread sees a signal that another thread took, others see the main thread's end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from mycorrizal import NotRunningError, OperationTimeout
from mycorrizal._runtime.threads import clock, waits
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.futures import PlaneFuture, Waiter
from mycorrizal._runtime.threads.starting import own_thread


def test_slice_leaves_room_within_what_is_promised() -> None:
    assert waits.SLICE <= 0.05


def elsewhere(call: Callable[[], Any]) -> Any:
    """Return what `call` returns on another thread than the main one."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(call())).start()
    return answer.get(timeout=20)


def test_wait_on_the_main_thread_is_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "SLICE", 0.002)
    slept: list[float] = []

    def wait(seconds: float) -> bool:
        slept.append(seconds)
        return len(slept) == 3

    assert waits.wait_sliced(wait, Deadline(None))
    assert slept == [0.002] * 3
    waiter = Waiter()
    assert not waiter.wait(Deadline(0.005))
    threading.Timer(0.01, waiter.set, ("a",)).start()
    assert waiter.wait(Deadline(None))
    future: PlaneFuture[str] = PlaneFuture()
    with pytest.raises(OperationTimeout):
        future.result(0.005)
    threading.Timer(0.01, future.settle, (lambda: "b",)).start()
    assert future.result() == "b"


def test_settled_waits_for_any_outcome() -> None:
    future: Future[int] = Future()
    assert not waits.settled(future, Deadline(0))
    assert not elsewhere(lambda: waits.settled(future, Deadline(0.005)))
    threading.Timer(0.01, future.set_exception, (TimeoutError("its own"),)).start()
    assert waits.settled(future, Deadline(None)) and waits.settled(future, Deadline(0))
    cancelled: Future[int] = Future()
    threading.Timer(0.01, cancelled.cancel).start()
    assert waits.settled(cancelled, Deadline(20))


def test_threads_and_gates_are_waited_for_until_the_deadline() -> None:
    gate = threading.Lock()
    gate.acquire()
    thread = threading.Thread(target=gate.acquire)
    thread.start()
    assert not waits.join_thread(thread, Deadline(0.01))
    assert not elsewhere(lambda: waits.join_thread(thread, Deadline(0.01)))
    assert not waits.pass_gate(gate, Deadline(0.01))
    assert not elsewhere(lambda: waits.pass_gate(gate, Deadline(0.01)))
    gate.release()
    assert waits.join_thread(thread, Deadline(None))
    gate.release()
    assert waits.pass_gate(gate, Deadline(None))
    waits.pause(0.001)
    waits.pause(-1)


def test_waits_are_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "SLICE", 0.002)
    monkeypatch.setattr(waits, "LONG_SLICE", 0.003)
    slept: list[float] = []

    def wait(seconds: float) -> bool:
        slept.append(seconds)
        return len(slept) % 3 == 0

    assert waits.wait_sliced(wait, Deadline(None))
    assert slept == [0.002] * 3
    other = threading.Thread(target=waits.wait_sliced, args=(wait, Deadline(None)))
    other.start()
    other.join()
    assert slept[3:] == [0.003] * 3
    slept[:] = slept[:5]
    own = own_thread("mycorrizal-test", lambda: waits.wait_sliced(wait, Deadline(None)))
    own.start()
    own.join()
    assert slept[5:] == [-1], "one of ours holds up nobody's end"


def test_the_end_of_the_main_thread_ends_waits_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without an end at once, those with one a little later; not on the main thread itself, nor on ours."""
    now = 100.0
    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setattr(waits._ending, "since", 100.0)

    def raised(endless: bool) -> list[str]:
        found: list[str] = []

        def look() -> None:
            try:
                waits.heed_the_end(endless=endless)
            except NotRunningError as error:
                found.append(str(error))

        for thread in (threading.Thread(target=look), own_thread("mycorrizal-test", look)):
            thread.start()
            thread.join()
        look()
        return found

    assert len(raised(True)) == 1 and raised(False) == []
    now += waits.LAST_SECONDS + 0.1
    assert len(raised(False)) == 1
