"""Health checks: what the user's function raises ends nothing, and what it says is told once."""

from __future__ import annotations

import queue

import pytest

from mycorrizal._runtime.shared.checks import Check
from mycorrizal._runtime.threads.counters import Counters

WAIT = 20.0


class Own(BaseException):
    """One of the user's."""


def test_a_check_that_raises_anything_is_unwell_and_is_asked_again() -> None:
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    answers: list[BaseException | bool] = [ValueError(), SystemExit(), True, KeyboardInterrupt(), True, Own(), False]

    def check() -> bool:
        answer = answers.pop(0) if answers else True
        if isinstance(answer, BaseException):
            raise answer
        return answer

    counters = Counters()
    made = Check(check, 0.05, told.put, "alice", counters)
    made.start()
    made.begin()
    try:
        assert [told.get(timeout=WAIT) for _ in range(6)] == [False, True, False, True, False, True]
    finally:
        made.close()
    assert counters["checks.faults"] == 4


def test_ctrl_c_in_the_first_one_is_the_callers() -> None:
    def check() -> bool:
        raise KeyboardInterrupt

    made = Check(check, 0.05, print, "alice", Counters())
    with pytest.raises(KeyboardInterrupt):
        made.first()
