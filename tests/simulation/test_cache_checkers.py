"""Each rule of the simulated cache finds what it is for, and lets what is right pass; on made-up clusters."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._cache.near import SILENCE
from mycorrizal.simulation import CheckFailed
from simulated import cache_checkers
from simulated.cache_checkers import (
    check_bounds,
    check_computed,
    check_converged,
    check_copies,
    check_locks,
    check_near,
    check_newest,
    check_no_trace,
    check_nothing_old,
    newest_writes,
)
from simulated.cache_computing import Computed
from simulated.cache_history import LockEvent, NearRead
from simulated.linearizable import Event

K = b"key"


def fail(rule: str, text: str) -> CheckFailed:
    return CheckFailed(rule, 0.0, text)


def finds(check: Callable[[], object], text: str) -> None:
    with pytest.raises(CheckFailed, match=text):
        check()


# -- locks --------------------------------------------------------------------------------


def held(token: int, asked: float, granted: float, released: float, key: bytes = K) -> LockEvent:
    lock = LockEvent(key, token, asked, granted)
    lock.released = released
    return lock


@pytest.mark.parametrize(
    "locks",
    [
        [],
        [held(1, 0.0, 0.1, 1.0), held(2, 0.5, 1.0, 2.0), held(5, 2.0, 2.1, 3.0)],
        [held(2, 1.0, 1.1, 2.0), held(1, 0.0, 0.1, 1.0)],
        [held(1, 0.0, 0.1, 9.0), held(1, 0.0, 0.1, 9.0, b"other")],
        [held(1, 0.0, 5.0, 8.0), held(2, 1.0, 2.0, 4.0)],  # the answer to the first came when the second was over
    ],
    ids=["none", "one after the other", "in any order", "two keys", "late"],
)
def test_locks_that_are_right(locks: list[LockEvent]) -> None:
    check_locks(locks, fail)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (held(1, 5.0, 5.1, 6.0), "token 1 was given twice"),
        (held(2, -3.0, -2.0, -1.0), "token 2 was given before 1"),
        (held(2, 0.2, 0.9, 2.0), "held twice, by 1 and 2"),
    ],
)
def test_locks_that_are_wrong(other: LockEvent, text: str) -> None:
    finds(lambda: check_locks([held(1, 0.0, 0.1, 1.0), other], fail), text)


# -- writes -------------------------------------------------------------------------------


def write(
    version: int, argument: Any = b"value", kind: str = "set", answer: Any = True, ended: float = 1.0, key: bytes = K
) -> Event:
    return Event(1, key, kind, argument, 0.0, ended, answer, version)


def test_the_newest_write_of_each_key_is_the_last_that_was_done() -> None:
    events = [write(3), write(5), write(4), write(9, answer=False, kind="cas"), write(0), write(2, key=b"other")]
    events += [write(8, kind="get"), write(7, ended=float("inf"))]
    assert [(event.key, event.version) for event in newest_writes(events)] == [(K, 5), (b"other", 2)]


class Held:
    """A node that holds one version of every key, and what is looked at to find it out."""

    def __init__(self, version: int, value: bytes | None, name: str = "n0") -> None:
        self.version = version
        self.value = value
        self.name = name
        self.offset = 0.0
        self.members = ("n0", "n1", "n2")
        self.store = self

    def get(self, key: bytes, now: float) -> Any:
        return None if self.value is None else SimpleNamespace(value=self.value, version=self.version)

    def version_of(self, partition: int, key: bytes) -> int:
        return self.version


def cluster(*nodes: Any, **more: Any) -> Any:
    return SimpleNamespace(running=list(nodes), now=0.0, **more)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_checkers, "space_of", lambda node: node)
    monkeypatch.setattr(cache_checkers, "_owners", lambda made, key: made.running)


@pytest.mark.parametrize(
    ("event", "node", "text"),
    [
        (write(5), Held(5, b"value"), None),
        (write(5), Held(6, b"other"), None),
        (write(5), Held(4, b"value"), "has lost"),
        (write(5), Held(5, b"other"), "has b'other' for"),
        (write(5), Held(5, None), "has None for"),
        (write(5, kind="add"), Held(5, b"other"), "has b'other' for"),
        (write(5, None, "delete"), Held(5, None), None),
        (write(5, None, "delete"), Held(5, b"back"), "has b'back' after"),
        (write(5, None, "delete"), Held(4, b"back"), "has lost"),
    ],
)
def test_every_owner_has_the_newest_write(event: Event, node: Held, text: str | None) -> None:
    whole = cluster(Held(9, b"newer"), node)
    if text is None:
        check_newest(whole, [event], fail)
    else:
        finds(lambda: check_newest(whole, [event], fail), text)


def test_of_each_write_there_are_as_many_copies_as_there_should_be() -> None:
    new, old = Held(5, b"value"), Held(4, b"value")
    definition = SimpleNamespace(replicas=2)
    check_copies(cluster(new, new, old, definition=definition), new, [write(5)], fail)  # type: ignore[arg-type]
    few = cluster(new, old, old, definition=definition)
    finds(lambda: check_copies(few, new, [write(5)], fail), "said n0, and only")  # type: ignore[arg-type]


def test_nothing_older_than_an_acknowledged_write_is_left() -> None:
    check_nothing_old(cluster(Held(5, b"value"), Held(4, None)), [write(5)], fail)
    finds(lambda: check_nothing_old(cluster(Held(4, b"old")), [write(5)], fail), "has b'old' of version 4 after")


def test_near_copies_are_not_older_than_promised() -> None:
    made = cluster(limits=SimpleNamespace(near_interval=1.0), faults=SimpleNamespace(delay=0.1, jitter=0.1))
    bound = SILENCE + 0.2
    events = [write(2, ended=10.0), write(3, ended=20.0), write(9, kind="get", ended=0.0)]
    assert check_near(made, [], events, fail) == 0.0
    assert check_near(made, [NearRead(K, 3, 99.0, 0, True), NearRead(b"other", 1, 99.0, 0, True)], events, fail) == 0.0
    assert check_near(made, [NearRead(K, 1, 10.0 + bound - 0.01, 0, True)], events, fail) == pytest.approx(bound - 0.01)
    late = NearRead(K, 1, 10.0 + bound + 0.01, 0, True)
    finds(lambda: check_near(made, [late], events, fail), "after it was overwritten")


# -- tables -------------------------------------------------------------------------------


class Owned:
    """A node with tables: partition 7 is its own if `owner`, and holds `table`."""

    def __init__(self, name: str, owners: tuple[Any, ...], table: dict[bytes, tuple[bytes, int]]) -> None:
        self.name = name
        self.owner = SimpleNamespace(name=name)
        self.shards = [SimpleNamespace(owners=owners) for _ in range(256)]
        entries = {key: SimpleNamespace(value=value, version=version) for key, (value, version) in table.items()}
        self.store = SimpleNamespace(tables=[entries if partition == 7 else {} for partition in range(256)])


class Name(str):
    """An owner that is known by its name."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self)


