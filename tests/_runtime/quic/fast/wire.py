"""Two QUIC connections and a bad network between them, in memory and in virtual time."""

from __future__ import annotations

import heapq
import itertools
import os
import ssl
from collections.abc import Callable
from random import Random
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived

from mycorrizal._runtime.quic.fast.aio import LOCAL, Quic
from mycorrizal._runtime.quic.fast.lean import LeanConnection
from mycorrizal._runtime.quic.transport import ALPN
from mycorrizal._runtime.quic.trust.keys import OpenTrust

TRUST = OpenTrust("wire", "test")
CLIENT = ("192.0.2.1", 1111)
SERVER = ("192.0.2.2", 2222)


def configurations(size: int, local: bool) -> tuple[QuicConfiguration, QuicConfiguration]:
    """Return a client's and a server's."""
    shared: dict[str, Any] = {
        "alpn_protocols": [ALPN],
        "max_datagram_size": size,
        "congestion_control_algorithm": LOCAL if local else "reno",
    }
    names = TRUST.client_tls(None)
    client = QuicConfiguration(
        cadata=names.cadata, server_name=names.server_name, verify_mode=ssl.CERT_REQUIRED, **shared
    )
    tls = TRUST.server_tls()
    server = QuicConfiguration(is_client=False, **shared)
    server.certificate, server.private_key, server.certificate_chain = tls.certificate, tls.private_key, list(tls.chain)
    return client, server


def make(stock: bool, configuration: QuicConfiguration, original: bytes | None = None) -> QuicConnection:
    """Return aioquic's connection or ours."""
    if stock:
        return QuicConnection(configuration=configuration, original_destination_connection_id=original)
    return Quic(configuration, lambda: os.urandom(8), lambda cid: None, original_destination_connection_id=original)


class End:
    """One of the two, with what it received."""

    def __init__(self, quic: QuicConnection, address: tuple[str, int]) -> None:
        self.quic = quic
        self.address = address
        self.lean = isinstance(quic, LeanConnection)
        self.data: dict[int, bytearray] = {}
        self.fins: set[int] = set()
        self.events: list[QuicEvent] = []
        self.on_data: Callable[[int, bytes, bool], None] = lambda stream, data, fin: None

    def receive(self, data: bytes, source: tuple[str, int], now: float) -> None:
        if isinstance(self.quic, LeanConnection):
            self.quic.take_datagram(data, source, now)
        else:
            self.quic.receive_datagram(data, source, now)
        self.pump()

    def pump(self) -> None:
        if isinstance(self.quic, LeanConnection):
            arrived, self.quic.arrived = self.quic.arrived, []
            for item in arrived:
                self._data(*item)
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self._data(event.stream_id, event.data, event.end_stream)
            else:
                self.events.append(event)

    def _data(self, stream: int, data: bytes, fin: bool) -> None:
        assert stream not in self.fins, "data after the end"
        self.data.setdefault(stream, bytearray()).extend(data)
        if fin:
            self.fins.add(stream)
        self.on_data(stream, data, fin)

    def datagrams(self, now: float) -> list[bytes]:
        if self.quic.get_peer_address() is None:
            return []
        if not isinstance(self.quic, LeanConnection):
            return [data for data, _ in self.quic.datagrams_to_send(now)]
        made: list[bytes] = []
        while self.quic.give_datagrams(lambda data, _: made.append(data), now):
            pass
        return made

    def timer(self) -> float | None:
        if isinstance(self.quic, LeanConnection):
            return self.quic.next_timer()
        return self.quic.get_timer()

    @property
    def connected(self) -> bool:
        return any(isinstance(event, HandshakeCompleted) for event in self.events)

    @property
    def end(self) -> ConnectionTerminated | None:
        return next((event for event in self.events if isinstance(event, ConnectionTerminated)), None)


class Wire:
    """The network: loses, doubles and delays at random, from one seed."""

    def __init__(
        self,
        *,
        stock_client: bool = False,
        stock_server: bool = False,
        size: int = 1452,
        local: bool = False,
        loss: float = 0.0,
        double: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        client, server = configurations(size, local)
        self.now = 1000.0
        self.loss, self.double, self.jitter = loss, double, jitter
        self.rng = Random(seed)
        quic = make(stock_client, client)
        self.client = End(quic, CLIENT)
        self.server = End(make(stock_server, server, quic.original_destination_connection_id), SERVER)
        self._under_way: list[tuple[float, int, End, bytes, tuple[str, int]]] = []
        self._numbers = itertools.count()
        self.sent = 0
        for end in (self.client, self.server):
            if local and isinstance(end.quic, Quic):
                end.quic.be_local(1 << 20)
        quic.connect(SERVER, self.now)

    def run(self, until: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass until `until()` is true."""
        limit = self.now + seconds
        while True:
            self.flush()
            if until():
                return
            times = [item[0] for item in self._under_way[:1]]
            times += [when for end in (self.client, self.server) if (when := end.timer()) is not None]
            assert times and min(times) <= limit, "it did not happen"
            # A little later each time: aioquic's loss timer, fired to the very bit, can miss its own packet.
            self.now = max(self.now + 1e-6, min(times))
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, end, data, source = heapq.heappop(self._under_way)
                end.receive(data, source, self.now)
            for end in (self.client, self.server):
                when = end.timer()
                if when is not None and when <= self.now:
                    end.quic.handle_timer(self.now)
                    end.pump()

    def flush(self) -> None:
        for end, other in ((self.client, self.server), (self.server, self.client)):
            for data in end.datagrams(self.now):
                self.sent += 1
                end.pump()
                copies = 1 - (self.rng.random() < self.loss) + (self.rng.random() < self.double)
                for _ in range(copies):
                    when = self.now + 0.005 + self.rng.random() * self.jitter
                    heapq.heappush(self._under_way, (when, next(self._numbers), other, data, end.address))
            end.pump()
