"""Threads that are never silent about their end, and what happens to them at exit and after fork."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from mycorrizal import ForkedProcessError, NotRunningError, ServiceCrashed
from mycorrizal._runtime.threads import lifecycle
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.futures import PlaneFuture
from mycorrizal._runtime.threads.service import Service


def test_service_that_ends_refuses_as_not_running() -> None:
    ended = threading.Event()
    service = Service("mycorrizal-test", "alice", lambda: None, ended.set)
    assert service.join(Deadline(None))  # never started: nothing to wait for
    service.start()
    assert service.join(Deadline(10))
    assert ended.is_set()
    assert not service.alive
    assert isinstance(service.refusal(), NotRunningError)


def test_crash_is_kept_chained_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    service = Service("mycorrizal-test", "alice", lambda: {"a": None}["x"], lambda: None)
    service.start()
    assert service.join(Deadline(10))
    error = service.refusal()
    assert isinstance(error, ServiceCrashed)
    assert isinstance(error.__cause__, KeyError)
    assert "thread mycorrizal-test died: KeyError" in caplog.text


def test_service_does_not_wait_for_itself() -> None:
    results: list[bool] = []

    def body() -> None:
        results.extend((service.is_current(), service.join(Deadline(None))))

    service = Service("mycorrizal-test", "alice", body, lambda: None)
    assert not service.is_current()
    service.start()
    assert service.join(Deadline(10))
    assert results == [True, False]


class Running:
    """Remembers what was done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def join(self, deadline: Deadline) -> bool:
        self.calls.append("join")
        return True

    def abandon(self) -> None:
        self.calls.append("abandon")


@pytest.fixture
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    monkeypatch.setattr(lifecycle, "_running", weakref.WeakSet())


@pytest.mark.usefixtures("no_others")
def test_exit_stops_what_still_runs() -> None:
    kept, forgotten, dropped = Running(), Running(), Running()
    for one in (kept, forgotten, dropped):
        lifecycle.remember(one)
    lifecycle.forget(forgotten)
    del dropped
    gc.collect()
    lifecycle._at_exit()
    assert kept.calls == ["stop", "join"]
    assert forgotten.calls == []


@pytest.mark.usefixtures("no_others")
def test_child_abandons_and_forgets() -> None:
    one = Running()
    lifecycle.remember(one)
    lifecycle._in_child()
    lifecycle._at_exit()
    assert one.calls == ["abandon"]


def test_fork_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = lifecycle.ForkGuard()
    guard.check("Memberlist")
    assert not guard.forked
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert guard.forked
    with pytest.raises(ForkedProcessError, match="create a new one in the child"):
        guard.check("Memberlist")


def test_child_does_not_wait_for_its_parents_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished, finished = PlaneFuture[int](), PlaneFuture[int]()
    assert finished.settle(lambda: 1)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert finished.result() == 1
    for wait in (unfinished.result, unfinished.exception):
        with pytest.raises(ForkedProcessError, match="future"):
            wait()
