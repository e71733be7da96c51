"""The thread ``mycorrizal-quic``: one turn after another, each of them reads everything, then writes everything.

A turn: wait → read datagrams → run what was submitted → due timers → the
end-of-turn hooks, which transmit. Work that arrives while a turn runs costs no
system call; only a loop that sleeps, or is about to, is woken by a descriptor.
"""

from __future__ import annotations

import heapq
import math
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from ..._wire.text import logger
from ..threads import clock
from ..threads.deadline import Deadline
from ..threads.service import Service
from .polling import Polling

__all__ = ["Loop", "Timer"]

log = logger("mycorrizal.quic")

_LONGEST_SLEEP = 1.0  # a Ctrl-C inside ``submit`` can swallow a wake-up; it costs this much and no more
_QUIET_MAX = 4
_WOKEN_SECONDS = 0.001
"""How long callers that were woken may keep the loop from going on without them."""
_FD_SETSIZE = 1024  # select() takes descriptors below it, and timeouts in microseconds; poll() only milliseconds

Call = Callable[[float], object]


class Source(Protocol):
    """What can be waited for and closed: a socket, or an epoll."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Timer:
    """A call at a later time; made by ``Loop.call_at``."""

    __slots__ = ("_call", "when")

    def __init__(self, when: float, call: Call) -> None:
        self.when = when
        self._call: Call | None = call

    def cancel(self) -> None:
        """Do not call. Loop thread; harmless afterwards and twice."""
        self._call = None

    @property
    def pending(self) -> bool:
        """Whether it will still be called."""
        return self._call is not None

    def fire(self, now: float) -> None:
        """Call, once."""
        call, self._call = self._call, None
        if call is not None:
            call(now)


class _Waker:
    """What a sleeping loop is woken with: an eventfd, or a socket pair where there is none."""

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.fd = self._pair[0].fileno()
        self._lock = threading.RLock()  # wake() races with close(): a closed number may be somebody else's file
        self._closed = False

    def wake(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                if self._pair is None:
                    os.eventfd_write(self.fd, 1)
                else:
                    self._pair[1].send(b"\0")
            except BlockingIOError:
                pass  # it is awake many times over

    def drain(self) -> None:
        try:
            if self._pair is None:
                os.eventfd_read(self.fd)
            else:
                self._pair[0].recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close without a lock, in a forked child."""
        if self._closed:
            return  # the number may be somebody else's by now
        self._closed = True
        if self._pair is None:
            os.close(self.fd)
        else:
            for end in self._pair:
                end.close()


