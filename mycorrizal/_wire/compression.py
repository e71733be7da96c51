"""The compress message: LZW, the only algorithm Go knows, and DEFLATE among ourselves.

Which one is written follows the body codec: with ``wire="msgpack"`` LZW, byte
for byte as Go does. Differs from memberlist: with ``wire="cbor"``, which no Go
node reads, zlib's DEFLATE (algorithm 1), which is written in C: with LZW in
Python a forming cluster of 64 needs 1.4 times the CPU (docs/performance.md).

From: memberlist-protocol §2.5, §4; RFC 1951.
"""

from __future__ import annotations

import struct
import zlib

from ..exceptions import RemoteProtocolError
from . import limits, lzw
from .body import BodyCodec
from .messages import Compress, MessageType

__all__ = ["DEFLATE", "LZW", "compress_message", "decompress_message", "may_shrink", "shrunk"]

LZW, DEFLATE = 0, 1
"""Values of ``Compress.algo``."""

_COMPRESS = bytes((MessageType.COMPRESS,))
_COMPRESS_OVERHEAD_MIN = 13
"""Bytes of a compress message beside its codes: type, map, two keys, a number, a length of one byte or more."""

_GUESS_BYTES_MAX = 512
"""Longer messages nearly always shrink: there ``may_shrink`` costs more than it saves."""

_DEFLATE_BYTES_MIN = 128
"""Shorter ones are pings and acks, which do not shrink, or too little to matter."""

_DEFLATE_LEVEL = 1  # member tables: a third larger than at level 6, in a third of the time
_RAW = -15  # DEFLATE without zlib's header and checksum


def compress_message(body: BodyCodec, message: bytes) -> bytes:
    """Return `message` inside a compress message, whether that is shorter or not."""
    if _is_ours(body):
        return _COMPRESS + body.encode(Compress(DEFLATE, _deflate(message)))
    return _COMPRESS + body.encode(Compress(LZW, lzw.compress(message)))


def decompress_message(body: BodyCodec, compressed: Compress, limit: int) -> bytes:
    """Return the message inside; it may be empty.

    Raises:
        RemoteProtocolError: another algorithm, broken codes, or longer than `limit`.
    """
    limit = min(limit, limits.DECOMPRESSED_MAX)
    if compressed.algo == LZW:
        return lzw.decompress(compressed.buf or b"", limit)
    if compressed.algo == DEFLATE and _is_ours(body):
        return _inflate(compressed.buf or b"", limit)
    raise RemoteProtocolError(f"cannot decompress unknown algorithm {compressed.algo}")


def shrunk(body: BodyCodec, message: bytes) -> bytes:
    """Return `message` compressed if that is strictly shorter, else as it is."""
    if _is_ours(body):
        if len(message) < _DEFLATE_BYTES_MIN:
            return message
        compressed = compress_message(body, message)
    else:
        codes = lzw.compress_below(message, len(message) - _COMPRESS_OVERHEAD_MIN) if may_shrink(message) else None
        if codes is None:
            return message
        compressed = _COMPRESS + body.encode(Compress(LZW, codes))
    return compressed if len(compressed) < len(message) else message


def may_shrink(message: bytes) -> bool:
    """Return False if LZW cannot make `message` shorter, without trying.

    A code of LZW repeats earlier bytes, so the first occurrence of each pair of
    neighbours lies across two codes: there are more codes than different pairs,
    of 9 bits at least, beside clear and end. This spares a ping, whose pairs
    mostly differ, the greater part of the time; the outcome is the same.
    """
    size = len(message)
    if size > _GUESS_BYTES_MAX or size < 2:
        return size > 2
    pairs = set(struct.unpack_from(f"{size // 2}H", message))
    pairs.update(struct.unpack_from(f"{(size - 1) // 2}H", message, 1))
    return ((len(pairs) + 3) * 9 + 7) // 8 + _COMPRESS_OVERHEAD_MIN < size


def _is_ours(body: BodyCodec) -> bool:
    return body.name == "cbor"


def _deflate(message: bytes) -> bytes:
    compressor = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, _RAW)
    return compressor.compress(message) + compressor.flush()


def _inflate(data: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(_RAW)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"broken DEFLATE data: {error}") from None
    if len(plain) > limit:
        raise RemoteProtocolError(f"decompressed data is larger than the limit of {limit} bytes")
    if not inflater.eof:
        raise RemoteProtocolError("unexpected EOF")
    return plain
