"""How a caller's thread waits, so that a Ctrl-C is seen within 100 ms wherever the kernel delivers it, and the end too.

Python runs the handler of a signal on the main thread alone. A signal that
another thread of the process takes, or that comes between Python's last look
for one and the system call that sleeps, interrupts nothing: so on the main
thread each wait goes in slices. On another thread of the user's the end of the
main thread would not be seen: the interpreter waits for such threads, and those
of a ``ThreadPoolExecutor``, before it runs the exit handlers that would end the
wait. Those wait in longer slices, and threads of ours in one piece.

Whoever waits on a thread that may be the user's waits through this module.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # it registers before us: see _Ending
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from ..._endings import Ending, error
from . import clock, platform
from .deadline import Deadline
from .shortage import start_thread
from .starting import exiting, linger, ours, own_thread

__all__ = [
    "SLICE", "Exclusive", "apart", "heed_the_end", "join_thread", "pass_gate", "pause", "settled", "wait_sliced",
]  # fmt: skip

T = TypeVar("T")

SLICE = 0.05
"""Seconds after which the main thread looks for a signal at the latest; half of what is promised."""
LONG_SLICE = 0.5
"""Seconds after which another thread sees that the main thread has ended; there may be hundreds that wait."""
LAST_SECONDS = 3.0
"""How long after the main thread's end a wait with a timeout may still go on. One without ends at once."""


def wait_sliced(wait: Callable[[float], bool], deadline: Deadline, *, locked: bool = False) -> bool:
    """Call ``wait(seconds)``, -1 for no end, until it returns True or the deadline passed; return which.

    Args:
        locked: `wait` is called, and returns, with a lock of ours held.

    Raises:
        NotRunningError: the main thread has ended, and this is another one of the user's.
    """
    if ours():  # a daemon, which holds up nobody's end
        left = deadline.remaining()
        return wait(-1 if left is None else left)
    main = threading.current_thread() is threading.main_thread()
    longest = SLICE if main else LONG_SLICE
    while True:
        left = deadline.remaining()
        last = left is not None and left <= longest
        if wait(left if last and left is not None else longest):
            if not locked:
                linger()
            return True
        if last:
            # Who asks again and again, a moment each time, hears of the end too.
            heed_the_end(endless=False)
            return False
        heed_the_end(endless=left is None)


def pass_gate(gate: Any, deadline: Deadline) -> bool:
    """Acquire `gate`, a lock of any kind; False if the deadline passed first. Raises as ``wait_sliced``."""
    left = deadline.remaining()
    if left is None or left > SLICE:
        # Nearly every wait ends here, without asking what thread this is.
        if gate.acquire(timeout=SLICE):
            if exiting():
                _linger_without(gate)
            return True
    elif _ending.since is None:
        return bool(gate.acquire(timeout=left))
    if not wait_sliced(lambda seconds: gate.acquire(timeout=seconds), deadline, locked=True):
        return False
    if exiting():
        _linger_without(gate)
    return True


def _linger_without(gate: Any) -> None:
    gate.release()  # whoever closes what runs may want it
    linger()
    gate.acquire()


def settled(future: Future[Any], deadline: Deadline) -> bool:
    """Wait until `future` has an outcome, cancelled too; False if the deadline passed first."""

    def wait(seconds: float) -> bool:
        try:
            Future.exception(future, None if seconds < 0 else seconds)
        except CancelledError:
            pass
        except TimeoutError:
            return future.done()
        return True

    return future.done() or wait_sliced(wait, deadline)


def join_thread(thread: threading.Thread, deadline: Deadline) -> bool:
    """Wait for the end of `thread`; False if the deadline passed first."""

    def wait(seconds: float) -> bool:
        thread.join(None if seconds < 0 else seconds)
        return not thread.is_alive()

    return wait_sliced(wait, deadline)


def pause(seconds: float) -> None:
    """Wait; Ctrl-C ends it."""
    never = threading.Event()
    wait_sliced(lambda slice_: never.wait(None if slice_ < 0 else slice_), Deadline(seconds))


def apart(work: Callable[[], T], name: str) -> T:
    """Return what `work` returns or raises, on a thread `name` of its own: a Ctrl-C ends the wait, not the work.

    Raises:
        ResourcesExhausted: there is no thread to be had.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)

    start_thread(own_thread(name, run))
    settled(future, Deadline(None))
    return future.result()


class Exclusive:
    """A lock for ``with`` that may be held for long, as over a write to a disk. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        pass_gate(self._lock, Deadline(None))

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


def heed_the_end(*, endless: bool) -> None:
    """Raise if the main thread has ended and waits for this one, which is in a wait that is `endless` or not.

    Raises:
        NotRunningError: see ``LAST_SECONDS``.
    """
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.daemon:  # nobody waits for a daemon, of ours or not
        return
    if _ending.since is None and not threading.main_thread().is_alive():
        _ending.begin()
    if _ending.since is not None and (endless or clock.now() - _ending.since > LAST_SECONDS):
        raise error(
            Ending.CLOSED,
            "the program's main thread has ended, and so does this wait",
            hint="let the main thread wait for the others, e.g. with ThreadPoolExecutor() as pool",
        )


class _Ending:
    """Whether the main thread has ended."""

    def __init__(self) -> None:
        self.since: float | None = None
        # Private, and what ``concurrent.futures`` itself uses: called as soon as the main thread is done, the last
        # one first, so before that joins its threads. Without it a thread of the user's own is still seen to.
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            with suppress(RuntimeError):  # imported so late that there is nothing to wait for
                register(self.begin)
        platform.at_fork(after_in_child=self._forget)

    def begin(self) -> None:
        """It has, now."""
        self.since = clock.now()

    def _forget(self) -> None:
        self.since = None


_ending = _Ending()
