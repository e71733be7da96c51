"""Agents that are dropped, that crash, or end as something begins: nothing of them goes on, nobody waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, MemberLeft, NotRunningError, OperationTimeout, QueueFull, ServiceCrashed

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

pytestmark = pytest.mark.usefixtures("runtime_dir")


def test_dropped_agent_leaves_its_file_and_ends_checks_and_watchers(tmp_path: Path) -> None:
    before = threading.active_count()
    file = str(tmp_path / "settings")
    agent = Agent("alice", port=0, settings_file=file)
    agent.settings.watch(None, print)
    agent.services.watch(None, print)
    agent.services.register("api", check=lambda: True, interval=0.05)
    agent.settings["rate"] = 3
    with pytest.warns(ResourceWarning, match="unclosed <Agent 'alice'"):
        del agent
    with Agent("alice", port=0, settings_file=file) as again:
        assert again.settings["rate"] == 3
    until(lambda: threading.active_count() <= before)


def test_reader_hears_that_the_gossip_thread_died(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    alice = agents("alice")
    streams: list[Any] = [alice.subscribe("x"), alice.settings.watch(), alice.services.watch(), alice.events()]

    def broken() -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(alice._parts.sharing.replica, "next_event", broken)  # type: ignore[union-attr]
    alice.settings.set("y", 1)
    for stream in streams:
        with pytest.raises(ServiceCrashed):
            stream.get(5)


def test_service_that_is_registered_while_the_agent_ends_is_not_checked_for_ever(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    before = threading.active_count()
    asked = []

    def check() -> bool:
        asked.append(True)
        if len(asked) == 1:
            alice.services.close()  # as another thread's close() may, just now
        return True

    alice.services.register("api", check=check, interval=0.05)
    until(lambda: threading.active_count() <= before)


def test_registration_that_cannot_be_announced_leaves_the_one_before(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    healthy = threading.Event()
    alice.services.register("api", port=1, check=healthy.is_set, interval=0.05)
    hold, held = threading.Event(), threading.Event()
    sharing = alice._parts.sharing  # type: ignore[union-attr]

    def busy(now: float) -> None:
        held.set()
        hold.wait(10)

    sharing.post(busy)
    assert held.wait(10)
    with pytest.raises(OperationTimeout):
        alice.services.register("api", port=2, timeout=0)
    hold.set()
    healthy.set()
    until(lambda: [(one.port, one.healthy) for one in alice.services.find("api")] == [(1, True)])


def test_goodbye_is_said_though_the_caches_cannot_be_handed_over(
    agents: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    bob.cache("c")

    def full(*_: object) -> None:
        raise QueueFull("no room", retriable=False)

    monkeypatch.setattr(bob._parts.sharing.replica, "deregister", full)  # type: ignore[union-attr]
    with alice.events() as news:
        bob.leave(timeout=2)
        assert any(isinstance(event, MemberLeft) for event in iter(lambda: news.get(10), None))


def test_agent_that_never_was_put_together() -> None:
    class Mine(Agent):
        def __init__(self) -> None:
            pass  # forgot super().__init__()

    mine = Mine()
    assert mine.closed and "not started" in repr(mine)
    with pytest.raises(NotRunningError, match="never started"):
        mine.members()
    mine.close()
