"""The UDP socket of a node and what the system says about the way to a peer.

The socket never lets its packets be fragmented and asks for the errors that
come back by ICMP: an unreachable port ends a dial at once, a packet too big
tells the size that fits. Both are Linux; elsewhere datagrams stay at 1,200
bytes outside the host and a dial ends by its timeout.

From: RFC 9000 §14, RFC 8899.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from typing import NamedTuple

from ...exceptions import BindError, MycorrizalError
from ...types import Address, is_loopback, parse_host
from ..net.sockets import from_sockaddr
from ..threads.shortage import exhausted

__all__ = ["PathInfo", "SocketError", "Sockaddr", "inspect", "open_socket", "pending_errors", "sockaddr_of"]

Sockaddr = tuple[str, int] | tuple[str, int, int, int]

SMALLEST = 1200
"""UDP payload that every path must carry (RFC 9000 §14)."""
LARGEST = 16384
"""aioquic hangs silently at 16,420 to 20,000 bytes."""
BUFFER = 8 << 20
"""Wanted socket buffers: they hold what arrives while the interpreter is busy elsewhere."""
_PORTS_BELOW = 65280
"""A port chosen for us stays below it, so that its first byte is never 0xff, which marks Serf's tags in metadata."""
_PORT_TRIES = 20

_LINUX = sys.platform.startswith("linux")
# From linux/in.h, linux/in6.h; the socket module has only some of them.
_IP_MTU_DISCOVER, _IP_RECVERR, _IP_MTU = 10, 11, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_RECVERR = 23, 24, 25
_PMTUDISC_DO = 2
_MSG_ERRQUEUE = 0x2000
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_EXTENDED_ERR = struct.Struct("=IBBBBII")
_ERRORS_AT_ONCE = 64


class PathInfo(NamedTuple):
    """What is known of the way to a peer: whether it is this very host, and the largest UDP payload to try."""

    local: bool
    mtu: int


class SocketError(NamedTuple):
    """An error about an earlier datagram: where it went, why it failed, and for EMSGSIZE the MTU (0: not told)."""

    address: Address
    errno: int
    mtu: int


def open_socket(host: str, port: int) -> socket.socket:
    """Return the bound, non-blocking UDP socket of a node; port 0 picks one below 65280.

    Raises:
        BindError: the address is not this host's, the port is taken, or it may not be used.
        ResourcesExhausted: no descriptor is left, or no memory.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_PORT_TRIES):
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            sock.bind(socket.getaddrinfo(host, port, family, sock.type, flags=socket.AI_NUMERICHOST)[0][4])
            if port or sock.getsockname()[1] < _PORTS_BELOW or attempt + 1 == _PORT_TRIES:
                sock.setblocking(False)
                _prepare(sock)
                return sock
            sock.close()
        except BaseException as exc:
            if sock is not None:
                sock.close()
            if not isinstance(exc, OSError):
                raise
            raise _bind_error(host, port, exc) from exc
    raise AssertionError("unreachable")


def _bind_error(host: str, port: int, exc: OSError) -> MycorrizalError:
    what, where = f"cannot listen on {host} port {port} (UDP)", f"{host}:{port}"
    if (short := exhausted(exc, what, node=where, operation="bind")) is not None:
        return short
    hint = "another process has this port" if exc.errno == errno.EADDRINUSE else "check bind and port"
    error = BindError(f"{what}: {exc.strerror or exc}", node=where, operation="bind", hint=hint)
    error.errno = exc.errno
    return error


def _prepare(sock: socket.socket) -> None:
    for option, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        _ask_buffer(sock, option, forced)
    if not _LINUX:
        return
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def _ask_buffer(sock: socket.socket, option: int, forced: int) -> None:
    if _LINUX:
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)  # beyond the system's limit; needs privileges
            return
        except OSError:
            pass
    size = BUFFER
    while size > 1 << 16:
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
            return
        except OSError:
            size //= 2


def sockaddr_of(sock: socket.socket, address: Address) -> Sockaddr:
    """Return `address` as ``recvfrom`` on `sock` would give it, so that the two compare equal.

    Raises:
        OSError: it is no IP literal, or of a family that the socket does not carry.
    """
    host, port = address
    if sock.family == socket.AF_INET6:
        if ":" not in host:
            host = "::ffff:" + host
        info = socket.getaddrinfo(host, port, socket.AF_INET6, sock.type, flags=socket.AI_NUMERICHOST)
        return info[0][4]  # type: ignore[return-value]
    socket.inet_pton(socket.AF_INET, host)
    return (host, port)


def inspect(address: Address, largest: int = LARGEST) -> PathInfo:
    """Return what the routing table says about `address`: 15 µs, sends nothing.

    A path through a smaller link is found later, by the error that the first
    large datagram draws, or by its silence.
    """
    host = address[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    mtu = 0
    local = False
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, address[1] or 9))
        own = str(probe.getsockname()[0])
        # The kernel leaves for an address of its own from that same address.
        local = parse_host(own) == parse_host(host) or is_loopback(host)
        if _LINUX:
            level, option = (
                (socket.IPPROTO_IPV6, _IPV6_MTU) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_MTU)
            )
            mtu = probe.getsockopt(level, option) - (48 if family == socket.AF_INET6 else 28)
    return PathInfo(local, max(SMALLEST, min(mtu, largest, LARGEST)))


def receive_window(sock: socket.socket) -> int:
    """Return the bytes that senders on this host may have in flight towards a socket like `sock`.

    The system counts a datagram with up to twice its size, and says double what it grants.
    """
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return max(1 << 16, min(1 << 20, granted // 8))


def pending_errors(sock: socket.socket) -> list[SocketError]:
    """Take what the system has queued about earlier datagrams; empty outside Linux."""
    found: list[SocketError] = []
    if not _LINUX:
        return found
    for _ in range(_ERRORS_AT_ONCE):
        try:
            _, ancillary, _, sockaddr = sock.recvmsg(0, 512, _MSG_ERRQUEUE)
        except OSError:
            break
        for _, _, data in ancillary:
            if len(data) >= _EXTENDED_ERR.size and sockaddr:
                number, _, _, _, _, info, _ = _EXTENDED_ERR.unpack_from(data)
                found.append(SocketError(from_sockaddr(sockaddr), number, info if number == errno.EMSGSIZE else 0))
    return found


def strerror(number: int) -> str:
    """Return the system's text for an error number."""
    return os.strerror(number)
