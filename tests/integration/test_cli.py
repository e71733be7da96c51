"""The command line in processes of its own, against real agents that it started itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, MemberLeft, UserEvent
from mycorrizal.cli import demo

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

pytestmark = pytest.mark.usefixtures("runtime_dir")

COMMAND = [sys.executable, "-m", "mycorrizal"]
PATIENCE = 60.0


class Done:
    """How a command ended."""

    def __init__(self, *arguments: str, text: str | None = None, **options: Any) -> None:
        options = {"input": text, "capture_output": True, "text": True, "timeout": PATIENCE, **options}
        done = subprocess.run([*COMMAND, *arguments], check=False, **options)
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Foreground:
    """A command that goes on: ``mycorrizal agent`` or ``events``, with --json."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def line(self) -> Any:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.communicate(timeout=PATIENCE)[1]
        return json.loads(text)

    def until(self, topic: str) -> Any:
        """Return the value of the next event of `topic`."""
        while True:
            told = self.line()
            if told["topic"] == topic:
                return told["value"]

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Send a signal, if any, and return exit code and errors."""
        if number is not None:
            self.process.send_signal(number)
        err = self.process.communicate(timeout=PATIENCE)[1]
        return self.process.returncode, err

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def begin() -> Iterator[Callable[..., Foreground]]:
    """Start a command that goes on; it is killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: str, **options: Any) -> Foreground:
            made = Foreground(*arguments, **options)
            stack.callback(made.close)
            return made

        yield make


