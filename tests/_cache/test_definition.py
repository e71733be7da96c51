"""What a cache is defined as: checked, and the same on every member."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mycorrizal._cache.definition import Definition
from mycorrizal._cache.operations import Kind, Op, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.space import Space
from mycorrizal.exceptions import CacheUnavailable, ConfigError, LocalProtocolError
from tests._cache.harness import Caches, ask, make_machine, space_in


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""}, {"name": "x" * 256}, {"replicas": 0}, {"replicas": 17}, {"ttl": 0}, {"ttl": -1.0},
        {"max_entries": 0}, {"max_bytes": -5}, {"quorum": -1}, {"name": 5}, {"name": "\ud800"}, {"replicas": "2"},
        {"ttl": "60"}, {"ttl": float("inf")}, {"ttl": float("nan")}, {"max_entries": 1e6}, {"quorum": None},
    ],
)  # fmt: skip
def test_setting_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as raised:
        Definition(**{"name": "c", **settings})
    assert raised.value.field == next(iter(settings))


BOB = b"12345678"


def test_definitions_that_differ_have_different_ranks_and_no_text_is_made_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text took 5 us, and each announcement compares what all members say."""
    monkeypatch.setattr(Definition, "__repr__", lambda it: pytest.fail("text was made"))
    plain = Definition("c", ttl=7, max_entries=5, max_bytes=1000, quorum=1)
    other: list[dict[str, Any]] = [
        {"ttl": None}, {"ttl": 7.5}, {"max_entries": None}, {"max_entries": 6}, {"max_bytes": None}, {"replicas": 3},
        {"near": True}, {"read_backups": True}, {"sync_backups": False}, {"quorum": 2}, {"edition": 1}, {"born": 1},
    ]  # fmt: skip
    ranks = [plain.rank, *[replace(plain, **settings).rank for settings in other]]
    assert len({*ranks}) == len(ranks) and max(ranks)[0] == 1
    assert replace(plain, ttl=7.0).rank == plain.rank


def test_what_runs_holds_unless_it_is_redefined() -> None:
    machine = make_machine(replicas=2)
    assert machine.define(Definition("c", replicas=3, near=True), 0.0) == Definition("c") == machine.definitions()[0]
    held = machine.define(Definition("c", replicas=3, near=True), 0.0, redefine=True)
    assert held == Definition("c", replicas=3, near=True) == machine.definitions()[0] and held.edition == 1
    assert machine.define(held, 0.0, redefine=True).edition == 1, "nothing is another"


def test_what_a_member_runs_holds_here_too() -> None:
    machine = make_machine()
    machine.members_changed({"bob": (BOB, {"d": Definition("d", ttl=5)})}, 0.0)
    assert machine.define(Definition("d", ttl=9), 0.0) == Definition("d", ttl=5)
    assert machine.define(Definition("d", ttl=9), 0.0, redefine=True) == Definition("d", ttl=9)


def test_who_was_first_with_the_same_settings_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 9 agents that open a cache at one moment each would take an earlier one's definition, and tell of it."""
    mine = Definition("c", ttl=7, born=1000)
    assert not replace(mine, born=500).replaces(mine) and not mine.replaces(mine)
    assert replace(mine, edition=1).replaces(mine) and replace(mine, ttl=8, born=500).replaces(mine)
    machine = make_machine(born=1000)
    placed: list[Space] = []
    place = Space._place

    def noted(space: Space, *args: Any) -> None:
        placed.append(space)
        place(space, *args)

    monkeypatch.setattr(Space, "_place", noted)
    machine.members_changed({"bob": (BOB, {"c": Definition("c", born=500)})}, 0.0)
    assert len(placed) == 1 and "redefined" not in machine.counters()
    machine.members_changed({"bob": (BOB, {"c": Definition("c", born=500, edition=2)})}, 0.0)
    assert len(placed) == 1 and machine.definitions()[0].edition == 2, "another edition of them moves nothing"


