"""The table of services by itself: who is seen, who is remembered and for how long, who makes room for whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mycorrizal._replica.clock import Stamp
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.messages import Sender, Service
from mycorrizal._replica.outputs import Output, ServiceChanged
from mycorrizal._replica.services import Services

from .harness import boot

A, B, C = (Sender(name, boot(name)) for name in "abc")


class Table:
    """A ``Services`` with who is a member, what it said and what it counted."""

    def __init__(self, *up: Sender, **limits: Any) -> None:
        self.up = set(up)
        self.said: list[Output] = []
        self.counted: Counter[str] = Counter()
        self.stamps = 0
        self.services = Services(
            Limits(**limits), lambda life: life in self.up, lambda name: self.counted.update([name]), self.said.append
        )

    def service(self, life: Sender, service_id: str, record: bytes | None) -> Service:
        self.stamps += 1
        return Service(service_id, record, Stamp(self.stamps, 0, *life))

    def put(
        self, life: Sender, service_id: str = "s", record: bytes | None = b"r", now: float = 0.0, age: float = 0.0
    ) -> Service:
        service = self.service(life, service_id, record)
        self.services.put(service, service.encode(), now, age)
        return service

    def fits(self, life: Sender, service_id: str = "s", size: int = 50) -> bool:
        return self.services.make_room(self.service(life, service_id, b"r"), size)

    def rise(self, life: Sender) -> None:
        self.up.add(life)
        self.services.member_up(life)

    def fall(self, life: Sender, now: float) -> None:
        self.up.discard(life)
        self.services.member_down(life, now)

    def kinds(self) -> list[str]:
        found: list[str] = [output.kind for output in self.said if isinstance(output, ServiceChanged)]
        self.said.clear()
        return found


def test_who_comes_back_keeps_its_services() -> None:
    table = Table(A)
    table.put(A)
    table.fall(A, 1.0)
    assert (table.services.view, table.services.orphans) == ({}, 1)
    table.rise(A)
    assert table.services.orphans == 0
    table.services.expire(10_000.0)
    assert table.services.view == {("a", "s"): b"r"}
    assert len(table.services.table) == 1
    assert table.kinds() == ["added", "removed", "added"]


def test_who_is_gone_for_long_is_forgotten_and_counted_once() -> None:
    table = Table(A, orphan_seconds=600.0)
    table.put(A)
    table.fall(A, 1.0)
    table.services.expire(600.9)
    assert len(table.services.table) == 1
    for now in (601.0, 602.0):
        table.services.expire(now)
    assert (len(table.services.table), table.services.orphans) == (0, 0)
    assert table.counted == {"services.orphans_forgotten": 1}


def test_what_is_heard_of_somebody_gone_makes_it_no_younger() -> None:
    table = Table(A, orphan_seconds=600.0)
    table.put(A)
    table.fall(A, 0.0)
    table.put(A, "late", now=500.0)
    table.services.expire(600.0)
    assert len(table.services.table) == 0


def test_how_long_a_node_is_gone_and_a_service_withdrawn_travels() -> None:
    table = Table(A, B)
    table.put(A, "withdrawn", None, 5.0)
    table.put(A, "there", b"r", 5.0)
    withdrawn, there = (table.services.table.get((*A, name)) for name in ("withdrawn", "there"))
    assert withdrawn is not None and there is not None
    assert [table.services.age(entry, 40.0) for entry in (withdrawn, there)] == [35.0, 0.0]
    table.fall(A, 10.0)
    assert [table.services.age(entry, 40.0) for entry in (withdrawn, there)] == [35.0, 30.0]
    table.put(C, now=40.0, age=100.0)
    heard = table.services.table.get((*C, "s"))
    assert heard is not None and table.services.age(heard, 50.0) == 110.0


def test_a_node_with_all_its_services_may_change_one() -> None:
    table = Table(A, services_per_node=2)
    table.put(A, "one")
    table.put(A, "two")
    assert table.fits(A, "one")
    assert not table.fits(A, "three")
    table.put(A, "two", None)
    assert table.fits(A, "three")


def test_only_who_is_there_pushes_those_out_who_are_gone() -> None:
    table = Table(A, B, services=2)
    table.put(A)
    table.put(B)
    table.fall(A, 0.0)
    assert not table.fits(C), "it is gone itself, or not there yet"
    assert len(table.services.table) == 2
    table.rise(C)
    assert table.fits(C)
    assert [key[0] for key, _ in table.services.table.items()] == ["b"]
    table.put(C)
    assert not table.fits(B, "more"), "nobody is gone"


def test_ids_that_come_and_go_are_bounded() -> None:
    table = Table(A, services_per_node=2)
    for number in range(20):
        table.put(A, f"{number}")
        table.put(A, f"{number}", None)
    assert len(table.services.table) == 4
    assert table.services.view == {}


def test_a_life_of_which_nothing_is_kept_is_no_orphan() -> None:
    table = Table(A, B, service_tombstones=1, tombstone_seconds=10.0)
    table.put(A, "s", None)
    table.put(B, "s", None)  # takes the place of the other tombstone
    table.fall(A, 0.0)
    assert table.services.orphans == 0
    table.fall(B, 0.0)
    assert table.services.orphans == 1
    table.services.expire(10.0)  # the tombstone is old before the node is gone for long
    assert (len(table.services.table), table.services.orphans) == (0, 0)


def test_only_what_is_to_be_seen_is_said() -> None:
    table = Table(A)
    table.put(A)
    table.put(A)
    table.put(A, record=b"other")
    table.put(A, "never", None)
    table.put(A, record=None)
    table.put(A, record=None)
    table.put(B)
    assert table.kinds() == ["added", "updated", "removed"]
