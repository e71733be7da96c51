"""Trust for operators with a certificate authority of their own: one identity per node.

The server is verified by TLS against ``cafile``. The client sends its chain and
a signature over the whole session (``proof.Binding``) in-band, because aioquic
has no verified client certificates; the server answers with the same, which
also checks what aioquic does not: that the certificate is meant for servers.
A signature over a nonce alone could be relayed by whoever the signer dialled.

Certificates need: a SAN with the name of ``tls_name``, ECDSA P-256 or P-384 or
RSA from 2,048 to 4,096 bits, an authority key identifier, and no extended key
usage or both clientAuth and serverAuth. Revocation is not checked: issue
short-lived certificates and call ``PkiTrust.reload``.

From: RFC 5280 §6 (paths; ``cryptography.x509.verification``), RFC 6125 §6.4
(names), RFC 8446 §4.4.3 (a signature with its context), RFC 8017 §8.1 (PSS).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from os import PathLike
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ...._keylike import file_name
from ....exceptions import ConfigError, ProofError
from ....types import printable
from ...host import reading
from .certificates import ClientTls, ServerTls, hashed_name, wall
from .keys import Trust
from .proof import Binding, transcript

__all__ = ["PkiTrust", "tls_name"]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Path: TypeAlias = str | PathLike[str]

_OFFER = b"x509"
_CLIENT = "mycorrizal client certificate 1"
_SERVER = "mycorrizal server certificate 1"
_PROOF_BYTES_MAX = 16384
_CHAIN_MAX = 5  # the leaf and four above it; bounds the paths that a stranger can make us try
_FILE_MAX = 1 << 20
_WHAT = {"certfile": "the certificate", "keyfile": "the private key", "cafile": "the CA"}
_NAMES_SHOWN = 3
_RSA_BITS = (2048, 4096)
_RSA_EXPONENT_MAX = 1 << 32  # a huge one makes each check of a signature slow
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}\Z")
_HASHED = re.compile(r"n[0-9a-f]{62}\Z")


def tls_name(node: str) -> str:
    """Return the DNS name that the certificate of `node` must hold as a SAN.

    It is the node's name if that is a DNS name in lower case, else ``hashed_name``:
    certificates ignore case and know no spaces. A name that looks like a hash is
    hashed too, so that no two nodes share a name here.
    """
    return node if _DNS.match(node) and not _HASHED.match(node) else hashed_name(node)


class _Identity:
    """One state of the three files, checked. Immutable."""

    __slots__ = ("cadata", "chain", "id", "leaf", "prefix", "private", "roots", "validity")

    def __init__(self, private: PrivateKey, chain: list[x509.Certificate], roots: list[x509.Certificate]) -> None:
        self.private = private
        self.leaf = chain[0]
        self.chain = chain[1:]
        self.roots = roots
        self.cadata = b"".join(root.public_bytes(Encoding.PEM) for root in roots)
        self.id = _id_of(self.leaf)
        above = [root for root in roots if _signed_by(chain[-1], root)]
        ends = [certificate.not_valid_after_utc for certificate in chain]
        ends += [max(root.not_valid_after_utc for root in above)] if above else []  # else refused by ``_load``
        self.validity = (self.leaf.not_valid_before_utc.timestamp(), min(ends).timestamp())
        ders = [certificate.public_bytes(Encoding.DER) for certificate in chain]
        self.prefix = bytes((len(ders),)) + b"".join(len(der).to_bytes(2, "big") + der for der in ders)


class PkiTrust(Trust):
    """Trust in certificates of an authority. Any thread; a proof takes 0.04 ms to make with P-256, 1 ms with RSA-2048,
    6 ms with RSA-4096, and 0.3 to 0.9 ms to check."""

    early = False  # aioquic takes wildcards, and certificates that are not for servers
    compare = "compare certificates= of both sides: both need them, from an authority that the other one trusts"

    def __init__(
        self,
        name: str,
        certfile: Path,
        keyfile: Path,
        cafile: Path,
        password: bytes | str | None = None,
        *,
        clock: Callable[[], float] = wall,
    ) -> None:
        """Load PEM files for node `name`.

        Args:
            name: of this node; the certificate must hold ``tls_name(name)``.
            certfile: the certificate, then those between it and the authority.
            keyfile: its private key.
            cafile: the authorities that are trusted, for all nodes.
            password: of `keyfile`.
            clock: seconds since 1970.

        Raises:
            ConfigError: a file that cannot be read, a key that is not the certificate's,
                or a certificate that no peer would accept.
        """
        if not name:
            raise ConfigError("name", "is empty")
        self._name = name
        self._files = (certfile, keyfile, cafile)
        self._password = password.encode() if isinstance(password, str) else password
        self._clock = clock
        self._watchers: dict[Callable[[], None], None] = {}
        self._identity = self._load()

    def reload(self) -> None:
        """Read the files again; new connections use what they hold now. Any thread.

        Connections that exist are kept until the certificate they were proved
        with expires, also if its authority is no longer in ``cafile``.

        Raises:
            ConfigError: as at construction; then everything stays as it was.
        """
        self._identity = self._load()
        for callback in tuple(self._watchers):
            callback()

    def validity(self) -> tuple[float, float]:
        """Return from when to when this node's certificate, and all that it rests on, is valid; seconds since 1970."""
        return self._identity.validity

    # -- TLS -------------------------------------------------------------------------------

    def server_tls(self) -> ServerTls:
        """Return the operator's certificate."""
        identity = self._identity
        return ServerTls(identity.leaf, identity.private, identity.chain)

    def client_tls(self, peer: str | None) -> ClientTls:
        """Return the authorities and the name of `peer`."""
        if peer is None:
            raise ConfigError(
                "peer", "with certificates, a node is dialled by its name", hint="give the name its certificate holds"
            )
        return ClientTls(self._identity.cadata, tls_name(peer))

    # -- proofs ----------------------------------------------------------------------------

    def offer(self) -> bytes:
        """Return a constant: certificates are accepted."""
        return _OFFER

    def prove(self, s: Binding, offer: bytes) -> tuple[bytes, str]:
        """Sign the session; the id is ``<SHA-256 of the certificate>:<when it expires, seconds since 1970>``."""
        if offer != _OFFER:
            raise ProofError("the server takes no certificates", node=s.server)
        identity = self._identity
        return _signed(identity, transcript(_CLIENT, s, identity.id.encode())), identity.id

    def verify(self, s: Binding, proof: bytes) -> str:
        """Check chain, use as a client, dates, name and signature."""
        chain, signature = _parsed(proof, s.client)
        found = _id_of(chain[0])
        _check_path(chain, self._identity.roots, s.client, self._clock(), server=False)
        _check_signature(chain[0], signature, transcript(_CLIENT, s, found.encode()), s.client)
        return found

    def answer(self, s: Binding, key_id: str) -> bytes:
        """Sign the session and the client's id."""
        identity = self._identity
        return _signed(identity, transcript(_SERVER, s, f"{identity.id} {key_id}".encode()))

    def check_answer(self, s: Binding, key_id: str, answer: bytes) -> None:
        """Check chain, use as a server, dates, name and signature."""
        chain, signature = _parsed(answer, s.server)
        signed = transcript(_SERVER, s, f"{_id_of(chain[0])} {key_id}".encode())
        _check_path(chain, self._identity.roots, s.server, self._clock(), server=True)
        _check_signature(chain[0], signature, signed, s.server)

    def holds(self, key_id: str) -> bool:
        """Tell whether the certificate is still within its dates."""
        _, _, expires = key_id.partition(":")
        return expires.isdecimal() and self._clock() <= int(expires)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each ``reload``; that a certificate expires is for ``holds`` to ask."""
        self._watchers[callback] = None

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Call it no longer."""
        self._watchers.pop(callback, None)

    # -- what needs a common key -------------------------------------------------------------

    def knock(self) -> bytes:
        """Return nothing: members share no secret."""
        return b""

    def knows(self, token: bytes) -> bool:
        """Know nobody before its proof."""
        return False

    def reset_token(self, cid: bytes) -> bytes | None:
        """Return None: a node that restarts could not make the old token again."""
        return None

    # -- private ---------------------------------------------------------------------------

    def _load(self) -> _Identity:
        try:
            return self._loaded()
        except ConfigError as exc:  # the field is of ours alone: the caller gave three paths as one setting
            what, path = next(row for row in zip(_WHAT.items(), self._files, strict=True) if row[0][0] == exc.field)
            text = str(exc).removeprefix(f"{exc.field}: ").removesuffix(f" ({exc.hint})")
            shown = file_name(str(path))
            text = f"{what[1]}: {text}" if shown in text else f"{what[1]} {shown} {text}"
            error = ConfigError("certificates", text, hint=exc.hint)
        raise error  # outside of the handler: what it caught may hold a path that is a key

    def _loaded(self) -> _Identity:
        certfile, keyfile, cafile = self._files
        chain = _certificates("certfile", certfile)
        roots = _certificates("cafile", cafile)
        if not all(_is_root(root) for root in roots):
            # One of the two verifiers would trust it, the other (OpenSSL in aioquic) not.
            raise ConfigError("cafile", "holds more than root authorities", hint="what is between goes into certfile")
        private = _private_key(keyfile, self._password)
        if len(chain) > _CHAIN_MAX:
            raise ConfigError("certfile", f"has {len(chain)} certificates in it", hint=f"at most {_CHAIN_MAX} are sent")
        if private.public_key() != chain[0].public_key():
            raise ConfigError("keyfile", "is not the key of the first certificate in certfile")
        identity = _Identity(private, chain, roots)
        if len(identity.prefix) > _PROOF_BYTES_MAX // 2:
            raise ConfigError("certfile", "has too large a chain", hint="leave out what peers have in cafile")
        now = datetime.fromtimestamp(self._clock(), UTC)
        leaf, wanted = chain[0], tls_name(self._name)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise ConfigError(
                "certfile", f"is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}, which is not now"
            )
        if not _names(leaf, wanted):
            names = ", ".join(map(printable, _dns_names(leaf)[:_NAMES_SHOWN])) or "no name"
            text = f"is not one for node {self._name!r}, but for {names}"
            raise ConfigError("certfile", text, hint=f"it needs the SAN DNS:{wanted}, or the agent another name=")
        for server in (True, False):
            try:
                _check_path(chain, identity.roots, self._name, self._clock(), server=server)
            except ProofError as exc:
                use = "server" if server else "client"
                raise ConfigError("certfile", f"peers would refuse it as a {use}: {exc}") from exc
        return identity

    def __repr__(self) -> str:
        return f"<PkiTrust of {self._name!r}>"


