"""How a caller gets the outcome of a call: by waiting for it, or through a future.

``Waiter`` is for calls that block: one lock, because a ``threading.Event`` or a
``Future`` costs several times as much. ``PlaneFuture`` is for those that do
not; ``Completions`` finishes them on a thread of its own, since a done-callback
is user code and must not run on the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from ..._endings import Ending, copied, error
from ..._wire.text import logger
from ...exceptions import MycorrizalError, NotRunningError, OperationTimeout, ReentrantCallError
from ...types import frameless
from . import reentry, waits
from .counters import Counters
from .deadline import Deadline
from .lifecycle import ForkGuard, Handle
from .service import Service
from .starting import ours

__all__ = ["Completions", "PlaneFuture", "Waiter"]

log = logger("mycorrizal.futures")

T = TypeVar("T")

_UNSET: Any = object()


class Waiter:
    """Where one blocked call waits for its outcome. ``set`` on any thread, ``wait`` on one.

    Attributes:
        outcome: what was set; meaningless before ``wait`` returned True.
    """

    __slots__ = ("_gate", "_unset", "outcome")

    def __init__(self) -> None:
        self.outcome: Any = _UNSET
        self._gate = threading.Lock()
        self._gate.acquire()
        self._unset = [None]

    def set(self, outcome: object) -> bool:
        """End the wait with `outcome`; False if there is one already. Never blocks."""
        if not self.settle(outcome):
            return False
        self._gate.release()
        return True

    def settle(self, outcome: object) -> bool:
        """Set `outcome` and leave the waking to a call of ``wake``; False if there is one already."""
        try:
            self._unset.pop()  # one step of the list, with a GIL or without: of two threads one is first
        except IndexError:
            return False
        self.outcome = outcome
        return True

    def wake(self) -> None:
        """Wake who waits. Once, after ``settle``."""
        self._gate.release()

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the outcome; False if the deadline passed first. Ctrl-C ends it."""
        if self.outcome is _UNSET:
            waits.pass_gate(self._gate, deadline)
        return self.outcome is not _UNSET

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.outcome is not _UNSET


