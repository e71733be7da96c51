"""The sockets of a control plane on loopback TCP, with CURVE, through libzmq: opened, used and closed by one thread.

What ``control_sockets`` is for Unix sockets, with the same methods. Events go
out at an XPUB, which for subscribers is a PUB; it shows us subscriptions.

Every bound of libzmq is set: size of a message, messages that wait in either
direction, seconds for a handshake. What the bounds cost a client is counted
where libzmq tells: it does not tell which events a slow subscriber missed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Sequence

import zmq

from .._control.messages import REQUEST_MAX
from ..exceptions import BindError, MycorrizalError
from .control_sockets import BATCH, HELLO, HELLO_MAX, OVERSIZE_GRACE, Client
from .curve import ControlKeys, zap_answer
from .endpoints import Endpoint
from .threads.counters import Counters
from .threads.shortage import exhausted
from .zmqroom import first_socket

__all__ = ["CurveSockets"]

PARTS_MAX = 3
"""Frames of a request: identity, REQ's empty frame, payload."""
REQUESTS_QUEUED = 16
"""Requests and replies of each client that libzmq keeps; what is beyond waits at the client or is dropped."""
EVENTS_QUEUED = 512
"""Events that libzmq keeps for each subscriber that does not read."""
SUBSCRIPTION_MAX = 1024
"""Bytes of the longest subscription."""
HANDSHAKE_MS = 5000
LINGER_MS = 300
"""Milliseconds that the last replies have to get out when the plane closes."""

_WATCHED = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class CurveSockets:
    """All sockets of one plane. One thread, from the constructor to ``close``.

    Args:
        listeners: the commands' and the events' listening sockets with their endpoints; libzmq takes them over.
        counters: raised are ``control.malformed``, ``.replies_dropped``, ``.disconnects``, ``.handshakes_failed``.
        wake: a descriptor that ends ``poll`` when it is readable.

    Raises:
        BindError, ResourcesExhausted: libzmq refuses; the listeners are still the caller's.
    """

    def __init__(
        self,
        listeners: Sequence[tuple[Endpoint, socket.socket]],
        keys: ControlKeys,
        counters: Counters,
        wake: int,
    ) -> None:
        self._counters = counters
        self._keys = keys
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(wake, zmq.POLLIN)
        # For a forked child: libzmq keeps these until its sockets are closed.
        self._descriptors = [listener.fileno() for _, listener in listeners]
        try:
            self._zap = self._prepared(first_socket(self._context, zmq.REP))  # first: libzmq asks at a handshake
            self._zap.bind("inproc://zeromq.zap.01")
            self._router = self._socket(zmq.ROUTER, REQUESTS_QUEUED, REQUEST_MAX + OVERSIZE_GRACE)
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # so that a reply nobody takes is an error, and counted
            self._monitor: zmq.Socket[bytes] = self._router.get_monitor_socket(_WATCHED)
            self._poller.register(self._monitor, zmq.POLLIN)
            self._publisher = self._socket(zmq.XPUB, EVENTS_QUEUED, SUBSCRIPTION_MAX)
            for one, (endpoint, listener) in zip((self._router, self._publisher), listeners, strict=True):
                one.setsockopt(zmq.CURVE_SERVER, 1)
                one.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret)
                one.setsockopt(zmq.ZAP_DOMAIN, b"mycorrizal")
                one.setsockopt(zmq.USE_FD, listener.fileno())
                one.bind(str(endpoint))
                listener.detach()
        except BaseException as error:
            self._context.destroy(linger=0)
            if isinstance(error, MycorrizalError) or not isinstance(error, (zmq.ZMQError, OSError)):
                raise
            short = exhausted(error, "no control plane", operation="control")
            hint = "choose another port, or ipc://"
            raise short or BindError(f"control plane: {error.strerror or error}", hint=hint) from error

    def _socket(self, kind: int, queued: int = BATCH, largest: int = REQUEST_MAX) -> zmq.Socket[bytes]:
        return self._prepared(self._context.socket(kind), queued, largest)

    def _prepared(
        self, made: zmq.Socket[bytes], queued: int = BATCH, largest: int = REQUEST_MAX
    ) -> zmq.Socket[bytes]:
        made.setsockopt(zmq.LINGER, LINGER_MS)
        made.setsockopt(zmq.SNDHWM, queued)
        made.setsockopt(zmq.RCVHWM, queued)
        made.setsockopt(zmq.MAXMSGSIZE, largest)
        made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._poller.register(made, zmq.POLLIN)
        return made

    def poll(self, seconds: float | None) -> None:
        """Wait until there is something to do, at most `seconds`."""
        self._poller.poll(None if seconds is None else int(seconds * 1000) + 1)

    def requests(self) -> Iterator[tuple[Client, bytes | None]]:
        """Yield what has arrived, at most a batch: whose it is, and the payload; None for what is no request."""
        for _ in range(BATCH):
            parts = _receive(self._router)
            if parts is None:
                return
            if len(parts) == 2:
                yield Client(parts[0]), parts[1]
            elif len(parts) == PARTS_MAX and not parts[1]:
                yield Client(parts[0], (b"",)), parts[2]
            else:
                self._counters.add("control.malformed")
                yield Client(parts[0], (b"",) if parts[1:2] == [b""] else ()), None

    def reply(self, client: Client, data: bytes) -> None:
        """Send a reply; one that its client has no room for, or whose client is gone, is dropped and counted."""
        try:
            self._router.send_multipart([client.identity, *client.envelope, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            self._counters.add("control.replies_dropped")

    def publish(self, topic: bytes, data: bytes) -> None:
        """Send an event to whoever subscribes to its topic; who is too slow misses it."""
        try:
            self._publisher.send_multipart([topic, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            self._counters.add("control.events_dropped")

    def attend(self, hello: Callable[[bytes], bytes]) -> None:
        """Answer what libzmq and subscribers ask: who may come in, and whether a subscription is in force."""
        for _ in range(BATCH):
            parts = _receive(self._publisher)
            if parts is None:
                break
            first = parts[0]
            if first[:1] == b"\x01" and first.startswith(HELLO, 1) and len(first) <= HELLO_MAX:
                self.publish(first[1:], hello(first[1:]))
        for _ in range(BATCH):
            parts = _receive(self._monitor)
            if parts is None:
                break
            (event,) = struct.unpack_from("=H", parts[0])
            gone = event == zmq.EVENT_DISCONNECTED
            self._counters.add("control.disconnects" if gone else "control.handshakes_failed")
        # REP: one question at a time, and each is answered before the next.
        while (parts := _receive(self._zap, 7)) is not None:
            self._zap.send_multipart(zap_answer(parts, self._keys.client_public))

    def close(self) -> None:
        """Close all; replies that are under way get ``LINGER_MS``."""
        self._descriptors = []
        with contextlib.suppress(zmq.ZMQError):
            self._router.disable_monitor()
        self._context.destroy()

    def abandon(self) -> None:
        """Close the listening descriptors in a forked child; what else there is belongs to libzmq's threads."""
        for number in self._descriptors:
            with contextlib.suppress(OSError):
                socket.close(number)


def _receive(one: zmq.Socket[bytes], most: int = PARTS_MAX + 1) -> list[bytes] | None:
    """Return the frames of the next message, the first `most` of them; None if there is none."""
    try:
        parts = [one.recv(zmq.NOBLOCK)]
        while one.getsockopt(zmq.RCVMORE):
            part = one.recv(zmq.NOBLOCK)
            if len(parts) < most:
                parts.append(part)
    except zmq.Again:
        return None
    return parts
