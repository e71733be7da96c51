"""What agents share when something is in the way: lost pushes, a flood, a wrong clock; and what it costs when idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mycorrizal import BaseDelegate, Config, PeerUnreachable

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import spawn

pytestmark = pytest.mark.usefixtures("runtime_dir")


def test_a_setting_whose_push_was_lost_is_repaired_soon(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    alice, bob = agents("alice", wire="msgpack"), agents("bob", wire="msgpack")
    alice.wait_for(2), bob.wait_for(2)
    time.sleep(2.0)  # for the exchanges of states after the join: they would hide it
    carrier: Any = alice._running.sharing._carrier
    ask = carrier.ask

    def lose(node: str, payload: bytes, timeout: float, done: Callable[..., None]) -> None:
        if payload[:1] == b"\0":
            done(None, PeerUnreachable("lost", node=node))
        else:
            ask(node, payload, timeout, done)

    monkeypatch.setattr(carrier, "ask", lose)
    alice.settings["rate"] = 1
    assert alice.metrics()["share.pushes_failed"] == 1
    began = time.monotonic()
    until(lambda: bob.settings.get("rate") == 1)
    assert time.monotonic() - began < 8, "not only with the next exchange of states, up to 30 s later"
    assert alice.metrics()["share.repairs"] == 1


def test_a_burst_of_settings_does_not_wait_for_gossip(agents: Make) -> None:  # noqa: F811
    config = Config.local(bind_addr="127.0.0.1", bind_port=0, early_push_pulls=0)  # which would bring them too
    alice, bob = agents("alice", config=config), agents("bob", config=config)
    alice.wait_for(2), bob.wait_for(2)
    for number in range(1000):  # gossip between two nodes carries ten packets a second: half a minute for a hundred
        alice.settings[f"key {number}"] = "x" * 600
    until(lambda: len(bob.settings) == 1000, 3)
    assert alice.metrics().get("share.pushes_dropped", 0) == 0


def test_an_idle_agent_does_not_tick(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2), bob.wait_for(2)
    bob.settings["rate"] = 1
    until(lambda: alice.settings.get("rate") == 1)
    asked: list[float] = []
    share = alice._running.sharing._share
    original = share.get_broadcasts

    def count(overhead: int, limit: int) -> list[bytes]:
        asked.append(time.monotonic())
        return original(overhead, limit)

    until(lambda: not alice._running.sharing.waiting())
    share.get_broadcasts = count  # type: ignore[method-assign]
    time.sleep(3.0)
    assert len(asked) <= 6, "pings ask, one a second; the gossip's tick would ask ten times a second"
    alice.settings["rate"] = 2
    until(lambda: bob.settings.get("rate") == 2, 2)


AHEAD = """
    real = time.time
    time.time = lambda: real() + 3600
    with Agent("bob") as agent:
        agent.wait_for(2)
        agent.settings["rate"] = "ahead"
        say("written")
        while order := hear():
            exec(order)
"""


def test_a_clock_that_is_an_hour_ahead_freezes_no_key(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    alice.settings["rate"] = "before"
    with spawn(AHEAD) as bob:
        assert bob.words() == ["written"]
        until(lambda: alice.settings.get("rate") == "ahead")
        alice.settings["rate"] = "right"
        assert alice.settings["rate"] == "right"
        bob.tell("time.sleep(0.5); say(agent.settings['rate'])")
        assert bob.words() == ["right"]
        bob.tell("del agent.settings['rate']; say('gone')")
        assert bob.words() == ["gone"]
        until(lambda: "rate" not in alice.settings)
        alice.settings["rate"] = "again"
        carol = agents("carol")
        assert carol.settings["rate"] == "again"
        bob.tell("time.sleep(0.5); say(agent.settings['rate'])")
        assert bob.words() == ["again"]


class Heavy(BaseDelegate):
    """Has 13 MiB of state, and takes that of others."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def local_state(self, join: bool) -> bytes:
        return bytes(13 << 20)

    def merge_remote_state(self, state: bytes, join: bool) -> None:
        self.got.append(len(state))


def test_what_agents_share_is_not_dropped_for_a_large_state_of_the_users(agents: Make) -> None:  # noqa: F811
    one, two = Heavy(), Heavy()
    alice = agents("alice", delegate=one)
    blob = bytes(60_000)
    for number in range(115):  # 6.6 MiB
        alice.settings[f"k{number}"] = blob
    bob = agents("bob", delegate=two)
    assert len(bob.settings) == 115, "when the constructor returns"
    assert two.got == [13 << 20]
    assert any("over QUIC" in problem for problem in alice.health().problems)
