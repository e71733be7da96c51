"""The pulse that feeds a watchdog: both threads must have done what they were asked last."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import NotRunningError
from mycorrizal._agent.pulse import Pulse, Watchdog
from mycorrizal._runtime.threads import clock

Command = Callable[[float], object]


class Threads:
    """A gossip thread and a loop that run when they are told to."""

    def __init__(self) -> None:
        self.gossip: list[Command] = []
        self.loop: list[Command] = []
        self.ended: set[str] = set()

    def tell(self, command: Command) -> bool:
        if "gossip" not in self.ended:
            self.gossip.append(command)
        return "gossip" not in self.ended

    def submit(self, command: Command) -> None:
        if "loop" in self.ended:
            raise NotRunningError("closed")
        self.loop.append(command)

    def run(self, *which: str) -> None:
        for name in which:
            queue: list[Command] = getattr(self, name)
            while queue:
                queue.pop(0)(0.0)

    @property
    def parts(self) -> Any:
        return SimpleNamespace(
            members=SimpleNamespace(_running=SimpleNamespace(mailbox=self)),
            data=SimpleNamespace(_started=SimpleNamespace(loop=self)),
        )


def test_both_threads_must_answer_before_the_next_beat() -> None:
    threads = Threads()
    pulse = Pulse(threads.parts)
    assert pulse.beat() and not pulse.beat()
    threads.run("gossip")
    assert not pulse.beat()
    threads.run("loop")
    assert pulse.beat()
    threads.run("loop")
    assert not pulse.beat() and len(threads.gossip) == 1, "nothing is asked twice of a thread that is stuck"


@pytest.mark.parametrize("which", ["gossip", "loop"])
def test_an_ended_thread_has_no_pulse(which: str) -> None:
    threads = Threads()
    threads.ended.add(which)
    pulse = Pulse(threads.parts)
    assert not pulse.beat()


def test_watchdog_is_fed_three_times_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    threads = Threads()
    watchdog = Watchdog(Pulse(threads.parts), 3.0)
    fed = []
    for tick in range(40):
        now[0] = tick * 0.25
        if watchdog.due():
            fed.append(now[0])
        if now[0] < 5.0:
            threads.run("gossip", "loop")
    assert fed == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "it starves from the moment that they are stuck"
    assert not Watchdog(Pulse(Threads().parts), None).due()
