"""``Cache`` above a host of the test's: what is read without a call, and leases that are given back."""

from __future__ import annotations

import contextvars
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

import numpy as np
import pytest

import mycorrizal.cache
import mycorrizal.leases
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.entry import LOCK_PREFIX, NEVER, Entry
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Batch, Kind, Op, Result, Status
from mycorrizal._cache.placement import partition_of
from mycorrizal._wire.lent import LEND_MIN
from mycorrizal._wire.values import DEFAULT, Codecs, encode_value
from mycorrizal.cache import ABSENT, Cache, Versioned
from mycorrizal.exceptions import (
    CacheOutcomeUnknown,
    CacheUnavailable,
    ConfigError,
    LockLost,
    MycorrizalError,
    OperationTimeout,
    ReentrantCallError,
    ValueDecodeError,
    ValueTooLarge,
)
from mycorrizal.leases import Lock
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
        self.answers: list[Result | BaseException] = []
        self.threads = self.leading = True
        self.lent: list[tuple[Op, Any]] = []
        self.noted: list[str] = []
        self.withdrawn: list[Op] = []

    def readable(self, cache: str) -> Any:
        return self.machine.readable("c")

    def near(self, cache: str) -> Any:
        return self.machine.near("c")

    def operate(self, cache: str, ops: Any, timeout: float | None, operation: str) -> list[Any]:
        self.asked += [ops.op(index) for index in range(len(ops.keys))] if isinstance(ops, Batch) else ops
        answer = self.answers.pop(0) if self.answers else Result(Status.MISSING)
        if isinstance(answer, BaseException):
            raise answer
        return [answer]

    def leads(self, cache: str, key: bytes) -> bool:
        return self.leading

    def lend(self, cache: str, op: Op, lent: Any, timeout: float | None, operation: str) -> Any:
        self.lent.append((op, lent))
        (outcome,) = self.operate(cache, [op], timeout, operation)
        return outcome

    def withdraw(self, cache: str, op: Op) -> None:
        self.withdrawn.append(op)

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
    monkeypatch.setattr(mycorrizal.leases, "now", lambda: NOW)
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


# -- what cannot be read here ---------------------------------------------------------------


def bad() -> bytes:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, z.imag], lambda pair: complex(*pair))
    return encode_value(1j, codecs).pack()


def hold(host: Host, **entries: bytes) -> None:
    for key, value in entries.items():
        host.machine.readable("c")[partition_of(key.encode())][key.encode()] = Entry(key.encode(), value, 1, NEVER)


def test_one_that_cannot_be_read_keeps_nobody_from_the_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, good = cache_of(host), encode_value(1).pack()
    hold(host, a=good, bad=bad(), c=good)
    monkeypatch.setattr(Cache, "__iter__", lambda self: iter(["a", "bad", "c"]))
    monkeypatch.setattr(Cache, "__len__", lambda self: 3)
    found = cache.get_many(["a", "bad", "c"])
    assert found == {"a": 1, "c": 1} and list(found.errors) == ["bad"]
    items, values = cache.items(), cache.values()
    assert dict(items) == {"a": 1, "c": 1} and list(values) == [1, 1]
    for errors in (found.errors, items.errors, values.errors):
        assert isinstance(errors["bad"], ValueDecodeError)
        assert str(errors["bad"]).startswith("key 'bad' of <Cache 'c' on me>: a value of the codec 'complex'")
    assert "bad" in cache
    read: Any
    for read in (cache.get, cache.__getitem__, lambda key: cache.get_or_compute(key, dict), cache.setdefault):
        with pytest.raises(ValueDecodeError, match="key 'bad' of <Cache 'c' on me>"):
            read("bad")
    assert host.asked == [] and set(host.noted) == {"cache.unreadable"}


