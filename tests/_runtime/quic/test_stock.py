"""The stock packet path: what aioquic's log tells is true, and what a peer can make us keep has an end."""

from __future__ import annotations

import logging
from random import Random
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicPacketBuilderStop

from mycorrizal._runtime.quic import qlog, stock
from mycorrizal._runtime.quic.fast.aio import FastPath, Quic
from mycorrizal._runtime.quic.fast.sender import push_varint
from mycorrizal._runtime.quic.stock import StockPath, StockTransport
from mycorrizal._runtime.quic.transport import PROVEN_WINDOW, PacketPath
from mycorrizal._runtime.quic.trial import _CLIENT, _End, _Trial

FAST = FastPath()
STOCK = StockPath()


class Talk(_Trial):
    """Two connections, and a network that loses some of what they say."""

    def __init__(self, client: PacketPath, server: PacketPath, loss: float = 0.0, seed: int = 0) -> None:
        super().__init__(client, server)
        self.loss = 0.0
        self.rng = Random(seed)
        self.until(lambda: self.client.connected and self.server and self.server.connected)
        self._flush()
        while self._under_way:  # until it is confirmed
            self._step()
            self._flush()
        if server is FAST:  # which withholds credit until the proof
            self.there.raise_limit(PROVEN_WINDOW)
        self.loss = loss

    @property
    def there(self) -> Any:
        """The server's transport."""
        assert self.server is not None
        return self.server.quic

    def until(self, done: Any) -> None:
        self._until(done, "it did not happen", 20_000)

    def _send(self, data: bytes, to: _End | None) -> None:
        if to is None or self.rng.random() >= self.loss:
            super()._send(data, to)

    def say(self, frames: bytes) -> None:
        """Have a fast client send these very frames."""
        quic: Any = self.client.quic
        datagram = quic._protect(quic._keys(True), frames)
        quic._packet_number += 1
        assert self.server is not None
        self.server.take(datagram, _CLIENT, self.now)


def stream_frame(stream: int, offset: int, data: bytes) -> bytes:
    return b"\x0e" + push_varint(stream) + push_varint(offset) + push_varint(len(data)) + data


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pair", [(STOCK, STOCK), (STOCK, FAST), (FAST, STOCK)], ids=lambda pair: pair[0].name)
def test_every_byte_is_acknowledged_once_whatever_is_lost(pair: tuple[PacketPath, PacketPath], seed: int) -> None:
    talk = Talk(*pair, loss=0.1, seed=seed)
    client, there = talk.client.quic, talk.there
    streams = [client.open_stream(bool(number % 2)) for number in range(6)]
    sizes = {stream: talk.rng.randrange(60_000) for stream in streams}
    for stream in streams:
        client.write(stream, bytes(sizes[stream]), stream != streams[0])
        assert client.backlog(stream) == sizes[stream]
    talk.until(lambda: not any(client.backlog(stream) for stream in streams))
    server = talk.server
    assert server is not None
    assert {stream: len(server.data.get(stream, b"")) for stream in streams} == sizes
    assert server.fins == set(streams[1:]) and client.writable(streams[0]) and not client.writable(streams[1])
    client.write(streams[1], b"after the end", False)
    there.write(streams[1], b"not ours", False)
    if pair[1] is STOCK:
        there.write(400, b"nobody's", False)
    client.write(streams[0], b"", True)
    talk.until(lambda: streams[0] in server.fins)


def test_streams_are_forgotten_when_they_are_over() -> None:
    talk = Talk(STOCK, STOCK)
    for number in range(150):
        stream = talk.client.quic.open_stream(bool(number % 2))
        talk.client.quic.write(stream, b"x" * 100, True)
        talk.until(lambda stream=stream: stream in talk.server.fins)  # type: ignore[union-attr]
        talk.there.write(stream, b"y", True)
        if not number % 2:
            talk.until(lambda stream=stream: stream in talk.client.fins)
    quic: Any = talk.client.quic
    talk.until(lambda: not quic._under_way and not talk.there._under_way)
    assert len(quic._of_streams) <= 1 and len(talk.there._of_streams) <= 1
    assert quic._held == talk.there._held == 0


def test_a_stream_that_overtakes_others_opens_them() -> None:
    talk = Talk(FAST, STOCK)
    talk.client.quic.open_stream(False)
    talk.client.quic.open_stream(False)
    talk.say(stream_frame(4, 0, b"a"))
    talk.say(stream_frame(0, 0, b"b"))
    for stream in (0, 4):
        assert talk.there.writable(stream)
        talk.there.write(stream, b"answer", True)
    talk.until(lambda: talk.there.backlog(0) == talk.there.backlog(4) == 0)
    assert talk.client.resets == set()


@pytest.mark.parametrize(("proved", "most"), [(False, 64), (True, 1024)])
def test_a_stream_in_very_many_pieces_ends_the_connection(proved: bool, most: int) -> None:
    talk = Talk(FAST, STOCK)
    if proved:
        talk.there.raise_limit(PROVEN_WINDOW)
    for number in range(most):
        talk.say(stream_frame(0, 1 + 2 * number, b"x"))
        assert not talk.there.ended
    talk.say(stream_frame(0, 1 + 2 * most, b"x"))
    assert talk.there.ended and not talk.there.draining and "pieces" in talk.there.close_reason[1]
    talk.until(lambda: talk.client.quic.ended)


