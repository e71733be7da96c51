"""What a peer can say that it must not, before and after it is proved: counted, disconnected, and nothing else."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from mycorrizal._data.link import Link
from mycorrizal._wire.frames import (
    BULK_INITIAL,
    FRAME_MAX,
    HANDSHAKE_MAX,
    STREAMS_MAX,
    VALUES_MAX,
    VALUES_TAKEN,
    Close,
    Frame,
    Status,
    frame,
    grant_body,
    id_body,
    message_body,
    name_field,
    parse_response,
    parse_sequence,
    request_body,
    response_body,
    stream_head,
)
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import PeerBusy, PeerUnreachable

from .harness import FakeSink, packed
from .raw import LANE, Raw

MESSAGE = packed("m")
OPEN = stream_head(Frame.OPEN, name_field("s"))

# -- before the proof -------------------------------------------------------------------------

UNPROVEN: list[tuple[str, int, bytes, Close]] = [
    ("a request", LANE, frame(Frame.REQUEST, request_body(1, 0) + name_field("echo") + MESSAGE), Close.NOT_PROVED),
    ("a message", LANE, frame(Frame.MESSAGE, message_body(1) + MESSAGE), Close.NOT_PROVED),
    ("a welcome", LANE, frame(Frame.WELCOME, b""), Close.NOT_PROVED),
    ("a challenge", LANE, frame(Frame.CHALLENGE, b""), Close.NOT_PROVED),
    ("an unknown kind", LANE, frame(200, b""), Close.NOT_PROVED),
    ("a proof cut off", LANE, frame(Frame.PROOF, b"\x00\x20abc"), Close.PROTOCOL),
    ("an empty frame", LANE, bytes(8), Close.PROTOCOL),
    ("a long frame", LANE, (HANDSHAKE_MAX + 1).to_bytes(4, "big") + b"\x02", Close.PROTOCOL),
    ("another stream", 6, OPEN, Close.NOT_PROVED),
    ("a stream of a user", 0, OPEN, Close.NOT_PROVED),
    ("a stream of ours", 3, b"x", Close.NOT_PROVED),
]


@pytest.mark.parametrize(("stream", "data", "code"), [row[1:] for row in UNPROVEN], ids=[row[0] for row in UNPROVEN])
def test_before_the_proof(stream: int, data: bytes, code: Close) -> None:
    raw = Raw()
    raw.say(data, stream)
    raw.expect_end(code)
    assert raw.node.ran == [] and raw.node.messages == []
    assert set(raw.node.machine.peers) == {"b"}


def test_wrong_proofs() -> None:
    for change in (b"k|proof", b"m", bytes(32)):
        raw = Raw()
        proof = raw.proof()
        raw.say(proof.replace(change, bytes(len(change) - 1) + b"\x01", 1))
        raw.expect_end(Close.NOT_PROVED)
    raw = Raw()
    raw.say(raw.proof("another key"))
    raw.expect_end(Close.NOT_PROVED)
    raw = Raw()
    proof = raw.proof()
    raw.conn.channel = b"another channel"
    raw.say(proof + frame(Frame.REQUEST, request_body(1, 0) + name_field("echo") + MESSAGE))
    raw.expect_end(Close.NOT_PROVED)
    assert raw.node.ran == []
    raw = Raw()
    proof = raw.proof()
    raw.conn.channel = None
    raw.say(proof)
    raw.expect_end(Close.NOT_PROVED)


def test_a_proof_of_another_connection() -> None:
    one = Raw()
    proof = one.proof()
    other = Raw(node=one.node)
    other.say(proof)
    assert other.code == Close.NOT_PROVED


def test_nothing_behind_a_refused_proof_is_read() -> None:
    raw = Raw()
    raw.node.members["m"] = False
    raw.say(raw.proof() + frame(Frame.REQUEST, request_body(1, 0) + name_field("echo") + MESSAGE))
    assert raw.code == Close.TRY_AGAIN
    assert raw.node.ran == [] and raw.node.machine.links == {}


def test_no_proof_in_time() -> None:
    raw = Raw()
    raw.say(frame(Frame.PROOF, bytes(1000))[:-1])
    raw.world.run(4.0)
    assert raw.code is None
    raw.world.run(1.5)
    assert raw.code == Close.NOT_PROVED


def test_a_proof_byte_by_byte() -> None:
    raw = Raw()
    for byte in raw.proof():
        raw.say(bytes((byte,)))
    assert raw.code is None and raw.conn.proved


# -- frames ---------------------------------------------------------------------------------------

PROVEN: list[tuple[str, int, bytes, Close]] = [
    ("a second proof", LANE, frame(Frame.PROOF, b""), Close.PROTOCOL),
    ("a welcome", LANE, frame(Frame.WELCOME, b""), Close.PROTOCOL),
    ("a challenge", LANE, frame(Frame.CHALLENGE, b""), Close.PROTOCOL),
    ("an open on the lane", LANE, frame(Frame.OPEN, name_field("s")), Close.PROTOCOL),
    ("an unknown kind", LANE, frame(99, b"x"), Close.PROTOCOL),
    ("an empty frame", LANE, bytes(8), Close.PROTOCOL),
    ("a long frame", LANE, (FRAME_MAX + 1).to_bytes(4, "big") + b"\x04", Close.PROTOCOL),
    ("a message without number", LANE, frame(Frame.MESSAGE, b"1234567"), Close.PROTOCOL),
    ("a message number 0", LANE, frame(Frame.MESSAGE, message_body(0) + MESSAGE), Close.PROTOCOL),
    ("a message far ahead", LANE, frame(Frame.MESSAGE, message_body(66) + MESSAGE), Close.PROTOCOL),
    ("a skip far ahead", LANE, frame(Frame.SKIP, message_body(1 << 40)), Close.PROTOCOL),
    ("accepted, never sent", LANE, frame(Frame.ACCEPTED, message_body(1)), Close.PROTOCOL),
    ("accepted, cut off", LANE, frame(Frame.ACCEPTED, b"\x01"), Close.PROTOCOL),
    ("a request cut off", LANE, frame(Frame.REQUEST, request_body(1, 0) + b"\x09name"), Close.PROTOCOL),
    ("a name that is no text", LANE, frame(Frame.REQUEST, request_body(1, 0) + b"\x01\xff"), Close.PROTOCOL),
    ("a response cut off", LANE, frame(Frame.RESPONSE, b"\x00"), Close.PROTOCOL),
    ("a response of no status", LANE, frame(Frame.RESPONSE, response_body(1, 99)), Close.PROTOCOL),
    ("a cancel cut off", LANE, frame(Frame.CANCEL, b"\x01"), Close.PROTOCOL),
    ("a grant cut off", LANE, frame(Frame.GRANT, b"\x01"), Close.PROTOCOL),
    ("a head of nothing", 6, b"\0\0", Close.PROTOCOL),
    ("a head too long", 6, b"\x02\x01", Close.PROTOCOL),
    ("a head of another kind", 6, stream_head(Frame.CANCEL, bytes(20)), Close.PROTOCOL),
    ("an open on a one-way stream", 6, OPEN, Close.PROTOCOL),
    ("a value on a two-way stream", 0, stream_head(Frame.MESSAGE, message_body(1), 100), Close.PROTOCOL),
    ("an open without a name", 0, stream_head(Frame.OPEN, b""), Close.PROTOCOL),
    ("an open of a wrong length", 0, stream_head(Frame.OPEN, b"\x05abc"), Close.PROTOCOL),
    ("an open that is no text", 0, stream_head(Frame.OPEN, b"\x01\xff"), Close.PROTOCOL),
    ("a value without a size", 6, stream_head(Frame.MESSAGE, bytes(8)), Close.PROTOCOL),
    ("a value of no bytes", 6, stream_head(Frame.MESSAGE, message_body(1), 0), Close.PROTOCOL),
    ("a large message far ahead", 6, stream_head(Frame.MESSAGE, message_body(99), 100_000), Close.PROTOCOL),
    ("a large message and more", 6, stream_head(Frame.MESSAGE, message_body(1) + b"x", 100_000), Close.PROTOCOL),
    ("a large request and more", 6, stream_head(Frame.REQUEST, request_body(1, 0) + b"\x01xy", 9999), Close.PROTOCOL),
    ("more than announced", 6, stream_head(Frame.MESSAGE, message_body(1), 10) + bytes(11), Close.PROTOCOL),
    ("a value with false lengths", 6, stream_head(Frame.MESSAGE, message_body(1), 7000) + b"\x01" * 50, Close.PROTOCOL),
    ("more than granted", 6, stream_head(Frame.MESSAGE, message_body(1), 1 << 20) + bytes(2 << 20), Close.PROTOCOL),
    ("bytes on a stream of ours", 7, b"abc", Close.PROTOCOL),
    ("bytes on our lane", 3, b"abc", Close.PROTOCOL),
]


@pytest.mark.parametrize(("stream", "data", "code"), [row[1:] for row in PROVEN], ids=[row[0] for row in PROVEN])
def test_after_the_proof(stream: int, data: bytes, code: Close) -> None:
    raw = Raw().prove()
    raw.say(data, stream)
    raw.expect_end(code)


@pytest.mark.parametrize("stream", [LANE, 6, 10])
def test_ends_in_the_middle(stream: int) -> None:
    raw = Raw().prove()
    if stream == 10:
        raw.value(10, Frame.MESSAGE, message_body(1), 1000, b"\x00", fin=True)
    else:
        raw.say(b"\x00", stream, fin=True)
    raw.expect_end(Close.PROTOCOL)


def test_lanes_are_not_reset_or_stopped() -> None:
    raw = Raw().prove()
    raw.node.machine.stream_reset(raw.conn, LANE, 0, raw.world.now)
    raw.expect_end(Close.PROTOCOL)
    raw = Raw().prove()
    raw.node.machine.stream_stopped(raw.conn, 3, 0, raw.world.now)
    raw.expect_end(Close.PROTOCOL)


def test_a_request_id_twice() -> None:
    raw = Raw().prove()
    raw.node.handler = lambda request: None
    raw.request(1, MESSAGE)
    raw.request(1, MESSAGE)
    raw.expect_end(Close.PROTOCOL)
    assert raw.node.ran == ["m"]


def test_held_messages_beyond_the_window() -> None:
    raw = Raw(DataConfig(window_bytes=1 << 16)).prove()
    raw.frame(Frame.MESSAGE, message_body(2) + packed(bytes(3000)))
    for number in range(3, 66):
        if raw.code is not None:
            break
        raw.frame(Frame.MESSAGE, message_body(number) + packed(bytes(3000)))
    raw.expect_end(Close.PROTOCOL)
    assert number < 30


def test_answers_that_nobody_reads() -> None:
    """Requests whose answers pile up are refused, and then the connection ends."""
    raw = Raw().prove()
    raw.conn.unread = 17 << 20
    raw.request(1, MESSAGE)
    assert raw.node.ran == []
    ((kind, body),) = raw.heard()
    assert kind == Frame.RESPONSE and parse_response(body) == (1, Status.BUSY)
    raw.conn.unread = 33 << 20
    raw.request(2, MESSAGE)
    raw.expect_end(Close.FLOOD)


def test_large_answers_that_nobody_fetches_count_as_open_requests() -> None:
    raw = Raw(DataConfig(requests_per_peer=10)).prove()
    raw.node.handler = lambda request: raw.node.answer(request, bytes(300_000))
    for number in range(1, 31):
        raw.request(number, MESSAGE)
        raw.world.run(0.001)
        raw.heard()
    assert len(raw.node.ran) == 10
    assert raw.code is None


USELESS = [
    frame(Frame.CANCEL, id_body(7)),
    frame(Frame.ACCEPTED, message_body(0)),
    frame(Frame.SKIP, message_body(1)),
    frame(Frame.GRANT, grant_body(99, 1)),
    frame(Frame.RESPONSE, response_body(5, Status.OK)),
    frame(Frame.MESSAGE, message_body(1) + MESSAGE),
]


@pytest.mark.parametrize("index", range(len(USELESS)))
def test_a_million_frames_that_achieve_nothing(index: int) -> None:
    raw = Raw().prove()
    raw.frame(Frame.MESSAGE, message_body(1) + MESSAGE)
    chunk = USELESS[index] * 1000
    said = 0
    while raw.code is None and said < 1000:
        raw.say(chunk)
        said += 1
    raw.expect_end(Close.FLOOD)
    assert said <= 21
    assert raw.node.counters["offences.flood"] == 1


def test_a_cancelled_thousand_is_no_flood() -> None:
    """Answers to calls that were given up come once each; that many in one go are allowed, and forgotten in time."""
    raw = Raw().prove()
    for _ in range(15):
        raw.say(USELESS[4] * 5000)
        raw.world.run(3.0)
    assert raw.code is None


def test_many_streams() -> None:
    raw = Raw().prove()
    for number in range(STREAMS_MAX):
        raw.say(b"\x00", 6 + 4 * number)
    assert raw.code is None
    raw.say(b"\x00", 6 + 4 * STREAMS_MAX)
    raw.expect_end(Close.PROTOCOL)


def test_a_head_that_never_ends() -> None:
    raw = Raw(DataConfig(stall_timeout=5.0)).prove()
    raw.say(b"\x00", 6)
    for _ in range(8):
        raw.conn.last_received = raw.world.now
        raw.world.run(1.0)
    raw.expect_end(Close.STALLED)


def test_streams_of_no_handler() -> None:
    raw = Raw().prove()
    for number in range(100):
        raw.say(OPEN + b"data", 4 * number)
        assert raw.conn.stops[4 * number] == raw.conn.resets[4 * number] == Close.UNKNOWN
        raw.say(b"more, that was on its way", 4 * number, fin=True)
    assert raw.code is None
    raw.say(OPEN, 400)
    for _ in range(17):
        raw.say(bytes(1 << 20), 400)
    raw.expect_end(Close.PROTOCOL)


def test_more_than_granted_on_a_users_stream() -> None:
    raw = Raw().prove()
    sink = FakeSink()
    raw.node.sinks["s"] = lambda: sink
    raw.say(OPEN + bytes(BULK_INITIAL), 0)
    assert raw.code is None and len(sink.data) == BULK_INITIAL
    raw.say(b"x", 0)
    raw.expect_end(Close.PROTOCOL)
    assert len(sink.errors) == 1


# -- values ---------------------------------------------------------------------------------------


def test_a_value_too_large_is_refused_and_no_offence() -> None:
    raw = Raw(DataConfig(max_value=1 << 20)).prove()
    raw.value(6, Frame.MESSAGE, message_body(1), (1 << 20) + 1, bytes(100))
    raw.value(10, Frame.REQUEST, request_body(1, 0) + name_field("echo"), 1 << 60, bytes(100))
    raw.value(14, Frame.RESPONSE, response_body(1, 0), 1 << 60)
    assert raw.conn.stops == {6: Close.TOO_LARGE, 10: Close.TOO_LARGE, 14: Close.CANCELLED}
    for stream in (6, 10, 14):
        raw.say(bytes(10_000), stream)
        raw.node.machine.stream_reset(raw.conn, stream, 0, raw.world.now)
    answers = [parse_response(body) for kind, body in raw.heard() if kind == Frame.RESPONSE]
    assert answers == [(1, Status.TOO_LARGE)]
    assert raw.code is None


def test_values_announced_and_never_sent() -> None:
    """They take no memory, are refused beyond a number, and are dropped after a time; the budget is whole again."""
    raw = Raw(DataConfig(bulk_memory=1 << 30, stall_timeout=5.0)).prove()
    tracemalloc.start()
    try:
        for number in range(1, VALUES_TAKEN + 20):
            raw.value(2 + 4 * number, Frame.REQUEST, request_body(number, 0) + name_field("echo"), 1 << 29)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert raw.node.machine.budget.used == 1 << 29
    statuses = [parse_response(body)[1] for kind, body in raw.heard() if kind == Frame.RESPONSE]
    assert statuses == [Status.BUSY] * 19
    for _ in range(16):
        raw.conn.last_received = raw.world.now
        raw.world.run(1.0)
    assert raw.node.counters["values.stalled"] == VALUES_TAKEN
    assert raw.node.machine.budget.used == 0 and not raw.node.machine.budget.wanted
    statuses = [parse_response(body)[1] for kind, body in raw.heard() if kind == Frame.RESPONSE]
    assert statuses == [Status.EXPIRED] * VALUES_TAKEN
    assert raw.code is None


@pytest.mark.parametrize("wanted", [False, True])
def test_a_slow_value_loses_its_memory_only_to_others(wanted: bool) -> None:
    raw = Raw(DataConfig(bulk_memory=1 << 20, stall_timeout=5.0)).prove()
    size = 1 << 20
    raw.value(6, Frame.MESSAGE, message_body(1), size, b"\x00" + (size - 5).to_bytes(4, "big"))
    other = Raw(name="n", node=raw.node).prove()
    if wanted:
        other.value(6, Frame.MESSAGE, message_body(1), size)
    for _ in range(15):
        raw.conn.last_received = other.conn.last_received = raw.world.now
        raw.say(bytes(100), 6)
        raw.world.run(1.0)
    assert raw.conn.stops == ({6: Close.STALLED} if wanted else {})
    assert raw.code is other.code is None
    assert [kind for kind, _ in other.heard()] == [Frame.GRANT] * wanted


def test_one_peer_does_not_hold_the_memory_of_all() -> None:
    """It sends much at a time, and just fast enough."""
    raw = Raw(DataConfig(bulk_memory=4 << 20)).prove()
    other = Raw(name="n", node=raw.node).prove()
    for stream in range(6, 46, 4):
        raw.value(stream, Frame.REQUEST, request_body(stream, 0) + name_field("echo"), 1 << 20)
    assert [kind for kind, _ in raw.heard()] == [Frame.GRANT] * 2
    other.value(6, Frame.MESSAGE, message_body(1), 1 << 20)
    assert [kind for kind, _ in other.heard()] == [Frame.GRANT]


def test_the_end_of_a_connection_frees_the_budget_for_others() -> None:
    raw = Raw(DataConfig(bulk_memory=1 << 20)).prove()
    other = Raw(name="n", node=raw.node).prove()
    for stream in (6, 10, 14):
        raw.value(stream, Frame.MESSAGE, message_body(stream), 1 << 20)
    other.value(6, Frame.MESSAGE, message_body(1), 1 << 20)
    assert [kind for kind, _ in other.heard()] == []
    raw.node.machine.closed(raw.conn, 0, "", True, "reset", raw.world.now)
    assert [kind for kind, _ in other.heard()] == [Frame.GRANT]
    assert raw.node.machine.budget.used == 1 << 20
    other.node.machine.stream_reset(other.conn, 6, 0, raw.world.now)
    assert raw.node.machine.budget.used == 0


def test_an_answer_that_breaks_off_ends_the_call() -> None:
    raw = Raw().prove()
    _, first = raw.node.request("m")
    _, second = raw.node.request("m")
    raw.heard()
    raw.value(6, Frame.RESPONSE, response_body(1, Status.OK), 1 << 20, b"\x00")
    raw.node.machine.stream_reset(raw.conn, 6, 0, raw.world.now)
    assert isinstance(first.error, PeerUnreachable) and first.error.indeterminate
    raw.value(10, Frame.RESPONSE, response_body(2, Status.OK), 1 << 40)
    assert second.ok and second.result[0] == Status.TOO_LARGE
    assert raw.code is None


def test_a_large_request_that_is_stopped_does_not_hang_for_ever() -> None:
    raw = Raw().prove()
    _, outcome = raw.node.request("m", bytes(1 << 20), timeout=5.0)
    _, message = raw.node.send("m", bytes(1 << 20))
    raw.heard()
    for stream in (7, 11):
        raw.node.machine.stream_stopped(raw.conn, stream, Close.FULL, raw.world.now)
    assert message.error is not None and not message.error.indeterminate
    skipped = [parse_sequence(body) for kind, body in raw.heard() if kind == Frame.SKIP]
    assert skipped == [1]
    raw.conn.last_received = raw.world.now
    raw.world.run(5.2)
    assert outcome.error is not None


def test_a_message_that_is_refused_after_all_of_it_was_acknowledged() -> None:
    raw = Raw().prove()
    _, outcome = raw.node.send("m", bytes(100_000))
    _, after = raw.node.send("m", "after")
    raw.heard()
    raw.heard()
    assert raw.conn.fins == {7}
    raw.node.machine.stream_stopped(raw.conn, 7, Close.FULL, raw.world.now)
    assert isinstance(outcome.error, PeerBusy) and not outcome.error.indeterminate
    assert [parse_sequence(body) for kind, body in raw.heard() if kind == Frame.SKIP] == [1]
    raw.frame(Frame.ACCEPTED, message_body(2))
    assert after.ok


def test_a_cancelled_large_call_leaves_its_stream() -> None:
    raw = Raw().prove()
    calls = [raw.node.request("m", bytes(1 << 20))[0] for _ in range(VALUES_MAX + 1)]
    raw.heard()
    for call in calls:
        raw.node.machine.peer("m").cancel(call, raw.world.now)
    assert len(raw.conn.resets) == VALUES_MAX
    link = raw.node.link("m")
    assert not link.bulk.busy and not link.calls
    assert [kind for kind, _ in raw.heard()] == [Frame.CANCEL] * (VALUES_MAX + 1)


def test_an_early_answer_ends_the_sending_of_its_request() -> None:
    raw = Raw().prove()
    _, outcome = raw.node.request("m", bytes(1 << 20))
    raw.heard()
    raw.frame(Frame.RESPONSE, response_body(1, Status.BUSY))
    assert outcome.result[0] == Status.BUSY
    assert raw.conn.resets == {7: Close.CANCELLED} and not raw.node.link("m").bulk.busy


def test_nobody_overtakes_who_waits_for_room() -> None:
    raw = Raw().prove()
    raw.node.inbox_limits, raw.node.reading = (1, 1 << 30), False
    other = Raw(name="n", node=raw.node).prove()
    for number in (1, 2, 3):
        raw.frame(Frame.MESSAGE, message_body(number) + packed(number))
    raw.node.inbox.popleft()  # there is room, and nobody has been told yet
    other.frame(Frame.MESSAGE, message_body(1) + packed("later"))
    for _ in range(4):
        raw.node.machine.room()
        raw.node.read()
    assert raw.node.messages == [("m", 2), ("n", "later"), ("m", 3)]


def test_messages_that_are_held_go_with_the_last_connection() -> None:
    raw = Raw().prove()
    for number in (2, 3):
        raw.frame(Frame.MESSAGE, message_body(number) + MESSAGE)
    assert raw.node.machine.peers["m"].holding
    raw.node.machine.closed(raw.conn, 0, "", True, "reset", raw.world.now)
    assert not raw.node.machine.peers["m"].holding
    again = Raw(node=raw.node)
    again.boot = raw.boot
    again.prove()
    for number in (1, 2, 3):
        again.frame(Frame.MESSAGE, message_body(number) + MESSAGE)
    raw.world.run(0.1)
    assert len(raw.node.messages) == 3


# -- noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(150))
def test_noise(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random frames on random streams, split anywhere: nothing raises, nothing stays."""
    rng = random.Random(seed)
    raw = Raw(seed=seed)
    errors: list[Exception] = []
    offence = Link._offence

    def spy(link: Link, reason: str, error: Exception, code: int, now: float) -> None:
        if reason == "internal":
            errors.append(error)
        offence(link, reason, error, code, now)

    monkeypatch.setattr(Link, "_offence", spy)
    if seed % 3:
        raw.prove()
    raw.node.sinks["s"] = FakeSink
    for _ in range(60):
        if raw.code is not None:
            break
        stream, data, fin = noise(rng)
        at = 0
        while raw.code is None and at <= len(data):
            size = rng.choice((1, 7, 1200, 1 << 17))
            raw.say(data[at : at + size], stream, fin and at + size >= len(data))
            at += size
        if rng.random() < 0.1:
            call = raw.node.machine.stream_reset if rng.random() < 0.5 else raw.node.machine.stream_stopped
            call(raw.conn, rng.randrange(0, 40), rng.randrange(20), raw.world.now)
        raw.node.machine.before_transmit(raw.conn, raw.world.now)
        raw.world.run(rng.choice((0.0, 0.1)))
    assert errors == []
    raw.node.machine.closed(raw.conn, 0, "", True, "reset", raw.world.now)
    assert raw.node.machine.links == {}
    assert raw.node.machine.budget.used == 0 and not raw.node.machine.budget.wanted


