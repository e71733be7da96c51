"""Streams of their own on one connection: what is refused, counted, bounded, and given up both ways."""

from __future__ import annotations

import os

from mycorrizal._data.link import Link
from mycorrizal._wire.frames import (
    INLINE_MAX,
    STREAM_WINDOW,
    VALUES_MAX,
    Close,
    Frame,
    Status,
    message_body,
    name_field,
    parse_response,
    request_body,
    response_body,
    stream_head,
)
from mycorrizal.dataconfig import DataConfig

from .harness import FakeSink, packed
from .raw import Raw

BEGIN = b"\x00"
OPEN = stream_head(Frame.OPEN, name_field("s"))


def link_of(raw: Raw) -> Link:
    return raw.node.machine.links[raw.conn]


def opened(raw: Raw, stream: int = 0) -> FakeSink:
    sink = FakeSink()
    raw.node.sinks["s"] = lambda: sink
    raw.say(OPEN, stream)
    assert sink.pipe is not None
    return sink


def test_what_is_not_wanted_is_stopped_and_counted() -> None:
    raw = Raw(DataConfig(max_value=100_000)).prove()
    before = link_of(raw)._wasted
    raw.value(6, Frame.MESSAGE, message_body(1), 100_001)
    assert raw.conn.stops[6] == Close.TOO_LARGE and raw.node.counters["values.too_large"] == 1
    assert link_of(raw)._wasted == before
    raw.value(10, Frame.RESPONSE, response_body(5, Status.OK), 5_000)
    assert raw.conn.stops[10] == Close.CANCELLED and link_of(raw)._wasted == before + 1
    for number in range(3):
        raw.say(OPEN, 4 * number)
    assert raw.node.counters["streams.refused"] == 3 and link_of(raw)._wasted == before + 4
    assert raw.code is None


def test_a_request_that_stops_coming_is_counted_and_answered() -> None:
    raw = Raw(DataConfig(stall_timeout=5.0)).prove()
    raw.heard()
    raw.value(6, Frame.REQUEST, request_body(1, 0) + name_field("echo"), 100_000, BEGIN)
    for _ in range(7):
        raw.conn.last_received = raw.world.now
        raw.world.run(1.0)
    assert raw.conn.stops[6] == Close.STALLED and raw.node.counters["values.stalled"] == 1
    assert [parse_response(body) for kind, body in raw.heard() if kind == Frame.RESPONSE] == [(1, Status.EXPIRED)]
    assert raw.code is None and not link_of(raw).bulk.values


def test_a_value_that_comes_slowly_is_let_be_while_nobody_waits() -> None:
    raw = Raw(DataConfig(stall_timeout=2.0)).prove()
    data = packed(bytes(10 << 20))
    raw.value(6, Frame.REQUEST, request_body(1, 0) + name_field("echo"), len(data), data[:1])
    for number in range(1, 21):
        raw.say(data[number : number + 1], 6)
        raw.conn.last_received = raw.world.now
        raw.world.run(1.0)
    assert 6 in link_of(raw).bulk.values and "values.stalled" not in raw.node.counters


def test_bytes_on_a_stream_of_ours_that_is_over_are_an_offence() -> None:
    raw = Raw().prove()
    raw.say(b"x", 1)
    raw.expect_end(Close.PROTOCOL)


def test_large_values_on_their_way_at_a_time_are_bounded_and_the_next_ones_follow() -> None:
    raw = Raw().prove()
    for _ in range(VALUES_MAX + 3):
        raw.node.request("m", bytes(INLINE_MAX + 1))
    raw.heard()
    assert len(link_of(raw).bulk.flows) + len(link_of(raw).bulk._tails) == VALUES_MAX
    assert len(link_of(raw).bulk._queue) == 3
    for _ in range(3):
        raw.heard()
    assert not link_of(raw).bulk._queue


# -- streams of users ------------------------------------------------------------------------------


def test_who_reads_no_more_tells_the_peer_once_and_grants_no_more() -> None:
    raw = Raw().prove()
    sink = opened(raw)
    assert sink.pipe is not None
    raw.say(bytes(1000), 0)
    raw.heard()
    sink.pipe.consumed(STREAM_WINDOW)
    assert [kind for kind, _ in raw.heard()] == [Frame.GRANT]
    sink.pipe.stop()
    assert raw.conn.stops[0] == Close.CANCELLED
    sink.pipe.consumed(STREAM_WINDOW)
    assert raw.heard() == []


def test_a_stream_that_the_peer_gives_up_ends_both_ways() -> None:
    raw = Raw().prove()
    sink = opened(raw)
    raw.node.machine.stream_reset(raw.conn, 0, Close.CANCELLED, raw.world.now)
    assert raw.conn.resets[0] == Close.CANCELLED and len(sink.errors) == 1
    assert not link_of(raw).bulk.pipes and not link_of(raw).bulk.flows


def test_a_stream_that_ends_counts_as_use_of_its_connection() -> None:
    raw = Raw().prove()
    sink = opened(raw)
    assert sink.pipe is not None
    raw.world.run(5.0)
    raw.say(b"", 0, fin=True)
    sink.pipe.write([], True)
    raw.heard()
    assert not link_of(raw).bulk.pipes and link_of(raw).used == raw.world.now


def test_streams_that_have_ended_and_arrived_are_forgotten() -> None:
    raw = Raw().prove()
    for number in range(100):
        sink = opened(raw, 4 * number)
        assert sink.pipe is not None
        sink.pipe.write([memoryview(b"x")], True)
        raw.say(b"", 4 * number, fin=True)
        raw.heard()
    assert len(link_of(raw).bulk.finishing) <= 65


# -- bytes that the connection writes where they stay -----------------------------------------------------


def test_a_value_may_be_written_where_it_stays() -> None:
    raw = Raw().prove()
    machine = raw.node.machine
    value = os.urandom(100_000)
    data = packed(value)
    assert machine.stream_room(raw.conn, 6) is None
    raw.value(6, Frame.REQUEST, request_body(1, 0) + name_field("echo"), len(data), data[:1000])
    at = 1000
    while at < len(data):
        room = machine.stream_room(raw.conn, 6)
        assert room is not None
        with room:
            size = min(len(room), 30_000)
            room[:size] = data[at : at + size]
        at += size
        machine.stream_filled(raw.conn, 6, size, at == len(data), raw.world.now)
    assert raw.node.ran == [value] and machine.stream_room(raw.conn, 6) is None and raw.code is None


def test_a_value_that_ends_too_early_where_it_stays_is_an_offence() -> None:
    raw = Raw().prove()
    data = packed(bytes(100_000))
    raw.value(6, Frame.REQUEST, request_body(1, 0) + name_field("echo"), len(data), data[:1000])
    raw.node.machine.stream_filled(raw.conn, 6, 10, True, raw.world.now)
    raw.expect_end(Close.PROTOCOL)
    raw.node.machine.stream_filled(raw.conn, 6, 10, True, raw.world.now)