def test_gaps_make_us_keep_no_more_than_a_window() -> None:
    """aioquic keeps the gap too, and doubles what may be sent as it is used."""
    talk = Talk(FAST, STOCK)
    talk.there.raise_limit(1 << 20)
    for stream in range(0, 400, 4):
        quic: Any = talk.there.quic
        limit = quic._local_max_data
        talk.say(stream_frame(stream, max(1, min(1 << 20, limit.value - limit.used) - 1), b""))
        talk._flush()
        if talk.there.ended:
            break
    assert talk.there.ended
    assert sum(len(stream.receiver._buffer) for stream in quic._streams.values()) <= 2 << 20


def test_what_was_reset_is_counted_until_aioquic_lets_it_go() -> None:
    talk = Talk(FAST, STOCK)
    talk.client.quic.open_stream(False)
    talk.say(stream_frame(0, 5000, b"x"))
    talk.say(b"\x04" + push_varint(0) + push_varint(9) + push_varint(5001))
    assert talk.there._held == 5001
    talk.there.write(0, b"", True)
    talk.until(lambda: talk.there._held == 0)


def test_a_hello_in_many_pieces_ends_the_connection() -> None:
    talk = _Trial(FAST, STOCK)
    quic: Any = talk.client.quic
    there = _End(STOCK.server(stock_setup(), certificate(), quic._peer_cid.cid, None), ("192.0.2.2", 2))
    offset = 1
    for number in range(2):
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
            there.take(datagram, _CLIENT, talk.now)
    assert there.quic.ended and "pieces" in there.quic.close_reason[1]


def stock_setup() -> Any:
    from mycorrizal._runtime.quic.trial import _SETUP

    return _SETUP


def certificate() -> Any:
    from mycorrizal._runtime.quic.trial import _identity

    return _identity()[1]


def test_a_peer_that_acknowledges_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_UNHEARD_MAX", 300)
    talk = Talk(FAST, STOCK)
    for _ in range(700):  # every second one is acknowledged
        talk.now += 0.03
        talk.say(b"\x01")
        talk.there.give_datagrams(lambda data, address: None, talk.now)
    assert talk.there.ended and "acknowledged" in talk.there.close_reason[1]


def test_one_way_traffic_is_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_UNHEARD_MAX", 300)
    talk = Talk(STOCK, STOCK)
    stream = talk.client.quic.open_stream(True)
    for _ in range(40):
        talk.client.quic.write(stream, bytes(100_000), False)
        talk.until(lambda: not talk.client.quic.backlog(stream))
    assert not talk.there.ended and len(talk.server.data[stream]) == 4_000_000  # type: ignore[union-attr]


@pytest.mark.parametrize("uni", [True, False])
def test_streams_beyond_the_peers_limit_are_given_up_in_silence(uni: bool) -> None:
    talk = Talk(STOCK, STOCK)
    quic = talk.client.quic
    streams = [quic.open_stream(uni) for _ in range(140)]
    for stream in streams:
        quic.write(stream, b"x", stream != streams[-1])
    quic.halt(streams[-1], 9)
    quic.reset_stream(streams[-1], 9)
    server = talk.server
    assert server is not None
    talk.until(lambda: len(server.fins) >= 128)
    for stream in streams[:128]:
        talk.there.write(stream, b"", True)
    talk.until(lambda: streams[-1] in server.resets)
    assert not quic.ended and not talk.there.ended


def test_keys_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "_KEY_PACKETS", 200)
    talk = Talk(STOCK, FAST)
    quic: Any = talk.client.quic
    assert isinstance(talk.there, Quic)
    asked = 0
    update = quic.quic.request_key_update

    def counted() -> None:
        nonlocal asked
        asked += 1
        update()

    quic.quic.request_key_update = counted
    stream = quic.open_stream(True)
    for _ in range(10):
        quic.write(stream, bytes(100_000), False)
        talk.until(lambda: not quic.backlog(stream))
    assert 2 <= asked <= 8 and len(talk.server.data[stream]) == 1_000_000  # type: ignore[union-attr]


def test_sizes() -> None:
    from mycorrizal._runtime.quic.path import PathInfo

    assert STOCK.datagram_size(PathInfo(True, 16384)) == 16384
    assert STOCK.datagram_size(PathInfo(False, 9000)) == 1200, "nobody could lower it later"
    talk = Talk(STOCK, STOCK)
    talk.client.quic.lower(1200)
    assert not talk.client.quic.ended
    talk.client.quic.datagram_size = 9000
    talk.client.quic.lower(1452)
    assert talk.client.quic.ended


def test_figures_are_told() -> None:
    talk = Talk(STOCK, STOCK)
    figures = talk.client.quic.figures()
    assert 0.02 <= figures["rtt"] < 0.2 and figures["mtu"] == 1200 and figures["cwnd"] > 0
    assert set(figures) == set(Talk(FAST, FAST).client.quic.figures())
    assert 0.05 < talk.client.quic.closing_time() < 1.0


def test_aioquic_says_of_our_connections_nothing_and_of_others_what_it_wants(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "quic")
    talk = Talk(STOCK, STOCK)
    talk.client.quic.close(error_code=7, reason_phrase="over")
    talk.until(lambda: talk.there.ended)
    assert not caplog.records
    quic = QuicConnection(configuration=QuicConfiguration(server_name="n"))
    quic.connect(("192.0.2.1", 9), 0.0)
    quic.close(error_code=7)
    quic.datagrams_to_send(0.0)
    assert [record.name for record in caplog.records] == ["quic"]


def test_free_leaves_nothing() -> None:
    talk = Talk(STOCK, STOCK)
    quic = talk.client.quic
    assert isinstance(quic, StockTransport)
    inner = quic.quic
    name = quic._log._id
    assert name in qlog._OURS
    quic.free()
    assert vars(inner) == {} and name not in qlog._OURS
