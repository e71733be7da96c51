"""Who an agent is when nobody says: a name from host and process, and keys for each purpose from the one key."""

from __future__ import annotations

import os
import socket

from .quic.proof import derive

__all__ = ["default_name", "gossip_key", "process"]


def default_name() -> str:
    """Return ``<host>-<pid>``."""
    host = socket.gethostname().partition(".")[0].replace("/", "-").strip() or "host"
    return f"{host}-{os.getpid()}"


def process() -> int:
    """Return this process's number."""
    return os.getpid()


def gossip_key(key: bytes, cluster: str) -> bytes:
    """Return the 32 bytes that encrypt gossip: two clusters with one key still cannot read each other."""
    return derive(bytes(key), "gossip 1", cluster)
