"""Three processes: one holds the GIL with a single C call for longer than a suspicion lasts, one is killed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mycorrizal import MemberFailed

from .conftest import Child, Start, names, until

Spawn = Callable[..., Child]

FLOOR = 15.0  # a busy machine may take twice as long over the call as was meant


def failed(events: str) -> list[str]:
    """Return what a child's ``events`` say about members that failed."""
    return [event for event in events.split() if event.startswith("fail")]


@pytest.mark.slow
def test_a_process_in_a_long_C_call_is_not_declared_dead(start: Start, spawn: Spawn) -> None:
    a = start("a", suspicion_min_timeout=FLOOR)
    b = spawn("b", a, suspicion_min_timeout=FLOOR)
    worker = spawn("worker", a, suspicion_min_timeout=FLOOR)
    everybody = {"a", "b", "worker"}
    until(lambda: names(a) == everybody and all(set(c.ask("members").split()) == everybody for c in (b, worker)))
    assert int(worker.ask("metrics stalls")) == 0
    stream = a.events()

    held = float(worker.ask("compute 6"))
    assert held > 4, "four times the window that FAST has"
    assert held < FLOOR, "this machine is too busy to tell"
    time.sleep(1.5)  # what stale timers would do, they would have done by now
    events = worker.ask("events")
    stalls = [float(event.partition(":")[2]) for event in events.split() if event.startswith("stall:")]
    assert stalls == [pytest.approx(held, abs=1.0)]
    assert a.metrics()["probes_failed"] + int(b.ask("metrics probes_failed")) > 0, "they did notice"
    assert a.metrics().get("suspicions_expired", 0) == int(b.ask("metrics suspicions_expired")) == 0
    assert failed(events) == failed(b.ask("events")) == []
    assert [event for event in (stream.get(0) for _ in range(len(stream))) if isinstance(event, MemberFailed)] == []
    assert names(a) == everybody


def test_a_killed_process_is_noticed_long_before_the_floor(start: Start, spawn: Spawn) -> None:
    a = start("a", suspicion_min_timeout=FLOOR)
    b = start("b", seed=a, suspicion_min_timeout=FLOOR)
    victim = spawn("victim", a, suspicion_min_timeout=FLOOR)
    until(lambda: names(a) == names(b) == {"a", "b", "victim"})
    streams = a.events(), b.events()
    victim.process.kill()
    began = time.monotonic()
    for stream in streams:
        event = stream.get(10)
        assert isinstance(event, MemberFailed)
        assert event.node.name == "victim"
    assert time.monotonic() - began < 7
    assert a.metrics().get("refusals", 0) + b.metrics().get("refusals", 0) >= 1
