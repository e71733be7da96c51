"""Where a process is: which run of which kernel, and in which namespaces. Two that are in one place share sockets."""

from __future__ import annotations

import os
import socket
import struct
from hashlib import sha256
from typing import NamedTuple

__all__ = ["Credentials", "credentials", "here", "mark", "widen"]

_NAMESPACES = ("net", "pid", "user")
BUFFER = 2 << 20
"""Bytes that may wait in a socket; the system gives less to who is not privileged."""
_SO_SNDBUFFORCE = 32
_UCRED = struct.Struct("=iII")


class Credentials(NamedTuple):
    """What the kernel tells of the other end of a Unix socket: who connected, or who listened."""

    pid: int
    uid: int


def here() -> str:
    """Return where this process is, for its record; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            kernel = file.read().strip()
        spaces = [os.stat(f"/proc/self/ns/{name}").st_ino for name in _NAMESPACES]
    except OSError:
        return ""
    return "/".join([kernel, *map(str, spaces)])


def mark(place: str) -> bytes:
    """Return 32 bytes that are another place's for no other."""
    return sha256(b"mycorrizal place " + place.encode()).digest()


def widen(sock: socket.socket) -> None:
    """Let more of a large value wait in the socket, so that the two processes take turns less often."""
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):  # the first is for who is privileged
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            return
        except OSError:
            pass


def credentials(sock: socket.socket) -> Credentials:
    """Return who is at the other end of a connected Unix socket.

    Raises:
        OSError: the kernel does not say.
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(data)
    return Credentials(pid, uid)