def owned(name: str, owners: str, **table: tuple[bytes, int]) -> Owned:
    one = Owned(name, tuple(Name(owner) for owner in owners), {key.encode(): value for key, value in table.items()})
    one.owner = Name(name)  # type: ignore[assignment]
    return one


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([owned("a", "ab", k=(b"v", 1)), owned("b", "ab", k=(b"v", 1)), owned("c", "ab")], None),
        ([owned("a", "ab"), owned("b", "ba")], "has other owners on b"),
        ([owned("a", "ab"), owned("b", "ab"), owned("c", "ab", k=(b"v", 1))], "c holds partition 7"),
        ([owned("a", "ab", k=(b"v", 1)), owned("b", "ab", k=(b"w", 1))], "copies of partition 7 differ"),
        ([owned("a", "ab", k=(b"v", 1)), owned("b", "ab", k=(b"v", 2))], "copies of partition 7 differ"),
        ([owned("a", "ab", k=(b"v", 1)), owned("b", "ab")], "copies of partition 7 differ"),
    ],
)
def test_owners_hold_the_same_and_nobody_else_anything(nodes: list[Owned], text: str | None) -> None:
    if text is None:
        check_converged(cluster(*nodes), fail)
    else:
        finds(lambda: check_converged(cluster(*nodes), fail), text)