def test_what_cannot_be_read_is_not_deleted_either(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A side effect comes after the step that may fail."""
    cache = cache_of(host)
    monkeypatch.setattr(Cache, "__iter__", lambda self: iter(["bad", "good"]))
    broken, good = Result(Status.OK, bad(), version=5), Result(Status.OK, encode_value(1).pack(), version=6)
    for take in (cache.take, cache.pop, lambda key: cache.pop(key, None)):
        host.answers, host.asked = [broken], []
        with pytest.raises(ValueDecodeError, match="key 'bad'"):
            take("bad")
        assert [op.kind for op in host.asked] == [Kind.GET]
    host.answers, host.asked = [broken, good, Result(Status.OK)], []
    assert cache.popitem() == ("good", 1)
    assert [(op.kind, op.key) for op in host.asked] == [(Kind.GET, b"bad"), (Kind.GET, b"good"), (Kind.CAS, b"good")]
    host.answers, host.asked = [broken, Result(Status.MISSING), Result(Status.OK)], []
    with pytest.raises(ValueDecodeError):
        cache.popitem()
    assert [(op.kind, op.key) for op in host.asked] == [(Kind.GET, b"bad"), (Kind.GET, b"good"), (Kind.CAS, b"good")]


# -- compare and set -----------------------------------------------------------------------------


def held_as(value: object, version: int = 5) -> Result:
    return Result(Status.OK, encode_value(value).pack(), version)


EQUAL: list[tuple[Any, Any]] = [
    ({"a": 1, "b": {"c": 2, "d": {3, 4}}}, {"b": {"d": {4, 3}, "c": 2}, "a": 1}),
    (np.ones((2, 3)), np.asfortranarray(np.ones((2, 3)))),
    ([(1, {"x": 1, "y": 2})], [[1, {"y": 2, "x": 1}]]),
]


@pytest.mark.parametrize(("stored", "expected"), EQUAL, ids=["dict", "array", "inner dict"])
def test_equal_value_in_other_bytes_is_found_out_here_and_written_by_its_version(
    host: Host, stored: Any, expected: Any
) -> None:
    failed, lost = Result(Status.FAILED), Result(Status.FAILED)
    host.answers = [failed, held_as(stored), lost, held_as(stored, 6), Result(Status.OK, version=7)]
    assert cache_of(host).compare_and_set(KEY, expected, 1)
    assert [op.kind for op in host.asked] == [Kind.CAS, Kind.GET, Kind.CAS, Kind.GET, Kind.CAS]
    assert [(op.number, op.expected is None) for op in host.asked if op.kind == Kind.CAS] == [
        *((0, False), (5, True), (6, True)),
    ]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [({"a": 1}, {"a": 1.0}), ({"a": 1}, {"a": True}), ([1], {1}), (np.ones(2), np.ones(2, "f4")), ({"a": 1}, {"b": 1})],
)
def test_value_that_is_not_equal_is_not_written(host: Host, stored: Any, expected: Any) -> None:
    host.answers = [Result(Status.FAILED), held_as(stored)]
    assert not cache_of(host).compare_and_set(KEY, expected, 1)
    assert [op.kind for op in host.asked] == [Kind.CAS, Kind.GET]


@pytest.mark.parametrize("expected", [1, 1.5, "x", b"x", None, True, ABSENT, Versioned(1, 4)])
def test_value_of_one_form_is_compared_once(host: Host, expected: Any) -> None:
    host.answers = [Result(Status.FAILED)]
    assert not cache_of(host).compare_and_set(KEY, expected, 1)
    assert [op.kind for op in host.asked] == [Kind.CAS]


def test_value_that_went_meanwhile_is_not_equal(host: Host) -> None:
    host.answers = [Result(Status.FAILED), Result(Status.MISSING)]
    assert not cache_of(host).compare_and_set(KEY, {}, 1)


# -- keys and numbers of other classes -------------------------------------------------------------


class Trap(str):
    """A text that harms whoever looks at it as anything but a text."""

    def _raise(self, *arguments: object) -> Any:
        raise RuntimeError("of a user's class")

    __eq__ = __hash__ = encode = startswith = __str__ = _raise  # type: ignore[assignment]


class Key(StrEnum):
    KEY = "key"


@pytest.mark.parametrize("kind", [Key, np.str_, Trap])
def test_keys_of_other_classes_are_the_text(host: Host, kind: Any) -> None:
    cache, key = cache_of(host), kind("key")
    cache.get(key), cache.delete(key), cache.touch(key), cache.add(key, 1), cache.get_versioned(key)
    host.answers = [Result(Status.OK, version=3)]
    cache.lock(key)
    assert {op.key for op in host.asked} == {RAW, LOCK_PREFIX + RAW}


@pytest.mark.parametrize("by", [np.int16(2), np.uint8(2), type("Number", (int,), {})(2)])
def test_counters_take_integers_of_other_classes(host: Host, by: Any) -> None:
    cache_of(host).incr(KEY, by)
    assert type(host.asked[0].number) is int and host.asked[0].number == 2


@pytest.mark.parametrize("by", [True, np.bool_(1), 1.0, np.float64(1), "1", None])
def test_counters_take_nothing_else(host: Host, by: Any) -> None:
    with pytest.raises(ConfigError):
        cache_of(host).incr(KEY, by)


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


def test_a_value_that_cannot_be_read_again_is_not_stored(host: Host) -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, z.imag], lambda pair: complex("no number"))
    cache = Cache(host, Definition("c"), codecs)  # type: ignore[arg-type]
    host.answers = [LEASED]
    with pytest.raises(ValueDecodeError):
        cache.get_or_compute(KEY, lambda: 1j)
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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OperationTimeout("lost"), CacheOutcomeUnknown("lost")])
def test_what_was_asked_for_and_not_heard_of_is_withdrawn(host: Host, error: BaseException) -> None:
    cache = cache_of(host)
    calls: list[Callable[[], object]] = [lambda: cache.lock("job"), lambda: cache.get_or_compute(KEY, int)]
    for number, ask in enumerate(calls, 1):
        host.answers = [error]
        with pytest.raises(type(error)):
            ask()
        assert len(host.withdrawn) == number and host.withdrawn[-1] is host.asked[-1]
        assert host.withdrawn[-1].id
    assert host.withdrawn[0].id != host.withdrawn[1].id


def test_pop_of_nothing_is_a_delete_too(host: Host) -> None:
    host.answers = [Result(Status.MISSING), Result(Status.FAILED), Result(Status.MISSING), Result(Status.OK)]
    assert cache_of(host).pop(KEY, None) is None
    assert [(op.kind, op.number) for op in host.asked] == [(Kind.GET, 0), (Kind.CAS, 0)] * 2


def test_what_was_computed_is_stored_under_its_lease(host: Host) -> None:
    host.answers = [LEASED, Result(Status.OK)]
    assert cache_of(host).get_or_compute(KEY, lambda: "value") == "value"
    assert [(op.kind, op.number) for op in host.asked] == [(Kind.LEASE, 30_000), (Kind.SET, 77)]


# -- who asks for what it has ---------------------------------------------------------------


def test_a_computation_that_asks_for_its_own_key_is_told_so_at_once(host: Host) -> None:
    cache = cache_of(host)

    def outer() -> object:
        return cache.get_or_compute("inner", inner)

    def inner() -> object:
        return cache.get_or_compute("outer", outer)

    for compute in (lambda: cache.get_or_compute("outer", int), outer):
        host.asked.clear()
        host.answers = [LEASED, LEASED._replace(number=78)]
        with pytest.raises(ReentrantCallError, match="'outer'"):
            cache.get_or_compute("outer", compute)
        assert {op.kind for op in host.asked} == {Kind.LEASE, Kind.RETURN}, "each lease is given back"
        assert sum(op.kind == Kind.LEASE for op in host.asked) == sum(op.kind == Kind.RETURN for op in host.asked)
        host.answers = [LEASED, Result(Status.OK)]
        assert cache.get_or_compute("outer", lambda: 1) == 1, "it can be computed afterwards"


def test_computations_that_only_look_alike_are_no_circle(host: Host) -> None:
    """Other keys, another thread, the same key of another cache, and a task that outlives its computation."""
    cache, left = cache_of(host), []
    other = Cache(host, Definition("d", near=True), DEFAULT)  # type: ignore[arg-type]

    def compute() -> object:
        left.append(contextvars.copy_context())
        host.answers = [Result(Status.OK, encode_value(1).pack())] * 2
        assert cache.get_or_compute("b", int) == other.get_or_compute("a", int) == 1
        thread = ThreadPoolExecutor(1)
        host.answers = [Result(Status.OK, encode_value(2).pack()), Result(Status.OK)]
        with thread:
            return thread.submit(cache.get_or_compute, "a", int).result()

    host.answers = [LEASED]
    assert cache.get_or_compute("a", compute) == 2
    host.answers = [LEASED, Result(Status.OK)]
    assert left[0].run(cache.get_or_compute, "a", lambda: 3) == 3


GRANTED = Result(Status.OK, version=7)


def test_a_block_that_asks_for_its_own_lock_is_told_so_at_once(host: Host) -> None:
    cache = cache_of(host)
    host.answers = [GRANTED]
    with cache.lock("job"):
        asked = len(host.asked)
        with pytest.raises(ReentrantCallError, match="'job'"):
            cache.lock("job", timeout=None)
        assert len(host.asked) == asked
        host.answers = [GRANTED, Result(Status.OK)]
        cache.lock("other").release()
        host.answers = [Result(Status.OK)]
    host.answers = [GRANTED]
    cache.lock("job")
    host.answers = [Result(Status.FAILED, b"me", ttl=1000)]
    with pytest.raises(OperationTimeout, match="held by me, this agent itself"):
        cache.lock("job", timeout=0)


# -- locks that are lost --------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "holder"), [(Result(Status.FAILED, b"bob"), "bob"), (Result(Status.MISSING), None)])
def test_a_lost_lock_is_no_secret(host: Host, answer: Result, holder: str | None) -> None:
    cache = cache_of(host)
    calls: list[Callable[[Lock], object]] = [Lock.renew, Lock.release, lambda lock: lock.__exit__(None, None, None)]
    for call in calls:
        host.answers = [GRANTED]
        lock = cache.lock("job")
        assert lock.held
        host.answers = [answer]
        with pytest.raises(LockLost, match="job") as caught:
            call(lock)
        assert (caught.value.token, caught.value.node) == (7, holder) and not lock.held


def test_a_lost_lock_hides_no_error_of_the_block(host: Host) -> None:
    host.answers = [GRANTED, Result(Status.MISSING)]
    with pytest.raises(ZeroDivisionError), cache_of(host).lock("job"):
        raise ZeroDivisionError


def test_a_lock_is_held_until_its_lease_is_over_by_the_holders_clock(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    monkeypatch.setattr(mycorrizal.leases, "now", lambda: now[0])
    host.answers = [GRANTED]
    lock = cache_of(host).lock("job", lease=10)
    for now[0], held in ((NOW + 9.9, True), (NOW + 10, False), (NOW + 9.9, True)):
        assert lock.held is held
    host.answers = [Result(Status.OK)]
    assert lock.renew()
    now[0] = NOW + 19
    assert lock.held
    host.answers = [Result(Status.OK)]
    assert lock.release() and not lock.held and not lock.release()


def test_a_lock_is_renewed_while_its_block_runs_until_that_fails(host: Host) -> None:
    """The thread's part, without the thread."""
    host.answers = [GRANTED]
    lock = cache_of(host).lock("job", lease=9, renew=True)
    host.answers = [Result(Status.OK), CacheUnavailable("nobody"), Result(Status.OK), Result(Status.FAILED, b"bob")]
    assert [lock._renew_again() for _ in range(4)] == [3.0, 1.0, 3.0, None]
    assert not lock.held and host.noted == ["cache.locks_not_renewed", "cache.locks_lost"]
    assert [op.kind for op in host.asked[1:]] == [Kind.RENEW] * 4



# -- large values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "kind"),
    [(CacheUnavailable("not now"), CacheUnavailable), (Result(Status.TOO_LARGE), ValueTooLarge)],
    ids=["unavailable", "too large"],
)
def test_an_error_of_many_names_the_keys_it_is_about(
    host: Host, monkeypatch: pytest.MonkeyPatch, bad: Any, kind: type[MycorrizalError]
) -> None:
    asked: list[list[bytes]] = []

    def operate(cache: str, batch: Batch, timeout: float | None, operation: str) -> list[Any]:
        asked.append([*batch.keys])
        return [bad if key in (b"b", b"d") else Result(Status.OK) for key in batch.keys]

    monkeypatch.setattr(host, "operate", operate)
    monkeypatch.setattr(mycorrizal.cache, "_OPS_AT_ONCE", 4)
    cache = cache_of(host)
    calls: dict[str, Callable[[], object]] = {
        "set_many": lambda: cache.set_many(dict.fromkeys("abcdef", 1)), "get_many": lambda: cache.get_many("abcdef"),
        "delete_many": lambda: cache.delete_many(iter("abcdef")),
    }  # fmt: skip
    for operation, call in calls.items():
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.keys == ("b", "d", "e", "f"), "the last two were not come to"
        assert caught.value.operation == operation
        assert pickle.loads(pickle.dumps(caught.value)).keys == caught.value.keys
    assert asked == [[b"a", b"b", b"c", b"d"]] * 3


