"""The Unix sockets of a control plane, and everybody who is connected: used by one thread.

It speaks ZeroMQ's protocol (``_control.zmtp``), so clients are ZeroMQ sockets
of any language: DEALER or REQ for commands, SUB for events. Every bound is
here: connections, bytes that wait in either direction, subscriptions. A
process that has no descriptor left refuses a connection and goes on.

A subscriber learns when its subscriptions are in force: it subscribes to a
topic of its own under ``control.hello.`` last, and gets one event there.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..._control.messages import REPLY_MAX, REQUEST_MAX
from ..._control.zmtp import Zmtp, message
from ...exceptions import RemoteProtocolError
from ..threads import clock
from ..threads.counters import Counters
from ..threads.deadline import Deadline
from ..threads.platform import CLOEXEC
from ..threads.shortage import note
from .endpoints import Endpoint

__all__ = ["HELLO", "Client", "ControlSockets"]

HELLO = b"control.hello."
"""A subscription to a topic that begins so is answered with one event of that topic."""
HELLO_MAX = 128

CLIENTS_MAX = 64
"""Connections to each of the two sockets. One more closes the one that was silent for longest, of those first that did
not finish the handshake."""
BATCH = 64
"""Messages taken from one connection in a turn, so that none starves the others."""
READ_BYTES = 1 << 16
OVERSIZE_GRACE = 4096
"""A request a little too large is answered; one that is larger than this costs its sender the connection."""
PARTS_MAX = 8
"""Frames of a message; more cost the connection."""
REPLY_BYTES = REPLY_MAX + (1 << 16)
"""Bytes of replies that wait for a client that does not read; what is beyond is dropped."""
EVENT_BYTES = 1 << 20
"""Bytes of events that wait for a subscriber that does not read; what is beyond is dropped, and seen in the numbers."""
ANSWER_BYTES = REPLY_BYTES + (1 << 16)
"""Bytes that may wait when ZeroMQ's PING or a hello is answered; who asks on without reading loses the connection."""
SUBSCRIPTIONS_MAX = 256
"""Topics of a subscriber; one more costs it the connection."""
SUBSCRIPTION_BYTES = 512
HANDSHAKE_SECONDS = 5.0
PAUSE_SECONDS = 1.0
"""How long nobody is let in when not even one descriptor is left to refuse with."""
LINGER_SECONDS = 0.3
"""Seconds that the last replies have to get out when the plane closes."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a reply goes: a name of the connection, and the frames before the payload."""

    identity: bytes
    envelope: tuple[bytes, ...] = ()


class _Link:
    """One connection."""

    def __init__(self, number: int, sock: socket.socket, kind: str, largest: int, now: float) -> None:
        self.identity = number.to_bytes(8, "big")
        self.socket = sock
        self.events = kind == "PUB"
        self.zmtp = Zmtp(kind, largest=largest, parts=PARTS_MAX)
        self.arrived: deque[tuple[bytes, ...]] = deque()  # while there are some, nothing more is read
        self.out: deque[memoryview] = deque()
        self.waiting = 0  # bytes in it
        self.topics: dict[bytes, int] = {}
        self.last = now  # when it last said something
        self.mask = selectors.EVENT_READ


