"""A trial of two packet paths: a client and a server in memory, on virtual time, with a packet lost each way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import cache

from aioquic.quic.events import HandshakeCompleted, StreamDataReceived, StreamReset

from .path import SMALLEST, Sockaddr
from .transport import CID_LENGTH, PROVEN_WINDOW, PacketPath, Setup, Transport
from .trust.authority import Authority
from .trust.certificates import ClientTls, ServerTls, hashed_name, wall

__all__ = ["try_out"]

_CLIENT: Sockaddr = ("192.0.2.1", 1)
_SERVER: Sockaddr = ("192.0.2.2", 2)
_SETUP = Setup(False, SMALLEST, 1 << 20, 60.0, lambda: os.urandom(CID_LENGTH), lambda cid: None)
_BYTES = 20_000
"""More than one flight, so that a loss is noticed by what arrives after it."""
_DELAY = 0.01
_STEPS = 400


class _Wrong(Exception):
    """Something did not behave as it should."""


def try_out(client: PacketPath, server: PacketPath) -> str | None:
    """Let a connection of each path talk to the other; return what goes wrong, None if nothing does."""
    pair = f"({client.name} to {server.name})"
    try:
        _Trial(client, server).run()
    except _Wrong as exc:
        return f"behaves otherwise {pair}: {exc}"
    except Exception as exc:
        return f"behaves otherwise {pair}: {type(exc).__name__}: {exc}"
    return None


@cache
def _identity() -> tuple[ClientTls, ServerTls]:
    authority = Authority(os.urandom(32), "trial")
    name = hashed_name("trial")
    return ClientTls(authority.pem, name), authority.issue([name], wall())


class _End:
    """One of the two, with what it has heard."""

    def __init__(self, quic: Transport, address: Sockaddr) -> None:
        self.quic = quic
        self.address = address
        self.data: dict[int, bytes] = {}
        self.fins: set[int] = set()
        self.resets: set[int] = set()
        self.connected = False
        self.genuine = False

    def take(self, datagram: bytes, source: Sockaddr, now: float) -> None:
        self.genuine = self.quic.take_datagram(datagram, source, now)
        self.look()

    def look(self) -> None:
        arrived, self.quic.arrived = self.quic.arrived, []
        for item in arrived:
            self._data(*item)
        while self.quic.events:
            match self.quic.events.popleft():
                case StreamDataReceived(stream_id=stream, data=data, end_stream=fin):
                    self._data(stream, data, fin)
                case StreamReset(stream_id=stream):
                    self.resets.add(stream)
                case HandshakeCompleted():
                    self.connected = True

    def _data(self, stream: int, data: bytes, fin: bool) -> None:
        self.data[stream] = self.data.get(stream, b"") + data
        if fin:
            self.fins.add(stream)


class _Trial:
    def __init__(self, client: PacketPath, server: PacketPath) -> None:
        names, certificate = _identity()
        self.now = 1000.0
        self.client = _End(client.client(_SETUP, names, b"token"), _CLIENT)
        self.client.quic.connect(_SERVER, self.now)
        self._make: Callable[[bytes], Transport] = lambda original: server.server(_SETUP, certificate, original, None)
        self.server: _End | None = None
        self._under_way: deque[tuple[float, bytes, _End]] = deque()
        self._to_lose = 0

    def run(self) -> None:
        """Raise _Wrong, or whatever a misfit raises, if the two do not get on."""
        client = self.client
        self._until(lambda: client.connected and self.server is not None and self.server.connected, "no handshake")
        server = self.server
        assert server is not None
        self._channel(client, server)
        stream = client.quic.open_stream(False)
        data = bytes(range(200)) * (_BYTES // 200)
        for end, other in ((client, server), (server, client)):
            self._to_lose = 1
            end.quic.write(stream, data, True)
            if end.quic.backlog(stream) != _BYTES:
                raise _Wrong("what was written is not known as unacknowledged")
            self._until(lambda other=other: stream in other.fins, "a stream does not end")  # type: ignore[misc]
            if other.data[stream] != data:
                raise _Wrong("a stream arrives changed")
            self._until(lambda end=end: not end.quic.backlog(stream), "no acknowledgement")  # type: ignore[misc]
        self._small_things(client, server)

    def _channel(self, client: _End, server: _End) -> None:
        binding = client.quic.binding()
        if binding is None or binding != server.quic.binding():
            raise _Wrong("no channel binding")
        if client.quic.peer_cid != server.quic.host_cid:
            raise _Wrong("the peer's connection id is not known")
        server.quic.raise_limit(PROVEN_WINDOW)
        forged = b"\x40" + server.quic.host_cid + bytes(100)
        server.take(forged, _CLIENT, self.now)
        if server.genuine:
            raise _Wrong("a forged packet counts as genuine")

    def _small_things(self, client: _End, server: _End) -> None:
        stream = server.quic.open_stream(True)
        server.quic.write(stream, b"more to come", False)
        self._until(lambda: stream in client.data, "no second stream")
        client.quic.halt(stream, 7)
        self._until(lambda: stream in client.resets and not server.quic.writable(stream), "a stream cannot be stopped")
        client.quic.send_ping(0)
        server.genuine = False
        self._until(lambda: server.genuine, "no sign of life")
        client.quic.close(error_code=9, reason_phrase="over")
        self._until(lambda: server.quic.ended, "a close is not noticed")
        if not server.quic.draining or server.quic.close_reason != (9, "over"):
            raise _Wrong("a close is misunderstood")
        client.quic.free()
        server.quic.free()

    # -- the network ------------------------------------------------------------------------

    def _until(self, done: Callable[[], object], otherwise: str, steps: int = _STEPS) -> None:
        for _ in range(steps):
            self._flush()
            if done():
                return
            self._step()
        raise _Wrong(otherwise)

    def _flush(self) -> None:
        for end in self._ends():
            end.quic.give_datagrams(self._to_server if end is self.client else self._to_client, self.now)
            end.look()

    def _to_server(self, data: bytes, address: Sockaddr) -> None:
        self._send(data, self.server)

    def _to_client(self, data: bytes, address: Sockaddr) -> None:
        self._send(data, self.client)

    def _ends(self) -> list[_End]:
        return [self.client, self.server] if self.server else [self.client]

    def _send(self, data: bytes, to: _End | None) -> None:
        if to is None:
            to = self.server = _End(self._make(data[6 : 6 + data[5]]), _SERVER)
        if self._to_lose and len(data) > SMALLEST // 2:
            self._to_lose -= 1
            return
        self._under_way.append((self.now + _DELAY, data, to))

    def _step(self) -> None:
        """Let time pass until something arrives or is due."""
        due = [when for end in self._ends() if (when := end.quic.next_timer()) is not None]
        due += [self._under_way[0][0]] if self._under_way else []
        # A little later each time: a timer that fires to the very bit can miss its own packet.
        self.now = max(min(due, default=self.now), self.now) + 1e-6
        while self._under_way and self._under_way[0][0] <= self.now:
            _, data, to = self._under_way.popleft()
            to.take(data, _SERVER if to is self.client else _CLIENT, self.now)
        for end in self._ends():
            when = end.quic.next_timer()
            if when is not None and when <= self.now:
                end.quic.handle_timer(self.now)
                end.look()
