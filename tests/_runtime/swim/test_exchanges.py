"""The pool of conversation threads."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import pytest

from mycorrizal import NotRunningError, QueueFull, ResourcesExhausted
from mycorrizal._runtime.swim import exchanges
from mycorrizal._runtime.swim.exchanges import ExchangePool, Lane
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline

SECONDS = 60.0


@pytest.fixture
def pool() -> Iterator[ExchangePool]:
    one = ExchangePool(4, 2, "alice")
    yield one
    one.close()
    assert one.join(Deadline(10))


class Outcome:
    """Collects what a job ended with."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.calls = 0
        self.result: object = None
        self.error: Exception | None = None

    def __call__(self, result: object, error: Exception | None) -> None:
        self.calls += 1
        self.result, self.error = result, error
        self.ended.set()

    def wait(self) -> Outcome:
        assert self.ended.wait(SECONDS)
        return self


def test_results_and_errors_come_back(pool: ExchangePool) -> None:
    good, bad = Outcome(), Outcome()
    pool.submit(Lane.DIALLED, lambda: 42, good)
    pool.submit(Lane.ACCEPTED, lambda: 1 // 0, bad)
    assert good.wait().result == 42
    assert isinstance(bad.wait().error, ZeroDivisionError)


def test_thread_is_named_and_used_again(pool: ExchangePool) -> None:
    names = []
    for _ in range(5):
        outcome = Outcome()
        pool.submit(Lane.DIALLED, lambda: threading.current_thread().name, outcome)
        names.append(outcome.wait().result)
    assert set(names) <= {"mycorrizal-exchange-1", "mycorrizal-exchange-2"}
    assert pool.threads() <= 2


def test_a_lane_leaves_a_thread_to_the_other_and_its_queue_is_bounded(pool: ExchangePool) -> None:
    release = threading.Event()
    held = [Outcome() for _ in range(5)]
    try:
        for outcome in held:  # 3 run, 2 wait
            pool.submit(Lane.ACCEPTED, lambda: release.wait(10), outcome)
            while len(pool._waiting[Lane.ACCEPTED]) and pool._running[Lane.ACCEPTED] < 3:
                threading.Event().wait(0.001)
        assert pool.busy(Lane.ACCEPTED) == 5
        with pytest.raises(QueueFull):
            pool.submit(Lane.ACCEPTED, lambda: None, Outcome())
        free = Outcome()
        pool.submit(Lane.DIALLED, lambda: "dialled", free)
        assert free.wait().result == "dialled"
    finally:
        release.set()
    assert all(outcome.wait().result for outcome in held)


def test_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "_IDLE_SECONDS", 0.01)
    pool = ExchangePool(4, 2, "alice")
    outcome = Outcome()
    pool.submit(Lane.DIALLED, threading.current_thread, outcome)
    thread = outcome.wait().result
    assert isinstance(thread, threading.Thread)
    thread.join(10)
    assert pool.threads() == 0
    again = Outcome()
    pool.submit(Lane.DIALLED, lambda: 1, again)
    assert again.wait().result == 1
    pool.close()
    pool.join(Deadline(10))


def test_close_fails_what_waits_and_interrupts_what_reads() -> None:
    pool = ExchangePool(2, 5, "alice")
    ours, theirs = socket.socketpair()
    reading, waiting = Outcome(), Outcome()
    started = threading.Event()

    def read() -> bytes:
        pool.adopt(ours)
        started.set()
        return ours.recv(10)

    pool.submit(Lane.DIALLED, read, reading)
    pool.submit(Lane.DIALLED, lambda: 1, waiting)
    assert started.wait(10)
    pool.close()
    pool.close()
    assert isinstance(waiting.wait().error, NotRunningError)
    assert reading.wait().result == b""
    with pytest.raises(NotRunningError):
        pool.submit(Lane.DIALLED, lambda: 1, Outcome())
    with pytest.raises(NotRunningError):
        pool.adopt(theirs)
    assert pool.closed
    assert pool.join(Deadline(10))
    pool.release(ours)
    theirs.close()


def test_owner_that_cannot_take_the_result_is_logged(pool: ExchangePool, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def done(result: object, error: Exception | None) -> None:
        ended.set()
        raise KeyError("owner")

    pool.submit(Lane.DIALLED, lambda: 1, done)
    assert ended.wait(10)
    after = Outcome()
    pool.submit(Lane.DIALLED, lambda: 2, after)
    assert after.wait().result == 2
    pool.close()
    assert pool.join(Deadline(10))
    assert "could not take the result" in caplog.text


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    counters = Counters()
    pool = ExchangePool(2, 2, "alice", counters)
    failed: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for lane in (*Lane, *Lane, *Lane):  # more often than jobs may wait
            with pytest.raises(ResourcesExhausted, match="can't start"):
                pool.submit(lane, lambda: failed.append("run"), lambda *outcome: failed.append(outcome))
    assert counters["exchanges.starved"] == 6
    assert not any(pool.busy(lane) for lane in Lane)
    good = Outcome()
    pool.submit(Lane.DIALLED, lambda: 1, good)  # now there is a thread, and it has nothing else to do
    assert good.wait().result == 1
    pool.close()
    assert pool.join(Deadline(10))
    assert failed == []


def test_without_a_second_thread_the_first_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    pool = ExchangePool(4, 9, "alice", counters)
    began, release = threading.Event(), threading.Event()
    first, *more = outcomes = [Outcome() for _ in range(4)]

    def hold() -> None:
        began.set()
        release.wait(10)

    pool.submit(Lane.DIALLED, hold, first)
    assert began.wait(10)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: exec('raise RuntimeError("can\'t start new thread")'))
        for outcome in more:
            pool.submit(Lane.ACCEPTED, lambda: None, outcome)
    assert counters["exchanges.starved"] == 3
    release.set()
    assert [outcome.wait().error for outcome in outcomes] == [None] * 4
    pool.close()
    assert pool.join(Deadline(10))


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_owner_that_raises_ends_no_thread(raised: type[BaseException]) -> None:
    pool = ExchangePool(1, 4, "alice")
    threads: list[threading.Thread] = []

    def done(result: object, error: Exception | None) -> None:
        raise raised("on purpose")

    for _ in range(3):
        pool.submit(Lane.DIALLED, lambda: threads.append(threading.current_thread()), done)
    last = Outcome()
    pool.submit(Lane.DIALLED, threading.current_thread, last)
    assert last.wait().result in threads and len(set(threads)) == 1
    pool.close()
    assert pool.join(Deadline(30))


