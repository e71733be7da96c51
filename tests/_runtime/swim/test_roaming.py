"""Who looks after the address that the others were told: when, what for, and what is said. No real address changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import Config, ConfigError, Node
from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.swim import roaming
from mycorrizal._runtime.swim.roaming import Roaming, has_address, replacement
from mycorrizal.types import host_of, pack_host


class Rig:
    """A host whose addresses the test says; jobs and commands run when it says so too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.has = {"10.0.0.5"}
        self.best: str | None = "10.0.0.5"
        self.told: list[str] = []
        self.published: list[str] = []
        self.looks = 0
        self.now = 0.0
        self.later: list[Callable[[], None]] = []
        self.takes = True
        self.members = 1
        machine = SimpleNamespace(
            members=lambda: range(self.members), local_node=Node("a", pack_host("10.0.0.5"), 7946), moved=self.moved
        )
        mailbox = SimpleNamespace(tell=lambda command: command(self.now))
        pool = SimpleNamespace(submit=self.submit)
        monkeypatch.setattr(roaming, "has_address", self.has_address)
        monkeypatch.setattr(roaming, "replacement", self.replacement)
        self.machine = machine
        config = Config.lan(**{"name": "a", "bind_addr": "0.0.0.0", **settings})
        self.roaming = Roaming(config, machine, mailbox, pool)  # type: ignore[arg-type]
        self.roaming.on_moved = lambda node: self.published.append(node.host)

    def has_address(self, host: str) -> bool:
        self.looks += 1
        return host in self.has

    def replacement(self, config: Config, gone: str) -> bytes:
        if self.best is None:
            raise ConfigError("advertise_addr", "none")
        return pack_host(self.best)

    def moved(self, addr: bytes, now: float) -> bool:
        self.told.append(host_of(addr))
        if self.takes:
            self.machine.local_node = Node("a", addr, 7946)
        return self.takes

    def submit(self, lane: object, run: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        def job() -> None:
            try:
                result = run()
            except Exception as error:
                done(None, error)
            else:
                done(result, None)

        self.later.append(job)

    def look(self) -> None:
        """Let an interval pass, and whatever was begun end."""
        self.now += 1.0
        self.roaming.look(self.now)
        while self.later:
            self.later.pop(0)()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_the_new_address_is_told_and_published_once(rig: Rig) -> None:
    rig.look()
    assert (rig.told, rig.roaming.lost) == ([], False)
    rig.has, rig.best = {"10.0.0.9"}, "10.0.0.9"
    for _ in range(3):
        rig.look()
    assert (rig.told, rig.published, rig.roaming.lost) == (["10.0.0.9"], ["10.0.0.9"], False)


def test_as_long_as_the_host_has_it_another_one_is_no_reason(rig: Rig) -> None:
    rig.has, rig.best = {"10.0.0.5", "10.8.0.1"}, "10.8.0.1"  # a VPN has come up, and has the default route
    rig.look()
    assert rig.told == []
    rig.has = {"10.8.0.1"}
    rig.look()
    assert rig.told == ["10.8.0.1"]


def test_home_is_where_it_goes_when_the_host_has_that_again(rig: Rig) -> None:
    """A VPN that comes and goes: while it is away the host has another address, at which its members reach nobody."""
    rig.look()
    rig.has, rig.best = {"192.168.1.5"}, "192.168.1.5"
    rig.look()
    rig.has = {"192.168.1.5", "10.0.0.5"}
    for _ in range(8):
        rig.look()
    assert rig.told == ["192.168.1.5"], "not at once: it may come and go"
    for _ in range(8):
        rig.look()
    assert rig.told == rig.published == ["192.168.1.5", "10.0.0.5"]
    rig.has = {"10.0.0.5"}
    rig.look()
    assert rig.told == ["192.168.1.5", "10.0.0.5"] and not rig.roaming.lost


@pytest.mark.parametrize(
    ("bind", "gone", "routed", "others", "expected"),
    [
        ("0.0.0.0", "10.0.0.5", [], ["172.17.0.1", "10.0.0.9"], "10.0.0.9"),
        ("0.0.0.0", "10.0.0.5", ["192.168.1.5"], ["172.17.0.1", "10.0.0.9"], "10.0.0.9"),
        ("0.0.0.0", "10.0.0.5", ["192.168.1.5"], ["172.17.0.1"], "192.168.1.5"),
        ("0.0.0.0", "192.168.1.5", [], ["127.0.0.1", "172.17.0.1", "192.168.122.1"], None),
        ("0.0.0.0", "10.0.0.5", ["8.8.8.8"], [], None),
        ("0.0.0.0", "10.0.0.5", ["fd00::9"], [], None),
        ("::", "fd00::5", ["192.168.1.5", "fd00:0:0:1::9"], ["fd00::9", "fe80::1"], "fd00::9"),
        ("::", "2a00:1450::5", ["2a00:1450::9"], ["fe80::1", "::1"], "2a00:1450::9"),
        ("::", "2a00:1450::5", ["2a00:1450:0:7::9"], ["fe80::1", "::1"], "2a00:1450:0:7::9"),
    ],
)
def test_what_comes_in_its_place_is_near_or_leads_outside(
    monkeypatch: pytest.MonkeyPatch, bind: str, gone: str, routed: list[str], others: list[str], expected: str | None
) -> None:
    """While DHCP renews a lease a host has the addresses of its bridges, which no other host can dial."""
    monkeypatch.setattr(addresses, "routed", lambda: routed)
    monkeypatch.setattr(addresses, "interface_addresses", lambda: [*routed, *others])
    config = Config.lan(name="a", bind_addr=bind)
    if expected is None:
        with pytest.raises(ConfigError):
            replacement(config, gone)
    else:
        assert host_of(replacement(config, gone)) == expected


def test_it_is_looked_once_an_interval(rig: Rig) -> None:
    for tenth in range(50):
        rig.roaming.look(tenth / 10)
    assert rig.looks == 5


def test_without_any_address_it_is_said_once_and_looked_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.has, rig.best = set(), None
    for _ in range(3):
        rig.look()
    assert rig.roaming.lost
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    rig.has, rig.best = {"10.0.0.9"}, "10.0.0.9"
    rig.look()
    assert (rig.told, rig.roaming.lost) == (["10.0.0.9"], False)


def test_a_lease_that_comes_back_is_no_move(rig: Rig) -> None:
    rig.has, rig.best = set(), None
    rig.look()
    rig.has = {"10.0.0.5"}
    rig.look()
    assert (rig.told, rig.roaming.lost) == ([], False)


def test_an_address_that_is_refused_is_a_problem(rig: Rig) -> None:
    rig.has, rig.best, rig.takes = {"10.0.0.9"}, "10.0.0.9", False
    rig.look()
    assert rig.roaming.lost


def test_only_one_search_at_a_time(rig: Rig) -> None:
    rig.has = set()
    for second in (1.0, 2.0, 3.0):
        rig.roaming.look(second)
    assert len(rig.later) == 1


def test_no_thread_for_the_search_is_another_look(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("full")

    rig.has, rig.best = {"10.0.0.9"}, "10.0.0.9"
    with monkeypatch.context() as patched:
        patched.setattr(rig.roaming._pool, "submit", full)
        rig.look()
    assert rig.told == []
    rig.look()
    assert rig.told == ["10.0.0.9"]


def test_bound_to_one_address_it_can_only_say_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(monkeypatch, bind_addr="10.0.0.5")
    rig.has = {"10.0.0.9"}
    for _ in range(3):
        rig.look()
    assert (rig.told, rig.roaming.lost) == ([], True)
    assert ["0.0.0.0" in r.getMessage() for r in caplog.records] == [True]
    rig.has = {"10.0.0.5"}
    rig.look()
    assert not rig.roaming.lost


@pytest.mark.parametrize(
    "settings", [{"follow_address": False}, {"advertise_addr": "203.0.113.9"}, {"bind_addr": "127.0.0.1"}]
)
def test_where_it_is_the_users_word_nobody_looks(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    rig = Rig(monkeypatch, **settings)
    rig.has = set()
    rig.look()
    assert (rig.looks, rig.told, rig.roaming.lost) == (0, [], False)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("10.0.0.5", []), ("192.168.7.5", ["192.168.7.5"]), ("127.0.0.1", []), ("8.8.8.8", []), ("fd00::5", []),
        (None, []),
    ],
)  # fmt: skip
def test_of_several_addresses_the_one_is_told_from_which_the_seed_is_reached(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, source: str | None, told: list[str]
) -> None:
    monkeypatch.setattr(addresses, "source_towards", lambda host: source)
    rig.roaming.towards("192.168.7.1", 0.0)
    assert rig.told == told


def test_who_knows_others_does_not_move_for_a_seed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "source_towards", lambda host: "192.168.7.5")
    rig.members = 2
    rig.roaming.towards("192.168.7.1", 0.0)
    assert rig.told == []


@pytest.mark.parametrize("settings", [{"follow_address": False}, {"bind_addr": "10.0.0.5"}])
def test_who_may_not_follow_does_not_for_a_seed(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    monkeypatch.setattr(addresses, "source_towards", lambda host: "192.168.7.5")
    rig = Rig(monkeypatch, **settings)
    rig.roaming.towards("192.168.7.1", 0.0)
    assert rig.told == []


def test_the_address_that_the_seed_needs_is_home(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "source_towards", lambda host: "192.168.7.5")
    rig.has = {"10.0.0.5", "192.168.7.5"}
    rig.look()
    rig.roaming.towards("192.168.7.1", 0.0)
    for _ in range(20):
        rig.look()
    assert rig.told == rig.published == ["192.168.7.5"]


def test_source_towards() -> None:
    assert addresses.source_towards("127.0.0.1") == "127.0.0.1"
    assert addresses.source_towards("127.9.9.9") is not None


def test_has_address() -> None:
    assert has_address("127.0.0.1")
    assert not has_address("203.0.113.9"), "a host has no address of the documentation's"
