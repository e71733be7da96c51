"""Which threads must not wait, those whose progress the wait needs, and how the others do.

The loop and the gossip thread write themselves down here; a blocking call
asks before it waits. The question costs one look into a dict.

A wait goes in slices. On the main thread a signal that another thread of the
process takes, or that comes between Python's last look for one and the system
call that sleeps, interrupts nothing, and a Ctrl-C would be seen only when the
wait is over. On another thread of the user's the end of the main thread would
not be seen: the interpreter waits for such threads, and those of a
``ThreadPoolExecutor``, before it runs the exit handlers that would end the wait.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # it registers before us: see _Ending
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..exceptions import NotRunningError, ReentrantCallError
from . import clock
from .deadline import Deadline
from .threads import ours

__all__ = ["Roll", "finishers", "heed_the_end", "owner", "pass_gate", "refuse", "wait_sliced"]

SLICE = 0.1
"""Seconds after which a Ctrl-C is seen at the latest."""
LONG_SLICE = 0.5
"""Seconds after which another thread sees that the main thread has ended; there may be hundreds that wait."""
LAST_SECONDS = 3.0
"""How long after the main thread's end a wait with a timeout may still go on. One without ends at once."""


class Roll:
    """Names of the threads that are inside ``with entered(name):``. Any thread."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        if hasattr(os, "register_at_fork"):
            # A child has none of these threads, but may give their idents to new ones.
            os.register_at_fork(after_in_child=self._names.clear)

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Write the calling thread down as `name` inside ``with``."""
        ident = threading.get_ident()
        before = self._names.get(ident)
        self._names[ident] = name
        try:
            yield
        finally:
            # An ident is given to another thread as soon as this one has ended.
            if before is None:
                self._names.pop(ident, None)
            else:
                self._names[ident] = before

    def caller(self) -> str | None:
        """Return the name of the calling thread if it is written down."""
        return self._names.get(threading.get_ident())


_owners = Roll()
finishers = Roll()
"""Threads that must not wait for a future, because they finish them."""

owner = _owners.entered
"""``with owner(name):`` refuses all blocking calls of ours on the calling thread."""


def refuse(operation: str) -> None:
    """Return if the caller may wait in `operation`. Any thread.

    Raises:
        ReentrantCallError: on a thread inside ``owner``.
    """
    name = _owners.caller()
    if name is not None:
        raise ReentrantCallError(
            f"{operation} would wait on {name}, the thread it waits for",
            operation=operation,
            hint="call it from a handler or a thread of your own",
        )


def pass_gate(gate: threading.Lock, deadline: Deadline) -> bool:
    """Acquire `gate`; False if the deadline passed first. Raises as ``wait_sliced``."""
    left = deadline.remaining()
    if left is None or left > SLICE:
        # Nearly every wait ends here, without asking what thread this is.
        if gate.acquire(timeout=SLICE):
            return True
    elif _ending.since is None:
        return gate.acquire(timeout=left)
    return wait_sliced(lambda seconds: gate.acquire(timeout=seconds), deadline)


def wait_sliced(wait: Callable[[float], bool], deadline: Deadline) -> bool:
    """Call ``wait(seconds)``, -1 for no end, until it returns True or the deadline passed; return which.

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
            return True
        if last:
            # Who asks again and again, a moment each time, hears of the end too.
            heed_the_end(endless=False)
            return False
        heed_the_end(endless=left is None)


def heed_the_end(*, endless: bool) -> None:
    """Raise if the main thread has ended and this is another one of the user's, in a wait that is `endless` or not.

    Raises:
        NotRunningError: see ``LAST_SECONDS``.
    """
    if ours() or threading.current_thread() is threading.main_thread():
        return
    if _ending.since is None and not threading.main_thread().is_alive():
        _ending.begin()
    if _ending.since is not None and (endless or clock.now() - _ending.since > LAST_SECONDS):
        raise NotRunningError(
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
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def begin(self) -> None:
        """It has, now."""
        self.since = clock.now()

    def _forget(self) -> None:
        self.since = None


_ending = _Ending()
