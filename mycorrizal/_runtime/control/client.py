"""The other end of a control plane: one call at a time on each socket, and a reader of the event stream.

ZeroMQ connects in the background and waits for ever for somebody who is not
there, so a look with a plain socket comes first. A socket that a call has given
up is closed, not used again: a late reply never meets the wrong question.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque

import zmq

from ..._control.messages import EVENT_MAX, REPLY_MAX, ControlEvent, Reply, decode_event, decode_reply
from ...exceptions import NotRunningError, OperationTimeout, PeerUnreachable, RemoteProtocolError
from ..threads import lifecycle, reentry, waits
from ..threads.deadline import Deadline
from ..threads.shortage import as_ours
from .endpoints import Endpoint, reachable
from .libzmq import first_socket
from .sockets import HELLO

__all__ = ["ControlChannel", "ControlEvents"]

LOOK_SECONDS = 1.0
"""How often a waiting thread looks whether the agent is still there."""
IDLE_MAX = 8
"""Sockets kept for later calls."""
EVENTS_QUEUED = 4096
"""Events that wait for a reader; a slower one loses some, and is told."""
TOPICS_MAX = 4096
"""Topics whose numbers a reader remembers."""


class _Wire:
    """A ZeroMQ context whose sockets are closed by their users; ends with the last of them. Any thread."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = Endpoint.parse(endpoint)
        self._guard = lifecycle.ForkGuard()
        self._context = zmq.Context()
        self._changes = threading.RLock()
        self._count = 0
        self._started = False
        self.closed = False

    def check(self, operation: str) -> None:
        """Raise where nothing can be asked any more."""
        self._guard.check("ControlClient", operation)
        if self.closed:
            raise NotRunningError("this ControlClient was closed", operation=operation)

    def open(self, kind: int) -> zmq.Socket[bytes]:
        """Return a new socket, connected. ``release`` it."""
        with as_ours(f"{self.endpoint} cannot be asked", operation="connect"):
            return self._open(kind)

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        try:
            listening = reachable(self.endpoint)
        except PermissionError:
            text = f"{self.endpoint} belongs to another user"
            raise PeerUnreachable(text, operation="connect", retriable=False) from None
        if not listening:
            raise PeerUnreachable(f"no agent answers at {self.endpoint}", operation="connect")
        with self._changes:
            self.check("connect")
            made = self._socket(kind)
            self._count += 1
        try:
            self._connect(made)
        except BaseException:
            self.release(made)
            raise
        return made

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        if self._started:
            return self._context.socket(kind)
        made = first_socket(self._context, kind)
        self._started = True
        return made

    def _connect(self, made: zmq.Socket[bytes]) -> None:
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.RCVHWM, EVENTS_QUEUED if made.type == zmq.SUB else 16)
        made.setsockopt(zmq.MAXMSGSIZE, max(REPLY_MAX, EVENT_MAX) + 4096)
        made.connect(str(self.endpoint))

    def release(self, one: zmq.Socket[bytes]) -> None:
        """Close a socket of ours."""
        if self._guard.forked:
            return
        one.close(0)
        with self._changes:
            self._count -= 1
            self._end()

    def close(self) -> None:
        """Open no more; the context ends with the last socket."""
        with self._changes:
            if not self.closed and not self._guard.forked:
                self.closed = True
                self._end()

    def _end(self) -> None:
        if self.closed and not self._count:
            self._context.term()

    def receive(self, one: zmq.Socket[bytes], deadline: Deadline, operation: str) -> list[bytes] | None:
        """Return the next message on `one`, None at the deadline. Waits in slices.

        Raises:
            PeerUnreachable: nobody listens there any more; ZeroMQ would wait for somebody new.
        """
        look = Deadline(LOOK_SECONDS)
        while True:
            left = deadline.capped(waits.SLICE)
            if one.poll(int(left * 1000) + (left > 0)):
                return one.recv_multipart(zmq.NOBLOCK)
            self.check(operation)
            waits.heed_the_end(endless=deadline.moment is None)
            if deadline.passed:
                return None
            if look.passed:
                look = Deadline(LOOK_SECONDS)
                if not reachable(self.endpoint):
                    text = f"the agent at {self.endpoint} has ended"
                    raise PeerUnreachable(text, operation=operation, indeterminate=operation == "call")


