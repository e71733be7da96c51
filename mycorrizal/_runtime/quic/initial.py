"""The first datagram of a handshake, and the three answers that need no connection: another version, Retry, reset.

Written here, since aioquic documents neither its parser of headers nor its
Retry. The parser takes what is needed to decide on a connection; everything
else about a packet is aioquic's.

From: RFC 8999 §5.1, §6; RFC 9000 §8.1.2, §10.3, §17.2; RFC 9001 §5.8; RFC 9369 §3.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ...types import Address, parse_host

__all__ = ["VERSIONS", "First", "RetryTokens", "read_first", "reset", "retry", "version_negotiation"]

VERSION_1 = 1
VERSION_2 = 0x6B3343CF
VERSIONS = (VERSION_1, VERSION_2)
_CID_MAX = 20
_LONG, _FIXED = 0x80, 0x40
_INITIAL = {VERSION_1: 0, VERSION_2: 1}
_RETRY = {VERSION_1: 3, VERSION_2: 0}
_RETRY_KEYS = {
    VERSION_1: (bytes.fromhex("be0c690b9f66575a1d766b54e368c84e"), bytes.fromhex("461599d35d632bf2239825bb")),
    VERSION_2: (bytes.fromhex("8fb4b01b56ac48e260fbcbcead7ccc92"), bytes.fromhex("d86969bc2d7c6d9990efb04a")),
}
_NONCE = 12
_TIME = 8
_TOKEN_SECONDS = 30.0
"""A client answers a Retry at once (RFC 9000 §8.1.4)."""


class First(NamedTuple):
    """What the head of a datagram says that belongs to no connection.

    Attributes:
        version: of QUIC; only what is the same in all versions is filled in if it is none of ``VERSIONS``.
        initial: whether it is an Initial packet, which begins a handshake.
        destination, source: the ids of both ends.
        token: what the client was given, or brings along; empty without.
    """

    version: int
    initial: bool
    destination: bytes
    source: bytes
    token: bytes


def read_first(data: bytes) -> First | None:
    """Read the long header at the start of `data`; None if there is none, or nothing may answer it."""
    try:
        version = int.from_bytes(data[1:5], "big")
        destination, at = _cid(data, 5)
        source, at = _cid(data, at)
        if not version or data[0] & (_LONG | _FIXED) != _LONG | _FIXED:  # 0: Version Negotiation, never answered
            return None
        if version not in VERSIONS or data[0] >> 4 & 3 != _INITIAL[version]:
            return First(version, False, destination, source, b"")
        length, at = _varint(data, at)
        token, at = data[at : at + length], at + length
        rest, at = _varint(data, at)
    except IndexError:
        return None
    return First(version, True, destination, source, token) if at + rest <= len(data) else None


def _cid(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 1 + data[at]
    if data[at] > _CID_MAX or end > len(data):
        raise IndexError
    return data[at + 1 : end], end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size], "big") & ((1 << 8 * size - 2) - 1), at + size


def version_negotiation(first: First) -> bytes:
    """Return the answer to a version that is not spoken here."""
    head = bytes((os.urandom(1)[0] | _LONG | _FIXED,)) + bytes(4)
    return head + _both(first.source, first.destination) + b"".join(v.to_bytes(4, "big") for v in VERSIONS)


def retry(first: First, source: bytes, token: bytes) -> bytes:
    """Return a Retry packet: the client is to come again, with `token`, to the id `source`."""
    kind = bytes((_LONG | _FIXED | _RETRY[first.version] << 4,))
    packet = kind + first.version.to_bytes(4, "big") + _both(first.source, source) + token
    key, nonce = _RETRY_KEYS[first.version]
    covered = bytes((len(first.destination),)) + first.destination + packet
    return packet + AESGCM(key).encrypt(nonce, b"", covered)


def _both(destination: bytes, source: bytes) -> bytes:
    return bytes((len(destination),)) + destination + bytes((len(source),)) + source


def reset(token: bytes, heard: int) -> bytes:
    """Return a stateless reset, shorter than the `heard` bytes that it answers, so that two nodes never go on."""
    noise = os.urandom(min(41, heard - 1) - len(token))
    return bytes((noise[0] & 0x3F | _FIXED,)) + noise[1:] + token


class RetryTokens:
    """Makes the tokens of Retry packets and knows them again, for 30 s and for one address. Keeps nothing."""

    def __init__(self) -> None:
        self._aead = AESGCM(AESGCM.generate_key(bit_length=128))

    def make(self, address: Address, original: bytes, source: bytes, now: float) -> bytes:
        """Return a token for a client at `address` that wrote to `original` and is to write to `source`."""
        nonce = os.urandom(_NONCE)
        plain = int(now * 1000).to_bytes(_TIME, "big") + original
        return nonce + self._aead.encrypt(nonce, plain, _bound(address, source))

    def original(self, token: bytes, address: Address, destination: bytes, now: float) -> bytes | None:
        """Return the id that the client wrote to at first; None if the token is not ours, not its own, or old."""
        if len(token) < _NONCE:
            return None
        try:
            plain = self._aead.decrypt(token[:_NONCE], token[_NONCE:], _bound(address, destination))
        except InvalidTag:
            return None
        made = int.from_bytes(plain[:_TIME], "big") / 1000
        return plain[_TIME:] if now - made <= _TOKEN_SECONDS else None


def _bound(address: Address, source: bytes) -> bytes:
    return parse_host(address[0]).packed + address[1].to_bytes(2, "big") + source
