"""Finders are other people's code: what one raises is its answer."""

from __future__ import annotations

import threading

import pytest

from mycorrizal import MycorrizalError, PeerUnreachable, ResourcesExhausted
from mycorrizal._runtime.host import finders
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline


class Found:
    """Finds nothing."""

    def find(self, cluster: str, timeout: float) -> list[str]:
        return []


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_finder_raises_is_its_answer_and_nobody_waits_for_it(error: type[BaseException]) -> None:
    def ask(seed: str, finder: finders.Finder, seconds: float) -> list[str]:
        if seed == "bad":
            raise error
        return finder.find("c", seconds)

    began = clock.now()
    for _ in range(finders._HANGING_MAX + 1):  # no place is lost
        found = finders.ask_all({"bad": Found(), "good": Found()}, ask, Deadline(20))
        assert isinstance(found["bad"], (ValueError, MycorrizalError)) and found["good"] == []
    assert clock.now() - began < 15


def test_a_thread_that_cannot_be_started_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(thread: threading.Thread) -> None:
        raise ResourcesExhausted("no thread")

    places = threading.BoundedSemaphore(2)
    monkeypatch.setattr(finders, "_threads", places)
    with monkeypatch.context() as without:
        without.setattr(finders, "start_thread", none)
        for _ in range(5):
            found = finders.ask_all({"a": Found()}, lambda seed, finder, seconds: [], Deadline(20))
            assert isinstance(found["a"], ResourcesExhausted)
    assert finders.ask_all({"a": Found()}, lambda seed, finder, seconds: ["x"], Deadline(20)) == {"a": ["x"]}
    assert places.acquire(timeout=20) and places.acquire(timeout=20)


def test_a_finder_has_less_time_than_there_is() -> None:
    times = finders.ask_all({"a": Found(), "b": Found()}, lambda seed, finder, seconds: seconds, Deadline(20))
    assert all(0 < seconds <= 16.0 for seconds in times.values())


def test_what_a_finder_gives_is_bounded() -> None:
    many = [f"host{n}:1" for n in range(finders.FOUND_MAX + 9)]
    assert finders.entries_of("x", many, 7946) == many[: finders.FOUND_MAX]


@pytest.mark.parametrize("found", ["10.0.0.5", 5, None, ["10.0.0.5", ""], ["10.0.0.5", 5]])
def test_what_is_no_list_of_entries_is_that_finders_failure(found: object) -> None:
    with pytest.raises(PeerUnreachable, match="x gave"):
        finders.entries_of("x", found, 7946)