class ControlChannel:
    """Carries requests to one agent. Any thread; several may call at a time, each has a socket of its own."""

    def __init__(self, endpoint: str) -> None:
        self._wire = _Wire(endpoint)
        self._idle: list[zmq.Socket[bytes]] = []

    def call(self, number: int, data: bytes, timeout: float | None) -> Reply:
        """Send a request and wait for its reply.

        Raises:
            PeerUnreachable: nobody listens there; indeterminate if that was so only later.
            OperationTimeout: no reply in time; indeterminate.
            RemoteProtocolError: the reply is none.
            NotRunningError: closed meanwhile. ReentrantCallError, ForkedProcessError.
        """
        self._wire.check("call")
        reentry.refuse("call")
        deadline = Deadline(timeout)
        try:
            one = self._idle.pop()
        except IndexError:
            one = self._wire.open(zmq.DEALER)
        fine = False
        try:
            one.send(data, zmq.NOBLOCK)
            while (parts := self._wire.receive(one, deadline, "call")) is not None:
                reply = decode_reply(parts[-1])
                if reply.id == number or (reply.id is None and reply.error is not None):
                    fine = True
                    return reply
            text = f"no reply from {self._wire.endpoint} in time"
            raise OperationTimeout(text, operation="call", indeterminate=True)
        except zmq.Again:
            raise OperationTimeout("the agent takes no requests", operation="call") from None
        finally:
            if fine and not self._wire.closed and len(self._idle) < IDLE_MAX:
                self._idle.append(one)
            else:
                self._wire.release(one)
            if self._wire.closed:
                self.close()  # it was, while this socket was in use

    def close(self) -> None:
        """Close what is idle, and end calls that are under way. Idempotent, any thread."""
        self._wire.close()
        while self._idle:
            try:
                self._wire.release(self._idle.pop())
            except IndexError:
                return


class ControlEvents:
    """The events of one agent, read on one thread. Made by ``ControlClient.events``.

    Iterate, or ``get`` with a timeout; close it, or use ``with``. The stream
    has begun when the constructor returns: what happens after that is there.
    """

    def __init__(self, endpoint: str, topics: tuple[str, ...], timeout: float | None) -> None:
        self._wire = _Wire(endpoint)
        self._seen: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._early: deque[ControlEvent] = deque()
        try:
            self._socket = self._wire.open(zmq.SUB)
        except BaseException:
            self._wire.close()
            raise
        self._reading = threading.Lock()  # held by whoever uses the socket
        self._ended = False
        try:
            for topic in topics:
                self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
            self._await(HELLO + os.urandom(8).hex().encode(), Deadline(timeout))
        except BaseException:
            self.close()
            raise

    def _await(self, hello: bytes, deadline: Deadline) -> None:
        """Wait until the agent says that our subscriptions are in force; keep what comes before that."""
        self._socket.setsockopt(zmq.SUBSCRIBE, hello)
        while True:
            parts = self._wire.receive(self._socket, deadline, "events")
            if parts is None:
                raise OperationTimeout(f"no word from {self._wire.endpoint} in time", operation="events")
            if parts[0] == hello:
                self._socket.setsockopt(zmq.UNSUBSCRIBE, hello)
                return
            # What finds no room is not even read, so that the next one of its topic tells that it was lost.
            if len(self._early) < EVENTS_QUEUED and (event := self._read(parts)) is not None:
                self._early.append(event)

    def get(self, timeout: float | None = None) -> ControlEvent:
        """Return the next event; wait up to `timeout` seconds, for ever if None.

        Raises:
            OperationTimeout: none came. NotRunningError: closed.
            PeerUnreachable: the agent has ended; the stream goes on if it is started again.
            ReentrantCallError, ForkedProcessError.
        """
        self._wire.check("events")
        reentry.refuse("events")
        deadline = Deadline(timeout)
        with self._reading:
            if self._early:
                return self._early.popleft()
            try:
                while (parts := self._wire.receive(self._socket, deadline, "events")) is not None:
                    event = self._read(parts)
                    if event is not None:
                        return event
            finally:
                if self._wire.closed:
                    self._release()
        raise OperationTimeout("no event within the timeout", operation="events")

    def _read(self, parts: list[bytes]) -> ControlEvent | None:
        try:
            event = decode_event(parts[-1])
        except RemoteProtocolError:
            return None
        if event.topic_sequence < 1:
            return None
        publisher, last = self._seen.pop(event.topic, ("", 0))
        self._seen[event.topic] = event.publisher, event.topic_sequence
        if len(self._seen) > TOPICS_MAX:
            self._seen.popitem(last=False)
        lost = event.topic_sequence - last - 1
        if publisher != event.publisher or lost <= 0:
            return event
        found = (event.topic, event.value, event.sequence, event.topic_sequence, event.publisher)
        return ControlEvent(*found, lost=lost)

    def close(self) -> None:
        """End the stream; a thread that reads ends within 100 ms. Idempotent, any thread."""
        self._wire.close()
        # Whoever reads at this moment, perhaps below us on this very stack, closes the socket itself.
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _release(self) -> None:
        if not self._ended:
            self._ended = True
            self._wire.release(self._socket)

    def __iter__(self) -> ControlEvents:
        return self

    def __next__(self) -> ControlEvent:
        try:
            return self.get()
        except NotRunningError:
            raise StopIteration from None

    def __enter__(self) -> ControlEvents:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
