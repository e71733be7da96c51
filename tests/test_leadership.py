"""Leading above a host of the test's: whose turn it is, what a run leaves, and what the end of a block says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import mycorrizal.leadership
import mycorrizal.leases
from mycorrizal import ConfigError, LockLost, NotLeader, OperationTimeout, ReentrantCallError
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.operations import Kind, Op, Result, Status
from mycorrizal._wire.values import DEFAULT, decode_packed
from mycorrizal.cache import Cache
from mycorrizal.exceptions import CacheOutcomeUnknown, CacheUnavailable
from mycorrizal.leadership import LEADERS, Term, lead
from tests._cache.harness import make_machine

GRANTED = Result(Status.OK, version=7)
OK = Result(Status.OK)
NOTHING = Result(Status.MISSING)
BOBS = Result(Status.FAILED, b"bob", ttl=5000)
LOST = Result(Status.FAILED, b"bob")


class Clock:
    """The time of a test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Host:
    """Answers operations from a script; a pause makes time pass at once."""

    name = "me"

    def __init__(self, machine: CacheMachine, clock: Clock) -> None:
        self.machine = machine
        self.clock = clock
        self.asked: list[Op] = []
        self.answers: list[Result | BaseException] = []
        self.pauses: list[float] = []
        self.withdrawn: list[Op] = []

    def readable(self, cache: str) -> Any:
        return self.machine.readable("c")

    def operate(self, cache: str, ops: Any, timeout: float | None, operation: str) -> list[Any]:
        self.asked += ops
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return [answer]

    def leads(self, cache: str, key: bytes) -> bool:
        return True

    def withdraw(self, cache: str, op: Op) -> None:
        self.withdrawn.append(op)

    def note(self, counter: str, why: object) -> None:
        return None

    def pause(self, seconds: float, operation: str) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds

    @property
    def kinds(self) -> list[int]:
        return [op.kind for op in self.asked]


class Threadless:
    """A renewal that never comes: the thread's part is tests/test_cache.py's."""

    def __init__(self, *args: Any) -> None:
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        return None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    clock = Clock()
    for module in (mycorrizal.leases, mycorrizal.leadership):
        monkeypatch.setattr(module, "now", clock)
    monkeypatch.setattr(mycorrizal.leases, "Repeater", Threadless)
    return Host(make_machine(now=clock.now), clock)


def leading(host: Host, *answers: Result | BaseException, **given: Any) -> Term:
    host.answers = list(answers)
    cache = given.pop("cache", None) or Cache(host, Definition("c"), DEFAULT)  # type: ignore[arg-type]
    settings = {"lease": 10.0, "every": None, "wait": True, "timeout": None, **given}
    return lead(cache, "nightly", **settings)


def test_a_term_is_a_lock_that_is_renewed_while_its_block_runs(host: Host) -> None:
    term = leading(host, GRANTED)
    assert (term.name, term.token, term.held) == ("nightly", 7, True) and "token 7, held" in repr(term)
    renewal: Any = term._lock._renewal
    assert not renewal.started
    host.answers = [OK]
    with term as entered:
        assert entered is term and renewal.started == 1
    assert not term.held and host.kinds == [Kind.LOCK, Kind.UNLOCK]
    assert host.asked[0].ttl == 10_000 and host.asked[0].wait > 0


def test_who_does_not_wait_is_told_who_leads(host: Host) -> None:
    with pytest.raises(NotLeader, match="'nightly' is led by bob") as caught:
        leading(host, BOBS, wait=False)
    assert (caught.value.node, caught.value.due) == ("bob", None) and caught.value.retriable
    assert isinstance(caught.value, OperationTimeout)
    assert host.asked[0].wait == 0 and host.kinds == [Kind.LOCK] and host.pauses == []
    with leading(host, GRANTED, OK, wait=False) as term:
        assert term.held


def test_who_has_waited_for_long_enough_is_told_too(host: Host) -> None:
    with pytest.raises(NotLeader) as caught:
        leading(host, BOBS, timeout=0)
    assert caught.value.node == "bob"


def test_an_answer_that_did_not_come_is_no_leader(host: Host) -> None:
    with pytest.raises(OperationTimeout) as caught:
        leading(host, OperationTimeout("nobody has said"), wait=False)
    assert not isinstance(caught.value, NotLeader) and len(host.withdrawn) == 1


def test_an_outcome_that_nobody_knows_is_asked_again_while_there_is_time(host: Host) -> None:
    """It was withdrawn, so nobody holds the lock for us: as when a quorum comes back after minutes of waiting."""
    unknown = CacheOutcomeUnknown("nobody said")
    with leading(host, unknown, unknown, GRANTED, OK) as term:
        assert term.held and len(host.withdrawn) == 2
    for given in ({"wait": False}, {"timeout": 0}):
        with pytest.raises(CacheOutcomeUnknown):
            leading(host, CacheOutcomeUnknown("nobody said"), **given)


