"""The threads that run request handlers, woken as seldom as will do.

Many Python threads that are awake share one lock of the interpreter, and to
wake one costs more than a short handler runs. So while one worker is awake and
draining, a new job wakes nobody; only a job that has waited for 1 ms says that
handlers are slow or blocked, and then 2, 4, 8... workers are woken (``tick``).

A handler that waits inside a call of ours would hold a place that the answer
it waits for may need, at the far node's pool or at this one. ``waiting`` lends
its place to a spare thread meanwhile. Lent places are bounded by the number of
spares, so there are never more threads than workers and spares together.

How no wake-up is lost without a lock on the way: whoever changes a count
(goes idle, lends, ends) changes it first and looks at the queue afterwards;
``submit`` appends to the queue first and looks at the counts afterwards. One
of the two sees the other. The counts are lengths of lists, whose ``append``,
``pop`` and ``remove`` are single steps, of the GIL or of the list's own lock.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from threading import get_ident

from ..._wire.text import logger
from ...exceptions import ResourcesExhausted
from . import clock
from .counters import Counters, QuietLog
from .deadline import Deadline
from .shortage import start_thread
from .starting import own_thread
from .waits import join_thread

__all__ = ["HandlerPool"]

log = logger("mycorrizal.handlers")

PATIENCE = 0.001
"""Seconds a job may wait before more workers are woken."""
STARVED = 0.1
"""Seconds until the next attempt when a thread is needed, and none can be started."""
IDLE_SECONDS = 10.0
"""How long a thread waits for work before it ends; one stays, or as many as ``start`` has started."""


class HandlerPool:
    """Runs jobs on up to `workers` threads, in the order they came, and on `spares` more while those wait.

    Args:
        node: our name, for the log.
        queue: jobs that may wait beyond those that a free worker could take.
        counters: raised are ``<kind>.refused``, ``.faults``, ``.starved`` (no new thread to be had), ``.dropped``
            (queued at the end), where kind is `prefix` without "mycorrizal-", ``handler``.
        prefix: of the names of the threads, which are numbered.
        later: where ``submit`` leaves the waking of a thread, for the end of the loop's turn; None wakes at once.
    """

    def __init__(
        self,
        node: str,
        *,
        workers: int,
        spares: int,
        queue: int,
        counters: Counters,
        prefix: str = "mycorrizal-handler",
        later: deque[Callable[[], object]] | None = None,
    ) -> None:
        self._node = node
        self._workers = workers
        self._most = workers + spares
        self._queue = queue
        self._counters = counters
        self._prefix = prefix
        self._later = later
        self._kind = prefix.removeprefix("mycorrizal-") + "s"  # what its counters are of: handlers, commands
        self._quiet = QuietLog(log, node)
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle: list[threading.Lock] = []  # the last to go idle is woken first: its memory is warm
        self._lent: list[None] = []  # one for each thread inside ``waiting``
        self._threads: dict[threading.Thread, None] = {}
        self._count = 0  # threads that run, or are about to
        self._waits: dict[int, _Depth] = {}  # by ident, of our own threads
        self._place = _Lend(self)
        self._between: list[None] = []  # one for each thread inside ``between``
        self._gap = _Between(self)
        self._numbers = itertools.count(1)
        self._changes = threading.RLock()  # guards _count, _threads and _stopping
        self._stopping = False
        self._least = 1  # threads that stay
        # The loop's own:
        self._submitted = 0
        self._extra = 0  # workers that the next one to wake up shall wake
        self._mark: tuple[float, int] | None = None  # a moment, and _submitted then

    def start(self) -> None:
        """Start the workers now, to stay: a program whose main thread has ended may get no new one (CPython 3.12.1).

        Raises:
            ResourcesExhausted: not even one is to be had. What is missing otherwise is started when it is needed.
        """
        thread = self._start_or_raise()
        while thread and self._count < self._workers:
            thread = self._start()
        self._least = self._workers

    # -- the loop thread ----------------------------------------------------------------

    def submit(self, job: Callable[[], None], leave: int = 0) -> bool:
        """Queue `job`; False if the pool is full, but for `leave` places in its queue, or has ended. Never blocks.

        ``tick`` must be called later in the same turn. Costs an append and at most the release of a lock, except
        when the first thread has to be started.
        """
        jobs = self._jobs
        most = self._queue - leave
        if self._stopping or (len(jobs) >= most and len(jobs) >= most + self._free()):
            self._counters.add(f"{self._kind}.refused")
            return False
        jobs.append(job)
        self._submitted += 1
        # Nobody awake: whoever is counted here as awake will look at the queue after this append.
        if self._count - len(self._lent) <= len(self._idle) and not self._wake(later=self._later) and not self._count:
            return self._take_back(job)
        return True

    def _take_back(self, job: Callable[[], None]) -> bool:
        """Return whether `job` was taken after all; no thread could be started to run it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return True
        self._submitted -= 1
        self._counters.add(f"{self._kind}.refused")
        return False

    def tick(self, now: float) -> float | None:
        """Wake more workers if a job waits too long; return when to be called again, None if it need not be.

        Cheap; call it in each turn that submitted something, and at the time it returned.
        """
        waiting = len(self._jobs)
        if not waiting:
            self._mark = None
            self._extra = 0
            return None
        active = self._active()
        if active >= self._workers or (not self._idle and self._count >= self._most):
            # All that may run do; each looks at the queue before it rests.
            self._mark = None
            return None
        mark = self._mark
        if mark is not None and active > 0:
            if now < mark[0] + PATIENCE:
                return mark[0] + PATIENCE
            late = self._submitted - waiting < mark[1]  # the first in the queue was there at the mark
            if late and not self._widen(min(active, self._workers - active, waiting)):
                self._extra, self._mark = 0, (now + STARVED - PATIENCE, self._submitted)
                return now + STARVED
        elif active <= 0 and not self._wake():  # no thread could be had when it was submitted, nor can one now
            self._mark = None
            return now + STARVED
        self._mark = now, self._submitted
        return now + PATIENCE

    def _widen(self, more: int) -> bool:
        """Wake `more` workers; False if a thread was needed and not to be had.

        Only one is started here: that waits for the new thread, which starts others.
        """
        while more > 0:
            try:
                self._idle.pop().release()
            except IndexError:
                self._extra = more - 1
                return self._start()
            more -= 1
        return True

    # -- any thread ---------------------------------------------------------------------

    def waiting(self) -> AbstractContextManager[None]:
        """Return what is entered around a wait: on a worker it lends the place; elsewhere it does nothing."""
        return self._place

    def between(self) -> AbstractContextManager[None]:
        """As ``waiting``, for a worker that waits for its next job, and not for the rest of one. Counts as no job."""
        return self._gap

    @property
    def crowded(self) -> bool:
        """Whether a job waits, or as many run as may."""
        return bool(self._jobs) or self._active() >= self._workers

    def is_worker(self) -> bool:
        """Whether the caller runs on one of these threads."""
        return get_ident() in self._waits

    @property
    def queued(self) -> int:
        """Jobs that wait for a thread."""
        return len(self._jobs)

    @property
    def busy(self) -> int:
        """Threads that run a job, waiting inside our calls or not."""
        return max(0, self._count - len(self._idle) - len(self._between))

    @property
    def lent(self) -> int:
        """Threads that wait inside our calls."""
        return len(self._lent)

    @property
    def threads(self) -> int:
        """Threads there are."""
        return self._count

    def stuck(self, now: float) -> float:
        """Return for how many seconds all threads that may run have been busy with one job each; 0 if one is free."""
        running = [(one.since, one.depth) for one in list(self._waits.values())]
        begun = [since for since, depth in running if since is not None and not depth]
        if len(begun) < self._workers:  # some wait inside our calls: they count once nobody can take their place
            begun = [since for since, _ in running if since is not None]
            if len(begun) < self._most:
                return 0.0
        return max(0.0, now - max(begun))

    def stop(self) -> None:
        """Drop what is queued, let each thread finish its job and end. Does not wait."""
        with self._changes:
            self._stopping = True
        dropped = 0
        while self._jobs:
            try:
                self._jobs.popleft()
                dropped += 1
            except IndexError:
                break
        if dropped:
            self._counters.add(f"{self._kind}.dropped", dropped)
        while self._idle:
            try:
                self._idle.pop().release()
            except IndexError:
                break

    def join(self, deadline: Deadline) -> bool:
        """Wait, after ``stop``, until all threads have ended; False if the deadline passed, or one is the caller's."""
        with self._changes:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                join_thread(thread, deadline)
        return not any(thread.is_alive() for thread in threads)

    def _active(self) -> int:
        """Return how many threads hold a place: awake, and not inside ``waiting``."""
        return self._count - len(self._lent) - len(self._idle)

    def _free(self) -> int:
        """Return how many jobs could be taken at once if all threads we may have were woken."""
        able = len(self._idle) + self._most - self._count
        return max(0, min(self._workers - self._active(), able))

    def _wake(self, later: deque[Callable[[], object]] | None = None) -> bool:
        """Wake an idle thread, or start one; False if there is none to be had."""
        try:
            release = self._idle.pop().release
        except IndexError:
            return self._start()
        if later is None:
            release()
        else:
            later.append(release)
        return True

    def _start(self) -> bool:
        try:
            return self._start_or_raise()
        except ResourcesExhausted as exc:
            self._quiet.warning("starved", "no thread for a handler: %s", exc)
            return False

    def _start_or_raise(self) -> bool:
        with self._changes:
            if self._stopping or self._count >= self._most:
                return False
            thread = own_thread(f"{self._prefix}-{next(self._numbers)}", self._run)
            self._count += 1
            self._threads[thread] = None
        try:
            # Outside the lock: it waits until the thread runs.
            start_thread(thread)
        except ResourcesExhausted:  # the system's limit, or an interpreter that is ending
            with self._changes:
                self._count -= 1
                del self._threads[thread]
            self._counters.add(f"{self._kind}.starved")
            raise
        return True

    def _lend(self) -> None:
        self._lent.append(None)
        if self._jobs and self._active() < self._workers:
            self._wake()

    # -- the workers --------------------------------------------------------------------

    def _run(self) -> None:
        one = self._waits[get_ident()] = _Depth()
        gate = threading.Lock()
        gate.acquire()
        counted = True
        try:
            while self._drain(one):
                one.since = None
                if not self._rest(gate):
                    counted = False
                    break
        finally:
            self._gone(gate, counted)

    def _gone(self, gate: threading.Lock, counted: bool) -> None:
        """Give back all that this thread holds, also when it is killed: the next job has a new one."""
        if self._waits.pop(get_ident()).depth:
            self._lent.pop()
        with suppress(ValueError):
            self._idle.remove(gate)
        with self._changes:
            self._count -= counted
            if not self._stopping:  # otherwise ``join`` waits for us
                del self._threads[threading.current_thread()]
        if self._jobs and self._active() < self._workers:
            self._wake()

    def _drain(self, one: _Depth) -> bool:
        """Run jobs until there are none, or too many threads for the places; False if the pool is stopped."""
        jobs = self._jobs
        while True:
            if self._extra > 0 and jobs:
                self._extra -= 1
                self._wake()
            if self._count > self._workers and self._active() > self._workers:
                return not self._stopping  # those who lent their places are back
            try:
                job = jobs.popleft()
            except IndexError:
                return not self._stopping
            one.since = clock.now()
            try:
                job()
            except BaseException as exc:  # sys.exit() in a handler ends neither us nor the process
                self._counters.add(f"{self._kind}.faults")
                log.error("%s: a handler's job raised %r", self._node, exc, exc_info=exc)
            del job  # an idle thread keeps nobody's values

    def _rest(self, gate: threading.Lock) -> bool:
        """Sleep until woken; False if nothing came for long and this thread is to end."""
        while True:
            self._idle.append(gate)
            if self._stopping or (self._jobs and self._active() < self._workers):
                self._withdraw(gate)
                return True
            if gate.acquire(timeout=IDLE_SECONDS) or not self._withdraw(gate):
                return True
            if self._retire():
                return False

    def _withdraw(self, gate: threading.Lock) -> bool:
        """Leave the idle ones; False, and the wake-up taken, if somebody has just woken us."""
        try:
            self._idle.remove(gate)
        except ValueError:
            gate.acquire()
            return False
        return True

    def _retire(self) -> bool:
        """Stop counting this thread and return True, unless it is one of those that stay, or is needed after all."""
        with self._changes:
            if self._count <= self._least:
                return False
            self._count -= 1
            # Counted out first, then a look: see above.
            needed = bool(self._jobs) and self._active() < self._workers
            self._count += needed
        return not needed


