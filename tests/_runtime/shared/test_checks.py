"""Health checks: what counts as well and as ill, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mycorrizal._runtime.shared.checks import Check
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal.exceptions import ConfigError


def raises() -> object:
    raise OSError("nobody listens")


def made(check: Callable[[], object], told: list[bool] | None = None) -> Check:
    told = [] if told is None else told
    return Check(check, 1.0, told.append, "alice", Counters())


class Rounds:
    """The end of a check, which comes after some rounds."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0

    def is_set(self) -> bool:
        return self.left < 0


@pytest.mark.parametrize("answer", [None, True, 0, "", [], object()])
def test_whatever_it_returns_but_false_is_well(answer: object) -> None:
    assert made(lambda: answer).first() is True


@pytest.mark.parametrize("check", [lambda: False, raises])
def test_false_and_an_exception_are_ill(check: Callable[[], object]) -> None:
    assert made(check).first() is False


def test_only_what_is_new_is_told() -> None:
    answers: list[object] = [None, True, False, raises, False, None, None]
    told: list[bool] = []

    def ask() -> object:
        answer = answers.pop(0)
        return answer() if callable(answer) else answer

    check = made(ask, told)
    assert check.first() is True
    rounds = check._over = Rounds(6)  # type: ignore[assignment]
    check.begin()
    check._run()
    assert told == [False, True] and not answers
    assert rounds.waited == [1.0] * 7


def test_who_begins_ill_is_told_when_well() -> None:
    told: list[bool] = []
    answers = [False, False, None]
    check = made(lambda: answers.pop(0), told)
    assert check.first() is False
    check._over = Rounds(2)  # type: ignore[assignment]
    check.begin()
    check._run()
    assert told == [True]


def test_nothing_is_told_after_the_end() -> None:
    told: list[bool] = []
    check = made(lambda: check.close(), told)
    check._healthy = False
    check.begin()
    check._run()
    assert told == []


@pytest.mark.parametrize("interval", [0, 0.01, float("inf"), "1"])
def test_misuse(interval: float) -> None:
    with pytest.raises(ConfigError, match="interval"):
        Check(lambda: None, interval, lambda healthy: None, "alice", Counters())
    with pytest.raises(ConfigError, match="check"):
        Check("ping", 1.0, lambda healthy: None, "alice", Counters())  # type: ignore[arg-type]


def test_who_ends_before_it_has_begun_waits_for_nothing() -> None:
    check = made(lambda: None)
    check.close()
    assert check._begun.is_set()
    check._run()


def test_why_it_is_ill_is_logged_once_until_it_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Callable[[], object]] = [raises, raises, raises, lambda: None, raises, raises]
    check = made(lambda: answers.pop(0)())
    assert check.first() is False
    check._over = Rounds(5)  # type: ignore[assignment]
    check.begin()
    check._run()
    assert [record.getMessage().count("nobody listens") for record in caplog.records] == [1, 1]
    assert check._counters.snapshot()["checks.faults"] == 5


def test_it_is_not_asked_before_it_has_begun() -> None:
    asked: list[bool] = []
    check = made(lambda: asked.append(check._begun.is_set()))
    check._begun.wait = lambda: asked.append(check._begun.set() is None)  # type: ignore[assignment,method-assign,func-returns-value]
    check._over = Rounds(1)  # type: ignore[assignment]
    check._run()
    assert asked == [True, True], "first the wait, and then it was asked"
