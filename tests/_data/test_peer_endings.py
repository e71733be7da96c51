"""How calls end, cell for cell: each ending, with a call that waits, one that was sent, and one answered too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from mycorrizal._data.peer import Opening
from mycorrizal._endings import TABLE, Ending, error
from mycorrizal._wire.frames import Close
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import MycorrizalError
from tests._data.harness import FakeSink, Node, Outcome, World, pair
from tests._data.raw import RawConn

LONG = 40.0
"""Seconds after which whatever is to end a call has done so; within its timeout, if it has one."""


class Case(NamedTuple):
    world: World
    a: Node
    b: Node


def close(case: Case) -> None:
    case.a.machine.close(error(Ending.CLOSED, "closed"), case.world.now)


def crash(case: Case) -> None:
    case.a.machine.close(error(Ending.CRASHED, "died", cause=ValueError("boom")), case.world.now)


def kill(case: Case) -> None:
    case.b.die()


def declare(case: Case) -> None:
    case.a.machine.peer_down("b", "was declared dead", case.world.now)


def peer_closes(case: Case) -> None:
    case.b.machine.close(error(Ending.CLOSED, "closed"), case.world.now)
    case.world.later(0.5, case.b.die)


def connection_closed(case: Case) -> None:
    for link in list(case.b.machine.links.values()):
        link.close(Close.PROTOCOL, "go away", case.world.now)


def remove_key(case: Case) -> None:
    for node in (case.a, case.b):
        node.trust.keys = ["new"]
    case.a.machine.keys_changed(case.world.now)


def remove_key_there(case: Case) -> None:
    for node in (case.a, case.b):
        node.trust.keys = ["new"]
    case.b.machine.keys_changed(case.world.now)


def claim(case: Case) -> None:
    """Membership knows another process as b, which comes a little later."""
    case.a.processes["b"] = b"anotherb"
    case.a.machine.peer_changed("b", case.world.now)


def restart(case: Case) -> None:
    """Another process answers at b's address, and tells so at once."""
    case.b.die()
    new = Node(case.world, "b", case.b.address, inbox=(0, 0))
    new.offer = lambda item, size: False  # type: ignore[method-assign]
    new.handler = lambda request: None
    new.addresses = {"a": case.a.address}
    new.request("a", timeout=LONG)


def leave_it(case: Case) -> None:
    """Its time passes."""


ENDINGS: list[tuple[Ending, Callable[[Case], None]]] = [
    (Ending.CLOSED, close),
    (Ending.CRASHED, crash),
    (Ending.TIMEOUT, leave_it),
    (Ending.LOST, kill),
    (Ending.DOWN, declare),
    (Ending.PEER_CLOSED, peer_closes),
    (Ending.PEER_CLOSED, connection_closed),
    (Ending.KEY_REMOVED, remove_key),
    (Ending.KEY_REMOVED, remove_key_there),
    (Ending.OTHER_PROCESS, claim),
    (Ending.OTHER_PROCESS, restart),
]
IDS = [f"{ending.name}-{act.__name__}" for ending, act in ENDINGS]
CASES = pytest.mark.parametrize(("ending", "act"), ENDINGS, ids=IDS)


def connected(seed: int, *, timeout: bool = False) -> Case:
    """Return two nodes with a connection, of which b answers nothing and takes no message."""
    world, a, b = pair(seed, DataConfig(silence_timeout=6.0))
    first = a.request("b")[1]
    world.until(lambda: first.ok)
    b.handler = lambda request: None
    b.offer = lambda item, size: False  # type: ignore[method-assign]
    return Case(world, a, b)


def expect(found: MycorrizalError | None, ending: Ending, doubt: bool) -> None:
    row = TABLE[ending]
    assert found is not None and type(found) is row.kind, found
    assert (found.ending, found.indeterminate, found.retriable) == (ending.name, doubt, row.retriable), found
    assert found.node == "b"


@pytest.mark.parametrize("large", [False, True])
@CASES
def test_a_request_that_was_sent(ending: Ending, act: Callable[[Case], None], large: bool) -> None:
    case = connected(1)
    value = bytes(200_000) if large else None
    outcome = case.a.request("b", value, timeout=5.0 if act is leave_it else None)[1]
    case.world.run(1.0)
    assert len(case.b.ran) == 2
    act(case)
    case.world.until(lambda: outcome.ended is not None, LONG)
    expect(outcome.error, ending, True)


@CASES
def test_a_request_that_is_answered_too_late(ending: Ending, act: Callable[[Case], None]) -> None:
    """The answer crosses the end: that stays as it is, whatever comes."""
    case = connected(2)
    held: list[Any] = []
    case.b.handler = held.append
    outcome = case.a.request("b", timeout=5.0 if act is leave_it else None)[1]
    case.world.run(1.0)
    (request,) = held
    act(case)
    if act is leave_it:
        case.world.until(lambda: outcome.ended is not None, LONG)
    case.b.answer(request, "late")
    case.world.until(lambda: outcome.ended is not None, LONG)
    case.world.run(5.0)
    if outcome.error is None:  # the peer ends it, and the answer was first
        assert ending not in (Ending.CLOSED, Ending.CRASHED, Ending.TIMEOUT, Ending.DOWN)
    else:
        expect(outcome.error, ending, True)


