"""Keys of a control plane on loopback TCP, and the door they open.

A TCP port of this machine is there for every user of it, so both sides prove
themselves with CURVE: the keys of server and client are derived from one
secret that only the agent's user can read. libzmq asks whether a client's key
is known over ZAP, which ``zap_answer`` answers.

From: ZeroMQ RFC 26 (CurveZMQ) and 27 (ZAP).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from ..config import weakness
from ..exceptions import ConfigError

__all__ = ["ControlKeys", "zap_answer"]

SECRET_MIN = 16
"""Bytes of the shortest secret."""


@dataclass(frozen=True, slots=True)
class ControlKeys:
    """Key pairs of both sides, as ZeroMQ's 40 characters of Z85."""

    server_public: bytes
    client_public: bytes
    server_secret: bytes = field(repr=False)
    client_secret: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> ControlKeys:
        """Return the keys that belong to `secret`; the same on both sides.

        Raises:
            ConfigError: the secret is short or can be guessed, or this ZeroMQ has no CURVE.
        """
        if not isinstance(secret, (bytes, bytearray)):
            raise ConfigError("control", f"the secret must be bytes, not {type(secret).__name__}")
        if len(secret) < SECRET_MIN:
            raise ConfigError("control", f"a secret of {len(secret)} bytes; {SECRET_MIN} are the least")
        if (why := weakness(secret)) is not None:
            raise ConfigError("control", f"the secret {why}", hint="use secrets.token_bytes(32)")
        if not zmq.has("curve"):
            raise ConfigError("control", "this ZeroMQ was built without CURVE", hint="use ipc:// endpoints")
        server, client = (_secret(secret, side) for side in (b"server", b"client"))
        return cls(zmq.curve_public(server), zmq.curve_public(client), server, client)


def _secret(secret: bytes, side: bytes) -> bytes:
    key: bytes = z85.encode(hmac.digest(secret, b"mycorrizal control " + side, "sha256"))
    return key


def zap_answer(frames: Sequence[bytes], known: bytes) -> list[bytes]:
    """Return the answer to libzmq's question whether to let a client in: only who has the key `known` (Z85)."""
    version, request = (*frames[:2], b"", b"")[:2]
    fine = (
        len(frames) == 7
        and version == b"1.0"
        and frames[5] == b"CURVE"
        and len(frames[6]) == 32
        and hmac.compare_digest(z85.encode(frames[6]), known)
    )
    status = (b"200", b"") if fine else (b"400", b"unknown key")
    return [b"1.0", request, *status, b"", b""]
