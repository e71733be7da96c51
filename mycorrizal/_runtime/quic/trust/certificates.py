"""What certificates say, and what a connection's TLS is given of them. ``authority`` and ``pki`` make them.

Node names are hashed into a certificate, because names of nodes may hold what names of hosts may not.

From: RFC 6125 §6.4 (names).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from .proof import derive

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

__all__ = [
    "KEY_ID_BYTES",
    "LEAF_HALF_LIFE",
    "ClientTls",
    "ServerTls",
    "hashed_name",
    "key_id",
    "member_name",
    "wall",
]

KEY_ID_BYTES = 16
LEAF_HALF_LIFE = 30 * 86400.0
"""Seconds that a leaf is valid before and after it was made: clocks of members may differ by weeks."""

_LABEL_HEX = 62  # and a letter before it: the 63 characters that a DNS label may have


class ClientTls(NamedTuple):
    """What a dialler sets in its QuicConfiguration, beside ``verify_mode = CERT_REQUIRED``."""

    cadata: bytes
    server_name: str


class ServerTls(NamedTuple):
    """What the accepting side sets in its QuicConfiguration."""

    certificate: x509.Certificate
    private_key: CertificateIssuerPrivateKeyTypes
    chain: list[x509.Certificate]


def wall() -> float:
    """Return seconds since 1970, as other machines count them too."""
    return datetime.now(UTC).timestamp()


def hashed_name(node: str) -> str:
    """Return the DNS name that stands for the node `node` in certificates."""
    return "n" + hashlib.sha256(node.encode("utf-8", "surrogateescape")).hexdigest()[:_LABEL_HEX]


def member_name(cluster: str) -> str:
    """Return the DNS name that every member's leaf carries; no node's own name can be this one."""
    return "m" + hashlib.sha256(cluster.encode("utf-8", "surrogateescape")).hexdigest()[:_LABEL_HEX]


def key_id(key: bytes, cluster: str) -> bytes:
    """Return the public name of a secret `key`, 16 bytes."""
    return derive(key, "key id", cluster, KEY_ID_BYTES)
