"""``Cache`` above a host of the test's: what is read without a call, and leases that are given back."""

from __future__ import annotations

from typing import Any

import pytest

import mycorrizal.cache
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.entry import NEVER, Entry
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._wire.values import DEFAULT, encode_value
from mycorrizal.cache import ABSENT, Cache
from mycorrizal.exceptions import CacheUnavailable, ValueTooLarge
from tests._cache.harness import make_machine

KEY = "key"
RAW = KEY.encode()
PLACE = partition_of(RAW)
NOW = 100.0


class Host:
    """Answers operations from a script, and writes them down."""

    name = "me"

    def __init__(self, machine: CacheMachine) -> None:
        self.machine = machine
        self.asked: list[Op] = []
        self.answers: list[Result | Exception] = []
        self.threads = True
        self.noted: list[str] = []

    def readable(self, cache: str) -> Any:
        return self.machine.readable("c")

    def near(self, cache: str) -> Any:
        return self.machine.near("c")

    def operate(self, cache: str, ops: Any, timeout: float | None, operation: str) -> list[Any]:
        self.asked += ops
        answer = self.answers.pop(0) if self.answers else Result(Status.MISSING)
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    def leads(self, cache: str, key: bytes) -> bool:
        return True

    def note(self, counter: str, why: object) -> None:
        self.noted.append(counter)

    def background(self, job: Any) -> bool:
        if self.threads:
            job()
        return self.threads


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A node that is alone, at time 100 of its own clock."""
    monkeypatch.setattr(mycorrizal.cache, "_now", lambda: NOW)
    return Host(make_machine(now=NOW, near=True))


def cache_of(host: Host, **settings: Any) -> Cache:
    return Cache(host, Definition("c", near=True, **settings), DEFAULT)  # type: ignore[arg-type]


def keep(host: Host, value: object, *, expires: float = NEVER, until: float = NOW + 2.0) -> None:
    """Let the node have a near copy."""
    near = host.machine.near("c")
    near.tables[PLACE][RAW] = Entry(RAW, encode_value(value).pack(), 1, expires)
    near.until[PLACE] = until


# -- reads without a call ---------------------------------------------------------------------


def test_near_copy_is_read_without_a_call(host: Host) -> None:
    cache = cache_of(host)
    keep(host, "near")
    assert cache.get(KEY) == cache[KEY] == "near" and KEY in cache
    assert cache.get_or_compute(KEY, lambda: "computed") == "near"
    assert host.asked == [] and cache.local_hits == 4


@pytest.mark.parametrize(
    ("expires", "until"),
    [(NOW, NOW + 2.0), (NOW - 1.0, NOW + 2.0), (NEVER, NOW), (NEVER, NOW - 1.0), (NEVER, float("-inf"))],
    ids=["expires now", "expired", "primary silent from now", "primary silent", "nothing is believed"],
)
def test_near_copy_that_is_over_or_not_believed_is_asked_for(host: Host, expires: float, until: float) -> None:
    cache = cache_of(host)
    keep(host, "old", expires=expires, until=until)
    host.answers = [Result(Status.OK, encode_value("new").pack(), 2)]
    assert cache.get(KEY) == "new"
    assert cache.get(KEY, "default") == "default"
    host.answers = [Result(Status.OK, encode_value("new").pack(), 2)]
    assert cache.get_or_compute(KEY, lambda: "computed") == "new"
    assert [op.kind for op in host.asked] == [Kind.GET, Kind.GET, Kind.LEASE] and cache.local_hits == 0


@pytest.mark.parametrize(("expires", "read"), [(NEVER, True), (NOW + 0.1, True), (NOW, False), (NOW - 1.0, False)])
def test_entry_that_is_held_here_is_read_until_it_expires(host: Host, expires: float, read: bool) -> None:
    host.machine.readable("c")[PLACE] = {RAW: Entry(RAW, encode_value("held").pack(), 1, expires)}
    cache = cache_of(host)
    assert cache.get(KEY, ABSENT) == ("held" if read else ABSENT)
    assert host.machine.readable("c")[PLACE][RAW].visited is read
    assert len(host.asked) == (not read)


# -- leases ---------------------------------------------------------------------------------


LEASED = Result(Status.LEASED, number=77)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_computation_that_raises_gives_its_lease_back(host: Host, error: BaseException) -> None:
    cache = cache_of(host)
    host.answers = [LEASED]

    def compute() -> None:
        raise error

    with pytest.raises(type(error)):
        cache.get_or_compute(KEY, compute)
    assert [(op.kind, op.number) for op in host.asked[1:]] == [(Kind.RETURN, 77)]


def test_a_value_that_cannot_be_encoded_gives_the_lease_back(host: Host) -> None:
    host.answers = [LEASED]
    with pytest.raises(TypeError):
        cache_of(host).get_or_compute(KEY, lambda: object())
    assert [(op.kind, op.number) for op in host.asked[1:]] == [(Kind.RETURN, 77)]


def test_a_value_that_is_too_large_gives_the_lease_back_and_is_the_callers(host: Host) -> None:
    host.answers = [LEASED, ValueTooLarge("no")]
    assert cache_of(host).get_or_compute(KEY, lambda: "large") == "large"
    assert [op.kind for op in host.asked] == [Kind.LEASE, Kind.SET, Kind.RETURN] and host.asked[2].number == 77
    assert host.noted == ["cache.not_stored"]


def test_a_lease_that_cannot_be_given_back_hides_no_error(host: Host) -> None:
    host.answers = [LEASED, CacheUnavailable("nobody")]
    with pytest.raises(ZeroDivisionError):
        cache_of(host).get_or_compute(KEY, lambda: 1 // 0)
    assert host.noted == ["cache.not_returned"]


def test_a_refresh_that_finds_no_thread_gives_its_lease_back(host: Host) -> None:
    host.threads = False
    host.answers = [LEASED._replace(value=encode_value("old").pack())]
    assert cache_of(host).get_or_compute(KEY, lambda: "new", ttl=10, refresh=5) == "old"
    assert [(op.kind, op.number) for op in host.asked[1:]] == [(Kind.RETURN, 77)]


def test_a_value_that_is_not_stored_is_the_callers_and_counted(host: Host) -> None:
    host.answers = [LEASED, Result(Status.FAILED)]
    assert cache_of(host).get_or_compute(KEY, lambda: "value") == "value"
    assert host.noted == ["cache.not_stored"]


def test_pop_of_nothing_is_a_delete_too(host: Host) -> None:
    host.answers = [Result(Status.MISSING), Result(Status.FAILED), Result(Status.MISSING), Result(Status.OK)]
    assert cache_of(host).pop(KEY, None) is None
    assert [(op.kind, op.number) for op in host.asked] == [(Kind.GET, 0), (Kind.CAS, 0)] * 2


def test_what_was_computed_is_stored_under_its_lease(host: Host) -> None:
    host.answers = [LEASED, Result(Status.OK)]
    assert cache_of(host).get_or_compute(KEY, lambda: "value") == "value"
    assert [(op.kind, op.number) for op in host.asked] == [(Kind.LEASE, 30_000), (Kind.SET, 77)]
