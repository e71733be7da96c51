"""What agents know of their keys: it merges to the same in any order, and is bounded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mycorrizal import ConfigError
from mycorrizal._agent.keytable import KEYS_MAX, KeyTable
from tests.keys import key_of

OLD, A, B = key_of("old"), key_of("a"), key_of("b")


def grown() -> KeyTable:
    """Return the table of a cluster that has three keys, the first in use."""
    return KeyTable.start(OLD).changed("add", A, (10, "x")).changed("add", B, (11, "x"))


def test_changes_made_at_once_end_the_same_whatever_order_they_arrive_in() -> None:
    base = grown()
    changes = [
        base.changed("use", A, (20, "x")),
        base.changed("use", B, (20, "y")),
        base.changed("remove", B, (19, "z")),
        base.changed("remove", A, (21, "z")),
        base.changed("add", A, (22, "w")),
    ]
    ends = set()
    for order in itertools.permutations(changes):
        table = base
        for change in order:
            table = table.merged(change)
        ends.add(table.keys())
    assert ends == {(B, OLD, A)}, "the later name; in use, so installed; added after it was removed"


def test_who_was_away_learns_all_and_a_newcomer_changes_nothing() -> None:
    away = grown()
    now = away.changed("use", A, (30, "x")).changed("remove", OLD, (31, "x"))
    for merged in (away.merged(now), now.merged(away), now.merged(KeyTable.start(A)), KeyTable.start(A).merged(now)):
        assert merged.keys() == (A, B)
    for old, new in ((OLD, A), (A, OLD)):  # whichever of them is the greater
        early = KeyTable.start(old).changed("add", new, (10, "x"))
        assert early.merged(KeyTable.start(new)).keys()[0] == KeyTable.start(new).merged(early).keys()[0] == old


def test_keys_and_what_is_remembered_of_removed_ones_are_bounded() -> None:
    table = grown()
    for number in range(200):
        key = key_of(f"{number}")
        table = table.changed("add", key, (100 + number, "x")).changed("remove", key, (100 + number, "y"))
    assert len(table.entries) < 100 and table.keys() == grown().keys()
    for number in range(KEYS_MAX - len(table.keys())):
        table = table.changed("add", key_of(f"more {number}"), (1000 + number, "x"))
    with pytest.raises(ConfigError, match=f"more than {KEYS_MAX} keys"):
        table.changed("add", key_of("one more"), (2000, "x"))


def test_it_travels_and_what_is_none_is_refused() -> None:
    table = grown().changed("remove", A, (12, "x"))
    assert KeyTable.unpack(table.pack()) == table
    assert repr(A) not in repr(table)
    rows, used = table.pack()
    bad: list[Any] = [
        None, [], 3, "ab", ["add", A], [rows], [[], used], [rows, used[:2]], [rows, [0, "x", b""]],
        [[[b"0" * 16, 1, "x", A]], used], [[[rows[0][0], 1 << 70, "x", b""]], used], [[[5, 1, "x", b""]], used],
        [[[rows[0][0], True, "x", b""]], used], [[[rows[0][0], 1, b"x", b""]], used], [rows, [1, "x", "text"]],
        [rows * 100, used], [[[[], 1, "x", b""]], used], [[[rows[0][0], -1, "x", b""]], used],
    ]  # fmt: skip
    for value in bad:
        with pytest.raises(ConfigError):
            KeyTable.unpack(value)