class _Depth:
    """How deep a worker is inside ``waiting``, and since when its job runs, if it has one."""

    __slots__ = ("depth", "since")

    def __init__(self) -> None:
        self.depth = 0
        self.since: float | None = None


class _Lend(AbstractContextManager[None]):
    """Lends the calling worker's place. One object for all: what differs is kept by thread."""

    __slots__ = ("_lent", "_pool", "_waits")

    def __init__(self, pool: HandlerPool) -> None:
        self._pool = pool
        self._waits = pool._waits
        self._lent = pool._lent

    def __enter__(self) -> None:
        one = self._waits.get(get_ident())
        if one is not None:
            one.depth += 1
            if one.depth == 1:
                self._pool._lend()

    def __exit__(self, *exc_info: object) -> None:
        one = self._waits.get(get_ident())
        if one is not None:
            one.depth -= 1
            if not one.depth:
                self._lent.pop()


class _Between(_Lend):
    """The same, between two jobs."""

    __slots__ = ("_between",)

    def __init__(self, pool: HandlerPool) -> None:
        super().__init__(pool)
        self._between = pool._between

    def __enter__(self) -> None:
        self._waits[get_ident()].since = None
        self._between.append(None)
        super().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self._between.pop()
        self._waits[get_ident()].since = clock.now()
