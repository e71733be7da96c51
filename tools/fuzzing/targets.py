"""What tools/fuzz throws at what: corpus, mutation, and one target per decoder.

A *case* is made by ``random.Random(f"{seed}/{target}/{block}")``, so a block of
cases can be run again alone. A target takes bytes and returns the name of the
documented error it met, or ``"ok"``; any other exception is a finding.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import json
import logging
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import cache as fuzz_cache
from fuzzing import control as fuzz_control
from fuzzing import data as fuzz_data
from fuzzing import replica as fuzz_replica
from fuzzing import values as fuzz_values
from mycorrizal import Config, RemoteProtocolError
from mycorrizal._swim.machine import Swim
from mycorrizal._wire import lzw
from mycorrizal._wire import messages as m
from mycorrizal._wire.codec import body_codec, decode_message, encode_message
from mycorrizal._wire.packet import PacketCodec
from mycorrizal._wire.pieces import Hello, Piece, PieceReader, code_piece, parse_close, parse_code, piece_head
from mycorrizal._wire.security import Keyring, encrypt_payload
from mycorrizal._wire.stream import StreamCodec
from mycorrizal._wire.value_reader import ValueReader
from mycorrizal._wire.values import decode_packed, decode_parts, encode_value

VECTORS = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "memberlist.json"
KEY = bytes(range(16))
LABEL = "fuzz"
LARGEST = 4096
"""Bytes of the longest corpus entry that is kept: speed, and a datagram holds no more than 64 kB."""
MIB = 1 << 20
LZW_LIMIT = MIB

BODIES: tuple[type[Any], ...] = (
    *(m.Ping, m.IndirectPing, m.AckResp, m.NackResp, m.Err, m.Suspect, m.Dead, m.Alive),
    *(m.Compress, m.PushPullHeader, m.PushNodeState, m.UserMsgHeader),
)
Target = Callable[[bytes], str]
MakeTarget = Callable[[random.Random], Target]

# -- corpus ------------------------------------------------------------------------------


def load_corpus() -> list[bytes]:
    """Return every byte string of the vectors, short enough, once each, in file order."""
    found: dict[bytes, None] = {}

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, str) and name.endswith("hex") and len(inner) <= 2 * LARGEST:
                    found[bytes.fromhex(inner)] = None
                elif isinstance(inner, list) and name.endswith("_hex"):
                    found.update(dict.fromkeys(bytes.fromhex(part) for part in inner if len(part) <= 2 * LARGEST))
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for case in json.loads(VECTORS.read_text())["cases"]:
        walk([case["input"], case["output"]])
    return [data for data in found if data]


def widen(corpus: list[bytes]) -> list[bytes]:
    """Return `corpus`, what of it is a msgpack message or body in CBOR too, and some of it compressed."""
    msgpack, cbor = body_codec("msgpack"), body_codec("cbor")
    more: dict[bytes, None] = dict.fromkeys(corpus)
    for data in corpus:
        try:
            more[encode_message(cbor, decode_message(msgpack, data))] = None
        except RemoteProtocolError:
            pass
        for cls in BODIES:
            try:
                more[cbor.encode(msgpack.decode(cls, data)[0])] = None
            except RemoteProtocolError:
                continue
    more.update(dict.fromkeys(lzw.compress(data) for data in corpus[::4]))
    more.update(dict.fromkeys(_streams_in_cbor(corpus)))
    more.update(dict.fromkeys(_bombs()))
    more.update(dict.fromkeys(_values()))
    more.update(dict.fromkeys(fuzz_data.samples()))
    more.update(dict.fromkeys(fuzz_replica.corpus()))
    more.update(dict.fromkeys(fuzz_cache.corpus()))
    more.update(dict.fromkeys(fuzz_control.samples()))
    return list(more)


def _values() -> Iterator[bytes]:
    """Yield values of an application, of every kind."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001  a naive one is a kind of its own
    plain: list[Any] = [None, True, -1, 1 << 70, 1.5, "text", b"bytes", bytes(4096), {1, 2}]
    plain += [moment, moment.replace(tzinfo=datetime.UTC), moment.date()]
    plain += [decimal.Decimal("1.50"), decimal.Decimal("-0"), uuid.UUID(int=7)]
    plain += [{"a": [1, {"b": b"c"}], 2: "d", b"e": None}, [[[]]], [bytes(1500), bytes(4500)]]
    for dtype in ("|u1", "<i2", ">f8", "|b1", "<c8", "<M8[s]", "|S3", "<U2"):
        for shape in ((3,), (2, 3), (1200,)):
            plain.append(np.zeros(shape, dtype))
    plain += [np.float32(1), np.array(5), np.asfortranarray(np.ones((2, 3))), np.asfortranarray(np.ones((20, 10)))]
    for value in (*plain, plain[:8], {"all": plain}, dict(enumerate(plain))):
        packed = encode_value(value).pack()
        if len(packed) < 5 * LARGEST:
            yield packed


