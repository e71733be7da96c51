"""Counters and warnings that do not flood."""

from __future__ import annotations

import logging
import threading

import pytest

from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.counters import Counters, QuietLog
from mycorrizal._wire.text import logger


def test_threads_lose_no_count() -> None:
    counters = Counters("a")

    def add() -> None:
        for _ in range(2000):
            counters.add("a")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters["a"] == 8000
    assert counters["never"] == 0
    counters.add("b", 5)
    assert counters.snapshot() == {"a": 8000, "b": 5}


def test_a_kind_is_logged_once_an_interval(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "now", lambda: now)
    quiet = QuietLog(logger("mycorrizal.test"), "alice", interval=10)
    assert quiet.warning("full", "queue of %s", "bob")
    assert not quiet.warning("full", "queue of %s", "bob")
    assert not quiet.warning("full", "queue of %s", "bob")
    assert quiet.warning("other", "else")
    now += 10
    assert quiet.warning("full", "queue of %s", "bob")
    assert caplog.messages[0] == "alice: queue of bob"
    assert caplog.messages[-1] == "alice: queue of bob (2 more like it were not logged)"


def test_a_handler_that_fails_is_nobody_elses_trouble() -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ConnectionError

    log = logging.getLogger("mycorrizal.test")
    failing = Failing()
    log.addHandler(failing)
    try:
        assert QuietLog(logger("mycorrizal.test"), "alice").warning("full", "queue of %s", "bob")
    finally:
        log.removeHandler(failing)


def test_kinds_are_bounded() -> None:
    quiet = QuietLog(logger("mycorrizal.test"), "alice")
    for index in range(1000):
        quiet.warning(f"kind {index}", "text")
    assert len(quiet._last) <= quiet._KINDS_MAX
