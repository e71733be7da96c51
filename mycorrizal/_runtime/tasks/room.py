"""How many tasks may be open at a time, and how many bytes they may take: who adds one too many waits."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ...exceptions import QueueFull
from ..threads import reentry
from ..threads.deadline import Deadline
from ..threads.waits import wait_sliced

__all__ = ["Ahead", "Room"]


class Room:
    """The open tasks of one executor. Any thread.

    Args:
        tasks, size: of all that are open; a single one may be larger.
    """

    def __init__(self, tasks: int, size: int) -> None:
        self._most, self._most_bytes = tasks, size
        self._changed = threading.Condition()
        self._open: dict[Future[Any], int] = {}
        self._bytes = 0
        self.closed = False

    def enter(self, future: Future[Any], size: int) -> bool:
        """Wait until `future`, a task of `size` bytes, may be open too; False if nothing may any more.

        Raises:
            QueueFull: it would have to wait, on a thread that finishes futures.
            NotRunningError: the main thread has ended.
        """
        with self._changed:
            while not self.closed and self._full(size):
                if reentry.finishers.caller() is not None:
                    raise QueueFull(
                        f"{len(self._open)} tasks are open", operation="submit",
                        hint="a done-callback cannot wait; submit on a thread of your own",
                    )  # fmt: skip
                self._wait(Deadline(None))
            if self.closed:
                return False
            self._open[future] = size
            self._bytes += size
        future.add_done_callback(self.leave)
        return True

    def empty(self, deadline: Deadline) -> bool:
        """Wait until no task is open; False if the deadline passed first."""
        with self._changed:
            while self._open:
                if not self._wait(deadline):
                    return not self._open
        return True

    def close(self) -> list[Future[Any]]:
        """Take nothing more; return what is open."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            return list(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def _full(self, size: int) -> bool:
        return len(self._open) >= self._most or (bool(self._open) and self._bytes + size > self._most_bytes)

    def _wait(self, deadline: Deadline) -> bool:
        return wait_sliced(lambda seconds: self._changed.wait(None if seconds < 0 else seconds), deadline, locked=True)

    def leave(self, future: Future[Any]) -> None:
        """A task is over. Idempotent."""
        with self._changed:
            self._bytes -= self._open.pop(future, 0)
            self._changed.notify_all()


class Ahead:
    """What a ``map`` has submitted and not given yet: in order, or as it comes. One thread, and those that finish."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._changed = threading.Condition()
        self._futures: OrderedDict[Future[Any], None] = OrderedDict()  # not given; of those in order the first is next
        self._done: deque[Future[Any]] = deque()

    def add(self, future: Future[Any]) -> None:
        """One more was submitted."""
        self._futures[future] = None
        if not self._ordered:
            future.add_done_callback(self._came)

    def _came(self, future: Future[Any]) -> None:
        with self._changed:
            self._done.append(future)
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def ready(self) -> bool:
        """Whether one can be given now."""
        return next(iter(self._futures)).done() if self._ordered and self._futures else bool(self._done)

    def next(self, deadline: Deadline) -> Future[Any]:
        """Return the future whose result is next: done, unless they come in order, or the deadline has passed."""
        if not self._ordered:
            with self._changed:
                wait: Callable[[float], bool] = lambda s: self._changed.wait(None if s < 0 else s)  # noqa: E731
                while not self._done and wait_sliced(wait, deadline, locked=True):
                    pass
                if self._done:
                    return self._done[0]
        return next(iter(self._futures))

    def given(self, future: Future[Any]) -> None:
        """The result of the next future was given."""
        del self._futures[future]
        if not self._ordered:
            self._done.popleft()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        for future in list(self._futures):
            future.cancel()
