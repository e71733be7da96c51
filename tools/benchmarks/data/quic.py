"""Peers of ``tools/bench data``: aioquic with its stock asyncio protocol, and the naive blocking facade on it.

Requests are length-prefixed frames on one long-lived stream, taken from events
(not ``StreamReader``, which costs a third more), and one ``transmit()`` serves
all that was asked for in a turn of the loop. The facade does what aioquic's
examples do: send, ``transmit()``, await the answer; and is called with
``run_coroutine_threadsafe(...).result()``. A bulk value is one stream, fed as
the receiver tells that it has some: all of it at once is slower, because
aioquic copies what waits to be sent.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived

from benchmarks.data.peer import REQUEST, Address, BaseServer, Caller, Figures, figures, receipt, threaded
from benchmarks.rounds import WARM

T = TypeVar("T")
_FRAME = struct.Struct(">I")
_REQUESTS = 0  # the client's first bidirectional stream
_PIECE = 1 << 18
_AHEAD = 8  # pieces sent before the receiver has said that it has the first of them
_CREDIT = b"+"


class Frames:
    """Cuts a stream into its frames."""

    def __init__(self) -> None:
        self.rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        data = self.rest + data
        found, at = [], 0
        while len(data) - at >= _FRAME.size:
            end = at + _FRAME.size + _FRAME.unpack_from(data, at)[0]
            if end > len(data):
                break
            found.append(data[at + _FRAME.size : end])
            at = end
        self.rest = data[at:]
        return found


def frame(data: bytes) -> bytes:
    return _FRAME.pack(len(data)) + data


class Answering(QuicConnectionProtocol):
    """The server's end. What it sends goes out with the ``transmit()`` that follows every received datagram."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.frames = Frames()
        self.values: dict[int, bytearray] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        stream = event.stream_id
        if stream == _REQUESTS:
            if requests := self.frames.cut(event.data):
                self._quic.send_stream_data(stream, b"".join(map(frame, requests)))
            return
        value = self.values.setdefault(stream, bytearray())
        before = len(value) // _PIECE
        value += event.data
        if event.end_stream:
            self._quic.send_stream_data(stream, receipt(self.values.pop(stream)), end_stream=True)
        elif credits_ := len(value) // _PIECE - before:
            self._quic.send_stream_data(stream, _CREDIT * credits_)


class Transfer:
    """A bulk value on its way."""

    def __init__(self, done: asyncio.Future[bytes], rest: memoryview) -> None:
        self.done, self.rest, self.receipt = done, rest, b""


class Asking(QuicConnectionProtocol):
    """The client's end; every method belongs to the loop's thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.frames = Frames()
        self.waiting: deque[asyncio.Future[bytes]] = deque()
        self.transfers: dict[int, Transfer] = {}
        self.asked = False
        stream = self._quic.get_next_available_stream_id()
        assert stream == _REQUESTS
        self._quic.send_stream_data(stream, b"")

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            for future in (*self.waiting, *(each.done for each in self.transfers.values())):
                if not future.done():
                    future.set_exception(ConnectionError(event.reason_phrase))
        elif isinstance(event, StreamDataReceived):
            if event.stream_id == _REQUESTS:
                for answer in self.frames.cut(event.data):
                    self.waiting.popleft().set_result(answer)
            elif event.stream_id in self.transfers:
                self._heard(event, self.transfers[event.stream_id])

    def request(self, data: bytes) -> asyncio.Future[bytes]:
        """Send `data` with whatever else is sent in this turn."""
        future = self._put(data)
        if not self.asked:
            self.asked = True
            self._loop.call_soon(self._send)
        return future

    async def request_at_once(self, data: bytes) -> bytes:
        """Send `data` in a datagram of its own."""
        future = self._put(data)
        self.transmit()
        return await future

    async def bulk(self, value: bytes) -> bytes:
        stream = self._quic.get_next_available_stream_id()
        transfer = self.transfers[stream] = Transfer(self._loop.create_future(), memoryview(value))
        self._feed(stream, transfer, _AHEAD)
        self.transmit()
        return await transfer.done

    def _feed(self, stream: int, transfer: Transfer, pieces: int) -> None:
        """Send further pieces; the ``transmit()`` after the datagram that asked for them takes them along."""
        for _ in range(pieces):
            if transfer.rest:
                piece, transfer.rest = transfer.rest[:_PIECE], transfer.rest[_PIECE:]
                self._quic.send_stream_data(stream, bytes(piece), end_stream=not transfer.rest)

    def _heard(self, event: StreamDataReceived, transfer: Transfer) -> None:
        # Credits come first and the receipt begins with a zero, so that only its first part can follow some.
        told = event.data if transfer.receipt else event.data.lstrip(_CREDIT)
        self._feed(event.stream_id, transfer, len(event.data) - len(told))
        transfer.receipt += told
        if event.end_stream:
            del self.transfers[event.stream_id]
            transfer.done.set_result(transfer.receipt)

    def _put(self, data: bytes) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self.waiting.append(future)
        self._quic.send_stream_data(_REQUESTS, frame(data))
        return future

    def _send(self) -> None:
        self.asked = False
        self.transmit()


class LoopThread:
    """An asyncio loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = 30) -> T:
        return self.start(work).result(timeout)