def noise(rng: random.Random) -> tuple[int, bytes, bool]:
    """Return a stream, bytes for it, and whether it ends."""
    body = rng.choice(
        (
            rng.randbytes(rng.randrange(30)),
            message_body(rng.randrange(1, 70)) + MESSAGE,
            request_body(rng.randrange(1, 9), 0) + name_field(rng.choice(("echo", "unknown"))) + MESSAGE,
            response_body(rng.randrange(9), rng.randrange(7)) + MESSAGE,
            grant_body(rng.randrange(20), rng.getrandbits(62)),
            id_body(rng.randrange(9)),
        )
    )
    kind = rng.choice((4, 4, 5, 6, 7, 7, 8, 9, 10, rng.randrange(256)))
    if rng.random() < 0.6:
        return LANE, frame(kind, body), False
    if rng.random() < 0.3:
        return 4 * rng.randrange(9), OPEN + rng.randbytes(rng.randrange(100)), rng.random() < 0.3
    size = rng.choice((6, 1000, 70_000, 300_000, 1 << 25, 1 << 50))
    body = body.removesuffix(MESSAGE)
    plausible = b"\x00" + (size - 5 & 0xFFFFFFFF).to_bytes(4, "big") + bytes(min(size, 1 << 18))
    data = rng.choice((b"", bytes(10), plausible))
    return 2 + 4 * rng.randrange(1, 9), stream_head(kind, body, size) + data, rng.random() < 0.3
