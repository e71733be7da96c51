"""The loop: order, wake-ups that are never lost, timers, and an end that is told."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal._runtime.quic import loop as loop_module
from mycorrizal._runtime.quic.loop import Loop
from mycorrizal._runtime.quic.polling import CROWD
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal.exceptions import NotRunningError, ServiceCrashed

SECONDS = 20.0


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    # Longer than any test waits: the short sleep of every day would hide a wake-up that is lost.
    monkeypatch.setattr(loop_module, "_LONGEST_SLEEP", 3 * SECONDS)
    made = Loop("test")
    made.start()
    yield made
    made.stop()
    assert made.join(Deadline(SECONDS))


def barrier(loop: Loop) -> None:
    done = threading.Event()
    loop.submit(lambda now: done.set())
    assert done.wait(SECONDS)


def test_submissions_run_in_order_on_the_loop_thread(loop: Loop) -> None:
    seen: list[Any] = []
    for number in range(1000):
        loop.submit(lambda now, number=number: seen.append((number, loop.is_current())))
    barrier(loop)
    assert seen == [(number, True) for number in range(1000)]
    assert not loop.is_current()


def test_no_wake_up_is_lost(loop: Loop) -> None:
    """Each round trip needs one; a lost one would take the loop's longest sleep."""
    for _ in range(3000):
        barrier(loop)


def test_no_wake_up_is_lost_with_many_threads(loop: Loop) -> None:
    def work() -> None:
        for _ in range(300):
            barrier(loop)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_a_burst_costs_one_wake(loop: Loop) -> None:
    barrier(loop)
    entered, leave = threading.Event(), threading.Event()

    def wait(now: float) -> None:
        entered.set()
        leave.wait(SECONDS)

    loop.submit(wait)
    assert entered.wait(SECONDS)
    before = loop.wakes
    for _ in range(100):
        loop.submit(lambda now: None)
    assert loop.wakes == before
    leave.set()
    barrier(loop)


def test_timers_fire_in_order_and_cancelled_ones_do_not(loop: Loop) -> None:
    seen: list[int] = []
    done = threading.Event()

    def begin(now: float) -> None:
        loop.call_at(now + 0.02, lambda _: seen.append(2))
        loop.call_at(now + 0.01, lambda _: seen.append(1))
        cancelled = loop.call_at(now + 0.015, lambda _: seen.append(99))
        cancelled.cancel()
        cancelled.cancel()
        assert not cancelled.pending
        loop.call_at(now + 0.03, lambda _: done.set())
        loop.call_at(now - 1, lambda _: seen.append(0))

    loop.submit(begin)
    assert done.wait(SECONDS)
    assert seen == [0, 1, 2]


def test_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    def many(now: float) -> None:
        for _ in range(10_000):
            loop.call_at(now + 1000, lambda _: None).cancel()

    loop.submit(many)
    barrier(loop)
    assert len(loop._heap) <= 256


def test_turn_ends_run_after_everything_else(loop: Loop) -> None:
    seen: list[str] = []

    def end(now: float) -> None:
        seen.append("end")

    def begin(now: float) -> None:
        loop.at_turn_end(end)
        seen.append("call")

    loop.submit(begin)
    barrier(loop)
    assert seen[:2] == ["call", "end"]
    loop.submit(lambda now: loop.remove_turn_end(end))
    barrier(loop)
    count = len(seen)
    barrier(loop)
    assert len(seen) == count


def test_polls_only_while_busy() -> None:
    loop = Loop("test", spin=0.002)
    busy = True
    loop.busy = lambda: busy
    loop.start()
    barrier(loop)
    barrier(loop)
    assert loop.polls > 0
    busy = False
    barrier(loop)
    polls, sleeps = loop.polls, loop.sleeps
    barrier(loop)
    assert loop.sleeps > sleeps and loop.polls == polls
    loop.stop()
    assert loop.join(Deadline(SECONDS))


def test_a_poll_gives_the_core_away_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []
    loop = Loop("test", spin=0.002)
    monkeypatch.setattr(loop_module, "_yield_core", lambda: given.append(loop.is_current()))
    loop.start()
    barrier(loop)
    assert not loop.polls and not given  # nothing to wait for: it sleeps
    loop.busy = lambda: True
    for _ in range(10_000):  # it polls after the first one; on a busy machine a poll may be over before its first look
        barrier(loop)
        if given:
            break
    loop.stop()
    assert loop.join(Deadline(SECONDS))
    assert loop.polls and given and all(given)


@pytest.mark.skipif(not hasattr(os, "sched_yield"), reason="no sched_yield on this system")
def test_giving_the_core_away_gives_the_interpreter_away() -> None:
    give, done = loop_module._yield_core, threading.Event()

    def keep() -> None:
        while not done.is_set():
            give()

    thread = threading.Thread(target=keep)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS / 4)  # the keeper goes on for so long, unless it lets go of the interpreter
    try:
        began = clock.now()
        thread.start()
        done.set()
        thread.join()
        assert clock.now() - began < SECONDS / 4
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(("cores", "calls", "polls"), [(2, CROWD, True), (2, 1, False), (1, CROWD, False)])
def test_polls_by_itself_amid_many_calls_only(
    monkeypatch: pytest.MonkeyPatch, cores: int, calls: int, polls: bool
) -> None:
    monkeypatch.setattr(loop_module, "_cores", lambda: cores)
    loop = Loop("test", spin=None)
    loop.busy = lambda: True
    loop.start()

    def work(now: float) -> None:
        loop.calls += calls

    for _ in range(20):
        loop.submit(work)
        barrier(loop)
    assert bool(loop.polls) is polls
    loop.stop()
    assert loop.join(Deadline(SECONDS))


def test_after_the_end_submissions_are_refused() -> None:
    ended = threading.Event()
    loop = Loop("test", on_end=ended.set)
    loop.start()
    barrier(loop)
    loop.stop()
    assert loop.join(Deadline(SECONDS)) and ended.is_set()
    with pytest.raises(NotRunningError):
        loop.submit(lambda now: None)
    loop.stop()


def test_a_crash_is_told_to_who_comes_later() -> None:
    ended = threading.Event()
    loop = Loop("test", on_end=ended.set)
    loop.start()

    def fail(now: float) -> None:
        raise ZeroDivisionError

    loop.submit(fail)
    assert ended.wait(SECONDS)
    loop.join(Deadline(SECONDS))
    with pytest.raises(ServiceCrashed):
        loop.submit(lambda now: None)


def test_what_is_submitted_around_the_end_is_run_or_refused() -> None:
    for _ in range(50):
        loop = Loop("test")
        loop.start()
        counts = {"run": 0, "refused": 0}

        def work(loop: Loop = loop, counts: dict[str, int] = counts) -> None:
            def ran(now: float) -> None:
                counts["run"] += 1

            try:
                for _ in range(10_000):
                    loop.submit(ran)
            except NotRunningError:
                counts["refused"] += 1

        thread = threading.Thread(target=work)
        thread.start()
        loop.stop()
        assert loop.join(Deadline(SECONDS))
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_clock_is_ours(loop: Loop) -> None:
    times: list[float] = []
    loop.submit(times.append)
    barrier(loop)
    assert abs(times[0] - clock.now()) < SECONDS