class Loop:
    """Runs everything that concerns QUIC on one thread.

    Attributes:
        node: name of the node, for messages.
        polling: says when to poll without sleeping, and only while ``busy()`` is true.
        busy: whether polling can be of use and is nobody's harm; set by the owner, any cheap callable.
        calls: how many callers this turn has woken, and requests it has handed to handlers.
        afterwards: what a turn does last of all, after it has transmitted: wake other threads. A thread that is
            woken takes the processor, and often the interpreter, from a loop that is in the middle of its turn.
        turns, wakes, sleeps, polls: counters of what it did; written by the loop (wakes: by any thread, unlocked).
    """

    def __init__(self, node: str, *, spin: float | None = 0.0, on_end: Callable[[], None] | None = None) -> None:
        self.node = node
        self.polling = Polling(spin, _cores())
        self.busy: Callable[[], bool] = _never
        self.turns = self.wakes = self.sleeps = self.polls = self.calls = 0
        self._queue: deque[Call] = deque()
        self._sleeping = False
        self._running = False  # what was submitted
        self._stopping = False
        self._ended = False
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._compact_at = 256
        self._readers: dict[int, tuple[Source, Call]] = {}
        self._fds: list[int] = []
        self._poll: select.poll | None = None
        self._turn_ends: list[Call] = []
        self.afterwards: deque[Callable[[], object]] = deque()
        self._woken: list[None] = []  # one for each caller that was woken and has not run yet
        self._on_end = on_end
        self._waker = _Waker()
        self._watch()
        self.service = Service("mycorrizal-quic", node, self._run, self._end, "DataPlane")

    # -- any thread ---------------------------------------------------------------

    def start(self) -> None:
        """Start the thread.

        Raises:
            ResourcesExhausted: no thread can be started.
        """
        try:
            self.service.start()
        except BaseException:
            self._end()
            raise

    def discard(self) -> None:
        """Close the descriptor of a loop that did not start. Idempotent."""
        self._ended = True
        self._waker.close()

    def submit(self, fn: Call) -> None:
        """Run `fn(now)` on the loop thread, in the order of submission. Any thread; an append and at most one wake.

        Raises:
            NotRunningError, ServiceCrashed: the loop has ended.
        """
        if self._ended:
            raise self.service.refusal()
        self._queue.append(fn)
        # The loop looks at the queue after it has said that it sleeps, so one of the two sees the other.
        if self._sleeping and not self._woken:
            self._sleeping = False
            self.wakes += 1
            self._waker.wake()
        if self._ended:
            # It ended between the two looks: either it still took fn, or fn is ours to take back.
            try:
                self._queue.remove(fn)
            except ValueError:
                return
            raise self.service.refusal()

    @property
    def quiet(self) -> bool:
        """Whether all that the caller has submitted has run, and no other is about to submit. Any thread.

        Several callers that a turn has woken are: what the first of them sent alone, its peer would answer alone.
        """
        return not self._queue and not self._running and not self._woken  # popped while that is true: in this order

    def submit_quietly(self, fn: Call) -> None:
        """Like ``submit``, for work that a turn which is known to come soon will find: wakes the loop for every fourth.

        Raises:
            NotRunningError, ServiceCrashed: the loop has ended.
        """
        if self._ended:
            raise self.service.refusal()
        self._queue.append(fn)
        if len(self._queue) >= _QUIET_MAX:
            self.kick()

    def ran(self) -> None:
        """A caller that a turn has woken runs. The last of them lets the loop go on with what the others submitted.

        When a datagram answers many callers, each of them soon submits its
        next call. A loop that woke for the first of these would send it alone.
        """
        woken = self._woken
        try:
            woken.pop()
        except IndexError:
            return
        if not woken:
            self.kick()

    def kick(self) -> None:
        """Wake the loop if it sleeps although there is work. Any thread."""
        if self._queue and self._sleeping:
            self._sleeping = False
            self.wakes += 1
            self._waker.wake()

    def stop(self) -> None:
        """Let the thread end after the turn it is in. Does not wait; any thread."""
        self._stopping = True
        self._waker.wake()

    def join(self, deadline: Deadline) -> bool:
        """Wait until the thread has ended; False if the deadline passed, or it is the caller's own."""
        return self.service.join(deadline)

    def abandon(self) -> None:
        """Close descriptors without a lock: a forked child has no loop thread."""
        self._stopping = self._ended = True
        self._waker.abandon()
        for sock, _ in self._readers.values():
            sock.close()

    def is_current(self) -> bool:
        """Whether the caller runs on the loop thread."""
        return self.service.is_current()

    def metrics(self) -> dict[str, int]:
        """Return how often it polled, and how often in vain."""
        return {"polls": self.polls, "polls.vain": self.polling.vain}

    # -- loop thread, or before start() -----------------------------------------------

    def call_at(self, when: float, fn: Call) -> Timer:
        """Call `fn(now)` at clock time `when` or as soon as possible after. Loop thread."""
        timer = Timer(when, fn)
        heap = self._heap
        if len(heap) >= self._compact_at:  # cancelled timers stay in until due; never more of them than live ones
            heap[:] = [item for item in heap if item[2].pending]
            heapq.heapify(heap)
            self._compact_at = max(256, 2 * len(heap))
        heapq.heappush(heap, (when, next(self._numbers), timer))
        return timer

    def add_reader(self, sock: Source, fn: Call) -> None:
        """Call `fn(now)` in every turn that finds `sock` readable."""
        self._readers[sock.fileno()] = (sock, fn)
        self._watch()

    def remove_reader(self, sock: Source) -> None:
        """Forget `sock`; closing it is the caller's."""
        self._readers = {fd: item for fd, item in self._readers.items() if item[0] is not sock}
        self._watch()

    def at_turn_end(self, fn: Call) -> None:
        """Call `fn(now)` at the end of every turn: it transmits what the turn made."""
        self._turn_ends = [*self._turn_ends, fn]

    def remove_turn_end(self, fn: Call) -> None:
        """Undo ``at_turn_end``."""
        self._turn_ends = [other for other in self._turn_ends if other != fn]

    # -- the thread ---------------------------------------------------------------------

    def _watch(self) -> None:
        self._fds = [self._waker.fd, *self._readers]
        self._poll = None
        if max(self._fds) >= _FD_SETSIZE:
            self._poll = select.poll()
            for fd in self._fds:
                self._poll.register(fd, select.POLLIN)

    def _run(self) -> None:
        now = clock.now()
        while not self._stopping:
            ready = self._wait(now)
            now = clock.now()
            self._turn(ready, now)

    def _turn(self, ready: list[int], now: float) -> None:
        self.turns += 1
        for fd in ready:
            if fd == self._waker.fd:
                self._waker.drain()
            elif fd in self._readers:
                self._readers[fd][1](now)
        queue = self._queue
        if queue:
            self._running = True
            for _ in range(len(queue)):  # what these submit in turn waits for the next turn, so that nobody starves
                queue.popleft()(now)
            self._running = False
        heap = self._heap
        if heap and heap[0][0] <= now:
            self._fire(now)
        for end in self._turn_ends:
            end(now)
        if self.calls:
            self.polling.turn(self.calls, now)
            self.calls = 0
        if self.afterwards:
            self.do_afterwards()

    def wake_caller(self, gate: Callable[[], object]) -> None:
        """Wake a waiting caller at the end of this turn; it calls ``ran``. Loop thread."""
        self.calls += 1
        self.afterwards.append(gate)
        self._woken.append(None)

    def do_afterwards(self) -> None:
        """Do what was put off to the end of the turn. Loop thread."""
        while self.afterwards:
            self.afterwards.popleft()()

    def _fire(self, now: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now:
            heapq.heappop(heap)[2].fire(now)

    def _wait(self, now: float) -> list[int]:
        """Return the descriptors that can be read, after sleeping for as long as nothing is due."""
        heap = self._heap
        while heap and not heap[0][2].pending:
            heapq.heappop(heap)
        if self._queue:
            return self._select(0.0)
        if self.polling.window and not self._woken and self.busy() and self.polling.begin(now := clock.now()):
            ready = self._look_around(now)
            if ready is not None:
                return ready
        self._sleeping = True
        if self._queue or self._stopping:
            self._sleeping = False
            return self._select(0.0)
        longest = _WOKEN_SECONDS if self._woken else _LONGEST_SLEEP
        timeout = longest if not heap else min(longest, max(0.0, heap[0][0] - clock.now()))
        self.sleeps += 1
        ready = self._select(timeout)
        self._sleeping = False
        if not ready and self._woken:
            self._woken.clear()  # they may be busy with something else, or had given up before
        return ready

    def _look_around(self, now: float) -> list[int] | None:
        """Poll; return the descriptors that can be read, None if there was nothing to do in time."""
        queue, polling = self._queue, self.polling
        due = self._heap[0][0] if self._heap else math.inf  # nobody else changes the heap
        until = now + polling.window
        self.polls += 1
        while True:
            ready = self._select(0.0)
            now = clock.now()
            if ready or queue or now >= until:
                found = bool(ready or queue)
                polling.end(now, found)
                return ready if found else None
            if now >= due or self._stopping:
                return ready  # which says nothing about polling
            polling.looked(now)
            _yield_core()

    def _select(self, timeout: float) -> list[int]:
        if self._poll is None:
            return select.select(self._fds, (), (), timeout)[0]
        return [fd for fd, _ in self._poll.poll(math.ceil(timeout * 1000))]

    def _end(self) -> None:
        """Last act of the thread. What still waits in the queue is not run; `on_end` fails the calls it was for."""
        self._ended = True
        self._waker.close()
        self._heap.clear()
        self._readers.clear()
        self._turn_ends = []
        try:
            if self._on_end is not None:
                self._on_end()
        finally:
            self.do_afterwards()

    def drain_refused(self, now: float) -> None:
        """Run what is left in the queue, as the last act, so that each call is told that it came too late."""
        while self._queue:
            try:
                self._queue.popleft()(now)
            except Exception as exc:
                log.debug("%s: dropped at the end: %r", self.node, exc)


def _cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _never() -> bool:
    return False


_yield_core: Callable[[], object] = getattr(os, "sched_yield", _never)
"""Let whoever waits for this core have it, and the interpreter too.

A poller that keeps its core to the end of a time slice, some milliseconds, can
be keeping it from the very thread that it waits for.
"""
