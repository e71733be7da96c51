"""Peers of ``tools/bench data``: pyzmq, plain and with CURVE.

REQ: a socket for each calling thread. DEALER: one socket whose thread keeps
all requests outstanding. The server is a ROUTER, and a second one for bulk
values, whose messages are not copied.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import zmq

from benchmarks.data.peer import REQUEST, Address, BaseServer, Caller, Figures, ThreadedClient, figures, receipt
from benchmarks.rounds import WARM


class ZmqServer(BaseServer):
    """Echoes on one port, takes bulk values on another."""

    def __init__(self, host: str, work: Path, dealer: bool = False, curve: bool = False) -> None:
        super().__init__()
        self.context = zmq.Context()
        public, self.secret = zmq.curve_keypair() if curve else (b"", b"")
        self.address = {"host": host, "key": public.decode()}
        for name, work_on in (("port", self.echo), ("bulk", self.take)):
            router = self.context.socket(zmq.ROUTER)
            if curve:
                router.curve_server = True
                router.curve_secretkey = self.secret
            self.address[name] = router.bind_to_random_port(f"tcp://{host}")
            threading.Thread(target=work_on, args=(router,), daemon=True).start()

    def echo(self, router: zmq.Socket[bytes]) -> None:
        while True:
            router.send_multipart(router.recv_multipart())

    def take(self, router: zmq.Socket[bytes]) -> None:
        while True:
            *envelope, value = router.recv_multipart(copy=False)
            answer = receipt(value.buffer)
            del value
            router.send_multipart([*(each.bytes for each in envelope), answer])


class ZmqClient(ThreadedClient):
    """`dealer`: one socket for all outstanding requests, otherwise a REQ socket for each caller."""

    def __init__(self, host: str, work: Path, address: Address, dealer: bool = False, curve: bool = False) -> None:
        super().__init__()
        self.server, self.dealer = address, dealer
        self.context = zmq.Context()
        self.curve = zmq.curve_keypair() if curve else None

    def connect(self, kind: int, port: str) -> zmq.Socket[bytes]:
        sock = self.context.socket(kind)
        if self.curve is not None:
            sock.curve_publickey, sock.curve_secretkey = self.curve
            sock.curve_serverkey = self.server["key"].encode()
        sock.connect(f"tcp://{self.server['host']}:{self.server[port]}")
        return sock

    def caller(self) -> Caller:
        sock = self.connect(zmq.REQ, "port")

        def call(request: bytes) -> bytes:
            sock.send(request)
            return sock.recv()

        return call

    def requests(self, callers: int, seconds: float) -> Figures:
        if not self.dealer:
            return super().requests(callers, seconds)
        sock = self.connect(zmq.DEALER, "port")
        self.pipeline(sock, callers, WARM)
        return self.pipeline(sock, callers, seconds)

    def pipeline(self, sock: zmq.Socket[bytes], outstanding: int, seconds: float) -> Figures:
        clock = time.perf_counter_ns
        found: list[int] = []
        sent: deque[int] = deque()
        begin = now = clock()
        end = begin + int(seconds * 1e9)
        while sent or now < end:
            while now < end and len(sent) < outstanding:
                sent.append(now)
                sock.send_multipart([b"", REQUEST])
            if sock.recv_multipart()[1] != REQUEST:
                raise RuntimeError("a reply differs from its request")
            now = clock()
            found.append(now - sent.popleft())
        return figures(found, (now - begin) / 1e9)

    def bulk(self, value: Any) -> bytes:
        sock = self.connect(zmq.REQ, "bulk")
        sock.send(value, copy=False)
        return sock.recv()
