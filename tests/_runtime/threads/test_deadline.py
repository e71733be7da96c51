"""Timeout arithmetic."""

from __future__ import annotations

import math
import time

import pytest

from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline


def test_none_and_centuries_never_come() -> None:
    for timeout in (None, math.inf, 1e12):
        deadline = Deadline(timeout)
        assert deadline.remaining() is None
        assert not deadline.passed
        assert deadline.capped(3.0) == 3.0


def test_remaining_is_never_negative() -> None:
    assert Deadline(-5).remaining() == 0
    assert Deadline(0).passed
    assert Deadline.at(clock.now() - 1).passed


def test_capped() -> None:
    assert Deadline(100).capped(1) == 1
    assert 0 < Deadline(0.5).capped(100) <= 0.5


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        Deadline(math.nan)


def test_clock_goes_forward() -> None:
    first = clock.now()
    assert clock.now() >= first


@pytest.mark.parametrize("broken", ["missing", "refused"])
def test_clock_without_boottime(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "missing":
        monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    else:
        monkeypatch.setattr(time, "CLOCK_BOOTTIME", -12345, raising=False)
    assert clock._choose() is time.monotonic


@pytest.mark.parametrize("wrong", ["3", [1], b"x"])
def test_what_is_no_number_is_said(wrong: object) -> None:
    with pytest.raises(TypeError, match="timeout: must be a number of seconds or None"):
        Deadline(wrong)  # type: ignore[arg-type]
