"""Codecs that all members of a cluster share: what many of them read or write alike is worked out once.

A claim that is gossiped comes to every member in the same bytes, and in a
push/pull stand a thousand records that the last one had too. The bytes are
those of the real codecs, and so is every message; they are only not asked twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._wire.codec import BodyCodec, body_codec
from .._wire.messages import Alive, Body, Dead, PushNodeState, Suspect
from .._wire.packet import Opened, PacketCodec
from .._wire.security import Keyring
from ..config import Config

__all__ = ["SharedBodies", "SharedPackets"]

_ALIKE = frozenset({Alive, Suspect, Dead, PushNodeState})
_HEAD = 32  # bytes by which a body is looked up; those that begin alike are compared
_KEPT = 1 << 15  # different ones of a kind; then all are forgotten


class SharedBodies:
    """A ``BodyCodec`` with a memory. A body tells its own length, so bytes that begin with one are that one."""

    def __init__(self, wire: str) -> None:
        self._codec: BodyCodec = body_codec(wire)
        self._written: dict[Body, bytes] = {}
        self._read: dict[tuple[type[Any], bytes], list[tuple[bytes, Any]]] = {}
        self._kept = 0
        self.name = self._codec.name
        self.opened: dict[bytes, Opened] = {}

    def encode(self, body: Body) -> bytes:
        """As the real codec."""
        if type(body) not in _ALIKE:
            return self._codec.encode(body)
        data = self._written.get(body)
        if data is None:
            if len(self._written) >= _KEPT:
                self._written.clear()
            data = self._written[body] = self._codec.encode(body)
        return data

    def decode(self, cls: type[Any], data: bytes, offset: int = 0) -> tuple[Any, int]:
        """As the real codec; equal bytes give the same object."""
        if cls not in _ALIKE:
            return self._codec.decode(cls, data, offset)
        key = cls, data[offset : offset + _HEAD]
        for raw, body in self._read.get(key, ()):
            if data.startswith(raw, offset):
                return body, offset + len(raw)
        body, end = self._codec.decode(cls, data, offset)
        self._kept += 1
        if self._kept > _KEPT:
            self._kept = 1
            self._read.clear()
        self._read.setdefault(key, []).append((data[offset:end], body))
        return body, end


class SharedPackets(PacketCodec):
    """A ``PacketCodec`` that knows what others of its kind have opened, where nothing is encrypted."""

    def __init__(self, config: Config, keyring: Keyring, nonce: Callable[[], bytes], bodies: SharedBodies) -> None:
        super().__init__(config, keyring, nonce)
        self.body = bodies
        self._opened = bodies.opened

    def open(self, datagram: bytes) -> Opened:
        """As the real codec; who reads it changes nothing in it."""
        opened = self._opened.get(datagram)
        if opened is not None and not self.keyring:
            return opened
        opened = super().open(datagram)
        if opened.messages and type(opened.messages[0]) in _ALIKE and not self.keyring:
            if len(self._opened) >= _KEPT:
                self._opened.clear()
            self._opened[datagram] = opened
        return opened
