"""A certificate authority out of the cluster's key, and the leaf certificate of this process.

Everyone who holds the key makes the same authority, so nobody has to create,
copy or keep one: TLS itself then shows that a server holds the key. Node names
are hashed into the certificate, because names of nodes may hold what names of
hosts may not. A leaf signature is a way to test guesses of the key, so the key
has to be random bytes, never a passphrase; ``Keyring`` takes nothing else.

From: RFC 5280 §4.2 (extensions), RFC 6125 §6.4 (names), FIPS 186-5 §A.2.1 (the scalar).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from .proof import derive

__all__ = [
    "KEY_ID_BYTES",
    "LEAF_HALF_LIFE",
    "Authority",
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

_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_AUTHORITY_FROM = datetime(1970, 1, 1, tzinfo=UTC)
_AUTHORITY_TO = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 §4.1.2.5: no end
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


class Authority:
    """The authority of one key in one cluster. Immutable; any thread.

    Two processes make different bytes (ECDSA signatures are random), but name
    and public key are the same, and those are what counts.
    """

    __slots__ = ("_certificate", "_private", "pem")

    def __init__(self, key: bytes, cluster: str) -> None:
        # 128 bits more than the order has, so that the remainder is uniform.
        scalar = int.from_bytes(derive(key, "certificate authority", cluster, 48), "big") % (_ORDER_P256 - 1) + 1
        self._private = ec.derive_private_key(scalar, ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, key_id(key, cluster).hex())])
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._private.public_key())
            .serial_number(1)
            .not_valid_before(_AUTHORITY_FROM)
            .not_valid_after(_AUTHORITY_TO)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self._private, SHA256())
        )
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def issue(self, names: list[str], now: float) -> ServerTls:
        """Return a new leaf for DNS `names` with a key of its own; `now` in seconds since 1970."""
        private = ec.generate_private_key(ec.SECP256R1())
        made = datetime.fromtimestamp(now, UTC)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(made - timedelta(seconds=LEAF_HALF_LIFE))
            .not_valid_after(made + timedelta(seconds=LEAF_HALF_LIFE))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .sign(self._private, SHA256())
        )
        return ServerTls(leaf, private, [])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
