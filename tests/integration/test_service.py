"""``mycorrizal agent`` as a service: what the manager is told, how it ends, and an address behind NAT."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.netlab import Lab
from mycorrizal import ControlClient, MemberLeft
from mycorrizal._runtime.host.rundir import RuntimeDir

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

COMMAND = [sys.executable, "-m", "mycorrizal"]
LIMIT = 60.0
STOP_SECONDS = 10.0
"""What a service manager gives a service to end, at the least."""


class Manager:
    """The socket of a service manager, and what came there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def hear(self, word: str) -> list[str]:
        """Wait for `word`, and return all lines until then."""
        end, lines = time.monotonic() + LIMIT, list[str]()
        while word not in lines:
            self._socket.settimeout(max(0.01, end - time.monotonic()))
            lines += self._socket.recv(4096).decode().splitlines()
        return lines

    def silent(self, seconds: float) -> bool:
        """Return whether nothing comes for so long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        found = Manager(f"{folder}/notify" if request.param == "path" else f"@{folder}")
        yield found
        found.close()


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stopped(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Send SIGTERM; return how long the end took, and all that was printed."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, out
    return time.monotonic() - began, out


def test_manager_is_told_and_sigterm_is_a_goodbye(agents: Make, manager: Manager) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK)
    cache = alice.cache("held", replicas=1)
    news = alice.events()
    told = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "600000"}
    process = start(*COMMAND, "agent", "--name", "bob", "--quiet", **told)
    try:
        assert "STATUS=bob in cluster default" in manager.hear("READY=1")
        alice.wait_for(2)
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        for number in range(100):
            cache.set(str(number), number)
        seconds, out = stopped(process)
        assert "STOPPING=1" in manager.hear("STOPPING=1")
        assert seconds < STOP_SECONDS, out
        while not (isinstance(event := news.get(LIMIT), MemberLeft) and event.node.name == "bob"):
            pass  # a failure is none: it said goodbye
        assert all(cache[str(number)] == number for number in range(100))
    finally:
        process.kill()
        process.communicate()


STUCK = """
import sys, threading, time
from mycorrizal.cli import run
from mycorrizal.__main__ import main

which, follow = sys.argv.pop(), run._follow

def followed(running, *more):
    def stick():
        input()
        parts = running._running
        ask = parts.members._running.mailbox.tell if which == "gossip" else parts.data._started.loop.submit
        ask(lambda now: time.sleep(3600))

    threading.Thread(target=stick, daemon=True).start()
    follow(running, *more)

run._follow = followed
main()
"""


@pytest.mark.parametrize("which", ["gossip", "loop"])
@pytest.mark.parametrize("manager", ["path"], indirect=True)
@pytest.mark.usefixtures("runtime_dir")
def test_watchdog_starves_when_a_thread_is_stuck(manager: Manager, which: str) -> None:
    told = {**os.environ, "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "300000"}
    command = [sys.executable, "-c", STUCK, "agent", "--name", "bob", "--quiet", which]
    process = subprocess.Popen(command, env=told, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        manager.hear("READY=1")
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        until(lambda: manager.silent(2.0), LIMIT)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def lab(need_network_namespace: None) -> Iterator[Lab]:
    with Lab(3) as lab:
        yield lab


class Served:
    """An agent on a host of the lab, as its service starts it."""

    def __init__(self, lab: Lab, host: int, name: str, place: Path, *more: str) -> None:
        place.mkdir(mode=0o700, exist_ok=True)
        self.name = name
        self.env = {**os.environ, "MYCORRIZAL_RUNTIME_DIR": str(place)}
        command = [*COMMAND, "agent", "--name", name, "--json", "--port", "7946", "--quic-port", "7947", *more]
        self.process = lab.popen(host, command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Ask over its control plane; None while there is nobody."""
        records = RuntimeDir(self.env["MYCORRIZAL_RUNTIME_DIR"], create=False).agents()
        if not records or records[0].control is None:
            return None
        with ControlClient(records[0].control) as client:
            return client.call(command, **arguments)

    def where(self) -> dict[str, str]:
        return {member["name"]: member["host"] for member in self.ask("members") or ()}

    def health(self) -> tuple[int, Any]:
        """Return the exit code that a health check looks at, and the problems that it tells."""
        done = subprocess.run([*COMMAND, "health", "--json"], env=self.env, capture_output=True, check=False)
        return done.returncode, json.loads(done.stdout)["problems"] if done.stdout else None


@pytest.mark.slow
def test_service_behind_nat_restarts_at_another_address(lab: Lab, tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    subprocess.run([*COMMAND, "keygen", "--out", str(key)], check=True, capture_output=True)
    common = ("--key-file", str(key), "--no-discover", "--join", lab.address(0), "--join-retry", "60")
    lab.nat(1, "192.168.7.1", "10.77.0.50")
    hosts = [Served(lab, number, f"h{number}", tmp_path / f"run{number}", *common) for number in (0, 2)]
    web = Served(lab, 1, "web", tmp_path / "run1", *common, "--advertise", "10.77.0.50")
    wanted = {"h0": lab.address(0), "h2": lab.address(2), "web": "10.77.0.50"}
    for host in (*hosts, web):
        until(lambda host=host: host.where() == wanted, LIMIT)
    hosts[0].ask("send", node="web", value=1)  # done when it is there
    web.ask("send", node="h2", value=2)
    code, problems = web.health()
    assert code == (1 if problems else 0)  # a busy machine may be one
    began = time.monotonic()
    web.process.send_signal(signal.SIGTERM)
    assert web.process.wait(LIMIT) == 0
    assert time.monotonic() - began < STOP_SECONDS
    for host in hosts:
        until(lambda host=host: set(host.where()) == {"h0", "h2"}, LIMIT)
    assert web.health() == (3, None), "nobody is there to ask"
    lab.nat(1, "192.168.7.1", "10.77.0.51")
    web = Served(lab, 1, "web", tmp_path / "run1", *common, "--advertise", "10.77.0.51")
    wanted["web"] = "10.77.0.51"
    for host in (*hosts, web):
        until(lambda host=host: host.where() == wanted, LIMIT)
    hosts[1].ask("send", node="web", value=3)
