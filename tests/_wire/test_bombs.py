"""A small message that becomes a large one: what it may cost, in each compression and on each carrier."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from typing import Literal

import pytest

from mycorrizal._wire import limits
from mycorrizal._wire.compression import DEFLATE, LZW
from mycorrizal._wire.messages import Compress
from mycorrizal._wire.packet import PacketCodec
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.config import Config
from mycorrizal.exceptions import RemoteProtocolError
from tests._wire.strategies import bomb

MIB = 1 << 20  # the table of LZW alone takes eight of them at its worst
Wire = Literal["cbor", "msgpack"]


@cache
def deflated(size: int) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    return b"".join(compressor.compress(bytes(MIB)) for _ in range(size // MIB)) + compressor.flush()


def config(wire: Wire) -> Config:
    return Config(name="a", wire=wire)


def refused_by_packets(wire: Wire, compressed: Compress) -> str:
    codec = PacketCodec(config(wire), Keyring(), lambda: bytes(12))
    opened = codec.open(b"\x09" + codec.body.encode(compressed))
    assert opened.messages == []
    return str(opened.rejected[0])


def refused_by_streams(wire: Wire, compressed: Compress) -> str:
    codec = StreamCodec(config(wire), Keyring(), lambda: bytes(12))
    with pytest.raises(RemoteProtocolError) as caught:
        codec.reader(answer=False).feed(b"\x09" + codec.body.encode(compressed))
    return str(caught.value)


Refused = Callable[[Wire, Compress], str]


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("algorithm", [DEFLATE, LZW], ids=["deflate", "lzw"])
@pytest.mark.parametrize(
    ("refused", "limit"),
    [(refused_by_packets, limits.PACKET_DECOMPRESSED_MAX), (refused_by_streams, limits.DECOMPRESSED_MAX)],
    ids=["packet", "stream"],
)
def test_a_bomb_costs_no_more_than_its_bound(wire: Wire, algorithm: int, refused: Refused, limit: int) -> None:
    size = 6 * limit + 128 * MIB
    compressed = Compress(algorithm, deflated(size) if algorithm == DEFLATE else bomb(size))
    assert compressed.buf is not None and 100 * len(compressed.buf) < size
    tracemalloc.start()
    try:
        why = refused(wire, compressed)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ("unknown algorithm" if wire == "msgpack" and algorithm == DEFLATE else "larger than the limit") in why
    assert most < 3 * limit + 16 * MIB, f"{most / MIB:.0f} MiB to find that more than {limit / MIB:.0f} MiB come out"
