"""The envelope of a datagram: compound, compression, checksum, encryption, label.

Pure: no socket, no clock, and the nonce comes in from outside. What a message
means is not known here.

From: memberlist-protocol §2.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..config import META_MAX_SIZE, Config
from ..exceptions import DecryptError, LocalProtocolError, RemoteProtocolError
from . import limits
from .codec import BodyCodec, body_codec, decode_message, encode_message
from .compression import decompress_message, shrunk
from .label import add_label, check_label, label_bytes, label_overhead, peel_label
from .messages import Alive, Compress, Err, Message, MessageType
from .security import Keyring, decrypt_payload, encrypt_payload, encryption_overhead, encryption_version

__all__ = [
    "Opened",
    "PacketCodec",
    "join_compound",
    "split_compound",
]

_CRC_HEADER = struct.Struct(">BI")
_PART_BYTES_MAX = 0xFFFF  # a part's length travels in two bytes


@dataclass(slots=True)
class Opened:
    """What a datagram held.

    Attributes:
        messages: in the order they stood; several if it was a compound.
        rejected: why parts of it were refused; they do not lose the others.
    """

    messages: list[Message] = field(default_factory=list)
    rejected: list[RemoteProtocolError] = field(default_factory=list)


class PacketCodec:
    """Packets of one node, both ways. Owned by one thread."""

    def __init__(self, config: Config, keyring: Keyring, nonce: Callable[[], bytes]) -> None:
        self.body: BodyCodec = body_codec(config.wire)
        self.keyring = keyring
        self._nonce = nonce
        self._label = label_bytes(config.label)
        self._label_overhead = label_overhead(self._label)
        self._skip_label_check = config.skip_inbound_label_check
        self._verify_incoming = config.gossip_verify_incoming
        self._verify_outgoing = config.gossip_verify_outgoing
        self._compress = config.enable_compression
        self._version = encryption_version(config.protocol_version)
        self._encryption_overhead = encryption_overhead(self._version)

    # -- sending --------------------------------------------------------------------

    def encode(self, message: Message) -> bytes:
        """Return one message as a part for ``seal``."""
        return encode_message(self.body, message)

    def seal(self, parts: Sequence[bytes], *, crc: bool) -> list[bytes]:
        """Return encoded messages as datagrams, normally one.

        Args:
            parts: what ``encode`` returned; more than one become a compound,
                more than 255 several.
            crc: put a checksum in front: the receiver is known and its
                protocol maximum is at least 5.
        """
        return [self._seal(message, crc=crc) for message in _compounds(parts)]

    def overhead(self, *, gossip: bool) -> int:
        """Return the bytes of a datagram that label and encryption take from a budget.

        Args:
            gossip: a gossip round counts encryption whenever there is a key, a
                piggyback only if outgoing packets are encrypted (protocol §8.3, §8.4).
        """
        encrypts = (gossip or self._verify_outgoing) and self.keyring
        return self._label_overhead + self._encryption_overhead if encrypts else self._label_overhead

    def _seal(self, message: bytes, *, crc: bool) -> bytes:
        if self._compress:
            message = shrunk(self.body, message)
        if crc:
            message = _CRC_HEADER.pack(MessageType.HAS_CRC, zlib.crc32(message)) + message
        if self._verify_outgoing and (key := self.keyring.primary) is not None:
            message = encrypt_payload(self._version, key, message, self._label, self._nonce())
        return add_label(self._label, message)

    # -- receiving ------------------------------------------------------------------

    def open(self, datagram: bytes) -> Opened:
        """Return the messages in `datagram`.

        Raises:
            RemoteProtocolError: the whole of it is refused: label, key or checksum.
        """
        label, message = peel_label(datagram)
        check_label(label, self._label, skip=self._skip_label_check)
        if keys := self.keyring.keys():
            message = self._decrypted(keys, message)
        if len(message) >= _CRC_HEADER.size and message[0] == MessageType.HAS_CRC:
            _, checksum = _CRC_HEADER.unpack_from(message)
            message = message[_CRC_HEADER.size :]
            if zlib.crc32(message) != checksum:
                raise RemoteProtocolError("the checksum of a packet is wrong")
        opened = Opened()
        _Unpacking(self.body, opened).take(message, 0)
        return opened

    def _decrypted(self, keys: tuple[bytes, ...], message: bytes) -> bytes:
        try:
            return decrypt_payload(keys, message, self._label)
        except DecryptError:
            if self._verify_incoming:
                raise
            return message  # on the way into or out of encryption, plain packets are taken too


class _Unpacking:
    """Takes one datagram apart, within the bounds on depth, parts and decompressed bytes."""

    __slots__ = ("_body", "_bytes_left", "_opened", "_parts_left")

    def __init__(self, body: BodyCodec, opened: Opened) -> None:
        self._body = body
        self._opened = opened
        self._parts_left = limits.PACKET_PARTS_MAX
        self._bytes_left = limits.PACKET_DECOMPRESSED_MAX

    def take(self, message: bytes, depth: int) -> None:
        try:
            self._take(message, depth)
        except RemoteProtocolError as error:
            # Without its traceback, which would keep alive what was being decompressed.
            error.__cause__ = error.__context__ = None
            self._opened.rejected.append(error.with_traceback(None))

    def _take(self, message: bytes, depth: int) -> None:
        kind = message[0] if message else None
        if kind == MessageType.COMPOUND:
            self._take_compound(message, depth)
        elif kind == MessageType.COMPRESS:
            self._check_depth(depth)
            if self._bytes_left <= 0:
                raise RemoteProtocolError(f"more than {limits.PACKET_DECOMPRESSED_MAX} decompressed bytes in a packet")
            compressed, _ = self._body.decode(Compress, message, 1)
            left, self._bytes_left = self._bytes_left, 0  # after one failure no further try: each costs time
            plain = decompress_message(self._body, compressed, left)
            self._bytes_left = left - len(plain)
            self.take(plain, depth + 1)
        else:
            self._opened.messages.append(_checked(decode_message(self._body, message)))

    def _take_compound(self, message: bytes, depth: int) -> None:
        self._check_depth(depth)
        parts, lost = split_compound(message[1:])
        if lost:
            self._opened.rejected.append(RemoteProtocolError(f"a compound is cut: {lost} parts lost"))
        for part in parts:
            if not self._parts_left:
                raise RemoteProtocolError(f"more than {limits.PACKET_PARTS_MAX} messages in a packet: rest dropped")
            self._parts_left -= 1
            self.take(part, depth + 1)

    @staticmethod
    def _check_depth(depth: int) -> None:
        if depth >= limits.PACKET_DEPTH_MAX:
            raise RemoteProtocolError(f"messages nest deeper than {limits.PACKET_DEPTH_MAX}")


def _checked(message: Message) -> Message:
    """Refuse what decodes but has no place in a packet."""
    if isinstance(message, Err):
        raise RemoteProtocolError("an error message in a packet")
    # Differs from memberlist: receivers there do not check the length that senders must keep.
    if isinstance(message, Alive) and message.meta is not None and len(message.meta) > META_MAX_SIZE:
        raise RemoteProtocolError(f"metadata of {len(message.meta)} bytes; at most {META_MAX_SIZE}")
    return message


# -- compound ---------------------------------------------------------------------------


def join_compound(parts: Sequence[bytes]) -> bytes:
    """Return at most 255 encoded messages as one compound message."""
    if len(parts) > limits.COMPOUND_PARTS_MAX:
        raise LocalProtocolError(f"a compound of {len(parts)} parts; at most {limits.COMPOUND_PARTS_MAX}")
    head = struct.pack(f">BB{len(parts)}H", MessageType.COMPOUND, len(parts), *map(len, parts))
    return head + b"".join(parts)


def split_compound(body: bytes) -> tuple[list[bytes], int]:
    """Return the parts of a compound (its type byte removed), and how many a cut has lost.

    Raises:
        RemoteProtocolError: the list of lengths is cut.
    """
    if not body:
        raise RemoteProtocolError("a compound without a number of parts")
    count = body[0]
    at = 1 + 2 * count
    if len(body) < at:
        raise RemoteProtocolError("the list of lengths of a compound is cut")
    parts: list[bytes] = []
    for size in struct.unpack_from(f">{count}H", body, 1):
        if at + size > len(body):
            return parts, count - len(parts)
        parts.append(body[at : at + size])
        at += size
    return parts, 0


def _compounds(parts: Sequence[bytes]) -> list[bytes]:
    """Return the messages to send: a lone part as it is, many as compounds of at most 255."""
    # A part too long for a compound's two length bytes goes alone.
    out = [part for part in parts if len(part) > _PART_BYTES_MAX]
    rest = [part for part in parts if len(part) <= _PART_BYTES_MAX] if out else parts
    if len(rest) == 1:
        return [*out, rest[0]]
    step = limits.COMPOUND_PARTS_MAX
    return [*out, *(join_compound(rest[i : i + step]) for i in range(0, len(rest), step))]
