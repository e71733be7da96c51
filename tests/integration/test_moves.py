"""A host gets another address while its agent runs, as from DHCP: in network namespaces, with real packets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns.agents import wait_for
from lab.netlab import Lab

from .movers import SECONDS, Host

NEW = "10.77.0.99"


@pytest.fixture
def lab(need_network_namespace: None) -> Iterator[Lab]:
    with Lab(3) as lab:
        yield lab


def start(lab: Lab, wire: str, tmp_path: Path) -> list[Host]:
    """Return three agents that know each other and have connections, a cache and a setting."""
    hosts: list[Host] = []
    for number in range(3):
        hosts.append(Host(lab, number, wire, tmp_path / f"run{number}"))
        assert hosts[-1].take() == "ready"
    wait_for("all see all", lambda: all(len(host.ask("where")) == 3 for host in hosts), SECONDS)
    for host in hosts:
        for number in range(10):
            host.ask("set", key=f"{host.number}/{number}", value=number)
        for other in hosts:
            if other is not host:
                assert host.ask("ask", node=f"h{other.number}", seconds=0) == f"h{other.number}"
    return hosts


def followed(hosts: list[Host], address: str) -> bool:
    return all(host.ask("where").get("h1") == address for host in hosts)


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_an_agent_is_followed_with_all_that_it_has(lab: Lab, wire: str, tmp_path: Path) -> None:
    hosts = start(lab, wire, tmp_path)
    before = [len(host.ask("happened")) for host in hosts]
    # Requests are under way both ways while it happens, and are answered over the same connections.
    hosts[0].tell("ask", node="h1", seconds=8)
    hosts[1].tell("ask", node="h2", seconds=8)
    lab.move(1, NEW)
    assert hosts[0].take() == "h1"
    assert hosts[1].take() == "h2"
    wait_for("all know the new address", lambda: followed(hosts, NEW), SECONDS)
    for host in hosts:
        for other in hosts:
            if other is not host:
                assert host.ask("ask", node=f"h{other.number}", seconds=0) == f"h{other.number}"
        assert [host.ask("get", key=f"{n}/{m}") for n in range(3) for m in range(10)] == 3 * list(range(10))
    hosts[1].ask("setting", key="after", value=1)
    wait_for("what it writes arrives", lambda: all(host.ask("settings") == {"after": 1} for host in hosts), SECONDS)
    for host, count in zip(hosts, before, strict=True):
        news = host.ask("happened")[count:]
        assert [one for one in news if one[0] != "update"] == [], "nobody flaps"
        notes = host.ask("notes")
        assert not [note for note in notes if "firewall" in note or "UDP" in note or "TCP" in note], notes
    wait_for("nobody has a problem", lambda: all(host.ask("problems") == [] for host in hosts), SECONDS)


@pytest.mark.slow
def test_a_moment_without_any_address(lab: Lab, tmp_path: Path) -> None:
    hosts = start(lab, "cbor", tmp_path)
    before = [len(host.ask("happened")) for host in hosts]
    lab.move(1, NEW, gap=True)
    wait_for("all know the new address", lambda: followed(hosts, NEW), SECONDS)
    for host, count in zip(hosts, before, strict=True):
        assert [one for one in host.ask("happened")[count:] if one[0] != "update"] == []
    # A new agent of the host finds the one that is there by the record that it keeps for others.
    [record] = (tmp_path / "run1").rglob("*.agent")
    wait_for("its host's programs know", lambda: json.loads(record.read_bytes())["host"] == NEW, SECONDS)
    assert hosts[0].ask("ask", node="h1", seconds=0) == "h1"
    assert hosts[2].ask("get", key="1/3") == 3


@pytest.mark.slow
def test_of_two_interfaces_the_one_that_leads_to_the_seed_is_told(lab: Lab, tmp_path: Path) -> None:
    """The default route leads elsewhere: its address was told, and no member could answer there."""
    lab.detour(1, "10.1.1.1")
    hosts = start(lab, "cbor", tmp_path)
    assert all(host.ask("where")["h1"] == lab.address(1) for host in hosts)
    wait_for("nobody has a problem", lambda: all(host.ask("problems") == [] for host in hosts), SECONDS)
    [record] = (tmp_path / "run1").rglob("*.agent")
    assert json.loads(record.read_bytes())["host"] == lab.address(1)
