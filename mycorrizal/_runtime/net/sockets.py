"""The two listening sockets of a node, UDP and TCP on one port, and the address it advertises.

From: memberlist-protocol §10.4, §10.3.

Differs from memberlist: bound to ``0.0.0.0`` the sockets take IPv4 only (Go
makes that a dual-stack socket); ``::`` takes both families here, and without a
private address others are told a public one of IPv6.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from ..._wire.text import logger
from ...config import Config
from ...exceptions import BindError, ConfigError
from ...types import Address, pack_host
from ..threads.platform import reuse_address
from ..threads.shortage import exhausted
from . import addresses

__all__ = ["BoundSockets", "advertised", "bind", "from_sockaddr", "set_receive_buffer", "to_sockaddr"]

log = logger("mycorrizal.sockets")

RECEIVE_BUFFER = 2 * 1024 * 1024
"""Wanted size of the UDP receive buffer; holds what arrives while the process is stalled."""
_BACKLOG = 512
_PORT_TRIES = 10  # a port that is free for TCP may be taken for UDP


@dataclass(frozen=True, slots=True)
class BoundSockets:
    """Two non-blocking sockets on one address and port; who holds it closes it."""

    udp: socket.socket
    tcp: socket.socket
    host: str
    port: int

    def close(self) -> None:
        """Close both. Takes no lock."""
        self.udp.close()
        self.tcp.close()


def bind(host: str, port: int) -> BoundSockets:
    """Bind TCP, then UDP to the same port; port 0 picks one that is free for both.

    Raises:
        BindError: the address is not this host's, the port is taken, or it may not be used.
        ResourcesExhausted: no descriptor is left, or no memory.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_PORT_TRIES):
        try:
            return _bind_once(family, host, port)
        except OSError as exc:
            if port == 0 and exc.errno == errno.EADDRINUSE and attempt + 1 < _PORT_TRIES:
                continue
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            short = exhausted(exc, f"cannot listen on {where}", node=where, operation="bind")
            raise short or _bind_error(where, exc) from exc
    raise AssertionError("unreachable")


def _bind_once(family: socket.AddressFamily, host: str, port: int) -> BoundSockets:
    tcp = socket.socket(family, socket.SOCK_STREAM)
    try:
        reuse_address(tcp)
        _bind_socket(tcp, host, port)
        tcp.listen(_BACKLOG)
        tcp.setblocking(False)
        chosen = int(tcp.getsockname()[1])
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            _bind_socket(udp, host, chosen)
            udp.setblocking(False)
            set_receive_buffer(udp)
        except BaseException:
            udp.close()
            raise
        return BoundSockets(udp, tcp, host, chosen)
    except BaseException:
        tcp.close()
        raise


def _bind_socket(sock: socket.socket, host: str, port: int) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
    # Through getaddrinfo, since it alone turns a zone (fe80::1%eth0) into a scope number.
    info = socket.getaddrinfo(host, port, sock.family, sock.type, flags=socket.AI_NUMERICHOST)
    sock.bind(info[0][4])


def _bind_error(where: str, exc: OSError) -> BindError:
    hints = {
        errno.EADDRINUSE: "another process has this port, or a Memberlist here that was not shut down: "
        "choose another bind_port, or 0",
        errno.EADDRNOTAVAIL: "bind_addr is not an address of this host",
        errno.EACCES: "ports below 1024 need privileges: choose another bind_port",
    }
    error = BindError(
        f"cannot listen on {where} (TCP and UDP): {exc.strerror or exc}",
        node=where,
        operation="bind",
        hint=hints.get(exc.errno or 0, "check bind_addr and bind_port"),
    )
    error.errno = exc.errno
    return error


def set_receive_buffer(sock: socket.socket, wanted: int = RECEIVE_BUFFER) -> int:
    """Ask for `wanted` bytes of receive buffer, halved until the system accepts; return what was asked last."""
    size = wanted
    while size > 0:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return size
        except OSError:
            size //= 2
    return 0


# -- addresses as the sockets see them -------------------------------------------------


def to_sockaddr(family: int, address: Address) -> tuple[str, int]:
    """Return `address` as `family` wants it: IPv4 in its mapped form on an IPv6 socket."""
    if family == socket.AF_INET6 and ":" not in address[0]:
        return ("::ffff:" + address[0], address[1])
    return address


def from_sockaddr(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """Return the peer's address, v4-mapped ones as plain IPv4."""
    host = sockaddr[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return (host, sockaddr[1])


def advertised(config: Config, port: int, candidates: list[str] | None = None) -> tuple[bytes, int]:
    """Return the address bytes and port that peers are told to dial (§10.3).

    Args:
        candidates: of this host's addresses, where it is bound to all; None: all of them.

    Raises:
        ConfigError: bound to every address, and none of them is private.
    """
    if config.advertise_addr is not None:
        return pack_host(config.advertise_addr), config.advertise_port or port
    if config.bind_addr not in ("0.0.0.0", "::"):
        return pack_host(config.bind_addr), port
    if candidates is None:
        candidates = addresses.interface_addresses()
    if config.bind_addr == "0.0.0.0":
        candidates = [host for host in candidates if ":" not in host]  # the sockets would not hear the others
    chosen = addresses.choose_private(candidates)
    if chosen is None and config.bind_addr == "::":
        chosen = addresses.choose_global(candidates)
    if chosen is None:
        raise ConfigError(
            "advertise_addr",
            f"bound to {config.bind_addr}, and this host has no private address that others could be told",
            hint="set advertise_addr to the address that others reach this host at, or bind_addr='127.0.0.1'",
        )
    return pack_host(chosen), port
