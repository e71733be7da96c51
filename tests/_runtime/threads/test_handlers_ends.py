"""How threads of request handlers end, and what happens where none is to be had."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from random import Random

import pytest

from mycorrizal._runtime.threads import clock, handlers
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.handlers import HandlerPool
from mycorrizal.exceptions import ResourcesExhausted

from .test_handlers import WAIT, Blocker, blocked, make, settled, widen  # noqa: F401 - make is a fixture

# ruff: noqa: F811 - tests that take it


def test_idle_threads_end_but_for_one(make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "IDLE_SECONDS", 0.001)
    pool = make(workers=4)
    jobs = [Blocker() for _ in range(4)]
    for job in jobs:
        pool.submit(job)
    widen(pool, lambda: all(job.began.is_set() for job in jobs))
    threads = list(pool._threads)
    assert pool.threads >= 4
    for job in jobs:
        job.go.set()
    for _ in range(10000):
        if pool.threads == 1:
            break
        for thread in threads:
            thread.join(0.001)
    assert pool.threads == 1
    ended = threading.Event()
    pool.submit(ended.set)
    assert ended.wait(WAIT)


def test_no_job_is_lost_while_threads_end(make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads give up all the time; each submission meets them at another point of it."""
    monkeypatch.setattr(handlers, "IDLE_SECONDS", 0.00005)
    pool = make(workers=3, spares=3)
    ended = threading.Semaphore(0)

    def lends() -> None:
        with pool.waiting():
            pass
        ended.release()

    pause = threading.Event()
    for number in range(3000):
        assert pool.submit(lends if number % 3 else ended.release)
        pool.tick(number * handlers.PATIENCE / 2)
        if number % 7 == 0:
            pause.wait(number % 11 * 0.00002)
        assert ended.acquire(timeout=WAIT), number  # without another tick
        assert pool.threads <= 6


def test_stop_drops_the_queue_and_lets_the_running_finish(make: Callable[..., HandlerPool]) -> None:
    counters = Counters()
    pool = make(workers=1, counters=counters)
    running = blocked(pool)
    seen: list[int] = []
    for number in range(3):
        pool.submit(lambda number=number: seen.append(number))
    pool.stop()
    assert not pool.submit(lambda: None)
    assert pool.tick(0.0) is None
    assert not pool.join(Deadline(0))
    running.go.set()
    assert pool.join(Deadline(WAIT))
    assert seen == []
    assert counters["handlers.dropped"] == 3
    assert pool.threads == 0


def test_stop_on_a_worker_does_not_wait_for_itself(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1)
    result: Future[bool] = Future()

    def job() -> None:
        pool.stop()
        result.set_result(pool.join(Deadline(None)))

    pool.submit(job)
    assert result.result(WAIT) is False
    assert pool.join(Deadline(WAIT))


