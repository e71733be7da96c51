"""Agents whose process lacks something, and processes that end; ``tools/chaos resources`` has more, for longer."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from campaigns.resources import exits as chaos_resources_exits
from campaigns.resources import trials as chaos_resources
from mycorrizal._runtime.host.rundir import RuntimeDir

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import ROOT


@pytest.mark.slow
def test_agent_without_descriptors_is_well_once_there_are_some() -> None:
    assert chaos_resources.run("descriptors", chaos_resources.descriptors).wrong == []


@pytest.mark.slow
def test_stuck_handlers_hold_up_nothing_else() -> None:
    assert chaos_resources.run("handlers", partial(chaos_resources.handlers, seconds=6.0)).wrong == []


@pytest.mark.slow
def test_processes_that_end_leave_nothing_in_the_way() -> None:
    ways = ("return", "exception", "in flight")
    assert chaos_resources.run("exits", partial(chaos_resources_exits.exits, ways=ways)).wrong == []


_STARVED = """
import os, resource, sys
from campaigns.resources.node import count_as_another_user
from mycorrizal import Agent, ResourcesExhausted
from mycorrizal.control import ControlClient, ControlService

count_as_another_user()
agent = Agent("bob", bind="127.0.0.1", port=0, discover=False, control=False, key=bytes(range(32)))
address = {kind: f"ipc://{sys.argv[4]}/{kind}" for kind in ("commands", "events")}

def ask():
    with ControlClient(sys.argv[1], timeout=20) as client:
        return client.call("ping")["name"]

def serve():
    service = ControlService(agent, **address)
    service.close()

def refused(call, *kinds):
    try:
        call()
    except kinds as error:
        return error
    return None

kind = getattr(resource, f"RLIMIT_{sys.argv[2]}")
soft, hard = resource.getrlimit(kind)
found = []
for few in range(int(sys.argv[3])):
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = [number for number in range(1000) if number not in taken]
    resource.setrlimit(kind, (free[few] if sys.argv[2] == "NOFILE" else 1, hard))
    error = refused(ask, ResourcesExhausted)
    assert error is None or (error.operation == "connect" and error.retriable), error
    served = refused(serve, ResourcesExhausted)
    found.append((error is None, served is None))
    resource.setrlimit(kind, (soft, hard))
for each in zip(*found):
    assert not each[0] and list(each) == sorted(each), found  # refused, until there is enough
    assert len(each) == 1 or each[-1], found
serve()
print(ask())
"""


@pytest.mark.usefixtures("need_root")
@pytest.mark.parametrize(("kind", "rounds"), [("NOFILE", 65), ("NPROC", 1)])
def test_process_without_descriptors_or_threads_goes_on_beside_a_control_plane_and_its_client(
    agents: Make,  # noqa: F811
    runtime_dir: str,  # noqa: F811
    tmp_path: Path,
    kind: str,
    rounds: int,
) -> None:
    """At each number of free descriptors. libzmq, the client's, ends the process where it cannot start."""
    agents("alice", port=0)
    (alice,) = RuntimeDir().agents()
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT}/tools", "MYCORRIZAL_RUNTIME_DIR": runtime_dir}
    command = [sys.executable, "-c", _STARVED, str(alice.control), kind, str(rounds), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environ)
    assert (done.returncode, done.stdout.strip()) == (0, "alice"), done.stderr
