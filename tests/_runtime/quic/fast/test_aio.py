"""The guard around aioquic's private parts, and what is built on them."""

from __future__ import annotations

import os
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._runtime.quic.fast import aio
from mycorrizal._runtime.quic.fast.aio import LocalCongestion, Quic, missing
from mycorrizal._runtime.quic.fast.sender import Sender, pull_varint, push_varint, varint_size
from tests._runtime.quic.fast.wire import Wire, configurations


def test_this_aioquic_is_known() -> None:
    assert list(missing()) == []


@pytest.mark.parametrize("name", ["_streams_queue", "_write_connection_limits", "_ack_delay"])
def test_a_missing_attribute_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = QuicConnection.__init__

    def without(self: Any, **arguments: Any) -> None:
        original(self, **arguments)
        self.__dict__.pop(name, None)

    monkeypatch.setattr(QuicConnection, "__init__", without)
    if name in QuicConnection.__dict__:
        monkeypatch.delattr(QuicConnection, name)
    assert f"QuicConnection.{name}" in list(missing())


def packet(size: int, sent: float = 0.0) -> Any:
    return SimpleNamespace(sent_bytes=size, sent_time=sent)


def test_local_congestion_halves_once_and_recovers() -> None:
    control = LocalCongestion(max_datagram_size=16384)
    control.limit(512 << 10)
    assert control.congestion_window == 512 << 10
    for _ in range(8):
        control.on_packet_sent(packet=packet(16384, 1.0))
    control.on_packets_lost(now=2.0, packets=[packet(16384, 1.0)])
    control.on_packets_lost(now=2.1, packets=[packet(16384, 1.0)])
    assert control.congestion_window == 256 << 10 and control.bytes_in_flight == 6 * 16384
    for _ in range(100):
        control.bytes_in_flight += 16384
        control.on_packet_acked(now=3.0, packet=packet(16384, 2.5))
    assert control.congestion_window == 512 << 10
    control.on_persistent_congestion()
    assert control.congestion_window == control.least
    control.limit(1)
    assert control.congestion_window == control.least
    control.on_packets_expired(packets=[packet(16384)] * 6)
    assert control.bytes_in_flight == 0


def test_ids_and_tokens_are_ours() -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(os.urandom(8))
        return made[-1]

    _, server = configurations(1200, False)
    quic = Quic(server, make, lambda cid: b"T" * 8 + cid, original_destination_connection_id=bytes(8))
    assert quic.host_cid == made[0] and quic._host_cids[0].stateless_reset_token == b"T" * 8 + made[0]
    quic._remote_active_connection_id_limit = 8
    quic._replenish_connection_ids()
    assert [cid.cid for cid in quic._host_cids] == made and len(made) == 2


def test_lowering_reaches_every_part_and_never_raises_the_size() -> None:
    wire = Wire(size=9000)
    quic = wire.client.quic
    assert isinstance(quic, Quic)
    quic.lower(1452)
    assert quic.datagram_size == 1452
    assert quic._loss._cc._max_datagram_size == 1452 == quic._loss._pacer._max_datagram_size  # type: ignore[attr-defined]
    quic.lower(9000)
    assert quic.datagram_size == 1452
    quic.lower(10)
    assert quic.datagram_size == 1200


def test_lowered_in_flight_arrives_all_the_same() -> None:
    wire = Wire(size=9000)
    wire.run(lambda: wire.client.connected)
    wire.client.quic.send_stream_data(0, bytes(500_000))
    quic = wire.client.quic
    assert isinstance(quic, Quic)
    quic.lower(1300)
    wire.run(lambda: len(wire.server.data.get(0, b"")) == 500_000)


def test_free_leaves_nothing() -> None:
    wire = Wire()
    wire.run(lambda: wire.client.connected)
    quic = wire.client.quic
    assert isinstance(quic, Quic)
    quic.free()
    assert quic.__dict__ == {}


@given(st.integers(0, (1 << 62) - 1))
def test_varints(value: int) -> None:
    data = push_varint(value)
    assert len(data) == varint_size(value) and pull_varint(b"x" + data, 1) == (value, 1 + len(data))


@settings(max_examples=200)
@given(
    st.lists(st.binary(max_size=50), max_size=20),
    st.integers(0, 1 << 32),
    st.integers(1, 40),
)
def test_sender_sends_every_byte_whatever_is_lost(writes: list[bytes], seed: int, most: int) -> None:
    """A model: frames are cut, lost or acknowledged in any order; what arrives is what was written."""
    rng = Random(seed)
    sender = Sender(0)
    whole = b"".join(writes)
    pending = list(writes)
    got: dict[int, int] = {}
    fin = False
    under_way: list[tuple[int, int, bool]] = []
    for _ in range(10_000):
        if pending and rng.random() < 0.5:
            sender.write(pending.pop(0), end_stream=not pending)
        elif not pending and sender._buffer_fin is None:
            sender.write(b"", end_stream=True)
        frame = sender.take(rng.randint(0, most), rng.randint(0, len(whole) + 1))
        if frame is not None:
            start, data, last = frame
            assert whole[start : start + len(data)] == bytes(data)
            under_way.append((start, start + len(data), last))
        if under_way and rng.random() < 0.6:
            start, stop, last = under_way.pop(rng.randrange(len(under_way)))
            lost = rng.random() < 0.3
            sender.on_data_delivery(aio_state(lost), start, stop, last)
            if not lost:
                got.update((i, whole[i]) for i in range(start, stop))
                fin = fin or last
        if sender.is_finished:
            break
    assert sender.is_finished and fin and bytes(got[i] for i in range(len(whole))) == whole
    assert not sender._kept and not sender._unsent


def aio_state(lost: bool) -> Any:
    from aioquic.quic.packet_builder import QuicDeliveryState

    return QuicDeliveryState.LOST if lost else QuicDeliveryState.ACKED


def test_names_are_exported() -> None:
    assert {"LOCAL", "FastPath", "Quic", "missing"} <= set(aio.__all__)
