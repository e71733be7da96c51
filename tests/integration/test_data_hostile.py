"""A node under attack, by strangers and by holders of the key: it stays small, and goes on serving the others.

The node is a process of its own, so that its memory can be measured.
"""

from __future__ import annotations

import json
import random
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from mycorrizal import DataConfig
from mycorrizal._wire import frames
from mycorrizal._wire.frames import Close, Frame, Status
from mycorrizal._wire.values import encode_value
from mycorrizal.dataplane import DataPlane

from .conftest import until
from .planes import KEY, Script, Task, memory, spawn
from .raw_client import RawClient, first_datagram

_SERVER = """
    import json, logging
    logging.basicConfig(level=logging.ERROR)
    plane = DataPlane("server", key=KEY, config=DataConfig(**json.loads(hear())))
    plane.on_request("echo")(lambda request: request.value)
    plane.on_request("zeros")(lambda request: bytes(request.value))
    say(plane.port)
    while hear() == "metrics":
        say(json.dumps(plane.metrics()))
    plane.close()
    say("closed")
"""


class Victim:
    """The node under attack, with an honest member that uses it all the time."""

    def __init__(self, script: Script, settings: dict[str, Any]) -> None:
        self.script = script
        self.address = ("127.0.0.1", int(script.ask(json.dumps(settings))))
        config = DataConfig(silence_timeout=30)
        self.member = DataPlane("member", key=KEY, peers={"server": self.address}, config=config)
        self.waits: list[float] = []
        self._stop = threading.Event()
        assert self.member.request("server", "echo", "hello") == "hello"
        self.before = memory(script.process.pid)
        self._using = Task(self._use)

    def _use(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            assert self.member.request("server", "echo", 1, timeout=20) == 1
            self.waits.append(time.monotonic() - began)

    def metrics(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.script.ask("metrics"))
        return found

    def until(self, condition: Callable[[dict[str, int]], object], seconds: float = 10.0) -> dict[str, int]:
        """Wait until the node's metrics fulfil `condition`; return them."""
        end = time.monotonic() + seconds
        while not condition(found := self.metrics()):
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    @property
    def grown(self) -> float:
        """MiB that the process has grown by."""
        return (memory(self.script.process.pid) - self.before) / (1 << 20)

    def rate(self, seconds: float) -> float:
        """Return the member's requests per second over the next `seconds`."""
        before = len(self.waits)
        time.sleep(seconds)
        return (len(self.waits) - before) / seconds

    def raw(self, **options: Any) -> RawClient:
        return RawClient(self.address, "server", **options)

    def end(self) -> None:
        """See that it is well, and close it in order."""
        self._stop.set()
        self._using.result(30)
        assert self.member.peers()[0].connections == 1
        with DataPlane("newcomer", key=KEY, peers={"server": self.address}) as newcomer:
            assert newcomer.request("server", "echo", b"x" * 200_000) == b"x" * 200_000
        self.member.close()
        assert self.script.ask("close") == "closed"
        assert self.script.process.wait(10) == 0
        assert self.script.errors() == ""

    def give_up(self) -> None:
        """Stop what is still going on, after a failure."""
        self._stop.set()
        self.member.close()


@contextmanager
def attacked(**settings: Any) -> Iterator[Victim]:
    """Yield a node to attack; afterwards it has to be as well as before."""
    with spawn(_SERVER) as script:
        victim = Victim(script, settings)
        try:
            yield victim
            victim.end()
        finally:
            victim.give_up()


# -- strangers -------------------------------------------------------------------------------------


def garbage(seed: int) -> Iterator[bytes]:
    """Yield datagrams that are nothing, or almost something."""
    rng = random.Random(seed)
    real = [first_datagram() for _ in range(4)]
    while True:
        kind = rng.randrange(6)
        if kind == 0:
            yield rng.randbytes(rng.randrange(1500))
        elif kind == 1:  # a long header of any version and type
            yield bytes([rng.randrange(0xC0, 0x100)]) + rng.randbytes(rng.randrange(1300))
        elif kind == 2:  # a short header with an unknown id
            yield bytes([rng.randrange(0x40, 0x80)]) + rng.randbytes(rng.randrange(1300))
        elif kind == 3:  # a real Initial, damaged
            data = bytearray(rng.choice(real))
            for _ in range(rng.randrange(1, 30)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            yield bytes(data)
        elif kind == 4:  # a real Initial, cut off
            data = bytearray(rng.choice(real))
            yield bytes(data[: rng.randrange(len(data))])
        else:  # the same for the length fields of an Initial
            data = bytearray(rng.choice(real))
            data[rng.randrange(5, 30)] = rng.choice((0, 0x3F, 0x40, 0x7F, 0x80, 0xFF))
            yield bytes(data)


def test_a_flood_of_garbage_is_dropped() -> None:
    with attacked() as victim, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(victim.address)
        source = garbage(1)
        sent = 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for _ in range(50):
                sent += sock.send(next(source)) > 0
            time.sleep(0.002)
        assert sent > 3000
        assert victim.grown < 24
        before = len(victim.waits)
        until(lambda: len(victim.waits) > before + 20)
        found = victim.until(lambda metrics: metrics["connections"] == 1)
        assert found.get("quic.strays", 0) > 100
        assert found["peers"] == 1


def test_200_initials_a_second_do_not_keep_members_waiting() -> None:
    with attacked() as victim:
        stop, pause = threading.Event(), threading.Event()
        initials = [first_datagram() for _ in range(64)]

        def flood() -> int:
            """As from anywhere, with a source port of its own for each: nobody answers the Retry."""
            sent, at = 0, time.monotonic()
            rng = random.Random(2)
            while not stop.is_set():
                data = bytearray(rng.choice(initials))
                data[6:14] = rng.randbytes(8)  # another connection id: as cheap to make as can be, and nonsense inside
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(initials[sent % 64] if sent % 2 else data, victim.address)
                sent += 1
                time.sleep(max(0.0, at + sent / 200 - time.monotonic()))
                if pause.is_set():
                    began = time.monotonic()
                    while pause.is_set() and not stop.is_set():
                        time.sleep(0.005)
                    at += time.monotonic() - began
            return sent

        flooding = Task(flood)
        pairs = []
        for _ in range(3):  # in turns, since this machine may have other things to do
            pause.set()
            calm = victim.rate(0.4)
            pause.clear()
            pairs.append((calm, victim.rate(1.0)))
        with DataPlane("latecomer", key=KEY, peers={"server": victim.address}) as latecomer:
            began = time.monotonic()
            assert latecomer.request("server", "echo", 1, timeout=10) == 1  # it knocks, and passes ahead of them
            assert time.monotonic() - began < 2
        stop.set()
        assert flooding.result() > 400
        found = victim.metrics()
        assert found["quic.retried"] > 200, found
        # The member and the flood share two processors with the node: it may be slower, it must not starve.
        assert max(stormy / calm for calm, stormy in pairs) > 1 / 3, pairs
        assert max(victim.waits) < 1.0
        assert statistics.quantiles(victim.waits, n=100)[98] < 0.25
        assert victim.grown < 24


@pytest.mark.slow
def test_strangers_that_answer_the_retry_are_rationed() -> None:
    """They shake hands as fast as they can, prove nothing, and stay as long as they may."""
    with attacked() as victim:
        calm = victim.rate(1.0)
        stop = threading.Event()
        done = [0]

        def shake() -> None:
            while not stop.is_set():
                with victim.raw(key=None) as raw:
                    done[0] += raw.pump(lambda raw=raw: raw.complete or stop.is_set(), 0.5) and raw.complete

        strangers = [Task(shake) for _ in range(4)]
        stormy = victim.rate(2.0)
        stop.set()
        for stranger in strangers:
            stranger.result()
        found = victim.metrics()
        assert 0 < done[0] < 80, "some get through: a member whose clock is wrong looks like them"
        refused = [found.get(f"quic.refused_{why}", 0) for why in ("source", "rate", "strangers")]
        assert sum(refused) > 5, found
        assert stormy > calm / 10, (calm, stormy)
        assert max(victim.waits) < 1.0


@pytest.mark.slow
def test_strangers_that_stay_are_sent_away() -> None:
    with attacked(max_unproven=16, connect_timeout=10.0) as victim, ExitStack() as stack:
        raws = [stack.enter_context(victim.raw(key=None)) for _ in range(8)]
        for raw in raws:
            raw.handshake()
        assert victim.metrics()["connections"] == 9
        late = stack.enter_context(victim.raw(key=None))
        assert not late.pump(lambda: late.complete, 1.0), "half of the places are for members"
        with DataPlane("latecomer", key=KEY, peers={"server": victim.address}) as latecomer:
            assert latecomer.request("server", "echo", 1) == 1
        found = victim.until(lambda metrics: metrics.get("quic.unproven_timeouts", 0) >= 8)
        assert found["quic.refused_strangers"] >= 1
        assert [raw.ended() for raw in raws] == [Close.NOT_PROVED] * 8


# -- holders of the key -----------------------------------------------------------------------------


def deep(levels: int) -> bytes:
    """Return the packed form of lists in lists."""
    header = b"\x81" * levels + b"\x80"
    return b"\x00" + struct.pack(">I", len(header)) + header


def packed(header: bytes) -> bytes:
    """Return the packed form of any CBOR."""
    return b"\x00" + struct.pack(">I", len(header)) + header


BAD_VALUES = {
    "deep": deep(60_000),
    "a bit too deep": deep(200),
    "nothing": b"",
    "cut off": encode_value(list(range(100))).pack()[:-1],
    "more than it is": encode_value(1).pack() + b"x",
    "a list that claims 2**60 items": packed(b"\x9b" + (1 << 60).to_bytes(8, "big")),
    "a text that claims 2**60 bytes": packed(b"\x7b" + (1 << 60).to_bytes(8, "big")),
    "a header that claims 4 GiB": b"\x00\xff\xff\xff\xff\x80",
    "a buffer that is not there": b"\x01" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\1\xf6",
    "255 and 2**32 - 1 buffers": b"\xff\xff\xff\xff\xff",
    "endless": packed(b"\x9f\x01"),
    "a regular expression": packed(b"\xd8\x23\x63(a+"),
    "a bignum of 60,000 bytes": packed(b"\xc2\x59\xea\x60" + b"\xff" * 60_000),
    "a decimal of 10**9 digits": packed(b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01"),
    "a list as a key": packed(b"\xa1\x81\x01\x01"),
    "a key twice": packed(b"\xa2\x01\x01\x01\x02"),
    "not UTF-8": packed(b"\x62\xff\xfe"),
}  # fmt: skip


def test_values_that_no_encoder_makes_end_the_connection() -> None:
    with attacked() as victim:
        for number, (name, value) in enumerate(BAD_VALUES.items(), 1):
            with victim.raw(name=f"bad {number}") as raw:
                raw.join().say(raw.request(1, "echo", value))
                assert raw.ended() == Close.PROTOCOL, name
                assert victim.metrics()["offences.value"] == number, name
        with victim.raw(name="bad stream") as raw:  # the same beside the lane
            raw.join()
            value = deep(60_000)
            body = frames.request_body(1, 0) + frames.name_field("echo")
            raw.open(raw.value_head(Frame.REQUEST, body, len(value)) + value, fin=True)
            assert raw.ended() == Close.PROTOCOL
        assert victim.metrics()["offences"] == len(BAD_VALUES) + 1
        assert victim.grown < 32
        assert max(victim.waits) < 1.0


BAD_FRAMES = {
    "unknown kind": frames.frame(99, b"x"),
    "no length": b"\0\0\0\0\0",
    "4 GiB": b"\xff\xff\xff\xff\x04",
    "just too long": struct.pack(">IB", frames.FRAME_MAX + 1, Frame.MESSAGE),
    "a challenge": frames.frame(Frame.CHALLENGE, bytes(10)),
    "a second proof": frames.frame(Frame.PROOF, bytes(100)),
    "a welcome": frames.frame(Frame.WELCOME, bytes(100)),
    "a message without a number": frames.frame(Frame.MESSAGE, b"\0" * 7),
    "a message out of the window": frames.frame(Frame.MESSAGE, struct.pack(">Q", 1 << 40) + packed(b"\x01")),
    "a skip out of the window": frames.frame(Frame.SKIP, struct.pack(">Q", (1 << 64) - 1)),
    "what was never sent is accepted": frames.frame(Frame.ACCEPTED, struct.pack(">Q", 5)),
    "a request cut off": frames.frame(Frame.REQUEST, b"\0" * 8),
    "a request whose name is cut off": frames.frame(Frame.REQUEST, b"\0" * 8 + b"\xffname"),
    "a request whose name is no text": frames.frame(Frame.REQUEST, b"\0" * 8 + b"\x02\xff\xfe" + packed(b"\x01")),
    "a response cut off": frames.frame(Frame.RESPONSE, b"\0"),
    "a response of status 77": frames.frame(Frame.RESPONSE, b"\0\0\0\1\x4d"),
    "a cancel of no size": frames.frame(Frame.CANCEL, b""),
    "a grant cut off": frames.frame(Frame.GRANT, b"\0" * 15),
    "an open on the lane": frames.frame(Frame.OPEN, b"\4name"),
    "one id twice": 2 * frames.frame(Frame.REQUEST, b"\0\0\0\1\0\0\0\0\4echo" + packed(b"\1")),
}


def test_frames_that_no_node_sends_end_the_connection() -> None:
    with attacked(handlers=1) as victim:
        for number, (name, data) in enumerate(BAD_FRAMES.items(), 1):
            with victim.raw(name=f"bad {number}") as raw:
                raw.join().say(data)
                if name == "one id twice":  # in one packet: the first is still being handled, or is answered already
                    assert raw.pump(lambda raw=raw: raw.end or len(raw.frames) == 2)
                else:
                    assert raw.ended() == Close.PROTOCOL, name
        offences = victim.metrics()["offences.protocol"]
        assert len(BAD_FRAMES) - 1 <= offences <= len(BAD_FRAMES)
        for data, what in (
            (b"\0\0", "an empty head"), (b"\xff\xff\4", "a head too long"), (b"\0\1\x63", "an unknown kind"),
            (b"\0\1\4", "a value without a size"), (b"\0\x05\x06" + bytes(4), "a kind that is not for streams"),
        ):  # fmt: skip
            with victim.raw(name=what) as raw:
                raw.join().open(data + bytes(600), fin=True)
                assert raw.ended() == Close.PROTOCOL, what
        for uni in (True, False):
            with victim.raw(name="cut off") as raw:
                raw.join().open(b"\0", fin=True, uni=uni)
                assert raw.ended() == Close.PROTOCOL
        with victim.raw(name="no lane") as raw:
            raw.join().say(b"", fin=True)
            assert raw.ended() == Close.PROTOCOL
        with victim.raw(name="lane reset") as raw:
            raw.join().quic.reset_stream(2, 7)
            assert raw.ended() == Close.PROTOCOL
        rng = random.Random(3)
        for _ in range(30):
            with victim.raw(name="noise") as raw:
                raw.join().say(rng.randbytes(rng.randrange(5, 200)) + b"\0" * 4)
                assert raw.ended(5) == Close.PROTOCOL
        assert victim.grown < 32


def send_all(raw: RawClient, data: bytes, seconds: float = 20.0) -> None:
    """Write much, a piece at a time, until it is acknowledged or the connection ends."""
    view = memoryview(data)
    sender = raw.quic._streams[2].sender
    at = 0

    def feed() -> bool:
        nonlocal at
        while at < len(view) and len(sender._buffer) < 1 << 18:
            raw.quic.send_stream_data(2, bytes(view[at : at + (1 << 16)]))
            at += 1 << 16
        return at >= len(view) and not len(sender._buffer)

    raw.pump(feed, seconds)


TINY = {
    "cancels": frames.frame(Frame.CANCEL, b"\0\0\0\7"),
    "grants": frames.frame(Frame.GRANT, bytes(16)),
    "numbers that are skipped already": frames.frame(Frame.SKIP, struct.pack(">Q", 1)),
    "answers to nothing": frames.frame(Frame.RESPONSE, b"\0\0\0\7\0"),
}


@pytest.mark.parametrize("what", TINY)
def test_a_quarter_of_a_million_tiny_frames_starve_nobody(what: str) -> None:
    with attacked() as victim:
        with victim.raw(name="chatterbox") as raw:
            raw.join()
            send_all(raw, TINY[what] * 250_000)
            assert raw.ended() == Close.FLOOD
        assert victim.metrics()["offences.flood"] == 1
        assert victim.grown < 32
        assert max(victim.waits) < 1.5


def test_a_peer_that_asks_much_and_reads_nothing_gets_no_further() -> None:
    """Answers that nobody fetches must not pile up without end."""
    with attacked(handler_queue=1000) as victim:
        with victim.raw(name="mute", window=4096) as raw:
            raw.join()
            # It never says that it has read anything.
            raw.quic._write_connection_limits = lambda builder, space: None  # type: ignore[method-assign]
            raw.quic._write_stream_limits = lambda builder, space, stream: None  # type: ignore[method-assign]
            value = encode_value(60_000).pack()
            for wave in range(8):
                numbers = range(100 * wave + 1, 100 * wave + 101)
                send_all(raw, b"".join(raw.request(number, "zeros", value) for number in numbers))
                victim.until(lambda metrics: metrics["handlers.queued"] == 0 and metrics["handlers.busy"] <= 1)
            assert victim.metrics()["requests.busy"] > 300
            assert victim.grown < 40, "48 MB were asked for"
        assert max(victim.waits) < 1.5


def test_values_announced_as_1_gib_cost_nothing_until_they_come() -> None:
    with attacked(stall_timeout=0.5) as victim, ExitStack() as stack:
        body = frames.request_body
        raws = []
        for number in range(4):
            raws.append(stack.enter_context(victim.raw(name=f"promiser {number}")).join())
            for call in range(1, 31):
                head = raws[-1].value_head(Frame.REQUEST, body(call, 0) + frames.name_field("echo"), 1 << 30)
                preamble = b"\x01" + ((1 << 30) - 15).to_bytes(8, "big") + b"\0\0\0\2"
                raws[-1].open(head + preamble + bytes(1000))
            raws[-1].pump(seconds=0.2)
        assert victim.metrics()["bulk.bytes"] >= 1 << 30
        raw = stack.enter_context(victim.raw(name="too much")).join()
        raw.open(raw.value_head(Frame.REQUEST, body(1, 0) + frames.name_field("echo"), 1 << 50))
        assert raw.pump(lambda: raw.frames)
        assert raw.frames[0][1][4] == Status.TOO_LARGE
        assert victim.grown < 48
        began = time.monotonic()
        large = bytes(3 << 20)
        assert victim.member.request("server", "echo", large, timeout=60) == large
        waited = time.monotonic() - began
        for raw in raws:
            raw.pump(seconds=0.2)
        found = victim.until(lambda metrics: metrics["bulk.bytes"] == 0, 60)
        assert found["values.stalled"] >= 30
        assert victim.grown < 64
        assert waited < 10, "they keep the memory for large values no longer than they may stall"


def test_one_holder_of_the_key_under_many_names_does_not_get_all_memory_for_large_values() -> None:
    """Each name takes what it can get, and nothing of it ever comes; others have another address."""
    limit = 64 << 20
    with attacked(bulk_memory=limit, stall_timeout=120.0) as victim, ExitStack() as stack:
        room, number = limit, 0
        while number < 2 or room // 4 > 300_000:
            size = limit * 7 // 16 if number < 2 else room // 4
            raw = stack.enter_context(victim.raw(name=f"name {number}", source="127.0.0.2")).join()
            body = frames.request_body(1, 0) + frames.name_field("echo")
            preamble = b"\x01" + (size - 15).to_bytes(8, "big") + b"\0\0\0\2"
            raw.open(raw.value_head(Frame.REQUEST, body, size) + preamble + bytes(1000))
            raw.pump(seconds=0.1)
            room, number = room - size, number + 1
        assert victim.metrics()["bulk.bytes"] > limit * 7 // 8
        large = bytes(900_000)
        assert victim.member.request("server", "echo", large, timeout=60) == large
        assert victim.metrics()["bulk.bytes"] > limit * 7 // 8, "they hold it still"
        assert victim.grown < 64


def test_slow_loris_on_heads_and_frames() -> None:
    """A byte of everything, and then nothing."""
    with attacked(stall_timeout=0.5) as victim:
        with victim.raw(name="loris") as raw:
            raw.join()
            raw.say(b"\0\0\1")  # half a frame
            for _ in range(100):
                raw.open(b"\0")  # half a head
            raw.pump(seconds=0.5)
            assert victim.grown < 24
            assert raw.ended(8) is not None, "who stalls is sent away"
        with victim.raw(name="hoarder") as raw:
            raw.join()
            for _ in range(300):
                raw.open(b"\0")
            assert raw.ended(8) is not None


def test_streams_that_nobody_takes_are_refused_one_by_one() -> None:
    with attacked() as victim:
        with victim.raw(name="opener") as raw:
            raw.join()
            head = frames.stream_head(Frame.OPEN, frames.name_field("none"))
            streams = [raw.open(head, uni=False) for _ in range(100)]
            refused = (Close.UNKNOWN, Close.NOT_YET)
            assert raw.pump(lambda: all(raw.stopped.get(stream) in refused for stream in streams))
            assert raw.end is None
            assert victim.metrics()["streams.refused"] == 100
        assert victim.grown < 24


def test_more_messages_than_the_window_allows_end_the_connection() -> None:
    with attacked(inbox_messages=4, window_messages=8) as victim:
        with victim.raw(name="pushy") as raw:
            raw.join().say(b"".join(raw.message(n, packed(b"\x01")) for n in range(1, 14)))
            assert raw.ended() == Close.PROTOCOL
        with victim.raw(name="heavy") as raw:
            raw.join().say(b"".join(raw.message(n, packed(b"\x59\xff\x00" + bytes(0xFF00))) for n in (2, 3, 4, 5, 6)))
            raw.say(b"".join(raw.message(n, packed(b"\x59\xff\x00" + bytes(0xFF00))) for n in (7, 8)) * 8)
            raw.pump(seconds=0.3)
        assert victim.metrics()["offences.protocol"] >= 1
        assert victim.metrics()["inbox.messages"] == 4


def test_more_requests_than_allowed_are_not_begun() -> None:
    with attacked(requests_per_peer=10, handlers=1, handler_queue=1000) as victim:
        with victim.raw(name="pushy") as raw:
            raw.join().say(b"".join(raw.request(number, "echo", packed(b"\x01")) for number in range(1, 2001)))
            assert raw.pump(lambda: len(raw.frames) == 2000)
            statuses = [body[4] for _, body in raw.frames]
            assert set(statuses) == {Status.OK, Status.BUSY}
            assert {int.from_bytes(body[:4], "big") for _, body in raw.frames} == set(range(1, 2001))
        assert victim.metrics()["requests.busy"] == statuses.count(Status.BUSY) > 100
