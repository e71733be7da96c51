"""The threads of request handlers: few awake, none blocked for good, no job lost."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from mycorrizal._runtime.threads import handlers
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.futures import Waiter
from mycorrizal._runtime.threads.handlers import HandlerPool

WAIT = 20.0


@pytest.fixture
def make() -> Iterator[Callable[..., HandlerPool]]:
    """Make pools that are stopped, and end, with the test."""
    pools: list[HandlerPool] = []

    def one(workers: int = 4, spares: int = 8, queue: int = 256, **more: Counters) -> HandlerPool:
        counters = more.get("counters") or Counters()
        pools.append(HandlerPool("alice", workers=workers, spares=spares, queue=queue, counters=counters))
        return pools[-1]

    yield one
    for pool in pools:
        pool.stop()
    for pool in pools:
        assert pool.join(Deadline(WAIT))
        assert (pool.threads, pool.busy, pool.lent) == (0, 0, 0)


class Blocker:
    """A job that holds its thread until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> None:
        self.began.set()
        assert self.go.wait(WAIT)


def blocked(pool: HandlerPool) -> Blocker:
    job = Blocker()
    assert pool.submit(job)
    assert job.began.wait(WAIT)
    return job


def settled(pool: HandlerPool) -> None:
    """Wait until nothing is queued and all threads are idle."""
    while pool.busy or pool.queued:
        done = threading.Event()
        if pool.submit(done.set):
            assert done.wait(WAIT)


def widen(pool: HandlerPool, until: Callable[[], bool]) -> None:
    """Drive ``tick``, a millisecond of our own clock at a time, until `until()`."""
    deadline = Deadline(WAIT)
    now = 0.0
    while not until():
        assert not deadline.passed
        now = pool.tick(now) or now
        threading.Event().wait(0.0001)  # lets the workers run


