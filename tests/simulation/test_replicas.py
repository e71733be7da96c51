"""Replicas in a simulated cluster: the driver, the campaigns, and that the checkers see what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from mycorrizal import Config
from mycorrizal._replica import messages
from mycorrizal._replica.clock import Stamp
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.outputs import EventReceived, EventsMissed, ServiceChanged, SettingChanged
from mycorrizal.simulation import CheckFailed, Replicas, run_events, run_joins, run_settings_campaign
from mycorrizal.simulation.replica_checkers import (
    EventChecker,
    ServiceChecker,
    SettingChecker,
    check_events_even,
    check_everything_there,
    check_services,
    check_settings,
    check_writes,
    entries,
)

ROOT = Path(__file__).resolve().parents[2]


def joined(size: int, seed: object = 1, **more: Any) -> Replicas:
    replicas = Replicas(seed, **more)
    first = replicas.add(first=True)
    for _ in range(size - 1):
        replicas.join(replicas.add(), lambda: first)
    replicas.cluster.run(5.0)
    assert replicas.cluster.agreed
    return replicas


# -- the driver -------------------------------------------------------------------------


def test_messages_ride_the_gossip_of_the_real_machine() -> None:
    replicas = joined(4)
    one = replicas.alive[1]
    replicas.do(one, lambda replica, now: replica.set_setting("key", b"value", now))
    replicas.do(one, lambda replica, now: replica.register("web", b"80", now))
    before = replicas.cluster.network.counters.exchanges
    replicas.cluster.run(1.0)
    assert replicas.cluster.network.counters.exchanges == before  # so it was gossip
    for member in replicas.alive:
        check_everything_there(replicas, member, {"key": b"value"}, {(one.name, "web"): b"80"})


@pytest.mark.parametrize(("most", "missing"), [(64, 0), (28, 20)])
def test_what_is_small_is_told_to_everybody_at_once(most: int, missing: int) -> None:
    """With the gossip of one host alone some are left out until the next push/pull."""
    replicas = joined(30, config=Config.local(name="template"), limits=Limits(direct_peers=most))
    replicas.cluster.run(30.0)
    one = replicas.alive[3]
    counters = replicas.cluster.network.counters
    before = counters.exchanges
    for number in range(20):
        replicas.do(one, lambda replica, now, n=number: replica.set_setting(f"key{n}", b"v", now))
        replicas.cluster.run(0.05)
    lacking = sum(20 - len(replicas.of(member).settings) for member in replicas.alive)
    assert lacking == 0 if not missing else lacking > missing
    assert counters.exchanges - before < 10, "nor was it the push/pulls that brought them"


def test_a_flood_of_settings_takes_few_packets_and_no_conversations() -> None:
    replicas = joined(10, config=Config.local(name="template"))
    one, counters = replicas.alive[3], replicas.cluster.network.counters
    exchanges, datagrams = counters.exchanges, counters.datagrams
    for begin in range(0, 500, 50):

        def write(replica: Replica, now: float, begin: int = begin) -> None:
            for number in range(begin, begin + 50):
                replica.set_setting(f"key-{number}", b"x" * 27, now)

        replicas.do(one, write)
        replicas.cluster.run(0.05)
    assert all(len(replicas.of(member).settings) == 500 for member in replicas.alive)
    replicas.cluster.run(2.0)
    assert counters.exchanges - exchanges < 20, "4,000 when what gossip has no room for was pushed"
    assert counters.datagrams - datagrams < 10 * 100
    handled = sum(replicas.of(member).counters["messages"] for member in replicas.alive)
    assert handled < 1.2 * 9 * 500, "what gossip brings again is not much more than what batches spare"


def test_large_messages_are_pushed_and_holes_are_fetched() -> None:
    replicas = joined(4)
    checker = EventChecker(replicas)
    replicas.watchers.append(checker)
    one, other = replicas.alive[:2]
    value = replicas.of(one).boot + bytes(5000)
    replicas.cluster.network.links.cut(one.slot, other.slot)
    replicas.do(one, lambda replica, now: replica.publish("topic", value, now))
    replicas.cluster.run(0.5)
    replicas.cluster.network.links.heal()
    assert (other.index, one.name, value[:8]) not in checker.seen
    replicas.cluster.run(5.0)
    assert all(checker.seen[member.index, one.name, value[:8]] == [1] for member in replicas.alive)
    assert replicas.of(other).counters["events.fetches"] == 1


def test_a_restart_keeps_what_was_in_its_file_and_a_crash_takes_its_services() -> None:
    replicas = joined(3)
    one, other = replicas.alive[:2]
    replicas.do(other, lambda replica, now: replica.set_setting("key", b"value", now))
    replicas.do(other, lambda replica, now: replica.register("web", b"", now))
    replicas.cluster.run(2.0)
    replicas.cluster.crash(other)
    replicas.cluster.run(10.0)
    check_services(replicas, {})
    new = replicas.restart(other, restore=True)
    assert replicas.of(new).settings["key"].value == b"value"
    replicas.join(new, lambda: one)
    replicas.cluster.run(5.0)
    check_settings(replicas)
    assert replicas.of(new).boot != replicas.of(other).boot
    check_services(replicas, {})


# -- campaigns ------------------------------------------------------------------------------


def test_settings_campaigns() -> None:
    for seed in range(6):
        run_settings_campaign(seed)


def test_settings_campaigns_without_gossip() -> None:
    for seed in range(3):
        run_settings_campaign(seed, gossip=False)


@pytest.mark.slow
def test_fifty_settings_campaigns() -> None:
    for seed in range(100, 150):
        run_settings_campaign(seed)


def test_joiners_have_everything_when_their_join_is_done() -> None:
    assert run_joins(1, joins=15).longest < 0.1


@pytest.mark.slow
def test_many_joiners_have_everything_when_their_join_is_done() -> None:
    assert run_joins(2, joins=150).longest < 0.1


@pytest.mark.parametrize("gossip", [True, False])
def test_events_arrive_once_and_in_order_under_loss(gossip: bool) -> None:
    report = run_events(1, events=150, gossip=gossip)
    assert report.lost > 10
    assert report.fetches > 0
    assert report.calm < 15.0


@pytest.mark.slow
def test_a_thousand_events_of_eight_members() -> None:
    assert run_events(2).calm < 15.0


def test_same_seed_same_run_under_two_hash_seeds() -> None:
    story = "from mycorrizal.simulation import *; print(run_settings_campaign(7)); print(run_events(7, events=40))"
    outputs = []
    for hash_seed in ("1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", story], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


# -- planted faults -----------------------------------------------------------------------------


class ForgetsTombstones(Replica):
    def local_state(self, join: bool) -> bytes:
        for key in [key for key, entry in self._table.items() if entry.value is None]:
            self._table.drop(key)
        return super().local_state(join)


class SeesNoStamps(Replica):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._clock.witness = lambda stamp: None  # type: ignore[method-assign]


class LastComeWins(Replica):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._table.wins = lambda key, stamp, raw: not self._table.knows(raw)  # type: ignore[method-assign]


class TakesNoStates(Replica):
    def merge_state(self, data: bytes, join: bool, now: float, *, answer: bool = False) -> None:
        return None


class GivesTwice(Replica):
    def receive(self, data: bytes, now: float, *, pushed: bool = False) -> None:
        super().receive(data, now, pushed=pushed)
        for log in self._events._logs.values():
            if log.sender != self._own and log.delivered > 2:
                log.delivered = log.last = log.last - 1


class SkipsSilently(Replica):
    def receive(self, data: bytes, now: float, *, pushed: bool = False) -> None:
        for log in self._events._logs.values():
            if log.held:
                log.last = min(log.held) - 1
                self._events._settle(log)
        super().receive(data, now, pushed=pushed)


class KeepsTheDead(Replica):
    def member_down(self, name: str, now: float) -> None:
        return None


@pytest.mark.parametrize(
    ("machine", "caught"),
    [
        (ForgetsTombstones, ("Settings", "Writes", "SettingChecker")),
        (SeesNoStamps, ("SettingChecker", "Writes")),
        (LastComeWins, ("SettingChecker", "Writes")),
        (TakesNoStates, ("Settings", "Services")),
        (GivesTwice, ("EventChecker",)),
        (KeepsTheDead, ("Services", "ServiceChecker")),
    ],
)
def test_a_campaign_catches_a_planted_fault(machine: type[Replica], caught: tuple[str, ...]) -> None:
    def campaigns() -> None:
        for seed in range(20):
            run_settings_campaign(seed, machine=machine)

    with pytest.raises(CheckFailed) as failed:
        campaigns()
    assert failed.value.checker in caught
    assert failed.value.seed is not None


def test_the_other_campaigns_catch_planted_faults_too() -> None:
    with pytest.raises(CheckFailed, match="differs in"):
        run_joins(1, joins=3, machine=TakesNoStates)
    with pytest.raises(CheckFailed, match="nothing was said to be missed"):
        run_events(1, events=150, machine=SkipsSilently)
    with pytest.raises(CheckFailed, match="again, or after"):
        run_events(1, events=150, machine=GivesTwice)
    with pytest.raises(CheckFailed, match="nothing was lost"):
        run_events(1, members=3, events=5, loss=0.0)


def test_the_event_checker_allows_a_hole_only_where_one_was_told() -> None:
    replicas = joined(2)
    checker, member = EventChecker(replicas), replicas.alive[0]

    def got(number: int) -> None:
        checker(member, EventReceived("topic", b"bootboot", "x", number))

    got(5)  # wherever a newcomer begins
    got(6)
    checker(member, EventsMissed("x", 3))
    got(10)
    for number in (10, 7, 12):
        with pytest.raises(CheckFailed):
            got(number)
    checker.check_missed()  # x is nobody
    checker(member, EventsMissed(replicas.alive[1].name, 2))
    with pytest.raises(CheckFailed, match="which has them"):
        checker.check_missed()


def test_the_setting_checker_wants_later_stamps() -> None:
    replicas = joined(2)
    checker, member = SettingChecker(replicas), replicas.alive[0]
    checker(member, SettingChanged("key", b"", "a", Stamp(5, 1, "a", b"bootboot")))
    checker(member, SettingChanged("key", None, "a", Stamp(5, 2, "a", b"bootboot")))
    for counter in (1, 2):
        with pytest.raises(CheckFailed):
            checker(member, SettingChanged("key", b"", "a", Stamp(5, counter, "a", b"bootboot")))


def test_the_service_checker_wants_sense() -> None:
    replicas = joined(2)
    checker, member = ServiceChecker(replicas), replicas.alive[0]
    checker(member, ServiceChanged("added", "a", "web", b""))
    with pytest.raises(CheckFailed):
        checker(member, ServiceChanged("added", "a", "web", b""))
    with pytest.raises(CheckFailed, match="has said"):
        checker.check_views([member])
    checker(member, ServiceChanged("removed", "a", "web", b""))
    checker.check_views([member])
    kinds: list[Literal["removed", "updated"]] = ["removed", "updated"]
    for kind in kinds:
        with pytest.raises(CheckFailed):
            checker(member, ServiceChanged(kind, "a", "web", b""))


def test_the_checks_at_the_end_see_a_difference() -> None:
    def broken(change: Callable[[Replica], object], check: Callable[[Replicas], None]) -> None:
        replicas = joined(3)
        replicas.do(replicas.alive[0], lambda replica, now: replica.set_setting("key", b"value", now))
        replicas.do(replicas.alive[0], lambda replica, now: replica.publish("topic", b"bootboot", now))
        replicas.cluster.run(3.0)
        check(replicas)
        change(replicas.of(replicas.alive[1]))
        with pytest.raises(CheckFailed):
            check(replicas)

    broken(lambda replica: replica.settings.clear(), check_settings)
    broken(lambda replica: replica.set_setting("key", b"other", 5.0), check_settings)
    broken(lambda replica: replica.register("web", b"", 5.0), lambda replicas: check_services(replicas, {}))
    broken(lambda replica: replica.publish("topic", b"bootboot", 5.0), check_events_even)

    def write(replicas: Replicas) -> None:
        check_writes(replicas, [(replicas.alive[0], "key", entries(replicas, replicas.alive[0])["key"][0], b"value")])

    broken(lambda replica: replica._table.drop("key"), write)
    old = messages.Setting("key", b"old", Stamp(5, 0, "z", b"bootboot"))

    def undo(replica: Replica) -> None:
        replica._table.drop("key")
        replica.receive(old.encode(), 5.0)

    broken(undo, write)