def _bombs() -> Iterator[bytes]:
    """Yield small inputs that want to become large: one compressed message, one in another, many in a compound."""
    codes = lzw.compress(bytes(2 * MIB))
    yield codes
    for name in ("cbor", "msgpack"):
        once = b"\x09" + body_codec(name).encode(m.Compress(0, codes))
        yield once
        yield b"\x09" + body_codec(name).encode(m.Compress(0, lzw.compress(once)))
        yield b"\x07\x0f" + 15 * len(once).to_bytes(2, "big") + 15 * once


def _streams_in_cbor(corpus: list[bytes]) -> Iterator[bytes]:
    plain = Config.local(name="fuzzed", wire="msgpack", enable_compression=False)
    reading = StreamCodec(plain, Keyring(), lambda: bytes(12))
    for compressed in (False, True):
        config = plain.replace(wire="cbor", enable_compression=compressed)
        writing = StreamCodec(config, Keyring(), lambda: bytes(12))
        for data in corpus:
            try:
                message = reading.reader(answer=True).feed(data)
            except RemoteProtocolError:
                continue
            if message is not None:
                yield writing.seal(message, answer=True)


@functools.cache
def everything() -> list[bytes]:
    """Return the corpus of all targets."""
    return widen(load_corpus())


def _pieces_made() -> Iterator[bytes]:
    hello = Hello(bytes(32), bytes(8), bytes(32), "127.0.0.1", 7946).pack()
    for body in (b"", b"x", bytes(3000)):
        data = piece_head(Piece.DATA, 2, len(body)) + body + piece_head(Piece.LAST, 2, len(body)) + body
        yield hello + data + code_piece(Piece.RESET, 2, 7) + code_piece(Piece.CLOSE, 0, 9, "the end")
        yield data + piece_head(Piece.PING, 0, 0) + hello


_OWN: dict[str, Callable[[], Iterator[bytes]]] = {
    **{"replica": fuzz_replica.corpus, "cache": fuzz_cache.corpus, "pieces": _pieces_made},
    **{"value-round-trip": fuzz_values.corpus, "value-equality": fuzz_values.corpus},
}
"""Targets whose inputs nobody else takes."""


@functools.cache
def accepted(target: str) -> list[bytes]:
    """Return the part of the corpus that a target accepts: what is nearly right goes deepest."""
    if target in _OWN:
        return list(_OWN[target]())
    like = target.replace("swim", "packet")
    rng = random.Random(0)
    run = TARGETS[like][0](rng)
    return [data for data in everything() if any(_accepts(run, data) for _ in range(5))]


def _accepts(run: Target, data: bytes) -> bool:
    try:
        return run(data) == "ok"
    except RemoteProtocolError:
        return False


# -- mutation ----------------------------------------------------------------------------

INTERESTING = bytes.fromhex("00 01 07 08 09 0a 0c 0d 7f 80 81 8f 90 9f a0 a1 b8 bf c0 c4 d8 d9 dc dd de df f4 fb ff")


