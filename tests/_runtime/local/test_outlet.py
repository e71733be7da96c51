"""The sending half: whole items, in order, from any thread, also when a Ctrl-C comes between any two lines of it."""

from __future__ import annotations

import linecache
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from mycorrizal._runtime.local import outlet as module
from mycorrizal._runtime.local.outlet import Outlet

SIZE = 1000


class Ends:
    """An outlet, and the other end of its socket."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        self.left = 0
        self.outlet = Outlet(self.near, self._left)

    def _left(self) -> None:
        self.left += 1

    def read(self) -> bytes:
        """Return what is there, and let the outlet go on, until nothing comes."""
        data = b""
        while True:
            self.outlet.go_on()
            try:
                data += self.far.recv(1 << 16)
            except BlockingIOError:
                return data


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.near.close()
    made.far.close()


def test_what_the_socket_does_not_take_waits_and_its_owner_is_told_once(ends: Ends) -> None:
    items = [bytes([number]) * SIZE for number in range(50)]
    for item in items:
        ends.outlet.put(2, item)
    assert ends.left == 1 and ends.outlet.waits
    taken = ends.outlet.taken
    assert ends.outlet.backlog() == ends.outlet.backlog(2) == 50 * SIZE - taken and ends.outlet.backlog(3) == 0
    assert ends.read() == b"".join(items)
    assert not ends.outlet.waits and ends.outlet.backlog(2) == 0 and ends.outlet.taken == 50 * SIZE


def test_lent_memory_is_read_or_copied_before_the_call_returns(ends: Ends) -> None:
    data = bytearray(b"a" * 100_000)
    ends.outlet.put_large(6, b"head", memoryview(data))
    assert 0 < ends.outlet.backlog(6) < len(data)
    data[:] = b"b" * len(data)
    ends.outlet.put_large(6, b"next", memoryview(data))
    data[:] = b"c" * len(data)
    assert ends.read() == b"head" + b"a" * 100_000 + b"next" + b"b" * 100_000


def test_a_goodbye_overtakes_all_but_what_has_begun(ends: Ends) -> None:
    for number in range(50):
        ends.outlet.put(2, bytes([number]) * SIZE)
    ends.outlet.cut()
    ends.outlet.put(0, b"bye")
    data = ends.read()
    assert data.endswith(b"bye") and (len(data) - 3) % SIZE == 0 and len(data) < 50 * SIZE


def test_many_threads_cut_no_item(ends: Ends) -> None:
    def work(number: int) -> None:
        for _ in range(200):
            ends.outlet.put(2, bytes([number]) * 100)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    data = b""
    while any(thread.is_alive() for thread in threads):
        data += ends.read()
    data += ends.read()
    items = [data[at : at + 100] for at in range(0, len(data), 100)]
    assert len(items) == 800 and all(len(set(item)) == 1 for item in items)
    assert [items.count(bytes([number]) * 100) for number in range(4)] == [200] * 4


def test_a_broken_socket_takes_nothing_and_raises_nothing(ends: Ends) -> None:
    ends.far.close()
    ends.outlet.put(2, b"x")
    assert ends.outlet.broken is not None and not ends.outlet.waits


class Interrupts:
    """Raises ``KeyboardInterrupt`` at the `at`-th line that the outlet's code comes to.

    Not at a ``with``: the interpreter looks for signals after calls, and never between a block and its end.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.raised = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Interrupts | None:
        if frame.f_code.co_filename != module.__file__:
            return None
        line = linecache.getline(module.__file__, frame.f_lineno).strip()
        if event == "line" and not self.raised and not line.startswith("with "):
            self.left -= 1
            if self.left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("full", [False, True])
def test_a_ctrl_c_between_any_two_lines_cuts_no_item(full: bool) -> None:
    for at in range(60):
        ends = Ends()
        sent = []
        while full and not ends.outlet.waits:  # the socket takes a part of the last one
            sent.append(b"before" * 100)
            ends.outlet.put(2, sent[-1])
        interrupts = Interrupts(at)
        sys.settrace(interrupts)
        try:
            ends.outlet.put(2, b"interrupted")
        except KeyboardInterrupt:
            assert ends.left or not ends.outlet.waits
        finally:
            sys.settrace(None)
        ends.outlet.put(2, b"after")
        data = ends.read()
        assert data in (b"".join([*sent, b"interrupted", b"after"]), b"".join([*sent, b"after"])), at
        ends.near.close()
        ends.far.close()
        if not interrupts.raised:
            assert at > 5
            return
    raise AssertionError("the call has more lines than were tried")
