"""A host gets another address while its agent runs, as from DHCP: in network namespaces, with real packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_agents import wait_for
from child_lines import Lines

from tests.netlab import Lab

SECONDS = 60.0
NEW = "10.77.0.99"

SCRIPT = """
import json, logging, sys, threading, time
from mycorrizal import Agent

class Notes(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            notes.append(record.getMessage())

notes, happened, served = [], [], []
logging.getLogger("mycorrizal").addHandler(Notes())
name, seed, wire = sys.argv[1:4]
agent = Agent(name, port=7946, key=bytes(range(32)), join=[seed] if seed else [], discover=False, control=False,
              wire=wire, join_timeout=60)
events = agent.events()
threading.Thread(target=lambda: happened.extend((e.kind, e.node.name) for e in events), daemon=True).start()

@agent.on_request("slow")
def slow(request):
    served.append(request.value)
    time.sleep(request.value)
    return name

cache = agent.cache("numbers", replicas=1)
print(json.dumps("ready"), flush=True)

def answer(order):
    match order["do"]:
        case "where": return {node.name: node.host for node in agent.members()}
        case "happened": return happened
        case "notes": return notes
        case "problems": return list(agent.health().problems)
        case "set": cache[order["key"]] = order["value"]
        case "get": return cache.get(order["key"], None)
        case "setting": agent.settings[order["key"]] = order["value"]
        case "settings": return dict(agent.settings)
        case "ask": return agent.request(order["node"], "slow", order["seconds"], timeout=order["seconds"] + 30)

for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:
        print(json.dumps({"error": repr(error)}), flush=True)
agent.close()
"""


class Host:
    """An agent on a host of the lab that does what it is told."""

    def __init__(self, lab: Lab, number: int, wire: str, runtime: Path) -> None:
        self.number = number
        seed = lab.address(0) if number else ""
        command = [sys.executable, "-c", SCRIPT, f"h{number}", seed, wire]
        environment = {**os.environ, "MYCORRIZAL_RUNTIME_DIR": str(runtime)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self.child = lab.popen(number, command, env=environment, **pipes)
        self._lines = Lines(self.child)

    def take(self) -> Any:
        """Return the next answer."""
        answer = json.loads(self._lines.next(SECONDS))
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def tell(self, do: str, **order: Any) -> None:
        """Give an order whose answer is taken later."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return the answer."""
        self.tell(do, **order)
        return self.take()


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
    for path in range(3):
        (tmp_path / f"run{path}").mkdir(mode=0o700)
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
    for path in range(3):
        (tmp_path / f"run{path}").mkdir(mode=0o700)
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
