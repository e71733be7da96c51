"""What the control plane's sockets do when the system has nothing left to give, or a client takes nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycorrizal._runtime.control import sockets as control_sockets
from mycorrizal._runtime.control.endpoints import Endpoint
from mycorrizal._runtime.control.sockets import HELLO, Client, ControlSockets
from mycorrizal._runtime.threads.counters import Counters


class Poor(socket.socket):
    """A listener that the system gives no descriptor to."""

    left = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not Poor.left:
            raise OSError(errno.EMFILE, "Too many open files")
        Poor.left -= 1
        return super().accept()


class Place:
    """Sockets, their counters, and where they listen."""

    def __init__(self, folder: Path) -> None:
        self.counters = Counters("control.refused", "control.replies_dropped")
        self.endpoints = [Endpoint(path=f"{folder}/{name}") for name in ("c", "e")]
        listeners = []
        for endpoint in self.endpoints:
            _, listener = endpoint.listen()
            listeners.append((endpoint, Poor(fileno=listener.detach())))
        self.wake, self.other = socket.socketpair()
        self.sockets = ControlSockets(listeners, self.counters, self.wake.fileno())

    def connect(self, number: int = 0) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(5)
        one.connect(self.endpoints[number].path)
        return one

    def close(self) -> None:
        self.sockets.close()
        self.wake.close()
        self.other.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    Poor.left = 0
    yield made
    made.close()


def test_reserve_turns_one_away_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.close
    closed: list[int] = []

    def close(number: int) -> None:
        closed.append(number)
        Poor.left = 1  # what the reserve was for
        real(number)

    monkeypatch.setattr(os, "close", close)
    with place.connect() as one:
        place.sockets.poll(5)
        assert one.recv(1) == b""
    monkeypatch.undo()
    assert len(closed) == 1 and place.counters["control.refused"] == 1
    assert place.sockets._resume is None and place.sockets._reserve is not None


def test_without_even_a_reserve_nobody_is_let_in_for_a_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with place.connect() as one, place.connect(1) as other:
        monkeypatch.setattr(os, "open", nothing)
        place.sockets.poll(5)
        assert place.sockets._resume is not None
        place.sockets.poll(0)  # whoever waits costs nothing meanwhile
        assert place.counters["control.refused"] == 1
        monkeypatch.undo()
        Poor.left = 10
        while place.sockets._resume is not None:
            place.sockets.poll(None)
        place.sockets.poll(5)
        assert one.recv(1) == other.recv(1) == b"\xff"


def test_reply_to_nobody_is_counted(place: Place) -> None:
    place.sockets.reply(Client(bytes(8)), b"x")
    assert place.counters["control.replies_dropped"] == 1


def test_closing_while_nobody_is_let_in(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with place.connect():
        monkeypatch.setattr(os, "open", nothing)
        place.sockets.poll(5)
        place.sockets.close()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
PING = b"\x04\x07\x04PING\x00\x00"
SUBSCRIBE, CANCEL = (b"\x00" + bytes((len(HELLO) + 2,)) + flag + HELLO + b"x" for flag in (b"\x01", b"\x00"))


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return b"\x04" + bytes((len(body),)) + body


@pytest.mark.parametrize(
    ("number", "kind", "question"), [(0, b"DEALER", PING), (1, b"SUB", SUBSCRIBE + CANCEL)], ids=["ping", "hello"]
)
def test_who_asks_on_and_reads_no_answer_is_let_go(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int, kind: bytes, question: bytes
) -> None:
    bound = 1 << 19
    monkeypatch.setattr(control_sockets, "ANSWER_BYTES", bound)
    Poor.left = 1
    with place.connect(number) as deaf:
        deaf.sendall(GREETING + ready(kind))
        deaf.setblocking(False)
        left, asked, most = b"", 0, 0
        while not place.counters["control.malformed"]:
            left = left or question * 1000
            try:
                left = left[deaf.send(left) :]
            except BlockingIOError:
                pass
            place.sockets.poll(0)
            place.sockets.attend(lambda topic: bytes(500))
            links = place.sockets._links.values()
            most = max([most, *(link.waiting for link in links)])
            asked += 1
            assert asked < 10_000 and most <= bound, "answers pile up without a bound"
        assert not links


def test_who_has_not_even_shaken_hands_gives_way_before_a_quiet_client(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_sockets, "CLIENTS_MAX", 3)
    Poor.left = 100
    with place.connect() as quiet:
        quiet.sendall(GREETING + ready(b"DEALER"))
        while not any(link.zmtp.ready for link in place.sockets._links.values()):
            place.sockets.poll(5)
        silent = [place.connect() for _ in range(4)]
        while place.counters["control.refused"] < 2:
            place.sockets.poll(5)
        assert [link.zmtp.ready for link in place.sockets._links.values()] == [True, False, False]
        assert silent[0].recv(100)[:1] == silent[1].recv(100)[:1] == b"\xff"  # their greeting, and then the end
    for one in silent:
        one.close()


def test_what_is_wrong_right_behind_the_handshake_is_malformed_and_no_failed_handshake(place: Place) -> None:
    Poor.left = 1
    with place.connect() as hostile:
        hostile.sendall(GREETING + ready(b"DEALER") + b"\x02" + (1 << 40).to_bytes(8, "big"))  # a frame of a terabyte
        for _ in range(100):
            place.sockets.poll(0.1)
            if place.counters["control.malformed"]:
                break
    assert (place.counters["control.malformed"], place.counters["control.handshakes_failed"]) == (1, 0)
