"""Values a user's code may hold: nodes, addresses, results. Immutable, no behaviour."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Address", "JoinResult", "Node", "NodeState", "Versions", "host_of", "pack_host"]

Address = tuple[str, int]
"""A socket address as ``(IP literal, port)``."""


class NodeState(enum.IntEnum):
    """State of a member; the numbers are memberlist's, as they travel in push/pull."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Versions:
    """The six version numbers a node announces (``Vsn``): protocol and delegate min, max, current."""

    protocol_min: int = 0
    protocol_max: int = 0
    protocol: int = 0
    delegate_min: int = 0
    delegate_max: int = 0
    delegate: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One member as this node knows it; a snapshot that never changes.

    Attributes:
        name: unique in the cluster. Names of foreign nodes need not be UTF-8;
            undecodable bytes stand as surrogates (``surrogateescape``).
        addr: 4 or 16 raw address bytes exactly as the node announced them.
            A Go node may announce IPv4 in its 16-byte v4-mapped form.
        port: port of its UDP and TCP gossip sockets.
        meta: at most 512 bytes from the node's ``node_meta`` delegate.
        state: alive, suspect, dead or left.
        incarnation: the version of this record, raised only by the node itself.
        versions: its protocol and delegate versions.
    """

    name: str
    addr: bytes
    port: int
    meta: bytes = b""
    state: NodeState = NodeState.ALIVE
    incarnation: int = 0
    versions: Versions = Versions()

    @property
    def host(self) -> str:
        """The address as text, v4-mapped addresses as plain IPv4."""
        return host_of(self.addr)

    @property
    def address(self) -> Address:
        """``(host, port)`` to dial."""
        return (host_of(self.addr), self.port)


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What a join achieved.

    Attributes:
        reached: how many addresses completed a push/pull with us.
        failures: the error of each entry that failed, by the text it was given as.
    """

    reached: int
    failures: Mapping[str, Exception]


def host_of(addr: bytes) -> str:
    """Return raw address bytes as text; a length that is no address gives ``"?<hex>"``."""
    if len(addr) == 4:
        return "%d.%d.%d.%d" % tuple(addr)
    if len(addr) == 16:
        v6 = ipaddress.IPv6Address(addr)
        return str(v6.ipv4_mapped or v6)
    return "?" + addr.hex() if addr else "<nil>"


def pack_host(host: str) -> bytes:
    """Return an IP literal as raw bytes, IPv4 (also v4-mapped) as 4.

    Raises:
        ValueError: `host` is not an IP literal.
    """
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed
