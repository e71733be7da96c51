"""What has to be told is told, also when the gossip thread had no room for it just then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from mycorrizal import Agent, QueueFull
from mycorrizal._wire.values import encode_value

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

WAIT = 20.0


@contextlib.contextmanager
def full(agent: Agent) -> Iterator[None]:
    """Hold the gossip thread, with as much in its mailbox as goes in."""
    sharing = agent._running.sharing
    held, go = threading.Event(), threading.Event()

    def hold(now: float) -> None:
        held.set()
        go.wait(WAIT)

    sharing.post(hold)
    assert held.wait(WAIT)
    try:
        with contextlib.suppress(QueueFull):
            while True:
                sharing.post(lambda now: None)
        yield
    finally:
        go.set()


def test_a_change_of_health_is_not_lost(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2), bob.wait_for(2)
    well, asked = [True], [0]

    def check() -> bool:
        asked[0] += 1
        return well[0]

    bob.services.register("api", check=check, interval=0.05)
    until(lambda: alice.services.find("api"), WAIT)
    for now in (False, True, False):  # a second one in a row, and the other direction
        with full(bob):
            well[0] = now
            before = asked[0]
            until(lambda: asked[0] > before + 2, WAIT)  # noqa: B023
        until(lambda: alice.services.find("api", healthy=now), WAIT)  # noqa: B023


def test_what_is_said_while_the_spread_is_full_is_said_later(
    agents: Make, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    alice = agents("alice")
    registration = alice.services.register("api")
    spread = alice._running.sharing.replica._spread
    refused: list[int] = []

    def check(size: int, now: float) -> None:
        if len(refused) < 3:
            refused.append(size)
            raise QueueFull("too many messages are waiting to be spread")

    monkeypatch.setattr(spread, "check", check)
    registration.tell(False)
    until(lambda: alice.services.find("api", healthy=False), WAIT)
    assert alice.metrics()["share.health_put_off"] == 3


def test_tags_and_a_goodbye_wait_for_room(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2), bob.wait_for(2)
    threads = []
    with full(bob):
        threads.append(threading.Thread(target=bob.update_tags, args=({"a": "b"}, WAIT)))
        threads[0].start()
        threads[0].join(0.3)
        assert threads[0].is_alive()
    threads[0].join(WAIT)
    until(lambda: {m.name: m for m in alice.members()}["bob"].tags == {"a": "b"}, WAIT)
    with full(bob):
        with pytest.raises(QueueFull):
            bob.update_tags({"c": "d"}, 0.2)
        assert bob._running.identity.tags == {"a": "b"}
        leaving = threading.Thread(target=bob.leave, args=(WAIT,))
        leaving.start()
        leaving.join(0.3)
    leaving.join(WAIT)
    until(lambda: alice.members().names == ["alice"], WAIT)


def test_a_push_that_finds_no_room_is_not_taken_for_told(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2), bob.wait_for(2)
    sharing = bob._running.sharing
    answers: list[bytes] = []
    with full(bob):
        sharing.serve("alice", b"\0" + encode_value([b"x"]).pack(), answers.append)
        assert answers == [], "who hears that it arrived does not tell it again"
        assert bob.metrics()["share.dropped"] == 1
