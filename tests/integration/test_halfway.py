"""A constructor that fails at any of its steps leaves nothing behind, and says what is short.

Each construction is tried again and again; in try `k` the k-th call for something of the system's (a descriptor, a
thread, a file, a lock) is refused, until one try needs no more calls than were let through.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import gc
import os
import selectors
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, ControlClient, DataPlane, Memberlist, MycorrizalError, ResourcesExhausted
from mycorrizal._runtime.control.server import ControlService
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal._runtime.shared.settingsfile import SettingsFile
from mycorrizal._runtime.threads import lifecycle

from .agents import QUICK, runtime_dir
from .conftest import Recorder, fast

__all__ = ["runtime_dir"]

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")

STEPS_MAX = 400
SECONDS = 3.0
"""How long threads that were told to end may take to it."""


def _no_thread() -> Exception:
    return RuntimeError("can't start new thread")


def _no_descriptor() -> Exception:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _no_room() -> Exception:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_memory() -> Exception:
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


STEPS: list[tuple[Any, str, Callable[[], Exception]]] = [
    (threading.Thread, "start", _no_thread),
    (socket, "socketpair", _no_descriptor),
    (socket.socket, "bind", _no_memory),
    (socket.socket, "listen", _no_memory),
    (socket.socket, "setblocking", _no_memory),
    (socket.socket, "getsockname", _no_memory),
    (os, "eventfd", _no_descriptor),
    (os, "open", _no_descriptor),
    (os, "mkdir", _no_room),
    (os, "link", _no_room),
    (os, "replace", _no_room),
    (os, "pwrite", _no_room),
    (os, "ftruncate", _no_room),
    (os, "chmod", _no_room),
    (fcntl, "flock", lambda: OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))),
    (builtins, "open", _no_descriptor),
    (sqlite3, "connect", lambda: sqlite3.OperationalError("unable to open database file")),
    (selectors.EpollSelector, "__init__", _no_descriptor),
    (selectors.EpollSelector, "register", _no_memory),
    (selectors.PollSelector, "register", _no_memory),
]


class Refusals:
    """Refuses the k-th step, counted over all kinds and threads."""

    def __init__(self) -> None:
        self.left = -1  # < 0: refuses nothing
        self.refused = ""
        self._lock = threading.Lock()

    def step(self, name: str, error: Callable[[], Exception]) -> None:
        with self._lock:
            if self.left < 0:
                return
            self.left -= 1
            if self.left >= 0:
                return
            self.refused = name
        raise error()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name, error in STEPS:
            label = f"{getattr(owner, '__name__', owner)}.{name}"
            patch.setattr(owner, name, self._checked(getattr(owner, name), label, error))
        made = socket.socket.__init__

        def init(one: socket.socket, *args: Any, **more: Any) -> None:
            if len(args) < 4 and more.get("fileno") is None:  # else the descriptor exists already: accept, socketpair
                self.step("socket.socket", _no_descriptor)
            made(one, *args, **more)

        patch.setattr(socket.socket, "__init__", init)

    def _checked(self, function: Callable[..., Any], label: str, error: Callable[[], Exception]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.step(label, error)
            return function(*args, **more)

        return call


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusals]:
    with monkeypatch.context() as patch:
        one = Refusals()
        one.install(patch)
        yield one
        one.left = -1


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return {number: to for number, to in found.items() if not to.endswith("/fd")}


def _files(folders: tuple[str, ...]) -> set[str]:
    return {str(path) for folder in folders for path in Path(folder).rglob("*")}


def _state(folders: tuple[str, ...]) -> dict[str, Any]:
    return {
        "descriptors": _descriptors(),
        "threads": {thread.name for thread in threading.enumerate()},
        "files": _files(folders),
        "running": {type(one).__name__ for one in list(lifecycle._running)},
    }


def _same(before: dict[str, Any], folders: tuple[str, ...], what: str) -> None:
    until = time.monotonic() + SECONDS
    while (now := _state(folders)) != before and time.monotonic() < until:
        time.sleep(0.01)
    for kind, had in before.items():
        has = now[kind]
        if has != had:
            more = set(has.items()) - set(had.items()) if isinstance(has, dict) else has - had
            less = set(had.items()) - set(has.items()) if isinstance(has, dict) else had - has
            pytest.fail(f"{what}: {kind} more {sorted(more)}, less {sorted(less)}")


def every_step(refusals: Refusals, make: Callable[[], Any], end: Callable[[Any], object], *folders: str) -> list[str]:
    """Refuse each step of `make` in turn, and check what is left; return the steps at which it failed."""
    end(make())  # what is made once for all: modules, directories, keys
    gc.collect()
    before: dict[str, Any] = {}
    while (now := _state(folders)) != before:  # threads of it end in their own time
        before = now
        time.sleep(0.2)
    failed = []
    for number in range(STEPS_MAX):
        refusals.left, refusals.refused = number, ""
        try:
            made = make()
        except MycorrizalError as error:
            what = f"step {number}, {refusals.refused}: {error!r}"
            refusals.left = -1
            assert refusals.refused, what
            failed.append(refusals.refused)
            if refusals.refused == "fcntl.flock":
                RuntimeDir().agents()  # whoever could not lock a file must not remove it; the next who looks may
            _same(before, folders, what)  # with the error and its traceback alive
            if refusals.refused == "Thread.start":
                assert isinstance(error, ResourcesExhausted), what
            assert error.hint, what
        except Exception as error:
            pytest.fail(f"step {number}, {refusals.refused}: not ours: {error!r}")
        else:
            over = refusals.left >= 0
            refusals.left = -1
            end(made)
            del made
            _same(before, folders, f"step {number}, {refusals.refused}: made all the same, and closed")
            if over:
                return failed
    raise AssertionError(f"more than {STEPS_MAX} steps")


def test_memberlist(refusals: Refusals) -> None:
    failed = every_step(
        refusals, lambda: Memberlist(fast("alice"), delegate=Recorder(), events=Recorder()), Memberlist.shutdown
    )
    assert {"Thread.start", "socket.socket", "socket.socketpair", "socket.bind"} <= set(failed)


def test_data_plane(refusals: Refusals) -> None:
    failed = every_step(refusals, lambda: DataPlane("alice", key=bytes(range(32))), DataPlane.close)
    assert {"Thread.start", "socket.socket", "os.eventfd"} <= set(failed)


def test_agent(refusals: Refusals, runtime_dir: str, tmp_path: Path) -> None:
    """With everything an agent can have: settings file, control plane, a key file, seeds."""

    def make() -> Agent:
        return Agent(
            "alice", config=QUICK, settings_file=str(tmp_path / "settings.db"), config_file=False,
            join=["local://"], join_timeout=5.0,
        )  # fmt: skip

    failed = every_step(refusals, make, Agent.close, runtime_dir)
    assert {"Thread.start", "socket.socket", "os.open", "fcntl.flock"} <= set(failed)


def test_agent_in_a_new_directory(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the directory itself is left of a first agent that fails."""
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", f"{folder}/run")

        def make() -> Agent:
            for path in Path(folder, "run").glob("*.key"):
                path.unlink()
            return Agent("alice", config=QUICK, config_file=False)

        def files(agent: Agent) -> None:
            agent.close()
            for path in Path(folder, "run").glob("*.key"):
                path.unlink()

        every_step(refusals, make, files)
        assert [path.name for path in Path(folder, "run").iterdir() if path.suffix != ".key"] == []


