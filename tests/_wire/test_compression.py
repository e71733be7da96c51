"""The compress message in both algorithms: exact where Go reads it, bounded, and only what each wire knows."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal import RemoteProtocolError
from mycorrizal._wire import lzw
from mycorrizal._wire.codec import body_codec
from mycorrizal._wire.compression import DEFLATE, LZW, compress_message, decompress_message, may_shrink, shrunk
from mycorrizal._wire.messages import Compress

OURS, GO = body_codec("cbor"), body_codec("msgpack")
brief = settings(max_examples=150, deadline=None)
texts = st.binary(max_size=120) | st.lists(st.sampled_from([b"node", b"\xa4", b"Source"]), max_size=200).map(b"".join)


@brief
@given(texts)
def test_what_is_compressed_comes_back(message: bytes) -> None:
    for codec, algorithm in ((OURS, DEFLATE), (GO, LZW)):
        body = codec.decode(Compress, compress_message(codec, message), 1)[0]
        assert body.algo == algorithm
        assert decompress_message(codec, body, 1 << 20) == message


@brief
@given(texts)
def test_for_go_sparing_a_try_does_not_change_the_outcome(message: bytes) -> None:
    compressed = compress_message(GO, message)
    if not may_shrink(message):
        assert len(compressed) >= len(message)
    assert shrunk(GO, message) == (compressed if len(compressed) < len(message) else message)


@brief
@given(texts)
def test_among_ourselves_the_shorter_form_is_used_but_for_short_messages(message: bytes) -> None:
    out = shrunk(OURS, message)
    assert len(out) <= len(message)
    if out != message:
        assert decompress_message(OURS, OURS.decode(Compress, out, 1)[0], 1 << 20) == message


def test_shrinks_what_repeats() -> None:
    message = b"\x07" + b"mycorrizal " * 60
    assert len(shrunk(OURS, message)) < 100
    assert len(shrunk(GO, message)) < 300


def test_deflate_is_ours_alone() -> None:
    body = OURS.decode(Compress, compress_message(OURS, bytes(1000)), 1)[0]
    with pytest.raises(RemoteProtocolError, match="unknown algorithm 1"):
        decompress_message(GO, body, 1 << 20)
    with pytest.raises(RemoteProtocolError, match="unknown algorithm 2"):
        decompress_message(OURS, Compress(2, b""), 1 << 20)
    assert decompress_message(OURS, Compress(LZW, lzw.compress(b"x" * 99)), 1 << 20) == b"x" * 99


def deflated(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(bytes(size)) + compressor.flush()


def test_the_bound_is_exact_and_holds_while_decompressing() -> None:
    assert len(decompress_message(OURS, Compress(DEFLATE, deflated(1000)), 1000)) == 1000
    for size in (1001, 50 << 20):
        with pytest.raises(RemoteProtocolError, match="larger than the limit of 1000"):
            decompress_message(OURS, Compress(DEFLATE, deflated(size)), 1000)


@pytest.mark.parametrize("data", [None, b"", b"\xff\xff", deflated(1000)[:-1]], ids=["nil", "empty", "broken", "cut"])
def test_broken_data_is_refused(data: bytes | None) -> None:
    with pytest.raises(RemoteProtocolError):
        decompress_message(OURS, Compress(DEFLATE, data), 1 << 20)


@brief
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_give_only_documented_errors(data: bytes, algorithm: int) -> None:
    for codec in (OURS, GO):
        try:
            assert len(decompress_message(codec, Compress(algorithm, data), 4096)) <= 4096
        except RemoteProtocolError:
            pass
