"""The receiving half: one reads at a time, what it leaves the loop takes, and a Ctrl-C at any line loses nothing."""

from __future__ import annotations

import linecache
import socket
import sys
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from mycorrizal._runtime.local import loan as module
from mycorrizal._runtime.local.loan import LOOP, Loan
from mycorrizal._runtime.threads.deadline import Deadline
from tests._runtime.data.couple import SECONDS, Task, until


class Who:
    """Somebody who waits."""

    done = False


class Ends:
    """A loan, the other end of its socket, and a loop that takes what is left when it is told to."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.near.setblocking(False)
        self.watched: list[bool] = []  # whether the loop is to be told of what comes, after each change
        self.left: list[object] = []
        self.loop_took: list[bytes] = []
        self.loan = Loan(self.near, lambda: self.watched.append(not self.loan.taken), self.left.append)

    def turn(self) -> None:
        """Be the loop."""
        for who in self.left:
            self.loop_took += self.loan.back(who)
            self.loan.end(who)
        self.left.clear()
        if self.loan.begin(LOOP):
            try:
                self.loop_took.append(self.near.recv(1 << 16))
            except BlockingIOError:
                pass
            self.loan.end(LOOP)

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def took(into: list[bytes], data: bytes) -> bool:
    into.append(data)
    return True


def test_who_waits_reads_once_and_the_loop_hears_nothing_of_it(ends: Ends) -> None:
    ends.far.send(b"one")
    found: list[bytes] = []
    assert ends.loan.read(Who(), partial(took, found), Deadline(SECONDS))
    assert found == [b"one"] and ends.watched == [False, True] and not ends.left and not ends.loan.taken
    ends.far.send(b"two")
    ends.turn()
    assert ends.loop_took == [b"two"]


def test_what_it_does_not_want_is_the_loops_and_nobody_reads_before_that_is_taken(ends: Ends) -> None:
    ends.far.send(b"one")
    assert not ends.loan.read(Who(), lambda data: False, Deadline(SECONDS))
    ends.far.send(b"two")
    assert not ends.loan.read(Who(), lambda data: True, Deadline(SECONDS)) and ends.watched[-1] is False
    assert not ends.loan.begin(LOOP)
    ends.turn()
    assert ends.loop_took == [b"one", b"two"] and ends.watched[-1] is True


def test_nothing_in_time(ends: Ends) -> None:
    assert not ends.loan.read(Who(), lambda data: True, Deadline(0.01))
    assert ends.watched == [False, True] and not ends.left
    assert not ends.loan.read(Who(), lambda data: True, Deadline(0))


def test_while_the_loop_reads_nobody_else_does(ends: Ends) -> None:
    assert ends.loan.begin(LOOP) and not ends.loan.taken
    ends.far.send(b"one")
    assert not ends.loan.read(Who(), lambda data: True, Deadline(SECONDS)) and not ends.watched
    ends.loan.end(LOOP)
    assert ends.loan.read(Who(), lambda data: True, Deadline(SECONDS))


def test_who_needs_nothing_any_more_does_not_wait(ends: Ends) -> None:
    who = Who()
    who.done = True
    assert not ends.loan.read(who, lambda data: True, Deadline(SECONDS)) and not ends.loan.taken
    ends.loan.stop()
    ends.far.send(b"late")
    assert not ends.loan.read(Who(), lambda data: True, Deadline(SECONDS)) and not ends.loan.taken


def test_only_who_reads_ends_that(ends: Ends) -> None:
    who = Who()
    assert ends.loan.begin(who)
    ends.loan.end(Who())
    assert ends.loan.taken and not ends.loan.begin(LOOP)
    ends.loan.end(who)
    assert not ends.loan.taken and ends.loan.begin(LOOP)


@pytest.mark.parametrize("end", ["here", "there"])
def test_the_end_wakes_who_waits(ends: Ends, end: str) -> None:
    reader = Task(lambda: ends.loan.read(Who(), lambda data: data != b"", Deadline(SECONDS)))
    until(lambda: ends.loan.taken)
    if end == "here":
        ends.loan.stop()
    else:
        ends.far.close()
    assert reader.result() is False
    ends.turn()
    assert ends.loop_took[0] == b""


class Interrupts:
    """Raises ``KeyboardInterrupt`` at the `at`-th line that the loan's code comes to."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.raised = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Interrupts | None:
        if frame.f_code.co_filename != module.__file__:
            return None
        line = linecache.getline(module.__file__, frame.f_lineno).strip()
        # Between the begin of a function and its ``try`` the interpreter does not look for signals.
        if event == "line" and not self.raised and line != "try:":
            self.left -= 1
            if self.left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("wanted", [True, False])
def test_a_ctrl_c_at_any_line_loses_nothing_and_leaves_the_reading_to_the_loop(wanted: bool) -> None:
    for at in range(60):
        ends = Ends()
        ends.far.send(b"one")
        found: list[bytes] = []
        interrupts = Interrupts(at)
        sys.settrace(interrupts)
        try:
            ends.loan.read(Who(), lambda data, found=found: wanted and took(found, data), Deadline(SECONDS))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        ends.far.send(b"two")
        ends.turn()
        ends.turn()
        all_ = b"".join(ends.loop_took)
        assert all_ in (b"onetwo", b"two") and (all_ == b"onetwo" or found == [b"one"]), at
        assert not ends.loan.taken and (not ends.watched or ends.watched[-1] is True), at
        ends.close()
        if not interrupts.raised:
            return
    raise AssertionError("never without an interrupt")
