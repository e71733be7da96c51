"""Whom to try next among members that were lost: a few who live are found among many dead, in whatever order."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Sequence

import pytest

from mycorrizal._swim.lost import Lost, LostMember, _earliest, _edge, _faithful, _latest
from mycorrizal._swim.members import NO_VERSIONS, Member
from mycorrizal.types import Address, pack_host

Arm = Callable[[Sequence[LostMember], random.Random], LostMember]
DEAD = 1000
LIVING = ("a", "b", "c")


def member(name: str, number: int, *, joined: float = 0.0, refused: bool = False) -> Member:
    record = Member(name, pack_host(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"), 7946, None, NO_VERSIONS)
    record.joined, record.refused = joined, refused
    return record


def lost(
    times: Iterable[float], *, at: float = 1000.0, seed: int = 0, joined: float = 0.0, refused: bool = False
) -> Lost:
    """Return a memory in which the living were lost from `at` on, and others at `times`."""
    deaths = [(moment, member(f"dead{n}", n, joined=joined, refused=refused)) for n, moment in enumerate(times)]
    deaths += [(at + n, member(name, 70000 + n)) for n, name in enumerate(LIVING)]
    memory = Lost(random.Random(seed), 1 << 20)
    for moment, record in sorted(deaths, key=lambda death: death[0]):
        assert memory.add(record, moment) == 0
    return memory


def tries(memory: Lost, used: frozenset[Address] = frozenset()) -> int:
    """Return how many choices it takes to find one who lives."""
    return next(n for n in range(1, 100_000) if memory.choose(used).name in LIVING)


def median(make: Callable[[int], Lost], used: frozenset[Address] = frozenset()) -> float:
    return statistics.median(tries(make(seed), used) for seed in range(25))


ORDERS = {
    "before": [n / 10 for n in range(DEAD)],
    "after": [2000 + n / 10 for n in range(DEAD)],
    "both": [n / 10 + (0 if n < DEAD / 2 else 2000) for n in range(DEAD)],
    "all at once, before": [1.0] * DEAD,
}


@pytest.mark.parametrize("order", ORDERS)
def test_who_lives_is_found_whatever_the_order_in_which_others_died(order: str) -> None:
    assert median(lambda seed: lost(ORDERS[order], seed=seed)) <= 80, "of 1,003, three of them alive: by chance 230"


def test_old_members_are_found_among_the_dead_of_a_moment() -> None:
    amid = [random.Random(7).uniform(900, 1100) for _ in range(DEAD)]
    assert median(lambda seed: lost(amid, seed=seed, joined=880.0)) <= 80


@pytest.mark.parametrize("order", ["before", "amid"])
def test_few_are_found_as_by_chance_at_worst(order: str) -> None:
    rng = random.Random(8)
    times = [rng.uniform(0, 900 if order == "before" else 2000) for _ in range(200)]
    assert median(lambda seed: lost(times, seed=seed)) <= 65, "by chance 47"


def test_whose_host_refused_is_tried_seldom() -> None:
    amid = [random.Random(9).uniform(0, 2000) for _ in range(DEAD)]
    assert median(lambda seed: lost(amid, seed=seed, refused=True)) == 1
    memory = lost(amid, refused=True)
    chosen = [memory.choose(frozenset()).name for _ in range(800)]
    assert 50 <= sum(name not in LIVING for name in chosen) <= 150, "one in eight"


def test_whose_address_another_has_is_tried_seldom() -> None:
    amid = [random.Random(10).uniform(0, 2000) for _ in range(DEAD)]
    used = frozenset(member("other", n).address for n in range(DEAD))
    assert median(lambda seed: lost(amid, seed=seed), used) == 1


def test_who_is_hardly_there_is_tried_where_nobody_else_is_lost() -> None:
    memory = Lost(random.Random(1), 10)
    memory.add(member("gone", 1, refused=True), 1.0)
    assert memory.choose(frozenset()).name == "gone"


@pytest.mark.parametrize("count", [1, 2, 3, 150])
def test_everybody_is_tried_in_the_end(count: int) -> None:
    memory = Lost(random.Random(count), 1 << 20)
    for n in range(count):
        memory.add(member(f"m{n}", n), n / 10)
    assert {memory.choose(frozenset()).name for _ in range(30 * count)} == set(memory)


def test_of_too_many_the_longest_lost_is_forgotten() -> None:
    memory = Lost(random.Random(1), 2)
    assert [memory.add(member(name, n), float(n)) for n, name in enumerate("abc")] == [0, 0, 1]
    assert list(memory) == ["b", "c"]
    assert memory.expire(2.0) == 1
    assert list(memory) == ["c"]
    memory.forget("c")
    memory.forget("unknown")
    assert len(memory) == 0


@pytest.mark.parametrize(
    ("arm", "favourites"),
    [
        (_latest, {f"dead{n}" for n in range(990, DEAD)}),
        (_earliest, {f"dead{n}" for n in range(10)}),
        (_edge, {f"dead{n}" for n in (0, 1, 998, 999)}),
        (_faithful, {f"dead{n}" for n in range(500, 510)}),
    ],
)
def test_every_arm_has_favourites_of_its_own(arm: Arm, favourites: set[str]) -> None:
    rng = random.Random(11)
    memory = Lost(rng, DEAD)
    for n in range(DEAD):
        quiet = (n >= 1) * 100 + (n >= 999) * 100  # before the second and before the last
        memory.add(member(f"dead{n}", n, joined=n - (900 if 500 <= n < 510 else 0)), n / 10 + quiet)
    known = list(memory._members.values())
    assert sum(arm(known, rng).name in favourites for _ in range(400)) >= 40, "by chance 4"


def test_who_was_lost_at_an_address_is_known_by_host_and_port() -> None:
    memory = Lost(random.Random(0), 10)
    memory.add(member("a", 1), 0.0)
    assert memory.had(("10.0.0.1", 7946))
    assert not memory.had(("10.0.0.1", 7947)) and not memory.had(("10.0.0.2", 7946))
