"""What tools/fuzz throws at the control plane: requests, the protocol below them, and the other side's decoders.

Whatever the bytes, they are read or refused; what is read in pieces is what is read whole; bounds hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from mycorrizal import ControlError, RemoteProtocolError
from mycorrizal._control import messages
from mycorrizal._control.commands import COMMANDS, checked
from mycorrizal._control.zmtp import Zmtp, message

__all__ = ["control", "samples", "zmtp"]

Target = Callable[[bytes], str]

LARGEST = 2000
PARTS = 4
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
VALUES = {
    **{"text": "bob", "texts": ["10.0.0.5"], "tags": {"role": "web"}, "boolean": True, "count": 3, "port": 80},
    **{"size": 4096, "seconds": 1.5, "key": bytes(16), "value": [1, {"a": None}], "cache_key": "k", "ttl": 60},
}


def samples() -> Iterator[bytes]:
    """Yield a request of each command, replies, events, and whole conversations."""
    requests = []
    for number, command in enumerate(COMMANDS.values()):
        arguments = {one.name: VALUES[one.kind] for one in command.parameters}
        requests.append(messages.encode_request(number, command.name, arguments))
    yield from requests
    yield messages.encode_reply("id", [{"name": "bob", "tags": {}}])
    yield messages.encode_failure(b"id", "timeout", ControlError("timeout", "late", indeterminate=True))
    yield messages.encode_event("event.user.x", (3, 2), "0a", {"value": 1})
    for kind in (b"DEALER", b"REQ", b"SUB"):
        body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
        hello = GREETING + bytes((4, len(body))) + body
        yield hello + message([b"", requests[0]]) + message([bytes(300)]) + b"\x04\x08\x04PING\0\0x"
        yield hello + message([b"\x01event."]) + b"\x04\x0b\x09SUBSCRIBEx" + message([b"\x00event."])


def control(rng: random.Random) -> Target:
    """Requests, to the point where a command would be carried out; replies and events, as a client reads them."""

    def run(data: bytes) -> str:
        kind = rng.random()
        if kind < 0.2:
            messages.decode_reply(data)
            return "ok"
        if kind < 0.4:
            messages.decode_event(data)
            return "ok"
        request = messages.decode_request(data)
        try:
            checked(request.command, request.arguments)
        except ControlError as error:
            answer = messages.decode_reply(messages.encode_failure(request.id, error.code, error))
            assert answer.id == request.id and answer.error is not None
            return error.code
        return "ok"

    return run


def zmtp(rng: random.Random) -> Target:
    """A connection whole and in pieces: the same messages, or refused both times."""

    def read(kind: str, pieces: Iterator[bytes]) -> tuple[list[tuple[bytes, ...]], bool]:
        one = Zmtp(kind, largest=LARGEST, parts=PARTS)
        found: list[tuple[bytes, ...]] = []
        try:
            for piece in pieces:
                found += one.receive(piece)
                assert len(one._buffer) <= max(LARGEST, 4096) + len(piece) + 9
                assert len(one.outgoing()) < 64 + 100 + 40 * len(piece)
        except RemoteProtocolError:
            return found, False
        return found, True

    def run(data: bytes) -> str:
        kind = rng.choice(("ROUTER", "PUB"))
        size = rng.choice((1, 7, 64, 1500))
        whole, fine = read(kind, iter([data]))
        pieces, also = read(kind, iter([data[at : at + size] for at in range(0, len(data), size)]))
        assert fine == also, "refused only whole, or only in pieces"
        # What comes before a fault is told if it came in an earlier piece: the connection ends either way.
        assert whole == pieces[: len(whole)] if not fine else whole == pieces
        assert all(sum(map(len, parts)) <= LARGEST and len(parts) <= PARTS for parts in pieces)
        return "ok" if fine else "refused"

    return run
