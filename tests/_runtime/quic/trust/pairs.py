"""Two real aioquic connections in memory, on virtual time, and the proof spoken over them.

No sockets: datagrams are handed over by ``Pair.pump``. Certificates are checked
by aioquic against the real date, so only the QUIC timers are virtual.
"""

from __future__ import annotations

import itertools
import ssl
from typing import TextIO, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from aioquic.tls import SessionTicket

from mycorrizal._runtime.quic.trust.keys import Binding, ClientTls, SecretsTap, ServerTls, Trust

ALPN = "mycorrizal/1"
CLIENT = ("192.0.2.1", 1001)
SERVER = ("192.0.2.2", 1002)

UNKNOWN_CA = 0x12A
BAD_DATES = 0x12D
BAD_SIGNATURE = 0x133
NO_ALPN = 0x178

_counter = itertools.count(1)


def nonce() -> bytes:
    """Return 32 bytes that no other call returns."""
    return next(_counter).to_bytes(32, "big")


class Side:
    """One end of a connection with what it has heard."""

    def __init__(self, quic: QuicConnection, tap: SecretsTap) -> None:
        self.quic = quic
        self.tap = tap
        self.heard: dict[int, bytes] = {}
        self.end: ConnectionTerminated | None = None
        self.complete = False
        self.tickets: list[SessionTicket] = []

    def take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self._take(event)

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.heard[event.stream_id] = self.heard.get(event.stream_id, b"") + event.data
        elif isinstance(event, HandshakeCompleted):
            self.complete = True
        elif isinstance(event, ConnectionTerminated):
            self.end = event

    @property
    def channel(self) -> bytes:
        binding = self.tap.binding()
        assert binding is not None
        return binding


class Pair:
    """A client that dials a server; ``pump`` carries datagrams until nobody has any."""

    def __init__(self, client: ClientTls, server: ServerTls, *, alpn: tuple[str, str] = (ALPN, ALPN)) -> None:
        self.now = 1000.0
        taps = SecretsTap(), SecretsTap()
        dialling = QuicConfiguration(
            is_client=True,
            alpn_protocols=[alpn[0]],
            cadata=client.cadata,
            server_name=client.server_name,
            verify_mode=ssl.CERT_REQUIRED,
            secrets_log_file=cast(TextIO, taps[0]),
        )
        accepting = QuicConfiguration(
            is_client=False,
            alpn_protocols=[alpn[1]],
            certificate=server.certificate,
            private_key=server.private_key,
            certificate_chain=list(server.chain),
            secrets_log_file=cast(TextIO, taps[1]),
        )
        tickets: list[SessionTicket] = []
        dialler = QuicConnection(configuration=dialling, session_ticket_handler=tickets.append)
        self.client = Side(dialler, taps[0])
        self.client.tickets = tickets
        dialler.connect(SERVER, now=self.now)
        listener = QuicConnection(
            configuration=accepting, original_destination_connection_id=dialler.original_destination_connection_id
        )
        self.server = Side(listener, taps[1])

    def pump(self) -> Pair:
        """Carry everything until both ends are quiet, and let the timers of the next two seconds run."""
        limit = self.now + 2.0
        while self.now < limit:
            if self._carry(self.client, self.server, CLIENT) + self._carry(self.server, self.client, SERVER):
                self.now += 0.001
                limit = self.now + 2.0
                continue
            timers = [timer for side in (self.client, self.server) if (timer := side.quic.get_timer()) is not None]
            self.now = max(self.now + 0.001, min([limit, *timers]))
            for side in (self.client, self.server):
                timer = side.quic.get_timer()
                if timer is not None and timer <= self.now:
                    side.quic.handle_timer(now=self.now)
                side.take_events()
        return self

    def close(self) -> None:
        """Let both ends finish."""
        self.client.quic.close()
        self.pump()

    def _carry(self, giver: Side, taker: Side, address: tuple[str, int]) -> int:
        datagrams = giver.quic.datagrams_to_send(now=self.now)
        for data, _ in datagrams:
            taker.quic.receive_datagram(data, address, now=self.now)
        giver.take_events()
        taker.take_events()
        return len(datagrams)

    @property
    def refused(self) -> int | None:
        """The TLS alert that ended it, 0x100 and the number; None if it stands."""
        return self.client.end.error_code if self.client.end is not None else None


def connect(client: Trust, server: Trust, peer: str | None) -> Pair:
    """Return the pair after the handshake, which may have failed."""
    return Pair(client.client_tls(peer), server.server_tls()).pump()


def prove_over(pair: Pair, client: Trust, server: Trust, names: tuple[str, str]) -> str:
    """Speak nonce, proof and answer over three streams of `pair`; return the key id. Raises ProofError."""
    server_nonce, client_nonce = nonce(), nonce()
    offered = _say(pair, pair.server, pair.client, 3, server_nonce + server.offer())
    ours = Binding(pair.client.channel, offered[:32], client_nonce, *names)
    proof, used = client.prove(ours, offered[32:])
    said = _say(pair, pair.client, pair.server, 2, client_nonce + proof)
    theirs = Binding(pair.server.channel, server_nonce, said[:32], *names)
    found = server.verify(theirs, said[32:])
    client.check_answer(ours, used, _say(pair, pair.server, pair.client, 7, server.answer(theirs, found)))
    assert used == found
    return found


def _say(pair: Pair, giver: Side, taker: Side, stream: int, data: bytes) -> bytes:
    giver.quic.send_stream_data(stream, data)
    pair.pump()
    return taker.heard[stream]