def test_control_plane_and_its_client(refusals: Refusals, runtime_dir: str) -> None:
    commands, events = f"ipc://{runtime_dir}/c", f"ipc://{runtime_dir}/e"
    with Agent("alice", config=QUICK, control=False, config_file=False) as agent:

        def serve() -> ControlService:
            return ControlService(agent, commands=commands, events=events)

        every_step(refusals, serve, ControlService.close, runtime_dir)
        service = serve()
        try:

            def ask() -> None:
                with ControlClient(service.commands, 5.0) as client:
                    assert client.call("ping")["name"] == "alice"
                    client.events().close()

            every_step(refusals, ask, lambda nothing: None, runtime_dir)
        finally:
            service.close()


def test_names_and_files(refusals: Refusals, runtime_dir: str, tmp_path: Path) -> None:
    every_step(
        refusals, lambda: RuntimeDir().claim("garden", "alice"), lambda claim: claim.release(), runtime_dir
    )
    every_step(
        refusals,
        lambda: SettingsFile(str(tmp_path / "one.db"), "alice", lambda keys: {}),
        lambda file: file._database.close(),
        runtime_dir,
    )


def test_what_a_running_agent_opens(refusals: Refusals, runtime_dir: str) -> None:
    """A cache, a watch, a service with a check, calls with futures."""
    with Agent("alice", config=QUICK, config_file=False) as agent:
        def watch() -> None:
            agent.settings.watch("a*", lambda change: None).close()

        def check() -> None:
            agent.services.register("api", check=lambda: True, interval=60)
            agent.services.deregister("api")

        def cache() -> None:
            agent.cache("jobs")["a"] = 1

        def stream() -> None:
            with agent.events():
                pass

        for make in (watch, check, cache, stream):
            every_step(refusals, make, lambda nothing: None, runtime_dir)