@pytest.mark.parametrize(
    ("theirs", "taken"),
    [
        (Definition("c", ttl=7, born=500), True), (Definition("c", ttl=7, born=2000), False),
        (Definition("c", ttl=7, edition=1, born=2000), True),
    ],
)  # fmt: skip
def test_of_several_definitions_the_latest_edition_holds_and_of_one_the_first(theirs: Definition, taken: bool) -> None:
    """Who came up before it saw the others has defined the cache once more: nobody stands aside."""
    machine = make_machine(born=1000)
    machine.members_changed({"bob": (BOB, {"c": theirs})}, 0.0)
    assert machine.definitions() == [theirs if taken else Definition("c")]
    assert [owner.name for owner in space_in(machine).members] == ["bob", "me"]
    assert machine.counters().get("redefined", 0) == taken


def test_bounds_hold_at_once_and_entries_keep_their_time() -> None:
    machine = make_machine(replicas=1)
    ask(machine, *[Op(Kind.SET, b"key%d" % index, value=b"v", ttl=60_000) for index in range(10)])
    machine.define(Definition("c", replicas=1, max_entries=4, ttl=1), 0.0, redefine=True)
    assert machine.info("c")["entries"] == 4
    ask(machine, *[Op(Kind.SET, b"new%d" % index, value=b"v") for index in range(10)])
    assert machine.info("c")["entries"] == 4
    machine.define(Definition("c", replicas=1, max_bytes=10_000), 0.0, redefine=True)
    (outcome,) = ask(machine, Op(Kind.SET, b"k", value=bytes(9_900)))
    assert outcome.status == Status.TOO_LARGE
    machine.define(Definition("c", replicas=1), 0.0, redefine=True)
    ask(machine, *[Op(Kind.SET, b"key%d" % index, value=bytes(9_900)) for index in range(10)])
    assert machine.info("c")["entries"] >= 10


@pytest.mark.parametrize("quorum", [0, 1, 3])
def test_a_cache_with_a_quorum_is_redefined_where_that_is(quorum: int) -> None:
    machine = make_machine(quorum=2)
    with pytest.raises(CacheUnavailable, match="fewer than 2"):
        machine.define(Definition("c", quorum=quorum), 0.0, redefine=True)
    assert machine.definitions() == [Definition("c", quorum=2)]
    machine.members_changed({"bob": (BOB, {"c": Definition("c", quorum=2)})}, 0.0)
    assert machine.define(Definition("c", quorum=quorum), 0.0, redefine=True).quorum == quorum
    assert space_in(machine).has_quorum is (quorum < 3)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1), (2, 5)])
def test_other_replicas_are_made_or_dropped_behind_it(before: int, after: int) -> None:
    caches = Caches(4, replicas=before)
    keys = [b"key%d" % index for index in range(30)]
    caches.do(0, *[Op(Kind.SET, key, value=key) for key in keys])
    caches.cluster.redefine(caches.nodes[1], replace(caches.cluster.definition, replicas=after))
    assert caches.synced(1)
    caches.cluster.run(6.0)
    assert all(len(caches.holders(key)) == min(after, 4) for key in keys)
    assert all(caches.get(index, key) == key for index in range(4) for key in keys[:3])
    assert {node.machine.definitions()[0].replicas for node in caches.nodes} == {after}


def test_near_copies_begin_and_end() -> None:
    caches = Caches(2)
    (key,) = caches.owned_by(0)
    caches.set(0, key, b"old")
    for near in (True, False, True):
        caches.cluster.redefine(caches.nodes[0], replace(caches.cluster.definition, near=near))
        caches.cluster.run(1.0)
        assert caches.get(1, key) == b"old"
        assert bool(caches.space(1).near.tables[partition_of(key)]) is near
    caches.set(0, key, b"new")
    caches.cluster.run(0.1)
    assert not caches.space(1).near.tables[partition_of(key)]


def test_what_is_announced() -> None:
    machine = make_machine()
    assert machine.definitions() == [Definition("c")]
    machine.retire("c", 0.0)
    assert machine.definitions() == [] and machine.retired("c")


def test_cache_that_is_not_defined() -> None:
    with pytest.raises(LocalProtocolError, match="'nothing' is not defined"):
        make_machine().readable("nothing")
