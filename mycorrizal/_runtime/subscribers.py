"""The bounded event queues behind ``Memberlist.events()``.

Fed straight by the gossip thread, so that a slow delegate delays nobody who
listens here. A queue that is full loses its oldest event and remembers how
many; the reader then gets one ``EventsLost`` with the current member list.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable

from ..events import EventsLost, MemberEvent
from ..exceptions import NotRunningError, OperationTimeout
from ..types import Node
from .counters import Counters
from .deadline import Deadline

__all__ = ["EventStream", "Subscribers"]


class EventStream:
    """An iterator of membership events; ends when the ``Memberlist`` shuts down.

    Several threads may read one stream; each event goes to one of them. Made
    by ``Memberlist.events()``. Also a context manager that closes itself.
    """

    def __init__(
        self,
        limit: int,
        members: Callable[[], tuple[Node, ...]],
        guard: Callable[[str], None],
        refusal: Callable[[], Exception],
        counters: Counters,
    ) -> None:
        self._queue: deque[MemberEvent] = deque()
        self._limit = limit
        self._members = members
        self._guard = guard
        self._refusal = refusal
        self._counters = counters
        self._lost = 0
        self._told = False  # the last thing read was an EventsLost
        self._closed = False
        self._ended = False
        self._changed = threading.Condition()  # its lock is re-entrant: a signal handler may close the stream

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> MemberEvent:
        event = self._take(Deadline(None))
        if event is None:
            error = self._refusal()
            if isinstance(error, NotRunningError) or self._closed:
                raise StopIteration
            raise error
        return event

    def __enter__(self) -> EventStream:
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

    def get(self, timeout: float | None = None) -> MemberEvent:
        """Return the next event. Any thread but the gossip thread.

        Args:
            timeout: seconds to wait for one; ``None`` waits, 0 only looks.

        Raises:
            OperationTimeout: no event within `timeout`.
            NotRunningError: the stream was closed, or its ``Memberlist`` was shut down, and all was read.
            ServiceCrashed: the gossip thread died.
            ReentrantCallError: called from a supply or admission delegate.
        """
        event = self._take(Deadline(timeout))
        if event is not None:
            return event
        if self._closed:
            raise NotRunningError("this event stream was closed", operation="events")
        raise self._refusal()

    def close(self) -> None:
        """End the stream and wake its readers; idempotent, any thread."""
        self._closed = True
        self.wake()

    def _take(self, deadline: Deadline) -> MemberEvent | None:
        """Return the next event, None at the end of the stream."""
        self._guard("events")
        with self._changed:
            while True:
                if self._closed:
                    return None
                # Never twice in a row: a reader that stays slow still gets every other event.
                if self._lost and not self._told:
                    lost, self._lost, self._told = self._lost, 0, True
                    return EventsLost(lost, self._members())
                if self._queue:
                    self._told = False
                    return self._queue.popleft()
                if self._ended:
                    return None
                if deadline.passed:
                    raise OperationTimeout("no event within the timeout", operation="events")
                self._changed.wait(deadline.remaining())

    # -- the gossip thread ------------------------------------------------------------

    def put(self, event: MemberEvent) -> None:
        """Add `event`, in place of the oldest if there is no room."""
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


class Subscribers:
    """All event streams of one ``Memberlist``; one that nobody holds any more is forgotten."""

    def __init__(self, make: Callable[[], EventStream]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._streams: tuple[weakref.ref[EventStream], ...] = ()
        self._ended = False

    def subscribe(self) -> EventStream:
        """Return a new stream of what happens from now on; already at its end if all is over. Any thread."""
        stream = self._make()
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

    def publish(self, event: MemberEvent) -> None:
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


def _open(stream: EventStream | None) -> bool:
    return stream is not None and not stream._closed
