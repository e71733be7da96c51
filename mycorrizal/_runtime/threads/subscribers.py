"""The bounded event queues behind ``events()``, ``subscribe()`` and ``watch()``.

Fed straight by the gossip thread, so that a slow delegate delays nobody who
listens here. A queue that is full loses its oldest event and remembers how
many; the reader then gets one event that says so.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ...exceptions import MycorrizalError, NotRunningError, OperationTimeout
from .counters import Counters
from .deadline import Deadline
from .lifecycle import Handle
from .starting import linger
from .waits import wait_sliced

__all__ = ["EventStream", "Subscribers"]

T = TypeVar("T")


class EventStream(Handle, Generic[T]):
    """An iterator of events; ends when what it came from shuts down.

    Several threads may read one stream; each event goes to one of them. Made
    by ``events()`` and its like. Also a context manager that closes itself.

    Args:
        limit: events that wait unread; one more drops the oldest.
        lost: makes the event that tells how many were dropped.
        guard: checks that the calling thread may wait.
        refusal: the error for a reader after the end.
        wanted: whether an event is for this stream; gossip thread.
        opened: what the reader gets for a queued event, made on its thread; None skips it.
    """

    def __init__(
        self,
        limit: int,
        lost: Callable[[int], T],
        guard: Callable[[str], None],
        refusal: Callable[[], MycorrizalError],
        counters: Counters,
        *,
        operation: str = "events",
        wanted: Callable[[Any], bool] | None = None,
        opened: Callable[[Any], T | None] | None = None,
    ) -> None:
        self._queue: deque[Any] = deque()
        self._limit = limit
        self._make_lost = lost
        self._operation = operation
        self._wanted = wanted
        self._opened = opened
        self._guard = guard
        self._refusal = refusal
        self._counters = counters
        self._lost = 0
        self._told = False  # the last thing read was that events were lost
        self._closed = False
        self._ended = False
        self._changed = threading.Condition()  # its lock is re-entrant: a signal handler may close the stream

    def __iter__(self) -> EventStream[T]:
        return self

    def __next__(self) -> T:
        try:
            event = self._take(Deadline(None))
        except NotRunningError:  # the program ends
            raise StopIteration from None
        if event is None:
            error = self._over()
            if isinstance(error, NotRunningError):
                raise StopIteration
            raise error
        return event

    def __enter__(self) -> EventStream[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many events wait unread."""
        return len(self._queue)

    def __bool__(self) -> bool:
        return True  # a stream without events is still a stream

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<EventStream, {state}, {len(self._queue)} unread>"

    def get(self, timeout: float | None = None) -> T:
        """Return the next event. Any thread but the gossip thread.

        Args:
            timeout: seconds to wait for one; ``None`` waits, 0 only looks.

        Raises:
            OperationTimeout: no event within `timeout`.
            NotRunningError: the stream was closed, or what it came from was shut down, and all was read.
            ServiceCrashed: the gossip thread died.
            ReentrantCallError: called from a supply or admission delegate.
        """
        event = self._take(Deadline(timeout))
        if event is not None:
            return event
        raise self._over()

    def close(self) -> None:
        """End the stream and wake its readers; idempotent, any thread."""
        self._closed = True
        self.wake()

    def _over(self) -> MycorrizalError:
        if self._closed:
            return NotRunningError("this event stream was closed", operation=self._operation)
        error = self._refusal()
        error.operation = self._operation
        return error

    def _take(self, deadline: Deadline) -> T | None:
        """Return the next event, None at the end of the stream."""
        self._guard(self._operation)
        while True:
            queued, event = self._next(deadline)
            linger()
            if queued and self._opened is not None:
                event = self._opened(event)
                if event is None:
                    continue
            taken: T | None = event
            return taken

    def _next(self, deadline: Deadline) -> tuple[bool, Any]:
        """Return whether it was queued, and the next event; None at the end."""
        with self._changed:
            while True:
                if self._closed:
                    return False, None
                # Never twice in a row: a reader that stays slow still gets every other event.
                if self._lost and not self._told:
                    lost, self._lost, self._told = self._lost, 0, True
                    return False, self._make_lost(lost)
                if self._queue:
                    self._told = False
                    return True, self._queue.popleft()
                if self._ended:
                    return False, None
                if deadline.passed:
                    raise OperationTimeout("no event within the timeout", operation=self._operation)
                wait_sliced(self._sleep, deadline, locked=True)

    def _sleep(self, seconds: float) -> bool:
        """Wait up to `seconds`, -1 for ever; return whether there is something to see.

        A condition says False also when it was notified at the end of that time, and is not notified again.
        """
        woken = self._changed.wait(None if seconds < 0 else seconds)
        return woken or bool(self._queue) or self._closed or self._ended

    # -- the gossip thread ------------------------------------------------------------

    def prefill(self, events: Iterable[Any]) -> None:
        """Put what happened before in front; nothing of it counts as lost."""
        with self._changed:
            self._queue.extendleft(reversed(list(events)[-self._limit :]))

    def put(self, event: Any) -> None:
        """Add `event`, in place of the oldest if there is no room."""
        if self._wanted is not None and not self._wanted(event):
            return
        with self._changed:
            if self._closed:
                return
            if len(self._queue) >= self._limit:
                self._queue.popleft()
                self._lost += 1
                self._counters.add("events.lost")
            self._queue.append(event)
            self._changed.notify()

    def end(self) -> None:
        """Let readers finish what is queued, then stop."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Let every reader look again."""
        with self._changed:
            self._changed.notify_all()


class Subscribers(Generic[T]):
    """All event streams of one source; one that nobody holds any more is forgotten."""

    def __init__(self, make: Callable[[], EventStream[T]]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._streams: tuple[weakref.ref[EventStream[T]], ...] = ()
        self._ended = False

    def subscribe(self) -> EventStream[T]:
        """Return a new stream of what happens from now on; already at its end if all is over. Any thread."""
        return self.add(self._make())

    def add(self, stream: EventStream[T]) -> EventStream[T]:
        """Feed `stream` from now on. Any thread."""
        with self._lock:
            alive = [ref for ref in self._streams if _open(ref())]
            self._streams = (*alive, weakref.ref(stream))
            if self._ended:
                stream.end()
        return stream

    def __len__(self) -> int:
        return sum(1 for ref in self._streams if _open(ref()))

    def waiting(self) -> int:
        """Return the number of events that the slowest subscriber has not read."""
        return max((len(stream) for ref in self._streams if (stream := ref()) is not None), default=0)

    def publish(self, event: Any) -> None:
        """Give `event` to every stream. Gossip thread."""
        for ref in self._streams:
            stream = ref()
            if stream is not None:
                stream.put(event)

    def end(self) -> None:
        """Let every stream finish. Any thread."""
        with self._lock:
            self._ended = True
            streams = self._streams
        for ref in streams:
            stream = ref()
            if stream is not None:
                stream.end()


def _open(stream: EventStream[Any] | None) -> bool:
    return stream is not None and not stream._closed
