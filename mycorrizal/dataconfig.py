"""Settings of the data plane, with the bound that each of them sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from .config import builtin_fields
from .exceptions import ConfigError

__all__ = ["DataConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How a ``DataPlane`` behaves. Immutable; seconds and bytes throughout.

    Attributes:
        connect_timeout: for one attempt to reach a peer, handshake and proof included.
        idle_timeout: a connection without work is closed after this long; the next call opens it again.
        silence_timeout: a peer that sends nothing for this long while work is open counts as gone.
        keepalive_interval: between the pings that are sent while work is open, and only then.
        redial_first, redial_max: back-off between attempts, doubling, with jitter.
        inbox_messages, inbox_bytes: what waits for ``receive``, from all peers together.
        window_messages, window_bytes: what one peer may send ahead of our inbox.
        max_value: largest value accepted or sent, headers included.
        bulk_memory: bytes of values above 256 KiB that may be arriving at a time, from all peers together; one peer
            gets half of it, or a single value; of the last eighth who holds nothing gets a quarter of what is free, and
            those at one address never get the last sixteenth.
        stall_timeout: a large value that makes no progress for this long is given up.
        handlers, handler_spares, handler_queue: threads that run request handlers; further ones while those wait
            inside calls of ours; requests that wait for a thread. A request beyond that is answered ``PeerBusy``.
        requests_per_peer: requests of one peer that may be open here at a time.
        max_connections: open connections, both directions.
        max_unproven, retry_threshold: connections that have not proved the key; from the second number on their
            senders must first show that their address is theirs (QUIC Retry).
        max_datagram: largest UDP payload tried on a path that carries it; 1,200 to 16,384.
        spin: None lets a loop poll before it sleeps amid many calls at a time, on several cores, for as long as that
            pays; 0 never polls; a number of seconds polls that long whenever a connection is open and no handler runs.
        tracebacks: whether a handler's exception travels with its traceback.
        same_host: whether an agent reaches agents of its user on its host by a Unix socket, where it can; else by QUIC.
    """

    connect_timeout: float = 5.0
    idle_timeout: float = 60.0
    silence_timeout: float = 10.0
    keepalive_interval: float = 3.0
    redial_first: float = 0.1
    redial_max: float = 10.0
    inbox_messages: int = 1024
    inbox_bytes: int = 64 << 20
    window_messages: int = 64
    window_bytes: int = 1 << 20
    max_value: int = 1 << 30
    bulk_memory: int = 2 << 30
    stall_timeout: float = 30.0
    handlers: int = 8
    handler_spares: int = 64
    handler_queue: int = 256
    requests_per_peer: int = 1024
    max_connections: int = 4096
    max_unproven: int = 64
    retry_threshold: int = 16
    max_datagram: int = 16384
    spin: float | None = None
    tracebacks: bool = False
    same_host: bool = True

    def __post_init__(self) -> None:
        builtin_fields(self)
        for name in _SECONDS:
            value = getattr(self, name)
            if value is None and name == "spin":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
                raise ConfigError(name, f"must be a number of seconds, not {value!r}")
            if value < 0 or (value == 0 and name != "spin"):
                raise ConfigError(name, f"{value} is too small", hint="must be above 0")
        for name, (low, high) in _COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(name, f"must be a whole number, not {value!r}")
            if not low <= value <= high:
                raise ConfigError(name, f"{value} is not in {low}..{high}")
        for name in ("tracebacks", "same_host"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(name, f"must be True or False, not {value!r}")
        if self.spin is not None and self.spin > 0.01:
            raise ConfigError("spin", f"{self.spin} s would burn a core", hint="0.0005 to 0.001 is useful")

    def replace(self, **changes: Any) -> DataConfig:
        """Return a copy with `changes`, checked again."""
        known = {f.name for f in fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(name, "no such setting", hint="see the fields of mycorrizal.DataConfig")
        return replace(self, **changes)


_SECONDS = (
    "connect_timeout",
    "idle_timeout",
    "silence_timeout",
    "keepalive_interval",
    "redial_first",
    "redial_max",
    "stall_timeout",
    "spin",
)
_COUNTS = {
    "inbox_messages": (1, 1 << 24),
    "inbox_bytes": (1 << 16, 1 << 40),
    "window_messages": (1, 1 << 16),
    "window_bytes": (1 << 16, 1 << 30),
    "max_value": (1 << 16, 1 << 36),
    "bulk_memory": (1 << 16, 1 << 40),
    "handlers": (1, 1024),
    "handler_spares": (0, 4096),
    "handler_queue": (0, 1 << 20),
    "requests_per_peer": (1, 1 << 20),
    "max_connections": (2, 1 << 16),
    "max_unproven": (1, 1 << 16),
    "retry_threshold": (0, 1 << 16),
    "max_datagram": (1200, 16384),
}
