"""Addresses as people write them: entries of ``join``, names, and which address to advertise.

From: memberlist-protocol §10.1, §10.3.

Differs from memberlist: names go to the system's resolver only; memberlist
first sends an ANY query over TCP to the first name server (§10.2), which
RFC 8482 lets servers refuse and most do. What the entry resolves to is the same.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..._keylike import masked
from ...exceptions import ConfigError, PeerUnreachable
from ...types import Address, as_builtin, pack_host
from ..threads import platform

__all__ = [
    "JoinEntry",
    "choose_bind",
    "choose_global",
    "choose_private",
    "ensure_port",
    "has_port",
    "interface_addresses",
    "is_literal",
    "parse_address",
    "parse_entry",
    "resolve",
    "routed",
    "source_of",
    "source_towards",
    "split_host_port",
    "with_port",
]

_RESOLVED_MAX = 64
"""Addresses taken from one name: a round-robin record of a large cluster must not become a join storm."""

# RFC 6890 ranges that memberlist takes as private and forwardable, so that peers can reach them.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


@dataclass(frozen=True, slots=True)
class JoinEntry:
    """One entry of ``join``, taken apart: ``name/host:port``."""

    text: str
    name: str
    host: str
    port: int


# -- text -------------------------------------------------------------------------


def has_port(text: str) -> bool:
    """Return whether `text` ends in a port, by memberlist's rule (§10.1)."""
    if text.rfind("[") == 0:
        return text.rfind(":") > text.rfind("]")
    return text.count(":") == 1


def ensure_port(text: str, port: int) -> str:
    """Return `text` with ``:port`` added if it has none, IPv6 in brackets."""
    if has_port(text):
        return text
    host = text.strip("[]")
    if ":" in host or "%" in host:
        host = f"[{host}]"
    return f"{host}:{port}"


def split_host_port(text: str) -> Address:
    """Return host and port of ``host:port`` or ``[host]:port``.

    Raises:
        ValueError: there is no host, or no decimal port of 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("too many colons; write IPv6 as [address]:port")
    if not colon or not host:
        raise ValueError("no host in it")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port of 0 to 65535")
    return host, int(port)


def parse_entry(text: str, default_port: int) -> JoinEntry:
    """Return the parts of a join entry.

    Raises:
        ConfigError: `text` is not of the form ``[name/]host[:port]``.
    """
    if not isinstance(text, str):
        raise ConfigError("addresses", f"{text!r} is not text", hint="write 'host', 'host:port' or 'name/host:port'")
    name, slash, rest = text.strip().partition("/")
    if not slash:
        name, rest = "", name
    elif not name:
        raise ConfigError("addresses", f"{text!r} has an empty node name before '/'", hint="write 'name/host:port'")
    try:
        host, port = split_host_port(ensure_port(rest, default_port))
    except ValueError as exc:
        hint = "write 'host', 'host:port' or 'name/host:port'"
        raise ConfigError("addresses", f"{text!r}: {exc}", hint=hint) from None
    if "/" in host or port == 0:
        why = "nobody listens on port 0" if port == 0 else f"{host!r} is neither a name nor an address"
        raise ConfigError("addresses", f"{text!r}: {why}", hint="write 'host', 'host:port' or 'name/host:port'")
    return JoinEntry(text, name, host, port)


def with_port(text: str, port: int) -> str:
    """Return a join entry with `port` in it if it names none.

    Raises:
        ConfigError: as ``parse_entry``.
    """
    entry = parse_entry(text, port)
    name, slash, rest = text.strip().rpartition("/")
    return f"{name}{slash}{rest}" if has_port(rest) else f"{name}{slash}{ensure_port(entry.host, port)}"


def parse_address(address: str | Address, default_port: int) -> JoinEntry:
    """Return the parts of a destination given as text or as ``(host, port)``.

    Raises:
        ConfigError: it is neither, or the host is a name: only a join resolves names.
    """
    if isinstance(address, tuple) and len(address) == 2:
        host, port = map(as_builtin, address)
        if not isinstance(host, str) or not isinstance(port, int) or not 0 < port <= 65535:
            raise ConfigError("address", f"{address!r} is not (host, port)", hint="write ('10.0.0.5', 7946)")
        entry = JoinEntry(f"{host}:{port}", "", host, port)
    else:
        entry = parse_entry(address, default_port)
    if not is_literal(entry.host):
        raise ConfigError("address", f"{entry.host!r} is not an IP literal", hint="only join() resolves names")
    return entry


def is_literal(host: str) -> bool:
    """Return whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def source_of(host: str) -> bytes:
    """Return whom an IP literal counts for, however it is spelt: an IPv6 subscriber has a whole /64, so that is one."""
    return pack_host(host)[:8]


