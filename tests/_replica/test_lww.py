"""The map: who wins, what is forgotten, and that the order of arrival does not matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._replica.clock import Stamp
from mycorrizal._replica.lww import Entry, LwwMap

writes = st.tuples(
    st.sampled_from("kl"),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from("ab"),
    st.one_of(st.none(), st.binary(max_size=2)),
)


def write(table: LwwMap[str], one: tuple[str, int, int, str, bytes | None]) -> None:
    key, wall, counter, writer, value = one
    stamp, raw = Stamp(wall, counter, writer, b"bootboot"), repr(one).encode()
    if table.wins(key, stamp, raw):
        table.put(key, Entry(stamp, value, raw, 0.0))


def new(live: int = 100, size: int = 10_000, tombstones: int = 100) -> LwwMap[str]:
    return LwwMap(live, size, tombstones)


def content(table: LwwMap[str]) -> dict[str, tuple[Stamp, bytes | None, bytes]]:
    return {key: (entry.stamp, entry.value, entry.raw) for key, entry in table.items()}


@given(st.lists(writes), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_gives_the_same(some: list[object], random: object) -> None:
    one, other = new(), new()
    for write_ in some:
        write(one, write_)  # type: ignore[arg-type]
    shuffled = some * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for write_ in shuffled:
        write(other, write_)  # type: ignore[arg-type]
    assert content(one) == content(other)
    assert one.mark == other.mark
    assert (one.live, one.tombstones, one.bytes) == (other.live, other.tombstones, other.bytes)


@given(st.lists(writes), st.lists(writes), st.lists(writes))
def test_merging_is_associative(a: list[object], b: list[object], c: list[object]) -> None:
    def table(*parts: list[object]) -> LwwMap[str]:
        made = new()
        for part in parts:
            for one in part:
                write(made, one)  # type: ignore[arg-type]
        return made

    def merged(into: LwwMap[str], other: LwwMap[str]) -> LwwMap[str]:
        for key, entry in other.items():
            if into.wins(key, entry.stamp, entry.raw):
                into.put(key, entry)
        return into

    left = merged(merged(table(a), table(b)), table(c))
    right = merged(table(a), merged(table(b), table(c)))
    assert content(left) == content(right) == content(table(c, b, a))
    assert left.mark == right.mark


@given(st.lists(writes))
def test_the_books_are_right(some: list[object]) -> None:
    table = new(tombstones=1)
    for one in some:
        write(table, one)  # type: ignore[arg-type]
    found = content(table)
    assert table.live == sum(value is not None for _, value, _ in found.values())
    assert table.tombstones == len(found) - table.live <= 1
    assert table.bytes == sum(len(raw) for _, value, raw in found.values() if value is not None)
    assert all(table.knows(raw) for _, _, raw in found.values())


def test_a_tombstone_beats_an_older_value_and_not_a_newer_one() -> None:
    table = new()
    write(table, ("k", 2, 0, "a", None))
    write(table, ("k", 1, 9, "z", b"old"))
    assert content(table)["k"][1] is None
    write(table, ("k", 2, 0, "b", b"new"))
    assert content(table)["k"][1] == b"new"
    assert (table.live, table.tombstones) == (1, 0)


def test_the_oldest_tombstone_goes_first_and_old_ones_expire() -> None:
    table = new(tombstones=2)
    for number, key in enumerate("abc"):
        gone = table.put(key, Entry(Stamp(number, 0, "a", b"bootboot"), None, key.encode(), float(number)))
    assert gone == ["a"]
    assert table.expired(1.0) == ["b"]
    table.drop("b")
    assert table.get("b") is None
    assert not table.knows(b"b")
    table.drop("b")


def test_room_counts_what_is_replaced_and_slack() -> None:
    table = new(live=2, size=10)
    table.put("k", Entry(Stamp(1, 0, "a", b"bootboot"), b"v", b"12345678", 0.0))
    assert table.has_room("k", 10)
    assert not table.has_room("l", 3)
    assert table.has_room("l", 4, slack=1.25)
    table.put("l", Entry(Stamp(1, 0, "a", b"bootboot"), b"v", b"12", 0.0))
    assert not table.has_room("m", 0)
    assert table.has_room("l", 2)