def test_stop_never_started(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    pool.stop()
    assert pool.join(Deadline(0))


class NoThread(threading.Thread):
    """What an interpreter that is ending does."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")


def test_no_thread_to_be_had_is_busy(make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    pool = make(counters=counters)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        assert not pool.submit(lambda: None)
        assert (pool.threads, pool.queued) == (0, 0)
    assert counters["handlers.starved"] == 1
    ended = threading.Event()
    assert pool.submit(ended.set)
    assert ended.wait(WAIT)


def test_workers_that_were_started_are_there_when_no_thread_is_to_be_had(
    make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As once the main thread of a program has ended: CPython 3.12.1 starts none from then on."""
    monkeypatch.setattr(handlers, "IDLE_SECONDS", 0.001)
    pool = make(workers=3, spares=1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        barrier, done = threading.Barrier(4), threading.Semaphore(0)

        def job() -> None:
            barrier.wait(10)
            done.release()

        for _ in range(3):
            assert pool.submit(job)
        while barrier.n_waiting < 3:
            pool.tick(clock.now())
        barrier.wait(10)
        for _ in range(3):
            assert done.acquire(timeout=10)
    assert pool.threads == 3


def test_a_pool_without_a_thread_does_not_start(
    make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(workers=3)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        with pytest.raises(ResourcesExhausted, match="the interpreter is ending"):
            pool.start()
    assert pool.threads == 0
    pool.start()
    assert pool.threads == 3


def test_a_second_thread_that_is_not_to_be_had_is_asked_for_seldom(
    make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters()
    pool = make(counters=counters)
    first = blocked(pool)
    ran = threading.Event()
    assert pool.submit(ran.set)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        now, asked = 0.0, 0
        while now < 1.0:
            again = pool.tick(now)
            assert again is not None and again > now
            now, asked = again, asked + 1
    assert counters["handlers.starved"] <= 1.0 / handlers.STARVED + 1 and asked < 30
    assert not ran.is_set()
    pool.tick(now)
    pool.tick(now + handlers.PATIENCE)
    assert ran.wait(WAIT)  # there is one again
    first.go.set()


def test_stuck_says_since_when_nobody_is_free(
    make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [10.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    pool = make(workers=2, spares=1)
    assert pool.stuck(99.0) == 0.0
    first = blocked(pool)
    now[0] = 20.0
    assert pool.stuck(99.0) == 0.0  # one more may run
    second = Blocker()
    assert pool.submit(second)
    widen(pool, second.began.is_set)
    assert pool.stuck(25.0) == 5.0
    first.go.set()
    while pool.stuck(25.0):
        threading.Event().wait(0.001)
    second.go.set()
    settled(pool)
    assert pool.stuck(25.0) == 0.0


def test_stuck_with_places_lent_counts_once_there_are_no_spares(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1, spares=1)
    began, go = threading.Semaphore(0), threading.Event()

    def waits() -> None:
        with pool.waiting():
            began.release()
            go.wait(WAIT)

    assert pool.submit(waits)
    assert began.acquire(timeout=WAIT)
    assert pool.stuck(clock.now() + 60.0) == 0.0
    assert pool.submit(waits)
    widen(pool, lambda: began.acquire(blocking=False))
    assert pool.stuck(clock.now() + 60.0) >= 59.0
    go.set()


def test_end_of_the_interpreter_waits_for_no_worker() -> None:
    """Idle, busy and waiting threads, and a pool that nobody stopped: a clean and quick end."""
    source = """if True:
        import threading
        from mycorrizal._runtime.threads.counters import Counters
        from mycorrizal._runtime.threads.handlers import HandlerPool
        pool = HandlerPool("alice", workers=3, spares=1, queue=9, counters=Counters())
        began = threading.Semaphore(0)
        def waits():
            began.release()
            with pool.waiting():
                threading.Event().wait()
        def blocks():
            began.release()
            threading.Event().wait()
        for job in (waits, blocks, began.release):
            pool.submit(job)
        now = 0.0
        for _ in range(3):
            while not began.acquire(timeout=0.001):
                now += 0.001
                pool.tick(now)
    """
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_no_further_thread_to_be_had_runs_with_what_there_is(
    make: Callable[..., HandlerPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make()
    first = blocked(pool)
    ended = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        assert pool.submit(ended.set)
        for number in range(5):
            pool.tick(float(number))
        assert pool.threads == 1
    first.go.set()
    assert ended.wait(WAIT)


class Odd(Exception):
    """What a handler raises."""


@pytest.mark.parametrize("seed", range(3))
def test_places_are_given_back_however_handlers_end(make: Callable[..., HandlerPool], seed: int) -> None:
    """As many are lent as handlers wait inside our calls, at every step; so in the end all are to be had again."""
    rng = Random(seed)
    pool = make(workers=2, spares=6)

    def job(go: threading.Event, inside: threading.Event, ended: list[threading.Event], depth: int, how: str) -> None:
        try:
            with ExitStack() as stack:
                for _ in range(depth):
                    stack.enter_context(pool.waiting())
                inside.set()
                assert go.wait(WAIT)
                if how == "inside":
                    raise Odd
            if how == "outside":
                sys.exit(3)
        finally:
            ended[0].set()

    waiting: list[tuple[threading.Event, list[threading.Event]]] = []
    for step in range(60):
        if len(waiting) < 6 and rng.random() < 0.6:
            go, inside, ended = threading.Event(), threading.Event(), [threading.Event()]
            how = rng.choice(("well", "inside", "outside"))
            assert pool.submit(partial(job, go, inside, ended, rng.choice((1, 1, 2)), how))
            widen(pool, inside.is_set)
            waiting.append((go, ended))
        elif waiting:
            go, ended = waiting.pop(rng.randrange(len(waiting)))
            go.set()
            assert ended[0].wait(WAIT)
        widen(pool, lambda: pool.lent == len(waiting) == pool.busy)
        assert pool.threads <= 8, step
    for go, _ in waiting:
        go.set()
    settled(pool)
    assert (pool.lent, pool.busy, pool.queued) == (0, 0, 0)
    blockers = [Blocker() for _ in range(3)]
    assert all(pool.submit(one) for one in blockers)
    widen(pool, lambda: blockers[0].began.is_set() and blockers[1].began.is_set())
    assert pool.busy == 2 and not blockers[2].began.is_set(), "workers are as many as before"
    for one in blockers:
        one.go.set()
    assert blockers[2].began.wait(WAIT)


def test_a_killed_worker_gives_its_place_to_a_new_one(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1, spares=0)
    idents: list[int] = []
    for _ in range(3):
        ended = threading.Event()
        assert pool.submit(lambda: idents.append(threading.get_ident()))
        assert pool.submit(ended.set)
        assert ended.wait(WAIT)
        settled(pool)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[-1]), ctypes.py_object(SystemExit))
    ended = threading.Event()
    assert pool.submit(ended.set)
    assert ended.wait(WAIT)
    settled(pool)
    assert (len(idents), pool.threads) == (3, 1)
