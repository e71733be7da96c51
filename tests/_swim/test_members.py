"""The table: order, sampling, and what is handed out."""

from __future__ import annotations

import random

import pytest

from mycorrizal._swim.members import NO_VERSIONS, Member, MemberTable, verify_protocol
from mycorrizal.exceptions import MergeRefused
from mycorrizal.types import NodeState


def table(size: int) -> MemberTable:
    members = MemberTable(random.Random(1))
    for n in range(size):
        member = Member(f"n{n:03}", bytes((10, 0, 0, n)), 7946, b"", NO_VERSIONS)
        member.state = NodeState.ALIVE
        members.add(member)
    return members


def test_everybody_comes_once_a_round() -> None:
    members = table(20)
    for _ in range(5):
        # One turn of a walk ends at the wrap, the next one goes on behind it.
        seen = [next(members.next_in_order(lambda: None)).name for _ in range(20)]
        assert len(set(seen)) == 20
    assert list(MemberTable(random.Random(1)).next_in_order(lambda: None)) == []


def test_a_walk_ends_though_nobody_is_wanted_and_all_are_reaped() -> None:
    members = table(5)
    list(members.next_in_order(lambda: None))

    def reap() -> None:
        members.reap(lambda member: True)

    assert [m.name for m in members.next_in_order(reap)] == []
    assert len(members) == 0
    assert members.nodes() == ()


@pytest.mark.parametrize("size", [3, 8, 200])
def test_samples_are_different_and_wanted(size: int) -> None:
    members = table(size)
    for _ in range(50):
        drawn = [m.name for m in members.sample(3, lambda m: m.name != "n001")]
        assert len(drawn) == len(set(drawn)) == min(3, size - 1)
        assert "n001" not in drawn
    assert members.sample(3, lambda m: False) == []
    assert members.sample(0, lambda m: True) == []
    one = members.sample(3, lambda m: m.name == "n002")
    assert [m.name for m in one] in (["n002"], []), "in a large table luck may not find the only one"


def test_what_is_handed_out_changes_when_the_record_does_and_only_then() -> None:
    members = table(3)
    member = members.get("n001")
    assert member is not None
    before = members.members()
    assert members.members() is before
    assert member.node() is member.node()
    member.state = NodeState.DEAD
    members.touch(member)
    assert [n.name for n in members.members()] == ["n000", "n002"]
    assert [n.name for n in members.nodes()] == ["n000", "n001", "n002"]
    assert before[1].state == NodeState.ALIVE


def test_the_cache_of_versions_is_bounded() -> None:
    from mycorrizal._swim import members as module

    for n in range(1000):
        member = Member("n", b"", 1, None, n.to_bytes(6, "big"))
        assert member.node().versions.delegate == n & 0xFF
    assert len(module._versions) <= 256


def test_versions_that_do_not_fit_name_the_node() -> None:
    alive = int(NodeState.ALIVE)
    verify_protocol([("a", alive, bytes((1, 5, 2, 0, 0, 0)))], [])
    with pytest.raises(MergeRefused, match="protocol version 5 of node 'b'"):
        verify_protocol([("a", alive, bytes((1, 4, 2, 0, 0, 0))), ("b", alive, bytes((1, 5, 5, 0, 0, 0)))], [])
    with pytest.raises(MergeRefused, match="delegate protocol version 3 of node 'b'"):
        verify_protocol([("b", alive, bytes((1, 5, 2, 2, 3, 3)))], [("a", alive, bytes((1, 5, 2, 2, 2, 2)))])


def test_of_those_who_are_gone_only_their_own_version_counts() -> None:
    alive, dead = int(NodeState.ALIVE), int(NodeState.DEAD)
    narrow = bytes((4, 4, 4, 2, 2, 2))
    verify_protocol([("a", alive, bytes((1, 5, 2, 0, 5, 0))), ("gone", dead, narrow)], [])
    with pytest.raises(MergeRefused, match="version 2 of node 'a'"):
        verify_protocol([("a", alive, bytes((1, 5, 2, 0, 5, 0))), ("there", alive, narrow)], [])
    with pytest.raises(MergeRefused, match="version 5 of node 'gone'"):
        verify_protocol([("a", alive, bytes((1, 4, 2, 0, 5, 0)))], [("gone", dead, bytes((1, 5, 5, 0, 5, 0)))])


def test_a_delegate_protocol_that_is_too_new_is_refused_as_one_that_is_too_old() -> None:
    alive = int(NodeState.ALIVE)
    for version in (1, 4):
        with pytest.raises(MergeRefused, match=f"delegate protocol version {version} of node 'b' is outside 2..3"):
            verify_protocol([("a", alive, bytes((1, 5, 2, 2, 3, 2)))], [("b", alive, bytes((1, 5, 2, 0, 5, version)))])


def test_who_was_forgotten_makes_a_new_version_of_the_table() -> None:
    table = MemberTable(random.Random(0))
    for name in "ab":
        table.add(Member(name, b"", 1, None, bytes(6)))
    before = table.version
    assert table.reap(lambda member: False) == []
    assert table.version == before
    assert [member.name for member in table.reap(lambda member: member.name == "a")] == ["a"]
    assert table.version > before
    assert [node.name for node in table.nodes()] == ["b"]
