"""A few pages over plain HTTP, on loopback: one thread, whatever comes.

Not ``http.server``: there each connection has a thread or keeps all others
waiting, and its time-out begins anew with every byte. Here a connection has
``SECONDS`` for everything, there are ``CONNECTIONS_MAX`` of them, and the
oldest gives way.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Mapping

from ..._wire.text import logger
from ...exceptions import BindError
from ...types import Address
from ..threads import clock, lifecycle
from ..threads.counters import Counters
from ..threads.deadline import Deadline
from ..threads.lifecycle import ForkGuard
from ..threads.platform import reuse_address
from ..threads.service import Service
from ..threads.shortage import as_ours, exhausted, note
from .head import HEAD_MAX, answer, asked

__all__ = ["Page", "WebServer"]

log = logger("mycorrizal.web")

CONNECTIONS_MAX = 16
SECONDS = 5.0
"""For a whole connection, from its first byte to the last of the answer."""
_LINGER_SECONDS = 1.0
"""So long the client has to take the end of the answer and close: a close with bytes unread would destroy it."""
_PAUSE_SECONDS = 1.0
"""How long nobody is let in when no descriptor is left."""

Page = Callable[[], tuple[int, str, bytes]]
"""Returns status, content type and body; it blocks nothing."""


class _Client:
    """One connection: its request as far as it came, then its answer as far as it has not gone."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.socket = sock
        self.until = until
        self.head = b""
        self.out: memoryview | None = None


class WebServer:
    """Serves `pages`, by path. Its constructor listens, ``start`` begins; ``close`` from any thread.

    Args:
        node: whose, for the log.
        counters: raised are ``web.requests``, ``web.refused`` (not answered with 200 or 503), ``web.dropped``
            (connections that ran out of time, or gave way) and ``web.faults`` (pages that raised).

    Raises:
        BindError: the port cannot be listened on. ResourcesExhausted: no descriptor is left.
    """

    def __init__(self, node: str, address: Address, pages: Mapping[str, Page], counters: Counters) -> None:
        self._node = node
        self._pages = pages
        self._counters = counters
        self._clients: dict[socket.socket, _Client] = {}
        self._resume: float | None = None
        self._stopping = False
        self._guard = ForkGuard()
        with as_ours("metrics cannot be served", node=node, operation="serve_metrics"):
            self._waker, self._woken = socket.socketpair()
        try:
            self._listener = _listen(address)
        except BaseException:
            self._waker.close()
            self._woken.close()
            raise
        self._waker.setblocking(False)
        self.address: Address = self._listener.getsockname()[:2]
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()  # a fork shares no descriptor
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._service = Service("mycorrizal-web", node, self._run, self._ended, "WebServer")

    def start(self) -> None:
        """Begin.

        Raises:
            ResourcesExhausted: there is no thread.
        """
        try:
            self._service.start()
        except BaseException:
            self.abandon()
            raise
        lifecycle.remember(self)

    def stop(self) -> None:
        """Begin to stop; does not wait. Any thread."""
        self._stopping = True
        try:
            self._waker.send(b"\0")
        except OSError:
            pass  # it has ended, or is about to wake

    def join(self, deadline: Deadline) -> bool:
        """Wait for the thread; False if the deadline passed."""
        return self._service.join(deadline)

    def close(self, timeout: float | None = 3.0) -> None:
        """Stop, and wait for that. Idempotent, any thread."""
        if not self._guard.forked:
            self.stop()
            self.join(Deadline(timeout))
            lifecycle.forget(self)

    def abandon(self) -> None:
        """Close every descriptor, in a forked child too."""
        for sock in (self._listener, self._waker, self._woken, *list(self._clients)):
            sock.close()

    # -- its thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(self._wait()):
                if key.data is not None:
                    self._serve(key.data, mask)
                elif key.fileobj is self._listener:
                    self._accept()
            self._sweep(clock.now())

    def _ended(self) -> None:
        self._selector.close()
        self.abandon()

    def _wait(self) -> float | None:
        moments = [client.until for client in self._clients.values()]
        moments += [] if self._resume is None else [self._resume]
        return max(0.0, min(moments) - clock.now()) if moments else None

    def _sweep(self, now: float) -> None:
        for client in [client for client in self._clients.values() if client.until <= now]:
            self._drop(client, counted=True)
        if self._resume is not None and self._resume <= now:
            self._resume = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as exc:  # no descriptor, no memory
            note(exc)
            self._selector.unregister(self._listener)
            self._resume = clock.now() + _PAUSE_SECONDS
            return
        if len(self._clients) >= CONNECTIONS_MAX:
            self._drop(min(self._clients.values(), key=lambda client: client.until), counted=True)
        sock.setblocking(False)
        client = self._clients[sock] = _Client(sock, clock.now() + SECONDS)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _drop(self, client: _Client, *, counted: bool = False) -> None:
        if self._clients.pop(client.socket, None) is not None:
            self._selector.unregister(client.socket)
            client.socket.close()
            if counted and (client.out is None or len(client.out)):
                self._counters.add("web.dropped")

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if client.out is None:
                self._read(client)
            elif mask & selectors.EVENT_WRITE:
                self._write(client, client.out)
            elif not client.socket.recv(HEAD_MAX):  # what comes behind the request is not looked at
                self._drop(client)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.socket.recv(HEAD_MAX)
        if not data:
            self._drop(client)
            return
        client.head += data
        end = client.head.find(b"\r\n\r\n")
        if end >= 0:
            self._answer(client, asked(client.head[:end]))
        elif len(client.head) > HEAD_MAX:
            self._answer(client, 431)

    def _answer(self, client: _Client, what: tuple[str, str] | int) -> None:
        self._counters.add("web.requests")
        page = self._pages.get(what[1]) if isinstance(what, tuple) else None
        status = what if isinstance(what, int) else 404
        kind, body = "text/plain; charset=utf-8", b""
        if page is not None:
            try:
                status, kind, body = page()
            except Exception as fault:
                self._counters.add("web.faults")
                log.warning("%s: a page could not be made: %r", self._node, fault)
                status = 500
        if status not in (200, 503):
            self._counters.add("web.refused")
        only_head = isinstance(what, tuple) and what[0] == "HEAD"
        client.out = memoryview(answer(status, kind, body, only_head=only_head))
        self._selector.modify(client.socket, selectors.EVENT_WRITE, client)

    def _write(self, client: _Client, out: memoryview) -> None:
        client.out = out[client.socket.send(out) :]
        if not client.out:
            client.socket.shutdown(socket.SHUT_WR)
            client.until = min(client.until, clock.now() + _LINGER_SECONDS)
            self._selector.modify(client.socket, selectors.EVENT_READ, client)


def _listen(address: Address) -> socket.socket:
    host, port = address
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        reuse_address(sock)
        sock.bind(address)
        sock.listen(CONNECTIONS_MAX)
        sock.setblocking(False)
        return sock
    except OSError as exc:
        if sock is not None:
            sock.close()
        short = exhausted(exc, f"cannot serve metrics on {where}", node=where, operation="serve_metrics")
        text = f"cannot serve metrics on {where}: {exc.strerror or exc}"
        raise short or BindError(text, node=where, operation="serve_metrics", hint="choose another port, or 0") from exc
