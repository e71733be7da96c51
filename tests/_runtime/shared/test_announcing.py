"""Telling every agent: who reaches whom, with how many messages."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from mycorrizal._runtime.shared.announcing import ANNOUNCE, Announcing, unpacked
from mycorrizal.exceptions import MycorrizalError, OperationTimeout, PeerUnreachable


class Agents:
    """Agents that all see each other; payloads arrive in order."""

    def __init__(self, count: int) -> None:
        self.names = [f"n{number:02}" for number in range(count)]
        self.heard: dict[str, list[bytes]] = {name: [] for name in self.names}
        self.asks: Counter[tuple[str, str]] = Counter()
        self.deaf: set[str] = set()
        self.suspects: set[str] = set()
        self.error: MycorrizalError = PeerUnreachable("deaf")
        self.steps: deque[Callable[[], object]] = deque()
        self.all = {
            name: Announcing(
                name, partial(self.others, name), lambda: self.suspects, partial(self.ask, name), self.note
            )
            for name in self.names
        }

    def others(self, name: str) -> list[str]:
        return [other for other in self.names if other != name]

    def note(self, command: Callable[[float], object]) -> None:
        self.steps.append(lambda: command(0.0))

    def ask(self, sender: str, node: str, payload: bytes, timeout: float, done: Any) -> None:
        self.asks[sender, node] += 1
        if node in self.deaf:
            self.steps.append(lambda: done(None, self.error))
        else:
            self.steps.append(lambda: self.serve(sender, node, payload, lambda answer: done(answer, None)))

    def serve(self, sender: str, node: str, payload: bytes, answer: Callable[[bytes], None]) -> None:
        if payload[:1] == ANNOUNCE:
            self.heard[node] += unpacked(payload[1:], bytes)
            self.steps.append(lambda: answer(b""))
        else:
            self.heard[node].append(payload[1:])
            self.all[node].pass_on(sender, payload[1:], answer)

    def tell(self, *names: str) -> dict[str, list[list[str]]]:
        """Have some tell all others their names; return who has heard, for each."""
        found: dict[str, list[list[str]]] = {name: [] for name in names}
        for name in names:
            self.all[name].tell(name.encode(), found[name].append)
        while self.steps:
            self.steps.popleft()()
        return found


def test_many_that_tell_all_at_once_reach_each_other_through_one() -> None:
    """It were 870 messages, and a connection between each two of 30."""
    agents = Agents(30)
    found = agents.tell(*agents.names)
    assert all(sorted(heard) == agents.others(name) for name, (heard,) in found.items())
    assert all(sorted(agents.heard[name]) == [it.encode() for it in agents.others(name)] for name in agents.names)
    assert {frozenset(pair) for pair in agents.asks} == {frozenset(("n00", name)) for name in agents.names[1:]}
    assert sum(agents.asks.values()) <= 29 * 4


def test_a_few_are_told_directly() -> None:
    agents = Agents(4)
    (heard,) = agents.tell("n03")["n03"]
    assert sorted(heard) == agents.others("n03") and {*agents.asks} == {("n03", name) for name in heard}


def test_who_is_not_reached_is_not_among_those_that_have_heard_and_nobody_waits_for_it() -> None:
    agents = Agents(10)
    agents.deaf = {"n04"}
    found = agents.tell(*agents.names)
    assert all(sorted([*heard, "n04"]) == sorted({*agents.others(name), "n04"}) for name, (heard,) in found.items())
    assert not any(agent._sent or agent._waiting for agent in agents.all.values())


def test_without_the_first_a_few_hear_of_it_at_once() -> None:
    """No more: all may be late because all are busy, and gossip carries it too."""
    agents = Agents(30)
    agents.deaf = {"n00"}
    found = agents.tell(*agents.names[1:])
    assert all(1 <= len(heard) <= 4 for (heard,) in found.values())
    assert max(agents.asks.values()) == 1 or sum(agents.asks.values()) <= 29 * 6


def test_a_first_that_is_late_makes_no_more_work() -> None:
    agents = Agents(30)
    agents.deaf, agents.error = {"n00"}, OperationTimeout("late")
    found = agents.tell(*agents.names[1:])
    assert all(heard == [[]] for heard in found.values())
    assert {*agents.asks} == {(name, "n00") for name in agents.names[1:]}


def test_who_may_be_gone_is_not_the_one_who_tells_the_others() -> None:
    """A host that has vanished is suspect for seconds before it is dead; who asked it heard from nobody meanwhile."""
    agents = Agents(10)
    agents.deaf, agents.error, agents.suspects = {"n00"}, OperationTimeout("late"), {"n00"}
    found = agents.tell("n05", "n09")
    assert all(sorted([*heard, "n00"]) == agents.others(name) for name, (heard,) in found.items())
    assert ("n05", "n01") in agents.asks and ("n01", "n00") in agents.asks, "it is told all the same"


def test_nobody_waits_for_suspects() -> None:
    agents = Agents(4)
    agents.deaf, agents.suspects = {"n02"}, {"n01", "n02"}
    assert agents.tell("n00")["n00"] == [["n03"]]
    assert agents.heard["n01"] == [b"n00"]
    agents.suspects = {"n01", "n02", "n03"}
    assert agents.tell("n00")["n00"] == [[]]
    assert not any(agent._sent or agent._waiting for agent in agents.all.values())


def test_where_all_others_are_suspect_each_is_told() -> None:
    agents = Agents(10)
    agents.suspects = {*agents.names[:9]}
    assert agents.tell("n09")["n09"] == [[]]
    assert all(agents.heard[name] == [b"n09"] for name in agents.names[:9])


def test_an_agent_alone_has_told_everybody() -> None:
    assert Agents(1).tell("n00") == {"n00": [[]]}


def test_what_is_no_list_of_that_kind_is_an_empty_one() -> None:
    for payload in (b"", b"\xff" * 9, b"\x00\x00\x00\x00\x01\xf6"):
        assert unpacked(payload, bytes) == []