@CASES
def test_a_message_that_was_sent(ending: Ending, act: Callable[[Case], None]) -> None:
    case = connected(3)
    message, outcome = case.a.send("b", "x")
    case.world.run(1.0)
    assert message.sequence
    if act is leave_it:
        return  # the caller's clock: see tests/test_dataplane.py
    act(case)
    row = TABLE[ending]
    case.world.run(LONG)
    if row.message is None and case.b.dead:  # it goes on, and then finds nobody
        expect(outcome.error, Ending.LOST, True)
    elif row.message is None:
        assert outcome.ended is None
    else:
        if act is claim:  # it waits for that process, for long
            case.world.until(lambda: outcome.ended is not None, 150.0)
        expect(outcome.error, ending, True)


@pytest.mark.parametrize("what", ["request", "send", "stream"])
@CASES
def test_what_was_not_sent(ending: Ending, act: Callable[[Case], None], what: str) -> None:
    """It waits for a first connection, which does not come about."""
    world, a, b = pair(4)
    world.blocked.add(frozenset((a.address, b.address)))
    case = Case(world, a, b)
    outcome = Outcome(lambda: world.now)
    if what == "request":
        outcome = a.request("b", timeout=3.0 if act is leave_it else LONG)[1]
    elif what == "send":
        outcome = a.send("b", "x")[1]
    else:
        a.machine.open("b", Opening(b"s", FakeSink(), outcome), world.now)
    world.run(0.5)
    assert outcome.ended is None
    act(case)
    world.run(0.5)
    if TABLE[ending].waiting is None:
        assert outcome.ended is None  # it goes on
    world.until(lambda: outcome.ended is not None, LONG)
    if what != "request" and ending is Ending.TIMEOUT:
        ending = Ending.LOST  # the caller's clock, as above: here the attempt ends
    expect(outcome.error, ending if TABLE[ending].waiting is not None else Ending.LOST, False)


@CASES
def test_a_stream_that_is_open(ending: Ending, act: Callable[[Case], None]) -> None:
    case = connected(5)
    case.b.sinks["s"] = FakeSink
    sink, outcome = FakeSink(), Outcome(lambda: case.world.now)
    case.a.machine.open("b", Opening(b"\x01s", sink, outcome), case.world.now)
    case.world.until(lambda: sink.is_accepted)
    if act is leave_it:
        return
    act(case)
    case.world.until(lambda: sink.errors, LONG)
    expect(sink.errors[0], ending, True)


def test_a_large_request_that_was_cut_off_has_no_effect() -> None:
    case = connected(6)
    outcome = case.a.request("b", bytes(50 << 20))[1]
    case.world.run(0.001)
    close(case)
    expect(outcome.error, Ending.CLOSED, False)


@pytest.mark.parametrize("act", [close, crash])
def test_a_request_and_a_message_to_oneself(act: Callable[[Case], None]) -> None:
    world, a, b = pair(7)
    a.handler = lambda request: None
    a.offer = lambda item, size: False  # type: ignore[method-assign]
    outcomes = [a.request("a")[1], a.send("a", 1)[1]]
    world.run(1.0)
    act(Case(world, a, b))
    for outcome in outcomes:
        found = outcome.error
        # What the own inbox has not taken has surely not come; a handler may have begun.
        assert found is not None and found.indeterminate == (outcome is outcomes[0]) and found.node == "a"
        assert type(found) is TABLE[Ending.CLOSED if act is close else Ending.CRASHED].kind


def test_what_comes_after_the_end_was_not_sent() -> None:
    case = connected(8)
    close(case)
    for outcome in (case.a.request("b")[1], case.a.send("b", 1)[1]):
        expect(outcome.error, Ending.CLOSED, False)


def test_an_answer_that_is_given_up_on_the_way() -> None:
    case = connected(9)
    case.b.handler = lambda request: case.b.answer(request, bytes(20 << 20))
    outcome = case.a.request("b")[1]
    case.world.until(lambda: any(link.bulk.values for link in case.a.machine.links.values()))
    for link in case.b.machine.links.values():
        for stream in list(link.bulk.flows):
            link.conn.reset(stream, Close.CANCELLED)
    case.world.until(lambda: outcome.ended is not None)
    expect(outcome.error, Ending.GAVE_UP, True)


@pytest.mark.parametrize(("reason", "hint"), [("no proof in time", "overloaded"), ("no such key", "compare")])
def test_a_proof_that_is_merely_late_is_not_held_for_a_wrong_key(reason: str, hint: str) -> None:
    for kind in ("closed", "local"):
        node = Node(World(), "b", ("10.0.0.1", 1))
        link = node.machine.add(RawConn(node.world, dialled=True), None)
        error = node.machine.unreachable("m", link, kind, Close.NOT_PROVED, reason)
        assert reason in str(error) and str(error.hint).partition(" key=")[0].count(hint) == 1
        assert error.retriable
