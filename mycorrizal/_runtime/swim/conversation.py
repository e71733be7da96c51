"""What is done for one TCP conversation on an exchange thread: dial and hold it, or answer a dialler's bytes.

Under a deadline, and without a rule of the protocol beyond the order of bytes
(memberlist-protocol §3): what is said is the machine's business, how it looks
in bytes is ``StreamCodec``'s, and a dialler's socket is ``lobby``'s.

Differs from memberlist: writing user messages has a deadline too.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from ..._wire.messages import Message, Ping, PushPull, User
from ..._wire.stream import StreamCodec, StreamReader
from ..._wire.text import logger
from ...exceptions import (
    ConnectionRefused,
    MycorrizalError,
    OperationTimeout,
    PeerUnreachable,
    RemoteProtocolError,
)
from ...types import Address
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.shortage import as_ours
from .exchanges import ExchangePool
from .places import Tally

__all__ = ["Conversations", "Heard"]

log = logger("mycorrizal.exchanges")

_CHUNK = 65536
_FLOODED = "the answer was given up: those of several nodes together take too much memory"
_SILENT = "closed the connection without a word"
_SILENT_HINT = "compare wire=, the encryption key and the label of both sides; its log says if it had no place free"

Answerer = Callable[[Message, Address], "Future[Message | None]"]
"""Asks the machine what to answer; on whose thread that happens is its affair."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How it goes on with a dialler: `more` has to come, or a `reply` is sent, an error if `refused`; or it is over."""

    more: bool = False
    reply: bytes | None = None
    refused: bool = False


