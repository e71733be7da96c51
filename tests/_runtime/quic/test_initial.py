"""The first datagram of a handshake and its answers, against aioquic's own reading of them."""

from __future__ import annotations

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicPacketType,
    encode_long_header_first_byte,
    get_retry_integrity_tag,
    pull_quic_header,
)
from hypothesis import example, given
from hypothesis import strategies as st

from mycorrizal._runtime.quic.initial import (
    VERSIONS,
    First,
    RetryTokens,
    read_first,
    reset,
    retry,
    version_negotiation,
)

HERE = ("192.0.2.1", 4433)
cids = st.binary(min_size=0, max_size=20)


def initial(version: int, destination: bytes, source: bytes, token: bytes, rest: int = 30) -> bytes:
    """Return an Initial packet as aioquic would head it, with `rest` bytes of payload."""
    buf = Buffer(capacity=2000)
    buf.push_uint8(encode_long_header_first_byte(version, QuicPacketType.INITIAL, 3))
    buf.push_uint32(version)
    for cid in (destination, source):
        buf.push_uint8(len(cid))
        buf.push_bytes(cid)
    buf.push_uint_var(len(token))
    buf.push_bytes(token)
    buf.push_uint_var(rest)
    buf.push_bytes(bytes(rest))
    return buf.data


def theirs(data: bytes) -> First | None:
    """Return what aioquic makes of `data`, as far as an endpoint may answer it."""
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=8)
    except ValueError:
        return None
    if header.version is None or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
        return None
    known = header.version in VERSIONS and header.packet_type is QuicPacketType.INITIAL
    return First(
        header.version, known, header.destination_cid, header.source_cid, header.token if known else b""
    )


@given(st.sampled_from(VERSIONS), cids, cids, st.binary(max_size=200), st.integers(0, 300), st.integers(0, 40))
def test_initials_are_read_as_aioquic_reads_them(
    version: int, destination: bytes, source: bytes, token: bytes, rest: int, cut: int
) -> None:
    whole = initial(version, destination, source, token, rest)
    assert read_first(whole + b"another packet") == First(version, True, destination, source, token)
    part = whole[: max(0, len(whole) - cut)]
    assert read_first(part) == theirs(part)


@given(st.binary(max_size=80), st.sampled_from([b"", *(v.to_bytes(4, "big") for v in (0, 7, *VERSIONS))]))
@example(b"", b"")
def test_anything_at_all_is_read_or_left(noise: bytes, version: bytes) -> None:
    data = noise[:1] + version + noise[1:]
    found = read_first(data)
    if found is None or found.initial:
        # of others than Initial packets only the ids count, and aioquic also looks into what follows them
        assert found == theirs(data) or (theirs(data) is not None and not theirs(data).initial)  # type: ignore[union-attr]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retry_is_one_to_aioquic(version: int) -> None:
    first = First(version, True, b"original", b"client's", b"")
    packet = retry(first, b"new home", b"token")
    header = pull_quic_header(Buffer(data=packet), host_cid_length=8)
    assert header.packet_type is QuicPacketType.RETRY and header.version == version
    assert (header.destination_cid, header.source_cid, header.token) == (b"client's", b"new home", b"token")
    assert header.integrity_tag == get_retry_integrity_tag(packet[:-16], b"original", version)


def test_version_negotiation_is_one_to_aioquic() -> None:
    first = read_first(initial(0x0A0A0A0A, b"their id", b"mine", b""))
    assert first == First(0x0A0A0A0A, False, b"their id", b"mine", b"")
    header = pull_quic_header(Buffer(data=version_negotiation(first)), host_cid_length=8)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert (header.destination_cid, header.source_cid) == (b"mine", b"their id")
    assert header.supported_versions == list(VERSIONS)
    assert read_first(version_negotiation(first)) is None, "or two nodes would answer each other for ever"


def test_a_retry_token_is_good_for_its_address_its_id_and_half_a_minute() -> None:
    tokens = RetryTokens()
    token = tokens.make(HERE, b"original", b"new home", 1000.0)
    assert tokens.original(token, HERE, b"new home", 1029.0) == b"original"
    assert tokens.original(token, ("192.0.2.1%eth0", 4433), b"new home", 1000.0) == b"original"
    for bad in (
        tokens.original(token, HERE, b"new home", 1031.0),
        tokens.original(token, ("192.0.2.2", 4433), b"new home", 1000.0),
        tokens.original(token, ("192.0.2.1", 4434), b"new home", 1000.0),
        tokens.original(token, HERE, b"new  home", 1000.0),
        tokens.original(token[:-1], HERE, b"new home", 1000.0),
        tokens.original(b"", HERE, b"new home", 1000.0),
        tokens.original(token[:12], HERE, b"new home", 1000.0),
        RetryTokens().original(token, HERE, b"new home", 1000.0),
    ):
        assert bad is None


@given(st.integers(22, 2000))
def test_a_reset_is_shorter_than_what_it_answers(heard: int) -> None:
    token = b"0123456789abcdef"
    data = reset(token, heard)
    assert data.endswith(token) and 21 <= len(data) < heard and len(data) <= 41 and data[0] & 0xC0 == 0x40
