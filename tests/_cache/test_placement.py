"""Rendezvous placement: the same everywhere and for ever, even, and moving only what must move."""

from __future__ import annotations

from collections import Counter

import pytest

from mycorrizal._cache.placement import PARTITIONS, Owner, Placement, bitmap, from_bitmap, partition_of


def members(*names: str) -> list[Owner]:
    return [Owner(name, b"boot-" + name.encode()) for name in names]


FIVE = members("a", "b", "c", "d", "e")


def test_partition_of_a_key_never_changes() -> None:
    assert [partition_of(key) for key in (b"a", b"key1", b"\x00lock\x00x")] == [67, 80, 225]


def test_owners_never_change() -> None:
    """Between versions either: nodes of two versions may be in one cluster."""
    owners = Placement().owners(FIVE, 2)
    assert "".join(owner.name for pair in owners[:8] for owner in pair) == EXPECTED


EXPECTED = "bebcadedbebaabec"


def test_keys_are_spread_evenly() -> None:
    counts = Counter(partition_of(b"user:%d:profile" % index) for index in range(PARTITIONS * 100))
    assert len(counts) == PARTITIONS and max(counts.values()) < 160


def test_partitions_are_spread_evenly() -> None:
    counts = Counter(owners[0].name for owners in Placement().owners(FIVE, 2))
    assert all(30 < count < 75 for count in counts.values()), counts


def test_order_of_members_does_not_matter() -> None:
    assert Placement().owners(FIVE, 3) == Placement().owners(reversed(FIVE), 3)


def test_member_that_leaves_moves_only_what_it_had() -> None:
    placement = Placement()
    before, after = placement.owners(FIVE, 2), placement.owners(FIVE[:4], 2)
    for old, new in zip(before, after, strict=True):
        if FIVE[4] not in old:
            assert new == old
        else:
            assert [owner for owner in old if owner != FIVE[4]] == [owner for owner in new if owner in old]


def test_restarted_member_gets_its_partitions_back_as_another_owner() -> None:
    again = [*FIVE[:4], Owner("e", b"another")]
    for old, new in zip(Placement().owners(FIVE, 2), Placement().owners(again, 2), strict=True):
        assert [owner.name for owner in old] == [owner.name for owner in new]
        assert (FIVE[4] in old) == (again[4] in new)


def test_fewer_members_than_replicas() -> None:
    assert all(len(owners) == 2 for owners in Placement().owners(FIVE[:2], 3))
    assert all(owners == () for owners in Placement().owners([], 3))


def test_scores_of_members_long_gone_are_forgotten() -> None:
    placement = Placement()
    for index in range(200):
        placement.owners(members("a", f"x{index}"), 1)
    assert len(placement._scores) < 50


@pytest.mark.parametrize("places", [[], [0], [255], [0, 7, 8, 100, 255], list(range(256))])
def test_bitmap_round_trip(places: list[int]) -> None:
    assert len(bitmap(places)) == 32
    assert from_bitmap(bitmap(places)) == places