class PlaneFuture(Handle, Future[T]):
    """The outcome of a call that is under way. Works with ``concurrent.futures.wait`` and ``as_completed``.

    Args:
        on_cancel: called once, on the cancelling thread, if ``cancel`` was in time; returns the error of this future
            from then on. Must not block.
        waiting: a handler pool's, entered around each wait.
    """

    def __init__(
        self,
        on_cancel: Callable[[], MycorrizalError | None] | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._why: MycorrizalError | None = None
        self._waiting = waiting
        self._guard = ForkGuard()
        self._claim = threading.Lock()  # whoever takes it ends this future; never released
        self.faults: list[BaseException] = []  # what done-callbacks raised, until it is told

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn` with this future as soon as it is done, on ``mycorrizal-futures``; at once if it is.

        What it raises is logged and counted there (``futures.faults``), and the other callbacks are called as well.
        """

        def call(future: Future[T]) -> None:
            try:
                fn(future)
            except BaseException as exc:
                if not ours():
                    raise
                self.faults.append(exc)

        super().add_done_callback(call)

    def claim(self) -> bool:
        """Return whether the caller is now the one that sets the outcome: nobody else was, or cancelled."""
        return self._claim.acquire(blocking=False)

    def cancel(self) -> bool:
        """Give the call up here and at the peer; False if it is done. Any thread.

        Whether it ran at the peer is unknown. Done-callbacks run on the calling thread.
        """
        if not self.claim():
            return self.cancelled()
        on_cancel, self._on_cancel = self._on_cancel, None
        try:
            if on_cancel is not None:
                self._why = on_cancel()
        except Exception as exc:  # the loop has ended: there is nothing to give up
            log.debug("a cancelled call could not be told: %r", exc)
        finally:
            try:
                super().cancel()
            finally:
                self.set_running_or_notify_cancel()  # for those in concurrent.futures.wait
        return True

    def result(self, timeout: float | None = None) -> T:
        """Return the outcome; wait up to `timeout` seconds for it, for ever if None.

        Raises:
            OperationTimeout: not done in time; the call goes on.
            OperationCancelled: it was cancelled.
            ReentrantCallError: not done, and this thread is needed to get it done.
            ForkedProcessError: not done, and never will be in this process.
            Exception: what the call failed with.
        """
        self._await("result", timeout)
        try:
            return super().result(0)
        except MycorrizalError:
            raise  # an OperationCancelled that the peer sent is one of the next, too
        except CancelledError:
            raise self._cancelled() from None
        finally:
            del self  # the error's traceback refers to this frame, and the future to the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call failed with, None if it did not fail. Raises otherwise as ``result`` does."""
        self._await("exception", timeout)
        try:
            return super().exception(0)
        except MycorrizalError:
            raise  # an OperationCancelled that the peer sent is one of the next, too
        except CancelledError:
            raise self._cancelled() from None
        finally:
            del self

    def _cancelled(self) -> MycorrizalError:
        if self._why is None:  # nobody knows how far it had come
            return error(Ending.CANCELLED, "the call was cancelled", sent=True)
        return copied(self._why)

    def _await(self, operation: str, timeout: float | None) -> None:
        if self.done():
            return
        self._guard.check("future", operation)
        deadline = Deadline(timeout)
        if not deadline.passed:
            reentry.refuse(operation)
            if reentry.finishers.caller() is not None:
                raise ReentrantCallError(
                    f"{operation} would wait on mycorrizal-futures, the thread that finishes futures",
                    operation=operation,
                    hint="in a done-callback look only at the future that it was given",
                )
            with self._waiting():
                waits.settled(self, deadline)
        if not self.done():
            raise OperationTimeout(f"not done within {timeout} s; the call goes on", operation=operation)

    def settle(self, finish: Callable[[], T]) -> bool:
        """End it with what `finish` returns or raises; False, and `finish` not called, if it was cancelled.

        Done-callbacks run on the calling thread.
        """
        if not self.claim():
            return False
        self._on_cancel = None  # it may refer to the call, and the call to us
        self.set_running_or_notify_cancel()
        try:
            result = finish()
        except BaseException as exc:
            self.set_exception(frameless(exc) if isinstance(exc, MycorrizalError) else exc)
        else:
            self.set_result(result)
        finally:
            del self, finish  # the error's traceback refers to this frame, and the future to the error
        return True


class Completions:
    """Owns the thread ``mycorrizal-futures``. Unbounded: what waits is bounded by the calls that are under way.

    Args:
        counters: ``futures.faults`` counts what done-callbacks raised.
    """

    def __init__(self, node: str, counters: Counters) -> None:
        self._node = node
        self._counters = counters
        self._items: deque[tuple[PlaneFuture[Any], Callable[[], Any]]] = deque()
        self._idle: list[threading.Lock] = []  # its gate, while the thread sleeps
        self._lock = threading.RLock()
        self._started = False
        self._stopping = False
        self._ended = False
        self.service = Service("mycorrizal-futures", node, self._run, self._on_end, "DataPlane")

    def start(self) -> None:
        """Start the thread unless it runs. Any thread; best a caller's, since the loop would wait for the start.

        Raises:
            RuntimeError: the system, or an interpreter that is ending, refuses a new thread.
            NotRunningError, ServiceCrashed: it has ended.
        """
        if self._started and not self._ended:
            return
        with self._lock:
            if self._stopping or self._ended:
                raise self.service.refusal()
            if not self._started:
                self.service.start()
                self._started = True

    def post(self, future: PlaneFuture[T], finish: Callable[[], T]) -> None:
        """Have `future` end with what ``finish()`` returns or raises. Any thread; never blocks, raises nothing.

        After the end of the thread the future fails at once, on the calling thread.
        """
        self._items.append((future, finish))
        if self._idle:
            try:
                self._idle.pop().release()
            except IndexError:
                pass  # somebody else woke it
        elif self._ended:
            self._drain(self._refusal)
        elif not self._started:
            self._start_late()

    def _start_late(self) -> None:
        try:
            self.start()
        except Exception as exc:
            why = exc if isinstance(exc, MycorrizalError) else NotRunningError(f"no thread for futures: {exc}")
            self._drain(lambda: why)

    def __len__(self) -> int:
        return len(self._items)

    def stop(self) -> None:
        """Let the thread finish what is queued and end. Call it when nothing is posted any more."""
        with self._lock:
            self._stopping = True
            if not self._started:
                self._ended = True
        try:
            self._idle.pop().release()
        except IndexError:
            pass

    def join(self, deadline: Deadline) -> bool:
        """Wait for the end; False if the deadline passed, or this is the thread itself."""
        return self.service.join(deadline)

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        with reentry.finishers.entered("mycorrizal-futures"):
            while True:
                self._drain()
                # First idle, then a look at the queue; ``post`` does it the other way round: one sees the other.
                self._idle.append(gate)
                if not self._items and not self._stopping:
                    gate.acquire()
                    continue
                try:
                    self._idle.remove(gate)
                except ValueError:
                    gate.acquire()  # somebody woke us just now
                if not self._items and self._stopping:
                    return

    def _on_end(self) -> None:
        self._ended = True  # first this, then a last look; ``post`` does it the other way round
        self._drain(self._refusal)

    def _refusal(self) -> MycorrizalError:
        return self.service.refusal(sent=True)  # for all that is known here

    def _drain(self, refusal: Callable[[], Exception] | None = None) -> None:
        """Finish what is queued; with `refusal`, fail it, on the ending thread or the one that posted too late."""
        while True:
            try:
                future, finish = self._items.popleft()
            except IndexError:
                return
            try:
                future.settle(finish if refusal is None else _raiser(refusal))
            except BaseException as exc:  # sys.exit() in a done-callback ends neither us nor the process
                future.faults.append(exc)
            faults, future.faults = future.faults, []
            for fault in faults:
                self._counters.add("futures.faults")
                log.error("%s: a done-callback raised %r; ignored", self._node, fault, exc_info=fault)
                del fault
            del future, finish, faults  # an idle thread keeps nobody's values


def _raiser(refusal: Callable[[], Exception]) -> Callable[[], Any]:
    def refuse() -> Any:
        error = refusal()
        if isinstance(error, MycorrizalError):
            error.indeterminate = True  # what came of the call is not looked at any more
        raise error

    return refuse