def _signed(identity: _Identity, message: bytes) -> bytes:
    private = identity.private
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return identity.prefix + private.sign(message, ec.ECDSA(_hash_of(private.curve)))
    return identity.prefix + private.sign(message, _PSS, SHA256())


def _check_signature(leaf: x509.Certificate, signature: bytes, message: bytes, node: str) -> None:
    public = leaf.public_key()
    try:
        # The key says how it signs; there is nothing for the other side to choose.
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(_hash_of(public.curve)))
        else:
            assert isinstance(public, rsa.RSAPublicKey)  # _parsed let no other through
            public.verify(signature, message, _PSS, SHA256())
    except InvalidSignature:
        raise ProofError("the signature is not one for this session", node=node) from None


_PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=SHA256.digest_size)


def _hash_of(curve: ec.EllipticCurve) -> HashAlgorithm:
    return SHA384() if isinstance(curve, ec.SECP384R1) else SHA256()


def _parsed(proof: bytes, node: str) -> tuple[list[x509.Certificate], bytes]:
    """Return the chain, the leaf first, and the signature behind it."""
    if not 1 <= len(proof) <= _PROOF_BYTES_MAX or not 1 <= proof[0] <= _CHAIN_MAX:
        raise ProofError("the proof is empty or too large", node=node)
    chain, at = [], 1
    for _ in range(proof[0]):
        end = at + 2 + int.from_bytes(proof[at : at + 2], "big")
        if end > len(proof):
            raise ProofError("the proof ends within a certificate", node=node)
        try:
            certificate = x509.load_der_x509_certificate(proof[at + 2 : end])
            usable = _usable(certificate.public_key())
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise ProofError(f"a certificate cannot be read: {exc}", node=node) from exc
        if not usable:
            raise ProofError("a certificate has a key of a kind or size that is not used", node=node)
        chain.append(certificate)
        at = end
    return chain, proof[at:]