def _configuration(datagram: int, **options: Any) -> QuicConfiguration:
    configuration = QuicConfiguration(alpn_protocols=["bench"], **options)
    if datagram:
        configuration.max_datagram_size = datagram
    return configuration


class QuicServer(BaseServer):
    """`datagram`: the largest UDP payload; 0 leaves aioquic's 1,200."""

    def __init__(self, host: str, work: Path, datagram: int = 0) -> None:
        super().__init__()
        configuration = _configuration(datagram, is_client=False)
        configuration.load_cert_chain(work / "cert.pem", work / "key.pem")
        self.thread = LoopThread()
        server = self.thread.run(serve(host, 0, configuration=configuration, create_protocol=Answering))
        # aioquic offers no way to learn the port it was given.
        port = server._transport.get_extra_info("sockname")[1]  # type: ignore[union-attr]
        self.address = {"host": host, "port": port}


class QuicClient:
    """Measures inside its loop: no thread is crossed."""

    def __init__(self, host: str, work: Path, address: Address, datagram: int = 0) -> None:
        self.address: Address = {}
        configuration = _configuration(datagram, is_client=True, server_name="localhost")
        configuration.verify_mode = ssl.CERT_REQUIRED
        configuration.load_verify_locations(str(work / "cert.pem"))
        self.thread = LoopThread()
        self.context = connect(address["host"], address["port"], configuration=configuration, create_protocol=Asking)
        protocol = self.thread.run(self.context.__aenter__())
        assert isinstance(protocol, Asking)
        self.protocol = protocol

    def requests(self, callers: int, seconds: float) -> Figures:
        return self.thread.run(self.measure(callers, seconds), seconds + 60)

    async def measure(self, callers: int, seconds: float) -> Figures:
        await asyncio.gather(*(self.calls(WARM) for _ in range(callers)))
        begin = time.perf_counter()
        latencies = await asyncio.gather(*(self.calls(seconds) for _ in range(callers)))
        return figures([each for some in latencies for each in some], time.perf_counter() - begin)

    async def calls(self, seconds: float) -> list[int]:
        clock, request = time.perf_counter_ns, self.protocol.request
        found: list[int] = []
        before = clock()
        end = before + int(seconds * 1e9)
        while before < end:
            if await request(REQUEST) != REQUEST:
                raise RuntimeError("a reply differs from its request")
            now = clock()
            found.append(now - before)
            before = now
        return found

    def bulk(self, value: Any) -> bytes:
        return self.thread.run(self.protocol.bulk(value), None)

    def close(self) -> None:
        self.thread.run(self.context.__aexit__(None, None, None))


class FacadeServer(QuicServer):
    """The same server."""


class FacadeClient(QuicClient):
    """The naive facade, called from threads."""

    def caller(self) -> Caller:
        request: Callable[[bytes], Coroutine[Any, Any, bytes]] = self.protocol.request_at_once
        return lambda data: self.thread.run(request(data))

    def requests(self, callers: int, seconds: float) -> Figures:
        return threaded(self.caller, callers, seconds)
