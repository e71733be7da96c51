"""How any thread hands work to the thread that owns a machine.

A command is a callable that the owner runs with the current time; its result
comes back through a ``concurrent.futures.Future``. A byte on a socket pair
wakes the owner out of its ``select``; it is sent only when the mailbox was
empty, so a burst of commands costs one system call.

The lock is re-entrant because a signal handler may post (a SIGTERM handler
that calls ``shutdown``) while the interrupted main thread is inside ``post``.
"""

from __future__ import annotations

import math
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from ...exceptions import QueueFull
from . import clock

__all__ = ["Mailbox", "Posted"]

T = TypeVar("T")

_Command = tuple[Callable[[float], Any], "Future[Any] | None"]


class Posted(Future[T]):
    """The result of a command."""

    @property
    def begun(self) -> bool:
        """Whether the command ran, or will; asked of one that was given up."""
        return not self.cancelled()


class Mailbox:
    """Commands for one owner thread; at most `limit` of them wait.

    ``post`` and ``tell`` may be called on any thread, the rest on the owner's.
    """

    def __init__(self, limit: int = 8192) -> None:
        self._limit = limit
        self._items: deque[_Command] = deque()
        self._lock = threading.RLock()
        self._refusal: Callable[[], Exception] | None = None
        self._reader, self._writer = socket.socketpair()
        try:
            self._reader.setblocking(False)
            self._writer.setblocking(False)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._items)

    # -- any thread ---------------------------------------------------------------

    def post(self, command: Callable[[float], T]) -> Posted[T]:
        """Queue `command`; the future brings its result or its exception.

        Raises:
            QueueFull: `limit` commands are waiting already.
            NotRunningError, ServiceCrashed: the owner has ended.
        """
        result: Posted[T] = Posted()
        self._put((command, result), self._limit)
        return result

    def tell(self, command: Callable[[float], object], *, bounded: bool = False) -> bool:
        """Queue `command` without a way back; False if the owner has ended.

        Unless `bounded`, it is never refused for want of room: what the
        runtime's own threads tell is bounded by their number.

        Raises:
            QueueFull: `bounded`, and `limit` commands are waiting already.
        """
        if self._refusal is not None:
            return False
        try:
            self._put((command, None), self._limit if bounded else None)
        except QueueFull:
            raise
        except Exception:
            return False  # it ended between the two looks
        return True

    def wake(self) -> None:
        """Make the owner's ``select`` return."""
        try:
            self._writer.send(b"\0")
        except OSError:
            pass  # full: it is awake already; closed: it is gone

    def _put(self, item: _Command, limit: int | None) -> None:
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            if limit is not None and len(self._items) >= limit:
                raise QueueFull(
                    f"{limit} calls are waiting for the gossip thread", hint="call less often, or wait for the results"
                )
            was_empty = not self._items
            self._items.append(item)
        if was_empty:
            self.wake()

    # -- the owner ------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do."""
        return self._reader.fileno()

    def run(self, seconds: float = math.inf) -> int:
        """Run what is queued now, not what arrives meanwhile; return how many commands ran.

        After `seconds` the rest is left for the next call: the owner has more to do.

        An exception goes to the command's future. Without a future it is the
        owner's own business and passes through.
        """
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            pass
        with self._lock:
            items, self._items = self._items, deque()
        until = clock.now() + seconds
        for index, (command, future) in enumerate(items):
            if index and clock.now() > until:
                self._put_back(list(items)[index:])
                return index
            if future is None:
                try:
                    command(clock.now())
                except BaseException:
                    self._put_back(list(items)[index + 1 :])
                    raise
            elif future.set_running_or_notify_cancel():
                try:
                    future.set_result(command(clock.now()))
                except BaseException as exc:
                    future.set_exception(exc)
        return len(items)

    def _put_back(self, items: list[_Command]) -> None:
        with self._lock:
            self._items.extendleft(reversed(items))

    def refuse(self, error: Callable[[], Exception]) -> None:
        """End it: waiting commands fail with `error()`, and so does every later ``post``."""
        with self._lock:
            self._refusal = error
            items, self._items = self._items, deque()
        for _, future in items:
            if future is not None and future.set_running_or_notify_cancel():
                future.set_exception(error())

    def close(self) -> None:
        """Close the socket pair. Takes no lock, so that a forked child may call it too."""
        self._reader.close()
        self._writer.close()
