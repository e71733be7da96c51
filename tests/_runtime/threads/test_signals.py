"""The first signal is a wish, the second acts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import LocalProtocolError, MycorrizalError
from mycorrizal._runtime.threads.signals import StopSignals, end_first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with StopSignals() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        assert stop.received == number.name
        assert {one: signal.getsignal(one) for one in before} == before
    assert {one: signal.getsignal(one) for one in before} == before


def test_second_ctrl_c_interrupts() -> None:
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_signal_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        pass
    assert stop.received is None and signal.getsignal(signal.SIGTERM) is before


def sent(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], threading.Event]:
    """Return the signals that a handler of ours sends again, and what is set after each."""
    found: list[int] = []
    ended = threading.Event()

    def kill(process: int, number: int) -> None:
        found.append(number)
        ended.set()

    monkeypatch.setattr(os, "kill", kill)
    return found, ended


@pytest.fixture
def former() -> Iterator[list[int]]:
    """What a handler of before was called with."""
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    yield called
    signal.signal(signal.SIGTERM, before)


def test_a_signal_ends_first_and_then_does_what_it_did(monkeypatch: pytest.MonkeyPatch, former: list[int]) -> None:
    mine = signal.getsignal(signal.SIGTERM)
    again, ended = sent(monkeypatch)
    threads: list[str] = []
    end_first(signal.SIGTERM, lambda: threads.append(threading.current_thread().name))
    assert signal.getsignal(signal.SIGTERM) is not mine
    signal.raise_signal(signal.SIGTERM)
    assert ended.wait(30) and threads == ["mycorrizal-leave"] and again == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is mine and former == []


def test_a_second_signal_acts_at_once(monkeypatch: pytest.MonkeyPatch, former: list[int]) -> None:
    _, ended = sent(monkeypatch)
    go = threading.Event()
    end_first(signal.SIGTERM, lambda: go.wait(30))
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert former == [signal.SIGTERM]
    go.set()
    assert ended.wait(30)


def test_an_end_that_raises_does_not_keep_the_signal(monkeypatch: pytest.MonkeyPatch, former: list[int]) -> None:
    again, ended = sent(monkeypatch)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    end_first(signal.SIGTERM, lambda: 1 // 0)
    signal.raise_signal(signal.SIGTERM)
    assert ended.wait(30) and again == [signal.SIGTERM]


def test_where_no_thread_is_left_the_signal_does_what_it_did(
    monkeypatch: pytest.MonkeyPatch, former: list[int]
) -> None:
    end_first(signal.SIGTERM, lambda: None)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: exec("raise RuntimeError('none')"))
    signal.raise_signal(signal.SIGTERM)
    assert former == [signal.SIGTERM]


def test_a_handler_in_front_of_ours_may_call_it(monkeypatch: pytest.MonkeyPatch, former: list[int]) -> None:
    _, ended = sent(monkeypatch)
    end_first(signal.SIGTERM, lambda: None)
    ours: Any = signal.getsignal(signal.SIGTERM)
    front = signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
    assert front is ours
    signal.raise_signal(signal.SIGTERM)
    assert ended.wait(30) and former == []
    signal.raise_signal(signal.SIGTERM)
    assert former == [signal.SIGTERM]


def test_only_the_main_thread_says_what_a_signal_does() -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            end_first(signal.SIGTERM, lambda: None)
        except MycorrizalError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(found[0], LocalProtocolError) and "main thread" in str(found[0])
    for number, kind in ((signal.SIGKILL, OSError), (10_000, ValueError)):
        with pytest.raises(kind):
            end_first(number, lambda: None)