@pytest.mark.parametrize("every", [60, 60.0, timedelta(minutes=1)])
def test_a_run_is_written_down_until_its_period_is_over(host: Host, every: Any) -> None:
    host.clock.now = 100.0
    term = leading(host, NOTHING, GRANTED, NOTHING, every=every)
    host.answers = [OK, OK, OK]
    with term:
        host.clock.now += 5
    assert host.kinds == [Kind.GET, Kind.LOCK, Kind.GET, Kind.RENEW, Kind.SET, Kind.UNLOCK]
    record = host.asked[4]
    assert record.key == b"mycorrizal.ran/nightly" and record.ttl == 55_000, "from the beginning of the run on"
    assert decode_packed(record.value or b"") == {"node": "me", "token": 7, "seconds": 5.0}


def test_a_run_longer_than_its_period_is_due_again_at_once(host: Host) -> None:
    term = leading(host, NOTHING, GRANTED, NOTHING, every=60)
    host.answers = [OK, OK]
    with term:
        host.clock.now += 60
    assert host.kinds[3:] == [Kind.RENEW, Kind.UNLOCK]


def test_a_run_that_raised_is_due_again(host: Host) -> None:
    term = leading(host, NOTHING, GRANTED, NOTHING, every=60)
    host.answers = [OK]
    with pytest.raises(ZeroDivisionError), term:
        raise ZeroDivisionError
    assert host.kinds[3:] == [Kind.UNLOCK]


def ran(left: float) -> Result:
    return Result(Status.OK, b"", 3, ttl=int(left * 1000))


def test_who_waits_for_the_next_period_looks_again_now_and_then(host: Host) -> None:
    """The record may go before its time, and another one may have run while we waited for the lock."""
    term = leading(host, ran(50), ran(20), NOTHING, GRANTED, ran(60), OK, ran(0.5), NOTHING, GRANTED, NOTHING, every=60)
    assert host.pauses == [30.0, 20.0, 30.0, 0.5] and term.held
    assert host.kinds.count(Kind.LOCK) == 2 and host.kinds.count(Kind.UNLOCK) == 1


@pytest.mark.parametrize("given", [{"wait": False}, {"timeout": 49.9}, {"timeout": timedelta(seconds=3)}])
def test_a_period_that_is_not_over_in_time_is_told_at_once(host: Host, given: dict[str, Any]) -> None:
    with pytest.raises(NotLeader, match="again in 50 s") as caught:
        leading(host, ran(50), every=60, **given)
    assert (caught.value.node, caught.value.due) == (None, 50.0) and host.pauses == [] and host.kinds == [Kind.GET]


def test_a_shorter_period_than_the_last_run_was_told_counts(host: Host) -> None:
    """An edited period holds from its edit on, not from the end of the old one."""
    leading(host, ran(86_400), NOTHING, GRANTED, NOTHING, every=5)
    assert host.pauses == [5.0]


def test_a_lock_is_given_back_if_nobody_says_whether_the_period_is_over(host: Host) -> None:
    with pytest.raises(CacheUnavailable, match="gone"):
        leading(host, NOTHING, GRANTED, CacheUnavailable("gone"), CacheUnavailable("this too"), every=60)
    assert host.kinds == [Kind.GET, Kind.LOCK, Kind.GET, Kind.UNLOCK]


@pytest.mark.parametrize("every", [None, 60])
@pytest.mark.parametrize("error", [None, ZeroDivisionError(), KeyboardInterrupt()])
def test_the_end_tells_that_it_did_not_lead_any_more(
    host: Host, every: float | None, error: BaseException | None
) -> None:
    checks: list[Any] = [] if every is None else [NOTHING]
    term = leading(host, *checks, GRANTED, *checks, every=every).__enter__()
    host.answers = [LOST, LOST]
    if error is None:
        with pytest.raises(LockLost) as caught:
            term.__exit__(None, None, None)
        assert (caught.value.node, caught.value.token) == ("bob", 7)
    else:
        with pytest.raises(type(error)) as raised, term:  # the block's own error goes on
            raise error
        assert raised.value is error
    assert Kind.SET not in host.kinds, "a run that was not a leader's is not written down"


def test_a_record_that_cannot_be_written_is_told_and_the_lock_given_up(host: Host) -> None:
    term = leading(host, NOTHING, GRANTED, NOTHING, every=60)
    host.answers = [OK, CacheUnavailable("no quorum"), OK]
    with pytest.raises(CacheUnavailable, match="no quorum"), term:
        pass
    assert host.kinds[-1] == Kind.UNLOCK and not term.held


def test_a_block_that_leads_does_not_wait_for_itself(host: Host) -> None:
    cache = Cache(host, Definition("c"), DEFAULT)  # type: ignore[arg-type]
    with leading(host, GRANTED, cache=cache), pytest.raises(ReentrantCallError, match="nightly"):
        leading(host, OK, cache=cache)


@pytest.mark.parametrize("given", [{"every": 0}, {"every": -1}, {"every": "day"}, {"lease": float("inf")}])
def test_times_that_are_none(host: Host, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        leading(host, NOTHING, **given)


def test_the_cache_that_is_led_by_outlives_two_crashes_and_keeps_what_it_has() -> None:
    assert (LEADERS.replicas, LEADERS.quorum, LEADERS.sync_backups, LEADERS.near) == (3, 0, True, False)
    assert LEADERS.ttl is LEADERS.max_bytes is LEADERS.max_entries is None
