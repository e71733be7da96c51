"""A runtime directory of the test's own, with agents that are none but whose control planes are real."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mycorrizal._runtime.control.server import ControlService
from mycorrizal._runtime.host.agentrecord import AgentRecord
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal.cli.app import app
from tests._control.fake import FakeAgent

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command line looks for agents; none are there yet."""
    path = tmp_path / "run"
    monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", str(path))
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., FakeAgent]]:
    """Start a fake agent with a real control plane, and publish it as agents do."""
    with ExitStack() as stack:

        def begin(name: str = "alice", cluster: str = "default", *, control: bool = True) -> FakeAgent:
            agent = FakeAgent(name)
            agent.cluster = cluster
            claim = stack.enter_context(RuntimeDir().claim(cluster, name))
            commands, events = (f"ipc://{claim.socket_path(kind)}" for kind in ("control", "events"))
            record = AgentRecord(name, cluster, os.getpid(), "127.0.0.1", 7946)
            if control:
                plane = ControlService(agent, commands=commands, events=events, facts={"version": "1", "pid": 5})
                stack.callback(plane.close)
                agent.plane = plane
                record = AgentRecord(name, cluster, os.getpid(), "127.0.0.1", 7946, None, plane.commands, plane.events)
            claim.publish(record)
            stack.callback(agent.gate.set)
            return agent

        yield begin


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def invoke(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=text, prog_name="mycorrizal")

    return invoke


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Run a function on a thread that must end with the test."""
    threads: list[threading.Thread] = []

    def begin(body: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=body))
        threads[-1].start()
        return threads[-1]

    yield begin
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
