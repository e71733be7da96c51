"""Campaigns: several seeds of every fault, and faults planted in the machine that a campaign must find."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal import Config
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import Alive
from mycorrizal.simulation import CheckFailed, Faults, run_campaign
from tests.keys import key_of


@pytest.mark.parametrize("seed", range(1, 9))
def test_local_profile(seed: int) -> None:
    report = run_campaign(seed)
    print(report)  # shown when it fails, and with -s
    assert report.calm < report.bound
    assert all(report.actions.values())


@pytest.mark.parametrize("seed", range(101, 104))
def test_lan_profile_encrypted(seed: int) -> None:
    config = Config.lan(
        name="template", secret_key=key_of("a", 16), label="blue", gossip_to_the_dead_time=10.0, reconnect_interval=3.0
    )
    print(run_campaign(seed, members=6, config=config))


@pytest.mark.parametrize("seed", range(201, 203))
def test_msgpack_in_a_larger_cluster(seed: int) -> None:
    config = Config.lan(name="template", wire="msgpack", gossip_to_the_dead_time=10.0, reconnect_interval=3.0)
    print(run_campaign(seed, members=12, duration=45.0, config=config))


@pytest.mark.parametrize("seed", [900, 901])
def test_with_a_floor_under_suspicions(seed: int) -> None:
    config = Config.local(
        name="template", gossip_to_the_dead_time=5.0, reconnect_interval=2.0, suspicion_min_timeout=12.0
    )
    print(run_campaign(seed, members=5, config=config))


def test_the_same_seed_is_the_same_campaign() -> None:
    one, other = (run_campaign("again", members=5, duration=40.0) for _ in range(2))
    assert one == other


def test_a_quiet_campaign_is_vacuous() -> None:
    with pytest.raises(CheckFailed, match=r"Vacuous: seed 1, .*never injected: .*refused_sends"):
        run_campaign(1, weather=Faults(), kinds=("update", "user"), duration=10.0)


class NeverRefutes(Swim):
    """Planted fault: believes what others say of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transitions.refute = lambda *arguments: None  # type: ignore[method-assign]


class TakesStale(Swim):
    """Planted fault: takes any alive claim, however old."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        alive = self._transitions.alive

        def take(claim: Alive, now: float, **options: Any) -> None:
            alive(claim, now, **{**options, "takeover": True})

        self._transitions.alive = take  # type: ignore[method-assign]


class UpdatesInPlace(Swim):
    """Planted fault: changes its metadata under one incarnation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        core = self._core

        def stay() -> int:
            core.incarnation = max(1, core.incarnation)
            return core.incarnation

        core.next_incarnation = stay  # type: ignore[method-assign]


@pytest.mark.parametrize("machine", [NeverRefutes, TakesStale, UpdatesInPlace])
def test_a_campaign_finds_a_fault_in_the_machine(machine: type[Swim]) -> None:
    for seed in range(1, 8):
        try:
            run_campaign(seed, members=6, machine=machine)
        except CheckFailed as failed:
            assert failed.seed == seed
            assert f"seed {seed}, t=" in str(failed)
            assert failed.checker != "Vacuous"
            return
    pytest.fail("seven campaigns noticed nothing")