def test_jobs_run_in_order_on_one_named_daemon(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    assert (pool.threads, pool.queued, pool.busy) == (0, 0, 0)
    seen: list[tuple[int, str, bool, bool]] = []
    ended = threading.Event()
    for number in range(100):

        def job(number: int = number) -> None:
            thread = threading.current_thread()
            seen.append((number, thread.name, thread.daemon, pool.is_worker()))

        assert pool.submit(job)
    assert pool.submit(ended.set)
    assert ended.wait(WAIT)
    assert seen == [(number, "mycorrizal-handler-1", True, True) for number in range(100)]
    assert not pool.is_worker()


def test_idle_worker_is_used_again(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    for _ in range(200):
        ended = threading.Event()
        assert pool.submit(ended.set)
        assert ended.wait(WAIT)
        assert pool.tick(0.0) is None or pool.queued
    assert pool.threads == 1


def test_one_awake_worker_is_left_alone_for_a_millisecond(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    first = blocked(pool)
    ran = threading.Event()
    assert pool.submit(ran.set)
    assert pool.tick(5.0) == 5.0 + handlers.PATIENCE
    assert pool.tick(5.0 + handlers.PATIENCE / 2) == 5.0 + handlers.PATIENCE
    assert pool.threads == 1
    pool.tick(5.0 + handlers.PATIENCE)
    assert ran.wait(WAIT)
    assert pool.threads == 2
    first.go.set()


def test_blocking_handlers_get_all_workers_within_milliseconds(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=16)
    jobs = [Blocker() for _ in range(40)]
    for job in jobs:
        assert pool.submit(job)
    for number in range(1, 5):  # milliseconds
        pool.tick(number * handlers.PATIENCE)
        assert pool.tick((number + 1) * handlers.PATIENCE)
        for job in jobs[: 2**number]:
            assert job.began.wait(WAIT)
        assert pool.threads == 2**number
    for job in jobs[:16]:
        assert job.began.wait(WAIT)
    assert pool.busy == 16
    assert pool.tick(1.0) is None  # no more to be had: nothing to be called for
    for job in jobs:
        job.go.set()
    settled(pool)
    assert pool.threads == 16


def test_steady_short_jobs_wake_no_second_worker(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    gate = blocked(pool)
    now = 0.0
    for _ in range(50):
        ended = threading.Event()
        pool.submit(ended.set)
        pool.tick(now)
        gate.go.set()  # the queue moves on before its first job is 1 ms old
        assert ended.wait(WAIT)
        now += 10 * handlers.PATIENCE
        pool.tick(now)
    assert pool.threads == 1


def test_full_queue_refuses(make: Callable[..., HandlerPool]) -> None:
    counters = Counters()
    pool = make(workers=2, spares=0, queue=3, counters=counters)
    first = blocked(pool)
    second = Blocker()
    assert pool.submit(second)  # a free worker could have it
    assert [pool.submit(lambda: None) for _ in range(4)] == [True, True, True, False]
    widen(pool, second.began.is_set)
    assert pool.queued == 3
    assert not pool.submit(lambda: None)
    assert counters["handlers.refused"] == 2
    first.go.set()
    second.go.set()
    settled(pool)
    assert pool.submit(lambda: None)


def test_without_a_queue_only_free_workers_take_jobs(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=2, spares=5, queue=0)
    first = blocked(pool)
    second = Blocker()
    assert pool.submit(second)
    assert not pool.submit(lambda: None)
    widen(pool, second.began.is_set)
    assert not pool.submit(lambda: None)
    first.go.set()
    second.go.set()
    settled(pool)


def test_fault_is_logged_and_counted_and_the_worker_goes_on(
    make: Callable[..., HandlerPool], caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    pool = make(counters=counters)
    ended = threading.Event()
    for job in (lambda: 1 / 0, sys.exit, ended.set):
        assert pool.submit(job)  # type: ignore[arg-type]
    assert ended.wait(WAIT)
    assert counters["handlers.faults"] == 2
    assert "ZeroDivisionError" in caplog.text
    assert "SystemExit" in caplog.text
    assert pool.threads == 1


def test_idle_worker_keeps_no_value_alive(make: Callable[..., HandlerPool]) -> None:
    class Value:
        def __call__(self) -> None:
            pass

    pool = make()
    value = Value()
    gone = threading.Event()
    weakref.finalize(value, gone.set)
    pool.submit(value)
    del value
    assert gone.wait(WAIT)


# -- lent places ----------------------------------------------------------------------


def test_waiting_worker_lends_its_place(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1, spares=1)
    answered = Waiter()
    result: Future[bool] = Future()

    def outer() -> None:
        with pool.waiting(), pool.waiting():  # counted once
            result.set_result(answered.wait(Deadline(WAIT)))

    pool.submit(outer)

    def inner() -> None:
        answered.set(None)

    pool.submit(inner)
    assert result.result(WAIT)
    settled(pool)
    assert pool.threads == 2
    assert pool.lent == 0


def test_a_worker_between_two_jobs_lends_its_place_and_counts_as_no_job(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1, spares=1)
    go, inside, back = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        with pool.between():
            inside.set()
            assert go.wait(WAIT)
        back.set()

    pool.submit(job)
    assert inside.wait(WAIT)
    assert (pool.lent, pool.busy, pool.crowded) == (1, 0, False) and pool.stuck(1e12) == 0
    blocker = blocked(pool)
    assert pool.crowded
    go.set()
    assert back.wait(WAIT)
    blocker.go.set()
    settled(pool)
    assert pool.lent == 0


def test_waiting_elsewhere_does_nothing(make: Callable[..., HandlerPool]) -> None:
    pool = make()
    with pool.waiting(), pool.waiting():
        assert pool.lent == 0
        assert pool.threads == 0


def test_wait_that_fails_gives_the_place_back(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=1, spares=1)

    def job() -> None:
        with pool.waiting():
            raise TimeoutError

    pool.submit(job)
    settled(pool)
    assert pool.lent == 0


def test_returned_places_are_paid_back(make: Callable[..., HandlerPool]) -> None:
    """When all who waited are back at once, no more than `workers` go on taking jobs."""
    pool = make(workers=2, spares=6)
    barrier = threading.Barrier(8)
    back = threading.Barrier(8)

    def waits() -> None:
        with pool.waiting():
            barrier.wait(WAIT)
        back.wait(WAIT)

    running = 0
    most = 0
    lock = threading.Lock()

    def counts() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    for _ in range(8):
        assert pool.submit(waits)
    for _ in range(200):
        assert pool.submit(counts)
    widen(pool, lambda: pool.queued == 0 or back.broken)
    settled(pool)
    assert pool.threads == 8
    assert most <= 2


@pytest.mark.parametrize("calls", [64])
def test_two_pools_that_call_into_each_other_finish(make: Callable[..., HandlerPool], calls: int) -> None:
    """64 requests each way at once, every handler calling back: more nested calls than there are workers."""
    pools = make(workers=4, spares=64), make(workers=4, spares=64)
    finished = threading.Semaphore(0)

    def call(side: int, depth: int) -> None:
        """What a handler does: ask the other side, and wait."""
        if depth:
            answer = Waiter()

            def ask() -> None:
                call(1 - side, depth - 1)
                answer.set(None)

            while not pools[1 - side].submit(ask):  # Busy
                pass
            with pools[side].waiting():
                assert answer.wait(Deadline(WAIT))

    def request(side: int) -> None:
        call(side, 1)
        finished.release()

    for _, side in itertools.product(range(calls), (0, 1)):
        assert pools[side].submit(lambda side=side: request(side))
    now = 0.0
    for _ in range(2 * calls):
        while not finished.acquire(timeout=0.001):
            for pool in pools:
                pool.tick(now)
            now += 0.001
    assert all(pool.threads <= 4 + 64 for pool in pools)


def test_out_of_spares_jobs_wait_and_none_is_lost(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=2, spares=1, queue=10)
    answers = [Waiter() for _ in range(3)]

    def wait(answer: Waiter) -> None:
        with pool.waiting():
            answer.wait(Deadline(WAIT))

    for answer in answers:
        pool.submit(lambda answer=answer: wait(answer))
    widen(pool, lambda: pool.lent == 3)
    ran = threading.Event()
    assert pool.submit(ran.set)
    assert pool.tick(1.0) is None
    assert pool.threads == 3
    answers[0].set(None)
    assert ran.wait(WAIT)
    for answer in answers:
        answer.set(None)


def test_worker_blocked_outside_our_waits_costs_only_its_place(make: Callable[..., HandlerPool]) -> None:
    pool = make(workers=2, spares=4)
    stuck = blocked(pool)
    for number in range(100):
        ended = threading.Event()
        assert pool.submit(ended.set)
        widen(pool, ended.is_set)
        assert number or pool.threads == 2
    assert pool.threads == 2
    stuck.go.set()
