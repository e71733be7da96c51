"""What a peer that does not mean well can make us hold, compute and believe."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamReset
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.tls import Epoch

from mycorrizal._runtime.quic.fast import lean
from mycorrizal._runtime.quic.fast.aio import Quic
from mycorrizal._runtime.quic.fast.lean import LeanConnection
from mycorrizal._runtime.quic.fast.sender import Sender, push_varint
from tests._runtime.quic.fast.wire import CLIENT, Wire

PAIRS = [(False, False), (True, False), (False, True)]


def connected(**arguments: Any) -> Wire:
    wire = Wire(**arguments)
    wire.run(lambda: wire.client.connected and wire.server.connected)
    wire.run(lambda: wire.client.quic._handshake_confirmed)
    return wire


def say(wire: Wire, frames: bytes) -> None:
    """Have the client send these very frames."""
    quic = wire.client.quic
    assert isinstance(quic, LeanConnection)
    keys = quic._keys(True)
    assert keys is not None
    datagram = quic._protect(keys, frames)
    quic._packet_number += 1
    wire.server.receive(datagram, CLIENT, wire.now)


def stream_frame(stream: int, offset: int, data: bytes) -> bytes:
    return b"\x0e" + push_varint(stream) + push_varint(offset) + push_varint(len(data)) + data


def held(quic: QuicConnection) -> int:
    return sum(len(stream.receiver._buffer) for stream in quic._streams.values())


def test_gaps_make_us_hold_no_more_than_a_window() -> None:
    wire = connected()
    quic = wire.server.quic
    assert isinstance(quic, Quic)
    quic.raise_limit(1 << 20)
    for stream in range(0, 400, 4):
        limit = quic._local_max_data
        say(wire, stream_frame(stream, max(1, min(1 << 20, limit.value - limit.used) - 1), b""))
        wire.server.datagrams(wire.now)
    assert held(quic) <= 1 << 20 and quic._local_max_data.value <= 2 << 20
    assert wire.server.end is None


def test_what_was_reset_does_not_hold_the_window() -> None:
    wire = connected()
    quic = wire.server.quic
    assert isinstance(quic, Quic)
    quic.raise_limit(1 << 20)
    wire.server.datagrams(wire.now)
    most = (1 << 20) - 10
    say(wire, stream_frame(0, most, b""))
    wire.server.datagrams(wire.now)
    assert held(quic) == most and quic._local_max_data.value == 1 << 20
    say(wire, b"\x04" + push_varint(0) + push_varint(9) + push_varint(most))
    wire.server.datagrams(wire.now)
    assert held(quic) == 0 and quic._local_max_data.sent > 3 << 19 and 0 in quic._streams


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_window_slides_with_what_arrives(pair: tuple[bool, bool]) -> None:
    wire = connected(stock_client=pair[0], stock_server=pair[1], loss=0.03, jitter=0.01)
    whole = bytes(8 << 20)
    wire.client.quic.send_stream_data(0, whole, True)
    wire.run(lambda: 0 in wire.server.fins, 600)
    assert len(wire.server.data[0]) == len(whole)
    if not pair[1]:
        assert wire.server.quic._local_max_data.value <= len(whole) + (1 << 20)


def test_a_stream_in_a_thousand_pieces_is_taken_as_it_can_be_read() -> None:
    wire = connected()
    quic = wire.server.quic
    for offset in range(1, 8000, 2):
        say(wire, stream_frame(0, offset, b"x"))
    assert len(quic._streams[0].receiver._ranges) == 1024
    for offset in range(0, 8000, 2):  # what comes next is always welcome
        say(wire, stream_frame(0, offset, b"y") + stream_frame(0, offset + 1, b"x"))
    assert bytes(wire.server.data[0]) == b"yx" * 4000 and wire.server.end is None


def test_a_hello_in_a_thousand_pieces_costs_little() -> None:
    wire = Wire()
    quic = wire.client.quic
    offset = 1
    for number in range(20):
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid,
            peer_cid=quic._peer_cid.cid,
            version=1,
            is_client=True,
            max_datagram_size=1200,
            packet_number=number,
        )
        builder.start_packet(QuicPacketType.INITIAL, quic._cryptos_initial[1])
        try:
            while True:
                frame = builder.start_frame(0x06, capacity=12)
                frame.push_bytes(push_varint(offset) + b"\x01x")
                offset += 2
        except QuicPacketBuilderStop:
            pass
        for datagram in builder.flush()[0]:
            wire.server.receive(datagram, CLIENT, wire.now)
    assert offset > 4000 and len(wire.server.quic._crypto_streams[Epoch.INITIAL].receiver._ranges) == 64
    wire.run(lambda: wire.server.connected)  # and the real one is still heard


def test_streams_that_the_peer_skipped_keep_their_sender() -> None:
    """A frame under way tells the sender it came from that it was lost."""
    wire = connected()
    for stream in (0, 4):
        wire.client.quic.send_stream_data(stream, b"a")
    say(wire, stream_frame(4, 0, b"a"))
    say(wire, stream_frame(0, 0, b"a"))
    quic = wire.server.quic
    assert isinstance(quic, Quic) and type(quic._streams[0].sender) is Sender
    quic.write(0, b"", True)
    assert wire.server.datagrams(wire.now)  # lost
    say(wire, stream_frame(0, 5, b"x"))
    wire.run(lambda: 0 in wire.client.fins)


@pytest.mark.parametrize("uni", [True, False])
def test_streams_beyond_the_peers_limit_are_given_up_in_silence(uni: bool) -> None:
    wire = connected()
    quic = wire.client.quic
    assert isinstance(quic, Quic)
    streams = [4 * index + 2 * uni for index in range(200)]
    for stream in streams:
        quic.send_stream_data(stream, b"x", True)
    quic.reset_stream(streams[-1], 9)
    quic.halt(streams[-1], 9)
    wire.run(lambda: len(wire.server.fins) >= 128)
    assert quic._streams[streams[-1]].is_blocked and quic._is_plain()
    for stream in streams[:128]:
        if not uni:
            wire.server.quic.send_stream_data(stream, b"", True)
    wire.run(lambda: any(isinstance(e, StreamReset) and e.stream_id == streams[-1] for e in wire.server.events))
    assert wire.client.end is None and wire.server.end is None


def test_acknowledgements_that_nobody_acknowledges_are_forgotten() -> None:
    wire = connected()
    for _ in range(3000):
        wire.now += 0.03
        say(wire, b"\x01")
        wire.server.datagrams(wire.now)
    assert len(wire.server.quic._spaces[Epoch.ONE_RTT].sent_packets) < 700


def test_one_way_traffic_keeps_few_packets() -> None:
    wire = connected()
    wire.client.quic.send_stream_data(0, bytes(8 << 20))
    wire.run(lambda: len(wire.server.data.get(0, b"")) == 8 << 20)
    assert len(wire.server.quic._spaces[Epoch.ONE_RTT].sent_packets) < 100


def test_keys_are_renewed_before_they_wear_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_KEY_PACKETS", 200)
    wire = connected(loss=0.02, jitter=0.01)
    secrets = {wire.server.quic._cryptos[Epoch.ONE_RTT].recv.secret}

    def noted(stream: int, data: bytes, fin: bool) -> None:
        secrets.add(wire.server.quic._cryptos[Epoch.ONE_RTT].recv.secret)

    wire.server.on_data = noted
    wire.client.quic.send_stream_data(0, bytes(2 << 20))
    wire.run(lambda: len(wire.server.data.get(0, b"")) == 2 << 20, 300)
    assert len(secrets) > 5 and wire.client.end is None