class Conversations:
    """Holds conversations on the calling thread, which must be one of the pool's.

    Args:
        codec: seals and reads; holds no state between conversations.
        pool: whose ``close`` interrupts us.
        answerer: gives the machine's answer.
    """

    def __init__(
        self,
        codec: StreamCodec,
        pool: ExchangePool,
        counters: Counters,
        node: str,
        answerer: Answerer,
    ) -> None:
        self._codec = codec
        self._pool = pool
        self._counters = counters
        self._node = node
        self._answerer = answerer
        self._quiet = QuietLog(log, node)
        self._large = threading.Lock()  # held while a large message of a dialler is opened
        self._large_answer = threading.Lock()  # the same of a node that we dialled, which need not wait for strangers
        self.dialled = Tally()
        self.size_local = self.size_remote = 0  # bytes of the last push/pull, as it travelled

    # -- we dial ------------------------------------------------------------------------

    def hold(self, address: Address, message: Message, expects_reply: bool, deadline: Deadline) -> Message | None:
        """Dial `address`, send `message`, return the answer, or None if none is expected.

        An answer may be an ``Err``: what to think of it is the machine's business.

        Raises:
            PeerUnreachable: broken off, or closed without a word; ``ConnectionRefused`` if nobody listens.
            OperationTimeout: the deadline passed.
            RemoteProtocolError: the answer is not one.
            NotRunningError: the pool was closed meanwhile.
        """
        where = _text(address)
        data = self._sealed(message, answer=False)
        sock = self._connect(address, where, deadline)
        try:
            self._counters.add("tcp.connect")
            self._send(sock, data, deadline)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s: sends %s to %s, %d bytes over TCP", self._node, type(message).__name__, where, len(data))
            if not expects_reply:
                sock.shutdown(socket.SHUT_WR)
                return None
            answer = self._read(sock, self._codec.reader(answer=True), deadline)
            if answer is None:
                raise PeerUnreachable(f"{where} {_SILENT}", node=where, hint=_SILENT_HINT)
            return answer
        except (MycorrizalError, OSError) as exc:
            if self._pool.closed:
                raise self._pool.refusal(sent=True) from exc
            if isinstance(exc, MycorrizalError):
                exc.node = exc.node or where
                raise
            raise _broken(where, exc) from exc
        finally:
            self._pool.release(sock)

    def _connect(self, address: Address, where: str, deadline: Deadline) -> socket.socket:
        host, port = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with as_ours(f"cannot dial {where}", node=where, operation="connect"):
            sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._pool.adopt(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Through getaddrinfo for the zone of a link-local address; numeric, so it never waits for a server.
            info = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            _arm(sock, deadline)
            sock.connect(info[0][4])
            return sock
        except TimeoutError as exc:
            self._pool.release(sock)
            raise OperationTimeout(
                f"cannot connect to {where}: no answer", node=where, operation="connect",
                hint="check the address, and a firewall for TCP",
            ) from exc  # fmt: skip
        except OSError as exc:
            self._pool.release(sock)
            kind = ConnectionRefused if isinstance(exc, ConnectionRefusedError) else PeerUnreachable
            raise kind(
                f"cannot connect to {where}: {exc.strerror or exc}", node=where, operation="connect",
                hint="check that a node runs there and listens on this port",
            ) from exc  # fmt: skip
        except BaseException:
            self._pool.release(sock)
            raise

    # -- we are dialled -----------------------------------------------------------------

    def reader(self) -> StreamReader:
        """Return a reader for what a dialler says. Any thread."""
        return self._codec.reader(answer=False)

    def advance(self, reader: StreamReader, address: Address, deadline: Deadline) -> Heard:
        """Look at what `reader` holds of the dialler at `address`, and answer it if it is all there. Raises nothing."""
        try:
            return self._advance(reader, address, deadline)
        except RemoteProtocolError as exc:
            self.rejected(address, exc)
            return Heard(reply=reader.reply, refused=True)
        except TimeoutError:
            self._counters.add("tcp.timeouts")
            log.debug("%s: conversation with %s ran out of time", self._node, _text(address))
        except MycorrizalError as exc:
            self._counters.add("tcp.broken")
            log.debug("%s: conversation with %s broke off: %s", self._node, _text(address), exc)
        return Heard()

    def _advance(self, reader: StreamReader, address: Address, deadline: Deadline) -> Heard:
        message = reader.go_on()
        if message is None and reader.ready:
            with self._large:
                return self._answered(self._seen(reader, reader.go_on()), address, deadline)
        return self._answered(self._seen(reader, message), address, deadline)

    def _answered(self, message: Message | None, address: Address, deadline: Deadline) -> Heard:
        if message is None:
            return Heard(more=True)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: got %s from %s over TCP", self._node, type(message).__name__, _text(address))
        if not isinstance(message, (PushPull, Ping, User)):
            raise RemoteProtocolError(f"message of type {message.TYPE.name} opens a stream")
        reply = self._answerer(message, address).result(deadline.remaining())
        return Heard(reply=None if reply is None else self._sealed(reply, answer=True))

    def rejected(self, address: Address, exc: RemoteProtocolError) -> None:
        """Count and tell that a dialler's bytes were refused. Any thread."""
        self._counters.add("tcp.rejected")
        self._quiet.warning(f"rejected {type(exc).__name__}", "stream from %s refused: %s", _text(address), exc)

    # -- bytes --------------------------------------------------------------------------

    def _sealed(self, message: Message, *, answer: bool) -> bytes:
        data = self._codec.seal(message, answer=answer)
        if isinstance(message, PushPull):
            self.size_local = len(data)
        return data

    def _seen(self, reader: StreamReader, message: Message | None) -> Message | None:
        if isinstance(message, PushPull):
            self.size_remote = reader.size
        return message

    def _send(self, sock: socket.socket, data: bytes, deadline: Deadline) -> None:
        _arm(sock, deadline)
        sock.sendall(data)  # its timeout is for the whole, not for each piece
        self._counters.add("tcp.sent", len(data))

    def _read(self, sock: socket.socket, reader: StreamReader, deadline: Deadline) -> Message | None:
        """Return the message, or None where the protocol has the end of the stream pass in silence."""
        held = 0
        try:
            while True:
                _arm(sock, deadline)
                data = sock.recv(_CHUNK)
                if not data:
                    reader.feed_eof()
                    return None
                self._counters.add("tcp.received", len(data))
                message = self._open(reader) if reader.hold(data) else None
                if message is not None:
                    return message
                before, held = held, reader.held
                if not self.dialled.change(before, held):
                    self._counters.add("tcp.flooded")
                    raise PeerUnreachable(_FLOODED, hint="try again when fewer answers are under way")
        finally:
            self.dialled.change(held, 0)
            reader.close()

    def _open(self, reader: StreamReader) -> Message | None:
        message = reader.go_on()
        if message is None and reader.ready:
            with self._large_answer:
                message = reader.go_on()
        return self._seen(reader, message)


def _arm(sock: socket.socket, deadline: Deadline) -> None:
    """Give the next call on `sock` what is left of the time."""
    left = deadline.remaining()
    if left is not None and left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


def _broken(where: str, exc: OSError) -> MycorrizalError:
    """Return what became of a conversation, in our words."""
    if isinstance(exc, TimeoutError):
        text = f"{where} did not answer in time"
        return OperationTimeout(text, node=where, operation="exchange", hint="see tcp_timeout")
    # A peer that dislikes our first bytes closes with ours unread, which shows here as a reset.
    if isinstance(exc, (ConnectionResetError, BrokenPipeError)):
        return PeerUnreachable(f"{where} {_SILENT}", node=where, hint=_SILENT_HINT)
    return PeerUnreachable(f"{where} broke off: {exc.strerror or exc}", node=where)


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
