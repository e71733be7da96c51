"""What each operation answers and changes, on one node."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._cache.entry import LOCK_PREFIX, NEVER
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import ConfigError, QueueFull
from tests._cache.harness import ask, make_machine, space_in


def one(machine: CacheMachine, kind: Kind, key: bytes = b"k", *, now: float = 0.0, **fields: Any) -> Result:
    (outcome,) = ask(machine, Op(kind, key, **fields), now=now)
    assert isinstance(outcome, Result)
    return outcome


def test_set_get_delete() -> None:
    machine = make_machine()
    assert one(machine, Kind.GET).status == Status.MISSING
    version = one(machine, Kind.SET, value=b"v").version
    assert one(machine, Kind.GET) == Result(Status.OK, b"v", version)
    assert one(machine, Kind.DELETE).status == Status.OK
    assert one(machine, Kind.DELETE).status == Status.MISSING
    assert one(machine, Kind.GET).value is None


def test_time_to_live() -> None:
    machine = make_machine()
    one(machine, Kind.SET, value=b"v", ttl=1500)
    assert one(machine, Kind.GET, now=1.0).ttl == 500
    assert one(machine, Kind.GET, now=1.6).status == Status.MISSING
    machine.handle_timer(5.0)
    assert machine.info("c")["entries"] == 0 and machine.info("c")["expired"] == 1


def test_touch_gives_a_new_time_to_live() -> None:
    machine = make_machine()
    assert one(machine, Kind.TOUCH, ttl=5000).status == Status.MISSING
    one(machine, Kind.SET, value=b"v", ttl=1000)
    assert one(machine, Kind.TOUCH, ttl=5000).status == Status.OK
    assert one(machine, Kind.GET, now=2.0) == one(machine, Kind.GET, now=2.0)._replace(value=b"v", ttl=3000)
    assert one(machine, Kind.TOUCH, now=2.0).status == Status.OK
    assert one(machine, Kind.GET, now=100.0).value == b"v"


def test_add_only_if_absent_or_expired() -> None:
    machine = make_machine()
    assert one(machine, Kind.ADD, value=b"1", ttl=1000).status == Status.OK
    assert one(machine, Kind.ADD, value=b"2").status == Status.FAILED
    assert one(machine, Kind.ADD, value=b"3", now=1.0).status == Status.OK
    assert one(machine, Kind.GET, now=1.0).value == b"3"


def test_compare_and_set_by_version() -> None:
    machine = make_machine()
    assert one(machine, Kind.CAS, value=b"1", number=7).status == Status.FAILED
    first = one(machine, Kind.CAS, value=b"1", number=0)
    assert first.status == Status.OK
    failed = one(machine, Kind.CAS, value=b"2", number=0)
    assert failed.status == Status.FAILED and failed.version == first.version
    assert one(machine, Kind.CAS, value=b"2", number=first.version).status == Status.OK
    assert one(machine, Kind.CAS, value=b"3", number=first.version).status == Status.FAILED
    assert one(machine, Kind.GET).value == b"2"


def test_compare_and_set_by_value() -> None:
    machine = make_machine()
    assert one(machine, Kind.CAS, value=b"2", expected=b"1").status == Status.FAILED
    one(machine, Kind.SET, value=b"1")
    assert one(machine, Kind.CAS, value=b"2", expected=b"1").status == Status.OK
    assert one(machine, Kind.GET).value == b"2"


def test_increments_keep_the_time_to_live() -> None:
    machine = make_machine()
    assert one(machine, Kind.INCR, number=5, ttl=2000).number == 5
    assert one(machine, Kind.INCR, number=-7, ttl=9000, now=1.0).number == -2
    assert one(machine, Kind.GET, now=1.0).ttl == 1000
    assert one(machine, Kind.GET, now=1.0).value == encode_value(-2).pack()
    assert one(machine, Kind.INCR, number=1, now=2.0).number == 1


@pytest.mark.parametrize("value", ["text", 1.5, 1 << 63, True, None, [1]])
def test_increment_of_what_is_no_counter(value: object) -> None:
    machine = make_machine()
    one(machine, Kind.SET, value=encode_value(value).pack())
    assert one(machine, Kind.INCR, number=1).status == Status.NOT_COUNTER
    assert one(machine, Kind.GET).value == encode_value(value).pack()


def test_increment_of_bytes_that_are_no_value() -> None:
    machine = make_machine()
    one(machine, Kind.SET, value=b"\xff\xff")
    assert one(machine, Kind.INCR, number=1).status == Status.NOT_COUNTER


def test_counter_does_not_leave_64_bits() -> None:
    machine = make_machine()
    one(machine, Kind.INCR, number=(1 << 63) - 1)
    assert one(machine, Kind.INCR, number=1).status == Status.NOT_COUNTER


def test_lock_renew_unlock() -> None:
    machine = make_machine()
    key = LOCK_PREFIX + b"x"
    token = one(machine, Kind.LOCK, key, value=b"me", ttl=1000).version
    held = one(machine, Kind.LOCK, key, value=b"you", ttl=1000)
    assert (held.status, held.value, held.ttl) == (Status.FAILED, b"me", 1000)
    assert one(machine, Kind.RENEW, key, number=token, ttl=3000, now=0.5).version == token
    assert one(machine, Kind.LOCK, key, value=b"you", ttl=1000, now=2.0).status == Status.FAILED
    assert one(machine, Kind.UNLOCK, key, number=token + 1, now=2.0).status == Status.FAILED
    assert one(machine, Kind.UNLOCK, key, number=token, now=2.0).status == Status.OK
    assert one(machine, Kind.UNLOCK, key, number=token, now=2.0).status == Status.MISSING
    assert one(machine, Kind.LOCK, key, value=b"you", ttl=1000, now=2.0).version > token


def test_lock_whose_holder_is_late_is_another_ones() -> None:
    machine = make_machine()
    key = LOCK_PREFIX + b"x"
    token = one(machine, Kind.LOCK, key, ttl=1000).version
    later = one(machine, Kind.LOCK, key, ttl=1000, now=1.0).version
    assert later > token
    assert one(machine, Kind.RENEW, key, number=token, ttl=1000, now=1.1).status == Status.FAILED
    assert one(machine, Kind.UNLOCK, key, number=token, now=1.1).status == Status.FAILED


def test_many_in_one_go_answer_in_order() -> None:
    machine = make_machine()
    outcomes = ask(machine, *[Op(Kind.SET, b"%d" % index, value=b"v%d" % index) for index in range(500)])
    assert [outcome.status for outcome in outcomes] == [Status.OK] * 500
    outcomes = ask(machine, *[Op(Kind.GET, b"%d" % index) for index in range(501)])
    assert [outcome.value for outcome in outcomes] == [b"v%d" % index for index in range(500)] + [None]
    assert ask(machine) == []


def test_value_larger_than_the_cache() -> None:
    machine = make_machine(max_bytes=1000)
    assert one(machine, Kind.SET, value=b"x" * 1000).status == Status.TOO_LARGE
    assert one(machine, Kind.SET, value=b"x" * 100).status == Status.OK


def test_key_that_no_cache_takes() -> None:
    machine = make_machine()
    for key in (b"", b"x" * 1025):
        with pytest.raises(ConfigError, match="a key has 1 to 1024"):
            ask(machine, Op(Kind.GET, key))


def test_too_many_under_way() -> None:
    from mycorrizal._cache.definition import Limits

    machine = make_machine(limits=Limits(operations=3))
    with pytest.raises(QueueFull):
        ask(machine, *[Op(Kind.GET, b"k")] * 4)
    assert machine.counters()["operations_refused"] == 1
    assert len(ask(machine, *[Op(Kind.GET, b"k")] * 3)) == 3


def test_what_was_written_is_readable_by_other_threads() -> None:
    from mycorrizal._cache.placement import partition_of

    machine = make_machine()
    one(machine, Kind.SET, value=b"v", ttl=1000)
    entry = machine.readable("c")[partition_of(b"k")][b"k"]
    assert (entry.value, entry.expires) == (b"v", 1.0)
    one(machine, Kind.SET, value=b"w")
    assert entry.value == b"v", "an entry never changes"
    again = machine.readable("c")[partition_of(b"k")][b"k"]
    assert (again.value, again.expires) == (b"w", NEVER)
    assert space_in(machine).store.entries == 1
