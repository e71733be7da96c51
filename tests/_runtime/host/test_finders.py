"""Finders are other people's code: what one raises is its answer."""

from __future__ import annotations

import pytest

from mycorrizal import MycorrizalError
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
