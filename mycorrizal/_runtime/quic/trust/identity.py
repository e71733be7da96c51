"""Who an agent is when nobody says: a name from host and process, and keys for each purpose from the one key."""

from __future__ import annotations

import os
import socket

from .proof import derive

__all__ = ["default_name", "gossip_key", "process"]

_FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of linux/proc_ns.h


def default_name() -> str:
    """Return ``<host>-<pid>``; in a container, whose numbers begin anew, with that of its process namespace."""
    host = socket.gethostname().partition(".")[0].replace("/", "-").strip() or "host"
    space = _process_namespace()
    return f"{host}-{os.getpid()}" if space is None else f"{host}-{os.getpid()}-{space:x}"


def _process_namespace() -> int | None:
    """Return the number of this process's namespace, None in the one that the host began with, or where there is none.

    Containers that share the host's network share its name too, and each has a process 1.
    """
    try:
        number = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None
    return None if number == _FIRST_NAMESPACE else number


def process() -> int:
    """Return this process's number."""
    return os.getpid()


def gossip_key(key: bytes, cluster: str) -> bytes:
    """Return the 32 bytes that encrypt gossip: two clusters with one key still cannot read each other."""
    return derive(bytes(key), "gossip 1", cluster)