def _check_path(
    chain: list[x509.Certificate], roots: list[x509.Certificate], node: str, now: float, *, server: bool
) -> None:
    """Check that `chain` leads to a trusted authority, now, and that its leaf names `node` and allows this use."""
    leaf, wanted = chain[0], tls_name(node)
    if not _names(leaf, wanted):
        raise ProofError(f"the certificate is not one for {node!r}", node=node, hint=f"it needs the SAN {wanted}")
    _check_order(chain, roots, node)
    try:
        policy = PolicyBuilder().store(Store(roots)).time(datetime.fromtimestamp(now, UTC))
        policy = policy.max_chain_depth(_CHAIN_MAX - 1)
        if server:
            policy.build_server_verifier(x509.DNSName(wanted)).verify(leaf, chain[1:])
        else:
            policy.build_client_verifier().verify(leaf, chain[1:])
    except (VerificationError, ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ProofError(f"the certificate is not trusted: {exc}", node=node) from exc


def _check_order(chain: list[x509.Certificate], roots: list[x509.Certificate], node: str) -> None:
    """Check that what is above the leaf comes down from a root in the order sent.

    The verifier tries every order there is: five certificates that a stranger
    gave the same name hold it for 0.1 s. Here they end at the first signature.
    """
    above = roots
    for certificate in reversed(chain[1:]):
        issuers = [issuer for issuer in above if issuer.subject == certificate.issuer]
        if not _is_authority(certificate) or not any(_signed_by(certificate, issuer) for issuer in issuers):
            raise ProofError("the certificate is not trusted: its chain is out of order or not ours", node=node)
        above = [certificate]


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _names(leaf: x509.Certificate, wanted: str) -> bool:
    """Tell whether the SAN holds exactly this DNS name; a wildcard names no node."""
    return wanted in (name.lower() for name in _dns_names(leaf))


def _dns_names(leaf: x509.Certificate) -> list[str]:
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []
    return san.get_values_for_type(x509.DNSName)


def _usable(public: object) -> bool:
    if isinstance(public, rsa.RSAPublicKey):
        low, high = _RSA_BITS
        return low <= public.key_size <= high and public.public_numbers().e < _RSA_EXPONENT_MAX
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, (ec.SECP256R1, ec.SECP384R1))


