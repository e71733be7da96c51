"""A certificate authority out of the cluster's key, and the leaf certificate of this process.

Everyone who holds the key makes the same authority, so nobody has to create,
copy or keep one: TLS itself then shows that a server holds the key. A leaf
signature is a way to test guesses of the key, so the key has to be random
bytes, never a passphrase; ``Keyring`` takes nothing else.

Imported with the first connection: X.509 costs 50 ms, which who has none does without.

From: RFC 5280 §4.2 (extensions), FIPS 186-5 §A.2.1 (the scalar).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from .certificates import LEAF_HALF_LIFE, ServerTls, key_id
from .proof import derive

__all__ = ["Authority"]

_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_AUTHORITY_FROM = datetime(1970, 1, 1, tzinfo=UTC)
_AUTHORITY_TO = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 §4.1.2.5: no end


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