# -- names ------------------------------------------------------------------------


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a name, in the resolver's order. Blocks for as long as the resolver does.

    Raises:
        PeerUnreachable: the name has no address.
    """
    if is_literal(host):
        return [(host, port)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        hint = "check the name, or use an address"
        raise PeerUnreachable(masked(f"cannot resolve {host!r}: {reason}", names=True), node=host, hint=hint) from exc
    addresses = [(str(info[4][0]), port) for info in found if info[0] in (socket.AF_INET, socket.AF_INET6)]
    return list(dict.fromkeys(addresses))[:_RESOLVED_MAX]


# -- which address to advertise ------------------------------------------------------


def choose_private(candidates: list[str]) -> str | None:
    """Return the first of `candidates` that is private and reachable from other hosts (§10.3)."""
    for host in candidates:
        ip = ipaddress.ip_address(host)
        if any(ip.version == network.version and ip in network for network in _PRIVATE):
            return host
    return None


def choose_global(candidates: list[str]) -> str | None:
    """Return the first of `candidates` that is a public IPv6 address: hosts without IPv4 often have no private one."""
    found = ((host, ipaddress.ip_address(host)) for host in candidates)
    return next((host for host, ip in found if ip.version == 6 and ip.is_global), None)


def choose_bind(advertised: str | None) -> str:
    """Return where to listen for other hosts: ``0.0.0.0``, or ``::``, which hears both families.

    Args:
        advertised: what others are told; None lets this host's addresses say.
    """
    if advertised is not None:
        return "::" if ":" in advertised else "0.0.0.0"
    hosts = interface_addresses()
    ipv4 = [host for host in hosts if ":" not in host and not ipaddress.ip_address(host).is_loopback]
    if choose_private(ipv4) is None and (choose_private(hosts) or (not ipv4 and choose_global(hosts))):
        return "::"
    return "0.0.0.0"


def interface_addresses() -> list[str]:
    """Return this host's addresses: the default route's first, IPv4 before IPv6."""
    return list(dict.fromkeys([*routed(), *_ipv4_interfaces(), *_ipv6_interfaces()]))


def routed() -> list[str]:
    """Return the addresses that packets to the outside leave from, IPv4 before IPv6; none without a default route."""
    return [*_routed(socket.AF_INET, "192.0.2.1"), *_routed(socket.AF_INET6, "2001:db8::1")]


def source_towards(host: str) -> str | None:
    """Return the address of this host that packets to an IP literal leave from; None without a route."""
    return next(_routed(socket.AF_INET6 if ":" in host else socket.AF_INET, host), None)


def _routed(family: socket.AddressFamily, target: str) -> Iterator[str]:
    """Yield the address that packets to the outside leave from; connecting UDP sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            yield str(probe.getsockname()[0]).partition("%")[0]
    except OSError:
        return


def _ipv4_interfaces() -> Iterator[str]:
    if not sys.platform.startswith("linux"):
        try:
            yield from socket.gethostbyname_ex(socket.gethostname())[2]
        except OSError:
            pass
        return
    get_flags, get_address, is_up = 0x8913, 0x8915, 1  # SIOCGIFFLAGS, SIOCGIFADDR, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                flags = struct.unpack_from("<H", platform.ioctl(probe.fileno(), get_flags, request), 16)[0]
                if flags & is_up:
                    yield socket.inet_ntoa(platform.ioctl(probe.fileno(), get_address, request)[20:24])
            except OSError:
                continue  # an interface without an IPv4 address


def _ipv6_interfaces() -> Iterator[str]:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            for line in table:
                yield str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
    except OSError:
        return