def _is_root(certificate: x509.Certificate) -> bool:
    return _is_authority(certificate) and certificate.issuer == certificate.subject


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False
    return constraints.ca


def _id_of(leaf: x509.Certificate) -> str:
    return f"{leaf.fingerprint(SHA256()).hex()}:{int(leaf.not_valid_after_utc.timestamp())}"


# -- files -------------------------------------------------------------------------------------


def _read(field: str, path: Path) -> bytes:
    data, exposed = reading.read(str(path), str(path), _FILE_MAX, field)
    if exposed is not None and field == "keyfile":
        raise ConfigError(field, f"holds a private key and {exposed}", hint=f"chmod 600 {shlex.quote(str(path))}")
    return data


def _certificates(field: str, path: Path) -> list[x509.Certificate]:
    data = _read(field, path)
    try:
        found = x509.load_pem_x509_certificates(data)
        usable = all(_usable(certificate.public_key()) for certificate in found)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigError(field, f"holds no PEM certificate: {exc}") from exc
    if not usable:
        raise ConfigError(field, "has a key of another kind or size", hint="use ECDSA P-256 or P-384, or RSA")
    return found


def _private_key(path: Path, password: bytes | None) -> PrivateKey:
    data = _read("keyfile", path)
    try:
        key = load_pem_private_key(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # Never the text of the cause: it is about a secret.
        raise ConfigError(
            "keyfile", "holds no private key that can be read", hint="is it PEM, with a password that was not given?"
        ) from exc
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ConfigError("keyfile", "is a key of another kind", hint="use ECDSA P-256 or P-384, or RSA")
    return key
