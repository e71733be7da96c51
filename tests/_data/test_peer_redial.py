"""When a connection is dialled again: in virtual time, with the peer that would make a storm of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mycorrizal._data.peer import Opening
from mycorrizal._data.ports import BY_QUIC, ON_HOST
from mycorrizal._wire.frames import Close
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import ResourcesExhausted
from tests._data.harness import FakeSink, Node, Outcome, World, answer_of, leftovers, mesh, pair

SECONDS = 5.0
DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""The policy: doubling from ``redial_first``; jitter may halve each."""
MOST = 7
"""Dials in 5 s: the first, and those after pauses of 0.05, 0.1, 0.2, 0.4, 0.8 and 1.6 s, if all jitter is the least."""


def record(node: Node) -> list[float]:
    """Return the list of moments at which `node` dials from now on."""
    times: list[float] = []
    dial = node.dial

    def noted(address: Any, peer: str | None, now: float) -> Any:
        times.append(now)
        return dial(address, peer, now)

    node.dial = noted  # type: ignore[method-assign]
    return times


def lose(link: Any, code: int = 0) -> None:
    """Let both ends of a connection lose it, with a code of the transport's."""
    link.conn._end(code, "", False, "reset")
    link.conn.other._end(code, "", True, "closed" if code else "reset")


def slam(world: World, node: Node, code: int, *, after: float = 0.0, works: bool = False) -> None:
    """Have `node` close every connection `after` seconds after it was welcomed; if it `works`, once that is used."""

    def look() -> None:
        for link in list(node.machine.links.values()):
            used = link.peer is not None and bool(node.ran or node.messages)
            if link.welcomed and world.now - link.ready_at >= after and (used or not works):
                if code not in list(Close):
                    lose(link, code)
                else:
                    link.close(code, "go away", world.now)
                node.ran.clear()
                node.messages.clear()
        world.later(0.001, look)

    world.later(0.0, look)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("code", [Close.SHUTDOWN, Close.PROTOCOL, Close.FULL, Close.KEY_REMOVED, 0x101])
def test_a_peer_that_welcomes_and_closes_is_dialled_with_pauses(code: int, seed: int) -> None:
    world, a, b = pair(seed)
    slam(world, b, code, after=0.3)
    b.offer = lambda item, size: False  # type: ignore[method-assign]  # so that the message goes on waiting
    dials = record(a)
    message, outcome = a.send("b", "hello")
    world.run(SECONDS)
    assert outcome.ended is None  # it waits within its deadline
    assert 4 <= len(dials) <= MOST
    assert a.counters["quic.backoffs"] >= len(dials) - 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(dials)]
    for pause, delay in zip(pauses, DELAYS, strict=False):
        assert pause >= delay / 2, (pauses, delay)
    a.machine.peer("b").withdraw(message, world.now)


@pytest.mark.parametrize("what", ["request", "send", "stream"])
@pytest.mark.parametrize("code", [Close.SHUTDOWN, 0])
def test_calls_in_a_loop_are_no_storm_either(what: str, code: int) -> None:
    world, a, b = pair(1)
    slam(world, b, code)
    b.handler = lambda request: None
    b.offer = lambda item, size: False  # type: ignore[method-assign]
    dials = record(a)

    def again() -> None:  # as a user who tries again at once, whatever happens
        outcome = Outcome(lambda: world.now)
        if what == "request":
            outcome = a.request("b", timeout=5.0)[1]
        elif what == "send":
            outcome = a.send("b", 1)[1]
        else:
            a.machine.open("b", Opening(b"s", FakeSink(), outcome), world.now)

        def look() -> None:
            world.later(0.001, look if outcome.ended is None else again)

        look()

    again()
    world.run(SECONDS)
    assert 4 <= len(dials) <= MOST


def test_the_accepting_side_pauses_too() -> None:
    """The peer dials, welcomes, and closes: what waits here makes no storm of dials back."""
    world, a, b = pair(2)
    slam(world, b, Close.SHUTDOWN, after=0.3)
    b.offer = lambda item, size: False  # type: ignore[method-assign]
    dials = record(a)
    b.request("a", timeout=1.0)
    a.send("b", "waits")
    world.run(SECONDS)
    assert 1 <= len(dials) <= MOST


def test_where_no_connection_can_be_made_calls_fail_and_dials_pause() -> None:
    """QUIC cannot be loaded, say, for want of descriptors: what waits hears of it, and later it works."""
    world, a, b = pair(3)
    dials, dial = record(a), a.dial
    why = ResourcesExhausted("no descriptors")

    def fails(address: Any, peer: str | None, now: float) -> Any:
        dials.append(now)
        raise why

    a.dial = fails  # type: ignore[method-assign]
    (_, asked), (_, told) = a.request("b", timeout=1.0), a.send("b", "one")
    world.run(1.0)
    assert isinstance(asked.error, ResourcesExhausted) and isinstance(told.error, ResourcesExhausted)
    assert leftovers(a.machine) == []
    dials.clear()

    def more() -> None:
        a.send("b", "again")
        world.later(0.01, more)

    more()
    world.run(SECONDS)
    assert 4 <= len(dials) <= MOST
    a.dial = dial  # type: ignore[method-assign]
    world.until(lambda: b.messages)


