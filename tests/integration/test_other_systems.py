"""Systems that lack what Linux has: its functions are taken away in a child process. No real one was ever seen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .agents import runtime_dir  # noqa: F401 - a fixture

LIMIT = 120

BEFORE = """
import os, select, socket, sys

def without(module, *names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

def no_unix_sockets():
    without(socket, 'AF_UNIX')

    def pair(family=None, type=None, proto=0):  # what Windows has in its place
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            return one, listener.accept()[0]

    socket.socketpair = pair

def no_module(*names):
    for name in names:
        sys.modules[name] = None

"""

SYSTEMS = {
    "users": "without(os, 'geteuid', 'getuid', 'getegid', 'getgid')",
    "locks": "no_module('fcntl')",
    "unix_sockets": "no_unix_sockets()",
    "polls": "without(select, 'epoll', 'poll'); without(os, 'sched_getaffinity', 'sched_yield', 'pwrite', 'eventfd')",
    "processes": "without(os, 'register_at_fork', 'fork', 'forkpty', 'kill', 'killpg');"
    " without(os, 'O_NOFOLLOW', 'O_CLOEXEC', 'O_DIRECTORY', 'O_NONBLOCK')",
}
SYSTEMS["all"] = "; ".join(SYSTEMS.values())
"""What is missing, as lines that take it away."""

LIFE = """
import mycorrizal
from mycorrizal import Agent, DataConfig, NameInUse

near = DataConfig(same_host=True)
with Agent("alice", data_config=near, handlers={"echo": lambda request: request.value}) as alice, \\
        Agent("bob", data_config=near) as bob:
    bob.wait_for(2)
    assert bob.request("alice", "echo", 7) == 7
    cache = bob.cache("c")
    cache["k"] = b"v" * 100_000
    assert alice.cache("c")["k"] == cache["k"]
    alice.settings["rate"] = 1
    try:
        Agent("alice")
    except NameInUse:
        pass
    else:
        raise SystemExit("a name was given twice")
    print(*sorted(os.listdir(os.environ["MYCORRIZAL_RUNTIME_DIR"])))
with Agent("alice"):  # the name is free again
    pass
"""


def child(script: str) -> list[str]:
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.usefixtures("runtime_dir")
def test_agents_live_on_a_system_without(system: str) -> None:
    (names,) = child(f"{BEFORE}{SYSTEMS[system]}\n{LIFE}")
    sockets = {name.rpartition(".")[2] for name in names.split()} & {"control", "events", "data"}
    wanted = {"unix_sockets": set(), "all": set(), "polls": {"control", "events"}}
    assert sockets == wanted.get(system, {"control", "events", "data"})


def test_everything_can_be_imported_on_a_system_without_all_of_it() -> None:
    script = """
import importlib, pkgutil, mycorrizal
for found in pkgutil.walk_packages(mycorrizal.__path__, "mycorrizal."):
    if found.name != "mycorrizal.__main__":
        importlib.import_module(found.name)
for name in mycorrizal.__all__:
    getattr(mycorrizal, name)
"""
    child(f"{BEFORE}{SYSTEMS['all']}\n{script}")