def test_agents_of_the_command_line_and_of_a_program_are_one_cluster(
    begin: Callable[..., Foreground],
    agents: Make,  # noqa: F811
) -> None:
    alice = begin("agent", "--name", "alice", "--cache", "scores", "--tag", "role=web")
    start = alice.until("agent.started")
    assert (start["name"], start["cluster"], start["members"]) == ("alice", "default", 1)
    bob = agents("bob")
    bob.on_request("double")(lambda request: request.value * 2)
    assert alice.until("event.member_joined")["node"]["name"] == "bob"
    chosen = ("--agent", "alice")

    members = Done("members", "--json", "--wait", "2", *chosen).json
    assert [(one["name"], one["tags"]) for one in members] == [("alice", {"role": "web"}), ("bob", {})]
    assert Done("send", "bob", '{"step": 1}', *chosen).code == 0
    assert bob.receive(10).value == {"step": 1}
    bob.send("alice", [1, "two"])
    assert alice.until("message") == {"sender": "bob", "value": [1, "two"]}
    assert Done("request", "bob", "double", "[1]", "--json", *chosen).json == [1, 1]
    assert Done("request", "bob", "nothing", *chosen).code == 1
    assert Done("request", "nobody", "double", "--timeout", "3", *chosen).code in (1, 4)

    with bob.subscribe("deploy") as told:
        assert Done("broadcast", "deploy", "7", *chosen).code == 0
        event = told.get(10)
        assert isinstance(event, UserEvent) and (event.value, event.sender) == (7, "alice")
    assert alice.until("event.user.deploy")["value"] == 7

    assert Done("settings", "set", "limit", "5", *chosen).code == 0
    until(lambda: bob.settings.get("limit") == 5)
    bob.settings["mode"] = "fast"
    until(lambda: Done("settings", "get", "mode", *chosen).out == "fast\n", 30)
    bob.services.register("api", port=80, meta={"v": 1})
    until(lambda: Done("services", "list", "api", "--json", *chosen).json, 30)
    assert Done("services", "register", "web", "--port", "81", *chosen).code == 0
    until(lambda: [one.node for one in bob.services.find("web")] == ["alice"])
    assert Done("tags", "role=db", *chosen).code == 0
    until(lambda: {one.name: one.tags.get("role") for one in bob.members()}["alice"] == "db")
    assert Done("health", "--json", *chosen).json["members"] == 2
    assert Done("peers", "--json", *chosen).json[0]["name"] == "bob"

    assert Done("cache", "set", "scores", "x", "1", "--ttl", "100").code == 0  # whichever of the two is asked
    assert bob.open_cache("scores")["x"] == 1
    assert 0 < Done("cache", "ttl", "scores", "x").json <= 100
    assert Done("cache", "create", "more", "--replicas", "1", *chosen).code == 0
    assert [one["name"] for one in Done("cache", "list", "--json").json] == ["more", "scores"]
    assert sorted(bob.caches()) == ["more", "scores"]
    found = Done("status", "--json", *chosen).json
    assert (found["agent"], found["members"], found["caches"]) == ("alice", {"alive": 2}, ["more", "scores"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_agent_leaves_in_order_when_it_is_told_to_stop(
    begin: Callable[..., Foreground],
    agents: Make,  # noqa: F811
    number: signal.Signals,
) -> None:
    bob = agents("bob")
    alice = begin("agent", "--name", "alice")
    alice.until("agent.started")
    bob.wait_for(2)
    with bob.events() as events:
        code, err = alice.end(number)
        assert (code, err) == (0, "")
        event = events.get(10)
    assert isinstance(event, MemberLeft) and event.node.name == "alice"
    assert Done("info", "--agent", "alice").code == 3


def test_shutdown_ends_an_agent_and_those_who_watch_it(begin: Callable[..., Foreground]) -> None:
    alice = begin("agent", "--name", "alice")
    alice.until("agent.started")
    watcher = begin("events")
    until(lambda: Done("metrics", "--json").json["control.subscribers"] >= 1, 30)
    Done("broadcast", "hello")
    assert watcher.until("event.user.hello")["sender"] == "alice"
    assert Done("shutdown").code == 0
    assert alice.end() == (0, "")
    code, err = watcher.end()
    assert code == 3 and "has ended" in err
    assert Done("members").code == 3


def test_events_end_with_130_at_ctrl_c(begin: Callable[..., Foreground], agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    watcher = begin("events")
    until(lambda: alice.metrics()["control.subscribers"], 30)
    alice.broadcast("hello")
    watcher.until("event.user.hello")
    assert watcher.end(signal.SIGINT) == (130, "\n")


def test_agent_that_cannot_start_says_why(agents: Make) -> None:  # noqa: F811
    agents("alice")
    taken = Done("agent", "--name", "alice")
    assert taken.code != 0 and "alice" in taken.err and "Traceback" not in taken.err
    refused = Done("agent", "--bind", "0.0.0.0", "--name", "bob")
    assert refused.code == 2 and "keygen" in refused.err
    nobody = Done("agent", "--name", "carol", "--join", "127.0.0.1:1", "--join-timeout", "2")
    assert nobody.code != 0 and "127.0.0.1:1" in nobody.err and "Traceback" not in nobody.err


def test_agent_without_a_key_beside_go_peers_says_who_gets_in(begin: Callable[..., Foreground]) -> None:
    alice = begin("agent", "--name", "alice", "--wire", "msgpack", "--port", "0")
    alice.until("agent.started")
    health = Done("health", "--json")
    assert health.code == 1 and "no key: every user of this host" in health.out
    code, errors = alice.end(signal.SIGTERM)
    assert code == 0
    assert errors.splitlines()[0].startswith("Warning: no key: every user of this host can join, read and forge")


def test_key_comes_from_a_file_or_the_environment(begin: Callable[..., Foreground], tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert Done("keygen", "--out", str(path)).code == 0
    alice = begin("agent", "--name", "alice", "--bind", "127.0.0.1", "--key-file", str(path))
    address = alice.until("agent.started")
    bob = begin(
        *("agent", "--name", "bob", "--bind", "127.0.0.1", "--join", f"127.0.0.1:{address['port']}"),
        env={**os.environ, "MYCORRIZAL_KEY_FILE": str(path)},
    )
    assert bob.until("agent.started")["members"] == 2
    (first,) = Done("keys", "list", "--json", "--agent", "alice").json
    new = tmp_path / "new"
    assert Done("keygen", "--out", str(new)).code == 0
    for verb in ("add", "use"):
        done = Done("keys", verb, "--key-file", str(new), "--json", "--agent", "alice")
        assert done.json == {"alice": True, "bob": True}
    second, old = Done("keys", "list", "--json", "--agent", "bob").json
    assert old == first != second
    assert Done("keys", "remove", "--key-file", str(path), "--agent", "bob").code == 0
    assert Done("keys", "list", "--json", "--agent", "alice").json == [second]
    for process in (alice, bob):
        secret = path.read_text().strip()
        command_line = Path(f"/proc/{process.process.pid}/cmdline").read_bytes()
        assert secret.encode() not in command_line


@pytest.mark.usefixtures("need_root")
def test_another_user_gets_in_nowhere(agents: Make, runtime_dir: str) -> None:  # noqa: F811
    agents("alice")
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from mycorrizal.__main__ import main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv = ["mycorrizal", "members"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE, cwd="/"
    )
    assert done.returncode in (1, 2) and "alice" not in done.stdout
    os.chmod(runtime_dir, 0o755)  # whatever the owner does to it, the sockets stay closed
    connect = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
for name in os.listdir({runtime_dir!r}):
    path = os.path.join({runtime_dir!r}, name)
    try:
        if name.endswith((".control", ".events")):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path).read()
    except PermissionError:
        continue
    print("open:", name)
"""
    seen = subprocess.run([sys.executable, "-c", connect], capture_output=True, text=True, check=False, timeout=30)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "control" not in seen.stdout and "events" not in seen.stdout and "key" not in seen.stdout


@pytest.mark.slow
def test_the_demo_plays_to_its_end() -> None:
    done = Done("demo", timeout=180.0)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1].startswith("OK: three nodes knew each other")


def test_the_demo_fails_when_something_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A play whose second chapter waits for what cannot come ends with 1, and with no process left."""

    def in_vain(stage: demo.Stage) -> None:
        """Wait for somebody who is not there."""
        stage.wait("dave", {("dave", "ready")})

    lines: list[str] = []
    monkeypatch.setattr(demo, "PATIENCE", 0.5)
    monkeypatch.setattr(demo, "CHAPTERS", (in_vain,))
    assert demo.direct(lines.append) == 1
    assert "FAILED: dave: still waiting" in lines[-1]


def test_a_second_agent_in_this_process_needs_a_choice(agents: Make) -> None:  # noqa: F811
    first: Agent = agents("alice")
    agents("bob")
    assert Done("members").code == 0
    done = Done("info")
    assert done.code == 2 and "--agent alice --cluster default" in done.err
    assert Done("info", "--json", "--agent", "alice").json["boot"] == first.boot.hex()
    with tempfile.TemporaryDirectory() as empty:
        assert Done("members", env={**os.environ, "MYCORRIZAL_RUNTIME_DIR": f"{empty}/none"}).code == 3
