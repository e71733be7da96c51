"""Outcomes on their way to those who wait, and futures finished off the loop."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from mycorrizal import NotRunningError, OperationTimeout, ReentrantCallError, ResourcesExhausted, ServiceCrashed
from mycorrizal._endings import Ending, error
from mycorrizal._runtime.threads import reentry
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.futures import Completions, PlaneFuture, Waiter
from mycorrizal.exceptions import OperationCancelled

WAIT = 20.0


@pytest.fixture
def completions() -> Iterator[Completions]:
    one = Completions("alice", Counters())
    yield one
    one.stop()
    assert one.join(Deadline(WAIT))


def raising(error: BaseException) -> Callable[[], Any]:
    def finish() -> Any:
        raise error

    return finish


class Gate:
    """A finish function that holds the thread until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.go.wait(WAIT)
        return "gate"


def to_process() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def to_this_thread() -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def expect_interrupt(wait: Callable[[], object], send: Callable[[], None] = to_process) -> None:
    """Have another thread `send` a Ctrl-C 20 ms from now, which `wait` has to end with."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    timer = threading.Timer(0.02, send)

    def call() -> None:
        timer.start()
        wait()

    with pytest.raises(KeyboardInterrupt):
        call()
    timer.join()


# -- waiter ---------------------------------------------------------------------------


def test_waiter_that_was_set_before() -> None:
    waiter = Waiter()
    assert not waiter.done
    assert waiter.set("a")
    assert waiter.done
    for _ in range(2):  # again and again
        assert waiter.wait(Deadline(0))
        assert waiter.wait(Deadline(None))
    assert waiter.outcome == "a"


def test_waiter_keeps_the_first_outcome() -> None:
    waiter = Waiter()
    assert waiter.set(None)
    assert not waiter.set("late")
    assert waiter.wait(Deadline(None))
    assert waiter.outcome is None


def test_waiter_in_time_and_late() -> None:
    waiter = Waiter()
    assert not waiter.wait(Deadline(0))
    assert not waiter.wait(Deadline(0.001))
    threading.Timer(0.001, waiter.set, ("a",)).start()
    assert waiter.wait(Deadline(WAIT))
    assert waiter.outcome == "a"


def test_one_of_many_setters_wins() -> None:
    for _ in range(200):
        waiter = Waiter()
        start = threading.Barrier(3)
        won: list[int] = []

        def race(number: int, waiter: Waiter = waiter, start: threading.Barrier = start, won: list[int] = won) -> None:
            start.wait(WAIT)
            if waiter.set(number):
                won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        assert waiter.wait(Deadline(WAIT))
        for thread in threads:
            thread.join()
        assert won == [waiter.outcome]


@pytest.mark.parametrize("timeout", [None, WAIT])
def test_interrupt_ends_a_wait(timeout: float | None) -> None:
    waiter = Waiter()
    expect_interrupt(lambda: waiter.wait(Deadline(timeout)))
    assert not waiter.done
    assert waiter.set("a")
    assert waiter.wait(Deadline(None))


def test_interrupt_that_another_thread_takes_ends_a_wait() -> None:
    """The system may hand the signal to any thread; the main one then sleeps on, and has to look by itself."""
    expect_interrupt(lambda: Waiter().wait(Deadline(None)), to_this_thread)
    expect_interrupt(lambda: PlaneFuture[str]().result(), to_this_thread)



# -- who may wait ---------------------------------------------------------------------


def test_owner_threads_must_not_wait() -> None:
    reentry.refuse("request")
    with reentry.owner("mycorrizal-quic"):
        with pytest.raises(ReentrantCallError, match="request would wait on mycorrizal-quic") as caught:
            reentry.refuse("request")
        assert caught.value.operation == "request"
        with reentry.owner("mycorrizal-gossip"), pytest.raises(ReentrantCallError, match="gossip"):
            reentry.refuse("send")
        with pytest.raises(ReentrantCallError, match="quic"):
            reentry.refuse("send")
        other = threading.Thread(target=reentry.refuse, args=("send",))  # an exception would fail the test
        other.start()
        other.join()
    reentry.refuse("request")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: a fork beside threads
def test_child_forgets_the_owners_of_its_parent() -> None:
    with reentry.owner("mycorrizal-quic"):
        child = os.fork()
        if not child:
            try:
                reentry.refuse("request")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(ReentrantCallError):
            reentry.refuse("request")


# -- futures --------------------------------------------------------------------------


def test_result_and_error_come_from_the_thread_of_futures(completions: Completions) -> None:
    good: PlaneFuture[str] = PlaneFuture()
    bad: PlaneFuture[str] = PlaneFuture()
    completions.post(good, lambda: threading.current_thread().name)
    completions.post(bad, raising(KeyError("x")))
    assert good.result() == "mycorrizal-futures"
    assert good.result(0) == "mycorrizal-futures"
    assert good.exception() is None
    assert isinstance(bad.exception(WAIT), KeyError)
    with pytest.raises(KeyError):
        bad.result()
    assert not good.cancel()
    assert not bad.cancel()


def test_callbacks_run_on_the_thread_of_futures_in_order(completions: Completions) -> None:
    seen: list[tuple[int, str]] = []
    ended = threading.Event()
    for number in range(100):
        future: PlaneFuture[int] = PlaneFuture()
        future.add_done_callback(lambda f: seen.append((f.result(), threading.current_thread().name)))
        completions.post(future, lambda number=number: number)
    last: PlaneFuture[None] = PlaneFuture()
    last.add_done_callback(lambda f: ended.set())
    completions.post(last, lambda: None)
    assert ended.wait(WAIT)
    assert seen == [(number, "mycorrizal-futures") for number in range(100)]


def test_timeout_is_ours_and_builtin() -> None:
    future: PlaneFuture[str] = PlaneFuture()
    for wait in (future.result, future.exception):
        for timeout in (0, -1, 0.001):
            with pytest.raises(OperationTimeout):
                wait(timeout)
        with pytest.raises(ValueError, match="nan"):
            wait(float("nan"))
    assert not future.done()


def test_timeout_of_the_call_itself_comes_through(completions: Completions) -> None:
    future: PlaneFuture[str] = PlaneFuture()
    error = TimeoutError("at the peer")
    completions.post(future, raising(error))
    with pytest.raises(TimeoutError) as caught:
        future.result(WAIT)
    assert caught.value is error


def test_cancel_tells_once_and_wins_over_the_answer(completions: Completions) -> None:
    told: list[str] = []
    future: PlaneFuture[str] = PlaneFuture(lambda: told.append("cancelled"))
    future.add_done_callback(lambda f: told.append("callback"))
    assert future.cancel()
    assert future.cancel()
    assert told == ["cancelled", "callback"]
    assert future.cancelled()
    ran: list[int] = []
    completions.post(future, lambda: str(ran.append(1)))  # type: ignore[func-returns-value]
    after: PlaneFuture[None] = PlaneFuture()
    completions.post(after, lambda: None)
    after.result(WAIT)
    assert ran == []
    for wait in (future.result, future.exception):
        with pytest.raises(OperationCancelled) as caught:
            wait()
        assert isinstance(caught.value, concurrent.futures.CancelledError)
        assert caught.value.indeterminate


@pytest.mark.parametrize("sent", [False, True])
def test_cancel_says_how_far_the_call_had_come(sent: bool) -> None:
    future: PlaneFuture[str] = PlaneFuture(lambda: error(Ending.CANCELLED, "cancelled", sent=sent, node="b"))
    assert future.cancel()
    found = []
    for wait in (future.result, future.exception):
        with pytest.raises(OperationCancelled) as caught:
            wait()
        found.append(caught.value)
    assert [(one.indeterminate, one.node) for one in found] == [(sent, "b")] * 2
    assert found[0] is not found[1]


def test_cancel_that_cannot_be_told_still_cancels() -> None:
    future: PlaneFuture[str] = PlaneFuture(raising(NotRunningError("the end")))
    assert future.cancel()
    assert future.cancelled()


def test_interrupted_cancel_still_cancels() -> None:
    future: PlaneFuture[str] = PlaneFuture(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    with pytest.raises(OperationCancelled):
        future.result(0)


def test_cancelled_by_the_peer_keeps_its_error(completions: Completions) -> None:
    future: PlaneFuture[str] = PlaneFuture()
    error = OperationCancelled("bob cancelled it")
    error.__cause__ = cause = ValueError("why")
    completions.post(future, raising(error))
    with pytest.raises(OperationCancelled, match="bob") as caught:
        future.result(WAIT)
    assert caught.value is error
    assert error.__cause__ is cause
    assert not future.cancelled()


def test_cancel_while_it_is_being_finished_is_too_late(completions: Completions) -> None:
    gate = Gate()
    future: PlaneFuture[str] = PlaneFuture(lambda: pytest.fail("told"))
    completions.post(future, gate)
    assert gate.began.wait(WAIT)
    assert not future.cancel()
    assert future.running()
    gate.go.set()
    assert future.result(WAIT) == "gate"


def test_cancel_ends_a_wait_on_another_thread() -> None:
    future: PlaneFuture[str] = PlaneFuture()
    threading.Timer(0.001, future.cancel).start()
    with pytest.raises(OperationCancelled):
        future.result(WAIT)


def test_interrupt_ends_a_wait_for_a_future(completions: Completions) -> None:
    future: PlaneFuture[str] = PlaneFuture()
    expect_interrupt(future.result)
    completions.post(future, lambda: "a")
    assert future.result(WAIT) == "a"


def test_works_with_wait_and_as_completed(completions: Completions) -> None:
    futures: list[PlaneFuture[int]] = [PlaneFuture() for _ in range(10)]
    seen = concurrent.futures.as_completed(futures, WAIT)
    for number, future in enumerate(futures[1:]):
        completions.post(future, lambda number=number: number)
    futures[0].cancel()
    assert set(seen) == set(futures)
    done, waiting = concurrent.futures.wait(futures, WAIT)
    assert (len(done), len(waiting)) == (10, 0)


def test_race_of_cancel_and_answer_has_one_end(completions: Completions, caplog: pytest.LogCaptureFixture) -> None:
    """Never both, never neither; and ``Future`` complains of nothing."""
    ends: list[str] = []
    for number in range(2000):
        told: list[int] = []
        future: PlaneFuture[str] = PlaneFuture(lambda told=told: told.append(1))
        future.add_done_callback(lambda f: ends.append("x"))
        completions.post(future, lambda: "answer")
        for _ in range(number % 13):
            pass
        cancelled = future.cancel()
        assert future.cancelled() == cancelled == bool(told)
        if not cancelled:
            assert future.result(WAIT) == "answer"
    last: PlaneFuture[None] = PlaneFuture()
    completions.post(last, lambda: None)
    last.result(WAIT)
    assert len(ends) == 2000
    assert caplog.text == ""


def test_wait_on_a_thread_that_is_needed_is_refused(completions: Completions) -> None:
    """On a loop, and in a done-callback for another future; what is done may be looked at anywhere."""
    undone: PlaneFuture[str] = PlaneFuture()
    caught: list[BaseException] = []
    ended = threading.Event()

    def callback(done: concurrent.futures.Future[str]) -> None:
        assert done.result() == "a"
        for wait in (undone.result, undone.exception):
            for timeout in (None, 5, 0):
                try:
                    wait(timeout)
                except (ReentrantCallError, OperationTimeout) as exc:
                    caught.append(exc)
        ended.set()

    future: PlaneFuture[str] = PlaneFuture()
    future.add_done_callback(callback)
    completions.post(future, lambda: "a")
    assert ended.wait(WAIT)
    assert [type(exc) for exc in caught] == [ReentrantCallError, ReentrantCallError, OperationTimeout] * 2
    with reentry.owner("mycorrizal-quic"), pytest.raises(ReentrantCallError):
        undone.result()


def test_wait_lends_the_place_only_if_it_waits() -> None:
    entered: list[bool] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        entered.append(True)
        yield
        entered.append(False)

    enter: Callable[[], AbstractContextManager[None]] = waiting
    future: PlaneFuture[str] = PlaneFuture(waiting=enter)
    with pytest.raises(OperationTimeout):
        future.result(0)
    assert entered == []
    with pytest.raises(OperationTimeout):
        future.result(0.001)
    assert entered == [True, False]
    future.settle(lambda: "a")
    assert future.result() == "a"
    assert entered == [True, False]


def test_failed_future_is_freed_without_the_collector(completions: Completions) -> None:
    gc.collect()
    gc.disable()
    try:
        future: PlaneFuture[str] = PlaneFuture(lambda: None)
        completions.post(future, raising(ValueError("x")))
        with pytest.raises(ValueError, match="x"):
            future.result(WAIT)
        after: PlaneFuture[None] = PlaneFuture()
        completions.post(after, lambda: None)  # the thread has let go of the first one
        after.result(WAIT)
        gone = threading.Event()
        weakref.finalize(future, gone.set)
        del future
        assert gone.wait(WAIT)
    finally:
        gc.enable()


# -- the thread -----------------------------------------------------------------------


def test_thread_starts_with_the_first_future(completions: Completions) -> None:
    assert not completions.service.alive
    future: PlaneFuture[int] = PlaneFuture()
    completions.post(future, lambda: 1)
    assert future.result(WAIT) == 1
    assert completions.service.alive
    completions.start()  # runs already
    assert len(completions) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_exit_in_a_callback_ends_nothing(completions: Completions, caplog: pytest.LogCaptureFixture) -> None:
    bad: PlaneFuture[int] = PlaneFuture()
    bad.add_done_callback(lambda f: sys.exit(3))
    good: PlaneFuture[int] = PlaneFuture()
    completions.post(bad, lambda: 1)
    completions.post(good, lambda: 2)
    assert good.result(WAIT) == 2
    assert "SystemExit(3)" in caplog.text
    assert completions.service.alive


def test_stop_finishes_what_is_queued() -> None:
    one = Completions("alice", Counters())
    gate = Gate()
    futures: list[PlaneFuture[Any]] = [PlaneFuture() for _ in range(5)]
    one.post(futures[0], gate)
    for future in futures[1:]:
        one.post(future, lambda: "done")
    assert gate.began.wait(WAIT)
    one.stop()
    assert not one.join(Deadline(0))
    gate.go.set()
    assert one.join(Deadline(WAIT))
    assert [future.result(0) for future in futures] == ["gate"] + ["done"] * 4


def test_after_the_end_futures_fail_at_once() -> None:
    one = Completions("alice", Counters())
    one.start()
    one.stop()
    assert one.join(Deadline(WAIT))
    future: PlaneFuture[int] = PlaneFuture()
    one.post(future, lambda: 1)
    assert isinstance(future.exception(0), NotRunningError)
    with pytest.raises(NotRunningError):
        one.start()


def test_stop_never_started() -> None:
    one = Completions("alice", Counters())
    one.stop()
    assert one.join(Deadline(0))
    future: PlaneFuture[int] = PlaneFuture()
    one.post(future, lambda: 1)
    assert isinstance(future.exception(0), NotRunningError)


def test_crash_fails_what_waits_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Completions("alice", Counters())
    gate = Gate()
    first: PlaneFuture[Any] = PlaneFuture()
    second: PlaneFuture[Any] = PlaneFuture()
    one.post(first, gate)
    assert gate.began.wait(WAIT)
    one.post(second, lambda: 1)

    monkeypatch.setattr(one, "_counters", None)  # an error of our own: counting a fault fails
    second_settle = second.settle
    calls: list[int] = []

    def settle(finish: Callable[[], Any]) -> bool:
        calls.append(1)
        if len(calls) == 1:
            one._items.appendleft((second, finish))
            raise MemoryError
        return second_settle(finish)

    monkeypatch.setattr(second, "settle", settle)
    gate.go.set()
    assert isinstance(second.exception(WAIT), ServiceCrashed)
    assert one.join(Deadline(WAIT))
    later: PlaneFuture[Any] = PlaneFuture()
    one.post(later, lambda: 1)
    assert isinstance(later.exception(0), ServiceCrashed)
    with pytest.raises(ServiceCrashed):
        one.start()


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, completions: Completions) -> None:
    future: PlaneFuture[int] = PlaneFuture()

    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        completions.post(future, lambda: 1)
        assert isinstance(future.exception(0), ResourcesExhausted)
    again: PlaneFuture[int] = PlaneFuture()
    completions.post(again, lambda: 1)
    assert again.result(WAIT) == 1


def test_no_wake_up_is_lost(completions: Completions) -> None:
    """One at a time, from several threads: each post meets the thread at another point of going to sleep."""

    def post() -> None:
        for number in range(2000):
            future: PlaneFuture[int] = PlaneFuture()
            completions.post(future, lambda number=number: number)
            assert future.result(WAIT) == number

    threads = [threading.Thread(target=post) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_outcome_that_comes_after_the_end_of_the_thread_is_not_known() -> None:
    """A call may have been answered well: whoever is told that it failed must be told this, too."""
    ended = Completions("alice", Counters())
    ended.stop()
    assert ended.join(Deadline(WAIT))
    future = PlaneFuture[str]()
    ended.post(future, lambda: "answer")
    with pytest.raises(NotRunningError) as caught:
        future.result(0)
    assert caught.value.indeterminate
