"""What a change of the view costs: one cache's share of it for one announcement, and nothing where nothing changed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._cache.definition import Definition
from mycorrizal._cache.machine import Announced, CacheMachine
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.placement import PARTITIONS, Owner, Placement
from mycorrizal._cache.space import Space
from mycorrizal._cache.store import Store
from tests._cache.harness import ask, make_machine, run_due, space_in

NODES = [f"n{number}" for number in range(9)]
NAMES = [f"c{number}" for number in range(20)]


def boot_of(name: str, life: int = 0) -> bytes:
    return f"{name}/{life}".encode().ljust(8)


def view(nodes: list[str], caches: list[str], life: int = 0) -> dict[str, tuple[bytes, dict[str, Definition]]]:
    return {node: (boot_of(node, life), {name: Definition(name) for name in caches}) for node in nodes}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The caches whose view was set, in order."""
    found: list[str] = []
    set_view = Space.set_view

    def counted(space: Space, members: list[Owner], now: float) -> None:
        found.append(space.name)
        set_view(space, members, now)

    monkeypatch.setattr(Space, "set_view", counted)
    return found


def machine_with(caches: list[str], announced: Announced) -> CacheMachine:
    machine = CacheMachine("me", b"me".ljust(8), rng=Random(1), wall=1.8e9, now=0.0)
    machine.members_changed(announced, 0.0)
    for name in caches:
        machine.define(Definition(name), 0.0)
    return machine


def test_one_announcement_sets_one_view(seen: list[str]) -> None:
    known: dict[str, Any] = view(NODES, [])
    machine = machine_with(NAMES, known)
    seen.clear()
    for name in NAMES:
        for node in NODES:
            boot, before = known[node]
            known = {**known, node: (boot, {**before, name: Definition(name)})}
            machine.members_changed(known, 1.0)
    assert seen == [name for name in NAMES for _ in NODES]
    assert all(len(space.members) == 1 + len(NODES) for space in machine.spaces())


def test_an_announcement_compares_one_definition_of_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 that a member announces was compared, and of each member of the cache both ranks were made."""
    known: dict[str, Any] = view(NODES, NAMES)
    machine = machine_with([*NAMES, "new"], known)
    compared: list[Definition] = []
    same = Definition.__eq__

    def noted(one: Definition, other: object) -> bool:
        compared.append(one)
        return same(one, other)

    monkeypatch.setattr(Definition, "__eq__", noted)
    monkeypatch.setattr(Definition, "rank", property(lambda it: pytest.fail("a rank was made")))
    for node in NODES:
        boot, before = known[node]
        known = {**known, node: (boot, {**before, "new": Definition("new", born=len(node))})}
        machine.members_changed(known, 1.0)
    assert len(compared) <= len(NODES) ** 2


def test_a_view_that_did_not_change_costs_nothing(seen: list[str]) -> None:
    machine = machine_with(NAMES, view(NODES, NAMES))
    seen.clear()
    calls = len(machine.calls_to_start())
    for _ in range(3):
        machine.members_changed(view(NODES, NAMES), 1.0)
    machine.members_changed(view(NODES, NAMES[::-1]), 1.0)
    assert seen == [] and calls and not machine.calls_to_start()
    machine.members_changed(view(NODES, [*NAMES, "not here"]), 1.0)
    assert seen == [], "a cache that this node has not opened"


def test_a_withdrawal_another_definition_and_a_restart_are_each_seen(seen: list[str]) -> None:
    machine = machine_with(NAMES, view(NODES, NAMES))
    seen.clear()
    fewer = view(NODES, NAMES)
    del fewer["n3"][1]["c7"]
    machine.members_changed(fewer, 1.0)
    assert seen == ["c7"]
    fewer = {**fewer, "n4": (boot_of("n4"), {**fewer["n4"][1], "c2": Definition("c2", ttl=3.0)})}
    machine.members_changed(fewer, 2.0)
    assert seen == ["c7", "c2"]
    machine.members_changed(view(NODES, NAMES), 3.0)
    assert sorted(seen[2:]) == ["c2", "c7"]
    machine.members_changed({**view(NODES, NAMES), **view(["n5"], NAMES, life=1)}, 4.0)
    assert seen[4:] == NAMES, "another process is news for every cache"
    (owner,) = [member for space in machine.spaces() for member in space.members if member.name == "n5"][:1]
    assert owner.boot == boot_of("n5", 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), max_size=25), st.integers(1, 3))
def test_owners_are_the_same_whatever_came_before(steps: list[tuple[int, int]], replicas: int) -> None:
    placement = Placement()
    members: list[Owner] = []
    before: list[tuple[Owner, ...]] = [()] * PARTITIONS
    for number, life in steps:
        owner = Owner(f"n{number}", boot_of(f"n{number}", life))
        same = [member for member in members if member.name == owner.name]
        new = [member for member in members if member not in same]
        if owner not in members:  # it comes, or is another process than before; else it goes
            new.append(owner)
        added = [member for member in new if member not in members]
        gone = [member for member in members if member not in new]
        before = placement.owners(new, replicas, before, added, gone)
        members = new
        assert before == Placement().owners(members, replicas)


def test_a_turn_looks_at_no_cache_in_which_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Store] = []

    def noted(method: Any) -> Any:
        def run(store: Store, *arguments: float) -> Any:
            looked.append(store)
            return method(store, *arguments)

        return run

    for name in ("tick", "next_timer"):
        monkeypatch.setattr(Store, name, noted(getattr(Store, name)))
    machine = make_machine()
    for name in NAMES:
        machine.define(Definition(name), 0.0)
    (result,) = ask(machine, Op(Kind.SET, b"k", value=b"v", ttl=1000))
    assert result.version and len(looked) == 1
    looked.clear()
    ask(machine, Op(Kind.GET, b"k"), now=0.5)
    assert looked == []
    run_due(machine, 3.0)
    assert {*looked} == {space_in(machine).store} and not space_in(machine).store.entries


def test_caches_that_see_the_same_members_share_one_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[int] = []
    place = Placement._place

    def noted(placement: Placement, members: Any, *rest: Any) -> Any:
        placed.append(len(members))
        return place(placement, members, *rest)

    monkeypatch.setattr(Placement, "_place", noted)
    known: dict[str, Any] = view(NODES, [])
    machine = machine_with(NAMES, known)
    for name in NAMES:
        for node in NODES:
            boot, before = known[node]
            known = {**known, node: (boot, {**before, name: Definition(name)})}
            machine.members_changed(known, 1.0)
    assert placed == [*range(1, 2 + len(NODES))]
    one, other = list(machine.spaces())[:2]
    assert all(a.owners is b.owners for a, b in zip(one.shards, other.shards, strict=True))
    for number in range(100):
        machine.members_changed(view([f"x{number}"], NAMES), 2.0 + number)
    assert len(machine._core.placement._known) <= 32


def test_another_edition_of_the_same_settings_is_news(seen: list[str]) -> None:
    """In between it was defined otherwise, which this member may have heard of from somebody else."""
    machine = machine_with(NAMES, view(NODES, NAMES))
    seen.clear()
    again = view(NODES, NAMES)
    again["n3"][1]["c7"] = Definition("c7", edition=2)
    machine.members_changed(again, 1.0)
    assert "c7" in seen
    assert next(space.definition.edition for space in machine.spaces() if space.name == "c7") == 2
