"""A bounded pool of threads, each of which carries one TCP conversation at a time.

Two lanes, what we dial and what we accept; neither may take the last quarter of
the threads, so that strangers who connect and say nothing cannot keep us from
dialling, nor two nodes that dial each other from answering. Threads are named
``mycorrizal-exchange-k``. Two are there from the start and stay, since a
program whose main thread has ended may get no new one (CPython 3.12.1); others
come on demand and go after some idle seconds.
"""

from __future__ import annotations

import enum
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ..._endings import Ending, error
from ..._wire.text import logger
from ...exceptions import MycorrizalError, QueueFull, ResourcesExhausted
from ..threads.counters import Counters
from ..threads.deadline import Deadline
from ..threads.shortage import start_thread
from ..threads.starting import own_thread
from ..threads.waits import join_thread

__all__ = ["ExchangePool", "Lane"]

log = logger("mycorrizal.exchanges")

T = TypeVar("T")

_IDLE_SECONDS = 10.0
"""A thread without work ends after this long."""


_KEPT = 2
"""Threads that stay: one for each lane."""


class Lane(enum.IntEnum):
    """What a job is for."""

    DIALLED = 0
    ACCEPTED = 1


@dataclass(slots=True)
class _Job:
    lane: Lane
    run: Callable[[], Any]
    done: Callable[[Any, Exception | None], None]


class ExchangePool:
    """Runs jobs on at most `threads` threads. Every method may be called on any thread.

    Args:
        threads: most threads at a time, at least 2.
        waiting: most jobs of one lane that may wait for a thread.
        node: the node's name, for logs.
        counters: ``exchanges.starved`` counts threads that were not to be had.
    """

    def __init__(self, threads: int, waiting: int, node: str, counters: Counters | None = None) -> None:
        self._threads_max = threads
        self._lane_max = max(1, threads - max(1, threads // 4))
        self._waiting_max = waiting
        self._node = node
        self._counters = Counters() if counters is None else counters
        self._changed = threading.Condition()
        self._waiting: tuple[deque[_Job], deque[_Job]] = (deque(), deque())
        self._running = [0, 0]
        self._idle = 0
        self._spawned = 0
        self._kept = 0
        self._threads: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()
        self._closed = False

    def start(self) -> None:
        """Start the threads that stay.

        Raises:
            ResourcesExhausted: not even one is to be had.
        """
        with self._changed:
            self._kept = _KEPT
            for _ in range(_KEPT):
                self._spawn()

    def submit(self, lane: Lane, run: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run `run` on a thread of the pool, then call ``done(result, error)`` there, exactly once.

        Raises:
            QueueFull: too many jobs of this lane are waiting; `done` will not be called.
            NotRunningError: the pool was closed; `done` will not be called.
            ResourcesExhausted: no thread runs and none is to be had; `done` will not be called.
        """
        with self._changed:
            if self._closed:
                raise self.refusal()
            queue = self._waiting[lane]
            if len(queue) >= self._waiting_max:
                raise QueueFull(f"{len(queue)} conversations are waiting for a thread", hint="raise exchange_threads")
            queue.append(_Job(lane, run, done))
            if self._runnable() > self._idle and len(self._threads) < self._threads_max:
                try:
                    self._spawn()
                except BaseException:
                    queue.pop()  # or it would run all the same, once there is a thread
                    raise
            else:
                self._changed.notify()

    def _runnable(self) -> int:
        """Return how many waiting jobs could start now, as far as their lanes go."""
        return sum(min(len(self._waiting[lane]), self._lane_max - self._running[lane]) for lane in Lane)

    def _spawn(self) -> None:
        self._spawned += 1
        thread = own_thread(f"mycorrizal-exchange-{self._spawned}", self._work)
        try:
            start_thread(thread)
        except ResourcesExhausted:
            self._counters.add("exchanges.starved")
            if not self._threads:  # those that run must do
                raise
        else:
            self._threads.add(thread)

    # -- sockets that close() must wake --------------------------------------------------

    def adopt(self, sock: socket.socket) -> None:
        """Let ``close`` interrupt what is done on `sock`.

        Raises:
            NotRunningError: the pool was closed.
        """
        with self._changed:
            if self._closed:
                raise self.refusal()
            self._sockets.add(sock)

    def release(self, sock: socket.socket) -> None:
        """Forget `sock` and close it."""
        with self._changed:
            self._sockets.discard(sock)
        sock.close()

    # -- views ------------------------------------------------------------------------------

    def busy(self, lane: Lane) -> int:
        """Return how many jobs of `lane` run or wait."""
        return self._running[lane] + len(self._waiting[lane])

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def threads(self) -> int:
        """Return how many threads there are now."""
        return len(self._threads)

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Break off what runs, fail what waits, end the threads; does not wait for them. Idempotent."""
        with self._changed:
            self._closed = True
            jobs = [job for queue in self._waiting for job in queue]
            for queue in self._waiting:
                queue.clear()
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads, writes or connects
                except OSError:
                    pass
            self._changed.notify_all()
        for job in jobs:
            self._finish(job, None, self.refusal())

    def refusal(self, *, sent: bool = False) -> MycorrizalError:
        """Return the error for a job that comes too late; `sent`: it had begun to talk. Any thread."""
        text = f"{self._node}: this Memberlist was shut down"
        return error(Ending.CLOSED, text, sent=sent, hint="create a new one")

    def abandon_sockets(self) -> None:
        """Close inherited descriptors in a forked child. Takes no lock: its holder may not exist here."""
        for sock in list(self._sockets):
            sock.close()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the threads to end; False if some still run at the deadline."""
        current = threading.current_thread()
        threads = [thread for thread in list(self._threads) if thread is not current]
        for thread in threads:
            join_thread(thread, deadline)
        return not any(thread.is_alive() for thread in threads)

    # -- the threads ------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (job := self._take()) is not None:
                result: Any = None
                error: Exception | None = None
                try:
                    result = job.run()
                except Exception as exc:
                    error = exc
                except BaseException as exc:  # sys.exit() in a conversation ends neither us nor the process
                    error = RuntimeError(f"a conversation raised {exc!r}")
                with self._changed:
                    self._running[job.lane] -= 1
                self._finish(job, result, error)
                del job, result, error  # an idle thread must not keep a peer's 20 MiB alive
        finally:
            with self._changed:
                if not self._closed:  # else join() still wants to see it end
                    self._threads.discard(threading.current_thread())
                    if self._runnable() > self._idle:  # this one was killed
                        with suppress(RuntimeError):
                            self._spawn()

    def _take(self) -> _Job | None:
        with self._changed:
            while True:
                for lane in Lane:
                    if self._waiting[lane] and self._running[lane] < self._lane_max:
                        self._running[lane] += 1
                        return self._waiting[lane].popleft()
                if self._closed:
                    return None
                self._idle += 1
                try:
                    woken = self._changed.wait(_IDLE_SECONDS)
                finally:
                    self._idle -= 1
                if not woken and not self._runnable() and len(self._threads) > self._kept:
                    # Leave the set before anybody can count on this thread.
                    self._threads.discard(threading.current_thread())
                    return None

    def _finish(self, job: _Job, result: Any, error: Exception | None) -> None:
        try:
            job.done(result, error)
        except BaseException:
            log.exception("%s: an exchange ended, and its owner could not take the result", self._node)
