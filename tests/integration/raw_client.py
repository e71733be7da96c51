"""A QUIC client of stock aioquic that says what no honest node would, with or without the key."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TextIO, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StopSendingReceived, StreamDataReceived

from mycorrizal._runtime.quic.trust.keys import KeyTrust, Trust
from mycorrizal._runtime.quic.trust.proof import Binding, SecretsTap
from mycorrizal._wire import frames
from mycorrizal._wire.frames import Challenge, Close, Frame, LaneReader, Limits, Proof, Welcome
from mycorrizal._wire.security import Keyring
from mycorrizal.types import Address

from .planes import KEY

__all__ = ["RawClient", "first_datagram"]

LANE = 2
REMOTE_LANE = 3
LIMITS = Limits(64, 1 << 20, 1024, 1 << 30)


class RawClient:
    """One connection to the node `server`. Nothing moves but inside ``pump`` and what calls it.

    Args:
        key: what it holds; None makes it a stranger, who takes any certificate.
        window: flow control of what the server may send to it, in bytes.
        source: address that it sends from.
    """

    def __init__(
        self,
        address: Address,
        server: str,
        *,
        name: str = "raw",
        key: bytes | None = KEY,
        cluster: str = "default",
        window: int = 1 << 24,
        idle: float = 60.0,
        source: str = "",
    ) -> None:
        self.name = name
        self.server = server
        self.trust: Trust | None = None if key is None else KeyTrust(Keyring(primary=key), name, cluster)
        self.tap = SecretsTap()
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=[frames.ALPN],
            verify_mode=ssl.CERT_NONE,
            idle_timeout=idle,
            max_data=window,
            max_stream_data=window,
            max_datagram_size=1200,
            secrets_log_file=cast(TextIO, self.tap),
        )
        if self.trust is not None:
            tls = self.trust.client_tls(server)
            configuration.cadata, configuration.server_name = tls.cadata, tls.server_name
            configuration.verify_mode = ssl.CERT_REQUIRED
            configuration.token = self.trust.knock()
        self.quic = QuicConnection(configuration=configuration)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((source, 0))
        self.sock.connect(address)
        self.sock.setblocking(False)
        self.address = address
        self.complete = False
        self.channel: bytes | None = None
        self.end: ConnectionTerminated | None = None
        self.frames: list[tuple[int, bytes]] = []
        self.heard: dict[int, bytearray] = {}
        self.stopped: dict[int, int] = {}
        self._lane = LaneReader(frames.FRAME_MAX)
        self.quic.connect(address, now=time.monotonic())

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.end is None:
            self.quic.close()
            self._send()
        self.sock.close()

    # -- driving ------------------------------------------------------------------------

    def pump(self, until: Callable[[], object] = lambda: False, seconds: float = 10.0) -> bool:
        """Send and receive until `until()` or the end of the connection; return whether `until()` holds."""
        deadline = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now >= deadline or self.end is not None:
                return bool(until())
            self._send()
            timer = self.quic.get_timer()
            wait = min(deadline, timer if timer is not None else deadline) - now
            if select.select([self.sock], [], [], max(0.0, wait))[0]:
                self._receive()
            elif timer is not None and time.monotonic() >= timer:
                self.quic.handle_timer(time.monotonic())
            self._events()
        self._send()
        return True

    def _send(self) -> None:
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            try:
                self.sock.send(data)
            except (BlockingIOError, ConnectionRefusedError):
                pass  # lost, as datagrams may be

    def _receive(self) -> None:
        for _ in range(200):
            try:
                data = self.sock.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self.quic.receive_datagram(data, self.address, now=time.monotonic())

    def _events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self.heard.setdefault(event.stream_id, bytearray()).extend(event.data)
                if event.stream_id == REMOTE_LANE:
                    self.frames += self._lane.feed(event.data)
            elif isinstance(event, HandshakeCompleted):
                self.complete = True
                self.channel = self.tap.binding()
            elif isinstance(event, StopSendingReceived):
                self.stopped[event.stream_id] = event.error_code
        # The event comes only after the draining period, which after a pause is long.
        self.end = self.quic._close_event

    def ended(self, seconds: float = 10.0) -> Close | int | None:
        """Wait until the server closes the connection; return its code, None if it does not."""
        self.pump(lambda: self.end is not None, seconds)
        if self.end is None:
            return None
        code = self.end.error_code
        return Close(code) if code in Close._value2member_map_ else code

    # -- speaking -------------------------------------------------------------------------

    def handshake(self) -> Challenge:
        """Finish TLS and return the server's challenge."""
        assert self.pump(lambda: self.frames), self.end
        kind, body = self.frames.pop(0)
        assert kind == Frame.CHALLENGE
        return Challenge.parse(body)

    def proof(self, challenge: Challenge, trust: Trust | None = None) -> bytes:
        """Return the frame that proves the key for this session; with `trust` another one, whether offered or not."""
        nonce = os.urandom(32)
        offer = challenge.offer if trust is None else trust.offer()
        trust = trust or self.trust
        assert trust is not None and self.channel is not None
        binding = Binding(self.channel, challenge.nonce, nonce, self.name, challenge.name)
        proof, _ = trust.prove(binding, offer)
        return Proof(nonce, self.name, os.urandom(8), proof, LIMITS, 0).pack()

    def join(self) -> RawClient:
        """Become a member as an honest client does."""
        self.say(self.proof(self.handshake()))
        assert self.pump(lambda: self.frames), self.end
        kind, body = self.frames.pop(0)
        assert kind == Frame.WELCOME
        Welcome.parse(body)
        return self

    def say(self, data: bytes, *, fin: bool = False) -> None:
        """Write to the lane."""
        self.quic.send_stream_data(LANE, data, fin)
        self._send()

    def open(self, data: bytes, *, fin: bool = False, uni: bool = True) -> int:
        """Write to a new stream; return its id. The lane has to be open."""
        stream = self.quic.get_next_available_stream_id(is_unidirectional=uni)
        self.quic.send_stream_data(stream, data, fin)
        self._send()
        return stream

    def request(self, number: int, name: str, packed: bytes) -> bytes:
        """Return a request frame with any bytes as its value."""
        return frames.frame(Frame.REQUEST, frames.request_body(number, 0) + frames.name_field(name) + packed)

    def message(self, sequence: int, packed: bytes) -> bytes:
        """Return a message frame."""
        return frames.frame(Frame.MESSAGE, frames.message_body(sequence) + packed)

    def value_head(self, kind: int, body: bytes, size: int) -> bytes:
        """Return what announces a large value on a stream of its own."""
        return frames.stream_head(kind, body, size)


def first_datagram(server: str = "server") -> bytes:
    """Return an Initial of a stranger: a whole ClientHello, as the first datagram of a handshake."""
    quic = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True, alpn_protocols=[frames.ALPN], verify_mode=ssl.CERT_NONE, server_name=server
        )
    )
    quic.connect(("127.0.0.1", 1), now=0.0)
    return quic.datagrams_to_send(now=0.0)[0][0]
