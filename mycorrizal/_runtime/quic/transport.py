"""What this package asks of a QUIC connection: ``fast`` and ``stock`` make one each. Loop thread only.

From: RFC 9000; the division of labour is aioquic's own, datagrams in and out, with no socket and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from .path import PathInfo, Sockaddr
from .trust.certificates import ClientTls, ServerTls
from .trust.proof import SecretsTap

__all__ = ["CID_LENGTH", "PROVEN_WINDOW", "UNPROVEN_BYTES", "PacketPath", "Setup", "Transport", "settings"]

ALPN = "mycorrizal/1"
CID_LENGTH = 8
UNPROVEN_BYTES = 64 << 10
"""What a client may send before it has proved the key."""
PROVEN_WINDOW = 16 << 20
"""Flow control afterwards; the limits that count are the owner's credits."""


class Setup(NamedTuple):
    """What a new connection is made with.

    Attributes:
        local: the peer is on this host.
        size: largest datagram to send, from ``PacketPath.datagram_size``.
        window: bytes that may be in flight to a peer on this host.
        idle: seconds without a packet after which the connection ends.
        make_cid: gives connection ids that this node recognises later.
        reset_token: gives the stateless reset token of a connection id, None for none.
    """

    local: bool
    size: int
    window: int
    idle: float
    make_cid: Callable[[], bytes]
    reset_token: Callable[[bytes], bytes | None]


class Transport(Protocol):
    """One connection.

    Attributes:
        arrived: ``(stream, data, fin)`` in order, to be taken before ``events``.
        events: what else happened, of the kinds in ``aioquic.quic.events``; taken from the left.
        host_cid: the id that the peer's packets carry at first; empty until the first packet is ready.
    """

    arrived: list[tuple[int, bytes, bool]]
    events: deque[QuicEvent]
    host_cid: bytes

    @property
    def ended(self) -> bool:
        """Whether it closes, or has closed."""

    @property
    def draining(self) -> bool:
        """Whether the peer closed it."""

    @property
    def close_reason(self) -> tuple[int, str]:
        """Code and text of the end, once ``ended``."""

    @property
    def peer_cid(self) -> bytes:
        """The id that our packets carry; empty as long as it is not known."""

    @property
    def datagram_size(self) -> int:
        """Largest datagram it sends."""

    @property
    def in_a_hole(self) -> bool:
        """Whether the path seems to carry small packets only."""

    # -- datagrams and time
    def connect(self, addr: Any, now: float) -> None:
        """Dial: the first datagram is ready."""

    def take_datagram(self, data: bytes, sockaddr: Sockaddr, now: float) -> bool:
        """Read a datagram; return whether it was the peer's, and not forged."""

    def give_datagrams(self, send: Callable[[bytes, Any], object], now: float) -> bool:
        """Hand each datagram that is due to `send`; true: there is more, held back to let others have their turn."""

    def follow(self, sockaddr: Sockaddr) -> None:
        """Have the server at another address."""

    def moved_to(self, sockaddr: Sockaddr) -> bool:
        """Return whether the client is at `sockaddr` now (RFC 9000 §9)."""

    def next_timer(self) -> float | None:
        """Return when ``handle_timer`` is due."""

    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    def closing_time(self) -> float:
        """Return three probe timeouts in seconds: how long late packets may still come (RFC 9000 §10.2)."""

    # -- streams
    def open_stream(self, uni: bool) -> int:
        """Return the id of a new stream."""

    def write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Send on a stream; nothing if it has ended, or is not ours to write to."""

    def backlog(self, stream_id: int) -> int:
        """Return the bytes written to a stream and not yet acknowledged."""

    def writable(self, stream_id: int) -> bool:
        """Return whether bytes written to this stream would still be sent."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give up sending on a stream that is ``writable``."""

    def halt(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending; nothing for a stream that is gone."""

    # -- the connection
    def send_ping(self, uid: int) -> None:
        """Send something that the peer has to acknowledge."""

    def raise_limit(self, max_data: int) -> None:
        """The peer has proved itself: let it send `max_data` bytes ahead of what has arrived in order."""

    def lower(self, size: int) -> None:
        """Send no larger datagrams than `size` from now on."""

    def binding(self) -> bytes | None:
        """Return bytes that only the two ends of this TLS session have; None before the handshake is done."""

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """Say goodbye with the next datagram."""

    def figures(self) -> dict[str, float | int]:
        """Return what is known of the path: seconds, bytes, counts."""

    def free(self) -> None:
        """Let go of everything; nothing is asked of it any more."""


class PacketPath(Protocol):
    """A way to make connections.

    Attributes:
        name: "fast" or "stock".
    """

    @property
    def name(self) -> str: ...

    def datagram_size(self, info: PathInfo) -> int:
        """Return the largest datagram to send on a path."""

    def client(self, setup: Setup, tls: ClientTls, token: bytes) -> Transport:
        """Return a connection that is to dial, with `token` in its first packet."""

    def server(self, setup: Setup, tls: ServerTls, original: bytes, retried: bytes | None) -> Transport:
        """Return a connection for a client that wrote to the id `original` first, and to `retried` after a Retry."""


def settings(setup: Setup, *, is_client: bool, congestion: str) -> QuicConfiguration:
    """Return what all connections have in common; without the certificates."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        congestion_control_algorithm=congestion,
        connection_id_length=CID_LENGTH,
        idle_timeout=setup.idle,
        max_data=PROVEN_WINDOW if is_client else UNPROVEN_BYTES,
        max_stream_data=PROVEN_WINDOW,
        max_datagram_size=setup.size,
        secrets_log_file=SecretsTap(),  # type: ignore[arg-type]
        # session_ticket stays unset: a resumed session would skip the certificate.
    )
