"""What a proof is bound to, and keys for each purpose out of the cluster's one key.

A proof is a MAC or a signature over a *transcript*: what it is for, the
channel, both nonces and both names, each with its length before it, so that no
two different sessions share one. The channel is a value that only the two ends
of one TLS session know, in the spirit of RFC 9266; a proof that is carried to
another session, a relay's for instance, is worth nothing there.

From: RFC 5869 (HKDF), RFC 8446 §7.1 (traffic secrets), RFC 5705 §4 (context).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ....exceptions import ProofError

__all__ = ["MAC_BYTES", "NONCE_BYTES", "Binding", "SecretsTap", "derive", "mac", "transcript"]

NONCE_BYTES = 32
MAC_BYTES = 32

_CHANNEL_BYTES = 32
_NAME_BYTES_MAX = 1024
_SECRETS = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
_SECRET_BYTES_MAX = 64  # SHA-384 suites have 48


@dataclass(frozen=True, slots=True)
class Binding:
    """One session as both of its ends see it.

    Attributes:
        channel: what ``SecretsTap.binding`` returned, 32 bytes; the same at both ends.
        server_nonce: 32 bytes that the server drew for this connection; it takes one proof over it.
        client_nonce: 32 bytes that the client drew.
        client: name of the node that dialled.
        server: name of the node that was dialled.
    """

    channel: bytes
    server_nonce: bytes
    client_nonce: bytes
    client: str
    server: str

    def __repr__(self) -> str:
        return f"<Binding of {self.client!r} to {self.server!r}>"  # the channel stays out of logs


class SecretsTap:
    """A ``QuicConfiguration.secrets_log_file`` that turns two traffic secrets into a channel binding. One thread.

    aioquic tells this file each secret as it is made. All but the two of the
    session itself are dropped, and these are overwritten once they have been
    used. Nothing is ever written anywhere.
    """

    __slots__ = ("_binding", "_secrets")

    def __init__(self) -> None:
        self._secrets: dict[str, bytearray] = {}
        self._binding: bytes | None = None

    def write(self, line: str) -> int:
        """Take one line of the key log format: label, client random, secret in hex."""
        label, _, rest = line.partition(" ")
        # After the binding was made nothing may change it, whatever aioquic logs.
        if label in _SECRETS and label not in self._secrets and self._binding is None:
            secret = bytearray.fromhex(rest.split()[1])
            if not 0 < len(secret) <= _SECRET_BYTES_MAX:
                raise ValueError("a traffic secret of a strange length")
            self._secrets[label] = secret
        return len(line)

    def flush(self) -> None:
        """Do nothing; a file has it."""

    def binding(self) -> bytes | None:
        """Return 32 bytes that both ends of this session share and nobody else knows; None before it has its keys."""
        if self._binding is None and len(self._secrets) == len(_SECRETS):
            secrets = [self._secrets[label] for label in _SECRETS]
            self._binding = _hkdf(b"".join(secrets), _info("channel binding", ""), _CHANNEL_BYTES)
            for secret in secrets:
                secret[:] = bytes(len(secret))
            self._secrets.clear()
        return self._binding

    def __repr__(self) -> str:
        return "<SecretsTap>"


def derive(key: bytes, purpose: str, cluster: str, length: int = 32) -> bytes:
    """Return `length` bytes for one `purpose` in one `cluster`; other purposes and clusters tell nothing about them."""
    return _hkdf(key, _info(purpose, cluster), length)


def transcript(context: str, s: Binding, extra: bytes = b"") -> bytes:
    """Return the bytes that a proof named `context` covers.

    Raises:
        ProofError: the session lacks its channel binding, a nonce or a name, so that nothing could be bound to it.
    """
    if len(s.channel) != _CHANNEL_BYTES:
        raise ProofError("this session has no channel binding")
    if len(s.server_nonce) != NONCE_BYTES or len(s.client_nonce) != NONCE_BYTES:
        raise ProofError(f"a nonce is not {NONCE_BYTES} bytes")
    names = [name.encode("utf-8", "surrogateescape") for name in (s.client, s.server)]
    if not all(0 < len(name) <= _NAME_BYTES_MAX for name in names):
        raise ProofError("a node name is empty or too long")
    parts = (context.encode(), extra, s.channel, s.server_nonce, s.client_nonce, *names)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def mac(key: bytes, data: bytes) -> bytes:
    """Return HMAC-SHA256."""
    return hmac.digest(key, data, "sha256")


def _info(purpose: str, cluster: str) -> bytes:
    parts = (purpose.encode(), cluster.encode("utf-8", "surrogateescape"))
    return b"mycorrizal " + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)
