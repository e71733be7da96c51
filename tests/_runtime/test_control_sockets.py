"""What the control plane's sockets do when the system has nothing left to give."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycorrizal._runtime.control_sockets import Client, ControlSockets
from mycorrizal._runtime.counters import Counters
from mycorrizal._runtime.endpoints import Endpoint


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
