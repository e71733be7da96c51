"""A plane that follows a membership: what it takes from metadata and from news."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import ResourcesExhausted
from mycorrizal._runtime.data.follow import Follower
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire import msgpack
from mycorrizal._wire.meta import BOOT_TAG, SERF_TAG, AgentMeta, agent_meta, port_meta
from mycorrizal.events import EventsLost, MemberFailed, MemberJoined, MemberLeft, MemberUpdated
from mycorrizal.types import Node, NodeState

OLD, NEW = b"old-boot", b"new-boot"


def node(name: str, boot: bytes | None = None, port: int = 7000) -> Node:
    return Node(name, bytes((10, 0, 0, 1)), 7946, agent_meta(AgentMeta(port, boot), None))


GONE: list[tuple[Node, float]] = []


class Machine:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.peers = {"b": None, "c": None}
        self.told: list[tuple[str, str]] = []

    def peer_down(self, name: str, why: str, now: float) -> None:
        self.told.append((name, why))

    def peer_changed(self, name: str, now: float) -> None:
        self.told.append((name, "changed"))


class Events:
    """A stream that has ended once all is read."""

    def __init__(self, *events: Any) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Any]:
        return iter(self._events)

    def close(self) -> None:
        """It has ended."""


def follow(members: list[Node], *events: Any) -> tuple[Follower, Any, list[tuple[str, str]]]:
    """Return a follower that has read `events`, its core, and what the machine was told, in order."""

    def submit(command: Callable[[float], object]) -> None:
        command(0.0)

    core: Any = SimpleNamespace(
        name="a", machine=Machine(), submit=submit, member=None, process=None, missing=None, members=None
    )
    follower = Follower(core, lambda: tuple(members), lambda: GONE, Events(*events))  # type: ignore[arg-type]
    follower.close(Deadline(10.0))
    return follower, core, core.machine.told


def test_processes_stand_in_the_metadata_of_agents() -> None:
    tags = {SERF_TAG: "7000", BOOT_TAG: OLD.hex()}
    serf = b"\xff" + msgpack.pack({key.encode(): value.encode() for key, value in tags.items()})
    members = [
        node("agent", OLD), Node("serf", bytes(4), 1, serf), Node("port", bytes(4), 1, port_meta(7000)),
        Node("none", bytes(4), 1), Node("odd", bytes(4), 1, b"\x1b\x58" + b"what else"),
    ]  # fmt: skip
    _, core, _ = follow(members)
    assert [core.process(member.name) for member in members] == [OLD, OLD, None, None, None]
    assert core.process("nobody") is None
    assert core.member("agent") and not core.member("nobody")


def test_who_cannot_be_dialled_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now() + clock.wall_offset()
    failed, left = (replace(node(name), state=state) for name, state in (("f", NodeState.DEAD), ("l", NodeState.LEFT)))
    monkeypatch.setitem(globals(), "GONE", [(failed, now - 4.5), (left, now - 3700)])
    follower = follow([node("bob"), node("carol"), Node("go", bytes((10, 0, 0, 1)), 7946)])[0]
    why, hint = follower.missing("f")
    assert why.startswith("f failed ") and why.endswith(" s ago") and "members(all=True)" in hint
    assert follower.missing("l")[0] == "l left 1 h 1 min ago"
    assert follower.missing("bobb") == ("'bobb' was never seen; members are bob, carol, go", "is it 'bob'?")
    why, hint = follower.missing("xyz")
    assert "never seen" in why and "wait until it has joined" in hint
    assert follower.missing("go")[0] == "go is a member without a data plane"
    assert "without a key only loopback" in follower.missing("bob")[0]
    for name in ("f", "l", "bobb", "go", "bob"):
        assert not any("add_peer" in text or "peers=" in text for text in follower.missing(name))
    many = follow([node(f"n{number}") for number in range(30)])[0]
    assert many.missing("xyz")[0].endswith("n8, n9 and 20 more")


def test_who_was_here_before_is_looked_at() -> None:
    assert follow([node("b", OLD)])[2] == [("b", "changed"), ("c", "changed")]


@pytest.mark.parametrize("event", [MemberFailed, MemberLeft])
def test_the_end_of_a_process_is_not_that_of_the_next_one(event: Any) -> None:
    """A takeover is told as a failure and a join, and both are known when the first is read."""
    why = "has left" if event is MemberLeft else "was declared dead"
    begun = [("b", "changed"), ("c", "changed")]
    assert follow([], event(node("b", OLD)))[2][2:] == [("b", why)]
    told = follow([node("b", NEW)], event(node("b", OLD)), MemberJoined(node("b", NEW)))[2]
    assert told == begun + 2 * [("b", "changed")]
    # The same process, or one that tells nothing: what is open ends, as it always did.
    assert follow([node("b", OLD)], event(node("b", OLD)))[2][2:] == [("b", why)]
    assert follow([node("b")], event(node("b")))[2][2:] == [("b", why)]
    assert follow([node("b")], event(node("b", OLD)))[2][2:] == [("b", why)]
    assert follow([node("b", NEW)], event(node("b")))[2][2:] == [("b", "changed")]


def test_changed_metadata_and_lost_events_are_looked_at() -> None:
    assert follow([node("b", NEW)], MemberUpdated(node("b", NEW)))[2][2:] == [("b", "changed")]
    told = follow([node("b", NEW)], EventsLost(3, ()))[2][2:]
    assert told == [("c", "is no member any more"), ("b", "changed"), ("c", "changed")]


def test_who_has_moved_shows_itself_to_whom_it_dialled() -> None:
    """Those answer to where they have heard from; they need not have heard of the move."""
    pinged: list[str] = []

    def link(name: str, dialled: bool) -> Any:
        return SimpleNamespace(conn=SimpleNamespace(dialled=dialled, ping=lambda: pinged.append(name)))

    moved = Node("a", bytes((10, 0, 0, 9)), 7946)
    for event, expected in ((MemberUpdated(node("a")), []), (MemberUpdated(moved), ["b"])):
        core: Any = SimpleNamespace(
            name="a", machine=Machine(), member=None, process=None, missing=None, members=None,
            submit=lambda command: command(0.0),
        )
        core.machine.links = {"b": link("b", True), "c": link("c", False)}
        Follower(core, lambda: (node("a"),), list, Events(event)).close(Deadline(10.0))  # type: ignore[arg-type]
        assert pinged == expected


def test_without_a_thread_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    stream = SimpleNamespace(close=lambda: closed.append(True))
    before = {"member": "m", "process": "p", "missing": "n", "members": "s"}
    core: Any = SimpleNamespace(name="a", machine=Machine(), submit=lambda command: None, **before)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: exec("raise RuntimeError('none')"))
    with pytest.raises(ResourcesExhausted):
        Follower(core, tuple, list, stream)  # type: ignore[arg-type]
    assert closed == [True] and (core.member, core.process, core.missing) == ("m", "p", "n")
