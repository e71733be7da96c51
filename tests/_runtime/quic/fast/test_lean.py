"""Our short ways through aioquic against aioquic itself, over networks that lose, double and reorder."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from aioquic.quic.events import PingAcknowledged, StopSendingReceived, StreamReset
from aioquic.tls import Epoch

from mycorrizal._runtime.quic.fast.aio import Quic
from mycorrizal._runtime.quic.fast.lean import LeanConnection
from tests._runtime.quic.fast.wire import CLIENT, Wire

PAIRS = [(False, False), (True, False), (False, True)]
NETWORKS: list[dict[str, Any]] = [
    {},
    {"loss": 0.05, "jitter": 0.02},
    {"loss": 0.2, "double": 0.1, "jitter": 0.05},
    {"size": 16384, "local": True, "loss": 0.02},
]


def connected(**arguments: Any) -> Wire:
    wire = Wire(**arguments)
    wire.run(lambda: wire.client.connected and wire.server.connected)
    return wire


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"stock={pair}")
@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_streams_arrive_whole_and_in_order_both_ways(
    pair: tuple[bool, bool], network: dict[str, Any], seed: int
) -> None:
    wire = connected(stock_client=pair[0], stock_server=pair[1], seed=seed, **network)
    rng = Random(seed)
    sent: dict[int, bytes] = {}

    def echo(stream: int, data: bytes, fin: bool) -> None:
        wire.server.quic.send_stream_data(stream, data, fin)

    wire.server.on_data = echo
    for index in range(8):
        stream = 4 * index
        sent[stream] = rng.randbytes(rng.choice([0, 1, 100, 5000, 300000]))
        rest = sent[stream]
        while rest:
            piece = rng.choice([1, 60, 1000, 20000, 262144])
            wire.client.quic.send_stream_data(stream, rest[:piece])
            rest = rest[piece:]
        wire.client.quic.send_stream_data(stream, b"", True)
    wire.run(lambda: len(wire.client.fins) == len(sent), 300)
    assert {stream: bytes(data) for stream, data in wire.client.data.items() if data} == {
        stream: data for stream, data in sent.items() if data
    }
    assert wire.client.end is None and wire.server.end is None


def test_short_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all the above would prove nothing about them."""
    taken = {"in": 0, "out": 0, "slow in": 0, "slow out": 0}

    def count(name: str, key: str) -> None:
        original = getattr(LeanConnection, name)

        def counting(self: Any, *arguments: Any, **more: Any) -> Any:
            result = original(self, *arguments, **more)
            taken[key] += bool(result) if key == "in" else 1
            return result

        monkeypatch.setattr(LeanConnection, name, counting)

    count("_take_short", "in")
    count("_give", "out")
    wire = connected(loss=0.02)
    count("receive_datagram", "slow in")
    count("datagrams_to_send", "slow out")
    wire.client.quic.send_stream_data(0, bytes(1 << 20))
    wire.run(lambda: len(wire.server.data.get(0, b"")) == 1 << 20)
    assert taken["in"] > 700 and taken["slow in"] < taken["in"] / 10, taken
    assert taken["out"] > 100 and taken["slow out"] < taken["out"] / 4, taken


def test_key_update_in_the_middle() -> None:
    wire = connected()
    phases = []
    for _ in range(3):
        wire.client.quic.send_stream_data(0, bytes(5000))
        wire.server.quic.send_stream_data(1, bytes(5000))
        before = len(wire.server.data.get(0, b"")), len(wire.client.data.get(1, b""))
        wire.run(
            lambda before=before: (
                len(wire.server.data.get(0, b"")) == before[0] + 5000
                and len(wire.client.data.get(1, b"")) == before[1] + 5000
            )
        )
        phases.append(wire.server.quic._cryptos[Epoch.ONE_RTT].recv.key_phase)
        wire.client.quic.request_key_update()
    assert phases == [0, 1, 0]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_reset_stop_and_ping(pair: tuple[bool, bool]) -> None:
    wire = connected(stock_client=pair[0], stock_server=pair[1])
    wire.client.quic.send_stream_data(0, b"abc")
    wire.client.quic.send_stream_data(4, b"abc")
    wire.run(lambda: 0 in wire.server.data and 4 in wire.server.data)
    wire.client.quic.reset_stream(0, 7)
    wire.server.quic.stop_stream(4, 9)
    wire.client.quic.send_ping(5)

    def happened() -> bool:
        return (
            any(isinstance(e, StreamReset) and (e.stream_id, e.error_code) == (0, 7) for e in wire.server.events)
            and any(
                isinstance(e, StopSendingReceived) and (e.stream_id, e.error_code) == (4, 9) for e in wire.client.events
            )
            and any(isinstance(e, PingAcknowledged) and e.uid == 5 for e in wire.client.events)
        )

    wire.run(happened)


def test_many_short_streams_give_their_numbers_back() -> None:
    wire = connected(jitter=0.01, loss=0.01)
    wire.server.on_data = lambda stream, data, fin: wire.server.quic.send_stream_data(stream, b"yes", True)
    for round_ in range(10):
        for index in range(100):
            wire.client.quic.send_stream_data(4 * (100 * round_ + index), b"question", True)
        wire.run(lambda round_=round_: len(wire.client.fins) == 100 * (round_ + 1))
    wire.run(lambda: len(wire.client.quic._streams) <= 1 and len(wire.server.quic._streams) <= 1)


def test_backlog_counts_until_acknowledged() -> None:
    wire = connected()
    quic = wire.client.quic
    assert isinstance(quic, Quic)
    quic.send_stream_data(0, bytes(100_000))
    assert quic.backlog(0) == 100_000 and quic.backlog(4) == 0
    wire.run(lambda: quic.backlog(0) == 0)


def test_flow_control_violation_and_garbage_end_the_connection_or_nothing() -> None:
    wire = connected()
    server = wire.server.quic
    for size in (1, 9, 20, 41, 1200):
        wire.server.receive(bytes([0x41]) + server.host_cid + bytes(size), CLIENT, wire.now)
        wire.server.receive(b"\x40" * size, CLIENT, wire.now)
    wire.client.quic.send_stream_data(0, b"still here")
    wire.run(lambda: bytes(wire.server.data.get(0, b"")) == b"still here")
    assert isinstance(server, Quic)
    server.limits_held = True
    server._local_max_data.value = 100
    wire.client.quic.send_stream_data(0, bytes(1000))
    wire.run(lambda: wire.client.end is not None)
    assert wire.client.end is not None and wire.client.end.error_code == 3  # FLOW_CONTROL_ERROR
