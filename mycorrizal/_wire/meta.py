"""The QUIC port in a node's metadata: two bytes, big-endian, in front of whatever else the metadata hold.

In a Serf cluster the metadata are Serf's tags (``ff``, then a msgpack map), and
the port is the tag ``quic_port``. A port from 65280 on would begin with ``ff``
too, so such ports are not announced.

From: the delegate example of memberlist's users (``Meta[:2]``), serf-protocol (tags).
"""

from __future__ import annotations

from ..exceptions import ConfigError, RemoteProtocolError
from . import msgpack

__all__ = ["PORT_MAX", "SERF_TAG", "port_meta", "quic_port"]

PORT_MAX = 0xFEFF
"""Highest port that two bytes of metadata can tell from Serf's tags."""

SERF_TAG = "quic_port"
"""Name of the tag that holds the port in a Serf cluster, as decimal text."""

_SERF = 0xFF
_TAGS_MAX = 1024


def quic_port(meta: bytes) -> int | None:
    """Return the QUIC port that a node announces; None if it announces none, or something else. Never raises."""
    if len(meta) < 2:
        return None
    if meta[0] != _SERF:
        return int.from_bytes(meta[:2], "big") or None
    try:
        tags, end = msgpack.unpack(meta, 1, items=_TAGS_MAX)
    except RemoteProtocolError:
        return None
    text = tags.get(SERF_TAG.encode()) if isinstance(tags, dict) and end == len(meta) else None
    if not isinstance(text, bytes) or not text.isdigit() or len(text) > 5:
        return None
    port = int(text)
    return port if 0 < port <= 0xFFFF else None


def port_meta(port: int, rest: bytes = b"") -> bytes:
    """Return metadata that announce `port` (0 for none), followed by `rest`.

    Raises:
        ConfigError: the port is not in 0..65279.
    """
    if not 0 <= port <= PORT_MAX:
        raise ConfigError("port", f"{port} is not in 0..{PORT_MAX}", hint="a higher one would look like Serf's tags")
    return port.to_bytes(2, "big") + rest