def store(**wrong: Any) -> Any:
    """Return a node whose store holds one entry of 10 bytes, and counts so but for what is `wrong`."""
    return SimpleNamespace(
        name="n0",
        store=SimpleNamespace(**{"entries": 1, "bytes": 10, "walk": lambda: [SimpleNamespace(size=10)], **wrong}),
    )


@pytest.mark.parametrize(
    ("node", "limits", "text"),
    [
        (store(), {"max_entries": 1, "max_bytes": 10}, None),
        (store(), {"max_entries": None, "max_bytes": None}, None),
        (store(entries=2), {"max_entries": None, "max_bytes": None}, "counts 2, 10; has 1, 10"),
        (store(bytes=11), {"max_entries": None, "max_bytes": None}, "counts 1, 11; has 1, 10"),
        (store(), {"max_entries": 0, "max_bytes": None}, "holds 1 entries"),
        (store(), {"max_entries": None, "max_bytes": 9}, "holds 10 bytes"),
    ],
)
def test_a_node_counts_right_and_keeps_its_bounds(node: Any, limits: dict[str, Any], text: str | None) -> None:
    whole = cluster(node, definition=SimpleNamespace(**limits))
    if text is None:
        check_bounds(whole, fail)
    else:
        finds(lambda: check_bounds(whole, fail), text)


EMPTY = {"entries": 0, "bytes": 0, "digests": [0] * 256, "tables": [{}] * 256}


@pytest.mark.parametrize(
    "wrong", [{"entries": 1}, {"bytes": 1}, {"digests": [0, 5]}, {"tables": [{}, {K: 1}]}], ids=str
)
def test_what_expired_leaves_no_trace(wrong: dict[str, Any]) -> None:
    check_no_trace(cluster(store(**EMPTY)), fail)
    finds(lambda: check_no_trace(cluster(store(**{**EMPTY, **wrong})), fail), "still has")


# -- what was computed --------------------------------------------------------------------


def change(kind: str, version: int, *, began: float = 2.0, ended: float = 3.0, answer: object = True) -> Event:
    return Event(0, K, kind, None, began, ended, answer, version)


STORED, REFUSED = Computed(K, 50, 0.0, 1.0, 5.0, 90), Computed(K, 50, 0.0, 1.0, 5.0, 0)


@pytest.mark.parametrize(
    "event", [change("set", 60), change("delete", 60, answer=False), change("clear", 60), change("cas", 60)]
)
def test_nothing_is_stored_that_was_computed_before_a_change(event: Event) -> None:
    finds(lambda: check_computed([STORED], [event], True, fail), "was stored after")
    check_computed([REFUSED], [event], True, fail)


@pytest.mark.parametrize(
    "event",
    [
        change("set", 90, ended=5.0), change("set", 40), change("set", 95), change("cas", 60, answer=False),
        change("get", 60), change("expire", 0), change("set", 60, ended=0.5), change("set", 60, began=6.0, ended=7.0),
    ],
)  # fmt: skip
def test_what_was_computed_after_every_change_is_stored(event: Event) -> None:
    check_computed([STORED], [event], True, fail)


@pytest.mark.parametrize("event", [change("get", 60), change("set", 40), change("cas", 60, answer=False)])
def test_no_result_is_thrown_away_without_a_reason(event: Event) -> None:
    finds(lambda: check_computed([REFUSED], [event], True, fail), "nothing else was written")
    check_computed([REFUSED], [event], False, fail)  # the primary may have been another
    check_computed([REFUSED], [event, Event(0, K, "set", None, 2.0, float("inf"))], True, fail)