def test_an_error_of_a_whole_batch_names_all_that_is_left(host: Host) -> None:
    host.answers = [OperationTimeout("late")]
    with pytest.raises(OperationTimeout) as caught:
        cache_of(host).set_many({"a": 1, "b": 2})
    assert caught.value.keys == ("a", "b") and OperationTimeout("one").keys == ()


def test_large_values_are_sent_from_where_they_are_also_many_and_what_was_computed(host: Host) -> None:
    host.leading, large = False, bytearray(LEND_MIN)
    cache = cache_of(host)
    host.answers = [Result(Status.OK)] * 3
    cache.set_many({"small": 1, "a": large, "b": [large]})
    assert [(op.key, op.value is None) for op in host.asked] == [(b"small", False), (b"a", True), (b"b", True)]
    assert [op.key for op, _ in host.lent] == [b"a", b"b"] and all(lent.size > LEND_MIN for _, lent in host.lent)
    host.lent, host.asked = [], []
    host.answers = [LEASED, Result(Status.OK)]
    assert cache.get_or_compute(KEY, lambda: large) == bytes(large)
    ((op, lent),) = host.lent
    assert (op.kind, op.number, op.value) == (Kind.SET, 77, None) and lent.size > LEND_MIN
    host.leading, host.lent, host.answers = True, [], [Result(Status.OK)]
    cache.set_many({"a": large})
    assert host.lent == []


def test_many_values_of_which_one_cannot_be_sent_are_not_sent_at_all(host: Host) -> None:
    with pytest.raises(TypeError):
        cache_of(host).set_many({"a": 1, "b": object()})
    assert host.asked == []