def mutate(rng: random.Random, target: str) -> bytes:
    """Return one input: mostly something the target accepts with a few changes, sometimes noise."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(64))
    corpus = accepted(target) if rng.random() < 0.75 else everything()
    data = bytearray(rng.choice(corpus))
    for _ in range(int(rng.expovariate(0.5))):
        MUTATIONS[rng.randrange(len(MUTATIONS))](rng, data, corpus)
    return bytes(data[:65507])


def _flip(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(INTERESTING)


def _number(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    """Put a length, count or offset of a surprising size somewhere."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1))
    at = rng.randrange(len(data) + 1)
    data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def _cut(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _drop(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.randrange(1, 9)]


def _repeat(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.randrange(1, 33)] * rng.choice((1, 2, 3, 50))


def _insert(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randrange(1, 5))


def _splice(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    other = rng.choice(corpus)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]


def _nest(rng: random.Random, data: bytearray, corpus: list[bytes]) -> None:
    """Put what is there into one more compress or compound message."""
    if rng.random() < 0.5:
        codec = body_codec(rng.choice(("cbor", "msgpack")))
        data[:] = b"\x09" + codec.encode(m.Compress(0, lzw.compress(bytes(data[:LARGEST]))))
    else:
        part = bytes(data[:65535])
        data[:] = b"\x07\x02" + 2 * len(part).to_bytes(2, "big") + part + part


MUTATIONS = (_flip, _flip, _set, _set, _number, _cut, _drop, _repeat, _insert, _splice, _nest)

# -- targets -----------------------------------------------------------------------------


class Sink(logging.Handler):
    """Formats what is logged, as a real handler would, and keeps nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()


def catch_logs() -> None:
    """Have every record formatted and none printed: a line that cannot be formatted is a finding."""
    logger = logging.getLogger("mycorrizal")
    logger.addHandler(Sink())
    logger.propagate = False



def _config(wire: Any, *, secure: bool = False, **more: Any) -> Config:
    return Config.local(
        name="fuzzed", wire=wire, label=LABEL if secure else "", secret_key=KEY if secure else None, **more
    )


def _keyring(config: Config) -> Keyring:
    return Keyring.of(config)


def _bodies(wire: str) -> MakeTarget:
    def make(rng: random.Random) -> Target:
        codec = body_codec(wire)

        def run(data: bytes) -> str:
            if rng.random() < 0.5:
                decode_message(codec, data)
            else:
                _, end = codec.decode(rng.choice(BODIES), data, 0)
                assert 0 < end <= len(data)
            return "ok"

        return run

    return make


def _lzw(rng: random.Random) -> Target:
    def run(data: bytes) -> str:
        assert len(lzw.decompress(data, LZW_LIMIT)) <= LZW_LIMIT
        return "ok"

    return run


def _packets(wire: str, *, secure: bool) -> MakeTarget:
    def make(rng: random.Random) -> Target:
        config = _config(wire, secure=secure)
        codec = PacketCodec(config, _keyring(config), lambda: rng.randbytes(12))
        label = LABEL.encode()

        def run(data: bytes) -> str:
            # Mutated bytes never pass authentication; most are sealed after mutation, so that what is inside is met.
            if secure and rng.random() < 0.8:
                sealed = encrypt_payload(rng.choice((0, 1)), KEY, data, label, rng.randbytes(12))
                data = b"\xf4" + bytes([len(label)]) + label + sealed
            opened = codec.open(data)
            return type(opened.rejected[0]).__name__ if opened.rejected else "ok"

        return run

    return make


def _streams(wire: str, *, secure: bool) -> MakeTarget:
    def make(rng: random.Random) -> Target:
        config = _config(wire, secure=secure)
        codec = StreamCodec(config, _keyring(config), lambda: rng.randbytes(12))
        label = LABEL.encode()

        def run(data: bytes) -> str:
            answer = rng.random() < 0.5
            if secure and rng.random() < 0.8:
                size = 1 + 12 + len(data) + 16
                head = b"\x0a" + size.to_bytes(4, "big")
                frame = head + encrypt_payload(1, KEY, data, head + label, rng.randbytes(12))
                data = frame if answer else b"\xf4" + bytes([len(label)]) + label + frame
            reader = codec.reader(answer=answer)
            at = 0
            while at < len(data):
                size = rng.choice((1, 2, 5, 64, 1500, len(data)))
                if reader.feed(data[at : at + size]) is not None:
                    return "ok"
                at += size
            reader.feed_eof()
            return "cut quietly"

        return run

    return make


def _swim(wire: str) -> MakeTarget:
    """The machine: datagrams and accepted streams of mutated bytes, and well-formed nonsense."""

    def make(rng: random.Random) -> Target:
        config = _config(wire, max_nodes=64)
        keyring = _keyring(config)
        packets = PacketCodec(config, keyring, lambda: rng.randbytes(12))
        streams = StreamCodec(config, keyring, lambda: rng.randbytes(12))
        swim = Swim(config, addr=b"\x7f\x00\x00\x01", port=7946, codec=packets, rng=random.Random(rng.random()))
        now = 1000.0
        swim.start(now)
        count = 0

        def run(data: bytes) -> str:
            nonlocal now, count
            now += rng.choice((0.0, 0.001, 0.1, 0.7))
            count += 1
            peer = (f"10.0.0.{rng.randrange(1, 9)}", 7946)
            outcome = "datagram"
            kind = rng.random()
            if kind < 0.4:
                swim.receive_datagram(data, peer, now)
            elif kind < 0.8:
                sealed = packets.seal([encode_message(packets.body, nonsense(rng))], crc=rng.random() < 0.5)
                swim.receive_datagram(sealed[0], peer, now)
            else:
                message = _read_or_invent(rng, streams, data)
                outcome = "exchange" if swim.answer_exchange(message, peer, now) is None else "exchange, answered"
            _drain(swim, rng, now)
            if count % 64 == 0:
                _check_machine(swim)
            return outcome

        return run

    return make


def _read_or_invent(rng: random.Random, streams: StreamCodec, data: bytes) -> m.Message:
    try:
        message = streams.reader(answer=False).feed(data)
    except RemoteProtocolError:
        message = None
    if message is not None:
        return message
    if rng.random() < 0.2:
        return nonsense(rng)
    states = tuple(_fill(rng, m.PushNodeState) for _ in range(rng.randrange(6)))
    return m.PushPull(states, rng.randbytes(rng.randrange(20)), rng.random() < 0.5)


def _drain(swim: Swim, rng: random.Random, now: float) -> None:
    timer = swim.get_timer()
    if timer is not None and timer <= now:
        swim.handle_timer(now)
    swim.datagrams_to_send()
    for request in swim.exchanges_to_start():
        if rng.random() < 0.5:
            swim.exchange_failed(request.exchange_id, ConnectionRefusedError("fuzz"), now)
        else:
            swim.exchange_answered(request.exchange_id, nonsense(rng) if request.expects_reply else None, now)
    while swim.next_event() is not None:
        pass


def _check_machine(swim: Swim) -> None:
    nodes = swim.nodes()
    assert len(nodes) <= 64, f"{len(nodes)} nodes in a table of 64"
    assert swim.local_node.state == 0, "a running node believes that it is not alive"
    assert any(node.name == "fuzzed" for node in nodes), "the node has lost itself"
    assert len({node.name for node in nodes}) == len(nodes), "a name stands twice"


def _pieces(rng: random.Random) -> Target:
    """Feed a reader of a host's socket at random cuts: what it yields is what a whole reading does."""

    def joined(parts: list[bytes]) -> list[tuple[int, int, bytes]]:
        reader, found = PieceReader(), list[tuple[int, int, bytes]]()
        for part in filter(None, parts):  # a socket's end is no data
            for kind, stream, body in reader.feed(part):
                begun = found and found[-1][:2] == (Piece.DATA, stream) and kind in (Piece.DATA, Piece.LAST)
                found.append((kind, stream, found.pop()[2] + body if begun else body))
                _parse_piece(kind, body)
        return found

    def run(data: bytes) -> str:
        cut = rng.randrange(len(data) + 1)
        found = joined([data])
        assert joined([data[:cut], data[cut:]]) == found, "cuts make no difference"
        return "ok" if found else "nothing"

    return run


def _parse_piece(kind: int, body: bytes) -> None:
    if kind == Piece.HELLO:
        Hello.parse(body)
    elif kind in (Piece.RESET, Piece.STOP):
        parse_code(body)
    elif kind == Piece.CLOSE:
        parse_close(body)


def _value(rng: random.Random) -> Target:
    """Whole wire forms, and headers alone, which get deeper than wire forms whose lengths a change has broken."""

    def run(data: bytes) -> str:
        kind = rng.random()
        if kind < 0.3:
            decode_packed(data if kind < 0.2 else memoryview(data))
            return "ok"
        buffers: list[Any] = [bytes(rng.randrange(2000)) if rng.random() < 0.5 else bytearray(2400) for _ in range(2)]
        decode_parts(data[5:], buffers[: rng.randrange(3)])
        return "header"

    return run


def _value_reader(rng: random.Random) -> Target:
    """The same bytes in pieces: what the reader gives is what the whole gives, or both are refused."""

    def read(data: bytes, announced: int) -> bytes | None:
        reader = ValueReader(announced)
        at = 0
        while at < len(data):
            size = rng.choice((1, 2, 5, 64, 1500, len(data)))
            reader.feed(data[at : at + size])
            at += size
            assert reader.received == min(at, len(data)) <= announced
        assert reader.done == (reader.received == announced)
        if not reader.done:
            return None
        header, buffers = reader.parts()
        return header + b"".join(bytes(buffer) for buffer in buffers)

    def run(data: bytes) -> str:
        parts = read(data, len(data) if rng.random() < 0.8 else rng.randrange(MIB))
        assert parts is None or data.endswith(parts)
        return "cut quietly" if parts is None else "ok"

    return run


NAMES = ("fuzzed", "a", "b", "c", "d", "", "x" * 128, "\udcff\udc80", "a/b", "\x00")
SIZES: dict[m.Kind, tuple[Any, ...]] = {
    m.Kind.U8: (0, 1, 255),
    m.Kind.U16: (0, 1, 7946, 65535),
    m.Kind.U32: (0, 1, 2, 3, 1000, (1 << 31) - 1, (1 << 32) - 2, (1 << 32) - 1),
    m.Kind.INT: (-1, 0, 1, 2, 3, 4, 255, 1 << 40, -(1 << 63), (1 << 63) - 1),
    m.Kind.BOOL: (False, True),
    m.Kind.TEXT: NAMES,
    m.Kind.BYTES: (
        *(None, b"", b"\x7f\0\0\x01", b"\x0a\0\0\x01", b"\x0a\0\0\x02"),
        *(bytes(10) + b"\xff\xff\x0a\0\0\x03", bytes(16)),
        *(b"\x01", b"\x01\x05\x02", b"\x01\x05\x02\0\0", b"\x01\x05\x02\0\0\0"),
        *(b"\x05\x01\x09\x09\x01\xff", bytes(513)),
    ),
}


def nonsense(rng: random.Random) -> m.Message:
    """Return a well-formed message with values from the edges."""
    kinds: tuple[type[Any], ...] = (m.Ping, m.IndirectPing, m.AckResp, m.NackResp, m.Suspect, m.Dead, m.Alive, m.User)
    cls = rng.choice(kinds)
    return m.User(rng.randbytes(rng.randrange(30))) if cls is m.User else _fill(rng, cls)


def _fill(rng: random.Random, cls: type[Any]) -> Any:
    kinds = {field.attr: field.kind for field in cls.FIELDS}
    return cls(**{field.name: rng.choice(SIZES[kinds[field.name]]) for field in fields(cls)})


TARGETS: dict[str, tuple[MakeTarget, int]] = {
    # name: (how to make it, most bytes one input may allocate at once)
    "msgpack": (_bodies("msgpack"), 2 * MIB),
    "cbor": (_bodies("cbor"), 2 * MIB),
    "lzw": (_lzw, 2 * LZW_LIMIT + 8 * MIB),
    "packet-msgpack": (_packets("msgpack", secure=False), 16 * MIB),
    "packet-cbor": (_packets("cbor", secure=False), 16 * MIB),
    "packet-secure": (_packets("msgpack", secure=True), 16 * MIB),
    "packet-secure-cbor": (_packets("cbor", secure=True), 16 * MIB),
    "stream-msgpack": (_streams("msgpack", secure=False), 96 * MIB),
    "stream-cbor": (_streams("cbor", secure=False), 96 * MIB),
    "stream-secure": (_streams("msgpack", secure=True), 96 * MIB),
    "value": (_value, 8 * MIB),
    "value-reader": (_value_reader, 4 * MIB),
    "value-round-trip": (fuzz_values.round_trip, 16 * MIB),
    "value-equality": (fuzz_values.equality, 16 * MIB),
    "pieces": (_pieces, 4 * MIB),
    "link": (fuzz_data.link, 16 * MIB),
    "replica": (fuzz_replica.target, 4 * MIB),
    "cache": (fuzz_cache.target, 4 * MIB),
    "control": (fuzz_control.control, 4 * MIB),
    "zmtp": (fuzz_control.zmtp, 4 * MIB),
    "swim-msgpack": (_swim("msgpack"), 16 * MIB),
    "swim-cbor": (_swim("cbor"), 16 * MIB),
}