class ControlSockets:
    """All connections of one plane. One thread, from the constructor to ``close``.

    Args:
        listeners: the commands' and the events' listening sockets with their endpoints, taken over.
        counters: raised are ``control.malformed``, ``.replies_dropped``, ``.events_dropped``, ``.disconnects``,
            ``.handshakes_failed`` (also what is not ZeroMQ), ``.refused`` (connections).
        wake: a descriptor that ends ``poll`` when it is readable.
    """

    def __init__(self, listeners: Sequence[tuple[Endpoint, socket.socket]], counters: Counters, wake: int) -> None:
        self._counters = counters
        self._selector = selectors.DefaultSelector()
        self._listeners = dict(zip((listener for _, listener in listeners), ("ROUTER", "PUB"), strict=True))
        self._resume: float | None = None  # when to accept again
        self._reserve: int | None = None
        self._links: dict[bytes, _Link] = {}
        self._number = 0
        try:
            self._selector.register(wake, selectors.EVENT_READ)
            self._refill()
            self._accepting(True)
        except BaseException:
            self.abandon()
            raise

    # -- waiting ------------------------------------------------------------------------------

    def poll(self, seconds: float | None) -> None:
        """Wait until there is something to do, at most `seconds`, and take in what has come."""
        now = clock.now()
        moments = [link.last + HANDSHAKE_SECONDS for link in self._links.values() if not link.zmtp.ready]
        moments += [self._resume] if self._resume is not None else []
        if any(link.arrived for link in self._links.values()):
            seconds = 0
        for moment in moments:
            seconds = max(0.0, moment - now) if seconds is None else min(seconds, max(0.0, moment - now))
        for key, mask in self._selector.select(seconds):
            if key.fileobj in self._listeners:
                self._accept(key.fileobj)
            elif isinstance(key.data, _Link) and key.data.identity in self._links:
                self._serve(key.data, mask)
        self._sweep()

    def _sweep(self) -> None:
        """Close who did not finish the handshake, and let others in again after a pause."""
        now = clock.now()
        for link in [link for link in self._links.values() if not link.zmtp.ready]:
            if now >= link.last + HANDSHAKE_SECONDS:
                self._counters.add("control.handshakes_failed")
                self._drop(link)
        if self._resume is not None and now >= self._resume:
            self._refill()
            self._accepting(True)

    def _serve(self, link: _Link, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(link)
        if not mask & selectors.EVENT_READ or link.arrived:
            return
        try:
            data = link.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._counters.add("control.disconnects")
            self._drop(link)
            return
        try:
            link.arrived += link.zmtp.receive(data)
        except RemoteProtocolError:
            # Also where the end of the handshake and what is wrong came at once.
            self._counters.add("control.malformed" if link.zmtp.ready else "control.handshakes_failed")
            self._drop(link)
            return
        if link.zmtp.ready:
            link.last = clock.now()
        self._answer(link, link.zmtp.outgoing())

    # -- connections ----------------------------------------------------------------------------

    def _accept(self, listener: object) -> None:
        assert isinstance(listener, socket.socket)
        if self._resume is not None:
            return  # the other listener has just found that there is nothing left
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:  # no descriptor, or no memory
            note(exc)
            self._refuse(listener)
            return
        kind = self._listeners[listener]
        mine = [link for link in self._links.values() if link.events == (kind == "PUB")]
        if len(mine) >= CLIENTS_MAX:
            self._counters.add("control.refused")
            self._drop(min(mine, key=lambda link: (link.zmtp.ready, link.last)))
        self._number += 1
        largest = SUBSCRIPTION_BYTES if kind == "PUB" else REQUEST_MAX + OVERSIZE_GRACE
        link = self._links[self._number.to_bytes(8, "big")] = _Link(self._number, sock, kind, largest, clock.now())
        try:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, link)
        except OSError as exc:  # the system's limit of watched descriptors
            note(exc)
            self._counters.add("control.refused")
            del self._links[link.identity]
            sock.close()
            return
        self._write(link, link.zmtp.outgoing())

    def _refuse(self, listener: socket.socket) -> None:
        """Turn one away with the descriptor kept for that, so that it does not wait for nothing."""
        self._counters.add("control.refused")
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
            self._refill()
        if self._reserve is None:
            self._accepting(False)
            self._resume = clock.now() + PAUSE_SECONDS

    def _refill(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | CLOEXEC)

    def _accepting(self, on: bool) -> None:
        self._resume = None
        for listener in self._listeners:
            if on:
                self._selector.register(listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(listener)

    def _drop(self, link: _Link) -> None:
        if self._links.pop(link.identity, None) is not None:
            self._selector.unregister(link.socket)
            link.socket.close()

    def _turn_away(self, link: _Link) -> None:
        self._counters.add("control.malformed")
        link.arrived.clear()
        self._drop(link)

    # -- writing --------------------------------------------------------------------------------

    def _answer(self, link: _Link, data: bytes) -> None:
        if link.waiting + len(data) > ANSWER_BYTES:
            self._turn_away(link)
        else:
            self._write(link, data)

    def _write(self, link: _Link, data: bytes) -> None:
        if data:
            link.out.append(memoryview(data))
            link.waiting += len(data)
            self._flush(link)

    def _flush(self, link: _Link) -> None:
        try:
            while link.out:
                piece = link.out.popleft()
                sent = link.socket.send(piece)
                link.waiting -= sent
                if sent < len(piece):
                    link.out.appendleft(piece[sent:])
        except BlockingIOError:
            link.out.appendleft(piece)
        except OSError:
            self._drop(link)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.out else 0)
        if mask != link.mask:
            link.mask = mask
            self._selector.modify(link.socket, mask, link)

    # -- what the service does --------------------------------------------------------------------

    def requests(self) -> Iterator[tuple[Client, bytes | None]]:
        """Yield what has arrived, a batch of each client: whose it is, and the payload; None for what is no request."""
        for link in [link for link in self._links.values() if link.arrived and not link.events]:
            for _ in range(min(BATCH, len(link.arrived))):
                parts = link.arrived.popleft()
                if len(parts) == 1:
                    yield Client(link.identity), parts[0]
                elif len(parts) == 2 and not parts[0]:
                    yield Client(link.identity, (b"",)), parts[1]
                else:
                    self._counters.add("control.malformed")
                    yield Client(link.identity, (b"",) if not parts[0] else ()), None

    def reply(self, client: Client, data: bytes) -> None:
        """Send a reply; one that its client has no room for, or whose client is gone, is dropped and counted."""
        link = self._links.get(client.identity)
        if link is None or link.waiting + len(data) > REPLY_BYTES:
            self._counters.add("control.replies_dropped")
        else:
            self._write(link, message((*client.envelope, data)))

    def publish(self, topic: bytes, data: bytes) -> None:
        """Send an event to whoever subscribes to its topic; who is too slow misses it, which is counted."""
        whole = b""
        for link in [link for link in self._links.values() if link.topics]:
            if not any(topic.startswith(prefix) for prefix in link.topics):
                continue
            whole = whole or message((topic, data))
            if link.waiting + len(whole) > EVENT_BYTES:
                self._counters.add("control.events_dropped")
            else:
                self._write(link, whole)

    def attend(self, hello: Callable[[bytes], bytes]) -> None:
        """Take in what subscribers subscribe to, and tell those who ask that it is in force."""
        for link in [link for link in self._links.values() if link.arrived and link.events]:
            while link.arrived:
                topic = b"".join(link.arrived.popleft())
                if topic[:1] == b"\x01":
                    self._subscribe(link, topic[1:], hello)
                elif topic[:1] == b"\x00" and topic[1:] in link.topics:
                    link.topics[topic[1:]] -= 1
                    if not link.topics[topic[1:]]:
                        del link.topics[topic[1:]]

    def _subscribe(self, link: _Link, topic: bytes, hello: Callable[[bytes], bytes]) -> None:
        link.topics[topic] = link.topics.get(topic, 0) + 1
        if len(link.topics) > SUBSCRIPTIONS_MAX:
            self._turn_away(link)
        elif topic.startswith(HELLO) and len(topic) < HELLO_MAX:
            self._answer(link, message((topic, hello(topic))))

    def close(self) -> None:
        """Close all; replies that are under way get ``LINGER_SECONDS``."""
        deadline = Deadline(LINGER_SECONDS)
        if self._resume is None:
            self._accepting(False)
        while any(link.out for link in self._links.values()) and not deadline.passed:
            for key, mask in self._selector.select(deadline.remaining()):
                if isinstance(key.data, _Link) and mask & selectors.EVENT_WRITE:
                    self._flush(key.data)
        for link in list(self._links.values()):
            self._drop(link)
        self.abandon()

    def abandon(self) -> None:
        """Close every descriptor, and touch nothing that a forked child shares with its parent."""
        with contextlib.suppress(OSError):
            self._selector.close()
        for sock in (*self._listeners, *(link.socket for link in list(self._links.values()))):
            sock.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