@pytest.mark.parametrize("seed", range(3))
def test_a_peer_that_works_a_little_is_no_storm(seed: int) -> None:
    """Work done ends the back-off, but no two dials come closer together than its first step."""
    world = World(seed, delay=(0.0001, 0.0002))
    a, b = mesh(world, ["a", "b"])
    slam(world, b, Close.SHUTDOWN, after=0.01, works=True)
    dials = record(a)

    def more() -> None:
        a.send("b", 0)
        world.later(0.005, more)

    more()
    world.run(SECONDS)
    assert 20 <= len(dials) <= SECONDS / 0.05 + 2


@pytest.mark.parametrize("close", [Close.SHUTDOWN, Close.IDLE, None])
def test_after_a_healthy_life_the_first_dial_is_at_once(close: int | None) -> None:
    world, a, b = pair(3)
    outcome = a.request("b")[1]
    world.until(lambda: outcome.ok)
    world.run(2.0)
    link = b.link("a")
    if close is None:
        lose(link)
    else:
        link.close(close, "later", world.now)
    world.run(0.1)
    assert a.link("b") is None
    began = world.now
    again = a.request("b")[1]
    world.until(lambda: again.ok)
    assert answer_of(again) == "done" and world.now - began < 0.5
    assert a.machine.peer("b").failures == 0 and "quic.backoffs" not in a.counters


def test_an_idle_close_and_reopen_is_never_slowed() -> None:
    world, a, b = pair(4, DataConfig(idle_timeout=0.2))
    dials = record(a)
    for _ in range(10):
        began = world.now
        outcome = a.request("b")[1]
        world.until(lambda: outcome.ok)  # noqa: B023
        assert world.now - began < 0.6
        world.until(lambda: not a.machine.links and not b.machine.links)
    assert len(dials) == 10 and "quic.backoffs" not in a.counters


@pytest.mark.parametrize("leave", [None, Close.SHUTDOWN])
def test_who_comes_asks_and_goes_is_called_without_a_pause(leave: int | None) -> None:
    """The peer's connections were of no use to us, and we wanted nothing of them."""
    world, a, b = pair(6)
    b.machine.config = DataConfig(idle_timeout=0.2)
    for _ in range(20):
        outcome = b.request("a")[1]
        world.until(lambda: outcome.ok)  # noqa: B023
        if leave is not None:
            b.link("a").close(leave, "bye", world.now)
        world.until(lambda: not a.machine.links and not b.machine.links)
    assert a.machine.peer("b").info().state == "idle"
    mine, dials, began = a.request("b")[1], record(a), world.now
    world.until(lambda: mine.ok)
    assert world.now - began < 0.5 and "quic.backoffs" not in a.counters and dials == []


def test_an_idle_close_of_a_connection_that_was_of_no_use_is_no_failure() -> None:
    world, a, b = pair(7)
    b.machine.config = DataConfig(idle_timeout=0.2)
    for _ in range(5):
        greeting = Outcome(lambda: world.now)
        a.machine.greet(b.address, greeting, world.now)
        world.until(lambda: greeting.ok)  # noqa: B023
        world.until(lambda: not a.machine.links and not b.machine.links)
    assert a.machine.peer("b").info().state == "idle" and "quic.backoffs" not in a.counters


def test_a_peer_that_calls_idle_what_is_in_use_is_dialled_with_pauses() -> None:
    world, a, b = pair(8)
    slam(world, b, Close.IDLE, after=0.3)
    b.handler = lambda request: None
    dials = record(a)
    a.request("b")
    world.run(SECONDS)
    assert 4 <= len(dials) <= MOST


def test_what_work_means() -> None:
    """An answered call or an accepted message; a request that we served is none of our own."""
    world, a, b = pair(5)
    done = a.send("b", 1)[1]
    world.until(lambda: done.ok)
    assert a.link("b").worked and not b.link("a").worked
    outcome = b.request("a")[1]
    world.until(lambda: outcome.ok)
    assert b.link("a").worked


@pytest.mark.parametrize("code", [0, Close.NOT_PROVED, Close.PROTOCOL, Close.NAME_TAKEN])
@pytest.mark.parametrize("ours", [False, True])
def test_a_way_that_fails_before_the_welcome_is_followed_by_another_at_once(code: int, ours: bool) -> None:
    """What waits goes on waiting, and is sent once; a failure of the way that follows is one."""
    world, a, b = pair()
    world.way = ON_HOST
    call, outcome = a.request("b", ["once"])
    message = a.send("b", ["once"])[1]
    world.until(lambda: any(link.ready for link in a.machine.links.values()), SECONDS)
    (link,) = a.machine.links.values()
    assert link.ready and not link.welcomed
    world.way = BY_QUIC
    dials = record(a)
    if ours:
        link.close(code, "no", world.now)
    else:
        lose(link, code)
    world.until(lambda: outcome.ended and message.ended, SECONDS)
    assert outcome.ok and message.ok and len(dials) == 1
    assert b.ran == [["once"]] and [value for _, value in b.messages] == [["once"]]
    assert call.done and not a.machine.peer("b").delayed
    assert {link.conn.way for link in a.machine.links.values()} == {BY_QUIC}