def test_forked_child_closes_its_copies(pool: ExchangePool) -> None:
    ours, theirs = socket.socketpair()
    pool.adopt(ours)
    pool.abandon_sockets()
    assert ours.fileno() == -1
    theirs.close()


def returns() -> int:
    return 1


def fails() -> None:
    raise OSError("connection reset")


def exits() -> None:
    raise SystemExit(3)


def places(pool: ExchangePool) -> tuple[list[int], list[int]]:
    """Return the places taken and the jobs waiting, by lane."""
    with pool._changed:
        return list(pool._running), [len(queue) for queue in pool._waiting]


def test_places_are_given_back_however_conversations_end(pool: ExchangePool) -> None:
    """As many are taken as conversations are alive, at every step; so in the end all are to be had again."""
    rng = Random(1)
    alive = [0, 0]
    for step in range(200):
        lane = rng.choice((Lane.DIALLED, Lane.ACCEPTED))
        began, go = threading.Event(), threading.Event()
        run = rng.choice((returns, fails, exits))
        outcome = Unwilling() if rng.random() < 0.3 else Outcome()

        def job(began: threading.Event = began, go: threading.Event = go, run: Callable[[], Any] = run) -> Any:
            began.set()
            assert go.wait(SECONDS)
            return run()

        pool.submit(lane, job, outcome)
        assert began.wait(SECONDS)
        alive[lane] += 1
        assert places(pool) == (alive, [0, 0]), step
        assert pool.busy(lane) == 1
        go.set()
        outcome.wait()
        alive[lane] -= 1
        assert places(pool) == (alive, [0, 0]), f"{run.__name__} keeps its place"
        if run is not returns:
            assert outcome.error is not None
    assert pool.threads() <= 4
    test_a_lane_leaves_a_thread_to_the_other_and_its_queue_is_bounded(pool)


class Unwilling(Outcome):
    """An owner that does not take what it is given."""

    def __call__(self, result: object, error: Exception | None) -> None:
        super().__call__(result, error)
        raise SystemExit(4)


def test_what_waits_is_run_though_what_ran_has_ended_badly() -> None:
    pool = ExchangePool(2, 20, "alice")
    outcomes = [Outcome() for _ in range(20)]
    for number, outcome in enumerate(outcomes):
        pool.submit(Lane.ACCEPTED, (exits, fails)[number % 2], outcome)
    assert all(isinstance(outcome.wait().error, Exception) for outcome in outcomes)
    pool.close()
    assert pool.join(Deadline(SECONDS))


def test_places_are_given_back_when_the_pool_closes_with_conversations_in_flight() -> None:
    pool = ExchangePool(4, 5, "alice")
    pairs = [socket.socketpair() for _ in range(3)]
    began = threading.Semaphore(0)
    running, waiting = [Outcome() for _ in pairs], [Outcome() for _ in range(3)]

    def read(sock: socket.socket) -> bytes:
        pool.adopt(sock)
        began.release()
        data = sock.recv(10)
        if not data:
            raise OSError("broken off")
        return data

    for (ours, _), outcome in zip(pairs, running, strict=True):
        pool.submit(Lane.ACCEPTED, partial(read, ours), outcome)
    for _ in pairs:
        assert began.acquire(timeout=SECONDS)
    for outcome in waiting:
        pool.submit(Lane.ACCEPTED, returns, outcome)
    pool.close()
    assert all(isinstance(outcome.wait().error, NotRunningError) for outcome in waiting)
    assert all(isinstance(outcome.wait().error, OSError) for outcome in running)
    assert pool.join(Deadline(SECONDS))
    assert places(pool) == ([0, 0], [0, 0])
    assert [outcome.calls for outcome in (*running, *waiting)] == [1] * 6
    for ours, theirs in pairs:
        pool.release(ours)
        theirs.close()
    assert not pool._sockets


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_job_raises_is_its_end_and_not_the_threads(error: type[BaseException]) -> None:
    pool = ExchangePool(2, 16, "alice")
    ends: queue.SimpleQueue[tuple[object, Exception | None]] = queue.SimpleQueue()

    def fail() -> None:
        raise error

    def done(result: object, failure: Exception | None) -> None:
        ends.put((result, failure))
        raise error

    try:
        for _ in range(4):  # more than there are threads
            pool.submit(Lane.DIALLED, fail, done)
            assert isinstance(ends.get(timeout=20)[1], Exception)
        pool.submit(Lane.DIALLED, lambda: 1, done)
        assert ends.get(timeout=20) == (1, None)
        assert pool.threads() <= 2
    finally:
        pool.close()
        assert pool.join(Deadline(20))
    assert pool.busy(Lane.DIALLED) == 0
