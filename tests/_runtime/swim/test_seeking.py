"""Seeds are asked again: soon while alone, now and then later on, and only those that no member is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import JoinError, PeerUnreachable
from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.swim.seeking import Seeking, pause_before
from mycorrizal._runtime.threads import clock

OWN, BOB, CAROL = ("10.0.0.1", 7946), ("10.0.0.2", 7946), ("10.0.0.3", 7946)


class Waits:
    """The pauses that were taken; what happens in each of them."""

    def __init__(self, *events: Any) -> None:
        self.events = list(events)
        self.pauses: list[float] = []
        self.over = False

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        if not self.events:
            return True
        event = self.events.pop(0)
        if event is not None:
            event()
        return False

    def is_set(self) -> bool:
        return self.over


class Cluster:
    """What a ``Seeking`` sees of one."""

    def __init__(self, *members: tuple[str, int]) -> None:
        self.members = [OWN, *members]
        self.entries = ["10.0.0.1:7946", "10.0.0.2:7946", "carol/10.0.0.3:7946"]
        self.joined: list[list[str]] = []
        self.answers = False

    def seeking(self, *events: Any) -> tuple[Seeking, Waits]:
        def view() -> Any:
            return SimpleNamespace(members=tuple([SimpleNamespace(address=address) for address in self.members]))

        membership: Any = SimpleNamespace(
            config=SimpleNamespace(name="alice", bind_port=7946), view=view,
            is_own=lambda address: address in (OWN, ("127.0.0.1", 7946)),
        )  # fmt: skip
        found = Seeking(membership, lambda seconds: self.entries, self.join)
        found._over = waits = Waits(*events)  # type: ignore[assignment]
        return found, waits

    def join(self, entries: list[str], seconds: float) -> None:
        self.joined.append(entries)
        if not self.answers:
            raise JoinError("nobody", failures={})

    def grow(self) -> None:
        self.members = [OWN, BOB]

    def shrink(self) -> None:
        self.members = [OWN]


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)


def test_pauses_grow_while_alone_and_are_long_once_somebody_is_there() -> None:
    assert [pause_before(tries, True) for tries in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pause_before(1 << 20, True) == 5.0 and pause_before(0, False) == 60.0


def test_seeds_that_are_members_or_this_node_are_not_asked() -> None:
    cluster = Cluster(BOB)
    one, waits = cluster.seeking(None, None)
    one._run()
    assert cluster.joined == [["carol/10.0.0.3:7946"]] * 2 and waits.pauses == [60.0] * 3
    cluster.members.append(CAROL)
    one, _ = cluster.seeking(None)
    one._run()
    assert len(cluster.joined) == 2


def test_who_is_alone_again_asks_soon() -> None:
    cluster = Cluster()
    one, waits = cluster.seeking(None, None, cluster.grow, None, cluster.shrink, None)
    one._run()
    assert waits.pauses == [0.2, 0.4, 0.8, 60.0, 60.0, 0.2, 0.4]
    assert cluster.joined[0] == ["10.0.0.2:7946", "carol/10.0.0.3:7946"]


def test_it_is_given_up_after_a_time_unless_somebody_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    cluster = Cluster()

    def later() -> None:
        now[0] += 10.0

    one, _ = cluster.seeking(None, later, None, None)
    one._until = 105.0
    one._run()
    assert one.gave_up and one.looks == 1
    now[0] = 100.0
    one, _ = cluster.seeking(cluster.grow, later, cluster.shrink, None)
    one._until = 105.0
    one._run()
    assert not one.gave_up and one.looks == 4


def test_an_address_of_ours_that_no_member_tells_and_a_name_without_one_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    cluster.entries = ["127.0.0.1:7946", "nowhere:7946"]
    plain = addresses.resolve

    def resolve(host: str, port: int) -> Any:
        if host == "nowhere":
            raise PeerUnreachable("no such name")
        return plain(host, port)

    monkeypatch.setattr(addresses, "resolve", resolve)
    one, _ = cluster.seeking(None, None)
    one._run()
    assert one.looks == 2 and cluster.joined == []


def test_who_ends_while_a_name_is_looked_up_joins_nobody() -> None:
    cluster = Cluster()
    one, waits = cluster.seeking(None)

    def find(seconds: float) -> list[str]:
        waits.over = True
        return cluster.entries

    one._find = find
    one._run()
    assert one.looks == 1 and cluster.joined == []
