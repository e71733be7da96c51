"""An operator's certificate authority, good and bad, written to PEM files."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mycorrizal._runtime.quic.trust.pki import PkiTrust, tls_name

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
BOTH = (CLIENT, SERVER)
DAY = datetime.timedelta(days=1)


class Files(NamedTuple):
    """What ``PkiTrust`` takes, in its order."""

    certfile: Path
    keyfile: Path
    cafile: Path


class Authority:
    """Signs whatever it is asked for."""

    def __init__(
        self,
        folder: Path,
        name: str = "root",
        parent: Authority | None = None,
        broken: x509.ObjectIdentifier | None = None,
    ) -> None:
        self.folder = folder
        self.private: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        self.parent = parent
        self.certificate = self.sign(
            name,
            self.private,
            names=(),
            uses=(),
            authority=True,
            above=parent or self,
            days=(-1, 30),
            broken=broken,
        )
        self._numbers = itertools.count()

    def sign(
        self,
        subject: str,
        private: PrivateKey,
        *,
        names: tuple[str, ...],
        uses: tuple[x509.ObjectIdentifier, ...],
        authority: bool,
        above: Authority,
        days: tuple[int, int],
        broken: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        issuer = _name(subject) if above is self and authority else above.certificate.subject
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(issuer)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.private.public_key()), False)
        )
        if broken is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(broken, b"\x30\x7fgarbage"), critical=False)
        if broken != x509.BasicConstraints.oid:
            constraints = x509.BasicConstraints(ca=authority, path_length=None)
            builder = builder.add_extension(constraints, critical=True)
        if authority:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        return builder.sign(above.private, SHA256())

    def issue(
        self,
        node: str,
        *,
        names: tuple[str, ...] | None = None,
        uses: tuple[x509.ObjectIdentifier, ...] = BOTH,
        days: tuple[int, int] = (-1, 30),
        private: PrivateKey | None = None,
        password: bytes | None = None,
        authority: bool = False,
        broken: x509.ObjectIdentifier | None = None,
    ) -> Files:
        """Write a certificate for `node`, with those between us and the root, its key, and the root.

        `broken` is an extension that it gets with garbage in it.
        """
        key = private or ec.generate_private_key(ec.SECP256R1())
        names = (tls_name(node),) if names is None else names
        leaf = self.sign(
            node[:60], key, names=names, uses=uses, authority=authority, above=self, days=days, broken=broken
        )
        chain, above = [leaf], self
        while above.parent is not None:
            chain.append(above.certificate)
            above = above.parent
        stem = self.folder / f"{id(self):x}-{next(self._numbers)}"
        files = Files(stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".ca"))
        files.certfile.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))
        files.cafile.write_bytes(above.certificate.public_bytes(Encoding.PEM))
        sealed = BestAvailableEncryption(password) if password else NoEncryption()
        files.keyfile.touch(0o600)
        files.keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
        return files

    def trust(self, node: str) -> PkiTrust:
        """Return the trust of `node` with a good certificate of ours."""
        return PkiTrust(node, *self.issue(node))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
