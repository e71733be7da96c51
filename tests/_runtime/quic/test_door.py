"""QUIC is loaded with the first datagram or dial, and where it cannot be, later."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from mycorrizal._runtime.quic import door as door_module
from mycorrizal._runtime.quic.door import Door
from mycorrizal._runtime.quic.endpoint import Endpoint
from mycorrizal._runtime.quic.loop import Loop
from mycorrizal.exceptions import PeerUnreachable, ResourcesExhausted

SOCK = cast(socket.socket, object())


class Turns:
    """As much of a loop as a door sees."""

    def __init__(self) -> None:
        self.reader: Callable[[float], object] | None = None
        self.timers: list[tuple[float, Callable[[float], object]]] = []

    def add_reader(self, sock: object, fn: Callable[[float], object]) -> None:
        self.reader = fn

    def remove_reader(self, sock: object) -> None:
        self.reader = None

    def call_at(self, when: float, fn: Callable[[float], object]) -> None:
        self.timers.append((when, fn))


class Rig:
    def __init__(self) -> None:
        self.loop = Turns()
        self.made: list[Any] = []
        self.door = Door(cast(Loop, self.loop), SOCK, self._make)

    def _make(self, kind: type[Endpoint]) -> Endpoint:
        self.made.append(kind)
        return cast(Endpoint, object())


def test_nothing_is_made_before_it_is_wanted_and_one_thing_then() -> None:
    rig = Rig()
    assert rig.door.endpoint is None and rig.made == []
    assert rig.door.open() is rig.door.open() is rig.door.endpoint
    assert rig.made == [Endpoint]


def test_a_datagram_opens_it() -> None:
    rig = Rig()
    assert rig.loop.reader is not None
    rig.loop.reader(5.0)
    assert rig.made == [Endpoint] and not rig.loop.timers


@pytest.mark.parametrize(
    ("failure", "told"),
    [(OSError(errno.EMFILE, ""), ResourcesExhausted), (ImportError("no aioquic"), PeerUnreachable)],
)
def test_what_cannot_be_loaded_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, told: type[Exception]
) -> None:
    """A datagram that waits makes no loop spin meanwhile."""
    rig = Rig()

    def short(wanted: int) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(door_module, "spare_descriptors", short)
        with pytest.raises(told, match="QUIC cannot be loaded"):
            rig.door.open()
        assert rig.loop.reader is not None
        rig.loop.reader(5.0)
        assert rig.loop.reader is None
    ((when, again),) = rig.loop.timers
    assert when == 6.0
    again(when)
    assert rig.loop.reader is not None
    rig.loop.reader(when)
    assert rig.made == [Endpoint]


def test_a_dial_opens_it_while_datagrams_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def short(wanted: int) -> None:
        raise OSError(errno.EMFILE, "")

    with monkeypatch.context() as patch:
        patch.setattr(door_module, "spare_descriptors", short)
        assert rig.loop.reader is not None
        rig.loop.reader(5.0)
    rig.door.open()
    ((when, again),) = rig.loop.timers
    again(when)
    assert rig.loop.reader is None  # the endpoint's own is there
