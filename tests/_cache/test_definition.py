"""What a cache is defined as: checked, and the same on every member."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.definition import Definition
from mycorrizal.exceptions import CacheConflict, ConfigError, LocalProtocolError
from tests._cache.harness import make_machine, space_in


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


def test_conflict_names_both() -> None:
    machine = make_machine(replicas=2)
    machine.define(Definition("c", replicas=2), 0.0)
    with pytest.raises(CacheConflict, match="replicas=3, near=True here and with replicas=2, near=False on this node"):
        machine.define(Definition("c", replicas=3, near=True), 0.0)


def test_conflict_with_a_member_is_an_error_that_names_it() -> None:
    machine = make_machine()
    machine.members_changed({"bob": (b"12345678", {"d": Definition("d", ttl=5)})}, 0.0)
    with pytest.raises(CacheConflict, match="ttl=9 here and with ttl=5 on bob") as raised:
        machine.define(Definition("d", ttl=9), 0.0)
    assert raised.value.node == "bob"


def test_member_that_defines_it_differently_takes_no_part_and_is_named() -> None:
    machine = make_machine(replicas=2)
    machine.members_changed({"bob": (b"12345678", {"c": Definition("c", replicas=3)})}, 0.0)
    assert [owner.name for owner in space_in(machine).members] == ["me"]
    (conflict,) = machine.conflicts()
    assert "replicas=2 here and with replicas=3 on bob" in str(conflict)
    machine.members_changed({"bob": (b"12345678", {"c": Definition("c", replicas=2)})}, 0.0)
    assert not machine.conflicts() and len(space_in(machine).members) == 2


def test_what_is_announced() -> None:
    machine = make_machine()
    assert machine.definitions() == [Definition("c")]
    machine.retire("c", 0.0)
    assert machine.definitions() == [] and machine.retired("c")


def test_cache_that_is_not_defined() -> None:
    with pytest.raises(LocalProtocolError, match="'nothing' is not defined"):
        make_machine().readable("nothing")
