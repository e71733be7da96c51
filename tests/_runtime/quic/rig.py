"""Two endpoints over real loopback sockets in one process, each with its own loop thread, and an owner that records."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mycorrizal._runtime.quic.connection import Connection
from mycorrizal._runtime.quic.endpoint import Endpoint
from mycorrizal._runtime.quic.loop import Loop
from mycorrizal._runtime.quic.path import open_socket
from mycorrizal._runtime.quic.trust.keys import OpenTrust, Trust
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal.dataconfig import DataConfig
from mycorrizal.types import Address

SECONDS = 20.0
T = TypeVar("T")


def inside(conn: Connection) -> Any:
    """Return aioquic's own connection of `conn`, whatever the packet path."""
    quic: Any = conn._quic
    return getattr(quic, "quic", quic)


class Recorder:
    """An owner that writes everything down, answers ``echo`` if told to, and can be waited for."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.accepted: list[Connection] = []
        self.open: set[Connection] = set()
        self.data: dict[tuple[Connection, int], bytearray] = {}
        self.fins: set[tuple[Connection, int]] = set()
        self.resets: list[tuple[Connection, int, int]] = []
        self.stops: list[tuple[Connection, int, int]] = []
        self.ends: dict[Connection, tuple[int, str, bool, str]] = {}
        self.echo = False
        self.prove = True
        self.feeds: list[Callable[[Connection, float], None]] = []

    def connected(self, conn: Connection, now: float) -> None:
        with self.changed:
            self.open.add(conn)
            if not conn.dialled:
                self.accepted.append(conn)
                if self.prove:
                    conn.mark_proved()
            self.changed.notify_all()

    def stream_data(self, conn: Connection, stream: int, data: bytes, fin: bool, now: float) -> None:
        if self.echo and not conn.dialled:
            conn.send(stream, data, fin)
            return
        with self.changed:
            self.data.setdefault((conn, stream), bytearray()).extend(data)
            if fin:
                self.fins.add((conn, stream))
            self.changed.notify_all()

    def stream_reset(self, conn: Connection, stream: int, code: int, now: float) -> None:
        with self.changed:
            self.resets.append((conn, stream, code))
            self.changed.notify_all()

    def stream_stopped(self, conn: Connection, stream: int, code: int, now: float) -> None:
        with self.changed:
            self.stops.append((conn, stream, code))
            self.changed.notify_all()

    def before_transmit(self, conn: Connection, now: float) -> None:
        for feed in self.feeds:
            feed(conn, now)

    def closed(self, conn: Connection, code: int, reason: str, by_peer: bool, kind: str, now: float) -> None:
        with self.changed:
            assert conn not in self.ends, "closed twice"
            self.open.discard(conn)
            self.ends[conn] = (code, reason, by_peer, kind)
            self.changed.notify_all()

    def wait(self, check: Callable[[], object], seconds: float = SECONDS) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: bool(check()), seconds), "it did not happen"


class Side:
    """One node: loop, socket, endpoint, owner."""

    def __init__(
        self,
        name: str,
        *,
        config: DataConfig | None = None,
        trust: Trust | None = None,
        bind: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.name = name
        self.loop = Loop(name)
        self.owner = Recorder()
        self.counters = Counters()
        self.sock: socket.socket = open_socket(bind, port)
        self.trust = trust or OpenTrust(name, "test")
        self.endpoint = Endpoint(self.loop, self.sock, self.trust, self.owner, config or DataConfig(), self.counters)
        self.loop.start()

    @property
    def address(self) -> Address:
        return self.endpoint.address

    def run(self, fn: Callable[[float], T]) -> T:
        """Run `fn` on the loop thread and return what it returns."""
        done = threading.Event()
        results: list[T] = []

        def call(now: float) -> None:
            try:
                results.append(fn(now))
            finally:
                done.set()

        self.loop.submit(call)
        assert done.wait(SECONDS)
        return results[0]

    def do(self, *calls: Callable[[float], object]) -> None:
        """Run several on the loop thread, in one turn."""

        def all_of_them(now: float) -> None:
            for call in calls:
                call(now)

        self.run(all_of_them)

    def dial(self, address: Address, peer: str | None = None) -> Connection:
        return self.run(lambda now: self.endpoint.dial(address, peer, now))

    def connect(self, other: Side) -> Connection:
        conn = self.dial(other.address)
        self.owner.wait(lambda: conn in self.owner.open or conn in self.owner.ends)
        assert conn in self.owner.open, self.owner.ends
        return conn

    def stop(self) -> None:
        if self.loop.service.alive:
            self.run(lambda now: self.endpoint.close(now))
        self.loop.stop()
        assert self.loop.join(Deadline(SECONDS))
        self.sock.close()
        assert self.loop.service.crashed is None
