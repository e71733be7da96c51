"""A few replicas that hand each other everything by hand, in virtual time; single messages can be lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from mycorrizal._replica.limits import Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.outputs import EventReceived, EventsMissed, Output
from mycorrizal._swim.broadcasts import TransmitLimitedQueue

WALL = 1_700_000_000.0


def boot(name: str, life: int = 0) -> bytes:
    return f"{name}{life}".encode().ljust(8, b".")[:8]


def replica(name: str = "a", *, life: int = 0, nodes: int = 4, now: float = 0.0, **more: Any) -> Replica:
    more.setdefault("wall", WALL)
    return Replica(
        name,
        boot(name, life),
        rng=Random(f"{name}/{life}"),
        queue=TransmitLimitedQueue(4, lambda: nodes),
        now=now,
        **more,
    )


def drain(one: Replica) -> list[Output]:
    found = []
    while (event := one.next_event()) is not None:
        found.append(event)
    return found


def of(found: list[Output], kind: type) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


def exchange(one: Replica, other: Replica, now: float = 0.0) -> None:
    """A push/pull that `one` dialled: both states are taken before either is merged."""
    mine, theirs = one.local_state(False), other.local_state(False)
    other.merge_state(mine, False, now)
    one.merge_state(theirs, False, now, answer=True)


class Net:
    """Replicas that all know each other, with gossip, pushes and fetches between them.

    Attributes:
        lose: asked for each message and fetch (what, source, target): whether it is lost.
        direct: whether what is told directly arrives; else gossip is all there is.
    """

    def __init__(
        self, *names: str, joined: bool = True, gossip: bool = True, limits: Limits | None = None, direct: bool = False
    ) -> None:
        self.direct = direct
        self.now = 0.0
        self.rng = Random(1)
        self.lose: Callable[[str, str, str], bool] = lambda what, source, target: False
        self.replicas: dict[str, Replica] = {}
        self.said: dict[str, list[Output]] = {}
        self.fetches: list[tuple[str, str]] = []
        for name in names:
            self.add(name, joined=joined, gossip=gossip, limits=limits or Limits())

    def __getitem__(self, name: str) -> Replica:
        return self.replicas[name]

    def add(self, name: str, *, life: int = 0, joined: bool = True, **more: Any) -> Replica:
        new = replica(name, life=life, now=self.now, **more)
        self.replicas[name] = new
        self.said.setdefault(name, [])
        for other in self.replicas.values():
            if other is not new:
                other.member_up(name, new.boot, self.now)
                new.member_up(other.name, other.boot, self.now)
        if joined:
            new.joined(self.now)
        return new

    def remove(self, name: str) -> None:
        del self.replicas[name]
        for other in self.replicas.values():
            other.member_down(name, self.now)

    def run(self, seconds: float, step: float = 0.1) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.turn()

    def turn(self) -> None:
        for name, one in list(self.replicas.items()):
            timer = one.get_timer()
            if timer is not None and timer <= self.now:
                one.handle_timer(self.now)
            parts = one.get_broadcasts(2, 1400)
            others = [other for other in self.replicas if other != name]
            for target in self.rng.sample(others, min(3, len(others))):
                if not self.lose("gossip", name, target):
                    for part in parts:
                        self.replicas[target].receive(part, self.now)
            self.carry(name, one)

    def carry(self, name: str, one: Replica) -> None:
        if self.direct:
            told, targets = one.direct_to_send(self.now)
            for target, message in [(target, message) for target in targets for message in told]:
                if target in self.replicas and not self.lose("direct", name, target):
                    self.replicas[target].receive(message, self.now)
        for push in one.pushes_to_send():
            for target in push.targets:
                if target in self.replicas and not self.lose("push", name, target):
                    self.replicas[target].receive(push.payload, self.now, pushed=True)
        while fetches := one.fetches_to_start():
            for fetch in fetches:
                self.fetches.append((name, fetch.member))
                if fetch.member not in self.replicas or self.lose("fetch", name, fetch.member):
                    one.fetch_failed(fetch.fetch_id, self.now)
                else:
                    answer = self.replicas[fetch.member].answer_fetch(fetch.payload, self.now)
                    one.fetched(fetch.fetch_id, answer, self.now)
        self.said[name] += drain(one)

    def events(self, name: str, sender: str | None = None) -> list[int]:
        """Numbers of the events that `name` got (of `sender`), in order."""
        return [e.number for e in of(self.said[name], EventReceived) if sender in (None, e.sender)]

    def missed(self, name: str) -> int:
        return sum(e.count for e in of(self.said[name], EventsMissed))
